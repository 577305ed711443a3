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
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BufferedIOBase
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from kilter.data.formats import FORMATS, PROMPT_FORMATS, Record, Row, RowError, kind_of, printable, recognise
from kilter.data.records import Demonstration, Message, Origin, Pair, Prompt
from kilter.errors import DataError

LONGEST_LINE = 64 << 20
LARGEST_UNPACKED = 1 << 30
LARGEST_RATIO = 200
MOST_BAD_ROWS = 1_000_000
ROWS_SEARCHED = 1000
ROWS_THAT_DECIDE = 20
ROWS_LISTED = 20

_LINES = "lines"
_TITLES = {known.name: known.title for known in (FORMATS | PROMPT_FORMATS).values()} | {_LINES: "a prompt a line"}

R = TypeVar("R", Pair, Demonstration, Prompt)
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
class Dataset(Generic[R]):
    """The usable rows of one file (at least one), and what must be known to account for the others.

    `format` is a name in `FORMATS` or `PROMPT_FORMATS`, or "lines"; `sha256` is of the file's bytes as they lie on
    disk; `bad_rows` were skipped; `ignored` are keys of the used rows that no record holds (`messages[].name`: a key
    of messages).
    """

    rows: tuple[R, ...]
    format: str
    path: Path
    sha256: str
    bad_rows: tuple[BadRow, ...] = ()
    ignored: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the line a command prints: file, rows, format, and what was left out."""
        kind = type(self.rows[0])
        parts = [f"{_shown(self.path)}: {_counted(len(self.rows), kind.__name__.lower())}"]
        if self.format in FORMATS and kind is not FORMATS[self.format].yields:
            parts[0] += " (the chosen answers of pairs)" if kind is Demonstration else " (those of pairs)"
        parts.append(f"format {self.format} ({_TITLES[self.format]})")
        if self.bad_rows:
            parts.append(f"{_counted(len(self.bad_rows), 'bad row')} skipped")
        if self.ignored:
            shown = [printable(key) for key in self.ignored[:8]]
            shown += [f"{len(self.ignored) - 8} more"] if len(self.ignored) > 8 else []
            parts.append(f"ignored keys: {', '.join(shown)}")
        return ", ".join(parts)


def read_pairs(path: str | PathLike[str], *, skip_bad: bool = False) -> Dataset[Pair]:
    """Read a file of preference pairs.

    Raises `DataError` where the file cannot be read, is in no known format of pairs, or has a bad row. With
    `skip_bad` bad rows are left out and listed in `Dataset.bad_rows`; a file without a good row is refused.
    """
    return _read(Path(path), Pair, _only_pair, skip_bad)


def read_demonstrations(path: str | PathLike[str], *, skip_bad: bool = False) -> Dataset[Demonstration]:
    """Read a file of demonstrations; of a file of pairs, the chosen answers are the demonstrations.

    Raises `DataError` as `read_pairs` does.
    """
    return _read(Path(path), Demonstration, _as_demonstration, skip_bad)


def read_prompts(path: str | PathLike[str], *, skip_bad: bool = False) -> Dataset[Prompt]:
    """Read a file of prompts; of a file of pairs, their prompts.

    In a `.txt` file (or `.txt.gz`) each line that is not blank is what a user says. Raises `DataError` as
    `read_pairs` does.
    """
    path = Path(path)
    if ".txt" in path.suffixes[-2:]:
        return _read_lines(path, skip_bad)
    return _read(path, Prompt, _as_prompt, skip_bad)


def _only_pair(record: Record) -> Pair:
    assert isinstance(record, Pair)
    return record


def _as_demonstration(record: Record) -> Demonstration:
    if isinstance(record, Pair):
        return Demonstration(record.prompt, record.chosen, record.origin)
    assert isinstance(record, Demonstration)
    return record


def _as_prompt(record: Record) -> Prompt:
    return record if isinstance(record, Prompt) else Prompt(record.prompt, record.origin)


def _read_lines(path: Path, skip_bad: bool) -> Dataset[Prompt]:
    file = _shown(path)
    rows: list[Prompt] = []
    bad_rows: list[BadRow] = []
    with _opened(path, file) as (stream, sha256):
        most = max(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size)
        for number, line in enumerate(_bounded(partial(stream.readline, LONGEST_LINE + 1), file, most), 1):
            origin = Origin(file, number)
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError as error:
                bad_rows.append(BadRow(origin, "", _why_not_json(error)))
                continue
            if text:
                rows.append(Prompt((Message("user", text),), origin))
    if not rows and not bad_rows:
        raise DataError(f"{file}: has no prompts; expected one a line")
    if bad_rows and not (skip_bad and rows):
        raise DataError(_refusal(file, bad_rows, len(rows), is_array=False))
    return Dataset(tuple(rows), _LINES, path, sha256, tuple(bad_rows))


def _read(path: Path, wanted: type[R], take: Callable[[Record], R], skip_bad: bool) -> Dataset[R]:
    file = _shown(path)
    rows: list[R] = []
    bad_rows: list[BadRow] = []
    ignored: dict[str, None] = {}
    with _opened(path, file) as (stream, sha256):
        most = max(LARGEST_UNPACKED, LARGEST_RATIO * path.stat().st_size)
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
                rows.append(take(known.convert(row, origin)))
                ignored.update(_unread_keys(row, known.keys))
            except RowError as error:
                bad_rows.append(BadRow(origin, error.field, error.problem))
                if len(bad_rows) > MOST_BAD_ROWS:
                    raise DataError(
                        f"{file}: more than {MOST_BAD_ROWS:,} rows cannot be used; expected fewer; "
                        f"is it the right file? The first: {bad_rows[0]}"
                    ) from None
    if bad_rows and not (skip_bad and rows):
        raise DataError(_refusal(file, bad_rows, len(rows), is_array))
    return Dataset(tuple(rows), known.name, path, sha256, tuple(bad_rows), tuple(ignored))


def _first_rows(parsed: Iterator[Parsed]) -> Iterator[Parsed]:
    objects = 0
    for origin, row in islice(parsed, ROWS_SEARCHED):
        yield origin, row
        objects += isinstance(row, dict)
        if objects == ROWS_THAT_DECIDE:
            return


def _unread_keys(row: Row, read: Iterable[str]) -> dict[str, None]:
    unread = dict.fromkeys(key for key in row if key not in read)
    for key in read:
        value = row.get(key)
        turns = value if isinstance(value, list) else [value]
        messages = (turn for turn in turns if isinstance(turn, dict))
        unread |= {f"{key}[].{k}": None for turn in messages for k in turn if k not in ("role", "content")}
    return unread


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
