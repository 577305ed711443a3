"""Mixed precision without casts that are done twice.

Autocast gives matrix products the lower type and leaves sums, norms and the residual stream in float32. It casts
each input anew for each linear layer, and frozen weights anew at each call; here both are cast once. The products
are the same; only the gradients that meet in a shared input are summed in the lower type.
"""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn


def share_casts(model: nn.Module, dtype: torch.dtype) -> None:
    """Make linear layers that are given the same tensor share one cast of it."""
    shared = _LastCast(dtype)
    for module in model.modules():
        if type(module) is nn.Linear:
            module.register_forward_pre_hook(shared)


def keep_weights_cast(model: nn.Module, dtype: torch.dtype, head: nn.Module | None) -> None:
    """Keep the linear weights of a frozen model in the type of the products; not the head's, which may be tied, nor
    those that an adapter takes norms of (DoRA)."""
    normed = [module for module in model.modules() if isinstance(module, LoraLayer) and module.lora_variant]
    spared = {part for module in (head, *normed) if isinstance(module, nn.Module) for part in module.modules()}
    for module in model.modules():
        if type(module) is nn.Linear and module not in spared:
            module.to(dtype)


class _LastCast:
    """The query, key and value projections are called one after the other with the same tensor."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.given: Tensor | None = None
        self.cast: Tensor | None = None

    def __call__(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Tensor] | None:
        (given,) = args
        if given.dtype != torch.float32:
            return None
        if given is not self.given or self.cast is None:
            self.given, self.cast = given, given.to(self.dtype)
        return (self.cast,)

    def __deepcopy__(self, memo: dict[int, Any]) -> _LastCast:
        return _LastCast(self.dtype)
