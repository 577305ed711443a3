"""Claims about DPO under penalties other than KL(policy, reference)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kilter.objectives import PairScores, dpo, fdpo_alpha, fdpo_forward_kl, fdpo_js

LOG_2 = math.log(2)
Loss = Callable[[PairScores], Tensor]


def ratio(chosen: list[float], rejected: list[float], dtype: torch.dtype = torch.float64) -> PairScores:
    return PairScores.of_log_ratios(torch.tensor(chosen, dtype=dtype), torch.tensor(rejected, dtype=dtype))


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def test_dpo_is_the_one_under_kl_from_policy_to_reference() -> None:
    """The alpha-divergence's limit at 1, with log t for f'(t), reached continuously."""
    pairs = ratio([2.0, -3.0, 0.5], [-1.0, 4.0, 0.25])
    torch.testing.assert_close(fdpo_alpha(pairs, beta=0.3, alpha=1.0), dpo(pairs, beta=0.3), rtol=0, atol=0)
    torch.testing.assert_close(fdpo_alpha(pairs, beta=0.3, alpha=1 - 1e-9), dpo(pairs, beta=0.3), rtol=1e-8, atol=0)


def test_forward_kl_is_the_alpha_divergence_at_0() -> None:
    pairs = ratio([2.0, -3.0, 0.5], [-1.0, 4.0, 0.25])
    near = fdpo_alpha(pairs, beta=0.3, alpha=1e-9)
    torch.testing.assert_close(fdpo_forward_kl(pairs, beta=0.3), near, rtol=1e-7, atol=0)


REFERENCE = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
REWARD = torch.tensor([0.0, 1.0, -0.5, 2.0], dtype=torch.float64)
BETA = 0.7


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p * (p / q).log()).sum()


def both_to_mean(p: Tensor, q: Tensor) -> Tensor:
    return kl(p, (p + q) / 2) + kl(q, (p + q) / 2)


def alpha_divergence(p: Tensor, q: Tensor) -> Tensor:
    return ((p**0.3 * q**0.7).sum() - 1) / (0.3 * (0.3 - 1))


# Each loss, and the penalty on (policy, reference) that it is said to stand for.
PENALTIES: dict[str, tuple[Loss, Callable[[Tensor, Tensor], Tensor]]] = {
    "dpo": (lambda pairs: dpo(pairs, beta=BETA), kl),
    "fdpo_forward_kl": (lambda pairs: fdpo_forward_kl(pairs, beta=BETA), lambda p, q: kl(q, p)),
    "fdpo_js": (lambda pairs: fdpo_js(pairs, beta=BETA), both_to_mean),
    "fdpo_alpha": (lambda pairs: fdpo_alpha(pairs, beta=BETA, alpha=0.3), alpha_divergence),
}


def best_policy(penalty: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Logits of the policy with the largest expected reward less beta times the penalty, by search."""
    logits = REFERENCE.log().clone().requires_grad_()
    search = torch.optim.LBFGS(
        [logits], max_iter=500, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        search.zero_grad()
        policy = logits.softmax(0)
        value = BETA * penalty(policy, REFERENCE) - (policy * REWARD).sum()
        value.backward()
        return value

    search.step(objective)  # type: ignore[no-untyped-call]
    return logits.detach()


def slope_at(loss: Loss, logits: Tensor) -> float:
    """The size of the gradient of the expected loss, over all pairs labelled by Bradley and Terry on the reward."""
    logits = logits.clone().requires_grad_()
    log_ratio = logits.log_softmax(0) - REFERENCE.log()
    places = torch.tensor(list(itertools.permutations(range(4), 2))).T
    chance = torch.sigmoid(REWARD[places[0]] - REWARD[places[1]])
    expected = (chance * loss(PairScores.of_log_ratios(log_ratio[places[0]], log_ratio[places[1]]))).sum()
    return float(torch.autograd.grad(expected, logits)[0].norm())


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("other", PENALTIES)
def test_the_expected_loss_is_stationary_at_the_optimum_of_its_own_penalty_alone(name: str, other: str) -> None:
    slope = slope_at(PENALTIES[name][0], best_policy(PENALTIES[other][1]))
    assert slope < 1e-6 if name == other else slope > 1e-3


def test_at_a_thousand_nats_losses_are_their_limits() -> None:
    """Rejected all but ruled out: nothing is left to learn under forward KL and alpha, and JS has its log-ratio.

    Chosen and rejected both certain: f' is 1 (forward KL) or log 2 (JS) for both, and for 0 against certain the
    difference of that.
    """
    pairs = ratio([0.0, 1000.0, 0.0], [-1000.0, 1000.0, 1000.0])
    assert fdpo_forward_kl(pairs, beta=0.3).tolist() == pytest.approx([0, LOG_2, softplus(0.3)], rel=1e-14)
    assert fdpo_alpha(pairs, beta=0.3).tolist() == pytest.approx([0, LOG_2, softplus(0.6)], rel=1e-14)
    assert fdpo_js(pairs, beta=0.3).tolist() == pytest.approx(
        [math.exp(-0.3 * (1000 - LOG_2)), LOG_2, softplus(0.3 * LOG_2)], rel=1e-12
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [fdpo_forward_kl, fdpo_alpha, fdpo_js])
def test_a_chosen_answer_that_is_all_but_ruled_out_is_always_drawn_back(
    loss: Callable[..., Tensor], dtype: torch.dtype
) -> None:
    """The loss falls all the way, and never flattens, also where 1 / t is beyond any number."""
    chosen = torch.arange(-1000, 1, 5, dtype=dtype).requires_grad_()
    value = loss(PairScores.of_log_ratios(chosen, torch.zeros_like(chosen)), beta=0.1)
    assert (value.diff() < 0).all()
    (slope,) = torch.autograd.grad(value.sum(), chosen)
    assert (slope < 0).all()


def test_below_overflow_the_loss_is_the_formula() -> None:
    """In float32, at a log-ratio of -60: 0.1 (exp(60) - 1), where exp(60) is 1.14e26."""
    got = fdpo_forward_kl(ratio([-60.0], [0.0], torch.float32), beta=0.1)
    assert float(got) == pytest.approx(0.1 * math.expm1(60), rel=1e-5)
