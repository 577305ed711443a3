"""Exact divergences and entropies, and the losses built from them; the units are nats unless bits are asked for."""

from kilter.divergence import closed_forms, quadrature
from kilter.divergence.counts import entropy_from_counts, kl_from_counts
from kilter.divergence.critic import train_critic, variational_bound
from kilter.divergence.decomposition import Decomposition, GradientComparison, compare_gradients, decompose
from kilter.divergence.describe import describe
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
from kilter.divergence.estimates import Estimate, mean_estimate
from kilter.divergence.f_divergences import F_DIVERGENCES, FDivergence, f_divergence, f_divergence_named
from kilter.divergence.families import FAMILIES, Family
from kilter.divergence.log_ratios import kl_from_log_ratios, kl_loss
from kilter.divergence.losses import (
    LossOptions,
    binary_cross_entropy,
    cross_entropy_loss,
    gaussian_nll,
    log_softmax,
    mean_squared_error,
)
from kilter.divergence.mixtures import Mixture, entropy_bounds, kl_bounds, kl_by_sampling
from kilter.divergence.nearest_neighbours import entropy_from_neighbours, kl_from_neighbours
from kilter.divergence.notation import parse_distribution
from kilter.divergence.objects import family_of
from kilter.divergence.quadrature import Density, Quadrature
from kilter.divergence.rows import Options
from kilter.divergence.sequences import SequenceKl, kl_from_sequences, sequence_kl_loss
from kilter.divergence.variational import bound_from_critic, bound_value

__all__ = [
    "FAMILIES",
    "F_DIVERGENCES",
    "Counts",
    "Decomposition",
    "Density",
    "Distribution",
    "Estimate",
    "FDivergence",
    "Family",
    "GradientComparison",
    "LogProbs",
    "Logits",
    "LossOptions",
    "Mixture",
    "Options",
    "Probs",
    "Quadrature",
    "SequenceKl",
    "Smooth",
    "alpha",
    "bhattacharyya",
    "binary_cross_entropy",
    "bound_from_critic",
    "bound_value",
    "chi2",
    "closed_forms",
    "compare_gradients",
    "cross_entropy",
    "cross_entropy_loss",
    "decompose",
    "describe",
    "entropy",
    "entropy_bounds",
    "entropy_from_counts",
    "entropy_from_neighbours",
    "expectation",
    "f_divergence",
    "f_divergence_named",
    "family_of",
    "gaussian_nll",
    "generalised_js",
    "hellinger",
    "jeffreys",
    "js",
    "kl",
    "kl_bounds",
    "kl_by_sampling",
    "kl_from_counts",
    "kl_from_log_ratios",
    "kl_from_neighbours",
    "kl_from_sequences",
    "kl_loss",
    "log_softmax",
    "mean_estimate",
    "mean_squared_error",
    "parse_distribution",
    "quadrature",
    "renyi",
    "sequence_kl_loss",
    "total_variation",
    "train_critic",
    "tsallis",
    "variational_bound",
    "wasserstein1",
]
