"""Claims about losses on pairs that depend on the other pairs of a batch, or on batches before."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kilter.objectives import OBJECTIVES, PairScores, aot, aot_unpaired, bco_pair, beta_dpo, dpo
from kilter.objectives.coupled import remember_margins
from objectives.points import answers, numbers, pairs, sigmoid, softplus

FRESH = dict(OBJECTIVES["beta_dpo"].state)


def log_ratios(chosen: list[float], rejected: list[float]) -> tuple[Tensor, Tensor]:
    return numbers(*chosen).requires_grad_(), numbers(*rejected).requires_grad_()


def test_bco_pair_does_not_see_what_all_rewards_have_in_common() -> None:
    here, shifted = pairs([3, 1], [-1, 2]), pairs([13, 11], [9, 12])
    torch.testing.assert_close(bco_pair(here, beta=0.5), bco_pair(shifted, beta=0.5))


def test_no_gradient_flows_through_the_shift_of_bco_pair() -> None:
    """The mean reward is 0.625: the slopes are -+ beta sigma of minus the distances from it."""
    leaves = log_ratios([3, 1], [-1, 2])
    chosen, rejected = torch.autograd.grad(bco_pair(PairScores.of_log_ratios(*leaves), beta=0.5).sum(), leaves)
    assert chosen.tolist() == pytest.approx([-0.5 * sigmoid(-0.875), -0.5 * sigmoid(0.125)], abs=1e-15)
    assert rejected.tolist() == pytest.approx([0.5 * sigmoid(-1.125), 0.5 * sigmoid(0.375)], abs=1e-15)


def test_aot_is_dpo_where_policy_and_reference_order_the_pairs_alike() -> None:
    """Then quantiles are pairs; log-ratios alone have a reference whose gaps are all equal."""
    ordered = pairs([1, 3, 4], [0, 1, -2])
    for label_smoothing in (0.0, 0.3):
        options = {"beta": 0.3, "label_smoothing": label_smoothing}
        torch.testing.assert_close(aot(ordered, **options), dpo(ordered, **options))


def test_aot_does_not_depend_on_the_order_of_pairs_nor_unpaired_on_who_is_paired() -> None:
    chosen, rejected = [5.0, -1.0, 2.0], [0.5, 3.0, -2.0]
    reference = [-3.0, -1.0, -2.0], [-2.0, -6.0, -4.0]
    both = [
        PairScores(
            answers(log_prob=[chosen[i] for i in order], reference_log_prob=[reference[0][i] for i in order]),
            answers(log_prob=[rejected[i] for i in order], reference_log_prob=[reference[1][i] for i in order]),
        )
        for order in ([0, 1, 2], [2, 0, 1])
    ]
    torch.testing.assert_close(aot(both[0]), aot(both[1]))
    mixed = both[0]._replace(rejected=both[1].rejected)
    torch.testing.assert_close(aot_unpaired(both[0]), aot_unpaired(mixed))
    assert not torch.allclose(aot(both[0]).mean(), aot(mixed).mean())


def test_the_gradient_of_a_quantile_is_that_of_the_answer_that_has_it() -> None:
    """-1 and 2 are matched with -3 and 1: distances of 2 and 1."""
    leaves = log_ratios([2, -1], [-3, 1])
    slopes = torch.autograd.grad(aot_unpaired(PairScores.of_log_ratios(*leaves), beta=0.5).sum(), leaves)
    near, far = 0.5 * sigmoid(-0.5), 0.5 * sigmoid(-1)
    assert slopes[0].tolist() == pytest.approx([-near, -far], abs=1e-15)
    assert slopes[1].tolist() == pytest.approx([far, near], abs=1e-15)


def test_beta_dpo_that_keeps_all_pairs_and_its_beta_is_dpo() -> None:
    here = pairs([2, -5, 1], [-1, 2, 0])
    losses = beta_dpo(here, beta=0.3, alpha=0.0, keep=1.0, mean=7.0, deviation=0.1, batches=3.0)
    torch.testing.assert_close(losses, dpo(here, beta=0.3))


def test_margins_are_remembered_over_batches() -> None:
    """Of margins 1 and 3, 2 alone, and 0, 0 and 3: means of 2, 2 and 1, deviations of sqrt 2, 0 and sqrt 3."""
    state = FRESH
    for gaps, mean, deviation in (
        ([2, 6], 0.5, math.sqrt(2) / 4),
        ([4], 0.875, 0.75 * math.sqrt(2) / 4),
        ([0, 0, 6], 0.90625, 0.5625 * math.sqrt(2) / 4 + math.sqrt(3) / 4),
    ):
        batch = pairs([gap - 1 for gap in gaps], [-1] * len(gaps))
        state = remember_margins(batch, beta=0.5, momentum=0.75, alpha=0.6, keep=0.8, **state)
        assert (state["mean"], state["deviation"]) == pytest.approx((mean, deviation), abs=1e-14)
    assert state["batches"] == 3


def test_beta_rises_above_a_mean_margin_and_falls_below_but_never_to_nothing() -> None:
    """Margins of 1 where the mean was 0, 1 and 101: betas of 0.5 times 1 + alpha (1 - mean)."""
    for mean, beta in ((0.0, 0.75), (1.0, 0.5), (101.0, 1e-3)):
        losses = beta_dpo(pairs([2], [0]), beta=0.5, alpha=0.5, mean=mean, deviation=1.0, batches=1.0)
        assert losses.tolist() == pytest.approx([softplus(-2 * beta)], abs=1e-15)


def test_no_gradient_flows_through_beta() -> None:
    """It is 0.5 (1 + 2 (0.75 - 0.25)) = 1 at margins of 2 and -0.5, from gaps of 4 and -1."""
    leaves = log_ratios([3, 0], [-1, 1])
    losses = beta_dpo(
        PairScores.of_log_ratios(*leaves), beta=0.5, alpha=2.0, keep=1.0, mean=0.25, deviation=1.0, batches=1.0
    )
    chosen, rejected = torch.autograd.grad(losses.sum(), leaves)
    assert chosen.tolist() == pytest.approx([-sigmoid(-4), -sigmoid(1)], abs=1e-15)
    assert rejected.tolist() == pytest.approx([sigmoid(-4), sigmoid(1)], abs=1e-15)


@pytest.mark.parametrize(("count", "keep", "kept"), [(1, 0.8, 1), (5, 0.8, 4), (10, 0.8, 8), (7, 0.5, 3), (9, 1.0, 9)])
def test_the_share_of_pairs_that_is_kept_has_the_mean_loss_of_the_batch(count: int, keep: float, kept: int) -> None:
    gaps = np.linspace(-2, 3, count).tolist()
    here = pairs(gaps, [0.0] * count)
    losses = beta_dpo(here, beta=0.3, alpha=0.0, keep=keep, mean=0.2, deviation=0.7, batches=5.0)
    drawn = losses > 0
    assert int(drawn.sum()) == kept
    torch.testing.assert_close(losses.mean(), dpo(here, beta=0.3)[drawn].mean())


def test_which_pairs_are_kept_follows_from_margins_and_the_number_of_batches_alone() -> None:
    def kept(batches: float) -> list[bool]:
        here = pairs(np.linspace(-1, 1, 20).tolist(), [0.0] * 20)
        return (beta_dpo(here, keep=0.5, mean=0.0, deviation=1.0, batches=batches) > 0).tolist()

    before = torch.get_rng_state()
    assert kept(4.0) == kept(4.0)
    assert kept(4.0) != kept(5.0)
    assert torch.equal(before, torch.get_rng_state())


def test_pairs_are_kept_as_often_as_the_density_of_their_margins_says() -> None:
    """Two of three, drawn one after the other: 20,000 draws beside the probabilities worked out."""
    margins, mean, deviation = [0.0, 1.0, 2.0], 0.5, 1.0
    weights = [math.exp(-((margin - mean) ** 2) / (2 * deviation**2)) for margin in margins]
    total = sum(weights)
    wanted = [
        weights[i] / total + sum(weights[j] / total * weights[i] / (total - weights[j]) for j in range(3) if j != i)
        for i in range(3)
    ]
    here, draws = pairs([2 * margin for margin in margins], [0.0] * 3), 20_000
    often = torch.zeros(3)
    for batches in range(draws):
        often += beta_dpo(here, beta=0.5, keep=0.67, mean=mean, deviation=deviation, batches=float(batches)) > 0
    for share, probability in zip((often / draws).tolist(), wanted, strict=True):
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / draws)


def test_a_first_batch_whose_margins_are_all_alike_is_drawn_from_evenly() -> None:
    """As where policy and reference agree: there is no deviation yet."""
    losses = beta_dpo(pairs([0.0] * 5, [0.0] * 5), mean=0.0, deviation=0.0, batches=1.0)
    assert sorted(losses.tolist()) == pytest.approx([0] + [1.25 * math.log(2)] * 4)
