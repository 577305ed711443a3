"""Claims about losses on the log-ratios of pairs, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kilter.objectives import (
    PairScores,
    discopop,
    dpo,
    dpop,
    exo,
    hinge,
    ipo,
    margin_dpo,
    nca,
    robust,
    soft_dpo,
    sppo_soft,
)
from objectives.pairs import float64, pairs_of

LOSSES = [dpo, ipo, hinge]
BETAS = [0.05, 0.1, 1.7]


def ratios(chosen: list[float], rejected: list[float], **facts: list[float]) -> PairScores:
    """Pairs of these log-ratios, in nats, to a reference that gives -20 to each."""
    sides = (
        {"log_prob": [r - 20 for r in side], "reference_log_prob": [-20.0] * len(side)} for side in (chosen, rejected)
    )
    return pairs_of(*sides, facts)


def gap(*values: float) -> PairScores:
    """Pairs whose chosen log-ratio is larger than the rejected by these values, in nats."""
    return ratios([value - 3.25 for value in values], [-3.25] * len(values))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gradients(
    loss: Callable[..., Tensor], chosen: list[float], rejected: list[float], **options: float
) -> tuple[Tensor, Tensor]:
    chosen_P, rejected_P = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (chosen, rejected))
    value = loss(PairScores.of_log_ratios(chosen_P, rejected_P), **options).sum()
    return torch.autograd.grad(value, (chosen_P, rejected_P))  # type: ignore[return-value]


def test_dpo_without_a_gap_is_log_2() -> None:
    torch.testing.assert_close(dpo(gap(0.0)), torch.tensor([math.log(2)], dtype=torch.float64))


def test_dpo_at_a_margin_of_m_is_log_of_1_plus_exp_minus_m() -> None:
    """At beta 0.1 gaps of 10, -20 and 30 nats are margins of 1, -2 and 3."""
    wanted = [math.log1p(math.exp(-margin)) for margin in (1, -2, 3)]
    assert dpo(gap(10, -20, 30), beta=0.1).tolist() == pytest.approx(wanted, abs=1e-15)


def test_ipo_is_the_squared_distance_from_half_of_one_over_beta() -> None:
    assert ipo(gap(0, 5, -1, 7), beta=0.1).tolist() == pytest.approx([25, 0, 36, 4], abs=1e-12)
    assert ipo(gap(0, 5, -1, 7), beta=0.5).tolist() == pytest.approx([1, 16, 4, 36], abs=1e-12)


def test_hinge_is_what_a_margin_lacks_of_1_and_zero_beyond() -> None:
    assert hinge(gap(0, 4, 10, 15, -20), beta=0.1).tolist() == pytest.approx([1, 0.6, 0, 0, 3], abs=1e-15)


@pytest.mark.parametrize("loss", LOSSES)
def test_raising_chosen_lowers_the_loss_and_raising_rejected_raises_it_as_much(loss: Callable[..., Tensor]) -> None:
    chosen, rejected = gradients(loss, [-4.0, -3.0, -2.5], [-3.0, -3.0, -3.0])
    assert (chosen < 0).all()
    torch.testing.assert_close(rejected, -chosen)


@pytest.mark.parametrize("beta", BETAS)
def test_gradients_are_the_closed_forms(beta: float) -> None:
    """Rafailov et al. 2023, section 4: beta sigma(-margin); for ipo twice the distance; for hinge beta or nothing."""
    gap_P = torch.tensor([-1.5, 0.0, 0.3, 2.0], dtype=torch.float64)
    closed_forms = {
        dpo: -beta * torch.sigmoid(-beta * gap_P),
        ipo: 2 * (gap_P - 0.5 / beta),
        hinge: -beta * (beta * gap_P < 1).double(),
    }
    for loss, wanted in closed_forms.items():
        chosen, _ = gradients(loss, gap_P.tolist(), [0.0] * 4, beta=beta)
        torch.testing.assert_close(chosen, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_the_mean_loss_of_labels_flipped_that_often(label_smoothing: float) -> None:
    right, flipped = dpo(gap(7, -3), beta=0.2), dpo(gap(-7, 3), beta=0.2)
    smoothed = dpo(gap(7, -3), beta=0.2, label_smoothing=label_smoothing)
    torch.testing.assert_close(smoothed, (1 - label_smoothing) * right + label_smoothing * flipped)


def test_label_smoothing_puts_the_minimum_at_a_finite_margin() -> None:
    """Where sigma(margin) = 1 - smoothing. With a smoothing of 0.2 that margin is log 4."""
    chosen, _ = gradients(dpo, [10 * math.log(4)], [0.0], beta=0.1, label_smoothing=0.2)
    assert float(chosen) == pytest.approx(0, abs=1e-15)


def test_losses_of_extreme_gaps_are_exact_and_their_gradients_too() -> None:
    assert dpo(gap(1e6, -1e6), beta=1.0).tolist() == [0, 1e6]
    chosen, _ = gradients(dpo, [1e6, -1e6], [0.0, 0.0], beta=1.0)
    assert chosen.tolist() == [0, -1]


def test_robust_on_flipped_labels_is_dpo_on_the_right_ones_on_average() -> None:
    """Of 10 labels 3 are flipped."""
    right, flipped = (robust(gap(*gaps), beta=0.3, label_smoothing=0.3) for gaps in ((5, -2), (-5, 2)))
    torch.testing.assert_close(0.7 * right + 0.3 * flipped, dpo(gap(5, -2), beta=0.3), rtol=1e-13, atol=0)


def test_exo_is_0_at_its_best_margin_and_rises_beyond() -> None:
    """log(0.9 / 0.1) = log 9."""
    best = 2 * math.log(9)
    assert float(exo(gap(best), beta=0.5, label_smoothing=0.1)) == pytest.approx(0, abs=1e-15)
    chosen, _ = gradients(exo, [best - 0.5, best, best + 0.5], [0.0] * 3, beta=0.5, label_smoothing=0.1)
    assert chosen[0] < 0 < chosen[2]
    assert abs(float(chosen[1])) < 1e-15


def test_exo_is_nearly_the_loss_of_its_authors_code_at_their_smoothing() -> None:
    """Labels (1, exp(-10)): less by log(1 / (1 - exp(-10))), about 4.5e-5, in the chosen term."""
    p = sigmoid(2)
    theirs = p * math.log(p) + (1 - p) * (math.log(1 - p) + 10)
    assert float(exo(gap(4), beta=0.5, label_smoothing=math.exp(-10))) == pytest.approx(theirs, abs=5e-5)


def test_discopop_rises_with_the_margin_around_0_at_the_papers_settings() -> None:
    """From a local minimum at a gap of -2.3714 to a local maximum at 1.4401, at a beta and a tau of 0.05."""
    turns = [-2.3714, 1.4401]
    slopes, _ = gradients(discopop, [turn + step for turn in turns for step in (-0.001, 0.001)], [0.0] * 4)
    assert slopes.sign().tolist() == [-1, 1, 1, -1]


def test_the_exponential_of_discopop_counts_nothing_where_its_share_has_vanished() -> None:
    """At a margin of -1000 exp(1000) has a share of exp(-20000)."""
    assert discopop(gap(-20_000)).tolist() == [1000]


def test_the_best_chosen_reward_of_nca_is_log_2_whatever_the_rejected_one() -> None:
    best = 2 * math.log(2)
    chosen, _ = gradients(nca, [best - 0.1, best, best + 0.1, best], [0.0, 0.0, 0.0, 9.0], beta=0.5)
    assert chosen[0] < 0 < chosen[2]
    assert chosen[[1, 3]].abs().max() < 1e-15


def test_without_penalty_margin_flips_or_doubt_each_variant_is_dpo() -> None:
    pairs = ratios([2, -1], [-4, 3], margin=[3.0, 1.0], preference=[1.0, 1.0])
    wanted = dpo(pairs, beta=0.3)
    for got in (
        soft_dpo(pairs, beta=0.3),
        robust(pairs, beta=0.3, label_smoothing=0.0),
        margin_dpo(pairs, beta=0.3, scale=0.0),
        dpop(pairs, beta=0.3, penalty=0.0),
    ):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)


def test_data_without_margins_or_preferences_are_named_where_they_are_needed() -> None:
    pairs = PairScores.of_log_ratios(float64([1.0]), float64([0.0]))
    with pytest.raises(KeyError, match="margin: this objective needs it of every pair"):
        margin_dpo(pairs)
    for loss in (soft_dpo, sppo_soft):
        with pytest.raises(KeyError, match="preference: this objective needs it of every pair"):
            loss(pairs)
