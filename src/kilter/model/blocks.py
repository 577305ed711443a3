"""How a CPU covers a tree's attention with a few plain rectangles.

All nodes of an unbranched segment [s, e) have the same exit x, so the one rule `k <= q < exit[k]` reads, for the keys
of that segment: queries [s, x) by keys [s, e), causal at the top. That is one ordinary causal attention call on
slices, without a mask or a gather, and each key lies in exactly one such block. A query meets one block for each
segment on its path; the partial softmaxes are merged by their log-sum-exp (Dao et al. 2022, arXiv 2205.14135,
section 3.1). Attention so costs what the paths cost. Where subtrees are small, one masked square is cheaper still.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.tokens.tree import TokenTree

# In units of one query-key product over all heads: about 25 ns, forward and backward, at 256 dimensions.
CALL_COST = 3000  # one more kernel call
MERGE_COST = 30  # merging one query's partial softmax


class Block(NamedTuple):
    """Queries [query_start, query_end) by keys [key_start, key_end), all counted in nodes.

    `mask` is True where attention is allowed; None stands for plain causal, aligned at the top left.
    """

    query_start: int
    query_end: int
    key_start: int
    key_end: int
    mask: NDArray[np.bool_] | None


class Segment(NamedTuple):
    """An unbranched run of nodes [start, end) whose subtree ends at `exit`."""

    start: int
    end: int
    exit: int


class Square(NamedTuple):
    """Whole sibling subtrees [start, end) to be covered by one masked square."""

    start: int
    end: int


def attention_blocks(tree: TokenTree, window: int | None = None) -> list[Block]:
    """Blocks in pre-order that together allow exactly the visible pairs, each key in one block.

    With a sliding `window` a query sees a key only where `depth[q] - depth[k] < window`. Segments are then cut into
    pieces of a window, and a block ends with the last query that has one of its keys in sight.
    """
    return [_block(tree, part, window) for part in _cheapest_cover(_segments(tree, window))]


def _segments(tree: TokenTree, window: int | None) -> list[Segment]:
    starts = tree.segment_starts()
    if window is not None and len(starts):
        ends = np.append(starts[1:], len(tree))
        starts = np.concatenate([np.arange(s, e, window) for s, e in zip(starts, ends, strict=True)])
    ends, exits = np.append(starts[1:], len(tree)), tree.exit_T[starts]
    return list(map(Segment, starts.tolist(), ends.tolist(), exits.tolist()))


def _cheapest_cover(segments: list[Segment]) -> list[Segment | Square]:
    """Leaves first: for each segment, its own rectangle and its children's best cover, or one square over all."""
    index = {segment.start: i for i, segment in enumerate(segments)}
    cost = [0] * len(segments)
    below: list[list[int | Square]] = [[] for _ in segments]

    def siblings(start: int, end: int) -> Iterable[int]:
        while start < end:
            yield index[start]
            start = segments[index[start]].exit

    for i in reversed(range(len(segments))):
        start, end, exit_ = segments[i]
        below[i], children_cost = _group(siblings(end, exit_), segments, cost)
        cost[i] = CALL_COST + (end - start) * (exit_ - start) + MERGE_COST * (exit_ - end) + children_cost

    cover: list[Segment | Square] = []
    roots, _ = _group(siblings(0, segments[-1].end if segments else 0), segments, cost)
    pending = roots[::-1]
    while pending:
        part = pending.pop()
        if isinstance(part, Square):
            cover.append(part)
        else:
            cover.append(segments[part])
            pending += below[part][::-1]
    return cover


def _group(siblings: Iterable[int], segments: list[Segment], cost: list[int]) -> tuple[list[int | Square], int]:
    """Join neighbouring siblings into squares wherever that is cheaper; the parts and their total cost."""
    parts: list[tuple[int | Square, int, int]] = []  # part, first node, cost
    for i in siblings:
        start, end, exit_ = segments[i]
        own: tuple[int | Square, int, int] = (i, start, cost[i])
        if end < exit_ and (square := CALL_COST + (exit_ - start) ** 2) < cost[i]:
            own = (Square(start, exit_), start, square)
        if parts:
            _, first, before = parts[-1]
            joined = CALL_COST + (exit_ - first) ** 2
            if joined < before + own[2]:
                parts[-1] = (Square(first, exit_), first, joined)
                continue
        parts.append(own)
    return [part for part, _, _ in parts], sum(price for _, _, price in parts)


def _block(tree: TokenTree, part: Segment | Square, window: int | None) -> Block:
    start, end = part.start, part.end
    query_end = end if isinstance(part, Square) else part.exit
    depth = tree.depth_T
    if isinstance(part, Segment) and window is not None:
        in_sight = depth[start:query_end] - depth[end - 1] < window
        query_end = start + int(np.flatnonzero(in_sight)[-1]) + 1
    beyond_window = window is not None and int(depth[start:query_end].max() - depth[start:end].min()) >= window
    mask = None
    if isinstance(part, Square) or beyond_window:
        query, key = np.arange(start, query_end)[:, None], np.arange(start, end)[None, :]
        mask = (key <= query) & (query < tree.exit_T[key])
        if window is not None:
            mask &= depth[query] - depth[key] < window
    return Block(start, query_end, start, end, mask)
