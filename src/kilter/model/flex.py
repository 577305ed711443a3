"""Tree attention on a GPU: the visibility rule as a mask for FlexAttention, block-sparse."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, create_block_mask, flex_attention

if TYPE_CHECKING:
    from kilter.model.attention import AttentionTree


def tree_block_mask(exit_T: Tensor, depth_T: Tensor, window: int | None) -> BlockMask:
    """Which blocks of queries and keys hold a visible pair, and the rule for pairs within a block."""

    def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        allowed = (key <= query) & (query < exit_T[key])
        return allowed if window is None else allowed & (depth_T[query] - depth_T[key] < window)

    nodes = len(exit_T)
    return create_block_mask(visible, B=None, H=None, Q_LEN=nodes, KV_LEN=nodes, device=str(exit_T.device))


def flex_tree_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    tree: AttentionTree,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`attention.tree_attention` by FlexAttention, compiled where there is a GPU."""

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return softcap * torch.tanh(score / softcap) if softcap is not None else score

    attend = _compiled() if query.device.type == "cuda" else flex_attention
    options = {
        "score_mod": None if softcap is None else capped,
        "block_mask": tree.block_mask(window),
        "scale": scale,
        "enable_gqa": query.shape[1] != key.shape[1],
    }
    out: Tensor
    if sinks is None:
        out = attend(query, key, value, **options)
        return out
    # A sink takes its share of the softmax and adds nothing to the output.
    out, beside = attend(query, key, value, **options, return_aux=AuxRequest(lse=True))
    return out * torch.sigmoid(beside.lse - sinks[:, None].to(beside.lse.dtype))[..., None].to(out.dtype)


@lru_cache(maxsize=1)
def _compiled() -> Any:
    # Trees differ in size from batch to batch: compile once with dynamic shapes.
    return torch.compile(flex_attention, dynamic=True)
