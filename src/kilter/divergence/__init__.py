"""Exact divergences and entropies; the units are nats."""

from kilter.divergence.discrete import entropy, kl

__all__ = ["entropy", "kl"]
