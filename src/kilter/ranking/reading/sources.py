"""Where comparisons come from, as one kind of thing: a frame that some engine will run, and how to find a row in it.

Eager tables (pandas, Polars, Arrow, dictionaries, lists) are run by DuckDB; lazy ones (Polars, DuckDB relations,
PySpark, Dask, Ibis) by their own engines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from kilter.errors import DataError

if TYPE_CHECKING:
    import duckdb
    import narwhals as nw

Row: TypeAlias = Mapping[str, Any]
Predicate: TypeAlias = Callable[[Row], bool]

KINDS = (
    "a file's path (or several), a pandas, Polars, Arrow, DuckDB, PySpark or Dask table, a dictionary of columns, or a "
    "list of dictionaries, of tuples (winner, loser) or (left, right, winner), or of rankings as lists"
)
MEMORY = 2 << 30  # bytes that DuckDB may hold before it writes to disk


@dataclass(frozen=True)
class Source:
    """A table to be read: its name in messages, and `find`, which says where the first row is of which a claim holds.

    `find` is given the columns that the claim is about; it returns "battles.csv:17" or "row 17", and "" where the rows
    of a table have no order. `held` lives as long as the frame.
    """

    name: str
    frame: nw.LazyFrame[Any]
    find: Callable[[Sequence[str], Predicate], str]
    held: tuple[Any, ...] = ()


def source_of(data: Any) -> Source:
    """The source that `data` is; raises DataError for what is no table of comparisons."""
    match data:
        case str() | Path():
            return _of_files([data])
        case list() | tuple() if data and all(isinstance(item, str | Path) for item in data):
            return _of_files(data)
        case dict():
            return _of_arrow(_arrow(data))
        case list() | tuple():
            return _of_arrow(_arrow(_columns(data)))
    return _of_frame(data)


def connected() -> duckdb.DuckDBPyConnection:
    """A DuckDB of one's own, which spills to disk beyond MEMORY, or half of the machine's where that is less."""
    import os
    import tempfile

    import duckdb

    try:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        machine = 2 * MEMORY
    return duckdb.connect(
        config={
            "memory_limit": f"{min(MEMORY, machine // 2) >> 20}MiB",
            "temp_directory": str(Path(tempfile.gettempdir(), f"kilter-duckdb-{os.getpid()}")),
            "preserve_insertion_order": False,
        }
    )


def plainly(value: Any) -> Any:
    """A value as two readers of one file agree on it: numbers by size, whatever they are written as."""
    if value is None or isinstance(value, list):
        return value if value is None else tuple(map(plainly, value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        return str(value) if str(value).strip() else None
    return None if math.isnan(number) else number


def first_row(rows: Iterable[tuple[str, Row]], holds: Predicate) -> str:
    """The place of the first row of which a claim holds, "" where there is none."""
    return next((place for place, row in rows if holds(row)), "")


def _of_files(paths: Sequence[str | Path]) -> Source:
    from kilter.ranking.reading.files import source_of_files

    return source_of_files(paths)


def _of_frame(data: Any) -> Source:
    import narwhals as nw

    try:
        frame = nw.from_native(data)
    except TypeError:
        raise DataError(f"comparisons are {type(data).__name__}; expected {KINDS}") from None
    if isinstance(frame, nw.DataFrame):
        return _of_arrow(frame.to_arrow())
    return Source("the table", frame, lambda columns, holds: "")


def _of_arrow(table: Any) -> Source:
    import narwhals as nw

    connection = connected()

    def find(columns: Sequence[str], holds: Predicate) -> str:
        rows = (row for batch in table.select(list(dict.fromkeys(columns))).to_batches() for row in batch.to_pylist())
        return first_row(((f"row {number:,}", row) for number, row in enumerate(rows, 1)), holds)

    return Source("the table", nw.from_native(connection.from_arrow(table)), find, (connection, table))


def _arrow(columns: Mapping[str, Any]) -> Any:
    """A table of columns by name; DataError where they are none."""
    import numpy as np
    import pyarrow as pa

    if len(lengths := {name: len(values) for name, values in columns.items()}) and len(set(lengths.values())) > 1:
        raise DataError(f"columns are of different lengths: {lengths}; expected one value for each comparison")
    found = {}
    for name, values in columns.items():
        try:
            found[str(name)] = pa.array(values, from_pandas=True)
        except (pa.ArrowException, TypeError, ValueError):
            kinds = sorted({type(value).__name__ for value in np.asarray(values, object)})
            raise DataError(
                f"the column {name} holds values of different kinds ({', '.join(kinds)}); expected texts, or numbers"
            ) from None
    return pa.table(found)


def _columns(rows: Sequence[Any]) -> Mapping[str, Any]:
    """Columns of rows: dictionaries, tuples of a comparison, or lists that rank."""
    if not rows:
        raise DataError("there are no comparisons; give at least one")
    kinds = {type(row) for row in rows}
    if all(issubclass(kind, Mapping) for kind in kinds):
        names = dict.fromkeys(name for row in rows for name in row)
        return {name: [row.get(name) for row in rows] for name in names}
    if kinds == {list}:
        return {"ranking": rows}
    if all(issubclass(kind, tuple) for kind in kinds) and len(lengths := {len(row) for row in rows}) == 1:
        columns = [list(column) for column in zip(*rows, strict=True)]
        if lengths == {2}:
            return dict(zip(("winner", "loser"), columns, strict=True))
        if lengths == {3}:
            items = {*columns[0], *columns[1]}
            numbers = all(isinstance(value, int | float) for value in columns[2]) and not items & set(columns[2])
            return dict(zip(("left", "right", "outcome" if numbers else "winner"), columns, strict=True))
    found = ", ".join(sorted({kind.__name__ for kind in kinds}))
    raise DataError(f"comparisons are a list of {found}; expected {KINDS}")
