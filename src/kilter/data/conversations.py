"""Conversations in the ways they are written down: messages in several dialects, and transcripts.

A message has `role` and `content`, or `from` and `value`; `SPEAKERS` says whose turn each name is. What else a chat
template reads of a message goes into `Message.more`; a key that would change what is learnt is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from kilter.data.fields import Row, RowError, canonical, clean, kind_of, optional_text, parsed, printable, text
from kilter.data.records import Message

# Who speaks, by the names that data sets use, and the role that a chat template knows.
SPEAKERS: Mapping[str, str] = {
    "system": "system",
    "developer": "developer",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "tool": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "function": "tool",
}
# Turns whose words are the call of a tool, in JSON.
CALLERS = ("function_call", "tool_call")
# What a message is expected to say of its speaker, for the words of an error.
_ROLES = {
    "role": "system, developer, user, assistant, tool",
    "from": "system, human, gpt, function_call, observation",
}
# Keys of a message that are read.
MESSAGE_KEYS = frozenset(
    (
        *("role", "content", "from", "value", "tool_calls", "function_call", "tool_call_id"),
        *("reasoning_content", "thinking"),
    )
)
# Keys of a message that change how it is learnt; a Message has no place for them.
LEARNING_KEYS = ("weight", "train", "loss")
NOTHING: tuple[object, ...] = (None, [], "", {})
MEDIA = ("images", "videos", "audios")


# What a value looks like; recognisers glance, readers look closely.

_MESSAGES_AS_TEXT = re.compile(r"""\s*\[\s*\{\s*(["'])(role|content|from|value)\1\s*:""")
_PARTNER = {"role": "content", "content": "role", "from": "value", "value": "from"}


def looks_like_chat(value: object) -> bool:
    """Whether this is a message, a list of them, or a list written as text."""
    if isinstance(value, str):
        begun = _MESSAGES_AS_TEXT.match(value)
        return begun is not None and f"{begun[1]}{_PARTNER[begun[2]]}{begun[1]}" in value
    first = value[0] if isinstance(value, list) and value else value
    return isinstance(first, dict) and ("role" in first or "from" in first)


def looks_like_transcript(value: object) -> bool:
    return isinstance(value, str) and bool(_SPEAKER.match(value)) and "\n\nAssistant:" in value


# Messages.


def chat(row: Row, key: str) -> tuple[Message, ...]:
    """Return the messages that a key holds."""
    return messages(key, row.get(key))


def messages(field: str, value: object) -> tuple[Message, ...]:
    """Return the messages in `value`: a list, one alone, or either as JSON text; at least one."""
    value = parsed(field, value)
    turns = [value] if isinstance(value, dict) else value
    if not isinstance(turns, list) or not turns:
        raise RowError(field, f"is {kind_of(value)}; expected a list of messages with role and content")
    return tuple(_message(f"{field}[{index}]", turn) for index, turn in enumerate(turns))


def _message(field: str, turn: object) -> Message:
    if not isinstance(turn, dict):
        raise RowError(field, f"is {kind_of(turn)}; expected a message with role and content")
    said_by, said = ("from", "value") if turn.get("role") is None and "from" in turn else ("role", "content")
    speaker = turn.get(said_by)
    for key in LEARNING_KEYS:
        if turn.get(key) not in NOTHING:
            raise RowError(f"{field}.{key}", "would be lost; expected role and content only; remove it")
    if isinstance(speaker, str) and speaker in CALLERS:
        called = parsed(f"{field}.{said}", clean(f"{field}.{said}", turn.get(said)))
        return Message("assistant", "", _written(field, {"tool_calls": _calls(f"{field}.{said}", called)}))
    role = SPEAKERS.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        found = f"'{printable(speaker)}'" if isinstance(speaker, str) else kind_of(speaker)
        raise RowError(f"{field}.{said_by}", f"is {found}; expected one of {_ROLES[said_by]}")
    more = _more(field, turn, role)
    content = turn.get(said)
    if content is None and "tool_calls" in more:
        content = ""
    return Message(role, _words(f"{field}.{said}", content), _written(field, more))


def _words(field: str, content: object) -> str:
    """Text, or a list of parts that are text."""
    if not isinstance(content, list) or not content:
        return clean(field, content)
    return "".join(_part(f"{field}[{index}]", part) for index, part in enumerate(content))


def _part(field: str, part: object) -> str:
    if not isinstance(part, dict):
        raise RowError(field, f"is {kind_of(part)}; expected a part of type text")
    kind = part.get("type")
    if kind != "text":
        found = f"a part of type '{printable(kind)}'" if isinstance(kind, str) else "a part without a type"
        raise RowError(field, f"is {found}; expected text, for no images, sounds or files are read; leave the row out")
    return clean(f"{field}.text", part.get("text"))


def _more(field: str, turn: Row, role: str) -> dict[str, object]:
    more: dict[str, object] = {}
    if turn.get("tool_calls") not in NOTHING:
        more["tool_calls"] = _calls(f"{field}.tool_calls", parsed(f"{field}.tool_calls", turn["tool_calls"]))
    elif turn.get("function_call") not in NOTHING:
        more["tool_calls"] = _calls(f"{field}.function_call", parsed(f"{field}.function_call", turn["function_call"]))
    keys = ("tool_call_id", "reasoning_content", "thinking", *(["name"] if role == "tool" else []))
    for key in keys:
        if turn.get(key) not in NOTHING:
            more[key] = clean(f"{field}.{key}", turn[key])
    return more


def _written(field: str, more: dict[str, object]) -> str:
    return canonical(field, more) if more else ""


def _calls(field: str, value: object) -> list[object]:
    if not isinstance(value, list):
        return [_call(field, value)]
    if not value:
        raise RowError(field, "is an empty list; expected a call with a name and arguments")
    return [_call(f"{field}[{index}]", call) for index, call in enumerate(value)]


def _call(field: str, call: object) -> dict[str, object]:
    if not isinstance(call, dict):
        raise RowError(field, f"is {kind_of(call)}; expected a call with a name and arguments, in JSON")
    if call.get("type") not in (None, "function"):
        raise RowError(f"{field}.type", "is not 'function'; expected the call of a function; leave the row out")
    if call.get("function") is not None:
        inner = call["function"]
        field = f"{field}.function"
    else:
        inner = call
    if not isinstance(inner, dict):
        raise RowError(field, f"is {kind_of(inner)}; expected an object with a name and arguments")
    name = clean(f"{field}.name", inner.get("name"))
    if not name.strip():
        raise RowError(f"{field}.name", "is empty; expected the name of a function")
    arguments = parsed(f"{field}.arguments", inner.get("arguments"))
    arguments = {} if arguments in NOTHING else arguments
    if not isinstance(arguments, dict):
        raise RowError(f"{field}.arguments", f"is {kind_of(arguments)}; expected an object, or one as JSON text")
    read: dict[str, object] = {"type": "function", "function": {"name": name, "arguments": arguments}}
    if call.get("id") not in NOTHING:
        read["id"] = clean(f"{field}.id", call["id"])
    return read


def calls_tools(message: Message) -> bool:
    return bool(message.more) and "tool_calls" in json.loads(message.more)


# Transcripts.

_SPEAKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")
_SPEAKER_ROLES = {"Human": "user", "Assistant": "assistant"}


def transcript(row: Row, key: str) -> tuple[Message, ...]:
    """Return the turns of a transcript, each begun by `Human:` or `Assistant:` at the start of a paragraph."""
    before, *turns = _SPEAKER.split(text(row, key))
    if before.strip() or not turns:
        raise RowError(key, r"is not a transcript; expected '\n\nHuman: ...\n\nAssistant: ...'")
    return tuple(
        Message(_SPEAKER_ROLES[speaker], said.strip()) for speaker, said in zip(turns[::2], turns[1::2], strict=True)
    )


# What stands beside the messages of a row.


def tools(row: Row, key: str = "tools") -> str:
    """Return the tools that the model may call, as a JSON list; "" where there are none."""
    listed = parsed(key, row.get(key))
    if listed in NOTHING:
        return ""
    if not isinstance(listed, list):
        raise RowError(key, f"is {kind_of(listed)}; expected a list of tools, or one as JSON text")
    for index, tool in enumerate(listed):
        if not isinstance(tool, dict):
            raise RowError(f"{key}[{index}]", f"is {kind_of(tool)}; expected an object that describes a tool")
    return canonical(key, listed)


def with_system(row: Row, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Put the message of the row's `system` key, where it has one, before `turns`."""
    said = optional_text(row, "system")
    if not said.strip():
        return turns
    if turns and turns[0].role in ("system", "developer"):
        if turns[0].content.strip() != said.strip():
            raise RowError("system", "differs from the conversation's own system message; expected one; remove one")
        return turns
    return (Message("system", said), *turns)


def instruction(row: Row, key: str, more: str = "input") -> tuple[Message, ...]:
    """Return what a user asks, with the row's `system` and `history` before it and its `input` below it."""
    asked = text(row, key)
    if not asked.strip():
        raise RowError(key, "is empty; expected what the answers reply to")
    beside = optional_text(row, more) if more else ""
    said = f"{asked}\n{beside}" if beside.strip() else asked
    return with_system(row, (*_history(row), Message("user", said)))


def _history(row: Row) -> Iterator[Message]:
    """Turns before the instruction, as pairs of what was asked and answered."""
    rounds = parsed("history", row.get("history"))
    if rounds in NOTHING:
        return
    if not isinstance(rounds, list):
        raise RowError("history", f"is {kind_of(rounds)}; expected a list of rounds, each a question and its answer")
    for index, said in enumerate(rounds):
        field = f"history[{index}]"
        if not isinstance(said, list) or len(said) != 2:
            raise RowError(field, "is not a list of two; expected a question and its answer")
        yield Message("user", clean(f"{field}[0]", said[0]))
        yield Message("assistant", clean(f"{field}[1]", said[1]))


def refuse_media(row: Row) -> None:
    for key in MEDIA:
        if row.get(key) not in NOTHING:
            raise RowError(key, "is given, but only text is read; expected rows without it; leave the row out")


def answered(content: str) -> tuple[Message, ...]:
    """An answer's words as the assistant's turn."""
    return (Message("assistant", content),)
