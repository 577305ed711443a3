"""The same texts again: rows, prompts, judgements turned round, and what the evaluation has seen in training.

Texts are compared with every run of blanks taken as one space: a second copy seldom differs in more than those.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter

from kilter.data.records import Content, Labelled, Origin, Pair, Ranking, Record
from kilter.measure.rows import answers_of, asked, comparisons, transcript

LISTED = 5
FREQUENT = 3

Digest = bytes


@dataclass(frozen=True, slots=True)
class Again:
    """A row, and the earlier one it has something in common with."""

    row: Origin
    first: Origin

    def __str__(self) -> str:
        here = f"line {self.first.line}" if self.first.file == self.row.file else str(self.first)
        return f"{self.row}: see {here}"


@dataclass(frozen=True, slots=True)
class FrequentPrompt:
    """A prompt that several rows have."""

    rows: int
    first: Origin
    text: str


@dataclass(frozen=True, slots=True)
class Duplicates:
    """What rows have in common; each list holds the first few.

    `rows` counts rows that an earlier row equals in prompt, answers and judgement; `contradictory` counts rows whose
    judgement an earlier row turns round: the same two answers to the same prompt with the other one preferred, or the
    same answer labelled the other way. `blank_pairs` are pairs whose answers differ in blanks alone.
    """

    prompts: int  # different ones
    rows: int
    contradictory: int
    blank_pairs: int
    listed_rows: tuple[Again, ...]
    listed_contradictory: tuple[Again, ...]
    listed_blank_pairs: tuple[Origin, ...]
    frequent: tuple[FrequentPrompt, ...]


@dataclass(frozen=True, slots=True)
class Leaks:
    """What rows to evaluate on have in common with the data: whole rows, or prompts with other answers."""

    eval_rows: int
    rows: int
    prompts: int
    listed_rows: tuple[Again, ...]
    listed_prompts: tuple[Again, ...]


class PromptIndex:
    """Rows by the digest of their prompt; rows without a prompt, as plain documents, by their answers."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.places: dict[Digest, list[int]] = {}
        self.records = records
        for place, record in enumerate(records):
            self.places.setdefault(_prompt_digest(record), []).append(place)

    def find_duplicates(self) -> Duplicates:
        """Look at every row that shares its prompt with another."""
        found_rows: list[tuple[int, Again]] = []
        found_contradictory: list[tuple[int, Again]] = []
        for places in self.places.values():
            if len(places) > 1:
                self._compare(places, found_rows, found_contradictory)
        rows = [again for _, again in sorted(found_rows, key=itemgetter(0))]
        contradictory = [again for _, again in sorted(found_contradictory, key=itemgetter(0))]
        blank = [record.origin for record in self.records if isinstance(record, Pair) and _same_but_blanks(record)]
        shared = sorted(((len(places), places[0]) for places in self.places.values() if len(places) > 1), reverse=True)
        asked_first = [(count, self.records[place]) for count, place in shared if asked(self.records[place])]
        return Duplicates(
            prompts=len(self.places),
            rows=len(rows),
            contradictory=len(contradictory),
            blank_pairs=len(blank),
            listed_rows=tuple(rows[:LISTED]),
            listed_contradictory=tuple(contradictory[:LISTED]),
            listed_blank_pairs=tuple(blank[:LISTED]),
            frequent=tuple(
                FrequentPrompt(count, record.origin, " ".join(transcript(asked(record)).split())[:400])
                for count, record in asked_first[:FREQUENT]
            ),
        )

    def find_leaks(self, held_out: Sequence[Record]) -> Leaks:
        """Look for the rows and prompts of `held_out` here."""
        rows: list[Again] = []
        prompts: list[Again] = []
        for record in held_out:
            places = self.places.get(_prompt_digest(record), ())
            if not places:
                continue
            first = self.records[places[0]]
            answers = {digest(answer) for _, answer in answers_of(record)}
            whole = (here for here in map(self.records.__getitem__, places) if _shares(here, answers))
            if same := next(whole, None):
                rows.append(Again(record.origin, same.origin))
            else:
                prompts.append(Again(record.origin, first.origin))
        return Leaks(len(held_out), len(rows), len(prompts), tuple(rows[:LISTED]), tuple(prompts[:LISTED]))

    def _compare(
        self, places: Sequence[int], rows: list[tuple[int, Again]], contradictory: list[tuple[int, Again]]
    ) -> None:
        seen: dict[Hashable, Origin] = {}
        judged: dict[Hashable, Origin] = {}
        for place in places:
            record = self.records[place]
            answers = [digest(answer) for _, answer in answers_of(record)]
            whole = _judgement(record, answers)
            if whole in seen:
                rows.append((place, Again(record.origin, seen[whole])))
                continue
            seen[whole] = record.origin
            says, denies = _claims(record, answers)
            if against := next((judged[claim] for claim in denies if claim in judged), None):
                contradictory.append((place, Again(record.origin, against)))
            for claim in says:
                judged.setdefault(claim, record.origin)


def digest(content: Content) -> Digest:
    """16 bytes that two contents share if they are the same but for blanks."""
    if isinstance(content, str):
        return blake2b(" ".join(content.split()).encode("utf-8", "surrogatepass"), digest_size=16).digest()
    turns = "\x1e".join(f"{turn.role}\x1f{' '.join(turn.content.split())}\x1f{turn.more}" for turn in content)
    return blake2b(turns.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _prompt_digest(record: Record) -> Digest:
    prompt = asked(record)
    return digest(prompt) if prompt else b"\0" + b"".join(digest(answer) for _, answer in answers_of(record))


def _shares(record: Record, answers: set[Digest]) -> bool:
    """Whether one of the row's answers is among these; a prompt alone has none to differ by."""
    own = {digest(answer) for _, answer in answers_of(record)}
    return not own or not answers or bool(own & answers)


def _same_but_blanks(pair: Pair) -> bool:
    one, other = transcript(pair.chosen), transcript(pair.rejected)
    # The first words tell nearly all apart.
    return one[:60].split()[:3] == other[:60].split()[:3] and digest(pair.chosen) == digest(pair.rejected)


def _judgement(record: Record, answers: Sequence[Digest]) -> Hashable:
    """What a second row must equal to be the same: kind, answers, and what is said of them."""
    kind = type(record)
    if isinstance(record, Pair) and record.tied:
        return kind, "tied", frozenset(answers)
    if isinstance(record, Labelled):
        return kind, record.good, answers[0]
    if isinstance(record, Ranking):
        return kind, frozenset(zip(record.ranks, answers, strict=True))
    return kind, tuple(answers)


def _claims(record: Record, answers: Sequence[Digest]) -> tuple[set[Hashable], set[Hashable]]:
    """What the row says of its answers, and what would be said by one that contradicts it."""
    if isinstance(record, Labelled):
        return {(answers[0], record.good)}, {(answers[0], not record.good)}
    said = [(answers[better], answers[worse]) for better, worse in comparisons(record)]
    return set(said), {(worse, better) for better, worse in said}
