"""Claims about scored pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kilter.data.records import Origin
from kilter.errors import ConfigError
from kilter.measure.answers import AnswerScores
from kilter.measure.config import ScoreConfig
from kilter.measure.pairs import ScoredPairs, score_pairs, summary
from kilter.measure.score import score
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import EncodedPair
from kilter.tokens.sequence import TokenSequence
from model.plain import completion_scores, in_float64, in_plain_float64

MakeModel = Callable[..., PreTrainedModel]


def encoded_pairs(count: int = 6) -> list[EncodedPair]:
    """Pairs on three prompts, one answer of each with a weight of 0 on its second token."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 40, 4).tolist() for _ in range(3)]

    def answer(pair: int, size: int, masked: bool) -> TokenSequence:
        prompt = prompts[pair % 3]
        ids = np.array(prompt + draw.integers(0, 40, size).tolist(), np.int32)
        weights = np.array([1, 0] + [1] * (size - 2), np.float32) if masked else None
        return TokenSequence(ids, len(prompt), weights)

    return [EncodedPair(answer(p, 3 + p % 3, True), answer(p, 4, False), Origin("pairs", p)) for p in range(count)]


PAIRS = encoded_pairs()
CHOSEN, REJECTED = [pair.chosen for pair in PAIRS], [pair.rejected for pair in PAIRS]


def token_kl_sums(p: PreTrainedModel, q: PreTrainedModel, sequences: list[TokenSequence]) -> list[float]:
    """KL(p, q) of the full next-token distributions, summed over each completion's tokens of weight 1."""
    sums = []
    for s in sequences:
        ids = torch.from_numpy(s.ids.astype("int64"))[None]
        p_TV, q_TV = (model(input_ids=ids, use_cache=False).logits[0].softmax(-1) for model in (p, q))
        kl_T: Tensor = (p_TV * (p_TV / q_TV).log()).sum(-1)
        weight = torch.ones(len(s.ids) - s.first) if s.weights is None else torch.from_numpy(s.weights)
        sums.append(float((kl_T[s.first - 1 : -1] * weight).sum()))
    return sums


def answer_scores(log_prob: list[float], reference: list[float] | None = None, tokens: float = 2.0) -> AnswerScores:
    return AnswerScores(
        np.full(len(log_prob), tokens), np.array(log_prob), None if reference is None else np.array(reference)
    )


def test_gap_accuracy_and_likelier_are_those_worked_out_by_hand() -> None:
    """Chosen log-ratios 1, -1, 2 against 0, 0, 2: right, wrong, a tie."""
    scored = ScoredPairs(answer_scores([-4, -6, -1], [-5, -5, -3]), answer_scores([-3, -8, -1], [-3, -8, -3]))
    assert scored.gap_P.tolist() == [1, -1, 0]
    assert scored.correct_P.tolist() == [1, 0, 0.5]
    assert scored.likelier_P.tolist() == [0, 1, 0.5]
    assert scored.accuracy.value == 0.5
    row = summary(scored)
    assert (row["pairs"], row["gap"], row["likelier"]) == (3, 0, 0.5)
    assert row["chosen_log_ratio"] == pytest.approx(2 / 3)
    assert row["rejected_log_prob"] == -4


def test_without_a_reference_log_probs_take_the_place_of_log_ratios() -> None:
    scored = ScoredPairs(answer_scores([-4, -6]), answer_scores([-3, -8]))
    assert scored.gap_P.tolist() == [-1, 2]
    assert "chosen_log_ratio" not in summary(scored)


def test_kl_is_summed_up_in_nats_per_token_not_per_answer() -> None:
    """Sums of 3 and 1 nats over 2 and 6 tokens: half a nat per token."""
    kl = np.array([3.0, 1.0])
    answer = AnswerScores(np.array([2.0, 6.0]), np.zeros(2), np.zeros(2), kl, 3 * kl)
    row = summary(ScoredPairs(answer, answer))
    assert (row["kl_policy_reference_along_chosen"], row["kl_reference_policy_along_rejected"]) == (0.5, 1.5)


@pytest.mark.parametrize("node_budget", [10, 30, 4096])
def test_scores_and_token_kl_equal_those_of_the_models_own_forward(node_budget: int, tiny_model: MakeModel) -> None:
    models = [tiny_model("llama", seed=seed) for seed in (0, 1)]
    policy, reference = (Scorer(in_float64(copy.deepcopy(model))) for model in models)
    own, other = (in_plain_float64(model) for model in models)
    scored = score_pairs(policy, PAIRS, reference=reference, exact_kl=True, node_budget=node_budget)
    for answer, sequences in ((scored.chosen, CHOSEN), (scored.rejected, REJECTED)):
        assert answer.reference_log_prob_A is not None
        with torch.no_grad():
            np.testing.assert_allclose(answer.log_prob_A, completion_scores(own, sequences), atol=1e-10)
            np.testing.assert_allclose(answer.reference_log_prob_A, completion_scores(other, sequences), atol=1e-10)
            np.testing.assert_allclose(answer.kl_policy_reference_A, token_kl_sums(own, other, sequences), atol=1e-10)
            np.testing.assert_allclose(answer.kl_reference_policy_A, token_kl_sums(other, own, sequences), atol=1e-10)
    assert scored.chosen.tokens_A.tolist() == [2, 3, 4, 2, 3, 4]
    assert scored.rejected.tokens_A.tolist() == [4] * 6


def test_a_policy_that_is_its_reference_has_moved_by_nothing(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    row = summary(score_pairs(scorer, PAIRS, reference=scorer, exact_kl=True))
    moved = [value for name, value in row.items() if name == "gap" or "ratio" in name or "kl" in name]
    assert moved == [0.0] * 7
    assert row["accuracy"] == 0.5


@pytest.mark.parametrize("reference", [False, True])
def test_what_was_not_asked_for_is_absent(reference: bool, tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    answer = score_pairs(scorer, PAIRS, reference=scorer if reference else None).chosen
    assert (answer.reference_log_prob_A is not None) == reference
    assert answer.kl_policy_reference_A is answer.kl_reference_policy_A is None


@pytest.mark.parametrize("node_budget", [10, 30, 4096])
def test_progress_counts_every_pair_once(node_budget: int, tiny_model: MakeModel) -> None:
    """At a budget of 10 each pair of 11 nodes or more is split between micro-batches."""
    told: list[int] = []
    score_pairs(Scorer(tiny_model("llama")), PAIRS, node_budget=node_budget, on_progress=told.append)
    assert sum(told) == len(PAIRS)


def test_no_pairs_have_no_accuracy(tiny_model: MakeModel) -> None:
    scored = score_pairs(Scorer(tiny_model("llama")), [])
    assert len(scored) == 0
    assert math.isnan(scored.accuracy.value)


def test_scores_are_not_written_over_the_pairs_that_were_scored(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    with pytest.raises(ConfigError, match=r"pairs.jsonl is one of the files to read"):
        score(ScoreConfig(model="no-model", data=path, out=path, overwrite=True, device="cpu"))
    assert path.stat().st_size
