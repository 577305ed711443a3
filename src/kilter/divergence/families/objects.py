"""Distributions of SciPy (frozen) and PyTorch as families.

Neither library is loaded for it: an object is known by the module its class comes from, and by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kilter.divergence.families import multivariate, univariate
from kilter.divergence.families.family import Family, promote
from kilter.divergence.families.mixtures import Mixture
from kilter.divergence.families.quadrature import Density, LogProbabilities
from kilter.errors import DistributionError

F, M = univariate, multivariate


def _probabilities(d: Any) -> Any:
    """The probabilities of a distribution of PyTorch; refused where it was given logits that they cannot hold."""
    probabilities, of = d.probs, getattr(d, "_categorical", d)
    logits = vars(of).get("logits")
    clamped = type(d).__name__ == "ContinuousBernoulli"
    if not clamped and (logits is None or getattr(of, "_param", logits) is not logits):
        return probabilities
    xp, (values, given) = promote(probabilities, d.logits)
    eps = xp.finfo(values.dtype).eps
    lost = (values <= eps) if clamped else (values == 0)
    if type(of).__name__ != "Categorical":
        lost = lost | (1 - values < 8 * eps)
    if bool(xp.any(lost & xp.isfinite(given))):
        raise DistributionError(
            f"found {type(d).__name__} of torch.distributions with a logit of {float(given[lost][0]):g}, of which no "
            f"probability of {values.dtype} is near enough; give logits in float64, or probs not so near 0 or 1"
        )
    return probabilities


# By its name in torch.distributions: from its parameters.
TORCH: dict[str, Callable[[Any], Any]] = {
    "Normal": lambda d: F.Normal(d.loc, d.scale),
    "Laplace": lambda d: F.Laplace(d.loc, d.scale),
    "Gumbel": lambda d: F.Gumbel(d.loc, d.scale),
    "Cauchy": lambda d: F.Cauchy(d.loc, d.scale),
    "StudentT": lambda d: F.StudentT(d.df, d.loc, d.scale),
    "Exponential": lambda d: F.Exponential(d.rate),
    "Gamma": lambda d: F.Gamma(d.concentration, d.rate),
    "InverseGamma": lambda d: F.InverseGamma(d.concentration, d.rate),
    "Chi2": lambda d: F.ChiSquared(d.df),
    "LogNormal": lambda d: F.LogNormal(d.loc, d.scale),
    "Weibull": lambda d: F.Weibull(d.concentration, d.scale),
    "HalfNormal": lambda d: F.HalfNormal(d.scale),
    "HalfCauchy": lambda d: F.HalfCauchy(d.scale),
    "Pareto": lambda d: F.Pareto(d.alpha, d.scale),
    "Uniform": lambda d: F.Uniform(d.low, d.high),
    "Beta": lambda d: F.Beta(d.concentration1, d.concentration0),
    "Kumaraswamy": lambda d: F.Kumaraswamy(d.concentration1, d.concentration0),
    "ContinuousBernoulli": lambda d: F.ContinuousBernoulli(_probabilities(d)),
    "VonMises": lambda d: F.VonMises(d.loc, d.concentration),
    "Bernoulli": lambda d: F.Bernoulli(_probabilities(d)),
    "Binomial": lambda d: F.Binomial(d.total_count, _probabilities(d)),
    "Categorical": lambda d: F.Categorical(_probabilities(d)),
    "OneHotCategorical": lambda d: F.Categorical(_probabilities(d)),
    "Poisson": lambda d: F.Poisson(d.rate),
    "Geometric": lambda d: F.Geometric(_probabilities(d)),
    "NegativeBinomial": lambda d: F.NegativeBinomial(d.total_count, 1 - _probabilities(d)),  # there of what is counted
    "MultivariateNormal": lambda d: M.MultivariateNormal(d.loc, d.scale_tril),
    "LowRankMultivariateNormal": lambda d: M.LowRankNormal(d.loc, d.cov_factor, d.cov_diag),
    "Dirichlet": lambda d: M.Dirichlet(d.concentration),
    "Multinomial": lambda d: M.Multinomial(d.total_count, _probabilities(d)),
    "MixtureSameFamily": lambda d: Mixture(_probabilities(d.mixture_distribution), family_of(d.component_distribution)),
}


def _independent(d: Any) -> Family:
    base = family_of(d.base_dist)
    if d.reinterpreted_batch_ndims == 1 and isinstance(base, F.Normal):
        return M.DiagonalNormal(base.mean, base.sd)
    raise DistributionError(
        "found Independent of torch.distributions; only Independent(Normal(...), 1) is a family here: sum the "
        "divergences of the base distributions over the axes that are independent"
    )


TORCH["Independent"] = _independent

# By its name in scipy.stats: from its shapes, loc and scale; and whether loc must be 0, or scale 1, or both.
SCIPY: dict[str, tuple[Callable[..., Family], str]] = {
    "norm": (F.Normal, ""),
    "laplace": (F.Laplace, ""),
    "gumbel_r": (F.Gumbel, ""),
    "logistic": (F.Logistic, ""),
    "cauchy": (F.Cauchy, ""),
    "t": (F.StudentT, ""),
    "expon": (lambda loc, scale: F.Exponential(1 / scale), "loc"),
    "gamma": (lambda a, loc, scale: F.Gamma(a, 1 / scale), "loc"),
    "erlang": (lambda a, loc, scale: F.Gamma(a, 1 / scale), "loc"),
    "invgamma": (lambda a, loc, scale: F.InverseGamma(a, scale), "loc"),
    "chi2": (lambda df, loc, scale: F.Gamma(df / 2, 0.5 / scale), "loc"),
    "lognorm": (lambda s, loc, scale: F.LogNormal(np.log(scale), s), "loc"),
    "weibull_min": (lambda c, loc, scale: F.Weibull(c, scale), "loc"),
    "rayleigh": (lambda loc, scale: F.Rayleigh(scale), "loc"),
    "halfnorm": (lambda loc, scale: F.HalfNormal(scale), "loc"),
    "halfcauchy": (lambda loc, scale: F.HalfCauchy(scale), "loc"),
    "invgauss": (lambda mu, loc, scale: F.InverseGaussian(mu * scale, scale), "loc"),
    "pareto": (lambda b, loc, scale: F.Pareto(b, scale), "loc"),
    "uniform": (lambda loc, scale: F.Uniform(loc, loc + scale), ""),
    "beta": (lambda a, b, loc, scale: F.Beta(a, b), "loc scale"),
    "vonmises": (lambda kappa, loc, scale: F.VonMises(loc, kappa), "scale"),
    "bernoulli": (lambda p, loc: F.Bernoulli(p), "loc"),
    "binom": (lambda n, p, loc: F.Binomial(n, p), "loc"),
    "poisson": (lambda mu, loc: F.Poisson(mu), "loc"),
    "nbinom": (lambda n, p, loc: F.NegativeBinomial(n, p), "loc"),
}
# Frozen distributions of vectors, by the name of their class.
SCIPY_VECTORS: dict[str, Callable[[Any], Family]] = {
    "multivariate_normal_frozen": lambda d: M.MultivariateNormal.of(d.mean, d.cov),
    "dirichlet_frozen": lambda d: M.Dirichlet(d.alpha),
    "multinomial_frozen": lambda d: M.Multinomial(d.n, d.p),
    "dirichlet_multinomial_frozen": lambda d: M.DirichletMultinomial(d.n, d.alpha),
    "vonmises_fisher_frozen": lambda d: M.VonMisesFisher(d.mu, d.kappa),
}


def family_of(found: Any) -> Any:
    """The family that an object is a distribution of; families, mixtures and densities are returned as they are.

    Of a frozen distribution of `scipy.stats` that is of no family here, its log-density or log-probabilities (for
    quadrature, and sums). Raises `DistributionError` for everything else.

    >>> from scipy import stats
    >>> family_of(stats.norm(1, 2))
    Normal(mean=1.0, sd=2.0)
    """
    if isinstance(found, Family | Mixture | Density | LogProbabilities):
        return found
    kind = type(found)
    if kind.__module__.startswith("torch.distributions"):
        if kind.__name__ in TORCH:
            return TORCH[kind.__name__](found)
        raise DistributionError(
            f"found {kind.__name__} of torch.distributions, which is of no family here; those that are: "
            f"{', '.join(sorted(TORCH))}"
        )
    if kind.__module__.startswith("scipy.stats"):
        if kind.__name__ in SCIPY_VECTORS:
            return SCIPY_VECTORS[kind.__name__](found)
        if hasattr(found, "dist") and hasattr(found, "args"):
            return _frozen(found)
        raise DistributionError(
            f"found {kind.__name__} of scipy.stats; give it frozen, as in scipy.stats.norm(0, 1), or a family"
        )
    raise DistributionError(
        f"found {kind.__name__}; give a family, as in Normal(0, 1), a frozen distribution of scipy.stats or a "
        "distribution of torch.distributions"
    )


def _frozen(found: Any) -> Any:
    """A frozen scipy.stats distribution of one number."""
    name, discrete = found.dist.name, hasattr(found.dist, "pmf")
    shapes, loc, scale = found.dist._parse_args(*found.args, **found.kwds)
    values = [_number(value) for value in shapes]
    if name == "geom" and loc == -1:
        return F.Geometric(values[0])  # there a count of trials, from 1
    if name in SCIPY:
        make, fixed = SCIPY[name]
        if ("loc" not in fixed or np.all(np.asarray(loc) == 0)) and (
            "scale" not in fixed or np.all(np.asarray(scale) == 1)
        ):
            return make(*values, _number(loc)) if discrete else make(*values, _number(loc), _number(scale))
    if any(np.ndim(value) for value in (*shapes, loc, scale)):
        raise DistributionError(
            f"found {name} of scipy.stats with parameters that are arrays; of what is no family here give one at a time"
        )
    low, high = (float(end) for end in found.support())
    if discrete:
        return LogProbabilities(found.logpmf, low, high)
    middle = tuple(float(x) for x in found.ppf([0.001, 0.1, 0.5, 0.9, 0.999]) if math.isfinite(x))
    return Density(found.logpdf, low, high, is_log=True, points=(middle[len(middle) // 2], *middle) if middle else ())


def _number(value: Any) -> Any:
    array = np.asarray(value)
    return float(array) if array.ndim == 0 else array
