"""Who won, from what a table says: words, preferences from 1 to 2, one-hot columns, scores, grades."""

# R unique rows, V values of a column

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.errors import DataError
from kilter.ranking.comparisons import Floats, Item
from kilter.ranking.reading.coding import MISSING, Coded, numbers, texts, to_numpy
from kilter.ranking.reading.columns import Columns, Words, plain


class Verdicts(NamedTuple):
    """Outcomes of the left item, where they are told; what is neither told nor missing is wrong."""

    outcome: Floats  # R
    missing: NDArray[np.bool_]  # R
    wrong: NDArray[np.bool_]  # R
    expected: str


class Sides(NamedTuple):
    """The items of each row, by their place among the items."""

    items: tuple[Item, ...]
    left: NDArray[np.int32]  # R
    right: NDArray[np.int32]  # R


Told = Mapping[str, Coded]


def verdicts(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    """The outcome of each row, from its columns by role."""
    return READERS[columns.layout](columns, told, sides)


def _winners(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    none = np.zeros(len(sides.left), bool)
    return Verdicts(np.ones(len(sides.left)), none, none, "")


def _preference(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    # alpaca_eval's first annotators wrote 0 for a draw, its later ones 1.5.
    return _number(
        told["preference"],
        lambda value: np.where(value == 0, 0.5, 2 - value),
        "a number from 1 (left is better) to 2 (right is), or 0 for a tie",
    )


def _outcome(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    _, none = numbers(told["outcome"])
    if none.any():
        return _words(columns, {"winner": told["outcome"]}, sides)
    return _number(told["outcome"], lambda value: value, "a number from 0 (right won) to 1 (left won), or a word")


def _number(column: Coded, outcome: Callable[[Floats], Floats], expected: str) -> Verdicts:
    values, none = numbers(column)
    for_left = outcome(values)
    # What rounding left of 2 - 1.9 is the grade that was written.
    for_left = np.round(for_left, 12)
    bad = none | ~((for_left >= 0) & (for_left <= 1))
    missing = column.code == MISSING
    return Verdicts(column.spread(for_left, np.nan), missing, column.spread(bad, False), expected)


def _one_hot(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    rows = len(sides.left)
    marks = np.empty((3, rows))
    missing = np.zeros(rows, bool)
    for place, role in enumerate(("left_won", "right_won", "tied")):
        values, none = numbers(told[role])
        marks[place] = told[role].spread(np.where(none, np.inf, values), np.nan)
        missing |= told[role].code == MISSING
    right = np.all((marks == 0) | (marks == 1), axis=0) & (marks.sum(axis=0) == 1)
    outcome = np.where(right, marks[0] + 0.5 * marks[2], np.nan)
    return Verdicts(outcome, missing, ~right & ~missing, "a single 1, and 0 in the other two")


def _scores(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    read = {role: numbers(told[role]) for role in ("left_score", "right_score")}
    left, right = (told[role].spread(values, np.nan) for role, (values, _) in read.items())
    wrong = np.any([told[role].spread(none, False) for role, (_, none) in read.items()], axis=0)
    missing = np.any([told[role].code == MISSING for role in read], axis=0)
    outcome = np.where(np.isfinite(left) & np.isfinite(right), (np.sign(left - right) + 1) / 2, np.nan)
    return Verdicts(outcome, missing, wrong, "numbers")


def _words(columns: Columns, told: Told, sides: Sides) -> Verdicts:
    """A word names a side, or a tie, or one of the two items; where it could mean either item, all rows decide."""
    import pyarrow as pa
    import pyarrow.compute as pc

    winner, words = told["winner"], columns.words
    as_text = winner.values.cast(pa.string())
    simple = pc.replace_substring_regex(pc.utf8_lower(as_text), r"[\s\-_().,/+!]+", "")
    sense = np.full(len(as_text), np.nan)
    for names, outcome in ((words.left, 1.0), (words.right, 0.0), (words.tie, 0.5)):
        sense[to_numpy(pc.is_in(simple, texts([plain(name) for name in names])))] = outcome
    by_word = winner.spread(sense, np.nan)

    item = to_numpy(pc.index_in(as_text, texts([str(name) for name in sides.items])), MISSING)
    won = winner.spread(item, MISSING)
    by_name = np.where(
        won == MISSING, np.nan, np.where(won == sides.left, 1.0, np.where(won == sides.right, 0.0, np.nan))
    )

    missing = winner.code == MISSING
    unlike = ~np.isnan(by_word) & ~np.isnan(by_name) & (by_word != by_name)
    if unlike.any():
        ties = by_word == 0.5
        named = bool(np.all(missing | ties & np.isnan(by_name) | ~np.isnan(by_name)))
        worded = bool(np.all(missing | ~np.isnan(by_word)))
        if named == worded:
            first = as_text[int(winner.code[np.flatnonzero(unlike)[0]])].as_py()
            raise DataError(
                f"{first!r} in {columns.of.get('winner', columns.of.get('outcome'))} is the name of an item and a word "
                f"for the other side; write {columns.of['left']} or {columns.of['right']} there, or rename the item"
            )
        by_word = np.where(np.isnan(by_name), by_word, by_name) if named else by_word
    told_by_both: Floats = np.where(np.isnan(by_word), by_name, by_word)
    return Verdicts(told_by_both, missing, np.isnan(told_by_both) & ~missing, known_words(words))


def known_words(words: Words) -> str:
    """What may stand for a winner, in a sentence."""
    left, right, tie = (", ".join(names) for names in (words.left, words.right, words.tie))
    return f"{left} for the left item, {right} for the right one, {tie} for a tie, or the winner's own name"


READERS: Mapping[str, Callable[[Columns, Told, Sides], Verdicts]] = {
    "one-hot": _one_hot,
    "words": _words,
    "preference": _preference,
    "scores": _scores,
    "outcome": _outcome,
    "winners": _winners,
}
