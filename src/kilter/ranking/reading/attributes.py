"""What rows bear beside what was compared or ranked: a weight, and who judged which prompt."""

# R rows

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.ranking.comparisons import Floats, Integers, Item
from kilter.ranking.reading.coding import in_order, numbers
from kilter.ranking.reading.grouping import Mask, Rows


class Attributes(NamedTuple):
    """A weight for each row, 1 where no column holds it, and codes of judges and prompts in order of their names."""

    weight: Floats  # R
    judge: Integers | None  # R
    judges: tuple[Item, ...]
    prompt: NDArray[np.int64] | None  # R

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """What rows may differ in, by role."""
        every = {"weight": self.weight, "judge": self.judge, "prompt": self.prompt}
        return {role: values for role, values in every.items() if values is not None}

    def at(self, rows: NDArray[np.intp]) -> Attributes:
        """Those of some rows."""
        of_rows: dict[str, Any] = {role: values[rows] for role, values in self.columns.items()}
        return self._replace(**of_rows)


def attributes(rows: Rows, absent: Mask) -> Attributes:
    """The attributes that rows have columns for; raises DataError, with the line, for a weight that is none."""
    weight = _weights(rows, absent)
    judges, judge = _clusters(rows, "judge", absent)
    _, prompt = _clusters(rows, "prompt", absent)
    return Attributes(weight, judge, judges, None if prompt is None else prompt.astype(np.int64))


def _weights(rows: Rows, absent: Mask) -> Floats:
    if "weight" not in rows.names:
        return np.ones(len(rows))
    values, none = numbers(rows.codes["weight"])
    bad = rows.spread("weight", none | ~(values > 0), False) & ~absent
    rows.refuse(bad, ["weight"], "{columns} is {values}", "expected a weight, a positive number; leave other rows out")
    return rows.spread("weight", values, np.nan)


def _clusters(rows: Rows, role: str, absent: Mask) -> tuple[tuple[Item, ...], Integers | None]:
    if role not in rows.names:
        return (), None
    names, (code,) = in_order([rows.codes[role].without(absent)], f"{role}s")
    return names, code
