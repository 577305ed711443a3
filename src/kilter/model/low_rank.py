"""A linear layer and the low-rank adapter on it (Hu et al. 2021, arXiv 2106.09685), read from peft's wrapper."""

from __future__ import annotations

from typing import NamedTuple

from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


class LowRank(NamedTuple):
    """What an adapter adds to a linear layer of `given`: scale * (given @ down.T) @ up.T."""

    down: Tensor
    up: Tensor
    scale: float


class AdaptedLinear(NamedTuple):
    """A linear layer and its adapter, None where it has none or none is switched on."""

    base: nn.Linear
    low_rank: LowRank | None = None


def adapted_linear(module: nn.Module) -> AdaptedLinear | None:
    """What a linear layer consists of; None where it does anything else than a layer and one plain adapter do.

    Anything else: DoRA, dropout while training, an adapter with a bias, several adapters at once, merged weights.
    """
    if type(module) is nn.Linear:
        return AdaptedLinear(module)
    if type(module) is not LoraLinear or type(module.base_layer) is not nn.Linear or module.merged:
        return None
    base: nn.Linear = module.base_layer
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or not active:
        return AdaptedLinear(base)
    name, *others = active
    dropout = module.lora_dropout[name]
    drops = type(dropout) is not nn.Identity and dropout.training
    if others or drops or name in module.lora_variant or module.lora_bias[name]:
        return None
    down, up = module.lora_A[name].get_parameter("weight"), module.lora_B[name].get_parameter("weight")
    return AdaptedLinear(base, LowRank(down, up, module.scaling[name]))
