"""What the numbers of a discrete distribution are: probabilities, log-probabilities, logits or counts.

An array does not say which, and no function guesses. It is said by a wrapper: `Probs(x)`, `LogProbs(x)`, `Logits(x)`
or `Counts(x)`. The array may be NumPy's, PyTorch's, JAX's or CuPy's (array-api-compat); a list becomes NumPy's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import is_jax_namespace

from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any

# How far from 1 the sum of a row's probabilities may lie, by what one rounding of its numbers can do. float64 leaves
# room for numbers that were float32 once.
SUM_TOLERANCE = {"float64": 1e-6, "float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True, eq=False)
class Distribution:
    """Rows of numbers that each are, or stand for, a distribution over n outcomes.

    Base of `Probs`, `LogProbs`, `Logits` and `Counts`. `values` is an array of any shape (a list becomes a NumPy
    array); the function that takes it says along which axis the outcomes lie. float16 and bfloat16 are computed in
    float32, integers in float64 (in JAX's default type). Raises DistributionError where `values` are not real numbers.
    """

    values: Array
    noun: ClassVar[str]

    def __post_init__(self) -> None:
        if isinstance(self.values, Distribution):
            kinds = f"{type(self).__name__}({type(self.values).__name__}(...))"
            raise DistributionError(f"found {kinds}; the numbers are one or the other: keep the inner wrapper")
        values = self.values if _is_array(self.values) else _numpy_array(self.values)
        xp = array_namespace(values)
        if not xp.isdtype(values.dtype, ("real floating", "integral")):
            raise DistributionError(f"found {self.noun} of type {values.dtype}; wanted real numbers")
        if values.ndim == 0:
            raise DistributionError(f"found a single number as {self.noun}; wanted an array with an axis of outcomes")
        object.__setattr__(self, "values", values)

    def along(self, axis: int) -> Array:
        """The values, with the outcomes of an axis along the last one."""
        xp, values = array_namespace(self.values), self.values
        if not -values.ndim <= axis < values.ndim:
            raise DistributionError(f"found axis {axis} for {self.noun} of shape {tuple(values.shape)}; there is none")
        values = values if axis in (-1, values.ndim - 1) else xp.moveaxis(values, axis, -1)
        if values.shape[-1] == 0:
            raise DistributionError(f"found {self.noun} of no outcomes, shape {tuple(self.values.shape)}; wanted some")
        return values

    @property
    def tolerance(self) -> float:
        """How far from 1 the sum of a row may lie."""
        return SUM_TOLERANCE.get(str(self.values.dtype).removeprefix("torch."), SUM_TOLERANCE["float64"])

    def filler(self, n: int) -> float:
        """What stands in for each of the n numbers of a row that does not count."""
        raise NotImplementedError

    def fault(self, rows: Array) -> tuple[Array, Callable[[Array], str]]:
        """Which rows are no distributions, and what to say of one such row (as NumPy numbers)."""
        raise NotImplementedError

    def validate(self, rows: Array, name: str) -> None:
        """Raise DistributionError, with the first bad row named, unless each of `rows` is a distribution."""
        rows = detached(rows)
        bad, complaint = self.fault(rows)
        if not bool(array_namespace(rows).any(bad)):
            return
        index = first(bad)
        raise DistributionError(f"{self.noun} {name}{place(index)}: {complaint(on_host(rows[index]))}")


class Probs(Distribution):
    """Probabilities: none negative, each row summing to 1 (within `SUM_TOLERANCE`; they are not normalised).

    >>> from kilter.divergence import kl
    >>> float(kl(Probs([0.2, 0.8]), Probs([0.8, 0.2])))  # 0.6 log 4
    0.8317766166719343
    """

    noun = "probabilities"

    def filler(self, n: int) -> float:
        return 1 / n

    def fault(self, rows: Array) -> tuple[Array, Callable[[Array], str]]:
        xp = array_namespace(rows)
        fine = (xp.min(rows, axis=-1) >= 0) & (abs(xp.sum(rows, axis=-1) - 1) <= self.tolerance)

        def complaint(row: Array) -> str:
            return _nonfinite(row) or _negative(row) or _sum(row, self.tolerance, "Counts(...) or Logits(...)")

        return ~fine, complaint


class LogProbs(Distribution):
    """Natural logarithms of probabilities, -inf for 0; each row's exponentials sum to 1 (within `SUM_TOLERANCE`)."""

    noun = "log-probabilities"

    def filler(self, n: int) -> float:
        return -math.log(n)

    def fault(self, rows: Array) -> tuple[Array, Callable[[Array], str]]:
        xp = array_namespace(rows)
        with np.errstate(over="ignore"):
            fine = abs(xp.sum(xp.exp(rows), axis=-1) - 1) <= self.tolerance

        def complaint(row: Array) -> str:
            finite = row[row != -np.inf]
            return _nonfinite(finite) or "exponentials " + _sum(
                np.exp(np.minimum(row, 300)), self.tolerance, "Logits(...)"
            )

        return ~fine, complaint


class Logits(Distribution):
    """Unnormalised log-probabilities: the distribution is their softmax; -inf rules an outcome out.

    >>> from kilter.divergence import entropy
    >>> float(entropy(Logits([7.0, 7.0, float("-inf")])))  # log 2
    0.6931471805599453
    """

    noun = "logits"

    def filler(self, n: int) -> float:
        return 0.0

    def fault(self, rows: Array) -> tuple[Array, Callable[[Array], str]]:
        xp = array_namespace(rows)
        return ~xp.isfinite(xp.max(rows, axis=-1)), logits_complaint


class Counts(Distribution):
    """How often each outcome was seen: whole numbers, none negative, some positive. The distribution is their shares.

    >>> from kilter.divergence import kl
    >>> round(float(kl(Counts([1, 3]), Probs([0.5, 0.5]))), 6)
    0.130812
    """

    noun = "counts"

    def filler(self, n: int) -> float:
        return 1.0

    def fault(self, rows: Array) -> tuple[Array, Callable[[Array], str]]:
        xp = array_namespace(rows)
        least, total = xp.min(rows, axis=-1), xp.sum(rows, axis=-1)
        whole = xp.all(xp.floor(rows) == rows, axis=-1)

        def complaint(row: Array) -> str:
            return (
                _nonfinite(row)
                or _negative(row)
                or _fraction(row)
                or "found nothing but zeros; wanted at least one outcome that was seen"
            )

        return ~((least >= 0) & (total > 0) & xp.isfinite(total) & whole), complaint


@dataclass(frozen=True)
class Smooth:
    """A support policy: both p and q are mixed with the uniform distribution, (1 - amount) p + amount / n.

    `amount` lies above 0 and is 1 at most.
    """

    amount: float

    def __post_init__(self) -> None:
        if not 0 < self.amount <= 1:
            raise DistributionError(f"found Smooth({self.amount}); wanted an amount above 0 and at most 1")


def required(value: object, name: str) -> Distribution:
    """`value`, where it is a `Distribution`."""
    if isinstance(value, Distribution):
        return value
    found = "an array" if _is_array(value) else f"{type(value).__name__}"
    wrappers = "Probs(...), LogProbs(...), Logits(...) or Counts(...)"
    raise DistributionError(f"found {found} as {name}; say what its numbers are: {wrappers}")


def computed_in(xp: Any, dtype: Any) -> Any:
    """The type in which numbers of `dtype` are computed: float32 for halves, float64 for integers."""
    if xp.isdtype(dtype, "integral"):
        default = xp.__array_namespace_info__().default_dtypes()["real floating"]
        return default if is_jax_namespace(xp) else xp.float64
    return xp.float32 if xp.finfo(dtype).bits < 32 else dtype


def detached(values: Array) -> Array:
    """The same numbers, without a graph of gradients."""
    return values.detach() if hasattr(values, "detach") else values


def on_host(values: Array) -> Array:
    """The same numbers as a NumPy array."""
    values = detached(values)
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)


def first(flags: Array) -> tuple[int, ...]:
    """The index of the first flag that is set."""
    return tuple(int(i) for i in np.argwhere(on_host(flags))[0])


def place(index: tuple[int, ...]) -> str:
    """How an error names a row."""
    return "" if not index else f", row {index[0] if len(index) == 1 else index}"


def logits_complaint(row: Array) -> str:
    """What is wrong with a row of logits whose largest is not finite."""
    if (row == -np.inf).all():
        return "found -inf for every outcome; wanted at least one that is possible"
    return _nonfinite(row[row != -np.inf])


def _is_array(value: object) -> bool:
    return hasattr(value, "dtype") and hasattr(value, "shape")


def _numpy_array(values: object) -> Array:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DistributionError(f"found {type(values).__name__}; wanted an array or a list of numbers") from error


def _nonfinite(row: Array) -> str:
    bad = np.flatnonzero(~np.isfinite(row))
    return f"found {row[bad[0]]} at outcome {bad[0]}; wanted finite numbers" if len(bad) else ""


def _negative(row: Array) -> str:
    bad = np.flatnonzero(row < 0)
    return f"found {row[bad[0]]:.9g} at outcome {bad[0]}; wanted none below 0" if len(bad) else ""


def _fraction(row: Array) -> str:
    bad = np.flatnonzero(row != np.floor(row))
    if not len(bad):
        return ""
    return f"found {row[bad[0]]:.9g} at outcome {bad[0]}; wanted whole numbers; for shares that sum to 1 say Probs(...)"


def _sum(row: Array, tolerance: float, others: str) -> str:
    total = float(np.sum(row, dtype=np.float64))
    return f"sum to {total:.9g}; wanted 1 within {tolerance:g}; divide each row by its sum, or say {others}"
