"""The modified Bessel function I of the first kind, its logarithm and its ratios, for any array library.

Everything is elementary operations, so it is differentiable, and neither overflows nor underflows at any order.
Orders are numbers above -1, arguments arrays of numbers at least 0.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

from numpy.polynomial import Polynomial

from kilter.divergence.families.special import excess
from kilter.divergence.namespaces import array_namespace

Array = Any

_LEAST_ORDER = 40  # from where the expansion is exact to rounding
_TERMS = 9
_TERMS_OF_HANKEL = 17


@cache
def _debye_polynomials() -> tuple[list[list[float]], list[list[float]]]:
    """Coefficients of U_k (DLMF 10.41.9), and of W_k with V_k = U_k - t (1 - t^2) W_k (DLMF 10.41.10)."""
    t, u, w = Polynomial([0.0, 1.0]), [Polynomial([1.0])], [Polynomial([0.0])]
    for _ in range(_TERMS):
        last = u[-1]
        w.append(last / 2 + t * last.deriv())
        u.append(t**2 * (1 - t**2) * last.deriv() / 2 + ((1 - 5 * t**2) * last).integ() / 8)
    return [polynomial.coef.tolist() for polynomial in u], [polynomial.coef.tolist() for polynomial in w]


def _series(polynomials: list[list[float]], order: float, t: Any) -> Any:
    """sum P_k(t) / order^k."""
    total = 0 * t
    for coefficients in reversed(polynomials):
        value = 0 * t
        for coefficient in reversed(coefficients):
            value = value * t + coefficient
        total = total / order + value
    return total


def _ratios(order: float, x: Array) -> tuple[list[Array], float]:
    """[r_0, r_1, ...] with r_j = I_(order + j + 1)(x) / (x I_(order + j)(x)), and the order that the last belongs to.

    That is at least 40, and its ratio is Debye's expansion of I' / I (DLMF 10.41.3, 10.41.5); the others follow by
    1 / r_j = 2 (order + j + 1) + x^2 r_(j+1).
    """
    xp = array_namespace(x)
    steps = max(0, math.ceil(_LEAST_ORDER - order))
    top = order + steps
    root = xp.sqrt(1 + (x / top) ** 2)
    t = 1 / root
    u, w = _debye_polynomials()
    ratios = [(1 / (1 + root) - t * t * _series(w, top, t) / _series(u, top, t)) / top]
    for j in range(steps - 1, -1, -1):
        ratios.append(1 / (2 * (order + j + 1) + x * x * ratios[-1]))
    return ratios[::-1], top


def bessel_ratio(order: float, x: Array) -> Array:
    """I_(order + 1)(x) / I_order(x): the mean resultant length of a von Mises-Fisher distribution."""
    return x * _ratios(order, x)[0][0]


def log_hyp0f1(order: float, x: Array) -> Array:
    """log 0F1(; order + 1; x^2 / 4) = log(Gamma(order + 1) (2 / x)^order I_order(x)), which is 0 at 0.

    For order d / 2 - 1 it is the logarithm of the mean of exp(x u_1) over unit vectors u of dimension d.
    """
    xp = array_namespace(x)
    ratios, top = _ratios(order, x)
    rise = (x / top) ** 2 / (1 + xp.sqrt(1 + (x / top) ** 2))  # sqrt(1 + z^2) - 1
    u, _ = _debye_polynomials()
    correction = _series(u, top, 1 / (1 + rise)) / _series(u, top, 1.0)
    total = top * (rise - xp.log1p(rise / 2)) - 0.5 * xp.log1p(rise) + xp.log(correction)
    for j, ratio in enumerate(ratios[1:]):
        total = total + xp.log1p(x * x * ratio / (2 * (order + j + 1)))
    return total


def _ratio_slope(order: float, x: Array) -> Array:
    """The derivative of `bessel_ratio`: r_0 (1 - x^2 (r_0 - r_1)), and where x is large and that cancels by Hankel's
    expansion I(x) = exp(x) S(x) / sqrt(2 pi x) (DLMF 10.40.1), as the second derivative of log(x^-order I(x)).
    """
    xp = array_namespace(x)
    far = x > 40 + order**2
    near = xp.where(far, xp.ones_like(x), x)
    r, _ = _ratios(order, near)
    after = r[1] if len(r) > 1 else _ratios(order + 1, near)[0][0]
    y = xp.where(far, x, 41 + order**2 + 0 * x)
    s = term = xp.ones_like(x)
    slope, curvature = xp.zeros_like(x), xp.zeros_like(x)
    for j in range(1, _TERMS_OF_HANKEL):
        term = -term * (4 * order**2 - (2 * j - 1) ** 2) / (8 * j * y)
        s, slope, curvature = s + term, slope - j * term / y, curvature + j * (j + 1) * term / (y * y)
    return xp.where(
        far,
        (order + 0.5) / (y * y) + curvature / s - (slope / s) ** 2,
        r[0] * (1 - near * near * (r[0] - after)),
    )


def log_hyp0f1_excess(order: float, a: Array, b: Array) -> Array:
    """The Bregman divergence of `log_hyp0f1`, of which `bessel_ratio` is the derivative."""
    return excess(
        lambda x: log_hyp0f1(order, x),
        lambda x: bessel_ratio(order, x),
        lambda x: _ratio_slope(order, x),
        a,
        b,
        near=array_namespace(a, b).abs(b - a) < 0.5 * (1 + a),
    )


def log_bessel_i(order: float, x: Array) -> Array:
    """log I_order(x), -inf at 0 unless the order is 0.

    >>> import numpy as np
    >>> float(log_bessel_i(0, np.asarray(1.0))).__round__(12)  # I_0(1) = 1.266065877752
    0.235914358507
    """
    scaled = log_hyp0f1(order, x)
    return scaled if order == 0 else scaled + order * array_namespace(x).log(x / 2) - math.lgamma(order + 1)
