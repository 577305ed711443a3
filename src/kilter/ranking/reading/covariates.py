"""Covariates of comparisons, from the columns of a table: numbers, expressions of numbers, and levels of text."""

# R unique rows, K columns that a covariate makes, L levels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kilter.errors import DataError
from kilter.ranking.comparisons import Floats
from kilter.ranking.reading.coding import MISSING, in_order, numbers, to_numpy
from kilter.ranking.reading.expressions import Expression
from kilter.ranking.reading.grouping import SKIP, Mask, Rows
from kilter.ranking.reading.sources import Row, plainly

MOST_LEVELS = 1_000


class Covariate(NamedTuple):
    """Columns that one covariate makes, by name."""

    names: tuple[str, ...]
    values: Floats  # RK


class Chosen(NamedTuple):
    """What an engine has to group by for covariates.

    Numbers are put together by the engine, as then fewer rows come back; what may be text, or no number, comes as it
    lies in the table.
    """

    in_engine: Mapping[str, Expression]  # by alias
    as_it_lies: Mapping[str, str]  # the column of an alias


def chosen(expressions: Sequence[Expression], schema: Any) -> Chosen:
    """What to group by for expressions of a table's columns, whose types `schema` has."""
    numeric = [e.always_defined and all(schema[name].is_numeric() for name in e.columns) for e in expressions]
    of_numbers = [e for e, known in zip(expressions, numeric, strict=True) if known]
    others = dict.fromkeys(n for e, known in zip(expressions, numeric, strict=True) if not known for n in e.columns)
    return Chosen(
        {f"covariate {place}": e for place, e in enumerate(of_numbers)},
        {f"column {name}": name for name in others},
    )


def covariate(rows: Rows, expression: Expression, wanted: Chosen, keep: Mask) -> Covariate:
    """A covariate's columns; rows that are not kept may hold anything. Raises DataError, with the line."""
    alias = next((alias for alias, known in wanted.in_engine.items() if known is expression), None)
    if alias is not None:
        return Covariate((expression.text,), engine_values(rows, alias)[:, None])
    aliases = {name: f"column {name}" for name in expression.columns}
    read = {name: numbers(rows.codes[alias]) for name, alias in aliases.items()}
    some = {name: rows.spread(alias, ~read[name][1], False)[keep].any() for name, alias in aliases.items()}
    if expression.of_levels and not any(some.values()):
        return _levels(rows, expression, list(aliases.values()), keep)
    for name, alias in aliases.items():
        none = rows.spread(alias, read[name][1], False) & keep
        rows.refuse(none, [alias], "{columns} is {values}", f"expected a number, for the covariate {expression.text}")
    columns = {name: rows.spread(alias, read[name][0], np.nan) for name, alias in aliases.items()}
    with np.errstate(all="ignore"):
        value = np.broadcast_to(expression(columns, {"log": np.log, "abs": np.abs}), len(rows)).astype(np.float64)
    problem = "{columns} = {values}: " + f"{expression.text} is no finite number"
    rows.refuse(keep & ~np.isfinite(value), list(aliases.values()), problem, "expected what it is defined for")
    return Covariate((expression.text,), value[:, None])


def engine_values(rows: Rows, alias: str) -> Floats:
    """A column of numbers that an engine computed; NaN where it is none."""
    return to_numpy(rows.table[alias], np.nan)


def engine_missing(rows: Rows, alias: str, expression: Expression, *, skip: bool) -> Mask:
    """Where an engine found no number; raises DataError with the first line, unless such rows are skipped."""
    absent = ~np.isfinite(engine_values(rows, alias))

    def lacks(row: Row) -> bool:
        values = [plainly(row.get(name)) for name in expression.columns]
        return any(value is None or not np.isfinite(value) for value in values)

    if not skip:
        rows.refuse_where(absent, expression.columns, lacks, f"{expression.text} has no value", SKIP)
    return absent


def _levels(rows: Rows, expression: Expression, aliases: Sequence[str], keep: Mask) -> Covariate:
    """A column for each level but the most frequent: 1 where a row has it, less 1 where the other column has it."""
    levels, codes = in_order([rows.codes[alias] for alias in aliases], expression.text)
    times = np.zeros(len(levels))
    for code in codes:
        seen = keep & (code != MISSING)
        times += np.bincount(code[seen], rows.count[seen], minlength=len(levels))
    if (used := int((times > 0).sum())) > MOST_LEVELS:
        raise DataError(
            f"the covariate {expression.text} has {used:,} levels; expected at most {MOST_LEVELS:,}, or numbers"
        )
    others = [level for level in np.flatnonzero(times) if level != np.argmax(times)]
    values = sum(
        (sign * (code[:, None] == np.array(others)[None, :]) for sign, code in zip((1.0, -1.0), codes, strict=False)),
        start=np.zeros((len(rows), len(others))),
    )
    return Covariate(tuple(f"{expression.text}={levels[level]}" for level in others), values)
