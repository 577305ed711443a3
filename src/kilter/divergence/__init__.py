"""Exact divergences and entropies; the units are nats unless bits are asked for."""

from kilter.divergence.discrete import (
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
from kilter.divergence.distributions import Counts, Distribution, Logits, LogProbs, Probs, Smooth
from kilter.divergence.f_divergences import F_DIVERGENCES, FDivergence, f_divergence, f_divergence_named
from kilter.divergence.rows import Options

__all__ = [
    "F_DIVERGENCES",
    "Counts",
    "Distribution",
    "FDivergence",
    "LogProbs",
    "Logits",
    "Options",
    "Probs",
    "Smooth",
    "alpha",
    "bhattacharyya",
    "chi2",
    "cross_entropy",
    "entropy",
    "expectation",
    "f_divergence",
    "f_divergence_named",
    "generalised_js",
    "hellinger",
    "jeffreys",
    "js",
    "kl",
    "renyi",
    "total_variation",
    "tsallis",
    "wasserstein1",
]
