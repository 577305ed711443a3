"""AdamW, clipping and the learning rate's schedule."""

from __future__ import annotations

import math
from typing import Literal

import torch

from kilter.errors import KilterError
from kilter.model.scorer import Scorer


class Updater:
    """Clips the gathered gradient and takes one AdamW step (Loshchilov and Hutter 2019, arXiv 1711.05101)."""

    def __init__(
        self,
        policy: Scorer,
        *,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
    ) -> None:
        self.parameters = [p for p in policy.parameters() if p.requires_grad]
        # Norms and biases are scales and offsets, not directions to be shrunk.
        decayed = [p for p in self.parameters if p.ndim >= 2]
        others = [p for p in self.parameters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm

    def step(self, rate: float = 1.0) -> float:
        """Update at `rate` times the peak learning rate; returns the gradient's norm before clipping.

        Raises KilterError, with nothing updated, where the gradient is not finite.
        """
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if not math.isfinite(norm):
            raise KilterError(f"the gradient's norm is {norm}; nothing was updated; try a lower --learning-rate")
        if norm > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm


def rate_at(step: int, steps: int, *, schedule: Literal["linear", "cosine", "constant"], warmup: float) -> float:
    """The share of the peak learning rate at a step counted from 0: a climb, then the schedule down to 0."""
    climb = math.ceil(warmup * steps)
    if step < climb:
        return (step + 1) / climb
    done = (step - climb) / max(1, steps - climb)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - done
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
