"""Exact divergences and entropies; the units are nats."""

from kilter.divergence.discrete import entropy, expectation, kl
from kilter.divergence.estimates import UNBIASED, Estimate, mean_estimate

__all__ = ["UNBIASED", "Estimate", "entropy", "expectation", "kl", "mean_estimate"]
