"""What a row of data becomes once its file's format is known, and what one kind of row says as another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, groupby
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a row came from; `line` counts from 1 (in anything but lines: the row's position in the file)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    `more` holds what else a chat template reads of it (tool calls, the id of the call a tool answers, reasoning), as
    one JSON object; "" where there is nothing else.
    """

    role: str
    content: str
    more: str = ""


# Text is taken as it is; a conversation is rendered with the tokenizer's chat template (tokens/rendering.py).
Content: TypeAlias = str | tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Pair:
    """A prompt and two answers to it, the first preferred.

    All three are text, or all three are conversations. A prompt that is a conversation ends before the
    answer's turn; an answer that is a conversation is the turns that follow, usually one by the assistant.
    `preference` is the probability that `chosen` is the better one: 1 where the data says no more than that, between
    1/2 and 1 where it was graded or voted on, 1/2 for a tie. Scores and the margin are the raters' own, on whatever
    scale they used. `tools` are those the model may call, as a JSON list; "" where there are none.
    """

    prompt: Content
    chosen: Content
    rejected: Content
    origin: Origin
    preference: float = 1.0
    chosen_score: float | None = None
    rejected_score: float | None = None
    margin: float | None = None
    tools: str = ""

    @property
    def tied(self) -> bool:
        return self.preference == 0.5

    @property
    def rated_margin(self) -> float | None:
        """By how much chosen is better: the margin, or the difference of the scores; None where neither is given."""
        if self.margin is not None or self.chosen_score is None or self.rejected_score is None:
            return self.margin
        return self.chosen_score - self.rejected_score


@dataclass(frozen=True, slots=True)
class Labelled:
    """A prompt and one answer to it, judged good or bad by itself; content as in a Pair."""

    prompt: Content
    completion: Content
    good: bool
    origin: Origin
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Ranking:
    """A prompt and two answers or more, each with a rank: a lower rank is better, equal ranks are tied."""

    prompt: Content
    answers: tuple[Content, ...]
    ranks: tuple[float, ...]
    origin: Origin
    tools: str = ""

    @property
    def tied(self) -> bool:
        return len(set(self.ranks)) == 1


@dataclass(frozen=True, slots=True)
class Steps:
    """A prompt and the steps of an answer, each judged right or wrong given those before it; texts only.

    `separator` stands between a step and the next.
    """

    prompt: str
    steps: tuple[str, ...]
    right: tuple[bool, ...]
    origin: Origin
    separator: str = "\n"


@dataclass(frozen=True, slots=True)
class Demonstration:
    """What a model should learn to say (SFT).

    Text: `completion` follows `prompt`, which is "" for plain documents. Conversation: `completion` is the
    turns after `prompt`, which is () when every assistant turn of a conversation is to be learnt.
    """

    prompt: Content
    completion: Content
    origin: Origin
    tools: str = ""


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is to answer: text, or a conversation that ends before the answer's turn."""

    prompt: Content
    origin: Origin
    tools: str = ""


Record: TypeAlias = Pair | Labelled | Ranking | Steps | Demonstration | Prompt


def is_tie(record: Record) -> bool:
    """Whether the row compares answers and prefers none of them."""
    return isinstance(record, Pair | Ranking) and record.tied


def _pairs_of_ranking(row: Ranking) -> Iterable[Pair]:
    """Every two answers of different rank, best first."""
    best_first = sorted(zip(row.ranks, row.answers, strict=True), key=lambda ranked: ranked[0])
    for (rank, answer), (other_rank, other) in combinations(best_first, 2):
        if rank < other_rank:
            yield Pair(row.prompt, answer, other, row.origin, tools=row.tools)


def _ranking_of_pair(row: Pair) -> Iterable[Ranking]:
    """A ranking of two: that one is better, not by how much, nor how likely."""
    ranks = (1.0, 1.0) if row.tied else (1.0, 2.0)
    yield Ranking(row.prompt, (row.chosen, row.rejected), ranks, row.origin, row.tools)


def _labelled_of_pair(row: Pair) -> Iterable[Labelled]:
    if not row.tied:
        yield Labelled(row.prompt, row.chosen, True, row.origin, row.tools)
        yield Labelled(row.prompt, row.rejected, False, row.origin, row.tools)


def _labelled_of_steps(row: Steps) -> Iterable[Labelled]:
    """Each step as an answer to all that came before it."""
    before = row.prompt + row.separator
    for step, right in zip(row.steps, row.right, strict=True):
        yield Labelled(before, step, right, row.origin)
        before += step + row.separator


def _demonstrations_of_ranking(row: Ranking) -> Iterable[Demonstration]:
    """The best answers."""
    best_first = sorted(zip(row.ranks, row.answers, strict=True), key=lambda ranked: ranked[0])
    _, best = next(groupby(best_first, key=lambda ranked: ranked[0]))
    for _, answer in best:
        yield Demonstration(row.prompt, answer, row.origin, row.tools)


def _demonstration_of_pair(row: Pair) -> Iterable[Demonstration]:
    return () if row.tied else (Demonstration(row.prompt, row.chosen, row.origin, row.tools),)


def _demonstration_of_labelled(row: Labelled) -> Iterable[Demonstration]:
    return (Demonstration(row.prompt, row.completion, row.origin, row.tools),) if row.good else ()


def _prompt_of(row: Any) -> Iterable[Prompt]:
    return (Prompt(row.prompt, row.origin, getattr(row, "tools", "")),)


def _itself(row: Any) -> Iterable[Any]:
    return (row,)


# VIEWS[wanted][given] makes rows of the kind that is wanted from a row of another kind; what is not listed does not
# serve. A tie is a Pair and stays one; it is nothing to learn an answer from.
VIEWS: Mapping[type[Any], Mapping[type[Any], Callable[[Any], Iterable[Any]]]] = {
    Pair: {Pair: _itself, Ranking: _pairs_of_ranking},
    Ranking: {Ranking: _itself, Pair: _ranking_of_pair},
    Labelled: {Labelled: _itself, Steps: _labelled_of_steps, Pair: _labelled_of_pair},
    Demonstration: {
        Demonstration: _itself,
        Pair: _demonstration_of_pair,
        Ranking: _demonstrations_of_ranking,
        Labelled: _demonstration_of_labelled,
    },
    Prompt: {Prompt: _itself, Pair: _prompt_of, Ranking: _prompt_of, Labelled: _prompt_of, Steps: _prompt_of},
}
