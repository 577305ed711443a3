"""Claims about entropy and KL from counts: hand-computed numbers, and exact means and variances by enumeration."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import multinomial

from kilter.divergence import (
    Counts,
    Estimate,
    LogProbs,
    Probs,
    Smooth,
    entropy_from_counts,
    kl_from_counts,
)
from kilter.errors import DistributionError

LOG_2 = math.log(2)


def moments(estimate: Callable[[np.ndarray], Estimate], p: Sequence[float], samples: int) -> tuple[float, float, float]:
    """Mean and standard deviation of an estimate over all counts that `samples` draws of p can give, and its root mean
    squared standard error; exactly."""
    tables = [
        np.array([*c, samples - sum(c)]) for c in product(range(samples + 1), repeat=len(p) - 1) if sum(c) <= samples
    ]
    chance = np.array([multinomial.pmf(table, samples, p) for table in tables])
    assert chance.sum() == pytest.approx(1)
    found = [estimate(table) for table in tables]
    values, errors = (np.array([getattr(one, name) for one in found]) for name in ("value", "standard_error"))
    mean = float(chance @ values)
    return mean, math.sqrt(chance @ (values - mean) ** 2), math.sqrt(chance @ errors**2)


def test_entropy_of_a_fair_coin_seen_ten_times() -> None:
    plain = entropy_from_counts(Counts([5, 5]), miller_madow=False)
    assert plain.value == pytest.approx(LOG_2)
    assert plain.samples == 10
    assert plain.standard_error == pytest.approx(math.sqrt(1 / 200))  # the delta method has 0 here
    assert entropy_from_counts(Counts([5, 5])).value == pytest.approx(LOG_2 + 1 / 20)
    assert entropy_from_counts(Counts([5, 5, 0, 0])).value == pytest.approx(LOG_2 + 1 / 20)  # unseen ones are not known
    assert entropy_from_counts(Counts([5, 5])).in_bits().value == pytest.approx(1 + 1 / 20 / LOG_2)


def test_the_error_of_entropy_is_that_of_the_mean_of_minus_log_p() -> None:
    surprise = -np.log(np.repeat([0.8, 0.2], [80, 20]))
    found = entropy_from_counts(Counts([80, 20]), miller_madow=False)
    assert found.value == pytest.approx(surprise.mean())
    assert found.standard_error == pytest.approx(surprise.std() / 10)


def test_outcomes_that_never_vary_have_no_entropy_and_no_error() -> None:
    found = entropy_from_counts(Counts([7, 0]))
    assert (found.value, found.standard_error) == (0, 0)


@pytest.mark.parametrize("p", [[0.6, 0.3, 0.1], [1 / 3] * 3, [0.5, 0.5]])
def test_the_correction_takes_most_of_the_bias_of_entropy_and_its_error_is_right(p: list[float]) -> None:
    exact = float(-(np.array(p) @ np.log(p)))
    plain, _, _ = moments(lambda c: entropy_from_counts(Counts(c), miller_madow=False), p, 40)
    mean, deviation, error = moments(lambda c: entropy_from_counts(Counts(c)), p, 40)
    assert plain - exact == pytest.approx(-(len(p) - 1) / 80, rel=0.15)
    assert abs(mean - exact) < 0.15 * abs(plain - exact)
    assert 0.95 * deviation < error < 1.6 * deviation


def test_kl_is_the_worked_example_and_its_correction_that_of_chi_squared() -> None:
    """20 and 80 of p against q = (.8, .2): 0.6 log 4, less (2 - 1) / 200."""
    plain = kl_from_counts(Counts([20, 80]), Probs([0.8, 0.2]), miller_madow=False)
    assert plain.value == pytest.approx(0.6 * math.log(4))
    log_ratio = np.repeat([-math.log(4), math.log(4)], [20, 80])
    assert plain.standard_error == pytest.approx(log_ratio.std() / 10)
    assert kl_from_counts(Counts([20, 80]), Probs([0.8, 0.2])).value == pytest.approx(0.6 * math.log(4) - 1 / 200)
    of_logs = kl_from_counts(Counts([20, 80]), LogProbs(np.log([0.8, 0.2])))
    assert of_logs.value == pytest.approx(plain.value - 1 / 200, rel=1e-14)
    assert kl_from_counts(Counts([20, 80]), Probs([0.8, 0.2])) == kl_from_counts(
        Counts(torch.tensor([20, 80])), Probs(torch.tensor([0.8, 0.2], dtype=torch.float64))
    )


def test_kl_of_two_samples_has_both_corrections_worked_out_by_hand() -> None:
    """p: (.2, .8) of 100, q: (.6, .4) of 50: 1/200 + (1/3 + 2 - 1) / 100, variances 0.16 log^2 6 / 100 and
    (.04/.6 + .64/.4 - 1) / 50."""
    found, plain = (kl_from_counts(Counts([20, 80]), Counts([30, 20]), miller_madow=m) for m in (True, False))
    assert plain.value == pytest.approx(0.8 * math.log(2) - 0.2 * math.log(3))
    assert plain.value - found.value == pytest.approx(1 / 200 + (4 / 3) / 100)
    assert found.samples == 150
    variance = 0.16 * math.log(6) ** 2 / 100 + (0.04 / 0.6 + 0.64 / 0.4 - 1) / 50
    assert found.standard_error == pytest.approx(math.sqrt(variance))


@pytest.mark.parametrize("q", [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
def test_the_correction_takes_most_of_the_bias_of_kl_to_a_known_q_and_its_error_is_right(q: list[float]) -> None:
    p = [0.5, 0.3, 0.2]
    exact = float(np.array(p) @ np.log(np.array(p) / q))
    plain, _, _ = moments(lambda c: kl_from_counts(Counts(c), Probs(q), miller_madow=False), p, 40)
    mean, deviation, error = moments(lambda c: kl_from_counts(Counts(c), Probs(q)), p, 40)
    assert plain - exact == pytest.approx(2 / 80, rel=0.15)
    assert abs(mean - exact) < 0.15 * abs(plain - exact)
    assert 0.95 * deviation < error < 1.6 * deviation


def test_the_correction_takes_most_of_the_bias_of_kl_from_a_known_p_to_a_sampled_q() -> None:
    """So many samples of p that its shares are exact; q's are enumerated, and none is without an outcome."""
    p, q = [0.3, 0.3, 0.4], [0.5, 0.3, 0.2]
    known = Counts(np.array([300, 300, 400]) * 10**9)
    exact = float(np.array(p) @ np.log(np.array(p) / q))
    seen = lambda c: Counts(np.maximum(c, 1))  # noqa: E731 - of chance 1e-5 or less
    plain, _, _ = moments(lambda c: kl_from_counts(known, seen(c), miller_madow=False), q, 60)
    mean, deviation, error = moments(lambda c: kl_from_counts(known, seen(c)), q, 60)
    assert plain - exact == pytest.approx((0.6 + 1 + 2 - 1) / 120, rel=0.25)
    assert abs(mean - exact) < 0.25 * abs(plain - exact)
    assert 0.9 * deviation < error < 1.6 * deviation


def smoothed(p: Sequence[float], amount: float) -> np.ndarray:
    return (1 - amount) * np.array(p) + amount / len(p)


@pytest.mark.parametrize("amount", [0.1, 0.5])
@pytest.mark.parametrize("p", [[0.6, 0.3, 0.1], [0.9, 0.1, 0.0]])
def test_the_correction_and_the_error_are_those_of_smoothed_shares(p: list[float], amount: float) -> None:
    """Of q known, and of p known (so many samples that its shares are exact)."""
    support, other = Smooth(amount), [0.3, 0.3, 0.4]
    known, drawn, fixed = Counts(np.array([3, 3, 4]) * 10**10), smoothed(p, amount), smoothed(other, amount)
    for exact, estimate in (
        (
            drawn @ np.log(drawn / fixed),
            lambda c, m: kl_from_counts(Counts(c), Probs(other), support=support, miller_madow=m),
        ),
        (fixed @ np.log(fixed / drawn), lambda c, m: kl_from_counts(known, Counts(c), support=support, miller_madow=m)),
    ):
        plain, _, _ = moments(lambda c, e=estimate: e(c, False), p, 60)
        mean, deviation, error = moments(lambda c, e=estimate: e(c, True), p, 60)
        assert abs(mean - exact) < 0.25 * abs(plain - exact)
        assert 0.9 * deviation < error < 1.25 * deviation


def test_equal_samples_have_a_kl_of_0_less_its_bias_and_an_error_all_the_same() -> None:
    found = kl_from_counts(Counts([10, 10]), Counts([20, 20]))
    assert found.value == pytest.approx(-(1 / 20 + 1 / 40) / 2)
    assert found.standard_error == pytest.approx((1 / 20 + 1 / 40) / math.sqrt(2))


def test_the_order_is_p_q() -> None:
    p, q = Counts([90, 10]), Counts([40, 60])
    assert kl_from_counts(p, q, miller_madow=False).value == pytest.approx(0.9 * math.log(9 / 4) - 0.1 * math.log(6))
    assert kl_from_counts(q, p, miller_madow=False).value == pytest.approx(0.6 * math.log(6) - 0.4 * math.log(9 / 4))


def test_an_outcome_that_only_p_has_makes_it_infinite_unless_smoothed() -> None:
    p, q = Counts([5, 5]), Counts([10, 0])
    found = kl_from_counts(p, q)
    assert found.value == math.inf
    assert "1 outcome that q's has not" in found.bias
    smoothed = kl_from_counts(p, q, support=Smooth(0.5), miller_madow=False)  # (.5, .5) and (.75, .25)
    assert smoothed.value == pytest.approx(0.5 * math.log(4 / 3))
    with pytest.raises(DistributionError):
        kl_from_counts(p, q, support="raise")
    assert kl_from_counts(q, p).value < math.inf


def test_what_is_no_row_of_counts_is_refused() -> None:
    with pytest.raises(DistributionError, match=r"found probabilities as p; .*Counts"):
        kl_from_counts(Probs([0.5, 0.5]), Counts([1, 1]))  # type: ignore[arg-type]
    with pytest.raises(DistributionError, match="say what its numbers are"):
        entropy_from_counts(np.array([1, 2]))  # type: ignore[arg-type]
    with pytest.raises(DistributionError, match="counts p"):
        entropy_from_counts(Counts([1, -2]))
    with pytest.raises(DistributionError, match="one row"):
        kl_from_counts(Counts([[1, 2], [3, 4]]), Counts([[1, 2], [3, 4]]))
    with pytest.raises(DistributionError, match="outcomes"):
        kl_from_counts(Counts([1, 2]), Counts([1, 2, 3]))
