"""Exact divergences and entropies; the units are nats."""

from kilter.divergence.counts import entropy_from_counts, kl_from_counts
from kilter.divergence.critic import train_critic, variational_bound
from kilter.divergence.discrete import entropy, expectation, kl
from kilter.divergence.estimates import Estimate, mean_estimate
from kilter.divergence.log_ratios import kl_from_log_ratios, kl_loss
from kilter.divergence.nearest_neighbours import entropy_from_neighbours, kl_from_neighbours
from kilter.divergence.sequences import SequenceKl, kl_from_sequences, sequence_kl_loss
from kilter.divergence.variational import bound_from_critic, bound_value

__all__ = [
    "Estimate",
    "SequenceKl",
    "bound_from_critic",
    "bound_value",
    "entropy",
    "entropy_from_counts",
    "entropy_from_neighbours",
    "expectation",
    "kl",
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
