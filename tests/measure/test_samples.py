"""Claims about samples' statistics: answer KL against enumeration, and counts worked out by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kilter.measure import samples as measured
from kilter.measure.samples import (
    SampleEvaluation,
    ScoredSample,
    answer_kl,
    repetition,
    sample_evaluation,
    score_samples,
)
from kilter.model.sampler import Sample, SamplingSettings, TransformersSampler
from kilter.model.scorer import Scorer
from kilter.model.token_values import token_values
from kilter.tokens.sequence import Ids, TokenSequence
from model.plain import in_plain_float64, token_log_probs

MakeModel = Callable[..., PreTrainedModel]

VOCABULARY, EOS, LONGEST = 3, 0, 3
PROMPTS: list[Ids] = [np.array(p, np.int32) for i in range(VOCABULARY) for p in ([i], [i, 2 - i])]
SETTINGS = SamplingSettings(max_new_tokens=LONGEST)


def all_answers() -> list[list[int]]:
    """Every answer of at most three tokens: those that end with EOS, and those cut for want of room."""
    words = range(1, VOCABULARY)
    ended = [[*head, EOS] for n in range(LONGEST) for head in itertools.product(words, repeat=n)]
    return ended + [list(whole) for whole in itertools.product(words, repeat=LONGEST)]


def enumerated(model: PreTrainedModel, prompt: Ids) -> torch.Tensor:
    """The log-prob of each of them, by the model's own forward in float64, one sequence at a time."""
    with torch.no_grad():
        sequences = [TokenSequence(np.array([*prompt, *answer], np.int32), len(prompt)) for answer in all_answers()]
        return torch.stack([token_log_probs(model, sequence).sum() for sequence in sequences])


@pytest.fixture
def exact(tiny_model: MakeModel) -> dict[str, list[float]]:
    """KL(p, q) and KL(q, p) of the answers to each prompt, summed over all answers."""
    p, q = (in_plain_float64(tiny_model("llama", vocab_size=VOCABULARY, seed=seed)) for seed in (0, 1))
    forward, backward = [], []
    for prompt in PROMPTS:
        log_p, log_q = enumerated(p, prompt), enumerated(q, prompt)
        assert float(log_p.exp().sum()) == pytest.approx(1)
        forward.append(float((log_p.exp() * (log_p - log_q)).sum()))
        backward.append(float((log_q.exp() * (log_q - log_p)).sum()))
    return {"forward": forward, "backward": backward}


@pytest.fixture
def pair(tiny_model: MakeModel) -> tuple[Scorer, Scorer]:
    first, second = (Scorer(tiny_model("llama", vocab_size=VOCABULARY, seed=seed)) for seed in (0, 1))
    return first, second


def drawn(policy: Scorer, count: int, settings: SamplingSettings = SETTINGS) -> list[Sample]:
    prompts = [prompt for prompt in PROMPTS for _ in range(count)]
    return TransformersSampler(policy, frozenset({EOS}), settings).sample(prompts, seed=0)


def distance(value: float, exact: Sequence[float], scored: Sequence[ScoredSample], value_S: Sequence[float]) -> float:
    """How many standard errors an estimate is from the exact mean over these very prompts."""
    count = len(scored) // len(PROMPTS)
    apart = np.array(value_S).reshape(len(PROMPTS), count)
    error = math.sqrt(float((apart.var(axis=1, ddof=1) / count).sum())) / len(PROMPTS)
    return (value - float(np.mean(exact))) / error


# Answer KL


def test_both_estimates_are_the_enumerated_kl_within_their_errors_and_in_its_direction(
    exact: dict[str, list[float]], pair: tuple[Scorer, Scorer]
) -> None:
    """The other direction, and either sign, is many standard errors away."""
    policy, reference = pair
    scored = score_samples(policy, drawn(policy, 400), reference)
    found = answer_kl(scored)
    kl_S = [float(row.kl.sum()) for row in scored if row.kl is not None]
    ratio_S = [float((row.log_prob - row.reference_log_prob).sum()) for row in scored]  # type: ignore[operator]
    for estimate, value_S in ((found.kl, kl_S), (found.log_ratio, ratio_S)):
        assert abs(distance(estimate.value, exact["forward"], scored, value_S)) < 3.5
        assert abs(distance(estimate.value, exact["backward"], scored, value_S)) > 10
        assert distance(-estimate.value, exact["forward"], scored, value_S) < -10
    swapped = answer_kl(score_samples(reference, [row.sample for row in scored], policy)).kl.value
    assert abs(distance(swapped, exact["forward"], scored, kl_S)) > 10


def test_sums_of_token_kl_weighted_by_exact_probabilities_are_the_kl_exactly(
    exact: dict[str, list[float]], pair: tuple[Scorer, Scorer]
) -> None:
    policy, reference = pair
    for prompt, wanted in zip(PROMPTS, exact["forward"], strict=True):
        every = [Sample(prompt, np.array(a, np.int32), np.zeros(len(a)), a[-1] == EOS) for a in all_answers()]
        scored = score_samples(policy, every, reference)
        p = np.exp([row.log_prob.sum() for row in scored])
        kl = [row.kl.sum() for row in scored if row.kl is not None]
        assert p @ kl == pytest.approx(wanted, abs=1e-5)


def test_exact_token_kl_gives_the_smaller_error_and_the_error_is_that_over_prompts(pair: tuple[Scorer, Scorer]) -> None:
    policy, reference = pair
    scored = score_samples(policy, drawn(policy, 4), reference)
    found = answer_kl(scored)
    assert found.kl.standard_error < found.log_ratio.standard_error
    means = np.array([row.kl.sum() for row in scored if row.kl is not None]).reshape(len(PROMPTS), 4).mean(1)
    assert found.kl.value == pytest.approx(means.mean())
    assert found.kl.standard_error == pytest.approx(means.std(ddof=1) / math.sqrt(len(PROMPTS)))


def test_of_a_model_to_itself_it_is_zero(pair: tuple[Scorer, Scorer]) -> None:
    policy, _ = pair
    found = answer_kl(score_samples(policy, drawn(policy, 1), policy))
    assert found.kl.value == pytest.approx(0, abs=1e-9)
    assert found.log_ratio.value == 0


def test_colder_answers_are_not_called_by_the_name_of_answer_kl_which_they_miss(
    exact: dict[str, list[float]], pair: tuple[Scorer, Scorer]
) -> None:
    policy, reference = pair
    settings = SamplingSettings(LONGEST, temperature=0.2)
    cold = SampleEvaluation(score_samples(policy, drawn(policy, 100, settings), reference), settings)
    assert not any("answer_kl" in name for name in cold.summary())
    kl_S = [float(row.kl.sum()) for row in cold.scored if row.kl is not None]
    assert abs(distance(answer_kl(cold.scored).kl.value, exact["forward"], cold.scored, kl_S)) > 5
    tokens = sum(len(sample.answer) for sample in cold.samples)
    assert cold.summary()["kl_policy_reference_along_policy_answers"] == pytest.approx(sum(kl_S) / tokens)


@pytest.fixture
def tiny_tokenizer() -> object:
    class Tokenizer:
        eos_token_id = EOS

        def decode(self, ids: list[int], **_: object) -> str:
            return "".join(".abc"[token] for token in ids)

    return Tokenizer()


# Statistics


@pytest.mark.parametrize(
    ("answer", "share"),
    [
        ([1, 2, 3], 0.0),  # no 4-gram at all
        ([1, 2, 3, 4, 5], 0.0),
        ([1, 1, 1, 1, 1], 1 / 2),  # two 4-grams, one of them new
        ([1, 2, 1, 2, 1, 2, 1], 2 / 4),  # 1212, 2121, 1212, 2121
        ([7] * 103, 99 / 100),
    ],
)
def test_repetition_is_the_share_of_4_grams_seen_before(answer: list[int], share: float) -> None:
    assert repetition(np.array(answer, np.int32)) == pytest.approx(share)


def test_a_summary_and_rows_are_those_worked_out_by_hand(tiny_tokenizer: object) -> None:
    prompt = np.array([1], np.int32)
    told = (([2, 3, 0], [-1.0, -2.0, -3.0], True), ([2, 2, 2, 2, 2], [-1.0] * 5, False))
    scored = [
        ScoredSample(
            Sample(prompt, np.array(ids, np.int32), np.array(log_prob) + 0.5, finished),
            np.array(log_prob),
            np.full(len(ids), 0.5),
            np.array(log_prob) - 1,
            np.full(len(ids), 0.25),
        )
        for ids, log_prob, finished in told
    ]
    evaluation = SampleEvaluation(scored, SamplingSettings(max_new_tokens=5))
    assert evaluation.summary() == pytest.approx(
        {
            "samples": 2,
            "sample_prompts": 1,
            "sample_tokens": 4,
            "sample_finished": 0.5,
            "sample_repetition": 0.25,
            "sample_log_prob": -11 / 8,
            "sampler_disagreement": 0.5,
            "sampler_disagreement_mean": 0.5,
            "policy_entropy_along_policy_answers": 0.5,
            "kl_policy_reference_along_policy_answers": 0.25,
            "answer_entropy_policy": 2.0,
            "answer_entropy_policy_se": 0.5,
            "answer_kl_policy_reference": 1.0,
            "answer_kl_policy_reference_se": 0.25,
            "answer_kl_policy_reference_variance": 0.125,
            "answer_kl_policy_reference_k1": 4.0,
            "answer_kl_policy_reference_k1_se": 1.0,
            "answer_kl_policy_reference_k1_variance": 2.0,
            "answer_kl_policy_reference_k3": 4 / math.e,
            "answer_kl_policy_reference_k3_se": 1 / math.e,
            "answer_kl_policy_reference_k3_variance": 2 / math.e**2,
        }
    )
    first, second = evaluation.rows(tiny_tokenizer)  # type: ignore[arg-type]
    assert first == {
        "prompt": "a",
        "answer": "bc",
        "tokens": 3,
        "finished": True,
        "repetition": 0.0,
        "log_prob": -6.0,
        "reference_log_prob": -9.0,
        "kl_policy_reference": 0.75,
    }
    assert (second["answer"], second["repetition"]) == ("bbbbb", 0.5)
    assert json.loads(json.dumps(second)) == second


def test_without_a_reference_there_is_no_kl(pair: tuple[Scorer, Scorer], tiny_tokenizer: object) -> None:
    told: list[int] = []
    found = sample_evaluation(
        pair[0], None, PROMPTS, SETTINGS, tokenizer=tiny_tokenizer, seed=1, on_progress=told.append  # type: ignore[arg-type]
    )  # fmt: skip
    assert sum(told) == len(PROMPTS)
    assert found.answer_kl is None
    assert not any("kl" in name or "ratio" in name for name in found.summary())
    assert 0 <= found.summary()["sampler_disagreement"] < 1e-4


def test_a_wrong_sampler_shows_in_the_summary(
    pair: tuple[Scorer, Scorer], tiny_tokenizer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that answers for another model."""
    policy, other = pair

    def of_the_other(scorer: Scorer, *given: object) -> TransformersSampler:
        return TransformersSampler(other, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(measured, "TransformersSampler", of_the_other)
    found = sample_evaluation(policy, None, PROMPTS, SETTINGS, tokenizer=tiny_tokenizer, seed=1)  # type: ignore[arg-type]
    assert found.summary()["sampler_disagreement"] > 0.1


@pytest.mark.parametrize("node_budget", [9, 40, 2048])
def test_token_values_are_those_of_single_sequences_however_they_are_packed(
    node_budget: int, tiny_model: MakeModel
) -> None:
    draw = np.random.default_rng(0)
    start = draw.integers(0, 48, 3).tolist()
    sequences = [TokenSequence(np.array(start + draw.integers(0, 48, n).tolist(), np.int32), 3) for n in (4, 1, 6, 4)]
    sequences.append(sequences[2])
    values = token_values(Scorer(tiny_model("llama")), sequences, node_budget=node_budget)
    own = in_plain_float64(tiny_model("llama"))
    for (found,), sequence in zip(values, sequences, strict=True):
        np.testing.assert_allclose(found, token_log_probs(own, sequence).detach().numpy(), atol=1e-4)
