"""A record as one JSON row, in the format that reads back to the same record (its origin apart)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from kilter.data.fields import Row
from kilter.data.records import Content, Demonstration, Labelled, Message, Pair, Prompt, Ranking, Record, Steps

# The keys of a pair beside its texts, the field of each, and what it is where the row says nothing.
_OF_PAIRS: Mapping[str, tuple[str, float | None]] = {
    "preference": ("preference", 1.0),
    "score_chosen": ("chosen_score", None),
    "score_rejected": ("rejected_score", None),
    "margin": ("margin", None),
}


def canonical_format(record: Record) -> str:
    """Return the name of the format in `FORMATS` or `PROMPT_FORMATS` in which `canonical_row` writes a record."""
    match record:
        case Pair():
            return "pair-text" if isinstance(record.prompt, str) else "pair-chat"
        case Demonstration():
            return "sft-messages" if record.prompt == () else "sft-prompt"
        case Labelled():
            return "kto"
        case Ranking():
            return "ranked"
        case Steps():
            return "steps"
        case Prompt():
            return "prompt"


def canonical_row(record: Record) -> Row:
    """Return the JSON object of a record; keys that would say nothing are left out."""
    match record:
        case Pair():
            row = {key: _content(getattr(record, key)) for key in ("prompt", "chosen", "rejected")}
            row |= dict(_beside(record))
        case Demonstration(prompt=()):
            row = {"messages": _content(record.completion)}
        case Demonstration():
            row = {"prompt": _content(record.prompt), "completion": _content(record.completion)}
        case Labelled():
            completion = _content(record.completion)
            row = {"prompt": _content(record.prompt), "completion": completion, "label": record.good}
        case Ranking():
            ranked = zip(record.answers, record.ranks, strict=True)
            answers = [{"answer": _content(answer), "rank": _number(rank)} for answer, rank in ranked]
            row = {"prompt": _content(record.prompt), "answers": answers}
        case Steps():
            row = {"prompt": record.prompt, "completions": list(record.steps), "labels": list(record.right)}
            return row if record.separator == "\n" else row | {"separator": record.separator}
        case Prompt():
            row = {"prompt": _content(record.prompt)}
    return row | {"tools": json.loads(record.tools)} if record.tools else row


def _beside(pair: Pair) -> Iterator[tuple[str, float]]:
    for key, (field, unsaid) in _OF_PAIRS.items():
        value = getattr(pair, field)
        if value != unsaid:
            yield key, _number(value)


def _number(value: float) -> float:
    """A whole number without its point; it reads back as the same float."""
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


def _content(content: Content) -> object:
    return content if isinstance(content, str) else [_message(turn) for turn in content]


def _message(turn: Message) -> dict[str, Any]:
    more: dict[str, Any] = json.loads(turn.more) if turn.more else {}
    return {"role": turn.role, "content": turn.content, **more}
