"""How far judges agree with each other, and with the strengths fitted to all.

Axes: R rows of comparisons, U questions (a prompt and a pair of items), J judges, V verdicts (low, tie, high: which of
the pair by its index was preferred).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from kilter.errors import DataError
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item
from kilter.ranking.cross_validation import probabilities_of


@dataclass(frozen=True, eq=False)
class JudgePairs:
    """Two judges each, where both answered the same questions: those who share most first."""

    first: tuple[Item, ...]
    second: tuple[Item, ...]
    questions: Integers
    agreement: Floats
    """The share of questions on which they say the same."""
    kappa: Floats
    """Agreement beyond chance over the most there can be (Cohen 1960); not a number where chance leaves no room."""


@dataclass(frozen=True, eq=False)
class JudgeAgreement:
    """How judges agree: in pairs, together (Krippendorff's alpha, nominal), and each with the fitted strengths.

    Which of two items is written first is arbitrary, so chance is that of judges who prefer either as often as the
    other. `with_ranking`, J, is the share of a judge's decided verdicts that prefer the item which the fit does, and
    `expected_with_ranking` the share if the model's probabilities were true; NaN without a ranking.
    """

    judges: tuple[Item, ...]
    pairs: JudgePairs
    alpha: float
    """1 where all agree, 0 where they do as by chance; not a number where no question has two judges."""
    questions: int
    """With two judges or more."""
    with_ranking: Floats
    expected_with_ranking: Floats
    decided: Floats
    """J: verdicts for one of two items that the fit tells apart."""
    note: str


def judge_agreement(data: Comparisons | Ranking) -> JudgeAgreement:
    """How judges agree on what two or more of them were asked: the same pair of items on the same prompt.

    A judge who answered a question several times counts for one, by shares. Raises DataError without judges.
    """
    comparisons = data.comparisons if isinstance(data, Ranking) else data
    if comparisons.judge is None:
        raise DataError("the comparisons name no judge; say which column is")
    codes, judge = np.unique(comparisons.judge, return_inverse=True)
    names = tuple(comparisons.judges[code] if comparisons.judges else int(code) for code in codes)
    shares = _verdicts(comparisons, judge, len(names))
    answered = sum(shares[1:], start=shares[0])
    answered.data[:] = 1
    agree, expected, decided = (
        _with_ranking(data, judge, len(names))
        if isinstance(data, Ranking)
        else (np.full(len(names), math.nan), np.full(len(names), math.nan), np.zeros(len(names)))
    )
    alone = np.asarray(answered.sum(axis=0)).ravel() < 2
    prompts = "" if comparisons.prompt is not None else "no prompt is named: a question is a pair of items; "
    return JudgeAgreement(
        names,
        _pairs(shares, answered, names),
        krippendorff(shares),
        int(np.count_nonzero(~alone)),
        agree,
        expected,
        decided,
        f"{prompts}{np.count_nonzero(alone):,} of {len(alone):,} questions have one judge only",
    )


def krippendorff(shares: list[sparse.csr_array]) -> float:
    """Krippendorff's alpha for nominal verdicts (2011), from JU shares of each verdict, by either order of the items.

    Each question counts by its number of judges; those with one do not.
    """
    judges = np.asarray(sum(shares[1:], start=shares[0]).sum(axis=0)).ravel()
    weight = np.divide(1.0, judges - 1, out=np.zeros_like(judges), where=judges > 1.5)
    totals = np.stack([np.asarray(of.sum(axis=0)).ravel() for of in shares])
    of_one = sum(of.multiply(of).sum(axis=0) for of in shares)
    alike = float(weight @ (np.square(totals).sum(axis=0) - np.asarray(of_one).ravel()))
    low, tie, high = totals[:, judges > 1.5].sum(axis=1)
    values = low + tie + high
    if values < 2:
        return math.nan
    decided = (low + high) / 2
    # Values that differ, drawn from all of them without replacement, with either item as likely to be low.
    differing = values**2 - 2 * decided**2 - tie**2
    return 1 - (values - 1) * (values - alike) / differing if differing > 0 else math.nan


def _verdicts(comparisons: Comparisons, judge: NDArray[np.intp], judges: int) -> list[sparse.csr_array]:
    """Three of JU: the share of each verdict among a judge's answers to a question."""
    of = comparisons
    prompt = np.zeros(len(of.left), np.int64) if of.prompt is None else of.prompt
    swapped = of.left > of.right
    low, high = np.where(swapped, of.right, of.left), np.where(swapped, of.left, of.right)
    pair = low.astype(np.int64) * len(of.items) + high
    question = np.unique(np.stack([prompt, pair]), axis=1, return_inverse=True)[1].ravel()
    shape = (judges, int(question.max()) + 1)
    preferred = np.where(swapped, 1 - of.outcome, of.outcome)
    answers = sparse.coo_array((of.count, (judge, question)), shape=shape).tocsr()
    answers.data = 1 / answers.data
    return [
        sparse.coo_array((of.count[said], (judge[said], question[said])), shape=shape).tocsr().multiply(answers).tocsr()
        for said in (preferred > 0.5, preferred == 0.5, preferred < 0.5)
    ]


def _pairs(shares: list[sparse.csr_array], answered: sparse.csr_array, names: tuple[Item, ...]) -> JudgePairs:
    both = sparse.triu((answered @ answered.T), 1).tocoo()
    first, second, questions = both.row, both.col, both.data

    def at(matrix: sparse.csr_array) -> Floats:
        return np.asarray(matrix[first, second]).ravel().astype(np.float64)

    if not len(first):
        empty = np.empty(0)
        return JudgePairs((), (), np.empty(0, np.int32), empty, empty)
    agreement = at(sum((of @ of.T for of in shares[1:]), start=shares[0] @ shares[0].T).tocsr()) / questions
    ties = [at((shares[1] @ answered.T).tocsr()), at((answered @ shares[1].T).tocsr())]
    one, other = ties[0] / questions, ties[1] / questions
    chance = one * other + (1 - one) * (1 - other) / 2
    room = 1 - chance
    kappa = np.divide(agreement - chance, room, out=np.full(len(room), math.nan), where=room > 1e-12)
    order = np.argsort(-questions, kind="stable")
    return JudgePairs(
        tuple(names[index] for index in first[order]),
        tuple(names[index] for index in second[order]),
        questions[order].astype(np.int32),
        agreement[order],
        kappa[order],
    )


def _with_ranking(ranking: Ranking, judge: NDArray[np.intp], judges: int) -> tuple[Floats, Floats, Floats]:
    """J, J and J: how often a judge prefers what the fit does, how often that is expected, and of how many verdicts."""
    of = ranking.comparisons
    won, _, lost = probabilities_of(ranking, of)
    told = (of.outcome != 0.5) & (np.abs(won - lost) > 1e-9)
    times = np.where(told, of.count, 0.0)
    agrees = (of.outcome > 0.5) == (won > lost)
    likely = np.maximum(won, lost) / (won + lost)
    decided = np.bincount(judge, times, judges).astype(np.float64)
    least = np.where(decided > 0, decided, math.nan)
    return (
        np.bincount(judge, times * agrees, judges) / least,
        np.bincount(judge, times * likely, judges) / least,
        decided,
    )
