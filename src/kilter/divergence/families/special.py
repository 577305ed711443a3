"""Special functions for any array library, and differences that keep their digits where they are tiny.

NumPy has no gamma or error function, and SciPy takes longer to load than a divergence to compute, so the standard
library's serve there. What is written out in elementary operations is differentiable wherever the array library is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from array_api_compat import is_numpy_array, is_torch_array

from kilter.divergence.namespaces import array_namespace

Array = Any

EULER = 0.5772156649015329  # Euler's constant, -digamma(1)
LOG_2PI = math.log(2 * math.pi)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(14)
# Coefficients of the asymptotic series of digamma and trigamma: Bernoulli numbers B_2, B_4, ...
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


# From so many numbers on, SciPy's functions are worth the time that their import takes.
MANY = 10_000


def _elementwise(of_number: Callable[[float], float], name: str) -> Callable[[Array], Array]:
    """A function of one number, for arrays: the standard library's for NumPy, else the array library's own."""
    of_array = np.frompyfunc(of_number, 1, 1)

    def function(x: Array) -> Array:
        if is_numpy_array(x):
            if np.size(x) > MANY:
                from scipy import special

                return getattr(special, name)(x)
            return np.asarray(of_array(x)).astype(x.dtype)[()]
        if is_torch_array(x):
            import torch

            return getattr(torch.special, name)(x)
        from importlib import import_module

        return getattr(import_module("jax.scipy.special"), name)(x)

    return function


def _log_gamma(x: float) -> float:
    if math.isnan(x) or x == -math.inf:
        return math.nan
    return math.inf if x <= 0 and x == math.floor(x) else math.lgamma(x)


log_gamma = _elementwise(_log_gamma, "gammaln")
erf = _elementwise(math.erf, "erf")


def root(x: Array) -> Array:
    """sqrt(x), 0 below 0, where nothing but rounding leads; its gradient at 0 is 0 and not inf."""
    xp = array_namespace(x)
    nothing = x <= 0
    return xp.where(nothing, xp.zeros_like(x), xp.sqrt(xp.where(nothing, xp.ones_like(x), x)))


def xlogy(x: Array, y: Array) -> Array:
    """x log y, which is 0 wherever x is 0, and so is its gradient in y; its gradient where it is infinite is 0."""
    xp = array_namespace(x, y)
    x, y = x + 0 * y, y + 0 * x
    nothing, at_0 = (x == 0) & (y >= 0), y == 0
    value = x * xp.log(xp.where(nothing | at_0, xp.ones_like(y), y))
    infinite = xp.where(x > 0, xp.full_like(value, -math.inf), xp.full_like(value, math.inf))
    return xp.where(nothing, xp.zeros_like(value), xp.where(at_0, infinite, value))


def log_cosh(x: Array) -> Array:
    """log cosh(x), to full relative accuracy where x is near 0, and finite wherever x is."""
    xp = array_namespace(x)
    near = xp.abs(x) < 1
    small = xp.where(near, x, xp.zeros_like(x))
    far = xp.where(near, xp.ones_like(x), xp.abs(x))
    return xp.where(near, xp.log1p(2 * xp.sinh(small / 2) ** 2), far + xp.log1p(xp.exp(-2 * far)) - math.log(2))


def log1p_square(x: Array) -> Array:
    """log(1 + x^2), also where the square overflows."""
    xp = array_namespace(x)
    far = xp.abs(x) > 1e9
    near = xp.where(far, xp.zeros_like(x), x)
    return xp.where(far, 2 * xp.log(xp.where(far, xp.abs(x), xp.ones_like(x))), xp.log1p(near * near))


def stirling_remainder(x: Array) -> Array:
    """What Stirling's formula lacks: log Gamma(x) less (x - 1/2) log x - x + log(2 pi) / 2, for x > 0.

    From 10 on by its asymptotic series (DLMF 5.11.1), so that differences of logarithms of gamma functions can be
    written without the x log x that they have in common.
    """
    xp = array_namespace(x)
    large = x >= 10
    far = xp.where(large, x, 10 * xp.ones_like(x))
    square, series = 1 / (far * far), xp.zeros_like(x)
    for k in range(len(_BERNOULLI), 0, -1):
        series = series * square + _BERNOULLI[k - 1] / (2 * k * (2 * k - 1))
    near = xp.where(large, xp.ones_like(x), x)
    return xp.where(large, series / far, log_gamma(near) - (near - 0.5) * xp.log(near) + near - LOG_2PI / 2)


def log_beta(a: Array, b: Array) -> Array:
    """log B(a, b) = log Gamma(a) + log Gamma(b) - log Gamma(a + b)."""
    xp = array_namespace(a, b)
    remainders = stirling_remainder(a) + stirling_remainder(b) - stirling_remainder(a + b)
    powers = -a * xp.log1p(b / a) - b * xp.log1p(a / b)
    by_stirling = powers + 0.5 * (LOG_2PI + xp.log1p(b / a) - xp.log(b)) + remainders
    return xp.where(a + b < 20, log_gamma(a) + log_gamma(b) - log_gamma(a + b), by_stirling)


def log_rising(a: Array, s: Array) -> Array:
    """log(Gamma(a + s) / (Gamma(a) a^s)) for a and a + s above 0."""
    growth = array_namespace(a, s).log1p(s / a)
    return (a + s - 0.5) * growth - s + stirling_remainder(a + s) - stirling_remainder(a)


def log_poisson(n: Array, x: Array, rate: Array) -> Array:
    """n log(x rate) - x rate - log Gamma(n + 1): of a large n without the n log n that these have in common."""
    xp = array_namespace(n, x, rate)
    mean = x * rate
    large = (n >= 10) & (mean < math.inf)
    many, at = xp.where(large, n + 0 * mean, 10.0), xp.where(large, mean, 10.0)
    direct = xlogy(n, x) + xlogy(n, rate) - mean - log_gamma(n + 1)
    by_stirling = -many * log_excess(many, at) - 0.5 * (xp.log(many) + LOG_2PI) - stirling_remainder(many)
    return xp.where(large, by_stirling, direct)


def log_binomial(k: Array, n: Array, p: Array) -> Array:
    """The log-probability of k of n, any numbers at least 0, as Poisson ones of k, n - k and n (Loader 2000)."""
    one = array_namespace(k, n, p).ones_like(n)
    return log_poisson(k, p, n) + log_poisson(n - k, 1 - p, n) - log_poisson(n, n, one)


def second_difference(a: Array, step: Array) -> Array:
    """log Gamma(a) - 2 log Gamma(a + step) + log Gamma(a + 2 step)."""
    return gamma_excess(a, a + 2 * step) - 2 * gamma_excess(a, a + step)


def gamma_entropy(a: Array, k: float) -> Array:
    """log Gamma(a) + a - (a - k) psi(a) - (k - 1) log a, of which entropies of gammas and Dirichlets are made."""
    xp, log_a, less = array_namespace(a), array_namespace(a).log(a), log_less_digamma(a)
    by_stirling = 0.5 * (log_a + LOG_2PI) + stirling_remainder(a) + (a - k) * less
    return xp.where(a < 10, log_gamma(a) + a - (a - k) * (log_a - less) - (k - 1) * log_a, by_stirling)


def digamma(x: Array) -> Array:
    """psi(x) = d log Gamma(x) / dx for x > 0."""
    return array_namespace(x).log(x) - log_less_digamma(x)


def log_less_digamma(x: Array) -> Array:
    """log x - psi(x) for x > 0, about 1 / 2x: shifted up to 10, then the asymptotic series (DLMF 5.11.2)."""
    xp = array_namespace(x)
    given, below = x, xp.zeros_like(x)
    for _ in range(10):
        small = x < 10
        below = below + xp.where(small, 1 / xp.where(small, x, xp.ones_like(x)), xp.zeros_like(x))
        x = xp.where(small, x + 1, x)
    square, series = 1 / (x * x), xp.zeros_like(x)
    for k in range(len(_BERNOULLI), 0, -1):
        series = (series + _BERNOULLI[k - 1] / (2 * k)) * square
    return 0.5 / x + series + below - xp.log(x / given)


def trigamma(x: Array) -> Array:
    """psi'(x) for x > 0: shifted up to 10, then the asymptotic series (DLMF 5.15.8)."""
    xp = array_namespace(x)
    below = xp.zeros_like(x)
    for _ in range(10):
        small = x < 10
        inverse = 1 / xp.where(small, x, xp.ones_like(x))
        below = below + xp.where(small, inverse * inverse, xp.zeros_like(x))
        x = xp.where(small, x + 1, x)
    square, series = 1 / (x * x), xp.zeros_like(x)
    for coefficient in reversed(_BERNOULLI):
        series = (series + coefficient) * square
    return (1 + 0.5 / x + series) / x + below


def log_ratio(of: Array, to: Array) -> Array:
    """log(to / of) of positive numbers, to full relative accuracy where they are near each other."""
    xp = array_namespace(of, to)
    change = (to - of) / of
    near = xp.abs(change) < 0.5
    return xp.where(near, xp.log1p(xp.where(near, change, xp.zeros_like(change))), xp.log(to / of))


def log_excess(of: Array, to: Array) -> Array:
    """u - 1 - log u of u = to / of, never negative, to full relative accuracy where they are near each other.

    With d = u - 1 and r = d / (2 + d), log(1 + d) is 2 artanh r and d - 2r is d r, so nothing of first order cancels.

    >>> round(float(log_excess(np.asarray(1.0), np.asarray(1.0 + 2**-30))) * 2**61, 12)  # d^2 / 2 - d^3 / 3
    0.999999999379
    """
    xp = array_namespace(of, to)
    change = (to - of) / of
    near, zero = xp.abs(change) < 0.2, xp.zeros_like(change)
    d = xp.where(near, change, zero)
    r = d / (2 + d)
    series = zero
    for k in range(21, 1, -2):
        series = (series + 1 / k) * r * r
    ratio = xp.where(near, xp.ones_like(change), to / of)
    infinite = ratio == math.inf
    far = xp.where(infinite, ratio, ratio - 1 - xp.log(xp.where(infinite, xp.ones_like(ratio), ratio)))
    return xp.where(near, d * r - 2 * r * series, far)


def exp_excess(x: Array) -> Array:
    """exp(x) - 1 - x, never negative, to full relative accuracy where x is near 0."""
    xp = array_namespace(x)
    near = xp.abs(x) < 0.5
    zero = xp.zeros_like(x)
    small = xp.where(near, x, zero)
    series = zero
    for k in range(16, 2, -1):
        series = (series + 1) * small / k
    far = xp.where(near, zero, x)
    return xp.where(near, (series + 1) * small * small / 2, xp.expm1(far) - far)


def excess(convex: Callable[[Array], Array], slope: Callable[[Array], Array], curvature: Callable[[Array], Array],
           a: Array, b: Array, near: Array) -> Array:  # fmt: skip
    """F(b) - F(a) - (b - a) F'(a), the Bregman divergence of a convex F with its derivatives, never negative.

    Where b is `near` a it is the remainder of Taylor's formula, (b - a)^2 int_0^1 (1 - t) F''(a + t (b - a)) dt, by
    Gauss-Legendre quadrature, which is exact to rounding where F'' is smooth and cancels nothing.
    """
    xp = array_namespace(a, b)
    step = xp.where(near, b - a, xp.zeros_like(b - a))
    remainder = xp.zeros_like(step)
    for node, weight in zip(_NODES.tolist(), _WEIGHTS.tolist(), strict=True):
        t = (1 + node) / 2
        remainder = remainder + (weight / 2) * (1 - t) * curvature(a + t * step)
    far = xp.where(near, a + 1, b + 0 * a)
    return xp.where(near, step * step * remainder, convex(far) - convex(a) - (far - a) * slope(a))


def gamma_excess(a: Array, b: Array) -> Array:
    """log Gamma(b) - log Gamma(a) - (b - a) psi(a), the Bregman divergence of log Gamma."""
    return excess(log_gamma, digamma, trigamma, a, b, near=array_namespace(a, b).abs(b - a) < 0.5 * a)


def exp1_scaled(x: Array) -> Array:
    """exp(x) E1(x) of the exponential integral E1, for x > 0: its power series up to 2, beyond a continued fraction.

    DLMF 6.6.2 and 6.9.1.
    """
    xp = array_namespace(x)
    near = x <= 2
    small = xp.where(near, x, xp.ones_like(x))
    series, term = xp.zeros_like(x), -xp.ones_like(x)
    for k in range(1, 32):
        term = -term * small / k
        series = series + term / k
    far = xp.where(near, 2 * xp.ones_like(x), x)
    fraction = far + 161
    for k in range(80, 0, -1):
        fraction = far + 2 * k - 1 - k * k / fraction
    return xp.where(near, xp.exp(small) * (series - EULER - xp.log(small)), 1 / fraction)
