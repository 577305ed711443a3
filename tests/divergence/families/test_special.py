"""Claims about special functions: mpmath with many digits is the oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from kilter.divergence.families import bessel, special

Array = Any
WIDE = np.exp(np.random.default_rng(0).uniform(-12, 12, 60))


def relative_error(found: Array, wanted: Callable[..., Any], *arguments: Array) -> float:
    with mpmath.workdps(60):
        exact = [wanted(*map(mpmath.mpf, map(float, row))) for row in zip(*arguments, strict=True)]
        return max(
            float(abs(mpmath.mpf(float(f)) - e) / max(abs(e), mpmath.mpf(10) ** -300))
            for f, e in zip(found, exact, strict=True)
        )


@pytest.mark.parametrize(
    ("function", "wanted", "tolerance"),
    [
        (special.digamma, mpmath.digamma, 1e-12),  # relative to a value that crosses 0
        (special.trigamma, lambda x: mpmath.psi(1, x), 1e-14),
        (special.log_gamma, mpmath.loggamma, 1e-12),
        (special.exp1_scaled, lambda x: mpmath.exp(x) * mpmath.e1(x) if x < 500 else mpmath.nsum(
            lambda k: (-1) ** int(k) * mpmath.factorial(k) / x ** (k + 1), [0, 30]), 1e-13),
    ],
    ids=["digamma", "trigamma", "log_gamma", "exp1_scaled"],
)  # fmt: skip
def test_functions_are_exact_to_rounding(function: Any, wanted: Any, tolerance: float) -> None:
    assert relative_error(function(WIDE), wanted, WIDE) < tolerance
    tensor = torch.tensor(WIDE)
    np.testing.assert_allclose(function(tensor).numpy(), function(WIDE), rtol=1e-12)


NEAR = np.array([s * 2.0**-k for k in range(0, 50, 3) for s in (0.9, -0.9)])


def test_excesses_keep_their_digits_however_small() -> None:
    of = np.full_like(NEAR, 2.0)
    to = of * (1 + NEAR)
    assert relative_error(special.log_excess(of, to), lambda a, b: b / a - 1 - mpmath.log(b / a), of, to) < 1e-14
    assert relative_error(special.exp_excess(NEAR), lambda x: mpmath.exp(x) - 1 - x, NEAR) < 1e-14
    assert relative_error(special.log_ratio(of, to), lambda a, b: mpmath.log(b / a), of, to) < 1e-14


@pytest.mark.parametrize("a", [1e-3, 0.5, 3.0, 1e4])
def test_the_excess_of_log_gamma_keeps_its_digits_however_small(a: float) -> None:
    of = np.full_like(NEAR, a)
    to = of * (1 + NEAR)

    def wanted(x: Any, y: Any) -> Any:
        return mpmath.loggamma(y) - mpmath.loggamma(x) - (y - x) * mpmath.digamma(x)

    assert relative_error(special.gamma_excess(of, to), wanted, of, to) < 1e-11


def test_excesses_are_inf_where_a_ratio_is_0() -> None:
    with np.errstate(divide="ignore"):
        assert special.log_excess(np.array(1.0), np.array(0.0)) == np.inf


@pytest.mark.parametrize("order", [0, 0.5, 1, 7.5, 31, 63.5, 2000])
def test_bessel_functions_are_exact_to_rounding_at_every_order_and_argument(order: float) -> None:
    x = np.exp(np.random.default_rng(1).uniform(-8, 9, 25))
    with mpmath.workdps(40):
        exact = [mpmath.besseli(order, v) for v in x]
        logs = np.array([float(mpmath.log(value)) for value in exact])
        ratios = np.array([float(mpmath.besseli(order + 1, v) / value) for v, value in zip(x, exact, strict=True)])
    np.testing.assert_allclose(bessel.log_bessel_i(order, x), logs, rtol=1e-13, atol=1e-12)
    np.testing.assert_allclose(bessel.bessel_ratio(order, x), ratios, rtol=1e-14)


def test_the_gradient_of_log_bessel_is_the_ratio() -> None:
    x = torch.tensor([0.0, 1e-3, 1.0, 50.0, 1e5], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(bessel.log_hyp0f1(4.0, x).sum(), x)
    torch.testing.assert_close(gradient, bessel.bessel_ratio(4.0, x).detach(), rtol=1e-11, atol=1e-14)


def test_xlogy_of_nothing_is_nothing_and_so_is_its_gradient() -> None:
    y = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    value = special.xlogy(torch.tensor(0.0, dtype=torch.float64), y)
    (gradient,) = torch.autograd.grad(value, y)
    assert value.item() == gradient.item() == 0
