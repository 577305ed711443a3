"""What a parametric family of distributions on numbers is: a frozen record of its parameters.

A parameter is a number or an array of any library; those of one record broadcast, and each entry of the result is a
distribution. Log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any, ClassVar, Self

import numpy as np
from array_api_compat import device, is_array_api_obj, is_numpy_array

from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any


def condition(words: str, holds: Callable[[Any, Array], Array], *, shape: str = "", least: int = 1) -> dict[str, Any]:
    """What the values of a parameter must be: in words and as a test, of the array library and an array.

    `shape` names the last axes of an array, which belong to one distribution, by letters ("D", "DK"): equal letters of
    its parameters are of equal size, which is `least` or more.
    """
    return {"words": words, "holds": holds, "shape": shape, "axes": len(shape), "least": least}


REAL = condition("finite", lambda xp, x: xp.isfinite(x))
POSITIVE = condition("finite and more than 0", lambda xp, x: xp.isfinite(x) & (x > 0))
NONNEGATIVE = condition("finite and at least 0", lambda xp, x: xp.isfinite(x) & (x >= 0))
PROBABILITY = condition("between 0 and 1", lambda xp, x: (x >= 0) & (x <= 1))
PROBABILITIES = condition("between 0 and 1", lambda xp, x: (x >= 0) & (x <= 1), shape="D")
CHANCE = condition("more than 0 and at most 1", lambda xp, x: (x > 0) & (x <= 1))
INNER = condition("more than 0 and less than 1", lambda xp, x: (x > 0) & (x < 1))
COUNT = condition("a whole number, at least 0", lambda xp, x: xp.isfinite(x) & (x >= 0) & (x == xp.floor(x)))


def fields_of(family: Any) -> tuple[Any, ...]:
    """The fields of a family, each with what its values must be as metadata."""
    return fields(family)


def promote(*values: Array) -> tuple[Any, list[Array]]:
    """The array library that the values belong to (NumPy, if all are numbers), and all of them as its floating arrays.

    Numbers and NumPy arrays join tensors of another library. Floating types are left alone; others become the type of
    the first floating array, or float64.
    """
    arrays = [value for value in values if is_array_api_obj(value)]
    foreign = [value for value in arrays if not is_numpy_array(value)]
    leader = next(iter(foreign or arrays), np.asarray(0.0))
    xp = array_namespace(*foreign) if foreign else array_namespace(leader)
    floating = [v for v in (foreign or arrays) if xp.isdtype(v.dtype, "real floating")]
    dtype = floating[0].dtype if floating else xp.float64
    place = {"device": device(leader)} if foreign else {}

    def as_floating(value: Array) -> Array:
        if is_array_api_obj(value) and not (foreign and is_numpy_array(value)):
            return value if xp.isdtype(value.dtype, "real floating") else xp.astype(value, dtype)
        return xp.asarray(value, dtype=dtype, **place)

    return xp, [as_floating(value) for value in values]


class Family:
    """A distribution of a named family; what is given must meet the family's conditions, else `DistributionError`."""

    kind: ClassVar[str]  # where its outcomes lie: a row of WITHIN

    def __post_init__(self) -> None:
        arrays = []
        for known in fields_of(self):
            words = known.metadata["words"]
            given = getattr(self, known.name)
            try:
                if given is None:
                    raise TypeError("None is no number")
                xp, (values,) = promote(given)
            except (TypeError, ValueError) as error:
                raise DistributionError(
                    f"{self.family_name()}: {known.name} is {given!r}, which is no number; give one that is {words}"
                ) from error
            arrays.append(values)
            holds = known.metadata["holds"](xp, values)
            if not bool(xp.all(holds)):
                bad = values if values.ndim == 0 else values[~holds][0]
                raise DistributionError(f"{self.family_name()}: {known.name} is {float(bad):g}; it must be {words}")
        self._check_shapes([tuple(values.shape) for values in arrays])
        self.check()

    def _check_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        """Raise DistributionError where the axes of one distribution do not fit, or those before them not broadcast."""
        sizes: dict[str, int] = {}
        before = []
        for known, shape in zip(fields_of(self), shapes, strict=True):
            letters, least = known.metadata["shape"], known.metadata["least"]
            expected = ", ".join(str(sizes.get(letter, letter)) for letter in letters)
            before.append(shape[: len(shape) - len(letters)])
            last = shape[len(before[-1]) :]
            fits = len(last) == len(letters) and min(last, default=least) >= least
            if not fits or any(
                sizes.setdefault(letter, size) != size for letter, size in zip(letters, last, strict=True)
            ):
                enough = f" with {letters[0]} at least {least}" if least > 1 else ""
                raise DistributionError(
                    f"{self.family_name()}: {known.name} has shape {list(shape)}; expected [..., {expected}]{enough}"
                )
        try:
            np.broadcast_shapes(*before)
        except ValueError as error:
            shown = ", ".join(
                f"{name} {list(shape)}" for name, shape in zip(self.parameter_names(), shapes, strict=True)
            )
            raise DistributionError(f"{self.family_name()}: shapes do not broadcast: {shown}") from error

    def check(self) -> None:
        """What the parameters must be to each other."""

    @classmethod
    def family_name(cls) -> str:
        """The family as it is typed on a command line."""
        return cls.__name__.lower()

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        return tuple(known.name for known in fields_of(cls))

    def parameters(self) -> list[Array]:
        return [getattr(self, name) for name in self.parameter_names()]

    def with_parameters(self, values: list[Array]) -> Self:
        """The same family with other values, which are not checked again."""
        made = object.__new__(type(self))
        for name, value in zip(self.parameter_names(), values, strict=True):
            object.__setattr__(made, name, value)
        return made

    def dimension(self) -> int | None:
        """How long the vectors are that its parameters consist of, if they are vectors."""
        vectors = [getattr(self, known.name) for known in fields_of(self) if known.metadata["axes"] == 1]
        return int(promote(vectors[0])[1][0].shape[-1]) if vectors else None

    def support(self) -> tuple[Array, Array]:
        """The least and the greatest outcome, as far as there are any."""
        return SUPPORTS[self.kind]

    @property
    def discrete(self) -> bool:
        """Whether its outcomes are whole numbers."""
        return self.kind in ("finite", "counts")

    def log_density(self, x: Array) -> Array:
        """The logarithm of the density (of the probability, of a discrete family) at x, -inf outside the support."""
        xp, (x, *values) = promote(x, *self.parameters())
        known = self.with_parameters(values)
        low, high = known.support()
        inside = (x >= low) & (x <= high)
        if self.discrete:
            inside = inside & (x == xp.floor(x))
        with np.errstate(all="ignore"):
            formula = known.log_density_inside(xp, xp.where(inside, x, _inner_point(low, high) + 0 * x))
            return xp.where(inside, formula, xp.full_like(formula, -math.inf))

    def log_density_below_1(self, rest: Array) -> Array:
        """The same at 1 - rest, accurate however small the rest is where a family says how."""
        return self.log_density(1 - rest)

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        """The same where x lies in the support and all are arrays of one library."""
        raise NotImplementedError


def _inner_point(low: Array, high: Array) -> Array:
    """A place within a support, to evaluate a formula at instead of a place outside."""
    if isinstance(low, float) and math.isinf(low):
        return 0.0
    if isinstance(high, float) and math.isinf(high):
        return low + 1.0
    return (low + high) // 2 if isinstance(low, float) and isinstance(high, float) and high > 1 else (low + high) / 2


SUPPORTS: dict[str, tuple[float, float]] = {
    "line": (-math.inf, math.inf),
    "half-line": (0.0, math.inf),
    "unit": (0.0, 1.0),
    "circle": (-math.pi, math.pi),
    "counts": (0.0, math.inf),
}
# Of kinds of support: those that lie within it whatever the parameters, and those that may.
WITHIN: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "line": (frozenset({"line", "half-line", "tail", "unit", "interval", "circle"}), frozenset()),
    "half-line": (frozenset({"half-line", "tail", "unit"}), frozenset({"interval"})),
    "tail": (frozenset(), frozenset({"tail", "interval"})),
    "unit": (frozenset({"unit"}), frozenset({"interval"})),
    "interval": (frozenset(), frozenset({"unit", "interval", "circle"})),
    "circle": (frozenset({"circle"}), frozenset({"unit", "interval"})),
    "counts": (frozenset({"counts", "finite"}), frozenset()),
    "finite": (frozenset(), frozenset({"finite"})),
}
