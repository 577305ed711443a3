"""Claims about losses on answers that are labelled one by one, or imitated."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from kilter.objectives import LabelledScores, kto, sft


def labelled(
    desirable: list[float], undesirable: list[float], mismatched: list[float], *, requires_grad: bool = False
) -> LabelledScores:
    tensors = (torch.tensor(x, dtype=torch.float64) for x in (desirable, undesirable, mismatched))
    return LabelledScores(*(t.requires_grad_(requires_grad) for t in tensors))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def gradients(scores: LabelledScores, **options: float) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(kto(scores, **options).sum(), list(scores), allow_unused=True)


def test_kto_where_nothing_has_moved_is_one_half() -> None:
    assert kto(labelled([0, 0], [0], [0])).tolist() == [0.5, 0.5, 0.5]


def test_kto_is_that_worked_out_by_hand() -> None:
    """The reference point is 3, the mean of 1 and 5; its distance from desirable 2 and 5 and undesirable 1 counts."""
    losses = kto(labelled([2, 5], [1], [1, 5]), beta=0.5, desirable_weight=3.0, undesirable_weight=0.25)
    by_hand = [3 * sigmoid(0.5), 3 * sigmoid(-1), 0.25 * sigmoid(-1)]
    assert losses.tolist() == pytest.approx(by_hand, abs=1e-15)


def test_the_reference_point_is_never_below_zero() -> None:
    assert kto(labelled([2], [1], [-9, 3]), beta=0.5).tolist() == kto(labelled([2], [1], [0, 0]), beta=0.5).tolist()


def test_raising_a_desirable_answer_lowers_the_loss_and_an_undesirable_raises_it() -> None:
    desirable, undesirable, _ = gradients(labelled([-1, 0, 4], [2, -3], [1, 2], requires_grad=True))
    assert desirable is not None
    assert undesirable is not None
    assert (desirable < 0).all()
    assert (undesirable > 0).all()


@pytest.mark.parametrize("mismatched", [[4.0, 2.0], [-4.0, -2.0]])
def test_no_gradient_flows_through_the_reference_point(mismatched: list[float]) -> None:
    assert gradients(labelled([1.0], [1.0], mismatched, requires_grad=True))[2] is None


@pytest.mark.parametrize("beta", [0.05, 1.7])
def test_gradients_are_the_closed_form(beta: float) -> None:
    """-+ weight beta sigma (1 - sigma), at beta times the distance from the reference point 3."""
    scores = labelled([1.0, 4.0], [-2.0, 3.0], [2.0, 4.0], requires_grad=True)
    desirable, undesirable, _ = gradients(scores, beta=beta, desirable_weight=2.0, undesirable_weight=0.5)

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
    alone = labelled(desirable, undesirable, [1.0, 3.0], requires_grad=True)
    losses = kto(alone, beta=0.5, desirable_weight=3.0, undesirable_weight=0.25)
    sign, weight = (1, 3.0) if desirable else (-1, 0.25)
    assert losses.tolist() == pytest.approx([weight * sigmoid(-sign * 0.5 * (x - 2)) for x in (2, -1)], abs=1e-15)
    slopes = torch.autograd.grad(losses.mean(), alone.desirable_A if desirable else alone.undesirable_A)[0]
    closed = [-sign * weight * 0.5 * sigmoid(0.5 * (x - 2)) * sigmoid(-0.5 * (x - 2)) / 2 for x in (2, -1)]
    assert slopes.tolist() == pytest.approx(closed, abs=1e-15)


def test_sft_is_minus_the_log_prob() -> None:
    assert sft(torch.tensor([-2.5, -0.25])).tolist() == [2.5, 0.25]
