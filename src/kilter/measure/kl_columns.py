"""Distributions as columns of a file for `kilter kl --data`: a row is an outcome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from decimal import Decimal

from kilter.data.columns import Renaming
from kilter.data.containers import container_of
from kilter.data.fields import Row, RowError, kind_of, printable
from kilter.data.files import listed, opened
from kilter.errors import DataError
from kilter.measure.kl_input import KINDS, Listed, as_number, checked, split_kind

BAD_ROWS_LISTED = 5


def read_columns(data: str, columns: Mapping[str, str], outcomes: str | None) -> dict[str, Listed]:
    """The distributions that `columns` of a file hold (p and q, each a column or `counts:column` and so on).

    `outcomes` is the column that names the rows; without it they are numbered. Raises DataError where the file or a
    column cannot be read or holds anything but numbers, DistributionError where the numbers are no distribution.
    """
    kinds = {name: _kind_and_column(text) for name, text in columns.items()}
    taken = {name: column for name, (_, column) in kinds.items()} | ({"outcome": outcomes} if outcomes else {})
    numbers: dict[str, list[float]] = {name: [] for name in columns}
    labels: list[str] = []
    bad: list[str] = []
    for origin, row in _rows(data, taken):
        for name in columns:
            if problem := _add(numbers[name], row, name, taken[name]):
                bad.append(f"{origin}: {problem}")
        labels.append(str(row.get("outcome")) if outcomes else f"{len(labels) + 1}")
    if bad:
        more = [f"and {len(bad) - BAD_ROWS_LISTED:,} more"] if len(bad) > BAD_ROWS_LISTED else []
        raise DataError("\n  ".join(["cells that are no numbers:", *bad[:BAD_ROWS_LISTED], *more]))
    return {
        name: Listed(printable(columns[name]), checked(numbers[name], kind, name, column), tuple(labels))
        for name, (kind, column) in kinds.items()
    }


def _kind_and_column(text: str) -> tuple[str, str]:
    kind, column = split_kind(text)
    return (kind, column) if kind in KINDS else ("probs", text)


def _rows(data: str, taken: Mapping[str, str]) -> Iterator[tuple[object, Row]]:
    """The rows of the files, with the columns under the names that they are taken for."""
    for file in listed(data):
        with opened(file) as source, ExitStack() as stack:
            renaming = Renaming(taken)
            for origin, row in renaming.applied(container_of(source, ()).rows(source, stack)):
                if isinstance(row, RowError):
                    raise DataError(f"{origin}: {row}")
                yield origin, row
            renaming.check_found(source.name)


def _add(numbers: list[float], row: Row, name: str, column: str) -> str:
    """Add a cell's number; returns what is wrong where it is none."""
    cell = row[name]
    if isinstance(cell, str):
        number = as_number(cell.strip())
        said = f"holds {printable(cell)!r}"
    else:
        number = float(cell) if isinstance(cell, int | float | Decimal) and not isinstance(cell, bool) else None
        said = f"is {kind_of(cell)}"
    if number is None:
        return f"column {printable(column)} {said}; expected a number"
    numbers.append(number)
    return ""
