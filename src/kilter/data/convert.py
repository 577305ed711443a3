"""`kilter convert`: files of any format, written as canonical JSON lines (data/canonical.py)."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO

from kilter.data.canonical import canonical_format, canonical_row
from kilter.data.config import ConvertConfig
from kilter.data.reading import Dataset, read_records
from kilter.data.records import Record, is_tie
from kilter.data.staging import check_free, staged_file
from kilter.errors import ConfigError, DataError, RunError

STANDARD_OUTPUT = ("-", "/dev/stdout", "/dev/stdin")  # the command line says /dev/stdin for a hyphen


def convert(sources: Sequence[str], out: str, config: ConvertConfig | None = None) -> Dataset[Record]:
    """Write the rows of `sources` to `out` as canonical JSON lines, and tell on the terminal what became of them.

    `out` ends in .jsonl, .jsonl.gz or .jsonl.zst and is there whole or not at all, or it is "-": standard output,
    where what is told goes to standard error. Ties are kept. Raises `DataError` where a file cannot be read or
    the rows are not of one kind, `ConfigError` where `out` is in use or cannot be.
    """
    config = config or ConvertConfig()
    packed = None if out in STANDARD_OUTPUT else _packing(Path(out))
    if packed is not None:
        check_free(Path(out), overwrite=config.overwrite, sources=sources)
    dataset = read_records(sources, **config.reading)
    written_as = _one_format(dataset)
    told = sys.stderr if packed is None else sys.stdout
    print(dataset.describe(), file=told)
    if packed is None:
        _print_rows(dataset.rows)
    else:
        with staged_file(Path(out)) as staging, staging.open("wb") as raw, packed(raw) as stream:
            for line in _lines(dataset.rows):
                stream.write(line)
    print(_account(dataset, out, written_as), file=told)
    return dataset


def _lines(rows: Iterable[Record]) -> Iterator[bytes]:
    return (json.dumps(canonical_row(row), ensure_ascii=False).encode() + b"\n" for row in rows)


def _account(dataset: Dataset[Record], out: str, written_as: str) -> str:
    name = "standard output" if out in STANDARD_OUTPUT else out
    ties = sum(map(is_tie, dataset.rows))
    bad = len(dataset.bad_rows)
    parts = [f"{len(dataset.rows) + bad:,} rows read, {len(dataset.rows):,} written to {name} (format {written_as})"]
    parts += [f"{ties:,} of them ties"] if ties else []
    parts += [f"{bad:,} bad row{'s' if bad > 1 else ''} left out"] if bad else []
    return ", ".join(parts)


def _one_format(dataset: Dataset[Record]) -> str:
    """The format that all rows are written in; a file holds rows of one."""
    found = Counter(map(canonical_format, dataset.rows))
    if len(found) > 1:
        kinds = ", ".join(f"{count:,} as {name}" for name, count in found.most_common())
        files = ", ".join(f"{file.name} ({file.format})" for file in dataset.files)
        raise DataError(
            f"{files}: rows of different kinds would be written ({kinds}); expected one kind in a file; "
            "convert them into files of their own"
        )
    return next(iter(found))


# Where rows go.


def _zstandard(raw: BinaryIO) -> AbstractContextManager[BinaryIO]:
    import zstandard

    stream: AbstractContextManager[BinaryIO] = zstandard.ZstdCompressor().stream_writer(raw, closefd=False)
    return stream


@contextmanager
def _gzip(raw: BinaryIO) -> Iterator[BinaryIO]:
    """Without a name or the time, so that the same rows are the same bytes."""
    with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed, io.BufferedWriter(packed) as stream:
        yield stream


PACKINGS: dict[str, Callable[[BinaryIO], AbstractContextManager[BinaryIO]]] = {
    ".jsonl": nullcontext,
    ".jsonl.gz": _gzip,
    ".jsonl.zst": _zstandard,
}


def _packing(out: Path) -> Callable[[BinaryIO], AbstractContextManager[BinaryIO]]:
    for ending, packed in PACKINGS.items():
        if out.name.lower().endswith(ending):
            return packed
    raise ConfigError(f"{out}: has no ending that is written; use one of {', '.join(PACKINGS)}, or - to print the rows")


def _print_rows(rows: Iterable[Record]) -> None:
    try:
        for line in _lines(rows):
            sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
    except OSError as error:
        if isinstance(error, BrokenPipeError):  # whoever read has gone; flushing must not fail again at the end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise RunError(
            f"standard output cannot be written: {error.strerror or error}; write the rows to a file"
        ) from None
