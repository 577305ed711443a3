"""A model whose sequences can all be written out: two tokens of three, the second given the first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

VOCABULARY = 3


class Policy(NamedTuple):
    """Logits of the first token [V], and of the second given the first [V, V]; float64."""

    first: Tensor
    second: Tensor

    @property
    def parameters(self) -> list[Tensor]:
        return [self.first, self.second]

    def tokens(self) -> Tensor:
        """log p of each token of every sequence: [9, 2], by first token, then second."""
        first = self.first.log_softmax(-1)[:, None].expand(VOCABULARY, VOCABULARY)
        return torch.stack([first, self.second.log_softmax(-1)], dim=-1).reshape(-1, 2)

    def log_prob(self) -> Tensor:
        """log p of every sequence: [9]."""
        return self.tokens().sum(-1)


def policy(seed: int, *, trained: bool = False) -> Policy:
    draw = torch.Generator().manual_seed(seed)
    shapes = ((VOCABULARY,), (VOCABULARY, VOCABULARY))
    made = [torch.randn(shape, generator=draw, dtype=torch.float64).requires_grad_(trained) for shape in shapes]
    return Policy(*made)


def gradient(value: Tensor, of: Policy) -> Tensor:
    """With respect to all logits of a policy, as one vector."""
    parts = torch.autograd.grad(value, of.parameters, retain_graph=True, allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(x) if part is None else part).flatten()
            for part, x in zip(parts, of.parameters, strict=True)
        ]
    )


def exact_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
