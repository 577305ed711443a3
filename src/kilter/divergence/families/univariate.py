"""The families of distributions on numbers; `FAMILIES` names each as it is typed on a command line."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar

from array_api_compat import device

from kilter.divergence.families.bessel import log_bessel_i
from kilter.divergence.families.family import (
    CHANCE,
    COUNT,
    INNER,
    NONNEGATIVE,
    POSITIVE,
    PROBABILITIES,
    PROBABILITY,
    REAL,
    Array,
    Family,
    promote,
)
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
