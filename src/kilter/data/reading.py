"""Files of rows: what names on the command line stand for is found, opened, recognised and made into records.

The files are of any kind in `CONTAINERS`, packed or not. Every row is looked at before one is refused, so that one run
of a command names all that has to be mended. Whatever a file holds, the only exceptions that leave this module are
`DataError`, and `ConfigError` for a format or a field that there is not.

Bounds: those of data/files.py, data/json_rows.py and data/tabular.py; reading stops after 1,000,000 bad rows.
"""

from __future__ import annotations

import codecs
import difflib
import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, BinaryIO, Generic, TypeVar

from kilter.data.files import DataFile, OpenFile, Source, check_no_other_kind, listed, opened
from kilter.data.formats import FORMATS, PROMPT_FORMATS, Format, Row, RowError, printable, recognise, serving
from kilter.data.json_rows import Parsed, array_rows, is_array, line_rows, text_rows
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Prompt, Ranking, Record, Steps
from kilter.data.tabular import arrow_rows, parquet_rows, separated_rows
from kilter.errors import ConfigError, DataError

MOST_BAD_ROWS = 1_000_000
ROWS_SEARCHED = 1000
ROWS_THAT_DECIDE = 20
ROWS_LISTED = 20
HEAD = 1 << 16

# What there is to learn from: every kind of row serves as one of these.
KINDS = (Pair, Labelled, Demonstration)

_KNOWN = FORMATS | PROMPT_FORMATS

R = TypeVar("R", bound=Record)


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
    holds (`messages[].name`: a key of messages). `note` is what should be known of how the file was found.
    """

    name: str
    sha256: str
    format: str
    rows: int
    bad_rows: tuple[BadRow, ...] = ()
    ignored: tuple[str, ...] = ()
    note: str = ""


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
        kinds = {type(row) for row in self.rows}
        wanted: type[Any] | None = next(iter(kinds)) if len(kinds) == 1 else None
        lines = [_described(file, wanted) for file in self.files]
        made = sum(file.rows for file in self.files)
        if len(self.files) > 1 or len(self.rows) != made or self.ties:
            total = f"{_counted(len(self.rows), 'row' if wanted is None else wanted.__name__.lower())} in all"
            lines.append(total + (f", {_counted(self.ties, 'tie')} left out" if self.ties else ""))
        return "\n".join(lines)


def _described(file: FileAccount, wanted: type[Record] | None) -> str:
    known = _KNOWN[file.format]
    parts = [f"{file.name}: {_counted(file.rows, known.yields.__name__.lower())}"]
    parts.append(f"format {known.name} ({known.title})")
    if wanted is not None and (known.yields, wanted) in _TAKEN:
        parts.append(_TAKEN[known.yields, wanted])
    if file.bad_rows:
        parts.append(f"{_counted(len(file.bad_rows), 'bad row')} skipped")
    if file.ignored:
        shown = [printable(key) for key in file.ignored[:8]]
        shown += [f"{len(file.ignored) - 8} more"] if len(file.ignored) > 8 else []
        parts.append(f"ignored keys: {', '.join(shown)}")
    if file.note:
        parts.append(file.note)
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


def read_rows(
    sources: Source | Sequence[Source],
    *wanted: type[R],
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002 the name of the option
) -> Dataset[R]:
    """Read rows of the first of the `wanted` kinds that every file can serve as.

    `sources` are paths, globs, data sets on the hub or "-" for standard input; `columns` says which column to take for
    a field of a format (dots reach into objects); `format` names the format, which else is recognised.
    Raises `DataError` where a file cannot be read, is in no format that serves, or has a bad row. With `skip_bad` bad
    rows are left out and listed in the files' accounts; a file without a good row is refused.
    """
    how = _How(wanted, skip_bad, dict(columns or {}), None if format is None else _named_format(format, wanted))
    read = _read_files(sources, how)
    kinds = {type(record) for _, records in read for record in records}
    kind = next((kind for kind in wanted if kinds <= VIEWS[kind].keys()), None)
    if kind is None:
        found = ", ".join(f"{file.name} ({file.format})" for file, _ in read)
        raise DataError(f"the files hold rows of different kinds: {found}; give files of one kind")
    records = [record for _, some in read for record in some]
    used = [record for record in records if kind is Prompt or not (isinstance(record, Pair) and record.tied)]
    with _cycles_unsought():
        rows = tuple(row for record in used for row in VIEWS[kind][type(record)](record))
    files = tuple(file for file, _ in read)
    if not rows:
        left = "nothing but ties" if len(used) < len(records) else "no answer marked as good"
        raise DataError(f"{', '.join(file.name for file in files)}: {left}; expected rows to learn from")
    return Dataset(rows, files, ties=len(records) - len(used))


def read_pairs(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Pair]:
    """Read files of preference pairs, or of what serves as such; ties are left out and counted.

    Takes and raises what `read_rows` does.
    """
    return read_rows(sources, Pair, skip_bad=skip_bad, columns=columns, format=format)


def read_demonstrations(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Demonstration]:
    """Read files of demonstrations; of pairs the chosen answers, of labelled answers the good ones.

    Takes and raises what `read_rows` does.
    """
    return read_rows(sources, Demonstration, skip_bad=skip_bad, columns=columns, format=format)


def read_prompts(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Prompt]:
    """Read files of prompts; of anything else, the prompts.

    In a `.txt` file (packed or not) each line that is not blank is what a user says. Takes and raises what `read_rows`
    does.
    """
    return read_rows(sources, Prompt, skip_bad=skip_bad, columns=columns, format=format)


def read_records(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Record]:
    """Read files of anything to learn from, every row as its own kind; ties are kept.

    Takes and raises what `read_rows` does.
    """
    how = _How(KINDS, skip_bad, dict(columns or {}), None if format is None else _named_format(format, KINDS))
    read = _read_files(sources, how)
    return Dataset(tuple(record for _, records in read for record in records), tuple(file for file, _ in read))


@dataclass(frozen=True, slots=True)
class _How:
    """What is asked of every file: kinds that serve, whether bad rows may be left out, renamed columns, the format."""

    wanted: Collection[type[Any]]
    skip_bad: bool
    columns: Mapping[str, str]
    format: Format | None


def _named_format(name: str, wanted: Collection[type[Any]]) -> Format:
    accepted = serving(wanted)
    if name in accepted:
        return accepted[name]
    there = f"there are: {', '.join(accepted)}"
    if name in _KNOWN:
        kinds = " or ".join(f"{kind.__name__.lower()}s" for kind in wanted)
        raise ConfigError(f"format {name!r} holds no {kinds}; {there}")
    near = difflib.get_close_matches(name, accepted, n=1)
    raise ConfigError(f"there is no format {name!r}; {f'did you mean {near[0]}? ' if near else ''}{there}")


def _read_files(sources: Source | Sequence[Source], how: _How) -> list[tuple[FileAccount, tuple[Record, ...]]]:
    _check_fields(how)
    with _cycles_unsought():
        return [_read_file(file, how) for file in listed(sources)]


@contextmanager
def _cycles_unsought() -> Iterator[None]:
    """Without the search for cycles, of which rows have none: it looks at all rows read so far, over and over."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read_file(file: DataFile, how: _How) -> tuple[FileAccount, tuple[Record, ...]]:
    records: list[Record] = []
    bad_rows: list[BadRow] = []
    ignored: dict[str, None] = {}
    with opened(file) as source, ExitStack() as stack:
        container = _container(source, how.wanted)
        renaming = _Renaming(how.columns)
        parsed = container.rows(source, stack)
        if how.columns:
            parsed = renaming.applied(parsed)
        first = list(_first_rows(parsed))
        known = _format_of(first, how, source.name, container, renaming)
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
                        f"{file.name}: more than {MOST_BAD_ROWS:,} rows cannot be used; expected fewer; "
                        f"is it the right file? The first: {bad_rows[0]}"
                    ) from None
        renaming.check_found(source.name)
    if bad_rows and not (how.skip_bad and records):
        raise DataError(_refusal(file.name, bad_rows, len(records), container.numbered))
    account = FileAccount(
        file.name, source.sha256, known.name, len(records), tuple(bad_rows), tuple(ignored), file.note
    )
    return account, tuple(records)


def _format_of(first: Sequence[Parsed], how: _How, file: str, container: Container, renaming: _Renaming) -> Format:
    objects = [(origin, row) for origin, row in first if isinstance(row, dict)]
    if not objects:
        raise DataError(_nothing_found(file, first, container))
    if how.format is not None:
        return how.format
    try:
        return recognise(objects, how.wanted)
    except DataError:
        renaming.check_found(file)  # that a column is not there says more than that no format fits
        raise


# What the bytes of a file are.


@dataclass(frozen=True, slots=True)
class Container:
    """One kind of file: how its rows are got, what it should hold, and by what they are numbered if not by lines."""

    expected: str
    rows: Callable[[OpenFile, ExitStack], Iterator[Parsed]]
    numbered: str = ""


def _streamed(rows: Callable[[BinaryIO, str], Iterator[Parsed]]) -> Callable[[OpenFile, ExitStack], Iterator[Parsed]]:
    return lambda file, stack: rows(stack.enter_context(file.unpacked()), file.name)


def _sought(
    rows: Callable[[BinaryIO, str, int], Iterator[Parsed]],
) -> Callable[[OpenFile, ExitStack], Iterator[Parsed]]:
    return lambda file, stack: rows(stack.enter_context(file.seekable()), file.name, file.most)


_OBJECTS = "expected one JSON object a line, or an array of them"
_CELLS = "expected a header and rows below it"
_COLUMNS = "expected columns with rows in them"

CONTAINERS: dict[str, Container] = {
    "JSON lines": Container(_OBJECTS, _streamed(line_rows)),
    "JSON": Container(_OBJECTS, _streamed(array_rows), "by their place in the array"),
    "text": Container("expected a prompt a line", _streamed(text_rows)),
    "CSV": Container(_CELLS, _streamed(lambda stream, file: separated_rows(stream, file, ","))),
    "TSV": Container(_CELLS, _streamed(lambda stream, file: separated_rows(stream, file, "\t"))),
    "Parquet": Container(_COLUMNS, _sought(parquet_rows), "by their place in the table"),
    "Arrow": Container(
        _COLUMNS,
        _sought(lambda stream, file, most: arrow_rows(stream, file, most, is_stream=False)),
        "by their place in the table",
    ),
    "Arrow stream": Container(
        _COLUMNS,
        _sought(lambda stream, file, most: arrow_rows(stream, file, most, is_stream=True)),
        "by their place in the table",
    ),
}

_MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow stream"}
_SUFFIXES = {".csv": "CSV", ".tsv": "TSV"}


def _container(file: OpenFile, wanted: Collection[type[Any]]) -> Container:
    """Which kind a file is: by its first bytes where they can say, else by its name."""
    with file.unpacked() as stream:
        head = stream.read(HEAD)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return CONTAINERS[kind]
    check_no_other_kind(file, head)
    if file.suffix == ".txt" and Prompt in wanted:
        return CONTAINERS["text"]
    if file.suffix in _SUFFIXES:
        return CONTAINERS[_SUFFIXES[file.suffix]]
    if is_array(head):
        return CONTAINERS["JSON"]
    return CONTAINERS[_SUFFIXES[_separated_by(head)] if not file.suffix and _separated_by(head) else "JSON lines"]


def _separated_by(head: bytes) -> str:
    """For what has no name: the suffix it would have had if it begins with a header, "" where it does not."""
    first = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]
    if first.startswith((b"{", b"[")):
        return ""
    return ".tsv" if b"\t" in first else ".csv" if b"," in first else ""


# Columns that are taken for the fields of a format.


def _check_fields(how: _How) -> None:
    fields = {key for known in _KNOWN.values() for key in (*known.keys, *known.optional)}
    for name in how.columns:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(fields))}"
            raise ConfigError(f"columns: no format has a field {printable(name)!r}; {meant}")


@dataclass(slots=True)
class _Renaming:
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


def _first_rows(parsed: Iterator[Parsed]) -> Iterator[Parsed]:
    objects = 0
    for origin, row in islice(parsed, ROWS_SEARCHED):
        yield origin, row
        objects += isinstance(row, dict)
        if objects == ROWS_THAT_DECIDE:
            return


def _nothing_found(file: str, parsed: Sequence[Parsed], container: Container) -> str:
    if not parsed:
        return f"{file}: has no rows; {container.expected}"
    origin, error = parsed[0]
    what = "JSON object" if container.expected == _OBJECTS else "row that can be read"
    return f"{file}: has no {what} where rows begin; {container.expected}; what is at {origin} {error}"


def _refusal(file: str, bad_rows: Sequence[BadRow], good: int, numbered: str) -> str:
    lines = [f"{file}: {len(bad_rows):,} of {_counted(len(bad_rows) + good, 'row')} cannot be used"]
    lines[0] += f" (numbered {numbered}):" if numbered else ":"
    lines += [f"  {row}" for row in bad_rows[:ROWS_LISTED]]
    if len(bad_rows) > ROWS_LISTED:
        lines.append(f"  and {len(bad_rows) - ROWS_LISTED:,} more")
    lines.append("Mend them, or pass --skip-bad to leave them out." if good else "No usable row is left; mend them.")
    return "\n".join(lines)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("s" if number != 1 else "")
