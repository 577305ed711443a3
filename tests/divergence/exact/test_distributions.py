"""Claims about what is taken for a distribution, what is refused and how, and what the keywords mean."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from kilter import divergence as dv
from kilter.divergence import Counts, Logits, LogProbs, Probs, Smooth
from kilter.errors import DistributionError

HALF = [0.5, 0.5]
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (Probs([0.2, 0.9]), "probabilities p: sum to 1.1; wanted 1 within 1e-06"),
        (Probs([[0.5, 0.5], [-0.1, 1.1]]), "probabilities p, row 1: found -0.1 at outcome 0; wanted none below 0"),
        (Probs([[[0.5, 0.5], [NAN, 0.5]]]), r"row \(0, 1\): found nan at outcome 0"),
        (Probs([INF, 0.5]), "found inf at outcome 0"),
        (LogProbs([0.0, 0.0]), "exponentials sum to 2; wanted 1"),
        (LogProbs([0.5, -INF]), "exponentials sum to 1.64872127"),
        (LogProbs([NAN, 0.0]), "found nan at outcome 0"),
        (Logits([0.0, INF]), "logits p: found inf at outcome"),
        (Logits([0.0, NAN]), "found nan at outcome 1"),
        (Logits([-INF, -INF]), "found -inf for every outcome"),
        (Counts([0, 0]), "nothing but zeros"),
        (Counts([3, -1]), "found -1 at outcome 1"),
        (Counts([0.2, 0.8]), r"wanted whole numbers; for shares that sum to 1 say Probs"),
    ],
)
def test_numbers_that_are_no_distribution_are_refused_with_their_row(p: Any, said: str) -> None:
    with pytest.raises(DistributionError, match=said):
        dv.entropy(p)
    q = type(p)(torch.tensor(np.asarray(p.values)))
    with pytest.raises(DistributionError, match=said.replace(" p", " q")):
        dv.kl(Probs(torch.tensor(HALF, dtype=torch.float64)), q)


@pytest.mark.parametrize("bare", [np.array(HALF), torch.tensor(HALF)])
def test_a_bare_array_is_refused(bare: Any) -> None:
    with pytest.raises(DistributionError, match=r"found an array as q; say what its numbers are: Probs\(\.\.\.\)"):
        dv.kl(Probs(bare), bare)


def test_numbers_are_never_normalised_silently() -> None:
    off = np.array([0.5, 0.5 + 1e-5])
    with pytest.raises(DistributionError, match="divide each row by its sum"):
        dv.entropy(Probs(off))
    assert float(dv.entropy(Probs(off.astype(np.float32)))) == pytest.approx(math.log(2), rel=1e-4)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: dv.kl(Probs(HALF), Probs([0.2, 0.3, 0.5])), "2 outcomes in p and 3 outcomes in q"),
        (lambda: dv.kl(Probs([HALF] * 2), Probs([HALF] * 3)), r"wanted rows that go together"),
        (lambda: dv.kl(Probs(HALF), Probs(torch.tensor(HALF))), "wanted arrays of one library"),
        (lambda: dv.kl(Probs(HALF), Probs(HALF), unit="dits"), "wanted one of nats, bits"),  # type: ignore[arg-type]
        (lambda: dv.kl(Probs(HALF), Probs(HALF), reduction="batchmean"), "wanted one of none, mean, sum"),  # type: ignore[arg-type]
        (lambda: dv.kl(Probs(HALF), Probs(HALF), support="zero"), "wanted 'exact', 'raise' or Smooth"),  # type: ignore[arg-type]
        (lambda: dv.kl(Probs(HALF), Probs(HALF), axis=1), "found axis 1"),
        (lambda: dv.kl(Probs([HALF]), Probs([HALF]), weights=[1.0]), "do nothing"),
        (lambda: dv.kl(Probs([HALF]), Probs([HALF]), weights=[-1.0], reduction="mean"), "found weight -1.0, row 0"),
        (lambda: dv.kl(Probs([HALF]), Probs([HALF]), mask=np.array([False]), reduction="mean"), "no row that counts"),
        (lambda: dv.kl(Probs([HALF]), Probs([HALF]), mask=np.array([1.0])), "wanted booleans of the rows' shape"),
        (lambda: dv.entropy(Probs(0.5)), "single number"),
        (lambda: dv.entropy(Probs(np.zeros((3, 0)))), "no outcomes"),
        (lambda: dv.entropy(Probs(["a"])), "wanted an array or a list of numbers"),
        (lambda: dv.entropy(Probs(np.array([1j]))), "wanted real numbers"),
        (lambda: Probs(Logits(HALF)), "keep the inner wrapper"),
        (lambda: Smooth(0), "above 0 and at most 1"),
        (lambda: dv.js(Probs(HALF), Probs(HALF), weight=0), "generalised_js goes over into KL"),
        (lambda: dv.renyi(Probs(HALF), Probs(HALF), order=-1), "wanted one from 0 on"),
        (lambda: dv.wasserstein1(Probs(HALF), Probs(HALF), positions=[1.0, 0.0]), "do not ascend"),
        (lambda: dv.f_divergence(Probs(HALF), Probs(HALF), "kl"), "wanted one of forward_kl"),
    ],
)
def test_what_makes_no_sense_is_refused_with_advice(call: Any, said: str) -> None:
    with pytest.raises(DistributionError, match=said):
        call()


def test_an_infinite_row_is_named_where_it_is_to_raise() -> None:
    p, q = Probs([HALF, [0.4, 0.6]]), Probs([HALF, [1.0, 0.0]])
    assert dv.kl(p, q).tolist() == [0.0, INF]
    with pytest.raises(DistributionError, match=r"row 1: p gives probability 0\.6 to outcome 1, and q gives it 0"):
        dv.kl(p, q, support="raise")
    assert np.isfinite(dv.kl(q, p, support="raise")).all()


def test_smoothing_mixes_both_with_the_uniform_distribution() -> None:
    p, q = np.array([1.0, 0.0, 0.0, 0.0]), np.array([0.0, 0.5, 0.5, 0.0])
    mixed = [0.9 * x + 0.1 / 4 for x in (p, q)]
    wanted = (mixed[0] * np.log(mixed[0] / mixed[1])).sum()
    assert float(dv.kl(Probs(p), Probs(q), support=Smooth(0.1))) == pytest.approx(wanted, rel=1e-14)


def test_rows_lie_along_any_axis_and_broadcast() -> None:
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(4), (2, 3)), rng.dirichlet(np.ones(4))
    by_rows = np.array([[float(dv.kl(Probs(x), Probs(q))) for x in row] for row in p])
    np.testing.assert_allclose(dv.kl(Probs(p), Probs(q)), by_rows, rtol=1e-13)
    turned = dv.kl(Probs(np.moveaxis(p, -1, 0)), Probs(q), axis=0)
    np.testing.assert_allclose(turned, by_rows, rtol=1e-13)


@pytest.mark.parametrize("array", [np.asarray, torch.tensor])
def test_a_mean_is_over_the_rows_that_count_by_their_weights(array: Any) -> None:
    p, q = array([[0.5, 0.5], [1.0, 0.0], [NAN, NAN], [0.25, 0.75]]), array([0.25, 0.75])
    rows = np.array([0.5 * math.log(4 / 3), math.log(4), 0.0, 0.0])
    mask = [True, True, False, True]
    pair = Probs(p), Probs(q)
    tolerance = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(np.asarray(dv.kl(*pair, mask=mask)), rows, **tolerance)
    mean = float(dv.kl(*pair, mask=mask, reduction="mean"))
    np.testing.assert_allclose(mean, rows.sum() / 3, **tolerance)
    weighted = float(dv.kl(*pair, mask=mask, weights=[1.0, 2.0, 7.0, 1.0], reduction="mean"))
    np.testing.assert_allclose(weighted, (rows[0] + 2 * rows[1]) / 4, **tolerance)
    np.testing.assert_allclose(float(dv.kl(*pair, mask=mask, reduction="sum")), rows.sum(), **tolerance)


def test_bits_are_nats_over_log_2() -> None:
    p, q = Probs([0.5, 0.5]), Probs([0.7, 0.3])
    for function in (dv.kl, dv.js, dv.jeffreys, dv.bhattacharyya, dv.cross_entropy):
        assert float(function(p, q, unit="bits")) * math.log(2) == pytest.approx(float(function(p, q)), rel=1e-15)


def test_integers_are_computed_in_float64() -> None:
    for array in (np.asarray, torch.tensor):
        value = dv.entropy(Counts(array([1, 1, 2])), unit="bits")
        assert "float64" in str(value.dtype)
        assert float(value) == 1.5


def test_importing_divergence_loads_no_other_array_library() -> None:
    code = "import sys, kilter.divergence; print(sorted({'torch', 'scipy', 'jax'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
