"""Reads comparisons from any table: its own engine groups rows to unique ones, and only counts come back.

sources.py makes a frame of what is given, files.py of files; columns.py says which column is what; grouping.py has the
engine group; verdicts.py says who won, covariates.py what else counts, attributes.py who judged it and what
it weighs; orders.py reads rankings; coding.py codes names.
"""

# R unique rows

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Rankings
from kilter.ranking.reading.attributes import attributes
from kilter.ranking.reading.coding import in_order, merged, to_numpy
from kilter.ranking.reading.columns import Columns, check_column, recognise
from kilter.ranking.reading.covariates import Chosen, chosen, covariate, engine_missing
from kilter.ranking.reading.expressions import Expression, parse
from kilter.ranking.reading.grouping import Rows, grouped, ran
from kilter.ranking.reading.sources import Source, source_of
from kilter.ranking.reading.verdicts import Sides, verdicts

LONGEST_NAME = 200


@dataclass(frozen=True)
class Reading:
    """What a table held: comparisons or rankings, and what its columns were taken for.

    `skipped` rows had something missing; `alone` ones compared an item with itself, which says nothing of its strength.
    """

    data: Comparisons | Rankings
    columns: Columns | None = None
    skipped: int = 0
    alone: int = 0

    @property
    def says(self) -> str:
        """What was read, in a sentence: how many comparisons of how many items, and which column was what."""
        noun = "comparison" if isinstance(self.data, Comparisons) else "ranking"
        counted = f"{self.data.games:,.0f} {noun}{'s' * (self.data.games != 1)} of {len(self.data.items):,} items"
        return f"{counted}{f': {self.columns.says}' if self.columns else ''}"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out, a sentence for each reason."""
        said = []
        if self.skipped:
            said.append(f"{_rows(self.skipped)} with something missing left out")
        if self.alone:
            said.append(f"{_rows(self.alone)} left out that compare an item with itself, which says nothing about it")
        return tuple(said)


def _rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def read_comparisons(data: Any, **options: Any) -> Comparisons | Rankings:
    """Comparisons or rankings from a file, a table or a list, with the options of `read`.

    Warns of rows that were left out unasked, as they compare an item with itself.
    """
    import warnings

    reading = read(data, **options)
    if reading.alone:
        warnings.warn(reading.warnings[-1], stacklevel=2)
    return reading.data


def read(
    data: Any,
    *,
    columns: Mapping[str, str] | None = None,
    covariates: Sequence[str] = (),
    judge: str | None = None,
    prompt: str | None = None,
    weight: str | None = None,
    skip_missing: bool = False,
) -> Reading:
    """Read comparisons or rankings from a file's path (or several), a table of any kind, or a list (sources.py: KINDS).

    `columns` says which column is what (`{"left": "x", "right": "y", "winner": "z"}`; the roles are those of
    columns.py: LAYOUTS); what it leaves out is recognised by name. A covariate is a column, or an expression of columns
    (`chars_a-chars_b`), and counts for the left item; text is taken as levels, each against the most frequent one.
    `judge`, `prompt` and `weight` name columns. Items come in order of their names, whatever the order of the rows.

    Raises DataError, with the line, for an outcome that is not understood, for a number that is none, and for what is
    missing, unless `skip_missing` has rows with something missing counted and left out.
    """
    asked = {role: name for role, name in (("judge", judge), ("prompt", prompt), ("weight", weight)) if name}
    if isinstance(data, Comparisons | Rankings):
        if columns or covariates or asked:
            raise ConfigError("columns are named, and comparisons have none; name them where the comparisons are made")
        return Reading(data)
    source = source_of(data)
    schema = ran(source, source.frame.collect_schema)
    names = list(schema.names())
    understood = recognise(names, columns)
    for role, name in asked.items():
        check_column(name, names, f"to be the {role}")
        if schema[name].is_nested():
            raise DataError(f"{source.name}: {name} holds lists or records; expected a {role} in each row")
    if understood.ranks:
        if covariates:
            raise ConfigError(
                f"covariates are for comparisons, and these are rankings; leave {', '.join(covariates)} out"
            )
        from kilter.ranking.reading.orders import read_rankings

        rankings, skipped = read_rankings(source, understood, asked, skip_missing=skip_missing)
        return Reading(rankings, understood, skipped)
    expressions = [parse(text, names) for text in covariates]
    wanted = chosen(expressions, schema)
    rows = _grouped(source, understood, asked, wanted)
    return _comparisons(rows, understood, expressions, wanted, skip_missing=skip_missing)


def _grouped(source: Source, columns: Columns, asked: Mapping[str, str], wanted: Chosen) -> Rows:
    import narwhals as nw

    names = {**columns.of, **asked, **wanted.as_it_lies}
    computed = {
        alias: expression({name: nw.col(name).cast(nw.Float64) for name in expression.columns}, {})
        for alias, expression in wanted.in_engine.items()
    }
    return grouped(source, {alias: nw.col(name) for alias, name in names.items()} | computed, names)


def _comparisons(
    rows: Rows, columns: Columns, expressions: Sequence[Expression], wanted: Chosen, *, skip_missing: bool
) -> Reading:
    absent = rows.absent(skip_missing=skip_missing)
    for alias, expression in wanted.in_engine.items():
        absent |= engine_missing(rows, alias, expression, skip=skip_missing)
    left, right = columns.sides
    for side in columns.sides:
        _refuse_long_names(rows, side)
    _, (one, other) = in_order([rows.codes[side].without(absent) for side in (left, right)], "items")
    alone = (one == other) & ~absent
    skipped, absent = int(rows.count[absent].sum()), absent | alone
    if absent.all():
        raise DataError(f"{rows.source.name}: {_rows(int(rows.count.sum()))}, and none that compares two items")
    items, (left_R, right_R) = in_order([rows.codes[side].without(absent) for side in (left, right)], "items")
    told = verdicts(columns, rows.codes, Sides(items, left_R, right_R))
    wrong = told.wrong & ~absent
    rows.refuse(wrong, columns.verdict, "{columns} is {values}, which is no outcome", f"expected {told.expected}")
    borne = attributes(rows, absent)
    made = [covariate(rows, expression, wanted, ~absent) for expression in expressions]
    covariates = np.concatenate([np.empty((len(rows), 0)), *(one.values for one in made)], axis=1)
    keep = np.flatnonzero(~absent)
    keys = [left_R, right_R, *covariates.T, told.outcome, *borne.columns.values()]
    first, count = merged([key[keep] for key in keys], rows.count[keep])
    at = keep[first]
    comparisons = Comparisons(
        items=items,
        left=left_R[at],
        right=right_R[at],
        outcome=told.outcome[at],
        count=count,
        covariates=covariates[at],
        covariate_names=tuple(name for one in made for name in one.names),
        **borne.at(at)._asdict(),
    )
    return Reading(comparisons, columns, skipped, int(rows.count[alone].sum()))


def _refuse_long_names(rows: Rows, side: str) -> None:
    """Raise DataError where items are texts that were compared, not the names of who wrote them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = rows.codes[side].values
    if not pa.types.is_string(values.type):
        return
    length = to_numpy(pc.utf8_length(values), 0)
    long = rows.spread(side, length > LONGEST_NAME, False)
    if long.any():
        rows.refuse_where(
            long,
            [rows.names[side]],
            lambda row: len(str(row.get(rows.names[side]))) > LONGEST_NAME,
            f"{rows.names[side]} has a text of {length.max():,} characters",
            f"expected names of at most {LONGEST_NAME}; name the columns that say who wrote the texts",
        )
