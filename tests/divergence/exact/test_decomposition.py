"""Claims about H(p, q) = H(p) + KL(p, q) and the gradients of its parts: autograd and differences are the oracles."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kilter.divergence import (
    Counts,
    Distribution,
    GradientComparison,
    Logits,
    LogProbs,
    Probs,
    compare_gradients,
    cross_entropy,
    decompose,
    kl,
)
from kilter.divergence.exact.decomposition import VERDICTS
from kilter.errors import DistributionError

Array = Any
INF = math.inf


def t(values: Array) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def from_numpy(values: Array) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


libraries = pytest.mark.parametrize("array", [np.asarray, from_numpy], ids=["numpy", "torch"])


def logits(*, outcomes: int, rows: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(scale=3, size=(rows, outcomes))


# The decomposition.


@libraries
def test_the_parts_are_those_worked_out_by_hand(array: Callable[..., Array]) -> None:
    parts = decompose(Probs(array([0.5, 0.5])), Probs(array([0.25, 0.75])))
    assert float(parts.entropy) == pytest.approx(math.log(2), rel=1e-15)
    assert float(parts.kl) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-14)
    assert float(parts.cross_entropy) == pytest.approx(0.5 * math.log(16 / 3), rel=1e-15)
    bits = decompose(Probs(array([1.0, 0.0])), Probs(array([0.5, 0.5])), unit="bits")
    assert [float(part) for part in (bits.cross_entropy, bits.entropy, bits.kl)] == [1, 0, 1]
    bits = decompose(Probs(array([0.5, 0.5])), Probs(array([0.25, 0.75])), unit="bits")
    assert float(bits.entropy) == 1
    assert float(bits.cross_entropy - bits.kl) == pytest.approx(1, rel=1e-14)


@given(st.integers(0, 2**32), st.integers(2, 6))
def test_cross_entropy_is_the_sum_of_its_parts_and_each_is_right(seed: int, outcomes: int) -> None:
    z_p, z_q = (logits(outcomes=outcomes, rows=1, seed=seed + i)[0] for i in (0, 1))
    parts = decompose(Logits(z_p), Logits(z_q))
    assert float(parts.cross_entropy) == pytest.approx(float(parts.entropy + parts.kl), rel=1e-13)
    with mpmath.workdps(40):
        p, q = ([mpmath.exp(z) / mpmath.fsum(map(mpmath.exp, zs)) for z in zs] for zs in (z_p.tolist(), z_q.tolist()))
        assert float(parts.cross_entropy) == pytest.approx(
            float(-mpmath.fsum(a * mpmath.log(b) for a, b in zip(p, q, strict=True))), rel=1e-13
        )
        assert float(parts.entropy) == pytest.approx(float(-mpmath.fsum(a * mpmath.log(a) for a in p)), rel=1e-13)


def test_parts_are_means_over_the_same_rows() -> None:
    p, q = Probs([0.5, 0.5]), Probs([[0.25, 0.75], [0.5, 0.5], [0.75, 0.25]])
    mask, weights = np.array([True, True, False]), np.array([1.0, 3.0, 1.0])
    parts = decompose(p, q, mask=mask, weights=weights, reduction="sum")
    assert float(parts.entropy) == pytest.approx(4 * math.log(2))
    assert float(parts.kl) == pytest.approx(0.5 * math.log(4 / 3))
    assert float(parts.cross_entropy) == pytest.approx(4 * math.log(2) + 0.5 * math.log(4 / 3))
    across = decompose(p, Probs(np.asarray(q.values).T), axis=0, mask=mask, weights=weights, reduction="sum")
    assert float(across.cross_entropy) == pytest.approx(float(parts.cross_entropy))
    assert float(across.entropy) == pytest.approx(float(parts.entropy))


def test_the_parts_say_what_kl_says_of_numbers_that_are_no_distributions() -> None:
    with pytest.raises(DistributionError, match="say what its numbers are"):
        decompose(np.array([0.5, 0.5]), Probs([0.5, 0.5]))  # type: ignore[arg-type]
    with pytest.raises(DistributionError, match="2 outcomes in p and 3 outcomes in q"):
        decompose(Probs([0.5, 0.5]), Probs([0.5, 0.25, 0.25]))
    with pytest.raises(DistributionError, match="2 outcomes in p and 1 outcomes in q"):
        decompose(Probs([0.5, 0.5]), Probs([1.0]))


# Which loss to use.


def test_a_teacher_moves_the_value_and_no_gradient() -> None:
    found = compare_gradients(Probs([0.75, 0.25]), Probs([0.5, 0.5]), p_from="teacher")
    assert found.interchangeable
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert float(found.values.cross_entropy - found.values.kl) == pytest.approx(entropy)
    np.testing.assert_allclose(found.cross_entropy_by_q, [-0.25, 0.25], rtol=1e-15)  # q - p
    np.testing.assert_allclose(found.kl_by_q, [-0.25, 0.25], rtol=1e-15)
    assert found.measured_error < 1e-9


def test_with_a_label_the_two_are_one_number() -> None:
    found = compare_gradients(Probs([0.0, 1.0]), Probs([0.75, 0.25]), p_from="label")
    assert found.interchangeable
    assert float(found.values.cross_entropy) == float(found.values.kl) == pytest.approx(math.log(4))
    assert float(found.values.entropy) == 0
    np.testing.assert_allclose(found.kl_by_q, [0.75, -0.75])
    np.testing.assert_allclose(found.cross_entropy_by_p, [0, 0])


def test_with_parameters_in_p_the_gradients_differ_by_that_of_its_entropy() -> None:
    found = compare_gradients(Probs([0.75, 0.25]), Probs([0.5, 0.5]), p_from="parameters")
    assert not found.interchangeable
    # -log q is the same for both outcomes, so cross-entropy pulls p nowhere; KL pulls it towards q.
    np.testing.assert_allclose(found.cross_entropy_by_p, [0, 0], atol=1e-15)
    pull = 0.75 * 0.25 * math.log(3)  # d KL / d z_p of two outcomes is p (1 - p) (log-odds of p less those of q)
    np.testing.assert_allclose(found.kl_by_p, [pull, -pull], rtol=1e-14)


def test_descent_on_cross_entropy_collapses_p_where_kl_finds_q() -> None:
    """The reason why it matters: p = softmax(z) trained against a fixed q."""
    q, ends = Probs([0.6, 0.4]), []
    for of_kl in (True, False):
        z = np.array([0.0, 0.3])
        for _ in range(100):
            found = compare_gradients(Logits(z), q, p_from="parameters")
            z = z - 2 * np.asarray(found.kl_by_p if of_kl else found.cross_entropy_by_p)
        ends.append(np.exp(z - z.max()) / np.exp(z - z.max()).sum())
    np.testing.assert_allclose(ends[0], [0.6, 0.4], rtol=1e-9)
    assert ends[1][0] > 0.99


WRAPPERS: dict[str, Callable[[Array], Distribution]] = {
    "logits": Logits,
    "log-probs": lambda z: LogProbs(z - np.log(np.exp(z).sum(-1, keepdims=True))),
    "probs": lambda z: Probs(np.exp(z) / np.exp(z).sum(-1, keepdims=True)),
}


@given(st.integers(0, 2**32), st.sampled_from(sorted(WRAPPERS)), st.sampled_from(sorted(WRAPPERS)))
def test_gradients_are_those_of_autograd_whatever_the_numbers_were(seed: int, kind_p: str, kind_q: str) -> None:
    z_p, z_q = (logits(outcomes=4, rows=2, seed=seed + i) for i in (0, 1))
    found = compare_gradients(WRAPPERS[kind_p](z_p), WRAPPERS[kind_q](z_q), p_from="parameters")
    leaves = t(z_p).requires_grad_(), t(z_q).requires_grad_()
    log_p, log_q = (leaf.log_softmax(-1) for leaf in leaves)  # torch's own, and the plain formulas
    by_p, by_q = torch.autograd.grad((log_p.exp() * (log_p - log_q)).sum(), leaves, retain_graph=True)
    np.testing.assert_allclose(found.kl_by_p, by_p, atol=1e-12)
    np.testing.assert_allclose(found.kl_by_q, by_q, atol=1e-12)
    by_p, by_q = torch.autograd.grad(-(log_p.exp() * log_q).sum(), leaves)
    np.testing.assert_allclose(found.cross_entropy_by_p, by_p, atol=1e-12)
    np.testing.assert_allclose(found.cross_entropy_by_q, by_q, atol=1e-12)
    assert found.measured_error < 1e-7


@pytest.mark.parametrize("loss", [cross_entropy, kl], ids=["cross_entropy", "kl"])
def test_gradients_are_those_of_the_losses_as_torch_differentiates_them(loss: Callable[..., Array]) -> None:
    leaves = tuple(t([0.3, -1.0, 2.0, -INF]).add(i).requires_grad_() for i in (0, 1))
    with torch.no_grad():
        leaves[1][:2] = t([1.0, 0.5])
    found = compare_gradients(Logits(leaves[0]), Logits(leaves[1]), p_from="parameters")
    by_p, by_q = torch.autograd.grad(loss(Logits(leaves[0]), Logits(leaves[1])), leaves)
    torch.testing.assert_close(by_p, getattr(found, f"{loss.__name__}_by_p"))
    torch.testing.assert_close(by_q, getattr(found, f"{loss.__name__}_by_q"))
    assert not found.kl_by_p.requires_grad


def test_measured_slopes_would_find_a_wrong_gradient() -> None:
    """The check is of the functions themselves: with another function in kl's place it fails."""
    p, q = Probs([0.7, 0.2, 0.1]), Probs([0.3, 0.3, 0.4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kilter.divergence.exact.decomposition.kl", lambda p, q, **options: kl(q, p, **options))
        assert compare_gradients(p, q, p_from="teacher").measured_error > 0.05
    assert compare_gradients(p, q, p_from="teacher").measured_error < 1e-9


def test_tiny_differences_between_teacher_and_student_keep_their_gradient() -> None:
    p = np.array([0.2, 0.3, 0.5])
    q = p + 1e-12 * np.array([1.0, 1.0, -2.0])
    found = compare_gradients(Probs(p), Probs(q), p_from="teacher")
    np.testing.assert_array_equal(found.kl_by_q, q - p)


def test_rows_of_infinite_kl_have_no_gradients_and_spoil_no_others() -> None:
    p, q = Probs([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]]), Probs([[1.0, 0.0], [0.5, 0.5], [1.0, 0.0]])
    found = compare_gradients(p, q, p_from="teacher")
    np.testing.assert_allclose(found.kl_by_q, [[math.nan] * 2, [-0.25, 0.25], [0, 0]])
    assert np.isnan(found.cross_entropy_by_p[0]).all()
    assert np.isfinite(found.cross_entropy_by_p[1:]).all()
    assert np.asarray(found.values.kl)[0] == INF
    assert found.measured_error < 1e-9


@libraries
def test_gradients_lie_as_the_numbers_do(array: Callable[..., Array]) -> None:
    p, q = (np.random.default_rng(seed).dirichlet([1.0] * 3, 2) for seed in (0, 1))
    rows = compare_gradients(Probs(array(p)), Probs(array(q)), p_from="teacher")
    columns = compare_gradients(Probs(array(p.T)), Probs(array(q.T)), p_from="teacher", axis=0)
    for name in ("kl_by_q", "kl_by_p", "cross_entropy_by_q", "cross_entropy_by_p"):
        np.testing.assert_allclose(np.asarray(getattr(columns, name)).T, getattr(rows, name), rtol=1e-12)
    one = compare_gradients(Probs(array(p[0])), Probs(array(q)), p_from="teacher")
    np.testing.assert_allclose(np.asarray(one.kl_by_q), q - p[0], rtol=1e-12)


def test_what_is_said_of_p_must_be_so() -> None:
    soft, q = Probs([[1.0, 0.0], [0.9, 0.1]]), Probs([0.5, 0.5])
    with pytest.raises(DistributionError, match=r'p, row 1: found a label .* wanted one-hot, or p_from="teacher"'):
        compare_gradients(soft, q, p_from="label")
    with pytest.raises(DistributionError, match="p_from='student'; wanted one of label, teacher, parameters"):
        compare_gradients(soft, q, p_from="student")  # type: ignore[arg-type]
    with pytest.raises(DistributionError, match="row 0: sum to"):
        compare_gradients(Probs([[0.5, 0.6]]), q, p_from="teacher")
    assert compare_gradients(Counts([0, 3]), q, p_from="label").interchangeable


def report(p_from: Any) -> tuple[GradientComparison, str]:
    found = compare_gradients(Probs([0.0, 1.0]), Logits([0.0, 1.0]), p_from=p_from)
    return found, str(found)


@pytest.mark.parametrize("p_from", VERDICTS)
def test_the_report_has_the_verdict_and_the_numbers(p_from: str) -> None:
    found, text = report(p_from)
    first, values, by_q, by_p, measured = text.splitlines()
    assert first == ("" if found.interchangeable else "not ") + f"interchangeable: {VERDICTS[p_from].why}"
    constant = "constant" if found.interchangeable else "no constant"
    assert values == f"cross-entropy 0.313262 = H(p) 0.000000 ({constant}) + KL 0.313262"
    assert by_q == "by q's logits: cross-entropy [ 0.269 -0.269], KL [ 0.269 -0.269]; equal up to rounding"
    assert by_p.endswith("and p does not move") == found.interchangeable
    assert measured.startswith("measured slopes agree within ")


def test_the_report_of_many_rows_is_one_of_means_and_largest_differences() -> None:
    p, q = (Logits(logits(outcomes=50, rows=20, seed=seed)) for seed in (0, 1))
    found = compare_gradients(p, q, p_from="parameters")
    text = str(found)
    assert f"KL {np.mean(found.values.kl):.6f}, mean of 20 rows" in text
    largest = np.max(np.abs(found.kl_by_p - found.cross_entropy_by_p))
    assert f"by p's logits: largest difference {largest:.3g}" in text
    assert max(map(len, text.splitlines())) < 160


def test_where_q_rules_out_what_p_has_the_report_says_so_instead_of_numbers() -> None:
    told = str(compare_gradients(Probs([0.5, 0.5]), Probs([1.0, 0.0]), p_from="teacher"))
    assert "by q's logits: not finite: q rules out outcomes of p" in told
    assert "no slope is finite to measure" in told
    assert "nan" not in told
