"""Files of pairs, demonstrations and prompts: JSON lines or a JSON array, plain or gzipped, told apart by content.

Every row is looked at before one is refused, so that one run of a command names all that has to be mended.
Whatever a file holds, the only exception that leaves this module is `DataError`.

Bounds: a line of JSON lines is at most 64 MiB; gzip may unpack to 1 GiB, or to 200 times the file's size
where that is more; nesting goes as deep as Python's JSON reader does; reading stops after 1,000,000 bad rows.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import json
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

from kilter.data.formats import FORMATS, PROMPT_FORMATS, Row, RowError, kind_of, printable, recognise
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Prompt, Ranking, Record, Steps
from kilter.errors import DataError

LONGEST_LINE = 64 << 20
LARGEST_UNPACKED = 1 << 30
LARGEST_RATIO = 200
MOST_BAD_ROWS = 1_000_000
ROWS_SEARCHED = 1000
ROWS_THAT_DECIDE = 20
ROWS_LISTED = 20

_TITLES = {known.name: known.title for known in (FORMATS | PROMPT_FORMATS).values()}

KINDS = (Pair, Labelled, Ranking, Steps, Demonstration)

R = TypeVar("R", bound=Record)
Source: TypeAlias = str | PathLike[str]
Parsed: TypeAlias = tuple[Origin, Row | RowError]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used: where it is, which field ("" for the whole row), and what is wrong."""

    origin: Origin
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (str(self.origin), self.field, self.message) if part)


@dataclass(frozen=True, slots=True)
class FileAccount:
    """What became of one file.

    `format` is a name in `FORMATS` or `PROMPT_FORMATS`, `sha256` is of the file's bytes as they lie on
    disk; `rows` counts the usable ones; `bad_rows` were skipped; `ignored` are keys of the used rows that no record
    holds (`messages[].name`: a key of messages).
    """

    name: str
    sha256: str
    format: str
    rows: int
    bad_rows: tuple[BadRow, ...] = ()
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dataset(Generic[R]):
    """The usable rows of some files (at least one), and what must be known to account for the others.

    `ties` counts pairs that say neither answer is better and were left out for it.
    """

    rows: tuple[R, ...]
    files: tuple[FileAccount, ...]
    ties: int = 0

    @property
    def bad_rows(self) -> tuple[BadRow, ...]:
        return tuple(row for file in self.files for row in file.bad_rows)

    def describe(self) -> str:
        """Return what a command prints, a line a file: file, rows, format, and what was left out."""
        wanted = type(self.rows[0])
        lines = [_described(file, wanted) for file in self.files]
        made = sum(file.rows for file in self.files)
        if len(self.files) > 1 or len(self.rows) != made or self.ties:
            total = f"{_counted(len(self.rows), wanted.__name__.lower())} in all"
            lines.append(total + (f", {_counted(self.ties, 'tie')} left out" if self.ties else ""))
        return "\n".join(lines)


def _described(file: FileAccount, wanted: type[Any]) -> str:
    known = (FORMATS | PROMPT_FORMATS).get(file.format)
    given = wanted if known is None else known.yields
    title = _TITLES[file.format]
    parts = [f"{file.name}: {_counted(file.rows, given.__name__.lower())}", f"format {file.format} ({title})"]
    if (given, wanted) in _TAKEN:
        parts.append(_TAKEN[given, wanted])
    if file.bad_rows:
        parts.append(f"{_counted(len(file.bad_rows), 'bad row')} skipped")
    if file.ignored:
        shown = [printable(key) for key in file.ignored[:8]]
        shown += [f"{len(file.ignored) - 8} more"] if len(file.ignored) > 8 else []
        parts.append(f"ignored keys: {', '.join(shown)}")
    return ", ".join(parts)


# What is taken of rows of one kind where another is wanted.
_TAKEN: dict[tuple[type[Record], type[Record]], str] = {
    (Ranking, Pair): "every two answers of different rank",
    (Pair, Labelled): "chosen answers as good ones, rejected as bad",
    (Steps, Labelled): "each step by itself",
    (Pair, Demonstration): "their chosen answers",
    (Ranking, Demonstration): "their best answers",
    (Labelled, Demonstration): "the good ones",
    (Pair, Prompt): "their prompts",
}


def read_rows(sources: Source | Sequence[Source], *wanted: type[R], skip_bad: bool = False) -> Dataset[R]:
    """Read rows of the first of the `wanted` kinds that every file can serve as.

    Raises `DataError` where a file cannot be read, is in no format that serves, or has a bad row. With `skip_bad` bad
    rows are left out and listed in the files' accounts; a file without a good row is refused.
    """
    read = [_read_file(Path(source), wanted, skip_bad) for source in _listed(sources)]
    kinds = {type(record) for _, records in read for record in records}
    kind = next((kind for kind in wanted if kinds <= VIEWS[kind].keys()), None)
    if kind is None:
        found = ", ".join(f"{file.name} ({file.format})" for file, _ in read)
        raise DataError(f"the files hold rows of different kinds: {found}; give files of one kind")
    records = [record for _, some in read for record in some]
    used = [record for record in records if kind is Prompt or not (isinstance(record, Pair) and record.tied)]
    rows = tuple(row for record in used for row in VIEWS[kind][type(record)](record))
    files = tuple(file for file, _ in read)
    if not rows:
        left = "nothing but ties" if len(used) < len(records) else "no answer marked as good"
        raise DataError(f"{', '.join(file.name for file in files)}: {left}; expected rows to learn from")
    return Dataset(rows, files, ties=len(records) - len(used))


def read_pairs(sources: Source | Sequence[Source], *, skip_bad: bool = False) -> Dataset[Pair]:
    """Read files of preference pairs, or of what serves as such; ties are left out and counted.

    Raises as `read_rows` does.
    """
    return read_rows(sources, Pair, skip_bad=skip_bad)


def read_records(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Record]:
    """Read every row as its own kind, ties included. Raises as `read_rows` does."""
    assert columns is None
    assert format is None
    every = VIEWS.keys() - {Prompt}
    read = [_read_file(Path(source), every, skip_bad) for source in _listed(sources)]
    return Dataset(tuple(record for _, records in read for record in records), tuple(file for file, _ in read))


def read_demonstrations(sources: Source | Sequence[Source], *, skip_bad: bool = False) -> Dataset[Demonstration]:
    """Read files of demonstrations; of pairs the chosen answers, of labelled answers the good ones.

    Raises as `read_rows` does.
    """
    return read_rows(sources, Demonstration, skip_bad=skip_bad)


def read_prompts(sources: Source | Sequence[Source], *, skip_bad: bool = False) -> Dataset[Prompt]:
    """Read files of prompts; of anything else, the prompts.

    In a `.txt` file (packed or not) each line that is not blank is what a user says. Raises as `read_rows` does.
    """
    return read_rows(sources, Prompt, skip_bad=skip_bad)


def _listed(sources: Source | Sequence[Source]) -> Sequence[Source]:
    return [sources] if isinstance(sources, str | PathLike) else sources


def _read_file(path: Path, wanted: Collection[type[Any]], skip_bad: bool) -> tuple[FileAccount, tuple[Record, ...]]:
    file = _shown(path)
    records: list[Record] = []
    bad_rows: list[BadRow] = []
    ignored: dict[str, None] = {}
    with _opened(path, file) as (stream, sha256):
        most = max(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size)
        is_array = False
        if Prompt in wanted and ".txt" in path.suffixes[-2:]:
            parsed = _text_rows(_bounded(partial(stream.readline, LONGEST_LINE + 1), file, most), file)
        else:
            is_array, parsed = _parsed_rows(stream, file, most)
        first = list(_first_rows(parsed))
        objects = [(origin, row) for origin, row in first if isinstance(row, dict)]
        if not objects:
            raise DataError(_nothing_found(file, first))
        known = recognise(objects, wanted)
        for origin, row in chain(first, parsed):
            try:
                if isinstance(row, RowError):
                    raise row
                records.append(known.convert(row, origin))
                ignored.update(dict.fromkeys(known.unread(row)))
            except RowError as error:
                bad_rows.append(BadRow(origin, error.field, error.problem))
                if len(bad_rows) > MOST_BAD_ROWS:
                    raise DataError(
                        f"{file}: more than {MOST_BAD_ROWS:,} rows cannot be used; expected fewer; "
                        f"is it the right file? The first: {bad_rows[0]}"
                    ) from None
    if bad_rows and not (skip_bad and records):
        raise DataError(_refusal(file, bad_rows, len(records), is_array))
    return FileAccount(file, sha256, known.name, len(records), tuple(bad_rows), tuple(ignored)), tuple(records)


def _text_rows(lines: Iterator[bytes], file: str) -> Iterator[Parsed]:
    """A prompt a line: what a user says."""
    for number, line in enumerate(lines, 1):
        origin = Origin(file, number)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            yield origin, RowError("", _why_not_json(error))
            continue
        if text:
            yield origin, {"prompt": [{"role": "user", "content": text}]}


def _first_rows(parsed: Iterator[Parsed]) -> Iterator[Parsed]:
    objects = 0
    for origin, row in islice(parsed, ROWS_SEARCHED):
        yield origin, row
        objects += isinstance(row, dict)
        if objects == ROWS_THAT_DECIDE:
            return


def _nothing_found(file: str, parsed: Sequence[Parsed]) -> str:
    expected = "expected one JSON object a line, or an array of them"
    if not parsed:
        return f"{file}: has no rows; {expected}"
    origin, error = parsed[0]
    return f"{file}: has no JSON object where rows begin; {expected}; what is at {origin} {error}"


def _refusal(file: str, bad_rows: Sequence[BadRow], good: int, is_array: bool) -> str:
    lines = [f"{file}: {len(bad_rows):,} of {_counted(len(bad_rows) + good, 'row')} cannot be used"]
    lines[0] += " (numbered by their place in the array):" if is_array else ":"
    lines += [f"  {row}" for row in bad_rows[:ROWS_LISTED]]
    if len(bad_rows) > ROWS_LISTED:
        lines.append(f"  and {len(bad_rows) - ROWS_LISTED:,} more")
    lines.append("Mend them, or pass --skip-bad to leave them out." if good else "No usable row is left; mend them.")
    return "\n".join(lines)


def _shown(path: Path) -> str:
    return printable(str(path), 1000)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")


# From path to bytes.


@contextmanager
def _opened(path: Path, file: str) -> Iterator[tuple[BufferedIOBase, str]]:
    """Yield the file's unpacked bytes and its SHA-256; whatever fails in reading is a DataError."""
    _check_regular(path, file)
    try:
        with path.open("rb") as raw:
            sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
            raw.seek(0)
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if zipped else raw, sha256
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{file}: is damaged or truncated gzip ({error}); fetch or write the file again") from None
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read: {error.strerror or error}; check the file and its permissions"
        ) from None


def _check_regular(path: Path, file: str) -> None:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read: {reason}; check the path") from None
    if stat.S_ISDIR(status.st_mode):
        raise DataError(f"{file}: is a directory; expected one file of JSON lines or a JSON array; name the file in it")
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{file}: is a pipe or a device; expected a file, which is read twice; save it as one first")
    if not status.st_size:
        raise DataError(f"{file}: is empty; expected one JSON object a line, or an array of them")


_OTHER_KINDS = {
    codecs.BOM_UTF16_LE: "UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "gzip inside gzip; unpack it once",
    b"PAR1": "Parquet; write it as JSON lines",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "xz; unpack it, or use gzip",
    b"\x28\xb5\x2f\xfd": "Zstandard; unpack it, or use gzip",
}


def _parsed_rows(stream: BufferedIOBase, file: str, most: int) -> tuple[bool, Iterator[Parsed]]:
    head = stream.read(1 << 16)
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{file}: expected JSON, found {kind}")
    mark = codecs.BOM_UTF8 if head.startswith(codecs.BOM_UTF8) else b""
    stream.seek(len(mark))
    start = head.removeprefix(mark).lstrip()
    if start.startswith(b"["):
        return True, _array_rows(_bounded(partial(stream.read, 1 << 20), file, most), file)
    if start.startswith((b"{\n", b"{\r\n")):
        raise DataError(
            f"{file}: the first object takes many lines; expected one object a line, or an array of them; "
            "put each on one line (`jq -c .` does)"
        )
    return False, _line_rows(_bounded(partial(stream.readline, LONGEST_LINE + 1), file, most), file)


def _bounded(read: Callable[[], bytes], file: str, most: int) -> Iterator[bytes]:
    unpacked = 0
    while chunk := read():
        unpacked += len(chunk)
        if unpacked > most:
            raise DataError(
                f"{file}: unpacks to more than {most:,} bytes; expected at most {LARGEST_UNPACKED:,}, or "
                f"{LARGEST_RATIO} times the file's size; if it is meant to be so, unpack the file first"
            )
        yield chunk


# From bytes to rows.


class _StrictDecoder(json.JSONDecoder):
    """A JSON reader that refuses what Python's lets pass: NaN, Infinity, and a key given twice."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object, parse_constant=self._constant)
        self._flaws: list[RowError] = []

    def row(self, text: str, start: int) -> tuple[Row | RowError, int]:
        """Return the row that begins at `start` or after blanks, and the index of the next thing after it."""
        self._flaws.clear()
        value, end = self.raw_decode(text, _after_blanks(text, start))
        end = _after_blanks(text, end)
        if self._flaws:
            return self._flaws[0], end
        if not isinstance(value, dict):
            return RowError("", f"is {kind_of(value)}; expected an object"), end
        return value, end

    def _object(self, items: list[tuple[str, object]]) -> dict[str, object]:
        row = dict(items)
        if len(row) < len(items):
            [(twice, _)] = Counter(key for key, _ in items).most_common(1)
            self._note(printable(twice), "is given more than once in an object; expected once; remove the others")
        return row

    def _constant(self, name: str) -> None:
        self._note("", f"has {name}, which is not JSON; expected a number or null")

    # Noted, not raised: in an array the reader must get to the next row.
    def _note(self, field: str, problem: str) -> None:
        if not self._flaws:
            self._flaws.append(RowError(field, problem))


_BLANKS = re.compile(r"[ \t\r\n]*")


def _after_blanks(text: str, start: int) -> int:
    blanks = _BLANKS.match(text, start)
    assert blanks is not None
    return blanks.end()


def _line_rows(lines: Iterator[bytes], file: str) -> Iterator[Parsed]:
    decoder = _StrictDecoder()
    for number, line in enumerate(lines, 1):
        origin = Origin(file, number)
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{origin}: is longer than {LONGEST_LINE >> 20} MiB; expected one row a line; "
                "is it JSON lines? Split or remove the line"
            )
        if line.strip():
            yield origin, _line_row(decoder, line)


def _line_row(decoder: _StrictDecoder, line: bytes) -> Row | RowError:
    try:
        text = line.rstrip(b"\r\n").decode()
        row, end = decoder.row(text, 0)
        if end < len(text):
            raise json.JSONDecodeError("More than one value on the line", text, end)
    except (ValueError, RecursionError) as error:
        return RowError("", _why_not_json(error))
    return row


def _array_rows(chunks: Iterator[bytes], file: str) -> Iterator[Parsed]:
    content = b"".join(chunks)
    try:
        text = content.decode()
        for place, row in enumerate(_array_items(text), 1):
            yield Origin(file, place), row
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} {_why_not_json(error)}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: line {error.lineno} {_why_not_json(error)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: a row {_why_not_json(error)}") from None


def _array_items(text: str) -> Iterator[Row | RowError]:
    decoder = _StrictDecoder()
    end = _after_blanks(text, text.index("[") + 1)
    closed = text[end : end + 1] == "]"
    while not closed:
        row, end = decoder.row(text, end)
        yield row
        closed = text[end : end + 1] == "]"
        if not closed and text[end : end + 1] != ",":
            raise json.JSONDecodeError("Expected ',' or ']' after a row", text, end)
        end += not closed
    end = _after_blanks(text, end + 1)
    if end < len(text):
        raise json.JSONDecodeError("More after the end of the array", text, end)


def _why_not_json(error: ValueError | RecursionError) -> str:
    match error:
        case UnicodeDecodeError():
            found = f"byte {error.object[error.start]:#04x}"
            return f"is not UTF-8 ({found}); expected UTF-8; convert or mend the file"
        case json.JSONDecodeError():
            return f"is not JSON at column {error.colno}: {error.msg.rstrip(': ')}; expected a complete object"
        case RecursionError():
            return "is nested too deeply; expected an object of texts or messages"
        case _:
            return "has a number of too many digits; expected fewer than 4,300"
