"""Cutting a batch into micro-batches of at most so many nodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from kilter.errors import ConfigError
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import Ints, TokenTree, sorted_with_common_prefixes, unprofitable_roots

# What one more partial softmax costs a node on a CPU, in nodes of work (benchmarks/attention.py measures it).
SHARING_COST = 0.05


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """A tree, and for each of its completions the place it had in the flattened list of units."""

    tree: TokenTree
    completion_C: Ints


@dataclass(frozen=True, eq=False)
class Packing:
    """Micro-batches that hold every completion once. `whole` is False if a unit had to be split between them."""

    micro_batches: tuple[MicroBatch, ...]
    whole: bool


def pack(units: Sequence[Sequence[TokenSequence]], *, node_budget: int, sharing_cost: float = SHARING_COST) -> Packing:
    """Pack units (the completions whose loss is computed together) into trees of at most `node_budget` nodes.

    Units with a common prompt come together and share it. A unit above the budget is split, its prompt repeated.
    Raises ConfigError where a single sequence is longer than the budget.

    >>> def pair(*prompt: int) -> list[TokenSequence]:
    ...     return [TokenSequence(np.array([*prompt, answer], np.int32), len(prompt)) for answer in (1, 2)]
    >>> packing = pack([pair(7, 8, 9), pair(5, 6)], node_budget=5)
    >>> [len(micro.tree) for micro in packing.micro_batches]
    [4, 5]
    """
    longest = max((len(s.ids) for unit in units for s in unit), default=0)
    if longest > node_budget:
        raise ConfigError(
            f"a sequence has {longest:,} tokens and the node budget is {node_budget:,}; "
            f"raise --node-budget to at least {longest:,}, or drop long rows with --max-length"
        )
    pieces, whole = _pieces(units, node_budget, sharing_cost)
    order, _ = sorted_with_common_prefixes([members[0] for members, _ in pieces])
    batches: list[MicroBatch] = []
    while order:
        taken = _how_many_fit([pieces[u][0] for u in order], node_budget, sharing_cost)
        members = [s for u in order[:taken] for s in pieces[u][0]]
        places = [c for u in order[:taken] for c in pieces[u][1]]
        batches.append(MicroBatch(TokenTree.build(members, sharing_cost=sharing_cost), np.array(places, np.int64)))
        order = order[taken:]
    return Packing(tuple(batches), whole)


def deal(units: Sequence[Sequence[TokenSequence]], workers: int) -> Ints:
    """Which of so many workers takes each unit: the longest first, each to the one with least so far."""
    length_U = [sum(len(s.ids) for s in unit) for unit in units]
    owner_U, taken = np.zeros(len(units), np.int64), [0] * workers
    for u in sorted(range(len(units)), key=lambda u: -length_U[u]):
        owner_U[u] = min(range(workers), key=taken.__getitem__)
        taken[owner_U[u]] += length_U[u]
    return owner_U


def pack_dealt(
    units: Sequence[Sequence[TokenSequence]], owner_U: Ints, workers: int, *, node_budget: int
) -> list[Packing]:
    """A packing for each worker of the units dealt to it, with places in the list of all units.

    All have as many micro-batches: the workers run them side by side, so those that have fewer are given empty ones.
    """
    place_U = np.cumsum([0, *map(len, units)])
    packings = []
    for worker in range(workers):
        own = np.flatnonzero(owner_U == worker).tolist()
        place_C = np.concatenate([np.arange(place_U[u], place_U[u + 1]) for u in own] or [np.arange(0)])
        packing = pack([units[u] for u in own], node_budget=node_budget)
        placed = tuple(MicroBatch(micro.tree, place_C[micro.completion_C]) for micro in packing.micro_batches)
        packings.append(Packing(placed, packing.whole))
    most = max(len(packing.micro_batches) for packing in packings)
    return [replace(p, micro_batches=p.micro_batches + (EMPTY,) * (most - len(p.micro_batches))) for p in packings]


# A node that no completion runs through: a model runs, and nothing comes of it.
EMPTY = MicroBatch(
    replace(
        TokenTree.build([TokenSequence(np.zeros(1, np.int32), 0)]),
        first_C=np.arange(0),
        last_C=np.arange(0),
        edge_start_C=np.arange(1),
        unscored=0,
    ),
    np.arange(0),
)

_Piece = tuple[list[TokenSequence], list[int]]


def _pieces(units: Sequence[Sequence[TokenSequence]], budget: int, sharing_cost: float) -> tuple[list[_Piece], bool]:
    """Units with the places of their completions, those above the budget cut into parts that fit."""
    pieces: list[_Piece] = []
    whole, place = True, 0
    for unit in units:
        members, places = list(unit), list(range(place, place + len(unit)))
        place += len(members)
        if members and _nodes(members, sharing_cost) > budget:
            whole = False
            order, _ = sorted_with_common_prefixes(members)
            while order:
                taken = _how_many_fit([[members[i]] for i in order], budget, sharing_cost)
                pieces.append(([members[i] for i in order[:taken]], [places[i] for i in order[:taken]]))
                order = order[taken:]
        elif members:
            pieces.append((members, places))
    return pieces, whole


def _how_many_fit(units: Sequence[Sequence[TokenSequence]], budget: int, sharing_cost: float) -> int:
    """The number of leading units whose tree keeps within the budget: gallop, then bisect. At least 1."""

    def fits(count: int) -> bool:
        return _nodes([s for unit in units[:count] for s in unit], sharing_cost) <= budget

    low, high = 1, 2
    while high <= len(units) and fits(high):
        low, high = high, 2 * high
    high = min(high, len(units) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _nodes(sequences: Sequence[TokenSequence], sharing_cost: float) -> int:
    order, common = sorted_with_common_prefixes(sequences)
    length = np.array([len(sequences[s].ids) for s in order], dtype=np.int64)
    cut = unprofitable_roots(common, length, sharing_cost)
    return int((length - np.where(cut, 0, common)).sum())
