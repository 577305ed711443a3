"""Claims about losses that look at more of an answer than its log-ratio."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kilter.objectives import dpo, ld_dpo, ld_dpo_policy, tdpo1, tdpo2, wpo, wpo_clamped
from objectives.pairs import CHOSEN, REJECTED, float64, pairs_of
from objectives.points_with_reference import LONGER_CHOSEN, LONGER_REJECTED, SHORTER, of_distributions, of_tokens


def test_kl_along_rejected_is_drawn_down_and_along_chosen_up_in_the_first_form_alone() -> None:
    """By beta sigma(-margin): at a gap of 6 nats and KL of 1 and 3 the margin is 2 in both, where alpha is 1."""
    slope = 0.5 / (1 + math.exp(2))
    for loss, options, wanted in ((tdpo1, {}, -slope), (tdpo2, {"alpha": 1.0}, 0.0)):
        chosen, rejected = float64([1.0]).requires_grad_(), float64([3.0]).requires_grad_()
        sides = (
            {"log_prob": [log_prob], "reference_log_prob": [-10.0], "kl_reference_policy": kl}
            for log_prob, kl in ((-8.0, chosen), (-14.0, rejected))
        )
        value = loss(pairs_of(*sides, {}), beta=0.5, **options).sum()
        got = torch.autograd.grad(value, (chosen, rejected), materialize_grads=True)
        assert [float(g) for g in got] == pytest.approx([wanted, slope], rel=1e-14)


def test_an_ld_dpo_that_counts_every_token_in_full_is_dpo() -> None:
    for loss in (ld_dpo, ld_dpo_policy):
        for pairs in (LONGER_CHOSEN, LONGER_REJECTED):
            torch.testing.assert_close(loss(pairs, beta=0.5, alpha=1.0), dpo(pairs, beta=0.5), rtol=1e-14, atol=0)


def test_an_ld_dpo_that_counts_no_token_beyond_the_shorter_answer_does_not_look_at_any() -> None:
    """The longer answer's last tokens are others, under both models."""
    pairs = of_tokens([[-1.0, -2.0, -9.0], SHORTER[0]], [[-2.0, -2.0, -4.0], SHORTER[1]])
    assert float(ld_dpo(pairs, alpha=0.0)) == pytest.approx(float(ld_dpo(LONGER_CHOSEN, alpha=0.0)), rel=1e-14)


def test_where_every_token_is_equally_likely_wpo_is_dpo() -> None:
    pairs = of_distributions([[0.25] * 4, [0.5] * 2], [[0.125] * 8] * 3)
    torch.testing.assert_close(wpo(pairs), dpo(pairs), rtol=1e-14, atol=0)


@pytest.mark.parametrize(("loss", "most"), [(wpo, math.inf), (wpo_clamped, 1.0)])
def test_no_gradient_flows_through_the_weights_of_wpo(loss: Callable[..., Tensor], most: float) -> None:
    """A nat of log-prob changes the loss by the weight times dpo's slope: the weight stays as it is."""
    chosen = CHOSEN | {"log_prob": float64(CHOSEN["log_prob"]).requires_grad_()}
    pairs = pairs_of(chosen, REJECTED, {})
    got, slope = (torch.autograd.grad(one(pairs).sum(), chosen["log_prob"])[0] for one in (loss, dpo))
    exponent = [
        (a - c) / n + (b - d) / m
        for a, c, n, b, d, m in zip(
            *(CHOSEN[key] for key in ("log_prob", "log_collision", "tokens")),
            *(REJECTED[key] for key in ("log_prob", "log_collision", "tokens")),
            strict=True,
        )
    ]
    weight = float64([min(math.exp(x), most) for x in exponent])
    torch.testing.assert_close(got, weight * slope, rtol=1e-13, atol=0)
