"""The likelihood of rankings as choices: at every place one item, or several that tie, out of all that are left.

Plackett 1975 and Luce 1959; with ties Davidson and Luce, as Turner, van Etten, Firth and Kosmidis 2020 (Computational
Statistics 35, equation 2): a set S is chosen out of A with probability f(S) / (sum of f over the subsets of A), where
f(S) = delta_|S| times the geometric mean of the strengths in S, delta_1 = 1, up to the largest tie that occurred.
The sums over subsets are elementary symmetric polynomials. A tie of an order that never occurred has delta = 0, which
is its maximum-likelihood estimate.

The choice sets of a ranking are its ends, so that one pass from its last item to its first sums up all of them.
Axes: I items, p parameters (log-strengths, then log delta for every order), N places of a ranking, B rankings of one
length, S sizes of a chosen set, T directions of a derivative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from kilter.errors import DataError
from kilter.ranking.comparisons import UNRANKED, Floats, Integers, Rankings

# Numbers in the largest array of a derivative: some tens of megabytes.
CHUNK = 4_000_000
# How many multiplications of a matrix product take as long as one number of a derivative (measured: some hundreds).
WORTH = 500


class Block(NamedTuple):
    """Rankings of one length, best first: `weight` is how often what begins at a place was the choice set."""

    item: Integers  # NB
    weight: Floats  # NB
    ranking: Integers  # B: which ones


@dataclass(frozen=True, eq=False)
class Choices:
    """All that the likelihood needs of rankings: how often items were chosen, and out of which sets."""

    items: int
    orders: tuple[int, ...]
    """Sizes of the ties that occurred, ascending."""
    chosen: Floats
    """p: how often each item was chosen, a tie of k counting 1/k; then how many ties there were of each order."""
    blocks: tuple[Block, ...]
    games: float
    """Choices of which there was more than one to be made."""

    plan = None  # choice sets of more than two leave no band

    @property
    def start(self) -> Floats:
        """p: equal strengths; ties as probable as one of those who tie."""
        return np.zeros(self.items + len(self.orders))

    def allows(self, parameters: Floats) -> bool:
        """Every log delta is one."""
        return True

    def rounding(self, parameters: Floats) -> float:
        """What rounding may add to the log-likelihood."""
        return 1e-15 * float(self.chosen @ np.abs(parameters))

    def derivatives(self, parameters: Floats, precision: float = 0.0) -> tuple[Floats, ChoicesInformation]:
        """The gradient, and the information with a prior's precision on the items."""
        slope = self.slope(parameters)
        return slope, ChoicesInformation(self, parameters, self.chosen - slope, precision)

    def log_likelihood(self, parameters: Floats) -> float:
        """In nats."""
        total = float(self.chosen @ parameters)
        for block in self.chunks(directions=0):
            total -= float(np.sum(block.weight * self._passed(block, parameters).log_total))
        return total

    def slope(self, parameters: Floats) -> Floats:
        """p: the gradient of the log-likelihood: how often chosen, less how often expected."""
        expected = np.zeros(len(parameters))
        for block in self.chunks(directions=0):
            moments = self.moments(block, parameters)
            expected[: self.items] += np.bincount(block.item.ravel(), moments.expected.ravel(), self.items)
            expected[self.items :] += moments.ties.sum(axis=1)
        return self.chosen - expected

    def information(self, parameters: Floats) -> Floats:
        """pp: minus the second derivatives of the log-likelihood."""
        sets = sum(np.count_nonzero(block.weight) for block in self.blocks)
        if not self.orders and sets * self.items**2 < WORTH * sum(len(b.item) * b.item.size for b in self.blocks):
            return self.information_by_sets(parameters)
        return self.information_by_places(parameters)

    def information_by_sets(self, parameters: Floats) -> Floats:
        """pp, without ties: for each choice set diag(p) - p p' of the probabilities p, as products of matrices."""
        total = np.diag(self.chosen - self.slope(parameters))
        for block in self.chunks(directions=0):
            log_total = self._passed(block, parameters).log_total
            place, ranking = np.nonzero(block.weight)
            step = max(1, CHUNK // self.items)
            for first in range(0, len(place), step):
                start, column = place[first : first + step], ranking[first : first + step]
                item = block.item[:, column]
                logs = parameters[item] - log_total[start, column] + np.log(block.weight[start, column]) / 2
                roots = np.zeros((len(start), self.items))
                within = np.arange(len(item))[:, None] >= start
                np.put_along_axis(roots, item.T, np.exp(np.where(within, logs, -np.inf)).T, axis=1)
                total -= roots.T @ roots
        return total

    def information_by_places(self, parameters: Floats) -> Floats:
        """pp: the derivatives of what is expected at each place by what stands at each other."""
        size, orders = len(parameters), len(self.orders)
        total = np.zeros(size * size)
        for block in self.chunks(directions=None):
            places, rankings = block.item.shape
            directions = np.eye(places + orders)
            moved = self.moments(
                block,
                parameters,
                np.broadcast_to(directions[:, :places, None], (len(directions), places, rankings)),
                directions[:, places:],
            )
            of_tie = np.repeat(np.arange(self.items, size, dtype=np.int64)[:, None], rankings, axis=1)
            index_TB = np.concatenate([block.item.astype(np.int64), of_tie])
            values_TTB = np.concatenate([moved.expected_moves, moved.ties_moves], axis=1)
            cells = index_TB[:, None] * size + index_TB[None]
            total += np.bincount(cells.ravel(), values_TTB.ravel(), size * size)
        return total.reshape(size, size)

    def product(self, parameters: Floats, vectors: Floats) -> Floats:
        """pT: the information times vectors, without the matrix."""
        total = np.zeros(vectors.shape)
        by_tie = vectors[self.items :].T
        for block in self.chunks(directions=len(by_tie)):
            moved = self.moments(block, parameters, np.moveaxis(vectors[block.item], -1, 0), by_tie)
            for moves, of_vector in zip(moved.expected_moves, total.T, strict=True):
                of_vector[: self.items] += np.bincount(block.item.ravel(), moves.ravel(), self.items)
            total[self.items :] += moved.ties_moves.sum(axis=2).T
        return total

    def moments(
        self, block: Block, parameters: Floats, by_place: Floats | None = None, by_tie: Floats | None = None
    ) -> Moments:
        """What is expected to be chosen, and how that moves with the parameters in the directions TNB and T(S - 1)."""
        places, rankings = block.item.shape
        by_place = np.empty((0, places, rankings)) if by_place is None else by_place
        by_tie = np.empty((0, len(self.orders))) if by_tie is None else by_tie
        passed, sizes = self._passed(block, parameters), (1, *self.orders)
        logs_moves = [_moved(lead, by_place / size) for size, lead in zip(sizes, passed.leads, strict=True)]
        score_moves = np.stack([moves[:, size, :-1] for size, moves in zip(sizes, logs_moves, strict=True)], axis=1)
        score_moves[:, 1:] += by_tie[:, :, None, None]
        share_moves = passed.share * (score_moves - np.sum(passed.share * score_moves, axis=1, keepdims=True))
        flow, flow_moves = block.weight * passed.share, block.weight * share_moves
        expected, expected_moves = np.zeros((places, rankings)), np.zeros(by_place.shape)
        for index, size in enumerate(sizes):
            taken, taken_moves = _taken(
                passed.leads[index],
                flow[index],
                flow_moves[:, index],
                by_place / size,
                logs_moves[index],
            )
            expected += taken / size
            expected_moves += taken_moves / size
        return Moments(passed.log_total, expected, flow[1:].sum(axis=1), expected_moves, flow_moves[:, 1:].sum(axis=2))

    def _passed(self, block: Block, parameters: Floats) -> Passed:
        strengths, places = parameters[: self.items][block.item], len(block.item)
        leads, scores = [], []
        for size, log_delta in zip((1, *self.orders), (0.0, *parameters[self.items :]), strict=True):
            log_sum, lead = _symmetric(strengths / size, size)
            leads.append(lead)
            scores.append(log_delta + log_sum[:places])
        score = np.stack(scores)
        log_total: Floats = np.logaddexp.reduce(score, axis=0)
        return Passed(log_total, np.exp(score - log_total), leads)

    def chunks(self, directions: int | None) -> Iterator[Block]:
        """The blocks, cut so that no array is much longer than CHUNK; None: as many directions as parameters."""
        for block in self.blocks:
            places, rankings = block.item.shape
            width = places + len(self.orders) if directions is None else max(directions, 1)
            step = max(1, CHUNK // (places * width * (1 + sum(self.orders))))
            for first in range(0, rankings, step):
                part = slice(first, first + step)
                yield Block(block.item[:, part], block.weight[:, part], block.ranking[part])


@dataclass(frozen=True, eq=False)
class ChoicesInformation:
    """Minus the second derivatives of the log-likelihood at some parameters, with a prior's precision on the items."""

    choices: Choices
    parameters: Floats
    expected: Floats
    """p: how often each item, and each order of tie, is expected to be chosen; no less than what the diagonal holds."""
    precision: float

    @property
    def items(self) -> int:
        """I."""
        return self.choices.items

    @property
    def prior(self) -> Floats:
        """p: what the prior adds to the diagonal."""
        return np.concatenate([np.full(self.items, self.precision), np.zeros(len(self.expected) - self.items)])

    @property
    def diagonal(self) -> Floats:
        """p: what bounds the diagonal."""
        return self.expected + self.prior

    def dense(self) -> Floats:
        """pp."""
        return self.choices.information(self.parameters) + np.diag(self.prior)

    def __matmul__(self, vectors: Floats) -> Floats:
        """The product with pB vectors."""
        return self.choices.product(self.parameters, vectors) + self.prior[:, None] * vectors


class Passed(NamedTuple):
    """Of every end of the rankings: the log of the sum over its subsets, and which part of it each size has."""

    log_total: Floats  # NB
    share: Floats  # SNB
    leads: list[Floats]
    """For each size: by how much sums with the first item lead those without it, on the log scale; kNB."""


class Moments(NamedTuple):
    """What is expected to be chosen from the choice sets, by place and by tie order; and how it moves."""

    log_total: Floats  # NB
    expected: Floats  # NB
    ties: Floats  # (S - 1)B
    expected_moves: Floats  # TNB
    ties_moves: Floats  # T(S - 1)B


def _symmetric(logs: Floats, size: int) -> tuple[Floats, Floats]:
    """Of every end of each column: the log of the symmetric polynomial of that degree; and the leads of each step.

    e_k(first, rest) = e_k(rest) + first e_(k - 1)(rest): sums of positive numbers, so that nothing cancels.
    """
    places, rankings = logs.shape
    sums = np.full((size + 1, places + 1, rankings), -np.inf)
    sums[0] = 0
    leads = np.zeros((size + 1, places, rankings))
    for place in range(places - 1, -1, -1):
        for degree in range(1, min(size, places - place) + 1):
            with_it, without = logs[place] + sums[degree - 1, place + 1], sums[degree, place + 1]
            leads[degree, place] = with_it - without
            sums[degree, place] = np.logaddexp(with_it, without)
    return sums[size], leads


def _moved(leads: Floats, by_place: Floats) -> Floats:
    """T(k+1)(N+1)B: how the logs of the symmetric polynomials move when those of their items do."""
    degrees, places, rankings = leads.shape
    moves = np.zeros((len(by_place), degrees, places + 1, rankings))
    for place in range(places - 1, -1, -1) if len(by_place) else ():
        for degree in range(1, min(degrees - 1, places - place) + 1):
            lead = leads[degree, place]
            moves[:, degree, place] = expit(lead) * (by_place[:, place] + moves[:, degree - 1, place + 1])
            moves[:, degree, place] += expit(-lead) * moves[:, degree, place + 1]
    return moves


def _taken(
    leads: Floats, flow: Floats, flow_moves: Floats, by_place: Floats, logs_moves: Floats
) -> tuple[Floats, Floats]:
    """NB and TNB: how often each place is in a chosen set of this size, if `flow` such sets begin at each; its moves.

    Draws the sets item by item: of those that have `degree` items to come, the item at this place takes a part.
    """
    degrees, places, rankings = leads.shape
    left = np.zeros((degrees, places + 1, rankings))
    left_moves = np.zeros((len(flow_moves), degrees, places + 1, rankings))
    left[-1, :-1], left_moves[:, -1, :-1] = flow, flow_moves
    taken, taken_moves = np.zeros((places, rankings)), np.zeros((len(flow_moves), places, rankings))
    for place in range(places):
        for degree in range(1, min(degrees - 1, places - place) + 1):
            take, leave = expit(leads[degree, place]), expit(-leads[degree, place])
            here, here_moves = left[degree, place], left_moves[:, degree, place]
            taken[place] += here * take
            left[degree - 1, place + 1] += here * take
            left[degree, place + 1] += here * leave
            if not len(flow_moves):
                continue
            lead_moves = by_place[:, place] + logs_moves[:, degree - 1, place + 1] - logs_moves[:, degree, place + 1]
            part = here * take * leave * lead_moves
            taken_moves[:, place] += here_moves * take + part
            left_moves[:, degree - 1, place + 1] += here_moves * take + part
            left_moves[:, degree, place + 1] += here_moves * leave - part
    return taken, taken_moves


class Stages(NamedTuple):
    """Entries of rankings from the best to the last, and the choices that begin at some of them."""

    item: Integers  # E
    ranking: Integers  # E
    left: Integers  # E: how many items of the ranking are left, this one included
    group: Integers  # E: numbers the entries of one place
    begins: NDArray[np.bool_]  # E: a choice out of two items or more begins here
    size: Integers  # E: how many share the entry's place

    @property
    def share(self) -> Floats:
        """E: the entry's part in a choice: 1 if chosen alone, less in a tie, 0 where nothing was left to choose."""
        chosen_from_two = self.begins[np.searchsorted(self.group, self.group)]
        return np.where(chosen_from_two, 1 / self.size, 0.0)

    @property
    def tied(self) -> NDArray[np.bool_]:
        """E: a choice of several begins here."""
        return self.begins & (self.size > 1)


def stages_of(rankings: Rankings) -> Stages:
    """The entries in order of place; raises DataError where a ranking says nothing."""
    last = np.where(rankings.place == UNRANKED, np.iinfo(np.int32).max, rankings.place)
    order = np.lexsort([last, rankings.ranking])
    item, ranking, place = rankings.item[order], rankings.ranking[order], rankings.place[order]
    length = np.bincount(ranking, minlength=len(rankings.count))
    left = (np.cumsum(length)[ranking] - np.arange(len(item))).astype(np.int32)
    new_ranking = np.diff(ranking, prepend=-1) != 0
    new_group = new_ranking | (np.diff(place, prepend=-1) != 0)
    group = np.cumsum(new_group) - 1
    size = np.bincount(group)[group]
    begins = new_group & (place != UNRANKED) & (left >= 2)
    says = np.zeros(len(rankings.count), bool)
    says[ranking[begins]] = True
    if len(silent := np.flatnonzero(~says)):
        raise DataError(
            f"{len(silent):,} rankings put no item above or beside another (the first is number {silent[0] + 1:,}): "
            "a ranking needs two items and a place for one of them; leave those out"
        )
    return Stages(item, ranking, left, group.astype(np.int32), begins, size.astype(np.int32))


def choices_of(rankings: Rankings, stages: Stages | None = None) -> Choices:
    """What the likelihood needs of rankings: equal choice sets, of whichever rankings, are counted as one."""
    stages, items = stages or stages_of(rankings), len(rankings.items)
    times = (rankings.count * rankings.weight)[stages.ranking]
    ties = np.bincount(stages.size[stages.tied], times[stages.tied], 2)
    orders = tuple(int(order) for order in np.flatnonzero(ties))
    weight = np.zeros(len(times))
    first, totals = _equal_sets(stages, items, times)
    weight[first] = totals
    return Choices(
        items,
        orders,
        np.concatenate([np.bincount(stages.item, times * stages.share, items), ties[list(orders)]]),
        _blocks(stages, weight),
        float(rankings.count[stages.ranking[stages.begins]].sum()),
    )


def scores(rankings: Rankings, orders: tuple[int, ...], parameters: Floats) -> sparse.csr_array:
    """Qp: the gradient of the log-likelihood of each ranking by itself, of weight 1; `orders` of ties are possible."""
    stages, items = stages_of(rankings), len(rankings.items)
    blocks = _blocks(stages, stages.begins.astype(np.float64))
    alone = Choices(items, orders, np.zeros(len(parameters)), blocks, float(stages.begins.sum()))
    tie = items + np.searchsorted(orders, stages.size[stages.tied])
    entries = [(stages.ranking, stages.item, stages.share), (stages.ranking[stages.tied], tie, np.ones(len(tie)))]
    for block in alone.chunks(directions=0):
        moments = alone.moments(block, parameters)
        of_orders = np.repeat(np.arange(items, len(parameters)), len(block.ranking))
        entries += [
            (np.tile(block.ranking, len(block.item)), block.item.ravel(), -moments.expected.ravel()),
            (np.tile(block.ranking, len(orders)), of_orders, -moments.ties.ravel()),
        ]
    ranking, parameter, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    return sparse.coo_array((value, (ranking, parameter)), shape=(len(rankings.count), len(parameters))).tocsr()


def _equal_sets(stages: Stages, items: int, count: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Where each choice set is first met, and how often it is met in all.

    A set is known by the sum of its items' codes, twice 64 random bits, without regard to their order.
    """
    codes = np.random.default_rng(0).integers(0, 2**64, (2, items), dtype=np.uint64)[:, stages.item]
    ends = np.arange(len(count)) + stages.left - 1
    through = np.cumsum(codes, axis=1)
    begins = np.flatnonzero(stages.begins)
    high, low = through[:, ends[begins]] - through[:, begins] + codes[:, begins]
    order = np.lexsort([low, high])
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(high[order]) != 0) | (np.diff(low[order]) != 0)
    totals = np.add.reduceat(count[begins][order], np.flatnonzero(new))
    return begins[order[new]], totals


def _blocks(stages: Stages, weight: Floats) -> tuple[Block, ...]:
    """The rankings from their first choice set that counts, those of one length together."""
    counted = np.flatnonzero(weight)
    starts = counted[np.unique(stages.ranking[counted], return_index=True)[1]]
    lengths = stages.left[starts]
    blocks = []
    for length in np.unique(lengths):
        entries = starts[lengths == length] + np.arange(length)[:, None]
        blocks.append(Block(stages.item[entries], weight[entries], stages.ranking[starts[lengths == length]]))
    return tuple(blocks)
