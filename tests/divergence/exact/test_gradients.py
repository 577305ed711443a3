"""Claims about gradients of the exact functions: those of finite differences in float64, also at zeros and at -inf."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from divergence.exact.functions import FUNCTIONS
from kilter import divergence as dv
from kilter.divergence import Logits, LogProbs, Probs

INF = math.inf
functions = pytest.mark.parametrize("name", FUNCTIONS)


def tensor(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def differences(function: Callable[[Tensor], Tensor], x: Tensor, one_sided: bool = False) -> Tensor:
    """The slope along each axis: central, or from the inside of x >= 0 to the second order."""
    h, slopes = 1e-5, []
    for step in torch.eye(len(x), dtype=x.dtype) * h:
        if one_sided:
            slopes.append((4 * function(x + step) - function(x + 2 * step) - 3 * function(x)) / (2 * h))
        else:
            slopes.append((function(x + step) - function(x - step)) / (2 * h))
    return torch.stack(slopes).detach()


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(function(x), x)[0]


@functions
@pytest.mark.parametrize("kind", [Logits, LogProbs, Probs])
def test_gradients_are_finite_differences(name: str, kind: Any) -> None:
    function = partial(FUNCTIONS[name], validate=False)
    z, y = tensor([0.3, -1.0, 2.0, 0.1]), tensor([1.0, 0.5, -0.2, 0.4])
    if kind is not Logits:
        z, y = (x.log_softmax(-1) if kind is LogProbs else x.softmax(-1) for x in (z, y))
    for of_p in (True, False):
        value = (lambda x: function(kind(x), kind(y))) if of_p else (lambda x: function(kind(z), kind(x)))
        x = z if of_p else y
        torch.testing.assert_close(gradient(value, x), differences(value, x), rtol=1e-6, atol=1e-8)


@functions
def test_gradients_at_minus_inf_are_those_without_the_outcome(name: str) -> None:
    function = FUNCTIONS[name]
    z, y = tensor([0.3, -1.0, 2.0]), tensor([1.0, 0.5, -0.2])
    ruled_out = tensor([-INF])
    for of_p in (True, False):

        def alone(x: Tensor, of_p: bool = of_p) -> Tensor:
            return function(Logits(x if of_p else z), Logits(y if of_p else x))

        def beside(x: Tensor, of_p: bool = of_p) -> Tensor:
            other = torch.cat([y if of_p else z, ruled_out])
            return function(Logits(x if of_p else other), Logits(other if of_p else x))

        wanted = gradient(alone, z if of_p else y)
        got = gradient(beside, torch.cat([z if of_p else y, ruled_out]))
        torch.testing.assert_close(got, torch.cat([wanted, tensor([0.0])]))


@functions
@pytest.mark.parametrize("side", ["p", "q"])
def test_gradients_where_one_alone_is_0_are_finite_and_right(name: str, side: str) -> None:
    """Where outcome 2 is ruled out by one of the two, the other outcomes' logits have the slopes of differences."""
    function = FUNCTIONS[name]
    z, y, other = tensor([0.3, -1.0]), tensor([1.0, 0.5, -0.2]), tensor([-INF])

    def value(x: Tensor) -> Tensor:
        masked = torch.cat([x, other])
        return function(Logits(masked), Logits(y)) if side == "p" else function(Logits(y), Logits(masked))

    got = gradient(value, z)
    assert got.isfinite().all()
    if value(z).isfinite():
        torch.testing.assert_close(got, differences(value, z), rtol=1e-6, atol=1e-8)


# Slopes at p = 0 that are infinite; there the gradient is 0, which the docstrings say.
INFINITE_IN_P = {"kl", "jeffreys", "js", "js(0.1)", "generalised_js(0.3)", "hellinger", "bhattacharyya", "entropy"}
INFINITE_IN_P |= {"renyi(0.5)", "alpha(0.3)", "tsallis(0.3)"}


@functions
def test_gradients_at_a_probability_of_0_are_one_sided_differences(name: str) -> None:
    function = partial(FUNCTIONS[name], validate=False)
    p, q = tensor([0.0, 0.4, 0.6]), tensor([0.3, 0.3, 0.4])

    def of_p(x: Tensor) -> Tensor:
        return function(Probs(x), Probs(q))

    def of_q(x: Tensor) -> Tensor:
        return function(Probs(q), Probs(x))

    def of_q_beside_0(x: Tensor) -> Tensor:
        return function(Probs(tensor([0.0, 0.5, 0.5])), Probs(x))

    got = gradient(of_p, p)
    assert got.isfinite().all()
    if not of_p(p).isfinite():
        return
    wanted = differences(of_p, p, one_sided=True)
    if name in INFINITE_IN_P:
        assert wanted[0].abs() > 1  # and growing, as steps are made smaller
        assert got[0] == 0
        got, wanted = got[1:], wanted[1:]
    if name != "total_variation":  # which has corners
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient(of_q_beside_0, q), differences(of_q_beside_0, q), rtol=1e-6, atol=1e-8)
    assert gradient(of_q, p).isfinite().all()


@functions
def test_gradients_are_finite_where_p_is_q(name: str) -> None:
    z = tensor([0.3, -1.0, 2.0, -INF])
    got = gradient(lambda x: FUNCTIONS[name](Logits(x), Logits(z)), z)
    assert got.isfinite().all()
    if name not in ("cross_entropy",):
        torch.testing.assert_close(got, torch.zeros_like(got), rtol=0, atol=1e-12)


@functions
def test_gradients_of_logits_of_ten_thousand_are_finite(name: str) -> None:
    z = torch.tensor([1e4, -1e4, 0.0], requires_grad=True)
    y = torch.tensor([-1e4, 1e4, 3.0], requires_grad=True)
    value = FUNCTIONS[name](Logits(z), Logits(y))
    if value.isfinite():
        assert all(g.isfinite().all() for g in torch.autograd.grad(value, (z, y)))


def test_a_row_that_does_not_count_has_no_gradient_and_spoils_none() -> None:
    z = tensor([[0.3, -1.0], [math.nan, 2.0]]).requires_grad_()
    value = dv.kl(Logits(z), Logits(tensor([0.1, 0.2])), mask=torch.tensor([True, False]), reduction="sum")
    (got,) = torch.autograd.grad(value, z)
    alone = gradient(lambda x: dv.kl(Logits(x), Logits(tensor([0.1, 0.2]))), tensor([0.3, -1.0]))
    torch.testing.assert_close(got, torch.stack([alone, torch.zeros(2, dtype=torch.float64)]))
