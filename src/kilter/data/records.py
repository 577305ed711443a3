"""What a row of data becomes once its file's format is known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from; `line` counts from 1 (for a JSON array: the row's position in it)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


# Text is taken as it is; a conversation is rendered with the tokenizer's chat template (tokens/rendering.py).
Content: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two answers to it, the first preferred.

    All three are text, or all three are conversations. A prompt that is a conversation ends before the
    answer's turn; an answer that is a conversation is the turns that follow, usually one by the assistant.
    """

    prompt: Content
    chosen: Content
    rejected: Content
    origin: Origin


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What a model should learn to say (SFT).

    Text: `completion` follows `prompt`, which is "" for plain documents. Conversation: `completion` is the
    turns after `prompt`, which is () when every assistant turn of a conversation is to be learnt.
    """

    prompt: Content
    completion: Content
    origin: Origin


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is to answer: text, or a conversation that ends before the answer's turn."""

    prompt: Content
    origin: Origin
