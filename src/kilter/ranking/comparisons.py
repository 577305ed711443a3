"""Comparisons and rankings as counted arrays: what every fit works on.

Axes: I items, R rows (unique comparisons, each standing for `count` equal ones), K covariates,
Q rankings, E entries of rankings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from kilter.errors import DataError

Item = str | int
Floats = NDArray[np.float64]
Integers = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Which of two items was preferred, and how often: unique rows with counts.

    `left` and `right` index `items`. An `outcome` of 1 says that the left item won, 0 that the right one did, 0.5 that
    neither did; what lies between is a grade. A row stands for `count` comparisons that are equal in everything, each
    of `weight`. A covariate is what would count for the left item: characters of the left answer less those of the
    right one. `judge` and `prompt` are codes, of `judges` by name, and say which rows hang together.

    Raises DataError where lengths differ, an index is no item, an item meets itself, or a number is out of its range.
    """

    items: tuple[Item, ...]
    left: Integers  # R
    right: Integers  # R
    outcome: Floats  # R, in [0, 1]
    count: Floats  # R, whole numbers
    weight: Floats  # R, > 0
    covariates: Floats = field(default_factory=lambda: np.empty((0, 0)))  # RK
    covariate_names: tuple[str, ...] = ()
    judge: Integers | None = None  # R
    judges: tuple[Item, ...] = ()
    prompt: NDArray[np.int64] | None = None  # R

    def __post_init__(self) -> None:
        rows = len(self.left)
        if not self.covariate_names and self.covariates.shape != (rows, 0):
            object.__setattr__(self, "covariates", np.empty((rows, 0)))
        for name in ("right", "outcome", "count", "weight", "covariates", "judge", "prompt"):
            values = getattr(self, name)
            if values is not None and len(values) != rows:
                raise DataError(f"left has {rows:,} rows and {name} has {len(values):,}; give one for each comparison")
        if self.covariates.shape[1] != len(self.covariate_names):
            raise DataError(
                f"there are {self.covariates.shape[1]} columns of covariates and {len(self.covariate_names)} names"
            )
        if not rows:
            raise DataError("there are no comparisons; give at least one")
        if min(self.left.min(), self.right.min()) < 0 or max(self.left.max(), self.right.max()) >= len(self.items):
            raise DataError(f"left and right are indices of the {len(self.items):,} items; found one beyond them")
        if len(itself := np.flatnonzero(self.left == self.right)):
            raise DataError(
                f"{self.items[self.left[itself[0]]]!r} is compared with itself in {_comparisons(self.count[itself])}; "
                "that says nothing about its strength: leave such comparisons out"
            )
        if not np.all((self.outcome >= 0) & (self.outcome <= 1)):
            raise DataError("an outcome is 1 (left won), 0 (right won), 0.5 (neither), or a grade between 0 and 1")
        _check_positive(self.count, self.weight, "comparisons")
        if not np.all(np.isfinite(self.covariates)):
            bad = [
                n for n, column in zip(self.covariate_names, self.covariates.T, strict=True) if np.isnan(column).any()
            ]
            raise DataError(
                f"covariates are finite numbers; {', '.join(bad) or 'one'} has others: leave those rows out"
            )

    @property
    def games(self) -> float:
        """How many comparisons there are, each counted once."""
        return float(self.count.sum())

    @property
    def graded(self) -> bool:
        """Whether an outcome is other than a win, a loss or a tie."""
        return bool(np.any((self.outcome != 0) & (self.outcome != 1) & (self.outcome != 0.5)))

    @property
    def tied(self) -> float:
        """How many comparisons neither won."""
        return float(self.count[self.outcome == 0.5].sum())

    def of_rows(self, rows: NDArray[np.bool_] | NDArray[np.intp], count: Floats | None = None) -> Comparisons:
        """Some of the rows, with other counts where they are given; the items stay."""
        return replace(
            self,
            left=self.left[rows],
            right=self.right[rows],
            outcome=self.outcome[rows],
            count=self.count[rows] if count is None else count,
            weight=self.weight[rows],
            covariates=self.covariates[rows],
            judge=None if self.judge is None else self.judge[rows],
            prompt=None if self.prompt is None else self.prompt[rows],
        )

    def index(self, item: Item) -> int:
        """Where an item stands among `items`; raises DataError with the nearest names."""
        return index_of(item, self.items)

    @classmethod
    def counted(
        cls,
        left: Sequence[Item],
        right: Sequence[Item],
        outcome: Sequence[float],
        count: Sequence[float] | None = None,
        *,
        items: Sequence[Item] | None = None,
    ) -> Comparisons:
        """Comparisons from items by name; `items` come in order of their first mention if they are not given."""
        named = tuple(items) if items is not None else tuple(dict.fromkeys([*left, *right]))
        place = {item: index for index, item in enumerate(named)}
        if unknown := [item for item in (*left, *right) if item not in place]:
            raise DataError(f"{unknown[0]!r} is compared, and is not among the items")
        rows = len(left)
        return cls(
            items=named,
            left=np.array([place[item] for item in left], np.int32),
            right=np.array([place[item] for item in right], np.int32),
            outcome=np.asarray(outcome, np.float64),
            count=np.ones(rows) if count is None else np.asarray(count, np.float64),
            weight=np.ones(rows),
        )


UNRANKED = 0


@dataclass(frozen=True, eq=False)
class Rankings:
    """Rankings of two items or more, counted: entry E says that `item` took `place` in ranking `ranking`.

    Places are 1 for the best and upwards; equal places are a tie. UNRANKED (0) is an item that was there and came
    after all that have a place, in no known order (the rest below a top-k). Ranking Q stands for `count[Q]` equal ones,
    each of `weight[Q]`. `judge` and `prompt` are codes, of `judges` by name, and say which rankings hang together.

    Raises DataError where lengths differ, an index is no item, an item stands twice, or a number is out of its range.
    """

    items: tuple[Item, ...]
    item: Integers  # E
    ranking: Integers  # E, sorted
    place: Integers  # E
    count: Floats  # Q, whole numbers
    weight: Floats = field(default_factory=lambda: np.empty(0))  # Q, > 0; ones if it is not given
    judge: Integers | None = None  # Q
    judges: tuple[Item, ...] = ()
    prompt: NDArray[np.int64] | None = None  # Q

    def __post_init__(self) -> None:
        if not len(self.weight):
            object.__setattr__(self, "weight", np.ones(len(self.count)))
        for name in ("weight", "judge", "prompt"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.count):
                raise DataError(f"{name} has {len(values):,} values; give one for each of {len(self.count):,} rankings")
        _check_positive(self.count, self.weight, "rankings")
        if not len(self.item):
            raise DataError("there are no rankings; give at least one")
        if not len(self.item) == len(self.ranking) == len(self.place):
            raise DataError("item, ranking and place must be of one length")
        if np.any(np.diff(self.ranking) < 0) or self.ranking[0] < 0 or self.ranking[-1] >= len(self.count):
            raise DataError("ranking must be sorted, and index count")
        if self.item.min() < 0 or self.item.max() >= len(self.items) or self.place.min() < 0:
            raise DataError("item must index items, and places be 1, 2, ... or UNRANKED")
        if len(np.unique(self.ranking.astype(np.int64) * len(self.items) + self.item)) != len(self.item):
            raise DataError("an item stands twice in one ranking; it can take one place")

    @property
    def games(self) -> float:
        """How many rankings there are, each counted once."""
        return float(self.count.sum())

    def of_entries(self, entries: NDArray[np.intp], ranking: Integers) -> Rankings:
        """Some of the entries, as parts of the rankings they stand in: `ranking` numbers the parts, sorted, from 0."""
        whole = self.ranking[entries[np.unique(ranking, return_index=True)[1]]]
        return replace(
            self,
            item=self.item[entries],
            ranking=ranking,
            place=self.place[entries],
            count=self.count[whole],
            weight=self.weight[whole],
            judge=None if self.judge is None else self.judge[whole],
            prompt=None if self.prompt is None else self.prompt[whole],
        )


def _check_positive(count: Floats, weight: Floats, what: str) -> None:
    if not (np.all(weight > 0) and np.all(np.isfinite(weight))):
        raise DataError(f"a weight is a positive number; leave {what} of weight 0 out")
    if not (np.all(count > 0) and np.all(np.isfinite(count))):
        raise DataError(f"a count is a positive number of {what}")


def index_of(item: Item, items: tuple[Item, ...]) -> int:
    """Where an item stands; raises DataError with the nearest names."""
    import difflib

    for index, known in enumerate(items):
        if known == item and type(known) is type(item):
            return index
    as_text = {str(known): index for index, known in enumerate(items)}
    if str(item) in as_text:
        return as_text[str(item)]
    near = difflib.get_close_matches(str(item), as_text, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(list(as_text)[:10])}"
    raise DataError(f"{item!r} is not among the {len(items):,} items; {hint}")


def printable(item: Item) -> str:
    """An item's name on one line, without what a terminal or XML cannot show."""
    return "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in " ".join(str(item).split())
    )


def _comparisons(count: Floats) -> str:
    total = int(count.sum())
    return f"{total:,} comparison{'s' * (total != 1)}"
