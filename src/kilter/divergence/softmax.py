"""Logits to log-probabilities, without overflow and without losing the digits of probabilities near 1."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device

Array = Any


def log_softmax(logits: Array, *, axis: int = -1) -> Array:
    """log softmax: the log-probabilities that logits stand for, z - m - log1p(sum of exp(z - m) over the others).

    m is the largest logit of a row and "the others" are all but one that has it, so nothing overflows, and the
    log-prob of a nearly certain outcome keeps its digits instead of being rounded to 0. Shape and type are those of
    `logits`, but bf16 and fp16 become float32. A logit of -inf is an outcome that is ruled out; a row of nothing else
    is NaN, and so is one with NaN or inf.

    >>> with np.errstate(over="ignore", invalid="ignore"):
    ...     print(np.log(np.exp([1000.0, 990.0]) / np.exp([1000.0, 990.0]).sum()))
    [nan nan]
    >>> print(log_softmax(np.array([1000.0, 990.0])))
    [-4.53988992e-05 -1.00000454e+01]
    >>> print(log_softmax(np.array([1000.0, 900.0])))
    [-3.72007598e-44 -1.00000000e+02]
    """
    logits = widened(logits)
    with np.errstate(invalid="ignore"):  # -inf - -inf, in a row that rules everything out
        largest, excess = largest_and_excess(logits, axis=axis)
        return (logits - largest) - excess


def largest_and_excess(logits: Array, *, axis: int) -> tuple[Array, Array]:
    """The largest logit m of each row and log sum exp(z) - m, which is never negative; both keep `axis`, of length 1.

    Apart they keep their digits: log sum exp(z) - z_c is (m - z_c) + excess, and neither of these is negative.
    """
    xp = array_namespace(logits)
    first = xp.argmax(logits, axis=axis, keepdims=True)
    largest = xp.take_along_axis(logits, first, axis=axis)
    shape = [1] * logits.ndim
    shape[axis] = logits.shape[axis]
    outcomes = xp.reshape(xp.arange(logits.shape[axis], device=device(logits)), tuple(shape))
    # exp(-inf) is 0, and so is its gradient.
    others = xp.where(outcomes == first, xp.full_like(logits, -xp.inf), logits) - largest
    return largest, xp.log1p(xp.sum(xp.exp(others), axis=axis, keepdims=True))


def widened(values: Array) -> Array:
    """An array of real floats of at least 32 bits: bf16 and fp16 as float32, whole numbers as the library's default."""
    xp = array_namespace(values)
    if not xp.isdtype(values.dtype, "real floating"):
        return xp.astype(values, xp.asarray(0.0).dtype)
    return xp.astype(values, xp.float32) if xp.finfo(values.dtype).bits < 32 else values
