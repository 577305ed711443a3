"""Writing tables to files."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kilter.data.staging import staged_file
from kilter.errors import ConfigError


def write_table(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    """Write columns of equal length as .parquet, .csv or .jsonl, by the path's ending; there whole, or not at all.

    Raises ConfigError for another ending.
    """
    write = _writer(path)
    with staged_file(path) as staging:
        write(columns, staging)


def check_table_path(path: Path) -> None:
    """Raise what `write_table` would, before hours are spent on what is to be written."""
    _writer(path)
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a directory; create it, or write the table elsewhere")


def check_rows_path(path: Path) -> None:
    """Raise ConfigError where rows cannot be written one by one (data/run_directory.py: `rows_file`)."""
    if path.suffix != ".jsonl":
        raise ConfigError(f"{path.name} does not end in .jsonl; rows are written one a line, as JSON")
    check_table_path(path)


def _writer(path: Path) -> Callable[[Mapping[str, Sequence[Any]], Path], None]:
    writers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl}
    if path.suffix not in writers:
        raise ConfigError(f"{path.name} has no ending that names a table; use one of: {', '.join(writers)}")
    return writers[path.suffix]


def _parquet(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), path)


def _csv(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def _jsonl(columns: Mapping[str, Sequence[Any]], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in zip(*columns.values(), strict=True):
            stream.write(json.dumps(dict(zip(columns, row, strict=True))) + "\n")
