"""Claims about the gradient of a global batch: it does not depend on the cut, and is that of the plain objective."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kilter.data.records import Origin
from kilter.model.scorer import Scorer
from kilter.objectives import OBJECTIVES, LabelledScores, PairScores
from kilter.tokens.encoding import EncodedDemonstration, EncodedPair
from kilter.tokens.sequence import TokenSequence
from kilter.train.batches import Batch, demonstration_batch, pair_batch
from kilter.train.step import StepScores, accumulate_gradient, score_completions
from model.plain import completion_scores, flat_gradient, in_float64, in_plain_float64, relative_difference

MakeModel = Callable[..., PreTrainedModel]
PAIRS = 8
WHOLE, SPLITTING = 10_000, 14  # budgets that no batch here reaches, and that most pairs exceed


def completion(draw: np.random.Generator, prompt: list[int], size: int, masked: bool = False) -> TokenSequence:
    weights = np.array([1] * (size - 1) + [0], np.float32) if masked else None
    return TokenSequence(np.array(prompt + draw.integers(0, 40, size).tolist(), np.int32), len(prompt), weights)


def encoded_pairs() -> list[EncodedPair]:
    """Eight pairs on five prompts, answers of three to eight tokens, some with their last token unscored."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 40, size).tolist() for size in (6, 6, 4, 5, 3)]
    return [
        EncodedPair(
            completion(draw, prompts[p % 5], 3 + p % 4, masked=p % 3 == 0),
            completion(draw, prompts[p % 5], 8 - p % 5),
            Origin("pairs", p),
        )
        for p in range(PAIRS)
    ]


ROWS = encoded_pairs()


def batch_of(name: str, node_budget: int) -> Batch:
    """The pairs as the objective takes them; what it imitates are the chosen answers."""
    if OBJECTIVES[name].takes == "answers":
        rows = [EncodedDemonstration(pair.chosen, pair.origin) for pair in ROWS]
        return demonstration_batch(rows, node_budget=node_budget)
    return pair_batch(ROWS, node_budget=node_budget, mismatched=OBJECTIVES[name].takes == "labelled")


def batch_in(name: str, micro_batches: int) -> Batch:
    """The batch at the largest budget that cuts it into so many micro-batches and no unit in two."""
    for node_budget in range(200, 10, -1):
        batch = batch_of(name, node_budget)
        if len(batch.trained) == micro_batches and batch.whole:
            return batch
    raise AssertionError(f"no budget cuts {name} into {micro_batches}")


def gradient(model: PreTrainedModel, reference: PreTrainedModel, batch: Batch, name: str) -> tuple[Tensor, StepScores]:
    row = OBJECTIVES[name]
    frozen = Scorer(reference).frozen() if row.needs_reference else None
    scores = accumulate_gradient(Scorer(model), frozen, batch, row, row.options)
    return flat_gradient(model), scores


def policy_and_reference(tiny_model: MakeModel, spread: float) -> list[PreTrainedModel]:
    """A policy that has left its reference, so that gaps differ and the reference point is not 0."""
    policy, reference = (tiny_model("llama", spread=spread) for _ in range(2))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for parameter in policy.parameters():
            parameter.add_(spread / 6 * torch.randn_like(parameter))
    return [policy, reference]


@pytest.fixture
def models(tiny_model: MakeModel) -> list[PreTrainedModel]:
    return policy_and_reference(tiny_model, spread=0.1)


@pytest.fixture
def sharp_models(tiny_model: MakeModel) -> list[PreTrainedModel]:
    """Models with weights so large that float32 by itself rounds their gradient by 2e-6, to be run in float64."""
    return policy_and_reference(tiny_model, spread=0.3)


def mismatched_sequences() -> list[TokenSequence]:
    """Each prompt with the answers of the next pair, chosen and rejected in turn."""
    sequences = []
    for here, after in zip(ROWS, ROWS[1:] + ROWS[:1], strict=True):
        for prompted, answered in ((here.chosen, after.chosen), (here.rejected, after.rejected)):
            ids = [*prompted.ids[: prompted.first].tolist(), *answered.ids[answered.first :].tolist()]
            sequences.append(TokenSequence(np.array(ids, np.int32), prompted.first, answered.weights))
    return sequences


def plain_loss(name: str, policy: PreTrainedModel, reference: PreTrainedModel) -> Tensor:
    """The objective's mean over the batch, every sequence scored alone, written out without the batch's machinery."""
    row = OBJECTIVES[name]
    chosen, rejected = [pair.chosen for pair in ROWS], [pair.rejected for pair in ROWS]

    def tokens(sequences: list[TokenSequence]) -> Tensor:
        counts = [len(s.ids) - s.first if s.weights is None else s.weights.sum() for s in sequences]
        return torch.tensor(counts, dtype=torch.float64)

    def log_ratio(sequences: list[TokenSequence]) -> Tensor:
        with torch.no_grad():
            reference_C = completion_scores(reference, sequences)
        summed = completion_scores(policy, sequences) - reference_C
        return summed / tokens(sequences) if row.score == "mean" else summed

    match row.takes:
        case "answers":
            return -completion_scores(policy, chosen).sum() / tokens(chosen).sum()
        case "pairs":
            return row.loss(PairScores(log_ratio(chosen), log_ratio(rejected)), **row.options).mean()
        case "labelled":
            scores = map(log_ratio, (chosen, rejected, mismatched_sequences()))
            return row.loss(LabelledScores(*scores), **row.options).mean()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_loss_and_gradient_equal_those_of_the_objective_on_separate_sequences(
    name: str, sharp_models: list[PreTrainedModel]
) -> None:
    """In float64, but for the edges' weights and their sums; those are small whole numbers here."""
    plain, plain_reference = (in_plain_float64(copy.deepcopy(model)) for model in sharp_models)
    wanted_loss = plain_loss(name, plain, plain_reference)
    wanted_loss.backward()
    wanted = flat_gradient(plain)
    policy, reference = map(in_float64, sharp_models)
    for batch in (*(batch_in(name, micro_batches) for micro_batches in (1, 3, 8)), batch_of(name, SPLITTING)):
        got, scores = gradient(policy, reference, batch, name)
        assert scores.loss == pytest.approx(wanted_loss.item(), rel=1e-12)
        assert relative_difference(got, wanted) <= 1e-12


@pytest.mark.parametrize("micro_batches", [3, 8, "split"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_gradient_does_not_depend_on_the_cut(
    name: str, micro_batches: int | str, models: list[PreTrainedModel]
) -> None:
    """Not even where the answers of a pair come to lie in different micro-batches."""
    batch = batch_of(name, SPLITTING) if isinstance(micro_batches, str) else batch_in(name, micro_batches)
    assert batch.whole == (micro_batches != "split" or OBJECTIVES[name].takes == "answers")
    wanted, whole = gradient(*models, batch_of(name, WHOLE), name)
    got, cut = gradient(*models, batch, name)
    assert relative_difference(got, wanted) <= 1e-6
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    torch.testing.assert_close(cut.log_ratio_C, whole.log_ratio_C, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.needs_reference])
def test_a_policy_that_is_its_reference_has_the_loss_declared_at_zero(name: str, models: list[PreTrainedModel]) -> None:
    row = OBJECTIVES[name]
    _, scores = gradient(models[0], copy.deepcopy(models[0]), batch_in(name, 3), name)
    assert row.at_zero is not None
    assert scores.loss == pytest.approx(row.at_zero(**row.options), rel=1e-6)
    assert (scores.log_ratio_C == 0).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_step_against_the_gradient_lowers_the_loss_and_leaves_the_reference(
    name: str, models: list[PreTrainedModel]
) -> None:
    policy, reference = models
    batch, before = batch_in(name, 3), copy.deepcopy(reference.state_dict())
    slope, first = gradient(policy, reference, batch, name)
    step = torch.nn.utils.parameters_to_vector(policy.parameters()) - 1e-2 * slope.float() / slope.float().norm()
    torch.nn.utils.vector_to_parameters(step.detach(), policy.parameters())
    _, second = gradient(policy, reference, batch, name)
    assert second.loss < first.loss
    assert all(parameter.grad is None for parameter in reference.parameters())
    for key, value in reference.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


def test_gradients_of_two_batches_add_up(models: list[PreTrainedModel]) -> None:
    batch, row = batch_in("dpo", 3), OBJECTIVES["dpo"]
    once, _ = gradient(*models, batch, "dpo")
    policy, reference = Scorer(models[0]), Scorer(models[1]).frozen()
    for _ in range(2):
        accumulate_gradient(policy, reference, batch, row, row.options)
    assert relative_difference(flat_gradient(models[0]), 2 * once) <= 1e-6


def test_scores_of_completions_are_in_the_places_of_the_batch(models: list[PreTrainedModel]) -> None:
    """Chosen and rejected of a pair side by side, the mismatched after all of them."""
    batch = pair_batch(ROWS, node_budget=40, mismatched=True)
    sequences = [s for pair in ROWS for s in (pair.chosen, pair.rejected)] + mismatched_sequences()
    got = score_completions(Scorer(in_float64(copy.deepcopy(models[0]))), batch.scored, batch.completions)
    with torch.no_grad():
        wanted = completion_scores(in_plain_float64(models[0]), sequences)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.takes != "answers"])
def test_one_pair_alone_has_a_loss_and_a_gradient(name: str, models: list[PreTrainedModel]) -> None:
    """Also under kto, where no other pair is there to take mismatched answers from."""
    batch = pair_batch(ROWS[:1], node_budget=WHOLE, mismatched=OBJECTIVES[name].takes == "labelled")
    got, scores = gradient(*models, batch, name)
    assert np.isfinite(scores.loss)
    assert torch.isfinite(got).all()
