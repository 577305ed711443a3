"""The optimiser, clipping, and the learning rate's schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from kilter.errors import ConfigError, NonFiniteError
from kilter.model.workers import ALONE, Workers, own_part, part_for

OptimizerName = Literal["adamw", "adafactor", "adamw8bit"]
MakeOptimizer = Callable[[list[dict[str, Any]], float], torch.optim.Optimizer]


def _adamw8bit(groups: list[dict[str, Any]], learning_rate: float) -> torch.optim.Optimizer:
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ConfigError("--optimizer adamw8bit needs bitsandbytes; pip install bitsandbytes, or take adamw") from None
    optimizer: torch.optim.Optimizer = AdamW8bit(groups, lr=learning_rate)
    return optimizer


OPTIMIZERS: dict[OptimizerName, MakeOptimizer] = {
    # Loshchilov and Hutter 2019, arXiv 1711.05101
    "adamw": lambda groups, learning_rate: torch.optim.AdamW(groups, lr=learning_rate, fused=True),
    # Shazeer and Stern 2018, arXiv 1804.04235
    "adafactor": lambda groups, learning_rate: torch.optim.Adafactor(groups, lr=learning_rate),
    # Dettmers et al. 2022, arXiv 2110.02861
    "adamw8bit": _adamw8bit,
}


class Updater:
    """Clips the gathered gradient and takes one step of an optimiser.

    Weights kept in bfloat16 are widened to float32 for the update and rounded back stochastically: rounded to the
    nearest, updates smaller than half their spacing would be lost (Zamirai et al. 2020, arXiv 2010.06192).
    Of sharded weights each worker updates its own part.
    """

    def __init__(
        self,
        policy: nn.Module,
        *,
        learning_rate: float,
        weight_decay: float,
        max_grad_norm: float,
        optimizer: OptimizerName = "adamw",
        gradient_noise: float = 0.0,
        seed: int = 0,
        workers: Workers = ALONE,
    ) -> None:
        if workers.sharded and optimizer != "adamw":
            raise ConfigError(
                f"--optimizer {optimizer} needs whole matrices; use adamw with --shard, or leave --shard out"
            )
        named = {name: p for name, p in policy.named_parameters() if p.requires_grad}
        # Norms and biases are scales and offsets, not directions to be shrunk.
        decayed = [name for name, p in named.items() if p.ndim >= 2]
        others = [name for name, p in named.items() if p.ndim < 2]
        self.names = decayed + others
        self.parameters = [named[name] for name in self.names]
        self._own = [nn.Parameter(own_part(p)) if workers.sharded else p for p in self.parameters]
        self._updated = [p if p.dtype != torch.bfloat16 else nn.Parameter(p.detach().float()) for p in self._own]
        first, second = self._updated[: len(decayed)], self._updated[len(decayed) :]
        groups = [{"params": first, "weight_decay": weight_decay}, {"params": second, "weight_decay": 0.0}]
        self.optimizer = OPTIMIZERS[optimizer]([g for g in groups if g["params"]], learning_rate)
        self._let_go_of_wide_copies()
        self.learning_rate = learning_rate
        self.max_grad_norm = max_grad_norm
        self.gradient_noise = gradient_noise
        self.seed, self.workers = seed, workers

    def step(self, rate: float = 1.0, step: int = 0) -> float:
        """Update at `rate` times the peak learning rate; returns the gradient's norm before clipping.

        `step` counts the updates before this one. Raises NonFiniteError, with nothing updated, where the
        gradient is not finite.
        """
        if self.workers.sharded:
            for own, parameter in zip(self._own, self.parameters, strict=True):
                own.grad = None if parameter.grad is None else own_part(parameter.grad)
        gradients = [p.grad for p in self._own if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients))
        if self.workers.sharded:
            norm = math.sqrt(self.workers.total(norm**2))
        if not math.isfinite(norm):
            self.discard()
            raise NonFiniteError(f"the gradient's norm is {norm}")
        if norm > self.max_grad_norm:
            torch._foreach_mul_(gradients, self.max_grad_norm / norm)
        for wide, narrow in self._copies():
            wide.data = narrow.detach().float()
            wide.grad = None if narrow.grad is None else narrow.grad.float()
        draw = self._draw(step)
        if self.gradient_noise:
            self._add_noise(step, draw)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * self.learning_rate
        self.optimizer.step()
        for wide, narrow in self._copies():
            narrow.data.copy_(rounded_stochastically(wide.detach(), draw))
        self._let_go_of_wide_copies()
        self.discard()
        return norm

    def discard(self) -> None:
        """Let go of the gathered gradient."""
        for parameter in (*self.parameters, *self._own):
            parameter.grad = None

    def state(self) -> dict[str, Any]:
        """Together: the optimiser's state by name of parameter, tensors and numbers in dictionaries.

        Where weights are sharded, the first worker has it whole.
        """
        state = self.optimizer.state_dict()["state"]
        return {self.names[index]: self._whole(values, self.parameters[index]) for index, values in state.items()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        groups = self.optimizer.state_dict()["param_groups"]
        index = {name: i for i, name in enumerate(self.names)}
        numbered = {
            index[name]: {
                key: part_for(value, self.parameters[index[name]]) if isinstance(value, Tensor) else value
                for key, value in values.items()
            }
            for name, values in state.items()
        }
        self.optimizer.load_state_dict({"state": numbered, "param_groups": groups})

    def _whole(self, values: Mapping[str, Any], parameter: Tensor) -> Mapping[str, Any]:
        if not self.workers.sharded:
            return values
        return {
            key: self.workers.whole(value, parameter) if isinstance(value, Tensor) else value
            for key, value in values.items()
        }

    def _draw(self, step: int) -> torch.Generator:
        """The random numbers of an update: the same for all workers that hold the same weights."""
        part = self.workers.rank if self.workers.sharded else 0
        seed = np.random.SeedSequence([self.seed, step, part]).generate_state(1, np.uint64)
        generator = torch.Generator(self._own[0].device)
        return generator.manual_seed(int(seed[0] >> 1))

    def _add_noise(self, step: int, draw: torch.Generator) -> None:
        """Neelakantan et al. 2015, arXiv 1511.06807: after clipping, with variance noise / (1 + step)^0.55."""
        deviation = math.sqrt(self.gradient_noise / (1 + step) ** 0.55)
        for parameter in self._updated:
            if parameter.grad is not None:
                gradient = parameter.grad
                noise = torch.randn(gradient.shape, generator=draw, dtype=gradient.dtype, device=gradient.device)
                gradient.add_(noise, alpha=deviation)

    def _copies(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        pairs = zip(self._updated, self._own, strict=True)
        return [(wide, narrow) for wide, narrow in pairs if wide is not narrow]

    def _let_go_of_wide_copies(self) -> None:
        for wide, _ in self._copies():
            wide.data, wide.grad = wide.data.new_empty(0), None


def rounded_stochastically(x: Tensor, draw: torch.Generator | None = None) -> Tensor:
    """float32 to bfloat16, up or down with chances that make it right on average."""
    bits = x.contiguous().view(torch.int32)
    added = torch.randint(1 << 16, bits.shape, generator=draw, dtype=torch.int32, device=bits.device)
    return ((bits + added) & -(1 << 16)).view(torch.float32).bfloat16()


def rate_at(
    step: int, steps: int, *, schedule: Literal["linear", "cosine", "constant"], warmup: float, least: float = 0.0
) -> float:
    """The share of the peak learning rate at a step counted from 0: a climb, then the schedule down to 0; or to
    `least`, where it then stays also beyond the last step."""
    climb = math.ceil(warmup * steps)
    if step < climb:
        return (step + 1) / climb
    done = min((step - climb) / max(1, steps - climb), 1.0)
    match schedule:
        case "constant":
            return 1.0
        case "linear":
            return max(1.0 - done, least)
        case "cosine":
            return max(0.5 * (1 + math.cos(math.pi * done)), least)
