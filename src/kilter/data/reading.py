"""Files of rows: what names on the command line stand for is found, opened, recognised and made into records.

The files are of any kind in `CONTAINERS`, packed or not. Every row is looked at before one is refused, so that one run
of a command names all that has to be mended. Whatever a file holds, the only exceptions that leave this module are
`DataError`, and `ConfigError` for a format or a field that there is not.

Bounds: those of data/files.py, data/json_rows.py and data/tabular.py; reading stops after 1,000,000 bad rows.
"""

from __future__ import annotations

import difflib
import gc
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, Generic, TypeVar

from kilter.data.columns import Renaming, check_fields
from kilter.data.containers import OBJECTS, Container, container_of
from kilter.data.files import DataFile, Source, listed, opened
from kilter.data.formats import FORMATS, PROMPT_FORMATS, Format, RowError, printable, recognise, serving
from kilter.data.json_rows import Parsed
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Prompt, Ranking, Record, Steps, is_tie
from kilter.errors import ConfigError, DataError

MOST_BAD_ROWS = 1_000_000
ROWS_SEARCHED = 1000
ROWS_THAT_DECIDE = 20
ROWS_LISTED = 20
HEAD = 1 << 16

# What a row of each kind is called, before an s.
NOUNS: dict[type[Any], str] = {
    Pair: "pair",
    Labelled: "labelled answer",
    Ranking: "ranking",
    Steps: "stepwise answer",
    Demonstration: "demonstration",
    Prompt: "prompt",
}

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

    `ties` counts pairs and rankings that say no answer is better and were left out for it.
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
            total = f"{_counted(len(self.rows), 'row' if wanted is None else NOUNS[wanted])} in all"
            lines.append(total + (f", {_counted(self.ties, 'tie')} left out" if self.ties else ""))
        return "\n".join(lines)


def _described(file: FileAccount, wanted: type[Record] | None) -> str:
    known = _KNOWN[file.format]
    parts = [f"{file.name}: {_counted(file.rows, NOUNS[known.yields])}"]
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
    (Pair, Ranking): "as rankings of two",
    (Pair, Labelled): "chosen answers as good ones, rejected as bad",
    (Steps, Labelled): "each step by itself",
    (Pair, Demonstration): "their chosen answers",
    (Ranking, Demonstration): "their best answers",
    (Labelled, Demonstration): "the good ones",
    **{(kind, Prompt): "their prompts" for kind in NOUNS if kind is not Prompt},
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
    used = [record for record in records if kind is Prompt or not is_tie(record)]
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
    return _as_they_are(sources, tuple(NOUNS), skip_bad=skip_bad, columns=columns, format=format)


def read_texts(
    sources: Source | Sequence[Source],
    *,
    skip_bad: bool = False,
    columns: Mapping[str, str] | None = None,
    format: str | None = None,  # noqa: A002
) -> Dataset[Record]:
    """Read files of documents, or of answers to prompts in any format, every row as its own kind; ties are kept.

    In a `.txt` file (packed or not) each line that is not blank is a document. Takes and raises what `read_rows` does.
    """
    kinds = tuple(kind for kind in NOUNS if kind is not Prompt)
    return _as_they_are(sources, kinds, skip_bad=skip_bad, columns=columns, format=format)


def _as_they_are(
    sources: Source | Sequence[Source],
    kinds: tuple[type[Any], ...],
    *,
    skip_bad: bool,
    columns: Mapping[str, str] | None,
    format: str | None,  # noqa: A002
) -> Dataset[Record]:
    how = _How(kinds, skip_bad, dict(columns or {}), None if format is None else _named_format(format, kinds))
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
        raise ConfigError(f"format {name!r} holds no {' or '.join(NOUNS[kind] + 's' for kind in wanted)}; {there}")
    near = difflib.get_close_matches(name, accepted, n=1)
    raise ConfigError(f"there is no format {name!r}; {f'did you mean {near[0]}? ' if near else ''}{there}")


def _read_files(sources: Source | Sequence[Source], how: _How) -> list[tuple[FileAccount, tuple[Record, ...]]]:
    check_fields(how.columns)
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
        container = container_of(source, how.wanted)
        renaming = Renaming(how.columns)
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


def _format_of(first: Sequence[Parsed], how: _How, file: str, container: Container, renaming: Renaming) -> Format:
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
    what = "JSON object" if container.expected == OBJECTS else "row that can be read"
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
