"""Texts to measure models on: rows of every kind as token sequences that fit a model, a block of rows at a time.

Only a block's tokens are in memory at once. All rows are looked at before the first is measured, so what must be
mended is told together and before any work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from kilter.data.records import Origin, Record
from kilter.errors import DataError
from kilter.measure.encoded_rows import EncodedRecord, encode_block
from kilter.measure.facts import Limit
from kilter.measure.rows import answers_of
from kilter.tokens.encoding import Encoder, Limits, listing
from kilter.tokens.rendering import Style
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import Ints

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LOOKED_AT_ONCE = 512  # rows
BLOCK_TOKENS = 1 << 15


class Passage(NamedTuple):
    """A text, or a window of one, that a model is given at once.

    `sequence` begins with token `start` of the text; `part` is what the row calls it: completion, chosen, rejected...
    """

    origin: Origin
    part: str
    start: int
    sequence: TokenSequence

    @property
    def scored(self) -> Ints:
        """The places in the sequence whose tokens are scored: of weight, and with something before them."""
        ids, first, weights, _ = self.sequence
        places = np.arange(first, len(ids)) if weights is None else first + np.flatnonzero(weights)
        return places[places > 0]


@dataclass(frozen=True, slots=True)
class TextFacts:
    """What became of the rows: given, usable, refused, dropped as too long, and cut into windows; and their tokens."""

    rows: int
    refused: int
    dropped: int
    windowed: int
    tokens: int  # scored
    without_context: int  # first tokens, that nothing predicts
    limit: Limit  # of a text, or of a window of one

    def describe(self) -> str:
        """One line: texts and tokens, then whatever was left out or cut."""
        windows = f"measured in windows of {self.limit}"
        remarks = [
            (self.refused, "unusable row left out", "unusable rows left out"),
            (self.dropped, "over-long row left out", "over-long rows left out"),
            (self.windowed, f"long text {windows}", f"long texts {windows}"),
            (
                self.without_context,
                "first token has nothing before it and is not measured",
                "first tokens have nothing before them and are not measured",
            ),
        ]
        used = f"{self.rows - self.refused - self.dropped:,} of {self.rows:,} rows, {self.tokens:,} tokens to compare"
        return "; ".join([used, *(f"{count:,} {one if count == 1 else many}" for count, one, many in remarks if count)])


class Texts:
    """Rows as passages within a limit of tokens.

    `scored` says whether prompts are measured too: once for each row, however many answers it has. A text over
    the limit is cut into windows that share a token, so that every token but a text's first is scored once; or it is
    refused; or its row is dropped. Raises DataError where rows cannot be used, listing them.
    """

    def __init__(
        self,
        rows: Sequence[Record],
        tokenizer: PreTrainedTokenizerFast,
        *,
        limit: Limit,
        scored: Literal["answers", "all"] = "answers",
        on_overflow: Literal["split", "refuse", "drop"] = "split",
        style: Style = "auto",
        max_prompt: int | None = None,
        skip_bad: bool = False,
        on_progress: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._rows, self._limit, self._scored, self._on_overflow = rows, limit, scored, on_overflow
        self._refusals: list[str] = []
        self._encoder = Encoder(
            tokenizer, style, Limits(max_prompt=max_prompt), skip_bad=True, on_refused=self._refusals.append
        )
        self.facts = self._look(skip_bad, on_progress)

    def blocks(self) -> Iterator[list[Passage]]:
        """The passages of blocks of rows, as many as hold about `BLOCK_TOKENS`, row by row."""
        used = max(1, self._all_tokens)
        rows = max(1, min(LOOKED_AT_ONCE, BLOCK_TOKENS * len(self._rows) // used))
        for _, encoded, _ in self._encoded(rows):
            yield [passage for row in encoded for passage in self._passages(row)]

    def _encoded(self, rows: int) -> Iterator[tuple[Sequence[Record], list[EncodedRecord], list[str]]]:
        for start in range(0, len(self._rows), rows):
            block = self._rows[start : start + rows]
            self._refusals.clear()
            found = encode_block(block, self._encoder, self._refusals)
            yield block, found.rows, [f"{origin}: {reason}" for origin, reason in found.refused]

    def _look(self, skip_bad: bool, on_progress: Callable[[int], None]) -> TextFacts:
        """Encode all rows once, and count."""
        refused: list[str] = []
        overlong: list[str] = []
        counts: Counter[str] = Counter()
        self._all_tokens = 0
        for block, encoded, bad in self._encoded(LOOKED_AT_ONCE):
            refused += bad
            for row in encoded:
                lengths = [len(sequence.ids) for sequence in row.sequences]
                self._all_tokens += sum(lengths)
                if max(lengths) > self._limit.tokens and self._on_overflow != "split":
                    overlong.append(f"{row.record.origin}: {max(lengths):,} tokens")
                    continue
                counts["windowed"] += sum(length > self._limit.tokens for length in lengths)
                passages = self._passages(row)
                counts["tokens"] += sum(len(passage.scored) for passage in passages)
                counts["without_context"] += sum(_begins_scored(passage) for passage in passages)
            on_progress(len(block))
        if refused and not skip_bad:
            raise DataError(
                listing(f"{len(refused)} of {len(self._rows)} rows cannot be used; mend or skip them", refused)
            )
        if overlong and self._on_overflow == "refuse":
            title = f"{len(overlong)} of {len(self._rows)} rows are longer than {self._limit.tokens:,} tokens"
            raise DataError(listing(f"{title}; split them (--on-overflow split), or drop them", overlong))
        counted = {name: counts[name] for name in _COUNTED}
        facts = TextFacts(len(self._rows), len(refused), len(overlong), limit=self._limit, **counted)
        if not facts.tokens:
            raise DataError(
                f"no token is left to compare models on: {facts.describe()}; expected texts of two tokens or more"
            )
        return facts

    def _passages(self, row: EncodedRecord) -> list[Passage]:
        sequences = list(row.sequences)
        if max(len(sequence.ids) for sequence in sequences) > self._limit.tokens and self._on_overflow != "split":
            return []
        if self._scored == "all":
            sequences[0] = TokenSequence(sequences[0].ids, 0)
        return [
            Passage(row.record.origin, part, start, window)
            for (part, _), sequence in zip(answers_of(row.record), sequences, strict=True)
            for start, window in windows(sequence, self._limit.tokens)
        ]


_COUNTED = ("windowed", "tokens", "without_context")


def _begins_scored(passage: Passage) -> bool:
    _, first, weights, _ = passage.sequence
    return first == 0 and (weights is None or bool(weights[0]))


def windows(sequence: TokenSequence, longest: int) -> Iterator[tuple[int, TokenSequence]]:
    """A sequence in windows of at most `longest` tokens, each after its place in it.

    A window begins with the last token of the one before. Every token of the completion but the sequence's first is
    scored in exactly one of them; windows that score nothing are left out.
    """
    if len(sequence.ids) <= longest:
        yield 0, sequence
        return
    for start in range(0, len(sequence.ids) - 1, longest - 1):
        ids = sequence.ids[start : start + longest]
        first = max(sequence.first - start, int(start > 0))
        if first >= len(ids):
            continue
        weights = sequence.weights
        if weights is not None:
            begin = start + first - sequence.first
            weights = weights[begin : begin + len(ids) - first]
            if not weights.any():
                continue
        yield start, TokenSequence(ids, first, weights, sequence.variant)
