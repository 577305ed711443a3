"""Claims about losses on answers that are labelled one by one, or imitated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kilter.objectives import OBJECTIVES, LabelledScores, bco, kto, sft
from kilter.objectives.labelled import remember_rewards
from objectives.points import answers, labelled, numbers, sigmoid, softplus


def by_kind(desirable: list[float], undesirable: list[float], mismatched: list[float]) -> tuple[Tensor, ...]:
    """Log-ratios as leaves of a graph."""
    return tuple(numbers(*x).requires_grad_() for x in (desirable, undesirable, mismatched))


def gradients(log_ratios: tuple[Tensor, ...], **options: float) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        kto(LabelledScores.of_log_ratios(*log_ratios), **options).sum(), log_ratios, allow_unused=True
    )


def test_kto_where_nothing_has_moved_is_one_half() -> None:
    assert kto(labelled([0, 0], [0], [0])).tolist() == [0.5, 0.5, 0.5]


def test_the_reference_point_is_never_below_zero() -> None:
    assert kto(labelled([2], [1], [-9, 3]), beta=0.5).tolist() == kto(labelled([2], [1], [0, 0]), beta=0.5).tolist()


def test_kto_without_mismatched_answers_has_a_reference_point_of_zero() -> None:
    assert kto(labelled([2], [1], []), beta=0.5).tolist() == kto(labelled([2], [1], [0]), beta=0.5).tolist()


def test_raising_a_desirable_answer_lowers_the_loss_and_an_undesirable_raises_it() -> None:
    desirable, undesirable, _ = gradients(by_kind([-1, 0, 4], [2, -3], [1, 2]))
    assert desirable is not None
    assert undesirable is not None
    assert (desirable < 0).all()
    assert (undesirable > 0).all()


@pytest.mark.parametrize("mismatched", [[4.0, 2.0], [-4.0, -2.0]])
def test_no_gradient_flows_through_the_reference_point(mismatched: list[float]) -> None:
    assert gradients(by_kind([1.0], [1.0], mismatched))[2] is None


@pytest.mark.parametrize("beta", [0.05, 1.7])
def test_gradients_are_the_closed_form(beta: float) -> None:
    """-+ weight beta sigma (1 - sigma), at beta times the distance from the reference point 3."""
    log_ratios = by_kind([1.0, 4.0], [-2.0, 3.0], [2.0, 4.0])
    desirable, undesirable, _ = gradients(log_ratios, beta=beta, desirable_weight=2.0, undesirable_weight=0.5)

    def slope(distance: float) -> float:
        return beta * sigmoid(beta * distance) * sigmoid(-beta * distance)

    assert desirable is not None
    assert undesirable is not None
    assert desirable.tolist() == pytest.approx([-2 * slope(-2), -2 * slope(1)], abs=1e-15)
    assert undesirable.tolist() == pytest.approx([0.5 * slope(5), 0.5 * slope(0)], abs=1e-15)


@pytest.mark.parametrize(("desirable", "undesirable"), [([2.0, -1.0], []), ([], [2.0, -1.0])])
def test_answers_of_one_kind_alone_have_the_loss_and_gradient_of_those_among_others(
    desirable: list[float], undesirable: list[float]
) -> None:
    alone = by_kind(desirable, undesirable, [1.0, 3.0])
    losses = kto(LabelledScores.of_log_ratios(*alone), beta=0.5, desirable_weight=3.0, undesirable_weight=0.25)
    sign, weight = (1, 3.0) if desirable else (-1, 0.25)
    assert losses.tolist() == pytest.approx([weight * sigmoid(-sign * 0.5 * (x - 2)) for x in (2, -1)], abs=1e-15)
    slopes = torch.autograd.grad(losses.mean(), alone[0] if desirable else alone[1])[0]
    closed = [-sign * weight * 0.5 * sigmoid(0.5 * (x - 2)) * sigmoid(-0.5 * (x - 2)) / 2 for x in (2, -1)]
    assert slopes.tolist() == pytest.approx(closed, abs=1e-15)


def test_bco_is_the_binary_cross_entropy_of_rewards_less_the_middle_of_both_means() -> None:
    """Rewards of 3 and 0 against a shift of 1: logits of 2 and -1."""
    losses = bco(labelled([6], [0], []), beta=0.5, desirable_mean=4.0, undesirable_mean=-2.0)
    assert losses.tolist() == pytest.approx([softplus(-2), softplus(-1)], abs=1e-15)


def test_bco_remembers_mean_rewards_by_kind_over_batches() -> None:
    """Of desirable answers they are 2, 4 and -1, of undesirable ones -3, none and 1."""
    batches = [labelled([3, 5], [-6], []), labelled([8], [], []), labelled([-2], [2, 2], [])]
    wanted = [(0.5, -0.75), (1.375, -0.75), (0.78125, -0.3125)]
    state = dict(OBJECTIVES["bco"].state)
    for batch, (desirable, undesirable) in zip(batches, wanted, strict=True):
        state = remember_rewards(batch, beta=0.5, momentum=0.75, **state)
        assert state == pytest.approx({"desirable_mean": desirable, "undesirable_mean": undesirable}, abs=1e-15)


def test_without_momentum_the_shift_of_bco_is_that_of_the_batch() -> None:
    state = remember_rewards(
        labelled([3, 5], [-6], []), beta=0.5, momentum=0.0, desirable_mean=9.0, undesirable_mean=9.0
    )
    assert state == {"desirable_mean": 2.0, "undesirable_mean": -3.0}


def test_sft_is_minus_the_log_prob() -> None:
    assert sft(answers(log_prob=[-2.5, -0.25])).tolist() == [2.5, 0.25]
