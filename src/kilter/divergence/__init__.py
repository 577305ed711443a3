"""Exact divergences and entropies; the units are nats."""

from kilter.divergence.discrete import entropy, expectation, kl

__all__ = ["entropy", "expectation", "kl"]
