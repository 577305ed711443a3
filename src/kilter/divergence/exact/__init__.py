"""Discrete distributions given in full: their entropies and divergences, exactly, and the losses built from them.

Imports nothing of `kilter.divergence` but `namespaces`.
"""

from kilter.divergence.exact.decomposition import Decomposition, GradientComparison, compare_gradients, decompose
from kilter.divergence.exact.distributions import Counts, Distribution, Logits, LogProbs, Probs, Smooth
from kilter.divergence.exact.divergences import (
    alpha,
    bhattacharyya,
    chi2,
    cross_entropy,
    entropy,
    expectation,
    generalised_js,
    hellinger,
    jeffreys,
    js,
    kl,
    renyi,
    total_variation,
    tsallis,
    wasserstein1,
)
from kilter.divergence.exact.f_divergences import F_DIVERGENCES, FDivergence, f_divergence, f_divergence_named
from kilter.divergence.exact.losses import (
    LossOptions,
    binary_cross_entropy,
    cross_entropy_loss,
    gaussian_nll,
    log_softmax,
    mean_squared_error,
)
from kilter.divergence.exact.rows import Options

__all__ = [
    "F_DIVERGENCES",
    "Counts",
    "Decomposition",
    "Distribution",
    "FDivergence",
    "GradientComparison",
    "LogProbs",
    "Logits",
    "LossOptions",
    "Options",
    "Probs",
    "Smooth",
    "alpha",
    "bhattacharyya",
    "binary_cross_entropy",
    "chi2",
    "compare_gradients",
    "cross_entropy",
    "cross_entropy_loss",
    "decompose",
    "entropy",
    "expectation",
    "f_divergence",
    "f_divergence_named",
    "gaussian_nll",
    "generalised_js",
    "hellinger",
    "jeffreys",
    "js",
    "kl",
    "log_softmax",
    "mean_squared_error",
    "renyi",
    "total_variation",
    "tsallis",
    "wasserstein1",
]
