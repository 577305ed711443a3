"""The shapes in which pairs and demonstrations are kept, and how each is read.

A format is one row of `FORMATS` (of `PROMPT_FORMATS`, where prompts are wanted): a recogniser, which looks at a row
and says whether it is written that way, and a converter, which turns such a row into a record or raises `RowError`.
Everything else (recognition, the list of accepted formats in an error, which keys are metadata) is derived from the
table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from kilter.data.records import (
    VIEWS,
    Content,
    Demonstration,
    Labelled,
    Message,
    Origin,
    Pair,
    Prompt,
    Ranking,
    Record,
    Steps,
)
from kilter.errors import DataError

Row: TypeAlias = dict[str, object]

ROLES = ("system", "developer", "user", "assistant", "tool")
# Keys of a message that change what it means or how it is learnt; a Message has no place for them.
MEANINGFUL_KEYS = ("tool_calls", "function_call", "reasoning_content", "thinking", "weight", "train")


class RowError(DataError):
    """A row that cannot be used.

    `field` is where ("" for the whole row); `problem` what was found, what was expected, and what to do.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}" if field else problem)
        self.field = field
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a row down: `keys` says what each key that is read holds; other keys are metadata."""

    name: str
    title: str
    keys: Mapping[str, str]
    yields: type[Record]
    fits: Callable[[Row], bool]
    convert: Callable[[Row, Origin], Record]


def recognise(rows: Sequence[tuple[Origin, Row]], wanted: Collection[type[Any]]) -> Format:
    """Return the format of the first of `rows` that has one, among those whose rows serve as one of `wanted`.

    Raises `DataError` where no row fits any, or one fits several.
    """
    table = PROMPT_FORMATS if Prompt in wanted else FORMATS
    accepted = [known for known in table.values() if any(known.yields in VIEWS[kind] for kind in wanted)]
    for origin, row in rows:
        fitting = [known for known in accepted if known.fits(row)]
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise DataError(
                f"{origin}: the row can be read in more than one way; expected one; "
                f"say which with --format NAME, or remove the keys that are not meant:\n{_listing(fitting)}"
            )
    origin, row = rows[0]
    kinds = " or ".join(_NAMES[kind] for kind in wanted)
    for known in FORMATS.values():
        if known.fits(row):
            raise DataError(
                f"{origin}: found {_NAMES[known.yields]}, format {known.name} ({known.title}); expected {kinds}; "
                f"give a file in one of these formats:\n{_listing(accepted)}"
            )
    raise DataError(
        f"{origin}: found {_summary(row)}, which fits no format; "
        f"rename or rearrange the keys to fit one of:\n{_listing(accepted)}"
    )


_NAMES: dict[type[Any], str] = {
    Pair: "a pair, with a chosen and a rejected answer",
    Labelled: "an answer labelled good or bad",
    Ranking: "ranked answers",
    Steps: "an answer in labelled steps",
    Demonstration: "a demonstration",
    Prompt: "a prompt",
}


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


def _summary(row: Row) -> str:
    most = 12
    keys = [f"{printable(key)} ({kind_of(value)})" for key, value in list(row.items())[:most]]
    more = [f"{len(row) - most} more"] if len(row) > most else []
    return "the keys " + ", ".join(keys + more) if row else "an object without keys"


def _listing(formats: Sequence[Format]) -> str:
    def line(known: Format) -> str:
        keys = ", ".join(f"{key} ({holds})" for key, holds in known.keys.items())
        return f"  {known.name:<20}{keys}"

    return "\n".join(map(line, formats))


# What a value looks like; recognisers glance, converters look closely.


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_chat(value: object) -> bool:
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and "role" in first


def _is_transcript(value: object) -> bool:
    return isinstance(value, str) and bool(_SPEAKER.match(value)) and "\n\nAssistant:" in value


def _is_absent(value: object) -> bool:
    return value is None


def _is_no_chat(value: object) -> bool:
    return not _is_chat(value)


def _holds(**looks: Callable[[object], bool]) -> Callable[[Row], bool]:
    return lambda row: all(looks_right(row.get(key)) for key, looks_right in looks.items())


def _either(*recognisers: Callable[[Row], bool]) -> Callable[[Row], bool]:
    return lambda row: any(fits(row) for fits in recognisers)


# What a field holds, or a RowError that says why not.


def _clean(field: str, value: object) -> str:
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


def _text(row: Row, key: str) -> str:
    return _clean(key, row.get(key))


def _chat(row: Row, key: str) -> tuple[Message, ...]:
    value = row.get(key)
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or not turns:
        raise RowError(key, f"is {kind_of(value)}; expected a list of messages with role and content")
    return tuple(_message(f"{key}[{index}]", turn) for index, turn in enumerate(turns))


def _message(field: str, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise RowError(field, f"is {kind_of(turn)}; expected a message with role and content")
    role = turn.get("role")
    if role not in ROLES:
        found = f"'{printable(role)}'" if isinstance(role, str) else kind_of(role)
        raise RowError(f"{field}.role", f"is {found}; expected one of {', '.join(ROLES)}")
    for key in MEANINGFUL_KEYS:
        if turn.get(key) not in (None, [], ""):
            raise RowError(f"{field}.{key}", "would be lost; expected role and content only; remove it")
    return Message(role, _clean(f"{field}.content", turn.get("content")))


def _transcript(row: Row, key: str) -> tuple[Message, ...]:
    before, *turns = _SPEAKER.split(_text(row, key))
    if before.strip() or not turns:
        raise RowError(key, r"is not a transcript; expected '\n\nHuman: ...\n\nAssistant: ...'")
    return tuple(
        Message(_SPEAKER_ROLES[speaker], said.strip()) for speaker, said in zip(turns[::2], turns[1::2], strict=True)
    )


_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SPEAKER_ROLES = {"Human": "user", "Assistant": "assistant"}


# What makes a record: shared by the formats, so that no format has its own idea of an empty answer.


def _check_answer(field: str, answer: Content) -> None:
    if isinstance(answer, str):
        if not answer.strip():
            raise RowError(field, "is empty; expected an answer")
        return
    for where, turn in ("begins", answer[0]), ("ends", answer[-1]):
        if turn.role != "assistant":
            raise RowError(field, f"{where} with a turn by the {turn.role}; expected one by the assistant")
    if not answer[-1].content.strip():
        raise RowError(field, "has no text in its last turn; expected an answer")


def _check_unlabelled(row: Row) -> None:
    if isinstance(row.get("label"), bool):
        raise RowError(
            "label",
            "marks answers as good or bad, which a demonstration cannot; "
            "expected good answers only; keep the rows marked true and remove the key",
        )


def _pair(prompt: Content, chosen: Content, rejected: Content, origin: Origin) -> Pair:
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise RowError("prompt", "is empty; expected what the answers reply to")
    if chosen == rejected:
        raise RowError("rejected", "is identical to chosen; expected two different answers")
    answers = {"chosen": chosen, "rejected": rejected}
    for field, answer in answers.items():
        if not answer:
            raise RowError(field, "has nothing after the prompt; expected an answer")
    for field, answer in answers.items():
        _check_answer(field, answer)
    return Pair(prompt, chosen, rejected, origin)


def _pair_text(row: Row, origin: Origin) -> Pair:
    prompt, chosen, rejected = (_text(row, key) for key in ("prompt", "chosen", "rejected"))
    if _is_transcript(chosen):
        raise RowError(
            "prompt",
            "stands beside whole transcripts; expected answers only; remove it to have them read as hh",
        )
    return _pair(prompt, chosen, rejected, origin)


def _pair_chat(row: Row, origin: Origin) -> Pair:
    prompt, chosen, rejected = (_chat(row, key) for key in ("prompt", "chosen", "rejected"))
    if chosen[: len(prompt)] == prompt:
        raise RowError(
            "prompt",
            "is repeated in chosen; expected it once; remove it to have the rows read as pair-chat-implicit",
        )
    return _pair(prompt, chosen, rejected, origin)


def _pair_chat_implicit(row: Row, origin: Origin) -> Pair:
    if row.get("prompt") is not None:
        raise RowError(
            "prompt",
            f"is {kind_of(row['prompt'])} beside conversations; expected none, or messages in every row; "
            "remove it if chosen and rejected repeat it, else write it as a list of messages",
        )
    chosen, rejected = _chat(row, "chosen"), _chat(row, "rejected")
    apart = (turn for turn, (one, other) in enumerate(zip(chosen, rejected, strict=False)) if one != other)
    shared = next(apart, min(len(chosen), len(rejected)))
    if not shared:
        raise RowError("rejected", "has no first turn in common with chosen; expected two answers to one prompt")
    return _pair(chosen[:shared], chosen[shared:], rejected[shared:], origin)


def _hh(row: Row, origin: Origin) -> Pair:
    if row.get("prompt") is not None:
        raise RowError("prompt", "stands beside whole transcripts; expected it to be absent; remove it")
    (*prompt, chosen), (*other_prompt, rejected) = _transcript(row, "chosen"), _transcript(row, "rejected")
    if prompt != other_prompt:
        raise RowError("rejected", "differs from chosen before the last turn; expected two answers to one prompt")
    return _pair(tuple(prompt), (chosen,), (rejected,), origin)


def _sft_text(row: Row, origin: Origin) -> Demonstration:
    text = _text(row, "text")
    _check_answer("text", text)
    return Demonstration("", text, origin)


def _sft_prompt(row: Row, origin: Origin) -> Demonstration:
    _check_unlabelled(row)
    take: Callable[[Row, str], Content] = _chat if _is_chat(row.get("prompt")) else _text
    prompt, completion = take(row, "prompt"), take(row, "completion")
    _check_answer("completion", completion)
    return Demonstration(prompt, completion, origin)


def _sft_messages(row: Row, origin: Origin) -> Demonstration:
    _check_unlabelled(row)
    messages = _chat(row, "messages")
    if not any(turn.role == "assistant" and turn.content.strip() for turn in messages):
        raise RowError("messages", "has no turn by the assistant with content; expected one to learn")
    return Demonstration((), messages, origin)


def _prompt(row: Row, origin: Origin) -> Prompt:
    take: Callable[[Row, str], Content] = _chat if _is_chat(row.get("prompt")) else _text
    return _checked_prompt("prompt", take(row, "prompt"), origin)


def _prompt_messages(row: Row, origin: Origin) -> Prompt:
    messages = _chat(row, "messages")
    return _checked_prompt("messages", messages[:-1] if messages[-1].role == "assistant" else messages, origin)


def _checked_prompt(field: str, prompt: Content, origin: Origin) -> Prompt:
    if not prompt or (isinstance(prompt, str) and not prompt.strip()):
        raise RowError(field, "has nothing to answer; expected words or a user's turn")
    return Prompt(prompt, origin)


FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        Format(
            "pair-text",
            "prompt and answers as text",
            {"prompt": "text", "chosen": "text", "rejected": "text"},
            Pair,
            _holds(prompt=_is_text, chosen=_is_text, rejected=_is_text),
            _pair_text,
        ),
        Format(
            "pair-chat",
            "prompt and answers as messages",
            {"prompt": "messages", "chosen": "messages", "rejected": "messages"},
            Pair,
            _holds(prompt=_is_chat, chosen=_is_chat, rejected=_is_chat),
            _pair_chat,
        ),
        Format(
            "pair-chat-implicit",
            "conversations that begin alike",
            {"chosen": "whole conversation", "rejected": "whole conversation"},
            Pair,
            _holds(prompt=_is_no_chat, chosen=_is_chat, rejected=_is_chat),
            _pair_chat_implicit,
        ),
        Format(
            "hh",
            "Anthropic HH transcripts",
            {"chosen": "transcript", "rejected": "transcript"},
            Pair,
            _holds(prompt=_is_absent, chosen=_is_transcript, rejected=_is_transcript),
            _hh,
        ),
        Format(
            "sft-text",
            "plain documents",
            {"text": "text"},
            Demonstration,
            _holds(text=_is_text),
            _sft_text,
        ),
        Format(
            "sft-prompt",
            "prompt and completion",
            {"prompt": "text or messages", "completion": "the same"},
            Demonstration,
            _either(_holds(prompt=_is_text, completion=_is_text), _holds(prompt=_is_chat, completion=_is_chat)),
            _sft_prompt,
        ),
        Format(
            "sft-messages",
            "whole conversations",
            {"messages": "messages"},
            Demonstration,
            _holds(messages=_is_chat),
            _sft_messages,
        ),
    )
}

# Rows to answer. Pairs have prompts too; of a row to learn from, what is to be learnt is another key's business.
PROMPT_FORMATS: dict[str, Format] = {
    known.name: known
    for known in (
        *(known for known in FORMATS.values() if known.yields is Pair),
        Format(
            "prompt",
            "prompts, whatever answers stand beside them",
            {"prompt": "text or messages"},
            Prompt,
            _either(
                _holds(prompt=_is_text, chosen=_is_absent, rejected=_is_absent),
                _holds(prompt=_is_chat, chosen=_is_absent, rejected=_is_absent),
            ),
            _prompt,
        ),
        Format(
            "prompt-messages",
            "conversations, less an answer at their end",
            {"messages": "messages"},
            Prompt,
            _holds(messages=_is_chat, prompt=_is_absent),
            _prompt_messages,
        ),
    )
}
