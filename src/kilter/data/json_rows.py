"""JSON lines and JSON arrays, read strictly: NaN is refused, and so is a key given twice.

Bounds: a line is at most 64 MiB; nesting goes as deep as Python's JSON reader does.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO, TypeAlias

from kilter.data.formats import Row, RowError, kind_of, printable
from kilter.data.records import Origin
from kilter.errors import DataError

LONGEST_LINE = 64 << 20

Parsed: TypeAlias = tuple[Origin, Row | RowError]


def is_array(head: bytes) -> bool:
    """Whether a file that begins with these bytes holds one array, not an object a line."""
    return head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")


def array_rows(stream: BinaryIO, file: str) -> Iterator[Parsed]:
    """The objects of one array, numbered by their place in it; DataError where there is no next one to find."""
    content = stream.read().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode()
        for place, row in enumerate(_array_items(text), 1):
            yield Origin(file, place), row
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line} {why_not_text(error)}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{file}: line {error.lineno} {_why_not_json(error)}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: a row {_why_not_json(error)}") from None


def line_rows(stream: BinaryIO, file: str) -> Iterator[Parsed]:
    """The object of each line that is not blank."""
    decoder = _StrictDecoder()
    begun = False
    for number, line in numbered_lines(stream, file):
        if not line.strip():
            continue
        if not begun and line.endswith(b"\n") and line.strip() == b"{":
            raise DataError(
                f"{file}: the first object takes many lines; expected one object a line, or an array of them; "
                "put each on one line (`jq -c .` does)"
            )
        begun = True
        yield Origin(file, number), _line_row(decoder, line)


def prompt_lines(stream: BinaryIO, file: str) -> Iterator[Parsed]:
    """A prompt a line that is not blank: what a user says."""
    for origin, text in _text_lines(stream, file):
        yield origin, text if isinstance(text, RowError) else {"prompt": [{"role": "user", "content": text}]}


def document_lines(stream: BinaryIO, file: str) -> Iterator[Parsed]:
    """A document a line that is not blank."""
    for origin, text in _text_lines(stream, file):
        yield origin, text if isinstance(text, RowError) else {"text": text}


def _text_lines(stream: BinaryIO, file: str) -> Iterator[tuple[Origin, str | RowError]]:
    for number, line in numbered_lines(stream, file):
        origin = Origin(file, number)
        try:
            text = line.decode().strip()
        except UnicodeDecodeError as error:
            yield origin, RowError("", why_not_text(error))
            continue
        if text:
            yield origin, text


def numbered_lines(stream: BinaryIO, file: str) -> Iterator[tuple[int, bytes]]:
    """Each line with its number and its end, the first without a byte order mark; DataError for a huge one."""
    for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), 1):
        if len(line) > LONGEST_LINE:
            raise DataError(
                f"{file}:{number}: is longer than {LONGEST_LINE >> 20} MiB; expected one row a line; "
                "is it the right kind of file? Split or remove the line"
            )
        yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


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


def _line_row(decoder: _StrictDecoder, line: bytes) -> Row | RowError:
    try:
        text = line.rstrip(b"\r\n").decode()
        row, end = decoder.row(text, 0)
        if end < len(text):
            raise json.JSONDecodeError("More than one value on the line", text, end)
    except (ValueError, RecursionError) as error:
        return RowError("", _why_not_json(error))
    return row


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
            return why_not_text(error)
        case json.JSONDecodeError():
            return f"is not JSON at column {error.colno}: {error.msg.rstrip(': ')}; expected a complete object"
        case RecursionError():
            return "is nested too deeply; expected an object of texts or messages"
        case _:
            return "has a number of too many digits; expected fewer than 4,300"


def why_not_text(error: UnicodeDecodeError) -> str:
    """Say of bytes that are not UTF-8 which is the first."""
    return f"is not UTF-8 (byte {error.object[error.start]:#04x}); expected UTF-8; convert or mend the file"
