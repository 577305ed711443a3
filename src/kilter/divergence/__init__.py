"""Exact divergences and entropies, and the losses built from them; the units are nats."""

from kilter.divergence.discrete import entropy, expectation, kl
from kilter.divergence.losses import binary_cross_entropy, cross_entropy_loss, gaussian_nll, mean_squared_error
from kilter.divergence.softmax import log_softmax

__all__ = [
    "binary_cross_entropy",
    "cross_entropy_loss",
    "entropy",
    "expectation",
    "gaussian_nll",
    "kl",
    "log_softmax",
    "mean_squared_error",
]
