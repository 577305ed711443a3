"""A reference that follows the policy: trust-region DPO (Gorbatovski et al. 2024, arXiv 2404.09656)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from kilter.errors import ConfigError
from kilter.model.adapter import has_adapter
from kilter.model.scorer import Scorer
from kilter.train.config import Moving
from kilter.train.optimizer import rounded_stochastically


@dataclass(frozen=True)
class MovingReference:
    """The reference that losses are measured against, into which the policy is mixed every so many steps.

    It keeps its weights in the policy's type, also under autocast: in the type of the products small shares would be
    rounded away. Weights in bfloat16 are rounded stochastically, as the policy's own are.
    Raises ConfigError where the two do not have the same weights.
    """

    scorer: Scorer
    policy: Scorer
    moving: Moving
    seed: int

    def __post_init__(self) -> None:
        if has_adapter(self.policy.model) or has_adapter(self.scorer.model):
            raise ConfigError(
                "a reference that moves has weights of its own, and that of an adapter is the model without it; leave "
                "reference_mix and reference_every out, or merge the adapter and train all weights"
            )
        ours, theirs = (_shapes(scorer) for scorer in (self.scorer, self.policy))
        if ours != theirs:
            odd = next(name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name))
            raise ConfigError(
                f"the model cannot be mixed into a reference of another shape: {odd} is {theirs.get(odd)} in the model "
                f"and {ours.get(odd)} in the reference; leave reference, or reference_mix and reference_every, out"
            )
        self.scorer.requires_grad_(False)

    @torch.no_grad()
    def follow(self, step: int) -> None:
        """After so many updates of the policy: if it is time, reference := mix policy + (1 - mix) reference."""
        if step % self.moving.every:
            return
        policy = dict(self.policy.model.named_parameters())
        # The same for all workers, and apart from what the update of this step drew.
        drawn = int(np.random.SeedSequence([self.seed, step, 0, 1]).generate_state(1, np.uint64)[0] >> 1)
        draw = torch.Generator(self.scorer.device).manual_seed(drawn)
        for name, parameter in self._parameters().items():
            mixed = parameter.float().lerp(policy[name].float(), self.moving.mix)
            parameter.copy_(rounded_stochastically(mixed, draw) if parameter.dtype == torch.bfloat16 else mixed)

    def state(self) -> dict[str, Tensor]:
        """Its weights by name, a tied one once."""
        return {name: parameter.detach() for name, parameter in self._parameters().items()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        for name, parameter in self._parameters().items():
            parameter.copy_(state[name])

    def _parameters(self) -> dict[str, nn.Parameter]:
        return dict(self.scorer.model.named_parameters())


def _shapes(scorer: Scorer) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in scorer.model.named_parameters()}
