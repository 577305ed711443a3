"""Exact divergences and entropies; the units are nats unless bits are asked for."""

from kilter.divergence.discrete import cross_entropy, entropy, expectation, kl
from kilter.divergence.distributions import Counts, Distribution, Logits, LogProbs, Probs, Smooth
from kilter.divergence.rows import Options

__all__ = [
    "Counts",
    "Distribution",
    "LogProbs",
    "Logits",
    "Options",
    "Probs",
    "Smooth",
    "cross_entropy",
    "entropy",
    "expectation",
    "kl",
]
