"""Claims about scored answers that are labelled one by one."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kilter.measure.answers import AnswerScores
from kilter.measure.labelled import ScoredLabelled, score_labelled, summary
from kilter.measure.pairs import score_pairs
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import EncodedLabelled
from measure.test_pairs import CHOSEN, PAIRS, REJECTED, token_kl_sums
from model.plain import completion_scores, in_float64, in_plain_float64

MakeModel = Callable[..., PreTrainedModel]
LABELLED = [
    EncodedLabelled(sequence, good, pair.origin)
    for pair in PAIRS
    for sequence, good in ((pair.chosen, True), (pair.rejected, False))
]


def scored(log_ratio: list[float], good: list[bool]) -> ScoredLabelled:
    log_prob = np.array(log_ratio) - 5
    return ScoredLabelled(AnswerScores(np.full(len(good), 2.0), log_prob, np.full(len(good), -5.0)), np.array(good))


def test_means_and_auc_are_those_worked_out_by_hand() -> None:
    """Good 1, 3 and bad 2, -2, 1: of six couples four are right, one ties and one is wrong."""
    row = summary(scored([1, 2, 3, -2, 1], [True, False, True, False, False]))
    assert (row["answers"], row["good"]) == (5, 2)
    assert row["good_log_ratio"] == 2
    assert row["bad_log_ratio"] == pytest.approx(1 / 3)
    assert row["good_log_prob"] == -3
    assert row["auc"] == row["likelier"] == pytest.approx(4.5 / 6)
    assert row["auc_low"] < row["auc"] < row["auc_high"]


@pytest.mark.parametrize("label", [True, False])
def test_answers_of_one_label_have_no_auc_and_nothing_is_said_of_the_other(label: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        row = summary(scored([1, 2], [label, label]))
    present, absent = ("good", "bad") if label else ("bad", "good")
    assert math.isnan(row["auc"])
    assert row[f"{present}_log_ratio"] == 1.5
    assert not [name for name in row if name.startswith(f"{absent}_") or name.endswith(f"_{absent}")]


def test_scores_come_back_from_arrays() -> None:
    first = scored([1, 2, 3], [True, False, True])
    again = ScoredLabelled.from_arrays(first.arrays())
    assert again.good_A.tolist() == [True, False, True]
    assert again.good.log_ratio_A.tolist() == [1, 3]
    assert again.answers.kl_policy_reference_A is None


@pytest.mark.parametrize("node_budget", [10, 30, 4096])
def test_scores_and_token_kl_equal_those_of_the_models_own_forward(node_budget: int, tiny_model: MakeModel) -> None:
    models = [tiny_model("llama", seed=seed) for seed in (0, 1)]
    policy, reference = (Scorer(in_float64(copy.deepcopy(model))) for model in models)
    own, other = (in_plain_float64(model) for model in models)
    told: list[int] = []
    got = score_labelled(
        policy, LABELLED, reference=reference, exact_kl=True, node_budget=node_budget, on_progress=told.append
    )
    assert sum(told) == len(LABELLED)
    for answers, sequences in ((got.good, CHOSEN), (got.bad, REJECTED)):
        assert answers.reference_log_prob_A is not None
        with torch.no_grad():
            np.testing.assert_allclose(answers.log_prob_A, completion_scores(own, sequences), atol=1e-10)
            np.testing.assert_allclose(answers.reference_log_prob_A, completion_scores(other, sequences), atol=1e-10)
            np.testing.assert_allclose(answers.kl_policy_reference_A, token_kl_sums(own, other, sequences), atol=1e-10)
            np.testing.assert_allclose(answers.kl_reference_policy_A, token_kl_sums(other, own, sequences), atol=1e-10)
    pairs = score_pairs(policy, PAIRS, reference=reference)
    gaps = pairs.chosen.log_ratio_A[:, None] - pairs.rejected.log_ratio_A[None, :]
    assert got.auc.value == pytest.approx((np.sign(gaps) / 2 + 0.5).mean(), abs=1e-12)


def test_a_policy_that_is_its_reference_has_moved_by_nothing(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    row = summary(score_labelled(scorer, LABELLED, reference=scorer, exact_kl=True))
    moved = [value for name, value in row.items() if "ratio" in name or "kl" in name]
    assert moved == [0.0] * 6
    assert row["auc"] == 0.5
