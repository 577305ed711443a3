"""Claims about losses on pairs that ask no reference."""

from __future__ import annotations

import math

import pytest
import torch

from kilter.objectives import PairScores, cpo, dpo, orpo, simpo, slic
from objectives.points import answers, numbers, softplus

SHORT_AND_LONG = PairScores(answers(log_prob=[-6.0], tokens=[3]), answers(log_prob=[-6.0], tokens=[6]))


def test_simpo_at_equal_log_probs_per_token_is_the_softplus_of_gamma() -> None:
    pairs = PairScores(answers(log_prob=[-6.0], tokens=[3]), answers(log_prob=[-10.0], tokens=[5]))
    assert simpo(pairs, beta=2.0, gamma=0.5).tolist() == pytest.approx([softplus(0.5)], abs=1e-15)


def test_simpo_wants_margins_of_gamma_whatever_beta() -> None:
    """At a margin of gamma the loss is log 2: 0.75 nats a token times 2, and 0.3 times 5."""
    for beta, gap in ((2.0, 0.75), (5.0, 0.3)):
        pairs = PairScores(answers(log_prob=[-2.0], tokens=[2]), answers(log_prob=[-2 * (1 + gap)], tokens=[2]))
        assert simpo(pairs, beta=beta, gamma=1.5).tolist() == pytest.approx([math.log(2)], abs=1e-14)


def test_simpo_does_not_look_at_sums() -> None:
    """Both answers have -6 nats; the longer one has fewer of them to a token."""
    assert float(simpo(SHORT_AND_LONG, beta=1.0, gamma=0.0)) == pytest.approx(softplus(1), abs=1e-15)


def test_orpo_of_two_like_answers_is_cross_entropy_and_log_2_times_the_weight() -> None:
    pairs = PairScores(answers(log_prob=[-6.0], tokens=[3]), answers(log_prob=[-10.0], tokens=[5]))
    assert orpo(pairs, odds_weight=0.5).tolist() == pytest.approx([2 + 0.5 * math.log(2)], abs=1e-15)


@pytest.mark.parametrize("distance", [1e-3, 1e-9, 1e-15])
def test_orpo_keeps_its_digits_where_probabilities_near_1(distance: float) -> None:
    """Their odds are 1 / distance and 1 / (2 distance), all but exactly: a ratio of 2."""
    pairs = PairScores(answers(log_prob=[-distance], tokens=[1]), answers(log_prob=[-2 * distance], tokens=[1]))
    wanted = distance + 0.5 * math.log(1.5)
    assert float(orpo(pairs, odds_weight=0.5)) == pytest.approx(wanted, rel=max(1e-14, distance))


def test_orpo_of_unlikely_answers_has_the_gap_per_token_for_its_odds() -> None:
    """Odds are probabilities where these are small."""
    pairs = PairScores(answers(log_prob=[-80.0], tokens=[2]), answers(log_prob=[-129.0], tokens=[3]))
    assert float(orpo(pairs, odds_weight=0.5)) == pytest.approx(40 + 0.5 * softplus(-3), rel=1e-15)


def test_orpo_s_slope_where_a_chosen_answer_is_certain_is_that_of_its_cross_entropy() -> None:
    chosen_P = numbers(0.0).requires_grad_()
    pairs = PairScores(answers(log_prob=[0.0], tokens=[1]), answers(log_prob=[-1.0], tokens=[1]))
    pairs.chosen.sums_A["log_prob"] = chosen_P
    (slope,) = torch.autograd.grad(orpo(pairs).sum(), chosen_P)
    assert slope.tolist() == [-1]


def test_cpo_without_cross_entropy_is_dpo_with_a_reference_that_thinks_all_answers_alike() -> None:
    log_probs = [-3.0, -8.0], [-5.0, -2.5]
    free = PairScores(*(answers(log_prob=side) for side in log_probs))
    uniform = PairScores(*(answers(log_prob=side, reference_log_prob=[-4.0, -4.0]) for side in log_probs))
    torch.testing.assert_close(cpo(free, beta=0.3, nll_weight=0), dpo(uniform, beta=0.3))


def test_slic_leaves_pairs_alone_that_are_delta_apart() -> None:
    pairs = PairScores(answers(log_prob=[-3.0, -3.0, -3.0]), answers(log_prob=[-4.0, -5.0, -6.0]))
    assert slic(pairs, delta=2.0, nll_weight=0).tolist() == [1, 0, 0]
