"""Rows of several kinds as token ids, a block at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kilter.data.records import Demonstration, Origin, Pair, Record
from kilter.measure.rows import answers_of
from kilter.tokens.encoding import Encoder, EncodingReport
from kilter.tokens.sequence import TokenSequence


class EncodedRecord(NamedTuple):
    """A row, and a sequence for each of its answers (`answers_of`)."""

    record: Record
    sequences: tuple[TokenSequence, ...]


class EncodedBlock(NamedTuple):
    """Rows of a block that could be encoded, those that could not and why, and the encoder's counts."""

    rows: list[EncodedRecord]
    refused: list[tuple[Origin, str]]
    reports: list[EncodingReport]


def encode_block(block: Sequence[Record], encoder: Encoder, refusals: Sequence[str]) -> EncodedBlock:
    """Encode rows of any kinds but prompts and steps (`whole_rows`), whatever their length.

    `encoder` leaves out bad rows and tells `refusals`, which the caller empties between blocks. Places in the block
    stand for origins meanwhile: those may come twice.
    """
    sequences: list[list[TokenSequence]] = [[] for _ in block]
    pairs: list[Pair] = []
    others: list[Demonstration] = []
    for place, record in enumerate(block):
        here = Origin("", place)
        if isinstance(record, Pair):
            pairs.append(Pair(record.prompt, record.chosen, record.rejected, here, tools=record.tools))
            continue
        tools: str = getattr(record, "tools", "")
        others += [Demonstration(record.prompt, answer, here, tools) for _, answer in answers_of(record)]
    reports = []
    if pairs:
        encoded, report = encoder.encode_pairs(pairs)
        for pair in encoded:
            sequences[pair.origin.line] += (pair.chosen, pair.rejected)
        reports.append(report)
    if others:
        answered, report = encoder.encode_demonstrations(others)
        for row in answered:
            sequences[row.origin.line].append(row.sequence)
        reports.append(report)
    refused = dict(map(_place_and_reason, reversed(refusals)))
    rows = [
        EncodedRecord(record, tuple(of))
        for place, (record, of) in enumerate(zip(block, sequences, strict=True))
        if of and place not in refused
    ]
    return EncodedBlock(rows, [(block[place].origin, refused[place]) for place in sorted(refused)], reports)


def _place_and_reason(line: str) -> tuple[int, str]:
    place, _, reason = line.partition(": ")
    return int(place.removeprefix(":")), reason
