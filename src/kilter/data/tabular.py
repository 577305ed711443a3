"""Tables: CSV and TSV, whose cells are text, and Parquet and Arrow, whose cells are typed.

Nothing is converted: "0.5" in a CSV file stays text, and whoever wants a number of it parses it. An empty cell is a
missing value. Of typed cells, dates and times become text; bytes stay bytes, which no format takes for text.

Bounds: a line and a cell of CSV are at most 64 MiB; Parquet and Arrow unpack to as much as a packed file may.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeAlias

from kilter.data import json_rows
from kilter.data.arrow_sizes import unpacked_bytes
from kilter.data.files import too_large
from kilter.data.formats import Row, RowError, printable
from kilter.data.json_rows import numbered_lines, why_not_text
from kilter.data.records import Origin
from kilter.errors import DataError

ROWS_AT_ONCE = 128
SEPARATORS = {",": "commas", "\t": "tabs"}

Parsed: TypeAlias = tuple[Origin, Row | RowError]


def separated_rows(stream: BinaryIO, file: str, separator: str) -> Iterator[Parsed]:
    """The rows of CSV or TSV below its header, each numbered by the line that it begins in.

    Raises DataError where there is no usable header, or a quote leaves it open where the next row begins.
    """
    limit = csv.field_size_limit(json_rows.LONGEST_LINE)  # one for all of Python
    try:
        yield from _separated_rows(stream, file, separator)
    finally:
        csv.field_size_limit(limit)


def _separated_rows(stream: BinaryIO, file: str, separator: str) -> Iterator[Parsed]:
    lines = _TextLines(stream, file)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = printable(str(error))
            if lines.at_end or reader.line_num > line or header is None:
                raise DataError(_open_quote(file, line, reason)) from None
            yield (
                Origin(file, line),
                RowError("", f"is not quoted as CSV is: {reason}; expected {_QUOTING}"),
            )
            continue
        if not cells:
            continue
        if (flaw := lines.flaw_from(line)) is not None:
            if header is None:
                raise DataError(f"{file}:{line}: the header {flaw}")
            yield Origin(file, line), RowError("", flaw)
        elif header is None:
            header = _checked_header(cells, file, line, separator)
        else:
            yield Origin(file, line), _row(header, cells)


_QUOTING = 'cells that hold quotes to be quoted, and quotes in them doubled ("")'


class _TextLines:
    """The lines of a file as text, for csv's reader; a line that is not UTF-8 is remembered, not raised."""

    def __init__(self, stream: BinaryIO, file: str) -> None:
        self._lines = numbered_lines(stream, file)
        self._flaw: tuple[int, str] | None = None
        self.at_end = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        try:
            number, line = next(self._lines)
        except StopIteration:
            self.at_end = True
            raise
        try:
            return line.decode()
        except UnicodeDecodeError as error:
            self._flaw = self._flaw or (number, why_not_text(error))
            return line.decode(errors="replace")

    def flaw_from(self, line: int) -> str | None:
        """What is wrong with a line since `line`, once."""
        flaw, self._flaw = self._flaw, None
        return None if flaw is None or flaw[0] < line else flaw[1]


def _open_quote(file: str, line: int, error: str) -> str:
    return (
        f"{file}:{line}: a cell of the row that begins here is quoted so that it is not clear where the row ends "
        f"({error}); expected {_QUOTING}; mend it there, as the rows after it cannot be told apart"
    )


def _checked_header(header: list[str], file: str, line: int, separator: str) -> list[str]:
    where = f"{file}:{line}"
    others = [other for other in (",", "\t", ";", "|") if other in header[0]]
    if len(header) == 1 and others:
        raise DataError(
            f"{where}: the header has '{printable(others[0])}' in it and no {SEPARATORS[separator]}; expected columns "
            "separated by commas in a .csv file, by tabs in a .tsv file; write it so, or rename it"
        )
    for place, name in enumerate(header, 1):
        if not name.strip():
            raise DataError(
                f"{where}: column {place} of {len(header)} has no name; expected a header that names each column; "
                "name it, or leave the column out (pandas: `index=False`)"
            )
    _check_distinct(header, where, "the header")
    return header


def _check_distinct(names: Iterable[str], where: str, what: str) -> None:
    [(name, times)] = Counter(names).most_common(1) or [("", 0)]
    if times > 1:
        raise DataError(
            f"{where}: {what} names the column {printable(name)} {times} times; expected it once; rename it"
        )


def _row(header: list[str], cells: list[str]) -> Row | RowError:
    if len(cells) != len(header):
        return RowError(
            "",
            f"has {len(cells):,} {'cell' if len(cells) == 1 else 'cells'} and the header {len(header):,}; expected as "
            "many; quote cells that hold the separator or a new line",
        )
    return {name: cell or None for name, cell in zip(header, cells, strict=True)}


# Parquet and Arrow.


def parquet_rows(stream: BinaryIO, file: str, most: int) -> Iterator[Parsed]:
    """The rows of a Parquet file, numbered from 1; DataError where it is damaged or unpacks to too much."""
    import pyarrow.parquet as pq

    with _told(file, "Parquet"):
        table = pq.ParquetFile(stream, page_checksum_verification=True, pre_buffer=False)
        _check_columns(table.schema_arrow, file)
        metadata = table.metadata
        unpacked = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        _check_size(unpacked, file, most)
        batches = table.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False)
    yield from _batch_rows(_guarded(batches, file, "Parquet"), file, most)


def arrow_rows(stream: BinaryIO, file: str, most: int, *, is_stream: bool) -> Iterator[Parsed]:
    """The rows of an Arrow file (Feather of version 2 is one) or stream, numbered from 1; DataError as for Parquet."""
    import pyarrow as pa

    with _told(file, "Arrow"):
        start = stream.tell()
        _check_size(unpacked_bytes(stream, is_stream=is_stream), file, most)
        stream.seek(start)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        if is_stream:
            reader = pa.ipc.open_stream(stream, options=options)
            batches: Iterable[Any] = reader
        else:
            reader = pa.ipc.open_file(stream, options=options)
            batches = (reader.get_batch(place) for place in range(reader.num_record_batches))
        _check_columns(reader.schema, file)
    yield from _batch_rows(_guarded(batches, file, "Arrow"), file, most)


def _guarded(batches: Iterable[Any], file: str, kind: str) -> Iterator[Any]:
    iterator = iter(batches)
    while True:
        with _told(file, kind):
            batch = next(iterator, None)
            if batch is None:
                return
            # What a file says of its own buffers is believed only after this.
            batch.validate(full=kind == "Arrow")
        yield batch


@contextmanager
def _told(file: str, kind: str) -> Iterator[None]:
    """Whatever pyarrow says of a file, as a DataError."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except (pa.ArrowException, OSError, ValueError, MemoryError, OverflowError) as error:
        said = printable(" ".join(str(error).split()) or type(error).__name__, 300).rstrip(".")
        raise DataError(f"{file}: is damaged, truncated or unreadable {kind} ({said}); write it again") from None


def _check_size(unpacked: int, file: str, most: int) -> None:
    if unpacked > most:
        raise DataError(too_large(file, most))


def _check_columns(schema: Any, file: str) -> None:
    if not len(schema):
        raise DataError(f"{file}: has no columns; expected some with prompts and answers")
    _check_distinct(schema.names, file, "the table")


def _batch_rows(batches: Iterable[Any], file: str, most: int) -> Iterator[Parsed]:
    place, unpacked = 0, 0
    for batch in batches:
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            piece = batch.slice(start, ROWS_AT_ONCE)
            unpacked += piece.nbytes
            _check_size(unpacked, file, most)
            for row in _as_rows(_with_times_as_text(piece)):
                place += 1
                yield Origin(file, place), row


def _as_rows(batch: Any) -> list[Row] | list[Row | RowError]:
    try:
        return batch.to_pylist()  # type: ignore[no-any-return]
    except (ValueError, OverflowError, LookupError):
        return [_as_row(batch, place) for place in range(batch.num_rows)]


def _as_row(batch: Any, place: int) -> Row | RowError:
    row: Row = {}
    for name in batch.schema.names:
        try:
            row[name] = batch.column(name)[place].as_py()
        except UnicodeDecodeError as error:
            return RowError(printable(name), why_not_text(error))
        except (ValueError, OverflowError, LookupError) as error:
            said = printable(" ".join(str(error).split()), 200)
            return RowError(printable(name), f"cannot be read ({said}); expected text, numbers, lists or objects")
    return row


def _with_times_as_text(batch: Any) -> Any:
    """The batch with columns of dates and times as text, or as numbers where they have none."""
    import pyarrow as pa

    for place, field in enumerate(batch.schema):
        if pa.types.is_temporal(field.type):
            for plain in pa.string(), pa.int64():
                with suppress(pa.ArrowException):
                    batch = batch.set_column(place, field.name, batch.column(place).cast(plain))
                    break
    return batch
