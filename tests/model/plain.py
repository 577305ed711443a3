"""Slow twins: attention and scores written out, to judge the fast paths by.

Axes: T nodes of a tree or tokens of a sequence, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from kilter.model.prepared import PreparedTree
from kilter.tokens.sequence import TokenSequence


def plain_tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: PreparedTree,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`attention.tree_attention` with one dense mask over the whole tree, found by following parents."""
    allowed = torch.eye(len(tree), dtype=torch.bool)
    for node, parent in enumerate(tree.tree.parent_T.tolist()):
        if parent >= 0:
            allowed[node] |= allowed[parent]
    if window is not None:
        depth_T = torch.from_numpy(tree.tree.depth_T)
        allowed &= depth_T[:, None] - depth_T[None, :] < window
    return _dense(query, key, value, allowed, scale, softcap, sinks)


def _dense(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    allowed: Tensor,
    scale: float | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Softmax attention in the inputs' type, with the softmax itself in float32 at least, as transformers has it."""
    key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
    score = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if softcap is not None:
        score = softcap * torch.tanh(score / softcap)
    type_ = torch.float64 if query.dtype == torch.float64 else torch.float32
    score = score.masked_fill(~allowed, -math.inf)
    if sinks is not None:  # one more key, with a value of 0
        score = torch.cat([score, sinks[:, None, None].to(score.dtype).expand(-1, len(allowed), -1)[None]], -1)
        value = nn.functional.pad(value, (0, 0, 0, 1))
    return score.softmax(-1, dtype=type_).to(value.dtype) @ value


def _plain_layer(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    age = torch.arange(query.shape[2])[:, None] - torch.arange(query.shape[2])[None, :]
    allowed = (age >= 0) & (age < (sliding_window or math.inf))
    return _dense(query, key, value, allowed, scaling, softcap, s_aux).transpose(1, 2), None


def in_float64(model: PreTrainedModel) -> PreTrainedModel:
    """The same model in float64, also where its own code would round to float32 (norms, routers, state spaces)."""
    model.set_experts_implementation("eager")  # the fused product has no float64
    for module in model.modules():
        if not type(module).__module__.startswith("torch."):
            module.forward = MethodType(_unrounded, module)  # type: ignore[method-assign]
    return model.double()


def _unrounded(module: nn.Module, *given: Any, **options: Any) -> Any:
    with Unrounded():
        return type(module).forward(module, *given, **options)


class Unrounded(TorchFunctionMode):
    """Where code asks for float32 it gets float64."""

    def __torch_function__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        function = Tensor.double if function is Tensor.float else function
        given = [torch.float64 if x is torch.float32 else x for x in given]
        options = {name: torch.float64 if x is torch.float32 else x for name, x in (options or {}).items()}
        return function(*given, **options)


def in_plain_float64(model: PreTrainedModel) -> PreTrainedModel:
    """The same in float64, its attention on single sequences written out with causality, window and soft cap."""
    AttentionInterface.register("plain", _plain_layer)
    AttentionMaskInterface.register("plain", lambda *_, **__: None)
    model.set_attn_implementation("plain")
    return in_float64(model)


def token_log_probs(model: nn.Module, sequence: TokenSequence) -> Tensor:
    """Log-probs of a completion's tokens, from the whole model's own forward on that sequence alone; a first token
    with nothing before it has 0."""
    ids = torch.from_numpy(sequence.ids.astype("int64"))
    logits_TV = model(input_ids=ids[None], use_cache=False).logits[0]
    logits_TV = logits_TV if logits_TV.dtype == torch.float64 else logits_TV.float()
    log_prob = logits_TV[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
    return nn.functional.pad(log_prob, (1, 0))[sequence.first :]


def completion_scores(model: nn.Module, sequences: Sequence[TokenSequence]) -> Tensor:
    """Weighted sums of those, one for each sequence."""
    sums = []
    for sequence in sequences:
        log_prob = token_log_probs(model, sequence)
        weight = torch.ones_like(log_prob) if sequence.weights is None else torch.from_numpy(sequence.weights)
        sums.append((log_prob * weight.to(log_prob.dtype)).sum())
    return torch.stack(sums)


def flat_gradient(model: nn.Module) -> Tensor:
    """All parameters' gradients as one float64 vector, which is emptied for the next use."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    model.zero_grad()
    return torch.cat([part.flatten().double() for part in parts])


def relative_difference(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())
