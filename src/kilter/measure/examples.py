"""A few rows as they will be trained on, with the stretches that are scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from kilter.data.records import Content, Demonstration, Origin, Record
from kilter.errors import KilterError
from kilter.measure.rows import answers_of, transcript
from kilter.tokens.encoding import Encoder, Limits
from kilter.tokens.sequence import TokenSequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kilter.tokens.rendering import Style

SHOWN = 3


@dataclass(frozen=True, slots=True)
class Stretch:
    """Some text, and whether a model is scored on it."""

    text: str
    scored: bool


@dataclass(frozen=True, slots=True)
class ExampleAnswer:
    """One answer by its part, from the end of the prompt on."""

    part: str
    stretches: tuple[Stretch, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """A row as text; `tokens` says that it is what a tokenizer reads, special tokens included."""

    origin: Origin
    prompt: str
    answers: tuple[ExampleAnswer, ...]
    tokens: bool


def examples_as_read(records: Sequence[Record]) -> tuple[Example, ...]:
    """The first, the middle and the last row, without a tokenizer."""
    return tuple(
        Example(
            record.origin,
            transcript(record.prompt),
            tuple(ExampleAnswer(part, _said(answer)) for part, answer in answers_of(record)),
            tokens=False,
        )
        for record in _chosen(records)
    )


def examples_as_trained(
    records: Sequence[Record], tokenizer: PreTrainedTokenizerFast, style: Style, max_prompt: int | None
) -> tuple[Example, ...]:
    """The same rows from their token ids back; those that cannot be rendered are left out."""
    encoder = Encoder(tokenizer, style, Limits(max_prompt=max_prompt))
    examples = []
    for record in _chosen(records):
        tools = getattr(record, "tools", "")
        parts = answers_of(record)
        try:
            rows, _ = encoder.encode_demonstrations(
                Demonstration(record.prompt, answer, record.origin, tools) for _, answer in parts
            )
        except KilterError:
            continue
        sequences = [row.sequence for row in rows]
        if sequences:
            prompt = _text(tokenizer, sequences[0].ids[: sequences[0].first].tolist())
            answers = (
                ExampleAnswer(part, _stretches(tokenizer, sequence))
                for (part, _), sequence in zip(parts, sequences, strict=True)
            )
            examples.append(Example(record.origin, prompt, tuple(answers), tokens=True))
    return tuple(examples)


def _chosen(records: Sequence[Record]) -> list[Record]:
    places = dict.fromkeys((0, len(records) // 2, len(records) - 1)) if records else {}
    return [records[place] for place in places][:SHOWN]


def _said(content: Content) -> tuple[Stretch, ...]:
    if isinstance(content, str):
        return (Stretch(content, True),)
    stretches: list[Stretch] = []
    for turn in content:
        newline = "\n" if stretches else ""
        stretches.append(Stretch(f"{newline}{turn.role}: ", scored=False))
        stretches.append(Stretch(turn.content, scored=turn.role == "assistant"))
    return tuple(stretches)


def _stretches(tokenizer: PreTrainedTokenizerFast, sequence: TokenSequence) -> tuple[Stretch, ...]:
    answer = sequence.ids[sequence.first :].tolist()
    scored = [True] * len(answer) if sequence.weights is None else (sequence.weights > 0).tolist()
    return tuple(
        Stretch(_text(tokenizer, [token for _, token in run]), flag)
        for flag, run in groupby(zip(scored, answer, strict=True), key=lambda pair: pair[0])
    )


def _text(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))
