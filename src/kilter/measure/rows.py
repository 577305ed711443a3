"""Rows of every kind seen alike: a prompt, and answers that each have a part to play."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

from kilter.data.records import (
    VIEWS,
    Content,
    Demonstration,
    Labelled,
    Message,
    Pair,
    Prompt,
    Ranking,
    Record,
    Steps,
    is_tie,
)

# Every part that an answer may play, in the order in which they are shown.
PARTS = ("chosen", "rejected", "tied", "good", "bad", "ranked", "completion")


def whole_rows(records: Iterable[Record]) -> Iterator[Record]:
    """The records, those in steps as the labelled answers that they are trained as."""
    for record in records:
        if isinstance(record, Steps):
            yield from VIEWS[Labelled][Steps](record)
        else:
            yield record


def answers_of(record: Record) -> tuple[tuple[str, Content], ...]:
    """The answers of a row, each after its part (one of `PARTS`); a prompt alone has none."""
    match record:
        case Pair(tied=True):
            return ("tied", record.chosen), ("tied", record.rejected)
        case Pair():
            return ("chosen", record.chosen), ("rejected", record.rejected)
        case Labelled():
            return (("good" if record.good else "bad", record.completion),)
        case Ranking():
            return tuple(("ranked", answer) for answer in record.answers)
        case Demonstration():
            return (("completion", record.completion),)
        case Prompt():
            return ()
        case Steps():
            raise TypeError("steps are looked at as labelled answers; see whole_rows")


def comparisons(record: Record) -> Iterator[tuple[int, int]]:
    """Places of two answers, the better one first: all that the row says."""
    if isinstance(record, Pair) and not record.tied:
        yield 0, 1
    elif isinstance(record, Ranking):
        for one, other in combinations(range(len(record.ranks)), 2):
            if record.ranks[one] != record.ranks[other]:
                yield (one, other) if record.ranks[one] < record.ranks[other] else (other, one)


def best_and_worst(record: Record) -> tuple[int, int] | None:
    """Places of the answers that a row puts first and last; None where it prefers none."""
    if is_tie(record):
        return None
    if isinstance(record, Pair):
        return 0, 1
    if isinstance(record, Ranking):
        return record.ranks.index(min(record.ranks)), record.ranks.index(max(record.ranks))
    return None


def asked(record: Record) -> Content:
    """What the row answers: its prompt, or of a conversation to be learnt whole the turns before its first answer."""
    if record.prompt or not isinstance(record, Demonstration) or isinstance(record.completion, str):
        return record.prompt
    answers = (i for i, turn in enumerate(record.completion) if turn.role == "assistant")
    return record.completion[: next(answers, 0)]


def words(content: Content) -> str:
    """All that is said, without roles."""
    return content if isinstance(content, str) else "\n".join(turn.content for turn in content)


def transcript(content: Content) -> str:
    """All that is said, each turn after its role."""
    return content if isinstance(content, str) else "\n".join(map(_turn, content))


def _turn(message: Message) -> str:
    more = f" {message.more}" if message.more else ""
    return f"{message.role}: {message.content}{more}"
