"""Rankings for tests, and what they say written out choice by choice and subset by subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from kilter.ranking.comparisons import UNRANKED, Floats, Item, Rankings

# A ranking: groups of items from the best down; those of one group tie. `rest` came after all of them.
Order = Sequence[Sequence[Item]]


def rankings(
    orders: Sequence[Order],
    counts: Sequence[float] | None = None,
    items: Sequence[Item] = (),
    rest: Sequence[Item] = (),
) -> Rankings:
    """Rankings from groups of items by name."""
    names = tuple(items) or tuple(sorted({item for order in orders for group in order for item in group} | set(rest)))
    entries = [
        (names.index(item), number, place)
        for number, order in enumerate(orders)
        for place, group in [*enumerate(order, 1), (UNRANKED, rest)]
        for item in group
    ]
    item, ranking, place = np.array(entries, np.int32).T
    return Rankings(names, item, ranking, place, np.ones(len(orders)) if counts is None else np.asarray(counts, float))


def drawn(items: int, number: int, length: int, seed: int = 0, ties: bool = False) -> Rankings:
    """Rankings of `length` of the items drawn by their strengths, which are normal; with ties by rounding."""
    rng = np.random.default_rng(seed)
    item = np.stack([rng.permutation(items)[:length] for _ in range(number)])
    worth = rng.normal(0, 1, items)[item] + rng.gumbel(size=item.shape)
    if ties:
        worth = np.round(worth)
    place = 1 + (worth[:, None, :] > worth[:, :, None]).sum(axis=2)
    return Rankings(
        tuple(range(items)),
        item.ravel().astype(np.int32),
        np.repeat(np.arange(number), length).astype(np.int32),
        place.ravel().astype(np.int32),
        rng.integers(1, 4, number).astype(float),
    )


def written_out(data: Rankings, strengths: Floats, log_deltas: Mapping[int, float]) -> float:
    """The log-likelihood, by naming every subset that could have been chosen."""
    log_delta = {1: 0.0} | dict(log_deltas)

    def worth(chosen: Sequence[int]) -> float:
        return float(np.exp(log_delta[len(chosen)] + strengths[list(chosen)].mean()))

    total = 0.0
    for number, count in enumerate(data.count):
        item, place = data.item[data.ranking == number], data.place[data.ranking == number]
        for at in sorted(set(place[place > 0].tolist())):
            left = item[(place >= at) | (place == UNRANKED)].tolist()
            if len(left) > 1:
                subsets = [s for size in log_delta for s in combinations(left, size)]
                total += count * np.log(worth(item[place == at].tolist()) / sum(map(worth, subsets)))
    return total


def every_order(items: Sequence[int], largest_tie: int) -> list[list[tuple[int, ...]]]:
    """All orders of items with ties up to a size."""
    if not items:
        return [[]]
    return [
        [group, *rest]
        for size in range(1, min(largest_tie, len(items)) + 1)
        for group in combinations(items, size)
        for rest in every_order([item for item in items if item not in group], largest_tie)
    ]
