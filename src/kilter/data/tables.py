"""Writing tables to files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from kilter.data.staging import check_free, staged_file
from kilter.errors import ConfigError

# Columns of equal length, by name.
Columns: TypeAlias = Mapping[str, Sequence[Any]]


def write_table(columns: Columns, path: Path) -> None:
    """Write columns of equal length as .parquet, .csv or .jsonl, by the path's ending; there whole, or not at all.

    Raises ConfigError for another ending.
    """
    with table_in_parts(path) as write:
        write(columns)


@contextmanager
def table_in_parts(path: Path) -> Iterator[Callable[[Columns], None]]:
    """The same some rows at a time: yields what writes more rows, of the same columns and types every time.

    The file is there when the block succeeds; without rows it has no columns.
    """
    writer = _writer(path)
    with staged_file(path) as staging, writer(staging) as write:
        yield write


def check_table_path(path: Path, *, overwrite: bool, sources: Sequence[str] = ()) -> None:
    """Raise what `write_table` would, and ConfigError where it would replace a file (data/staging.py: `check_free`)."""
    _writer(path)
    check_free(path, overwrite=overwrite, sources=sources)


def check_rows_path(path: Path, *, overwrite: bool, sources: Sequence[str] = ()) -> None:
    """The same for rows that are written one by one (data/run_directory.py: `rows_file`)."""
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path.name} does not end in .jsonl; rows are written one a line, as JSON")
    check_free(path, overwrite=overwrite, sources=sources)


_Parts: TypeAlias = AbstractContextManager[Callable[[Columns], None]]


def _writer(path: Path) -> Callable[[Path], _Parts]:
    writers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in writers:
        raise ConfigError(f"{path.name} has no ending that names a table; use one of: {', '.join(writers)}")
    return writers[path.suffix]


@contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Columns], None]]:
    import pyarrow
    import pyarrow.parquet

    with ExitStack() as stack:
        opened: list[pyarrow.parquet.ParquetWriter] = []

        def write(columns: Columns) -> None:
            table = pyarrow.table(dict(columns), schema=opened[0].schema if opened else None)
            if not opened:
                opened.append(stack.enter_context(pyarrow.parquet.ParquetWriter(path, table.schema)))
            opened[0].write_table(table)

        yield write
        if not opened:
            write({})


@contextmanager
def _csv(path: Path) -> Iterator[Callable[[Columns], None]]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)

        def write(columns: Columns) -> None:
            if not stream.tell():
                writer.writerow(columns)
            writer.writerows(zip(*columns.values(), strict=True))

        yield write


@contextmanager
def _jsonl(path: Path) -> Iterator[Callable[[Columns], None]]:
    with path.open("w", encoding="utf-8", newline="\n") as stream:

        def write(columns: Columns) -> None:
            for row in zip(*columns.values(), strict=True):
                stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")

        yield write
