"""Exact divergences and entropies; the units are nats unless bits are asked for."""

from kilter.divergence.counts import entropy_from_counts, kl_from_counts
from kilter.divergence.critic import train_critic, variational_bound
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
from kilter.divergence.log_ratios import kl_from_log_ratios, kl_loss
from kilter.divergence.nearest_neighbours import entropy_from_neighbours, kl_from_neighbours
from kilter.divergence.rows import Options
from kilter.divergence.sequences import SequenceKl, kl_from_sequences, sequence_kl_loss
from kilter.divergence.variational import bound_from_critic, bound_value

__all__ = [
    "F_DIVERGENCES",
    "Counts",
    "Distribution",
    "Estimate",
    "FDivergence",
    "LogProbs",
    "Logits",
    "Options",
    "Probs",
    "SequenceKl",
    "Smooth",
    "alpha",
    "bhattacharyya",
    "bound_from_critic",
    "bound_value",
    "chi2",
    "cross_entropy",
    "entropy",
    "entropy_from_counts",
    "entropy_from_neighbours",
    "expectation",
    "f_divergence",
    "f_divergence_named",
    "generalised_js",
    "hellinger",
    "jeffreys",
    "js",
    "kl",
    "kl_from_counts",
    "kl_from_log_ratios",
    "kl_from_neighbours",
    "kl_from_sequences",
    "kl_loss",
    "mean_estimate",
    "renyi",
    "sequence_kl_loss",
    "total_variation",
    "train_critic",
    "tsallis",
    "variational_bound",
    "wasserstein1",
]
