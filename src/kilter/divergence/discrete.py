"""Entropy and divergences of discrete distributions, from log-probabilities, in nats.

One formula serves NumPy, PyTorch, JAX and CuPy arrays (array-api-compat). The last axis is the distribution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

Array = Any


def expectation(p: Array, value: Array) -> Array:
    """sum p * value along the last axis, where outcomes of probability 0 count nothing, whatever their value.

    >>> float(expectation(np.array([0.5, 0.5, 0.0]), np.array([1.0, 3.0, np.inf])))
    2.0
    """
    xp = array_namespace(p, value)
    # The inner `where` keeps 0 x inf out of the product, and NaN out of its gradient.
    return xp.sum(p * xp.where(p > 0, value, xp.zeros_like(value)), axis=-1)


def entropy(log_p: Array) -> Array:
    """Entropy H(p) = -sum p log p along the last axis, with 0 log 0 = 0.

    >>> float(entropy(np.log([0.5, 0.5])))  # log 2
    0.6931471805599453
    """
    return -expectation(array_namespace(log_p).exp(log_p), log_p)


def kl(log_p: Array, log_q: Array) -> Array:
    """KL(p, q) = sum p log(p / q) along the last axis: 0 log 0 = 0, and inf where p > 0 = q.

    >>> p, q = np.log([0.5, 0.5]), np.log([0.25, 0.75])
    >>> round(float(kl(p, q)), 4), round(float(kl(q, p)), 4)
    (0.1438, 0.1308)
    """
    xp = array_namespace(log_p, log_q)
    with np.errstate(invalid="ignore"):  # -inf - -inf, where both rule an outcome out
        log_ratio = log_p - log_q
    return expectation(xp.exp(log_p), log_ratio)
