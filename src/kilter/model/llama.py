"""The Llama family's layers, written out for CPUs: the same sums in fewer passes over memory.

A layer is `x += O attention(rope(QKV norm(x)))`, then `x += Down(silu(Gate norm(x)) * Up norm(x))`. The functions
below form at once what autograd would form operation by operation; they keep less for backward, and let matrix
products do the additions. The last layer ends at the rows that the head will read.

Axes: T nodes, N rows, H heads. `type_` is that of matrix products.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from kilter.model import attention
from kilter.model.low_rank import AdaptedLinear, LowRank, adapted_linear
from kilter.model.prepared import PreparedTree


def serves(model: PreTrainedModel) -> bool:
    """Whether a Llama-like model is on a CPU and its layers are what they were built as, save for plain adapters: not
    otherwise wrapped, not hooked."""
    config, backbone = model.config, model.base_model
    embedding: Any = backbone.embed_tokens
    return (
        embedding.weight.device.type == "cpu"
        and embedding.weight.dtype in (torch.float32, torch.float64)
        and config.hidden_act in ("silu", "swish")
        and not (model.training and config.attention_dropout)
        and all(adapted_linear(linear) is not None for linear in _linears(backbone))
        and not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.layers.modules())  # type: ignore[union-attr]
    )


def last_hidden(
    model: PreTrainedModel, tree: PreparedTree, embeddings_TD: Tensor | None, type_: torch.dtype | None
) -> Tensor:
    """The last hidden state of the rows that score the tree, (N, D), in the type of the embeddings.

    `type_` is the type of matrix products, None for that of the weights.
    """
    backbone: Any = model.base_model
    x = backbone.embed_tokens(tree.ids_T) if embeddings_TD is None else embeddings_TD
    angles = tuple(part[0, :, None] for part in backbone.rotary_emb(x, tree.depth_T[None]))
    again = model.is_activation_checkpointing and torch.is_grad_enabled()
    run = partial(checkpoint, _layer, use_reentrant=False, preserve_rng_state=False) if again else _layer
    *layers, last = backbone.layers[: model.config.num_hidden_layers]
    for layer in layers:
        x = run(layer, x, tree, angles, type_ or x.dtype)
    x = run(last, x, tree, angles, type_ or x.dtype, tree.row_N)
    rows: Tensor = backbone.norm(x)
    return rows


def _layer(
    layer: Any,
    x: Tensor,
    tree: PreparedTree,
    angles: tuple[Tensor, ...],
    type_: torch.dtype,
    rows_N: Tensor | None = None,
) -> Tensor:
    """One layer for all nodes, or for the rows named."""
    mixer, mlp = layer.self_attn, layer.mlp
    x, *projected = _norm_linear(x, layer.input_layernorm, (mixer.q_proj, mixer.k_proj, mixer.v_proj), type_)
    query, key, value = (part.unflatten(-1, (-1, mixer.head_dim)) for part in projected)
    if hasattr(mixer, "q_norm"):
        query, key = mixer.q_norm(query), mixer.k_norm(key)
    query, key = _Rotate.apply(query, *angles), _Rotate.apply(key, *angles)  # type: ignore[no-untyped-call]
    query, key, value = (part.to(x.dtype).transpose(0, 1)[None] for part in (query, key, value))
    mixed = attention.tree_attention(query, key, value, tree, scale=mixer.scaling, window=_window(mixer))
    mixed = mixed[0].transpose(0, 1).flatten(1)
    if rows_N is not None:
        x, mixed = x[rows_N], mixed[rows_N]
    x = _add_linear(x, mixed, None, mixer.o_proj, type_)
    x, gate, up = _norm_linear(x, layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj), type_)
    return _add_linear(x, up, gate, mlp.down_proj, type_)


def _window(mixer: Any) -> int | None:
    """A layer's own sliding window (Qwen), or that of all layers (Mistral)."""
    window: int | None = getattr(mixer, "sliding_window", getattr(mixer.config, "sliding_window", None))
    return window


def _norm_linear(x: Tensor, norm: Any, linears: tuple[nn.Module, ...], type_: torch.dtype) -> tuple[Tensor, ...]:
    """x itself, to be passed on as the residual, and linear layers of its RMS norm."""
    parts = [_parts(linear) for linear in linears]
    weights: list[Tensor] = [part.base.weight for part in parts]
    biases: list[Tensor | None] = [part.base.bias for part in parts]
    downs = [part.low_rank.down for part in parts if part.low_rank is not None]
    if downs:  # one more linear layer, whose output falls apart
        weights.append(torch.cat(downs))
        biases.append(None)
    x, *outs = _NormLinear.apply(  # type: ignore[no-untyped-call]
        x, norm.weight, norm.variance_epsilon, type_, *weights, *biases
    )
    lows = iter(outs.pop().split([len(down) for down in downs], -1) if downs else ())
    adapted = (
        out if part.low_rank is None else _add_up(out, next(lows), part.low_rank)
        for out, part in zip(outs, parts, strict=True)
    )
    return x, *adapted


def _add_linear(x: Tensor, given: Tensor, gate: Tensor | None, linear: nn.Module, type_: torch.dtype) -> Tensor:
    """x + a linear layer of `given`, or of silu(gate) * given."""
    base, low_rank = _parts(linear)
    down = None if low_rank is None else low_rank.down
    out, low = _AddLinear.apply(x, given, gate, base.weight, base.bias, down, type_)  # type: ignore[no-untyped-call]
    result: Tensor = out if low_rank is None else _add_up(out, low, low_rank)
    return result


def _parts(linear: nn.Module) -> AdaptedLinear:
    parts = adapted_linear(linear)
    assert parts is not None  # see `serves`
    return parts


def _add_up(out: Tensor, low: Tensor, low_rank: LowRank) -> Tensor:
    """What an adapter adds to the output of its layer, in place, given the product with its first matrix."""
    up = low_rank.up.to(low.dtype)
    if out.dtype == low.dtype:
        return out.addmm_(low, up.T, alpha=low_rank.scale)
    return out.add_(low @ up.T, alpha=low_rank.scale)


class _NormLinear(torch.autograd.Function):
    """Linear layers of an RMS norm (Zhang and Sennrich 2019, arXiv 1910.07467), which is formed again for backward.

    With u = x / rms(x), the gradient of x is (s * dn - u mean(s * dn * u)) / rms(x), where dn is that of n = s * u.
    The gradient of the residual is added in the same pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, scale: Tensor, epsilon: float, type_: torch.dtype, *parameters: Tensor | None
    ) -> tuple[Tensor, ...]:
        count = len(parameters) // 2
        weights, biases = [_cast(w, type_) for w in parameters[:count]], parameters[count:]
        mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1])
        inverse = mean_square.add_(epsilon).rsqrt_()
        normed = (x * inverse).mul_(scale).to(type_)
        ctx.save_for_backward(x, inverse, scale, *weights)
        return x.view_as(x), *(_linear(normed, w, b) for w, b in zip(weights, biases, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, residual: Tensor, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inverse, scale, *weights = ctx.saved_tensors
        needs, needs_parameter = ctx.needs_input_grad[:2], ctx.needs_input_grad[4:]
        needs_weight, needs_bias = needs_parameter[: len(weights)], needs_parameter[len(weights) :]
        unit = x * inverse
        grad_weights: list[Tensor | None] = [None] * len(weights)
        if any(needs_weight):
            normed = (unit * scale).to(weights[0].dtype)
            grad_weights = [g.T @ normed if n else None for g, n in zip(gradients, needs_weight, strict=True)]
            del normed
        grad_biases = [g.sum(0) if n else None for g, n in zip(gradients, needs_bias, strict=True)]
        grad_x = grad_scale = None
        if any(needs):
            grad_normed = torch.mm(gradients[0], weights[0])
            for gradient, weight in zip(gradients[1:], weights[1:], strict=True):
                grad_normed.addmm_(gradient, weight)
            grad_normed = grad_normed.to(x.dtype)
            slope = grad_normed * unit
            grad_scale = slope.sum(0) if needs[1] else None
            along = torch.mv(slope, scale).div_(-x.shape[-1])
            grad_unit = grad_normed.mul_(scale).addcmul_(unit, along[:, None])
            grad_x = torch.addcmul(residual, grad_unit, inverse)
        return grad_x, grad_scale, None, None, *grad_weights, *grad_biases


class _AddLinear(torch.autograd.Function):
    """x + linear(h), where h is `given`, or silu(gate) * given (Shazeer 2020, arXiv 2002.05202), formed again; and
    h @ down.T, where there is a `down`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        given: Tensor,
        gate: Tensor | None,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor | None,
        type_: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        weight = _cast(weight, type_)
        opened = None if gate is None else nn.functional.silu(gate)
        hidden = (given if opened is None else opened * given).to(type_)
        needs_hidden = ctx.needs_input_grad[3] or ctx.needs_input_grad[5]
        down = None if down is None else _cast(down, type_)
        ctx.save_for_backward(given if needs_hidden or gate is not None else None, gate, opened, weight, down)
        low = None if down is None else hidden @ down.T
        if x.dtype != type_:
            return x + _linear(hidden, weight, bias), low
        out = torch.addmm(x, hidden, weight.T)
        return out if bias is None else out.add_(bias), low

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, grad_low: Tensor | None) -> tuple[Tensor | None, ...]:
        given, gate, opened, weight, down = ctx.saved_tensors
        _, _, _, needs_weight, needs_bias, needs_down, _ = ctx.needs_input_grad
        inner = gradient.to(weight.dtype)
        grad_weight = grad_down = None
        if needs_weight or needs_down:
            hidden = (given if opened is None else opened * given).to(weight.dtype)
            grad_weight = inner.T @ hidden if needs_weight else None
            grad_down = grad_low.T @ hidden if needs_down and grad_low is not None else None
            del hidden
        grad_bias = gradient.sum(0) if needs_bias else None
        grad_given, grad_gate = torch.mm(inner, weight), None
        if grad_low is not None and down is not None:
            grad_given.addmm_(grad_low, down)
        if opened is not None:
            grad_gate = torch.ops.aten.silu_backward(grad_given * given, gate)
            grad_given.mul_(opened)
        return gradient, grad_given, grad_gate, grad_weight, grad_bias, grad_down, None


class _Rotate(torch.autograd.Function):
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) of (T, H, d): component i turns with i + d/2."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotated(x, cos, sin)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotated(gradient, cos, -sin), None, None


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    out = x * cos
    out[..., :half].addcmul_(x[..., half:], sin[..., half:], value=-1)
    out[..., half:].addcmul_(x[..., :half], sin[..., :half])
    return out


def _cast(parameter: Tensor | None, type_: torch.dtype) -> Tensor:
    assert parameter is not None
    return parameter.detach().to(type_)


def _linear(given: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return nn.functional.linear(given, weight, None if bias is None else bias.to(weight.dtype))


def _linears(backbone: Any) -> Iterator[nn.Module]:
    for layer in backbone.layers:
        mixer, mlp = layer.self_attn, layer.mlp
        yield from (mixer.q_proj, mixer.k_proj, mixer.v_proj, mixer.o_proj)
        yield from (mlp.gate_proj, mlp.up_proj, mlp.down_proj)
