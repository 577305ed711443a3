"""Claims about losses on pairs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kilter.objectives import PairScores, dpo, hinge, ipo

LOSSES = [dpo, ipo, hinge]
BETAS = [0.05, 0.1, 1.7]


def gap(*values: float) -> PairScores:
    """Pairs whose chosen log-ratio is larger than the rejected by these values, in nats."""
    gap_P = torch.tensor(values, dtype=torch.float64)
    return PairScores.of_log_ratios(gap_P - 3.25, torch.full_like(gap_P, -3.25))


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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("beta", BETAS)
def test_gradients_equal_finite_differences(loss: Callable[..., Tensor], beta: float) -> None:
    scores = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in ([-4.0, 0.2, 1.1], [-3.0, 0.1, 2.5])]

    def value(chosen: Tensor, rejected: Tensor) -> Tensor:
        return loss(PairScores.of_log_ratios(chosen, rejected), beta=beta)

    assert torch.autograd.gradcheck(value, scores)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.4])
def test_label_smoothing_is_the_mean_loss_of_labels_flipped_that_often(label_smoothing: float) -> None:
    right, flipped = dpo(gap(7, -3), beta=0.2), dpo(gap(-7, 3), beta=0.2)
    smoothed = dpo(gap(7, -3), beta=0.2, label_smoothing=label_smoothing)
    torch.testing.assert_close(smoothed, (1 - label_smoothing) * right + label_smoothing * flipped)


def test_label_smoothing_puts_the_minimum_at_a_finite_margin() -> None:
    """Where sigma(margin) = 1 - smoothing. With a smoothing of 0.2 that margin is log 4."""
    chosen, _ = gradients(dpo, [10 * math.log(4)], [0.0], beta=0.1, label_smoothing=0.2)
    assert float(chosen) == pytest.approx(0, abs=1e-15)


def test_losses_of_extreme_gaps_are_finite_and_their_gradients_too() -> None:
    assert dpo(gap(1e6, -1e6), beta=1.0).tolist() == [0, 1e6]
    chosen, _ = gradients(dpo, [1e6, -1e6], [0.0, 0.0], beta=1.0)
    assert chosen.tolist() == [0, -1]
