"""Estimates from samples, each with its standard error: of counts, points, log-ratios, sequences and critics.

Imports of `kilter.divergence` nothing but `exact` and `namespaces`.
"""

from kilter.divergence.estimates.counts import entropy_from_counts, kl_from_counts
from kilter.divergence.estimates.critic import train_critic, variational_bound
from kilter.divergence.estimates.log_ratios import kl_from_log_ratios, kl_loss
from kilter.divergence.estimates.nearest_neighbours import entropy_from_neighbours, kl_from_neighbours
from kilter.divergence.estimates.sequences import SequenceKl, kl_from_sequences, sequence_kl_loss
from kilter.divergence.estimates.standard_errors import UNBIASED, Estimate, mean_estimate
from kilter.divergence.estimates.variational import bound_from_critic, bound_value

__all__ = [
    "UNBIASED",
    "Estimate",
    "SequenceKl",
    "bound_from_critic",
    "bound_value",
    "entropy_from_counts",
    "entropy_from_neighbours",
    "kl_from_counts",
    "kl_from_log_ratios",
    "kl_from_neighbours",
    "kl_from_sequences",
    "kl_loss",
    "mean_estimate",
    "sequence_kl_loss",
    "train_critic",
    "variational_bound",
]
