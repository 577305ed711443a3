"""Columns that are taken for the fields of a format."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from kilter.data.fields import Row, printable
from kilter.data.formats import FORMATS, PROMPT_FORMATS
from kilter.data.json_rows import Parsed
from kilter.errors import ConfigError, DataError


def check_fields(columns: Mapping[str, str]) -> None:
    """Raise ConfigError where no format has a field of one of these names."""
    fields = {key for known in (FORMATS | PROMPT_FORMATS).values() for key in (*known.keys, *known.optional)}
    for name in columns:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(fields))}"
            raise ConfigError(f"columns: no format has a field {printable(name)!r}; {meant}")


@dataclass(slots=True)
class Renaming:
    """Columns taken for fields, with what was seen of them: a column that no row has is refused."""

    columns: Mapping[str, str]
    found: set[str] = field(default_factory=set)
    keys: dict[str, None] = field(default_factory=dict)

    def applied(self, parsed: Iterable[Parsed]) -> Iterator[Parsed]:
        for origin, row in parsed:
            yield origin, self._renamed(row) if isinstance(row, dict) else row

    def _renamed(self, row: Row) -> Row:
        if len(self.keys) < 100:
            self.keys.update(dict.fromkeys(row))
        taken: Row = {}
        for name, column in self.columns.items():
            there, taken[name] = _reached(row, column)
            if there:
                self.found.add(column)
        renamed = set(self.columns.values())
        return {key: value for key, value in row.items() if key not in renamed and key not in taken} | taken

    def check_found(self, file: str) -> None:
        for name, column in self.columns.items():
            if column not in self.found:
                there = ", ".join(printable(key) for key in list(self.keys)[:30]) or "none"
                near = difflib.get_close_matches(column, self.keys, n=1)
                meant = f"did you mean {printable(near[0])}? " if near else ""
                raise DataError(
                    f"{file}: no row has the column {printable(column)}, which is to be {name}; {meant}"
                    f"there are: {there}"
                )


def _reached(row: Row, column: str) -> tuple[bool, object]:
    """Whether a row has a column, and what it holds: a key, or keys and places in lists with dots between."""
    if column in row:
        return True, row[column]
    value: object = row
    for part in column.split("."):
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False, None
    return True, value
