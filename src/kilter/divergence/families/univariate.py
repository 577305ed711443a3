"""Parametric families of distributions on numbers, as frozen records of their parameters.

A parameter is a number or an array of any library; those of one record broadcast, and each entry of the result is a
distribution. `FAMILIES` names every family as it is typed on a command line. Log-densities are in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

import numpy as np
from array_api_compat import device, is_array_api_obj, is_numpy_array

from kilter.divergence.families.bessel import log_bessel_i
from kilter.divergence.families.special import (
    LOG_2PI,
    log1p_square,
    log_beta,
    log_binomial,
    log_poisson,
    xlogy,
)
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


# On the whole line.


@dataclass(frozen=True)
class Normal(Family):
    """Normal distribution with a mean and a standard deviation.

    >>> float(Normal(0, 1).log_density(0.0))
    -0.9189385332046727
    """

    mean: Array = field(metadata=REAL)
    sd: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return -0.5 * ((x - self.mean) / self.sd) ** 2 - xp.log(self.sd) - LOG_2PI / 2


@dataclass(frozen=True)
class Laplace(Family):
    """Laplace distribution: density exp(-|x - location| / scale) / (2 scale)."""

    location: Array = field(metadata=REAL)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return -xp.abs(x - self.location) / self.scale - xp.log(2 * self.scale)


@dataclass(frozen=True)
class Gumbel(Family):
    """Gumbel distribution (of greatest values): log-density -z - exp(-z) - log scale, z = (x - location) / scale."""

    location: Array = field(metadata=REAL)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        z = (x - self.location) / self.scale
        return -z - xp.exp(-z) - xp.log(self.scale)


@dataclass(frozen=True)
class Logistic(Family):
    """Logistic distribution, whose distribution function is 1 / (1 + exp(-(x - location) / scale))."""

    location: Array = field(metadata=REAL)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        z = xp.abs(x - self.location) / self.scale
        return -z - 2 * xp.log1p(xp.exp(-z)) - xp.log(self.scale)


@dataclass(frozen=True)
class Cauchy(Family):
    """Cauchy distribution: Student's t with one degree of freedom."""

    location: Array = field(metadata=REAL)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return -log1p_square((x - self.location) / self.scale) - xp.log(math.pi * self.scale)


@dataclass(frozen=True)
class StudentT(Family):
    """Student's t with degrees of freedom, moved by location and stretched by scale."""

    df: Array = field(metadata=POSITIVE)
    location: Array = field(metadata=REAL)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        z = (x - self.location) / self.scale
        normaliser = log_beta(self.df / 2, 0.5 + 0 * self.df) + 0.5 * xp.log(self.df) + xp.log(self.scale)
        return -(self.df + 1) / 2 * log1p_square(z / xp.sqrt(self.df)) - normaliser


# On numbers above 0, or above a scale.


@dataclass(frozen=True)
class Exponential(Family):
    """Exponential distribution with a rate, which is 1 / mean."""

    rate: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xp.log(self.rate) - self.rate * x


@dataclass(frozen=True)
class Gamma(Family):
    """Gamma distribution with a shape and a rate; its mean is shape / rate."""

    shape: Array = field(metadata=POSITIVE)
    rate: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return log_poisson(self.shape - 1, x, self.rate) + xp.log(self.rate)


@dataclass(frozen=True)
class InverseGamma(Family):
    """The distribution of 1 / X, X of a gamma distribution with this shape, and scale as its rate."""

    shape: Array = field(metadata=POSITIVE)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        nothing = x < xp.finfo(x.dtype).smallest_normal  # 1 / x overflows
        y = xp.where(nothing, xp.ones_like(x), x)
        at = log_poisson(self.shape - 1, 1 / y, self.scale) + xp.log(self.scale) - 2 * xp.log(y)
        return xp.where(nothing, xp.full_like(at, -math.inf), at)


@dataclass(frozen=True)
class ChiSquared(Family):
    """Chi-squared distribution: a sum of squares of df standard normals."""

    df: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return log_poisson(self.df / 2 - 1, x, xp.full_like(x, 0.5)) - math.log(2)


@dataclass(frozen=True)
class LogNormal(Family):
    """The distribution of exp(X), X normal with this mean and standard deviation."""

    log_mean: Array = field(metadata=REAL)
    log_sd: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        y = xp.log(xp.where(x == 0, xp.ones_like(x), x))
        at = -0.5 * ((y - self.log_mean) / self.log_sd) ** 2 - xp.log(self.log_sd) - LOG_2PI / 2 - y
        return xp.where(x == 0, xp.full_like(at, -math.inf), at)


@dataclass(frozen=True)
class Weibull(Family):
    """Weibull distribution: P(X > x) = exp(-(x / scale)^shape)."""

    shape: Array = field(metadata=POSITIVE)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        z = x / self.scale
        return xp.log(self.shape / self.scale) + xlogy(self.shape - 1, z) - z**self.shape


@dataclass(frozen=True)
class Rayleigh(Family):
    """Rayleigh distribution: the length of a vector of two independent normals with this standard deviation."""

    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xp.log(x) - 2 * xp.log(self.scale) - 0.5 * (x / self.scale) ** 2


@dataclass(frozen=True)
class HalfNormal(Family):
    """The distribution of |X|, X normal with mean 0 and scale as its standard deviation."""

    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return 0.5 * math.log(2 / math.pi) - xp.log(self.scale) - 0.5 * (x / self.scale) ** 2


@dataclass(frozen=True)
class HalfCauchy(Family):
    """The distribution of |X|, X of a Cauchy distribution about 0."""

    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return math.log(2 / math.pi) - xp.log(self.scale) - log1p_square(x / self.scale)


@dataclass(frozen=True)
class InverseGaussian(Family):
    """Inverse Gaussian (Wald) distribution with a mean and a shape; its variance is mean^3 / shape."""

    mean: Array = field(metadata=POSITIVE)
    shape: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "half-line"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        y = xp.where(x == 0, xp.ones_like(x), x)
        away = self.shape * (y - self.mean) ** 2 / (2 * self.mean**2 * y)
        at = 0.5 * (xp.log(self.shape) - LOG_2PI) - 1.5 * xp.log(y) - away
        return xp.where(x == 0, xp.full_like(at, -math.inf), at)


@dataclass(frozen=True)
class Pareto(Family):
    """Pareto distribution: P(X > x) = (scale / x)^shape from scale upwards."""

    shape: Array = field(metadata=POSITIVE)
    scale: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "tail"

    def support(self) -> tuple[Array, Array]:
        return self.scale, math.inf

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xp.log(self.shape / x) - self.shape * xp.log(x / self.scale)


# On intervals and the circle.


@dataclass(frozen=True)
class Uniform(Family):
    """Uniform distribution between two numbers."""

    low: Array = field(metadata=REAL)
    high: Array = field(metadata=REAL)
    kind: ClassVar[str] = "interval"

    def check(self) -> None:
        xp, (low, high) = promote(self.low, self.high)
        if not bool(xp.all(low < high)):
            raise DistributionError(f"uniform: low is {self.low} and high {self.high}; low must be less than high")

    def support(self) -> tuple[Array, Array]:
        return self.low, self.high

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return -xp.log(self.high - self.low) + 0 * x


@dataclass(frozen=True)
class Beta(Family):
    """Beta distribution on (0, 1): density proportional to x^(a - 1) (1 - x)^(b - 1)."""

    a: Array = field(metadata=POSITIVE)
    b: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "unit"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        large = (self.a >= 11) & (self.b >= 11)
        n = xp.where(large, self.a + self.b - 2, xp.ones_like(self.a + self.b))
        direct = xlogy(self.a - 1, x) + xlogy(self.b - 1, 1 - x) - log_beta(self.a, self.b)
        return xp.where(large, log_binomial(xp.where(large, self.a - 1, 0.5 * n), n, x) + xp.log(n + 1), direct)

    def log_density_below_1(self, rest: Array) -> Array:
        return self.with_parameters([self.b, self.a]).log_density(rest)


@dataclass(frozen=True)
class Kumaraswamy(Family):
    """Kumaraswamy distribution on (0, 1): P(X > x) = (1 - x^a)^b."""

    a: Array = field(metadata=POSITIVE)
    b: Array = field(metadata=POSITIVE)
    kind: ClassVar[str] = "unit"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xp.log(self.a * self.b) + xlogy(self.a - 1, x) + xlogy(self.b - 1, 1 - x**self.a)

    def log_density_below_1(self, rest: Array) -> Array:
        xp, (rest, a, b) = promote(rest, self.a, self.b)
        log_x = xp.log1p(-rest)
        return xp.log(a * b) + (a - 1) * log_x + (b - 1) * xp.log(-xp.expm1(a * log_x))


@dataclass(frozen=True)
class ContinuousBernoulli(Family):
    """Continuous Bernoulli on [0, 1]: density proportional to p^x (1 - p)^(1 - x) (Loaiza-Ganem, Cunningham 2019)."""

    probability: Array = field(metadata=INNER)
    kind: ClassVar[str] = "unit"

    def logit(self, xp: Any) -> Array:
        return xp.log(self.probability) - xp.log1p(-self.probability)

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        eta = self.logit(xp)
        return eta * (x - 0.5) - log_sinhc(eta / 2)


def log_sinhc(x: Array) -> Array:
    """log(sinh(x) / x), 0 at 0: the log-normaliser of a density exp(2 x t) for t between -1/2 and 1/2."""
    xp = array_namespace(x)
    near = xp.abs(x) < 0.3
    square = xp.where(near, x, xp.zeros_like(x)) ** 2
    # Taylor's series of log(sinh(x) / x).
    series = square * (
        1 / 6
        + square * (-1 / 180 + square * (1 / 2835 + square * (-1 / 37800 + square * (1 / 467775 - square * 1.69e-7))))
    )
    far = xp.where(near, xp.ones_like(x), xp.abs(x))
    return xp.where(near, series, far + xp.log(-xp.expm1(-2 * far) / (2 * far)))


@dataclass(frozen=True)
class VonMises(Family):
    """Von Mises distribution of an angle: density proportional to exp(concentration cos(x - location))."""

    location: Array = field(metadata=REAL)
    concentration: Array = field(metadata=NONNEGATIVE)
    kind: ClassVar[str] = "circle"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        away = -2 * self.concentration * xp.sin((x - self.location) / 2) ** 2
        return away + self.concentration - log_bessel_i(0, self.concentration) - LOG_2PI


# On whole numbers.


@dataclass(frozen=True)
class Bernoulli(Family):
    """Bernoulli distribution: 1 with this probability, else 0."""

    probability: Array = field(metadata=PROBABILITY)
    kind: ClassVar[str] = "finite"

    def support(self) -> tuple[Array, Array]:
        return 0.0, 1.0

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xp.log(xp.where(x == 1, self.probability, 1 - self.probability))


@dataclass(frozen=True)
class Binomial(Family):
    """Binomial distribution: how many of n trials succeed, each with this probability."""

    n: Array = field(metadata=COUNT)
    probability: Array = field(metadata=PROBABILITY)
    kind: ClassVar[str] = "finite"

    def support(self) -> tuple[Array, Array]:
        return 0.0, self.n

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return log_binomial(x, self.n + 0 * x, self.probability)


@dataclass(frozen=True)
class Categorical(Family):
    """Categorical distribution: outcome k with probabilities[k]; the last axis holds the outcomes.

    Probabilities that do not sum to 1 are refused, and never normalised.
    """

    probabilities: Array = field(metadata=PROBABILITIES)
    kind: ClassVar[str] = "finite"

    def check(self) -> None:
        xp, (values,) = promote(self.probabilities)
        total = xp.sum(values, axis=-1)
        tolerance = max(1e-9, 4 * float(xp.finfo(values.dtype).eps) * values.shape[-1])
        wrong = xp.abs(total - 1) > tolerance
        if bool(xp.any(wrong)):
            found = total if total.ndim == 0 else total[wrong][0]
            raise DistributionError(
                f"categorical: the probabilities sum to {float(found):.9g}; they must sum to 1: divide them by their "
                "sum if they are weights"
            )

    def support(self) -> tuple[Array, Array]:
        _, (values,) = promote(self.probabilities)
        return 0.0, float(values.shape[-1] - 1)

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        one_hot = x[..., None] == xp.arange(self.probabilities.shape[-1], dtype=x.dtype, device=device(x))
        return xp.log(xp.sum(xp.where(one_hot, self.probabilities, xp.zeros_like(self.probabilities)), axis=-1))


@dataclass(frozen=True)
class Poisson(Family):
    """Poisson distribution of a count, with a rate, which is its mean."""

    rate: Array = field(metadata=NONNEGATIVE)
    kind: ClassVar[str] = "counts"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return log_poisson(x, self.rate, xp.ones_like(x))


@dataclass(frozen=True)
class Geometric(Family):
    """Geometric distribution: how many trials fail before the first success (0, 1, 2, ...)."""

    probability: Array = field(metadata=CHANCE)
    kind: ClassVar[str] = "counts"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        return xlogy(x, 1 - self.probability) + xp.log(self.probability)


@dataclass(frozen=True)
class NegativeBinomial(Family):
    """Negative binomial distribution: how many trials fail before the n-th success; n may be any positive number."""

    n: Array = field(metadata=POSITIVE)
    probability: Array = field(metadata=CHANCE)
    kind: ClassVar[str] = "counts"

    def log_density_inside(self, xp: Any, x: Array) -> Array:
        both = self.n + x  # the last of as many trials succeeds
        return log_binomial(x, both, 1 - self.probability) + xp.log(self.n / both)


FAMILIES: dict[str, type[Family]] = {
    family.family_name(): family
    for family in (
        Normal, Laplace, Gumbel, Logistic, Cauchy, StudentT, Exponential, Gamma, InverseGamma, ChiSquared, LogNormal,
        Weibull, Rayleigh, HalfNormal, HalfCauchy, InverseGaussian, Pareto, Uniform, Beta, Kumaraswamy,
        ContinuousBernoulli, VonMises, Bernoulli, Binomial, Categorical, Poisson, Geometric, NegativeBinomial,
    )
}  # fmt: skip
