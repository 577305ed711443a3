"""Unique rows of a table, as its own engine groups them, and what is wrong with them told by line."""

# R unique rows

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kilter.errors import DataError
from kilter.ranking.comparisons import Floats
from kilter.ranking.reading.coding import MISSING, Coded, coded, to_arrow, to_numpy
from kilter.ranking.reading.sources import Predicate, Source, plainly

SHOWN_VALUES = 3
SKIP = "fill it in, or have such rows counted and skipped: skip_missing=True (--skip-missing)"

Mask = NDArray[np.bool_]
T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """Rows of some columns, each under an alias; where they are unique ones, `count` says how many each stands for."""

    source: Source
    table: Any  # Arrow
    names: Mapping[str, str]  # the column of an alias

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @cached_property
    def codes(self) -> Mapping[str, Coded]:
        """The columns that stand in the table as they are, but for lists."""
        import pyarrow as pa

        plain = [alias for alias in self.names if not pa.types.is_nested(self.table[alias].type)]
        return {alias: coded(self.table[alias]) for alias in plain}

    @cached_property
    def count(self) -> Floats:
        """How many of the table's rows each stands for."""
        if "count" not in self.table.column_names:
            return np.ones(len(self))
        return to_numpy(self.table["count"]).astype(np.float64)

    def missing(self, alias: str) -> Mask:
        """Where a column has no value, or an empty list."""
        import pyarrow.compute as pc

        if alias in self.codes:
            return np.equal(self.codes[alias].code, MISSING)
        return to_numpy(pc.equal(pc.list_value_length(self.table[alias]).combine_chunks().fill_null(0), 0))

    def absent(self, *, skip_missing: bool) -> Mask:
        """Where any column has no value; raises DataError, with the line, if that is not to be skipped."""
        absent = np.zeros(len(self), bool)
        for alias in self.names:
            if not skip_missing:
                self.refuse(self.missing(alias), [alias], "{columns} has no value", SKIP)
            absent |= self.missing(alias)
        return absent

    def spread(self, alias: str, of_values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """What is known of a column's values, for each row."""
        return self.codes[alias].spread(of_values, missing)

    def refuse(self, bad: Mask, aliases: Sequence[str], problem: str, expected: str) -> None:
        """Raise DataError if any row is bad, with the line of the first; `aliases` are the columns at fault.

        `problem` may have {columns} and {values} in it.
        """
        if not bad.any():
            return
        rows = self.table.select(list(aliases)).filter(to_arrow(bad)).to_pylist()
        at_fault = {tuple(plainly(row[alias]) for alias in aliases) for row in rows}
        names = [self.names[alias] for alias in aliases]
        shown = sorted({", ".join(repr(row[alias]) for alias in aliases)[:100] for row in rows})
        more = f" (and {len(shown) - SHOWN_VALUES:,} more)" if len(shown) > SHOWN_VALUES else ""
        self.refuse_where(
            bad,
            names,
            lambda row: tuple(plainly(row.get(name)) for name in names) in at_fault,
            problem.format(columns=" and ".join(names), values="; ".join(shown[:SHOWN_VALUES]) + more),
            expected,
        )

    def refuse_where(self, bad: Mask, names: Sequence[str], holds: Predicate, problem: str, expected: str) -> None:
        """The same, with a claim about the table's own rows by which the first is found."""
        if bad.any():
            place = self.source.find(names, holds)
            times = f"{self.count[bad].sum():,.0f} row" + "s" * int(self.count[bad].sum() != 1)
            raise DataError(f"{place or self.source.name}: {problem} (in {times}); {expected}")


def grouped(source: Source, chosen: Mapping[str, Any], names: Mapping[str, str]) -> Rows:
    """The unique rows of some columns, each an expression under its alias, with how many there are of each."""
    import narwhals as nw

    frame = source.frame.select(**chosen).group_by(list(chosen)).agg(nw.len().alias("count"))
    return _nonempty(Rows(source, ran(source, lambda: frame.collect("pyarrow").to_native()), names))


def every_row(source: Source, names: Mapping[str, str]) -> Rows:
    """All rows of some columns."""
    import narwhals as nw

    frame = source.frame.select(**{alias: nw.col(name) for alias, name in names.items()})
    return _nonempty(Rows(source, ran(source, lambda: frame.collect("pyarrow").to_native()), names))


def _nonempty(rows: Rows) -> Rows:
    if not len(rows):
        raise DataError(f"{rows.source.name}: has no rows; expected at least one comparison")
    return rows


def ran(source: Source, run: Callable[[], T]) -> T:
    """What an engine returns; what DuckDB says of a file that it cannot read is told as a DataError."""
    import duckdb

    try:
        return run()
    except duckdb.Error as error:
        from kilter.ranking.reading.files import told

        raise DataError(f"{source.name}: {told(error)}") from None
