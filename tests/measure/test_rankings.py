"""Claims about scored rankings."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kilter.measure.answers import AnswerScores
from kilter.measure.pairs import score_pairs
from kilter.measure.rankings import ScoredRankings, score_rankings, summary, told_apart
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import EncodedPair, EncodedRanking
from measure.test_pairs import PAIRS
from model.plain import completion_scores, in_float64, in_plain_float64

MakeModel = Callable[..., PreTrainedModel]
# The answers of both pairs on a prompt, ranked; of the last prompt with a tie.
RANKINGS = [
    EncodedRanking(
        (one.chosen, one.rejected, other.chosen, other.rejected), (2, 3, 1, 3) if p == 2 else (4, 2, 1, 3), one.origin
    )
    for p, (one, other) in enumerate(zip(PAIRS[:3], PAIRS[3:], strict=True))
]


def scored(log_ratio: list[float], ranking: list[int], rank: list[float]) -> ScoredRankings:
    count = len(rank)
    answers = AnswerScores(np.full(count, 2.0), np.array(log_ratio) - 5, np.full(count, -5.0))
    return ScoredRankings(answers, np.array(ranking), np.array(rank))


def test_what_comes_first_and_which_pairs_are_right_is_that_worked_out_by_hand() -> None:
    """Rankings of three (the last answer comes first, though it is second; two of three pairs are right), of two tied
    for the best before one (both tie for the highest log-ratio with the worst), and of two (right)."""
    found = scored([2, 1, 3, 0, 0, 0, -1, -2], [0, 0, 0, 1, 1, 1, 2, 2], [1, 3, 2, 1, 1, 2, 0.5, 7])
    assert len(found) == 3
    assert found.first_R.tolist() == [0, pytest.approx(2 / 3), 1]
    assert found.best_A.tolist() == [True, False, False, True, True, False, True, False]
    assert found.pairs.gap_P.tolist() == [1, -1, 2, 0, 0, 1]
    row = summary(found)
    assert (row["rankings"], row["pairs"]) == (3, 6)
    assert row["accuracy"] == pytest.approx((1 + 0 + 1 + 0.5 + 0.5 + 1) / 6)
    assert row["first"] == row["likeliest"] == pytest.approx((0 + 2 / 3 + 1) / 3)
    assert row["first_low"] < row["first"] < row["first_high"]


def test_the_pairs_of_rankings_are_all_those_whose_ranks_differ() -> None:
    """By going through all couples one by one."""
    draw = np.random.default_rng(0)
    ranking = np.repeat(np.arange(9), draw.integers(2, 6, 9))
    rank = draw.integers(0, 3, len(ranking)).astype(float)
    couples = itertools.permutations(range(len(ranking)), 2)
    wanted = {(i, j) for i, j in couples if ranking[i] == ranking[j] and rank[i] < rank[j]}
    better, worse = told_apart(ranking, rank)
    assert len(better) == len(wanted)
    assert set(zip(better.tolist(), worse.tolist(), strict=True)) == wanted
    assert [part.tolist() for part in told_apart(ranking[:0], rank[:0])] == [[], []]


def test_scores_come_back_from_arrays() -> None:
    first = scored([1, 2, 3], [0, 0, 0], [2, 1, 3])
    again = ScoredRankings.from_arrays(first.arrays())
    assert again.first_R.tolist() == first.first_R.tolist() == [0]
    assert again.ranking_A.dtype == first.ranking_A.dtype
    assert (again.pairs.gap_P == first.pairs.gap_P).all()


@pytest.mark.parametrize("node_budget", [10_000, 14])
def test_answers_of_rankings_score_as_separate_sequences_do(node_budget: int, tiny_model: MakeModel) -> None:
    policy, reference = tiny_model("llama"), tiny_model("llama", seed=1)
    told: list[int] = []
    found = score_rankings(
        Scorer(in_float64(copy.deepcopy(policy))),
        RANKINGS,
        reference=Scorer(in_float64(copy.deepcopy(reference))).frozen(),
        exact_kl=True,
        node_budget=node_budget,
        on_progress=told.append,
    )
    sequences = [sequence for ranking in RANKINGS for sequence in ranking.sequences]
    with torch.no_grad():
        wanted = [completion_scores(in_plain_float64(model), sequences).numpy() for model in (policy, reference)]
    np.testing.assert_allclose(found.answers.log_prob_A, wanted[0], rtol=1e-10)
    np.testing.assert_allclose(found.answers.log_ratio_A, wanted[0] - wanted[1], rtol=1e-10, atol=1e-10)
    assert sum(told) == 12
    assert found.ranking_A.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_all_pairs_of_rankings_score_as_those_pairs_do(tiny_model: MakeModel) -> None:
    models = Scorer(in_float64(tiny_model("llama"))), Scorer(in_float64(tiny_model("llama", seed=1))).frozen()
    found = score_rankings(models[0], RANKINGS, reference=models[1], exact_kl=True)
    sequences = [sequence for ranking in RANKINGS for sequence in ranking.sequences]
    couples = zip(*told_apart(found.ranking_A, found.rank_A), strict=True)
    pairs = [EncodedPair(sequences[i], sequences[j], RANKINGS[0].origin) for i, j in couples]
    assert len(pairs) == 6 + 6 + 5
    wanted = score_pairs(models[0], pairs, reference=models[1], exact_kl=True).arrays()
    for name, values in found.pairs.arrays().items():
        np.testing.assert_allclose(values, wanted[name], rtol=1e-10, atol=1e-10)
