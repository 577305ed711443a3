"""Claims about discrete entropies and divergences, for NumPy and PyTorch alike."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kilter.divergence import LogProbs
from kilter.divergence import entropy as entropy_of
from kilter.divergence import kl as kl_of

Array = Any
INF = math.inf


def entropy(log_p: Array) -> Array:
    return entropy_of(LogProbs(log_p))


def kl(log_p: Array, log_q: Array) -> Array:
    return kl_of(LogProbs(log_p), LogProbs(log_q))


def tensor(values: Array) -> Array:
    return torch.tensor(values, dtype=torch.float64)


libraries = pytest.mark.parametrize("array", [np.array, tensor], ids=["numpy", "torch"])


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p else -INF for p in probabilities]


@libraries
@pytest.mark.parametrize(
    ("p", "nats"),
    [
        ([0.5, 0.5], math.log(2)),
        ([0.25] * 4, math.log(4)),
        ([0.25, 0.75], 0.25 * math.log(4) + 0.75 * math.log(4 / 3)),
        ([1.0, 0.0], 0.0),
        ([0.5, 0.0, 0.5], math.log(2)),
    ],
)
def test_entropy_is_that_worked_out_by_hand(p: list[float], nats: float, array: Callable[..., Array]) -> None:
    assert float(entropy(array(logs(*p)))) == pytest.approx(nats, abs=1e-15)


@libraries
@pytest.mark.parametrize(
    ("p", "q", "nats"),
    [
        ([0.5, 0.5], [0.25, 0.75], 0.5 * math.log(4 / 3)),  # 0.1438
        ([0.25, 0.75], [0.5, 0.5], 0.75 * math.log(3) - math.log(2)),  # 0.1308
        ([0.25, 0.75], [0.25, 0.75], 0.0),
        ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5], math.log(2)),
        ([0.5, 0.5, 0.0], [0.25, 0.75, 0.0], 0.5 * math.log(4 / 3)),
        ([0.25, 0.25, 0.5], [0.5, 0.5, 0.0], INF),
    ],
)
def test_kl_is_that_worked_out_by_hand(
    p: list[float], q: list[float], nats: float, array: Callable[..., Array]
) -> None:
    assert float(kl(array(logs(*p)), array(logs(*q)))) == pytest.approx(nats, abs=1e-15)


@libraries
def test_the_last_axis_is_the_distribution(array: Callable[..., Array]) -> None:
    log_p = array([[logs(0.5, 0.5)], [logs(0.25, 0.75)]])
    log_q = array([[logs(0.25, 0.75)], [logs(0.25, 0.75)]])
    assert tuple(kl(log_p, log_q).shape) == tuple(entropy(log_p).shape) == (2, 1)
    np.testing.assert_allclose(np.asarray(kl(log_p, log_q))[:, 0], [0.5 * math.log(4 / 3), 0], atol=1e-15)


logits = st.lists(st.floats(-5, 5), min_size=3, max_size=3)


@given(logits, logits)
def test_kl_is_cross_entropy_less_entropy_and_never_negative(p: list[float], q: list[float]) -> None:
    log_p, log_q = (tensor(x).log_softmax(-1) for x in (p, q))
    cross_entropy = torch.nn.functional.cross_entropy(log_q[None], log_p.exp()[None])
    assert float(kl(log_p, log_q)) == pytest.approx(float(cross_entropy - entropy(log_p)), abs=1e-12)
    assert kl(log_p, log_q) >= -1e-15


def test_gradients_with_respect_to_logits_are_the_closed_forms() -> None:
    """dH/dz = -p (log p + H); dKL(p, q)/dz_p = p (log p - log q - KL); dKL(p, q)/dz_q = q - p."""
    z_p, z_q = (tensor(z).requires_grad_() for z in ([0.3, -1.0, 2.0], [1.0, 0.5, -0.2]))
    log_p, log_q = z_p.log_softmax(-1), z_q.log_softmax(-1)
    p, q = log_p.exp(), log_q.exp()
    h, d = entropy(log_p), kl(log_p, log_q)
    torch.testing.assert_close(torch.autograd.grad(h, z_p, retain_graph=True)[0], -p * (log_p + h))
    towards_p, towards_q = torch.autograd.grad(d, [z_p, z_q])
    torch.testing.assert_close(towards_p, p * (log_p - log_q - d))
    torch.testing.assert_close(towards_q, q - p)


@pytest.mark.parametrize("function", [entropy, lambda log_p: kl(log_p, tensor(logs(0.25, 0.75, 0.0)))])
def test_gradients_of_a_masked_token_are_zero_and_others_those_without_it(
    function: Callable[[Array], Array],
) -> None:
    masked, alone = tensor([0.3, -1.0, -INF]).requires_grad_(), tensor([0.3, -1.0]).requires_grad_()
    (gradient,) = torch.autograd.grad(function(masked.log_softmax(-1)), masked)
    padded = torch.nn.functional.pad(alone.log_softmax(-1), (0, 1), value=-1e4)  # exp is 0, and its logarithm finite
    (wanted,) = torch.autograd.grad(function(padded), alone)
    torch.testing.assert_close(gradient, torch.nn.functional.pad(wanted, (0, 1)))
