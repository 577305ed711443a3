"""Global batches: which examples, which completions, cut into which micro-batches; made ahead of the step.

Axes: C completions of a global batch, in places 0 to C - 1; P pairs; A answers.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from kilter.data.records import Origin
from kilter.measure.rankings import told_apart
from kilter.model.prepared import PreparedTree
from kilter.model.workers import ALONE, Workers
from kilter.objectives import LabelledScores, Mixture, Objective, PairScores, RankingScores, Scores
from kilter.tokens.encoding import EncodedDemonstration, EncodedLabelled, EncodedPair, EncodedRanking
from kilter.tokens.packing import Packing, deal, pack_dealt
from kilter.tokens.sequence import TokenSequence, Weights
from kilter.tokens.tree import Ints, TokenTree

T = TypeVar("T")
Examples = Literal["pairs", "rankings", "labelled", "demonstrations"]


@dataclass(frozen=True, eq=False)
class PreparedMicroBatch:
    """A tree and the places of its completions in the global batch.

    `shared_weight_E` are the weights of edges with 0 beyond the length of the shorter answer of a pair.
    """

    tree: PreparedTree
    place_C: Tensor
    unit_C: Ints
    shared_weight_E: Tensor


class Ranks(NamedTuple):
    """Which ranking each completion is of, one after the other, and its rank there."""

    ranking_C: Tensor
    rank_C: Tensor

    def of_whole_rankings(self, present_C: Tensor | None = None) -> tuple[Tensor, Ranks]:
        """The places of those rankings whose answers are all present (None: of all), and their ranks, numbered anew."""
        whole_C = torch.ones_like(self.ranking_C, dtype=torch.bool)
        if present_C is not None:
            whole_C = ~torch.isin(self.ranking_C, self.ranking_C[~present_C])
        numbered = torch.unique_consecutive(self.ranking_C[whole_C], return_inverse=True)[1]
        return whole_C.nonzero()[:, 0], Ranks(numbered, self.rank_C[whole_C])


@dataclass(frozen=True, eq=False)
class Batch:
    """A global batch, and this worker's share of it, packed.

    `chosen` and `rejected` are places of completions, pair by pair; of labelled answers the good and the bad ones, as
    many as there are of each; of rankings the best answers and all others; demonstrations are all `chosen`. `trained`
    holds those completions; `scored` also the `mismatched` ones, which only a no-gradient pass looks at. `margin_P` and
    `preference_P` are what the data say of pairs besides, `ranks` what they say of rankings. `whole` says that no unit
    was split between micro-batches. Only the micro-batches are this worker's own: all else, and the number of
    micro-batches, is the same for all `workers`.
    """

    examples: Examples
    origins: tuple[Origin, ...]
    completions: int
    chosen: Tensor
    rejected: Tensor
    mismatched: Tensor
    weight_C: Tensor
    trained: tuple[PreparedMicroBatch, ...]
    scored: tuple[PreparedMicroBatch, ...]
    whole: bool
    nodes: int
    workers: Workers = ALONE
    margin_P: Tensor | None = None
    preference_P: Tensor | None = None
    ranks: Ranks | None = None

    @property
    def all_in_one(self) -> bool:
        """Whether one micro-batch, on one worker, holds all that is scored."""
        return len(self.trained) == self.workers.count == 1 and self.trained is self.scored

    def denominator(self, objective: Objective) -> float:
        """What the summed loss of the global batch is divided by."""
        if objective.denominator == "tokens":
            return float(self.weight_C[self.chosen].sum())
        if objective.denominator == "rankings":
            return float(len(self.origins))
        return float(len(self.chosen) + (len(self.rejected) if objective.denominator == "answers" else 0))

    def scores(
        self, objective: Objective, sums_C: Mapping[str, Tensor], present_C: Tensor | None = None
    ) -> PairScores | RankingScores | LabelledScores | Scores:
        """What the objective is given of the units whose completions are all `present_C` (None: of every unit)."""

        def at(places: Tensor) -> Scores:
            return Scores(**{name: sum_C[places] for name, sum_C in sums_C.items()})

        chosen, rejected, margin_P, preference_P = self.chosen, self.rejected, self.margin_P, self.preference_P
        if objective.takes == "pairs":
            if present_C is not None:
                both = present_C[chosen] & present_C[rejected]
                chosen, rejected = chosen[both], rejected[both]
                margin_P, preference_P = (None if x is None else x[both] for x in (margin_P, preference_P))
            return PairScores(at(chosen), at(rejected), margin_P, preference_P)
        if objective.takes == "labelled":
            return LabelledScores(at(chosen), at(rejected), at(self.mismatched))
        if objective.takes == "rankings":
            assert self.ranks is not None
            places, ranks = self.ranks.of_whole_rankings(present_C)
            return RankingScores(at(places), *ranks)
        places = chosen if objective.takes == "answers" else torch.cat([chosen, rejected])
        return at(places if present_C is None else places[present_C[places]])

    @property
    def compared(self) -> tuple[Tensor, Tensor]:
        """Places of the better and of the worse answer of every pair, or of every two that a ranking tells apart."""
        if self.ranks is None:
            return self.chosen, self.rejected
        better, worse = told_apart(*(x.cpu().numpy() for x in self.ranks))
        return torch.from_numpy(better), torch.from_numpy(worse)

    def losses(
        self,
        mixture: Mixture,
        sums_C: Mapping[str, Tensor],
        state: Mapping[str, float],
        present_C: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Each term's share of its mean loss, unweighted, of the units whose completions are all `present_C`."""
        losses = {}
        for name, row, options in ((term.name, term.objective, term.options) for term in mixture.terms):
            remembered = {key: state[f"{name}.{key}"] for key in row.state}
            loss = row.loss(self.scores(row, sums_C, present_C), **options, **remembered)
            # A batch may have nothing of what a term looks at, such as good answers to imitate: its loss is then 0.
            losses[name] = loss.sum() / (self.denominator(row) or 1.0)
        return losses

    def in_place(self, value_c: Tensor, micro: PreparedMicroBatch) -> Tensor:
        """Values of a micro-batch's completions in their places of the global batch, and zeros: (C,)."""
        return value_c.new_zeros(self.completions).index_copy(0, micro.place_C, value_c)

    def state_after(
        self, mixture: Mixture, sums_C: Mapping[str, Tensor], state: Mapping[str, float]
    ) -> dict[str, float]:
        """What the terms remember once they have seen this batch."""
        after, sums_C = dict(state), {name: sum_C.detach() for name, sum_C in sums_C.items()}
        for name, row, options in ((term.name, term.objective, term.options) for term in mixture.terms):
            if row.remember is not None:
                remembered = {key: state[f"{name}.{key}"] for key in row.state}
                found = row.remember(self.scores(row, sums_C), **options, **remembered)
                after |= {f"{name}.{key}": value for key, value in found.items()}
        return after

    def losses_at_zero(self, mixture: Mixture, sums_C: Mapping[str, Tensor]) -> dict[str, float]:
        """The mean losses that terms with a reference declare for such a batch where policy and reference agree."""
        return {
            term.name: term.objective.at_zero(self.scores(term.objective, sums_C), **term.options)
            for term in mixture.terms
            if term.objective.at_zero is not None
        }


def pair_batch(
    pairs: Sequence[EncodedPair],
    *,
    node_budget: int,
    mismatched: bool = False,
    device: torch.device | str = "cpu",
    node_multiple: int = 1,
    workers: Workers = ALONE,
) -> Batch:
    """Pairs as a batch: places 2p and 2p + 1 are chosen and rejected of pair p.

    `mismatched` adds, for each answer, its prompt with the like answer of the next pair on another prompt.
    """
    units = [(pair.chosen, pair.rejected) for pair in pairs]
    count = len(units)
    margin_P, preference_P = pair_facts(pairs, device)
    return _batch(
        "pairs",
        tuple(pair.origin for pair in pairs),
        units,
        _mismatched(units) if mismatched else [],
        margin_P=margin_P,
        preference_P=preference_P,
        chosen=np.arange(0, 2 * count, 2),
        rejected=np.arange(1, 2 * count, 2),
        node_budget=node_budget,
        device=device,
        node_multiple=node_multiple,
        workers=workers,
    )


def ranking_batch(
    rankings: Sequence[EncodedRanking],
    *,
    node_budget: int,
    device: torch.device | str = "cpu",
    node_multiple: int = 1,
    workers: Workers = ALONE,
) -> Batch:
    """Rankings as a batch, each a unit, its answers side by side: the best are `chosen`, the others `rejected`."""
    best_C = np.array([rank == min(ranking.ranks) for ranking in rankings for rank in ranking.ranks], dtype=bool)
    ranking_C = np.repeat(np.arange(len(rankings)), [len(ranking.ranks) for ranking in rankings])
    rank_C = np.array([rank for ranking in rankings for rank in ranking.ranks])
    return _batch(
        "rankings",
        tuple(ranking.origin for ranking in rankings),
        [ranking.sequences for ranking in rankings],
        [],
        chosen=np.flatnonzero(best_C),
        rejected=np.flatnonzero(~best_C),
        ranks=Ranks(torch.from_numpy(ranking_C).to(device), torch.from_numpy(rank_C).to(device)),
        node_budget=node_budget,
        device=device,
        node_multiple=node_multiple,
        workers=workers,
    )


def labelled_batch(
    labelled: Sequence[EncodedLabelled],
    *,
    node_budget: int,
    mismatched: bool = False,
    device: torch.device | str = "cpu",
    node_multiple: int = 1,
    workers: Workers = ALONE,
) -> Batch:
    """Labelled answers as a batch, each a unit of its own: the good are `chosen`, the bad `rejected`.

    `mismatched` adds, for each answer, its prompt with the answer of the next row on another prompt.
    """
    units = [(row.sequence,) for row in labelled]
    good_C = np.array([row.good for row in labelled], dtype=bool)
    return _batch(
        "labelled",
        tuple(row.origin for row in labelled),
        units,
        _mismatched(units) if mismatched else [],
        chosen=np.flatnonzero(good_C),
        rejected=np.flatnonzero(~good_C),
        node_budget=node_budget,
        device=device,
        node_multiple=node_multiple,
        workers=workers,
    )


def demonstration_batch(
    demonstrations: Sequence[EncodedDemonstration],
    *,
    node_budget: int,
    device: torch.device | str = "cpu",
    node_multiple: int = 1,
    workers: Workers = ALONE,
) -> Batch:
    """Demonstrations as a batch, each a unit of its own."""
    return _batch(
        "demonstrations",
        tuple(d.origin for d in demonstrations),
        [(d.sequence,) for d in demonstrations],
        [],
        chosen=np.arange(len(demonstrations)),
        rejected=np.arange(0),
        node_budget=node_budget,
        device=device,
        node_multiple=node_multiple,
        workers=workers,
    )


def pair_facts(pairs: Sequence[EncodedPair], device: torch.device | str = "cpu") -> tuple[Tensor | None, Tensor]:
    """Margins, where the data give them for all pairs, and preferences: each (P,)."""
    margins = [pair.margin for pair in pairs if pair.margin is not None]
    margin_P = torch.tensor(margins, device=device) if len(margins) == len(pairs) else None
    return margin_P, torch.tensor([pair.preference for pair in pairs], device=device)


def _mismatched(units: Sequence[Sequence[TokenSequence]]) -> list[tuple[TokenSequence, ...]]:
    """For each unit its prompt with the answers of the next unit, round the batch, whose prompt is another.

    The paper takes the next one as it is (arXiv 2402.01306, section 4.1), and so does a batch of a single prompt; but
    where a file holds several answers to each prompt, the next would often be no mismatch. One unit alone has none.
    """
    count = len(units)
    prompts = [unit[0].ids[: unit[0].first].tobytes() for unit in units]
    extra = []
    for place, here in enumerate(units if count > 1 else ()):
        later = [i % count for i in range(place + 1, place + count)]
        other = next((i for i in later if prompts[i] != prompts[place]), later[0])
        extra.append(tuple(map(_answer_of, here, units[other])))
    return extra


def _answer_of(prompted: TokenSequence, answered: TokenSequence) -> TokenSequence:
    ids = np.concatenate([prompted.ids[: prompted.first], answered.ids[answered.first :]])
    return TokenSequence(ids, prompted.first, answered.weights)


def _batch(
    examples: Examples,
    origins: tuple[Origin, ...],
    units: Sequence[Sequence[TokenSequence]],
    extra: Sequence[Sequence[TokenSequence]],
    *,
    chosen: Ints,
    rejected: Ints,
    node_budget: int,
    device: torch.device | str,
    node_multiple: int,
    workers: Workers,
    margin_P: Tensor | None = None,
    preference_P: Tensor | None = None,
    ranks: Ranks | None = None,
) -> Batch:
    unit_C = np.repeat(np.arange(len(units)), [len(unit) for unit in units])
    completions = len(unit_C) + sum(map(len, extra))
    owner_U = deal(units, workers.count)
    packings = pack_dealt(units, owner_U, workers.count, node_budget=node_budget)

    def prepared(packings: Sequence[Packing], unit_C: Ints) -> tuple[PreparedMicroBatch, ...]:
        return tuple(
            PreparedMicroBatch(
                PreparedTree(micro.tree.padded(node_multiple), device),
                torch.from_numpy(micro.completion_C).to(device),
                unit_C[micro.completion_C],
                torch.from_numpy(_shared_weights(micro.tree, shortest_C[micro.completion_C])).to(device),
            )
            for micro in packings[workers.rank].micro_batches
        )

    lengths = [[_scored_tokens(sequence) for sequence in unit] for unit in (*units, *extra)]
    shortest_C = np.repeat([min(unit) for unit in lengths], [len(unit) for unit in lengths])
    trained = scored = prepared(packings, unit_C)
    every = packings
    if extra:
        # A prompt with another's answer may be longer than any row; only a pass without gradient sees it.
        longest = max(len(sequence.ids) for unit in extra for sequence in unit)
        owner_U = np.concatenate([owner_U, owner_U])  # each beside the unit that has its prompt
        every = pack_dealt([*units, *extra], owner_U, workers.count, node_budget=max(node_budget, longest))
        scored = prepared(every, np.arange(completions, dtype=np.int64))
    weight_C = torch.zeros(completions)
    for micro in (micro for packing in every for micro in packing.micro_batches):
        weight_C[micro.completion_C] = torch.from_numpy(micro.tree.weight_C)
    nodes = [len(micro.tree) for packing in packings for micro in packing.micro_batches]
    return Batch(
        examples,
        origins,
        completions,
        chosen=torch.from_numpy(chosen).to(device),
        rejected=torch.from_numpy(rejected).to(device),
        mismatched=torch.arange(len(unit_C), completions, device=device),
        weight_C=weight_C.to(device),
        trained=trained,
        scored=scored,
        whole=all(packing.whole for packing in packings),
        nodes=sum(-(-count // node_multiple) * node_multiple for count in nodes),
        workers=workers,
        margin_P=margin_P,
        preference_P=preference_P,
        ranks=ranks,
    )


def _scored_tokens(sequence: TokenSequence) -> int:
    if sequence.weights is None:
        return len(sequence.ids) - sequence.first
    return int(np.count_nonzero(sequence.weights))


def _shared_weights(tree: TokenTree, shortest_C: Ints) -> Weights:
    """The weights of edges, 0 from the completion's limit on."""
    counts = np.diff(tree.edge_start_C)
    place_E = np.arange(len(tree.edge_weight_E)) - np.repeat(tree.edge_start_C[:-1], counts)
    weights: Weights = np.where(place_E < np.repeat(shortest_C, counts), tree.edge_weight_E, np.float32(0))
    return weights


def shuffled_stream(count: int, seed: int, taken: int = 0) -> Iterator[int]:
    """Positions 0 to count - 1 in a fresh random order each epoch, without end, after the `taken` first ones."""
    first, skipped = divmod(taken, count)
    for epoch in range(first, 1 << 62):
        yield from np.random.default_rng([seed, epoch]).permutation(count).tolist()[skipped:]
        skipped = 0


def batches_of(stream: Iterator[int], size: int, steps: int) -> Iterator[list[int]]:
    """The first `steps` batches of `size` positions; a batch may span two epochs, and never repeats a position
    where the data has as many."""
    for _ in range(steps):
        yield [next(stream) for _ in range(size)]


def made_ahead(items: Iterator[T], make: Callable[[T], Batch], *, ahead: int = 2) -> Generator[tuple[T, Batch]]:
    """Items with the batches made of them by a background thread, at most `ahead` of the one in use.

    Its errors are raised here.
    """
    ready: queue.Queue[tuple[T, Batch] | BaseException | None] = queue.Queue(maxsize=ahead)
    stop = threading.Event()

    def put(item: tuple[T, Batch] | BaseException | None) -> None:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return

    def work() -> None:
        try:
            for item in items:
                if stop.is_set():
                    return
                put((item, make(item)))
            put(None)
        except BaseException as error:
            put(error)

    worker = threading.Thread(target=work, name="kilter-batches", daemon=True)
    worker.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        worker.join()
