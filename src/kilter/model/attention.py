"""Tree attention: the rule `visible(q, k) := k <= q < exit[k]`, exactly and at the cost of the paths.

`use_tree_attention` makes a transformers model call it. A batch's tree travels to the attention layers as the keyword
argument `tree=` of the backbone's forward.

Shapes: query (1, H, T, d), key (1, K, T, d), value (1, K, T, v) with K dividing H (grouped queries).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from kilter.errors import ModelError

NAME = "kilter_tree"

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class TensorBlock(NamedTuple):
    """A `blocks.Block` with its mask as an additive tensor, and which of its queries see no key at all."""

    queries: slice
    keys: slice
    mask: Tensor | None
    blind: Tensor | None


class AttentionTree(Protocol):
    """What the attention layers need to know of a batch's tree."""

    def blocks(self, window: int | None, dtype: torch.dtype) -> list[TensorBlock]: ...

    def block_mask(self, window: int | None) -> Any: ...


def tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: AttentionTree,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention along the paths of a tree; returns (1, H, T, v).

    Scores are `q.k * scale` (default 1/sqrt(d)), with `softcap * tanh(score / softcap)` where a soft cap is given.
    `sinks` (H,) is a score for each head that joins every softmax and has no value (gpt-oss, arXiv 2508.10925).
    On a CPU the tree is covered by blocks (model/blocks.py); elsewhere FlexAttention takes the rule as its mask.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if torch.is_autocast_enabled(query.device.type):
        # Rotary embeddings leave query and key in float32, the value comes in the type of matrix products. On a CPU
        # the fused kernel is no faster in bfloat16, and 3 times slower backward.
        type_ = torch.float32 if query.device.type == "cpu" else torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(type_), key.to(type_), value.to(type_)
    if query.device.type != "cpu":
        from kilter.model.flex import flex_tree_attention

        return flex_tree_attention(query, key, value, tree, scale=scale, window=window, softcap=softcap, sinks=sinks)
    width, value_width = query.shape[-1], value.shape[-1]
    if width != value_width:  # latent attention (DeepSeek, arXiv 2405.04434): the fused kernel wants one width
        query, key, value = (
            nn.functional.pad(x, (0, max(width, value_width) - x.shape[-1])) for x in (query, key, value)
        )
    blocks = tree.blocks(window, query.dtype)
    result: Tensor = _BlockAttention.apply(query, key, value, sinks, blocks, scale, softcap)  # type: ignore[no-untyped-call]
    return result[..., :value_width]


class _BlockAttention(torch.autograd.Function):
    """Runs a kernel block by block; merges partial softmaxes forward, sums query gradients backward.

    Backward needs no merging: with the merged output and log-sum-exp each block's probabilities are already those
    of the whole softmax (Dao et al. 2022, appendix B.2), and each key's gradient comes from its one block. Sinks
    enter forward as one last partial softmax, whose output is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        sinks: Tensor | None,
        blocks: list[TensorBlock],
        scale: float,
        softcap: float | None,
    ) -> Tensor:
        _, heads, nodes, _ = query.shape
        # The kernel's own layouts: nodes before heads.
        out = query.new_empty(1, nodes, heads, value.shape[-1]).transpose(1, 2)
        lse_type = torch.float64 if query.dtype == torch.float64 else torch.float32
        lse = query.new_empty((1, nodes, heads), dtype=lse_type).transpose(1, 2)
        for block, fresh in _with_first_fresh_query(blocks):
            rows, keys = block.queries, block.keys
            part, part_lse = _kernel(softcap).forward(
                query[:, :, rows], key[:, :, keys], value[:, :, keys], block.mask, scale, softcap
            )
            if block.blind is not None:  # the kernel calls an empty sum's logarithm 0
                part_lse = part_lse.masked_fill(block.blind, -math.inf)
            met = fresh - rows.start
            if met:
                old = slice(rows.start, fresh)
                merged = torch.logaddexp(lse[:, :, old], part_lse[:, :, :met])
                share = (part_lse[:, :, :met] - merged).exp_().nan_to_num_(nan=0.0)
                out[:, :, old].lerp_(part[:, :, :met], share[..., None].to(out.dtype))
                lse[:, :, old] = merged
            if fresh < rows.stop:
                new = slice(fresh, rows.stop)
                out[:, :, new], lse[:, :, new] = part[:, :, met:], part_lse[:, :, met:]
        if sinks is not None:
            merged = torch.logaddexp(lse, sinks.to(lse_type)[:, None])
            out *= (lse - merged).exp_()[..., None].to(out.dtype)
            lse = merged
        ctx.save_for_backward(query, key, value, sinks, out, lse)
        ctx.blocks, ctx.scale, ctx.softcap = blocks, scale, softcap
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, sinks, out, lse = ctx.saved_tensors
        (grad_out,) = gradients
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        for block, fresh in _with_first_fresh_query(ctx.blocks):
            rows, keys = block.queries, block.keys
            part, grad_key[:, :, keys], grad_value[:, :, keys] = _kernel(ctx.softcap).backward(
                grad_out[:, :, rows],
                query[:, :, rows],
                key[:, :, keys],
                value[:, :, keys],
                out[:, :, rows],
                lse[:, :, rows],
                block.mask,
                ctx.scale,
                ctx.softcap,
            )
            met = fresh - rows.start
            if met:
                grad_query[:, :, rows.start : fresh] += part[:, :, :met]
            if fresh < rows.stop:
                grad_query[:, :, fresh : rows.stop] = part[:, :, met:]
        grad_sinks = None
        if sinks is not None:
            share = (sinks.to(lse.dtype)[:, None] - lse).exp_()
            grad_sinks = -(share * (grad_out * out).sum(-1)).sum((0, 2)).to(sinks.dtype)
        return grad_query, grad_key, grad_value, grad_sinks, None, None, None


def _with_first_fresh_query(blocks: list[TensorBlock]) -> Iterator[tuple[TensorBlock, int]]:
    """Each block with the first of its queries that no earlier block met. Blocks come in pre-order, so those from
    there on are all new, and those before it all met."""
    met = 0
    for block in blocks:
        yield block, min(max(met, block.queries.start), block.queries.stop)
        met = max(met, block.queries.stop)


class _Kernel(Protocol):
    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]: ...

    @staticmethod
    def backward(
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        mask: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]: ...


def _kernel(softcap: float | None) -> type[_Kernel]:
    return _FlashKernel if softcap is None else _ExplicitKernel


class _FlashKernel:
    """PyTorch's own fused CPU attention, which reads strided slices and grouped heads as they are."""

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]:
        out, lse = _flash(query, key, value, 0.0, mask is None, attn_mask=mask, scale=scale)
        return out, lse

    @staticmethod
    def backward(
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        mask: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor, Tensor] = _flash_backward(
            grad_out, query, key, value, out, lse, 0.0, mask is None, attn_mask=mask, scale=scale
        )
        return gradients


class _ExplicitKernel:
    """The softmax written out, for scores that the fused kernel cannot shape (soft caps).

    Scores are formed in float32 at least. Heads are folded as (K, H / K x queries) so that grouped keys need no copy.
    """

    @staticmethod
    def forward(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, softcap: float | None
    ) -> tuple[Tensor, Tensor]:
        score, _ = _scores(query, key, mask, scale, softcap)
        lse = score.logsumexp(-1)
        seen = lse.nan_to_num(neginf=0.0)[..., None]
        out = torch.matmul((score - seen).exp_().to(value.dtype), value[0][:, None])
        return out.flatten(0, 1)[None], lse.nan_to_num(neginf=0.0).flatten(0, 1)[None]

    @staticmethod
    def backward(
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        out: Tensor,
        lse: Tensor,
        mask: Tensor | None,
        scale: float,
        softcap: float | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        score, slope = _scores(query, key, mask, scale, softcap)
        groups = key.shape[1]
        query_g, grad_g, out_g, lse_g = (x[0].unflatten(0, (groups, -1)) for x in (query, grad_out, out, lse))
        probability = score.sub_(lse_g[..., None]).exp_()
        grad_value = torch.matmul(probability.to(value.dtype).transpose(-1, -2), grad_g).sum(1)
        grad_score = torch.matmul(grad_g, value[0][:, None].transpose(-1, -2)).to(probability.dtype)
        grad_score -= (grad_g * out_g).sum(-1, keepdim=True)
        grad_score.mul_(probability).mul_(scale)
        if slope is not None:
            grad_score.mul_(slope)
        grad_score = grad_score.to(query.dtype)
        grad_query = torch.matmul(grad_score, key[0][:, None]).flatten(0, 1)
        grad_key = torch.matmul(grad_score.transpose(-1, -2), query_g).sum(1)
        return grad_query[None], grad_key[None], grad_value[None]


def _scores(
    query: Tensor, key: Tensor, mask: Tensor | None, scale: float, softcap: float | None
) -> tuple[Tensor, Tensor | None]:
    """Masked scores (K, H / K, queries, keys), and their slope under the soft cap."""
    query = query[0].unflatten(0, (key.shape[1], -1))
    score = torch.matmul(query, key[0][:, None].transpose(-1, -2))
    score = (score if score.dtype == torch.float64 else score.float()) * scale
    slope = None
    if softcap is not None:
        capped = torch.tanh(score / softcap)
        score, slope = capped * softcap, 1 - capped**2
    if mask is None:
        rows, columns = score.shape[-2:]
        mask = score.new_zeros(rows, columns).masked_fill_(
            torch.ones(rows, columns, dtype=torch.bool).triu_(1), -math.inf
        )
    return score + mask.to(score.dtype), slope


def _attention_layer(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: AttentionTree | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **ignored: Any,
) -> tuple[Tensor, None]:
    """The signature transformers calls; returns (1, T, H, d) and no attention weights."""
    if tree is None:
        raise ModelError(
            f"{type(module).__name__} was called without its token tree: this model's forward does not hand keyword "
            "arguments on to its attention, so it cannot be scored as a tree; score it as separate sequences"
        )
    if dropout:
        raise ModelError(f"attention dropout of {dropout} was asked for; tree attention has none, so set it to 0")
    out = tree_attention(query, key, value, tree, scale=scaling, window=sliding_window, softcap=softcap, sinks=s_aux)
    return out.transpose(1, 2), None


def _no_mask(*_: Any, **__: Any) -> None:
    return None


def use_tree_attention(model: PreTrainedModel) -> None:
    """Make every attention layer of a transformers model call `tree_attention`."""
    AttentionInterface.register(NAME, _attention_layer)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)
