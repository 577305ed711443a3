"""Whether comparisons determine strengths: the strongly connected components of who beat whom (Ford 1957)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from kilter.errors import DataError
from kilter.ranking.choices import Stages, stages_of
from kilter.ranking.comparisons import Comparisons, Integers, Item, Rankings, printable

NAMED = 5  # items of a group that a message names
LONGEST_NAME = 60


@dataclass(frozen=True, eq=False)
class Connectivity:
    """How items hang together.

    `group`, I, numbers the strongly connected components: from each item there is a chain of wins (or ties) to every
    other of its group and back. `league`, I, numbers what is connected at all. Between groups of one league all
    comparisons went one way.
    """

    items: tuple[Item, ...]
    group: Integers
    league: Integers
    undefeated: tuple[tuple[Item, ...], ...]
    """Groups that no other beat, and that beat another."""
    winless: tuple[tuple[Item, ...], ...]
    """Groups that beat no other, and lost to another."""
    between: tuple[tuple[Item, ...], ...]
    """Groups that won and lost against others, without a chain back."""
    unconnected: tuple[tuple[Item, ...], ...]
    """The leagues, largest first, where there is more than one; an item without comparisons is one."""

    @property
    def identified(self) -> bool:
        """Whether the maximum-likelihood strengths exist: there is one group."""
        return not self.group.any()

    def explanation(self) -> str:
        """What is wrong, a sentence for each kind."""
        said = []
        if self.unconnected:
            said.append(
                f"the items fall into {len(self.unconnected):,} sets that were never compared with each other: "
                f"{_sets(self.unconnected)}"
            )
        for groups, words in (
            (self.undefeated, "never lost to any other"),
            (self.winless, "never won against any other"),
            (self.between, "won against some and lost to others, never both ways"),
        ):
            if groups:
                said.append(f"{words}: {_sets(groups)}")
        return "; ".join(said)


class UnidentifiedError(DataError):
    """Comparisons or rankings that do not determine strengths; `found` says which items or groups are why."""

    def __init__(self, found: Connectivity) -> None:
        super().__init__(
            f"the data do not determine strengths: {found.explanation()}. How far those lie from the "
            "others has no finite estimate. Compare more (suggest_matches says whom), rank within groups "
            "(disconnected='within'), or say what you believe beforehand (disconnected='prior', or prior_variance=...)"
        )
        self.found = found


def connectivity(data: Comparisons | Rankings) -> Connectivity:
    """The groups and leagues of what was compared or ranked; a tie or a grade between counts as a win both ways."""
    if isinstance(data, Rankings):
        return connectivity_of_rankings(data.items, stages_of(data))
    lost, won = data.outcome < 1, data.outcome > 0
    return connectivity_of(
        data.items,
        np.concatenate([data.left[won], data.right[lost]]),
        np.concatenate([data.right[won], data.left[lost]]),
    )


def connectivity_of_rankings(items: tuple[Item, ...], stages: Stages) -> Connectivity:
    """The groups of who was ranked above whom, a tie counting both ways, from links between neighbouring places."""
    first = np.searchsorted(stages.group, stages.group)
    above = first[np.maximum(first - 1, 0)]
    same_ranking = (first > 0) & (stages.ranking[above] == stages.ranking)
    ranked = stages.begins[first] | (stages.left[first] == 1)
    # The tied stand in a ring, so that a link to or from their first is one to all; those unranked are each linked.
    linked = same_ranking & (~ranked | (first == np.arange(len(first))))
    tied = ranked & (stages.size > 1)
    after = first + (np.arange(len(first)) - first + 1) % stages.size
    return connectivity_of(
        items,
        np.concatenate([stages.item[above[linked]], stages.item[tied]]),
        np.concatenate([stages.item[linked], stages.item[after[tied]]]),
    )


def connectivity_of(items: tuple[Item, ...], winner: Integers, loser: Integers) -> Connectivity:
    """The groups and leagues of items, from all pairs of which one was once preferred to the other."""
    beats = sparse.coo_array((np.ones(len(winner), np.int8), (winner, loser)), shape=(len(items),) * 2).tocsr()
    groups, group = connected_components(beats, directed=True, connection="strong")
    if groups == 1:
        zeros = np.zeros(len(items), np.int32)
        return Connectivity(items, zeros, zeros, (), (), (), ())
    leagues, league = connected_components(beats, directed=False)
    group, league = _largest_first(group), _largest_first(league)
    outward = group[winner] != group[loser]
    has_won, has_lost = np.zeros(groups, bool), np.zeros(groups, bool)
    has_won[group[winner[outward]]] = True
    has_lost[group[loser[outward]]] = True
    members = _members(items, group, groups)
    # Where most items are one group, what is wrong is with the others.
    odd = np.arange(groups) > 0 if 2 * len(members[0]) > len(items) else np.ones(groups, bool)
    return Connectivity(
        items,
        group,
        league,
        undefeated=tuple(members[g] for g in np.flatnonzero(odd & has_won & ~has_lost)),
        winless=tuple(members[g] for g in np.flatnonzero(odd & has_lost & ~has_won)),
        between=tuple(members[g] for g in np.flatnonzero(odd & has_lost & has_won)),
        unconnected=_members(items, league, leagues) if leagues > 1 else (),
    )


def _largest_first(labels: Integers) -> Integers:
    """Labels numbered by size, the largest first, then by their first member."""
    first = np.unique(labels, return_index=True)[1]
    order = np.lexsort([first, -np.bincount(labels)])
    renamed = np.empty(len(order), np.int32)
    renamed[order] = np.arange(len(order), dtype=np.int32)
    return renamed[labels]


def _members(items: tuple[Item, ...], labels: Integers, number: int) -> tuple[tuple[Item, ...], ...]:
    found: list[list[Item]] = [[] for _ in range(number)]
    for item, label in zip(items, labels.tolist(), strict=True):
        found[label].append(item)
    return tuple(map(tuple, found))


def _sets(sets: tuple[tuple[Item, ...], ...]) -> str:
    """The sets by name, as far as a message should go."""
    said = []
    for members in sets[:NAMED]:
        names = ", ".join(map(_named, members[:NAMED]))
        more = f" and {len(members) - NAMED:,} more" if len(members) > NAMED else ""
        said.append(f"{names}{more}" if len(members) == 1 else f"({names}{more})")
    more = f", and {len(sets) - NAMED:,} more" if len(sets) > NAMED else ""
    return ", ".join(said) + more


def _named(item: Item) -> str:
    """An item's name, cut where it is a text rather than a name."""
    name = printable(item)
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
