"""What a data set is to one tokenizer and template: tokens, nodes, limits, special tokens, rows refused.

Rows are encoded a block at a time and only numbers are kept. Axes: S sequences of a block, T all their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kilter.data.records import Origin, Pair, Record
from kilter.measure.encoded_rows import EncodedBlock, EncodedRecord, encode_block
from kilter.measure.lengths import LengthBias, Spread, length_bias, spread
from kilter.measure.rows import PARTS, answers_of, best_and_worst
from kilter.tokens.encoding import Encoder, EncodingReport, Limits
from kilter.tokens.packing import SHARING_COST
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import common_prefix, sorted_with_common_prefixes, unprofitable_roots

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kilter.tokens.rendering import Style

BLOCK = 4096  # rows
LISTED = 5


@dataclass(frozen=True, slots=True)
class Found:
    """How many rows have something, and the first of them with what there is to say of each."""

    rows: int
    listed: tuple[tuple[Origin, str], ...]


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """Lengths by part (and of prompts, and of prompt and answer together), and what was odd.

    `nodes` counts each start that answers of a row share once; `tokens` counts separate sequences. `text_*` are
    about rows of text, which may hold special tokens.
    """

    rows: int
    lengths: dict[str, Spread]
    bias: LengthBias | None
    tokens: int
    nodes: int
    answer_tokens: int
    squares: int  # the sum over sequences of their length squared: what attention grows with
    refused: Found
    overlong: Found
    prompts_cut: int
    prompt_tokens_cut: int
    empty_answers: int
    trailing_turns: int
    same_ids: Found
    text_bos: Found
    text_eos: Found
    doubled_bos: Found
    inner_eos: Found
    other_special: Found
    unknown: Found  # rows with a token for what the tokenizer does not know


def token_facts(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerFast,
    *,
    style: Style,
    max_prompt: int | None,
    longest: int | None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> TokenFacts:
    """Encode all rows, and count. Rows over `longest` tokens are counted, not left out."""
    refusals: list[str] = []
    limits = Limits(max_prompt=max_prompt)
    encoder = Encoder(tokenizer, style, limits, skip_bad=True, on_refused=refusals.append)
    counting = _Counting(tokenizer, longest)
    for start in range(0, len(records), BLOCK):
        block = records[start : start + BLOCK]
        counting.add(encode_block(block, encoder, refusals))
        refusals.clear()
        on_progress(len(block))
    return counting.facts()


def nodes_of(sequences: Sequence[TokenSequence]) -> int:
    """Nodes of the tree of some sequences, shared starts once where that pays, as packing decides."""
    if len(sequences) == 2:
        one, other = sequences
        together, shared = len(one.ids) + len(other.ids), common_prefix(one.ids, other.ids)
        return together - shared if shared > SHARING_COST * (together - 2 * shared) else together
    order, common = sorted_with_common_prefixes(sequences)
    length = np.array([len(sequences[s].ids) for s in order], dtype=np.int64)
    return int((length - np.where(unprofitable_roots(common, length, SHARING_COST), 0, common)).sum())


@dataclass
class _Tally:
    """A `Found` in the making."""

    rows: int = 0
    listed: list[tuple[Origin, str]] = field(default_factory=list)

    def add(self, origin: Origin, what: str = "") -> None:
        self.rows += 1
        if len(self.listed) < LISTED:
            self.listed.append((origin, what))

    def found(self) -> Found:
        return Found(self.rows, tuple(self.listed))


class _Counting:
    def __init__(self, tokenizer: PreTrainedTokenizerFast, longest: int | None) -> None:
        self._longest = longest
        self._bos_text, self._eos_text = (str(text) for text in (tokenizer.bos_token or "", tokenizer.eos_token or ""))
        self._bos, self._eos, self._unknown = (
            tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
        )  # fmt: skip
        added = tokenizer.added_tokens_decoder
        self._special = np.zeros(max([*added, *tokenizer.all_special_ids, len(tokenizer)]) + 1, bool)
        self._special[[i for i, token in added.items() if token.special] + tokenizer.all_special_ids] = True
        self._lengths: dict[str, list[int]] = {}
        self._better_and_worse: list[tuple[int, int]] = []
        self._rows = self._tokens = self._nodes = self._answer_tokens = self._squares = 0
        self._reports: list[EncodingReport] = []
        self._tallies = {
            name: _Tally()
            for name in (
                "refused", "overlong", "same_ids", "text_bos", "text_eos", "doubled_bos", "inner_eos", "other_special",
                "unknown",
            )
        }  # fmt: skip

    def add(self, block: EncodedBlock) -> None:
        self._reports += block.reports
        for origin, reason in block.refused:
            self._tallies["refused"].add(origin, reason)
        for row in block.rows:
            self._count(row)
            if isinstance(row.record.prompt, str):
                self._look_at_ends(row.record)
        if block.rows:
            self._look_for_special_tokens(block.rows)

    def facts(self) -> TokenFacts:
        parts = (part for part in ("prompt", *PARTS, "together") if part in self._lengths)
        return TokenFacts(
            rows=self._rows,
            lengths={part: spread(self._lengths[part]) for part in parts},
            bias=length_bias(self._better_and_worse),
            tokens=self._tokens,
            nodes=self._nodes,
            answer_tokens=self._answer_tokens,
            squares=self._squares,
            prompts_cut=sum(report.prompts_cut for report in self._reports),
            prompt_tokens_cut=sum(report.prompt_tokens_cut for report in self._reports),
            empty_answers=sum(report.empty_answers for report in self._reports),
            trailing_turns=sum(report.trailing_turns for report in self._reports),
            **{name: tally.found() for name, tally in self._tallies.items()},
        )

    def _count(self, row: EncodedRecord) -> None:
        record, sequences = row
        first = sequences[0].first
        lengths = [len(sequence.ids) for sequence in sequences]
        self._rows += 1
        self._tokens += sum(lengths)
        self._nodes += nodes_of(sequences) if len(lengths) > 1 else lengths[0]
        self._answer_tokens += sum(lengths) - first * len(lengths)
        self._squares += sum(length * length for length in lengths)
        if first:
            self._lengths.setdefault("prompt", []).append(first)
        for (part, _), length in zip(answers_of(record), lengths, strict=True):
            self._lengths.setdefault(part, []).append(length - first)
            if first:
                self._lengths.setdefault("together", []).append(length)
        if self._longest is not None and max(lengths) > self._longest:
            self._tallies["overlong"].add(record.origin, f"{max(lengths):,} tokens")
        extremes = best_and_worst(record)
        if extremes is not None:
            best, worst = extremes
            self._better_and_worse.append((lengths[best], lengths[worst]))
        if isinstance(record, Pair) and np.array_equal(sequences[0].ids, sequences[1].ids):
            self._tallies["same_ids"].add(record.origin)

    def _look_at_ends(self, record: Record) -> None:
        """Of a row of text."""
        if self._bos_text and str(record.prompt).startswith(self._bos_text):
            self._tallies["text_bos"].add(record.origin)
        answers = (str(answer).rstrip() for _, answer in answers_of(record))
        if self._eos_text and any(answer.endswith(self._eos_text) for answer in answers):
            self._tallies["text_eos"].add(record.origin)

    def _look_for_special_tokens(self, rows: Sequence[EncodedRecord]) -> None:
        """Those that were text are looked for in rows of text, for conversations that hold any are refused."""
        sequences = [sequence for row in rows for sequence in row.sequences]
        row_S = np.repeat(np.arange(len(rows)), [len(row.sequences) for row in rows])
        text_S = np.array([isinstance(row.record.prompt, str) for row in rows])[row_S]
        ids_T = np.concatenate([sequence.ids for sequence in sequences])
        end_S = np.cumsum([len(sequence.ids) for sequence in sequences])
        start_S = np.concatenate([[0], end_S[:-1]])
        answer_S = start_S + [sequence.first for sequence in sequences]
        is_bos_T, is_eos_T = ids_T == self._bos, ids_T == self._eos
        is_unknown_T = (ids_T == self._unknown) & ~is_bos_T & ~is_eos_T
        is_other_T = self._special[ids_T] & ~is_bos_T & ~is_eos_T & ~is_unknown_T
        second_S = np.minimum(start_S + 1, end_S - 1)
        for name, flag_S in (
            ("doubled_bos", text_S & is_bos_T[start_S] & is_bos_T[second_S] & (second_S < end_S - 1)),
            ("inner_eos", text_S & _any_within(is_eos_T, answer_S, end_S - 1)),
            ("other_special", text_S & _any_within(is_other_T, start_S, end_S)),
            ("unknown", _any_within(is_unknown_T, start_S, end_S)),
        ):
            for place in np.unique(row_S[flag_S]).tolist():
                self._tallies[name].add(rows[place].record.origin)


def _any_within(flag_T: NDArray[np.bool_], start_S: NDArray[np.int64], end_S: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a flag is set from each start to before its end."""
    so_far = np.concatenate([[0], np.cumsum(flag_T)])
    return np.asarray(so_far[np.maximum(end_S, start_S)] > so_far[start_S])
