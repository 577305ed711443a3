"""What a field of a row holds, or a RowError that says why not.

Tables (CSV) have nothing but text, so numbers, yes and no, and lists and objects are also read from the text that
stands for them. Whatever a field holds, the only exception that leaves this module is `RowError`.
"""

from __future__ import annotations

import json
import math
import re
from typing import TypeAlias

from kilter.errors import DataError

Row: TypeAlias = dict[str, object]

# Lists and objects within a field go no deeper than this: schemas of tools are the deepest that are met.
DEEPEST = 64


class RowError(DataError):
    """A row that cannot be used.

    `field` is where ("" for the whole row); `problem` what was found, what was expected, and what to do.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


# Words for users.


def printable(text: str, most: int = 60) -> str:
    """Return `text` clipped to `most` characters, with control and invisible characters escaped."""
    clipped = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clipped)


def kind_of(value: object) -> str:
    """Say what a JSON value is, in words that follow "is"."""
    match value:
        case None:
            return "missing or null"
        case bool():
            return "true or false"
        case str():
            return "text" if value else "empty text"
        case list():
            return "a list" if value else "an empty list"
        case dict():
            return "an object"
        case int() | float():
            return "a number"
        case _:
            return f"of type {type(value).__name__}"  # a cell of a typed table


def shown(value: object) -> str:
    """The same, with the value itself where that is short."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float() if abs(value) < 1e15:
            return f"{value:g}" if isinstance(value, float) else str(value)
        case str() if value:
            return f"'{printable(value)}'"
        case _:
            return kind_of(value)


# Text.


def clean(field: str, value: object) -> str:
    """Return `value`, if it is text that a tokenizer takes."""
    if not isinstance(value, str):
        raise RowError(field, f"is {kind_of(value)}; expected text")
    if "\0" in value:
        raise RowError(field, f"has a NUL at character {value.index(chr(0)) + 1}; expected text; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        found = printable(value[error.start])
        raise RowError(
            field,
            f"has half a surrogate pair ({found}) at character {error.start + 1}; expected text; remove it",
        ) from None
    return value


def text(row: Row, key: str) -> str:
    return clean(key, row.get(key))


def optional_text(row: Row, key: str) -> str:
    """The same, and "" where there is none."""
    return "" if row.get(key) is None else text(row, key)


# Numbers, yes and no.

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_YES_NO = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


def number(field: str, value: object, expected: str = "a number") -> float:
    """Return a finite number, also from text that stands for one."""
    written = value.strip() if isinstance(value, str) else ""
    if written and not _NUMBER.fullmatch(written):
        raise RowError(field, f"is {shown(value)}; expected {expected}")
    if isinstance(value, bool) or not (written or isinstance(value, int | float)):
        raise RowError(field, f"is {kind_of(value)}; expected {expected}")
    try:
        read = float(written or value)  # type: ignore[arg-type]
    except (OverflowError, ValueError):  # ValueError: text of too many digits
        read = math.inf
    if not math.isfinite(read):
        raise RowError(field, f"is infinite, too large or no number (NaN); expected {expected}; mend or remove it")
    return read


def optional_number(row: Row, key: str) -> float | None:
    """The same of a key, and None where there is nothing (in a table: an empty cell)."""
    value = row.get(key)
    return None if value is None or value == "" else number(key, value, "a number or null")


def yes_no(field: str, value: object) -> bool:
    """Return a judgement: true or false, 1 or 0, yes or no."""
    found = _yes_no(value)
    if found is None:
        raise RowError(field, f"is {shown(value)}; expected true or false (or 1 or 0)")
    return found


def is_yes_no(value: object) -> bool:
    return _yes_no(value) is not None


def _yes_no(value: object) -> bool | None:
    match value:
        case bool():
            return value
        case int() | float() if value in (0, 1):
            return bool(value)
        case str():
            return _YES_NO.get(value.strip().lower())
        case _:
            return None


# Lists and objects.


class _FlawError(ValueError):
    """JSON that Python's reader lets pass."""


def parsed(field: str, value: object) -> object:
    """Return `value`, or what it says where it is text that begins like a list or an object in JSON."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value, object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise RowError(field, f"is nested more than {DEEPEST} deep; expected less") from None
    except ValueError as error:
        why = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else str(error)
        hint = "; it looks written by Python's str(): write it with json.dumps" if "'" in value[:20] else ""
        raise RowError(field, f"is text that begins like JSON but is not ({why}); expected JSON{hint}") from None


def canonical(field: str, value: object) -> str:
    """Return a JSON value as text: keys sorted, no blanks, characters as they are."""
    _check_plain(field, value, DEEPEST)
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _object(items: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(items)
    if len(found) < len(items):
        raise _FlawError("a key is given more than once")
    return found


def _constant(name: str) -> None:
    raise _FlawError(f"{name} is no number of JSON")


def _check_plain(field: str, value: object, depth: int) -> None:
    """Refuse what cannot be written as JSON and read back, or is no text to a tokenizer."""
    if depth < 0:
        raise RowError(field, f"is nested more than {DEEPEST} deep; expected less")
    match value:
        case str():
            clean(field, value)
        case bool() | None:
            pass
        case int() | float():
            number(field, value)
        case list():
            for item in value:
                _check_plain(field, item, depth - 1)
        case dict():
            for key, item in value.items():
                clean(field, key)
                _check_plain(field, item, depth - 1)
        case _:
            raise RowError(field, f"holds a {type(value).__name__}; expected text, numbers, lists and objects")
