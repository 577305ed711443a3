"""Exact divergences and entropies, and the losses built from them; the units are nats unless bits are asked for."""

from kilter.divergence.decomposition import Decomposition, GradientComparison, compare_gradients, decompose
from kilter.divergence.discrete import cross_entropy, entropy, expectation, kl
from kilter.divergence.distributions import Counts, Distribution, Logits, LogProbs, Probs, Smooth
from kilter.divergence.losses import (
    LossOptions,
    binary_cross_entropy,
    cross_entropy_loss,
    gaussian_nll,
    log_softmax,
    mean_squared_error,
)
from kilter.divergence.rows import Options

__all__ = [
    "Counts",
    "Decomposition",
    "Distribution",
    "GradientComparison",
    "LogProbs",
    "Logits",
    "LossOptions",
    "Options",
    "Probs",
    "Smooth",
    "binary_cross_entropy",
    "compare_gradients",
    "cross_entropy",
    "cross_entropy_loss",
    "decompose",
    "entropy",
    "expectation",
    "gaussian_nll",
    "kl",
    "log_softmax",
    "mean_squared_error",
]
