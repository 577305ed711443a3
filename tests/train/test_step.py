"""Claims about the gradient of a global batch: it does not depend on the cut, and is that of the plain objective."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from kilter.data.records import Origin
from kilter.model import scorer as scorer_module
from kilter.model.scorer import Scorer
from kilter.objectives import OBJECTIVES, LabelledScores, Mixture, PairScores, RankingScores, Scores, parse
from kilter.tokens.encoding import EncodedDemonstration, EncodedLabelled, EncodedPair, EncodedRanking
from kilter.tokens.sequence import TokenSequence
from kilter.train.batches import Batch, demonstration_batch, labelled_batch, pair_batch, ranking_batch
from kilter.train.step import StepScores, TrustRegion, accumulate_gradient, score_completions
from model.plain import completion_scores, flat_gradient, in_float64, in_plain_float64, relative_difference

MakeModel = Callable[..., PreTrainedModel]
PAIRS = 8
WHOLE, SPLITTING = 10_000, 14  # budgets that no batch here reaches, and that most pairs exceed


def completion(draw: np.random.Generator, prompt: list[int], size: int, masked: bool = False) -> TokenSequence:
    weights = np.array([1] * (size - 1) + [0], np.float32) if masked else None
    return TokenSequence(np.array(prompt + draw.integers(0, 40, size).tolist(), np.int32), len(prompt), weights)


def encoded_pairs() -> list[EncodedPair]:
    """Eight rated pairs on five prompts, answers of three to eight tokens, some with their last token unscored."""
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 40, size).tolist() for size in (6, 6, 4, 5, 3)]
    return [
        EncodedPair(
            completion(draw, prompts[p % 5], 3 + p % 4, masked=p % 3 == 0),
            completion(draw, prompts[p % 5], 8 - p % 5),
            Origin("pairs", p),
            preference=1 - 0.05 * p,
            margin=0.5 * p,
        )
        for p in range(PAIRS)
    ]


def encoded_rankings() -> list[EncodedRanking]:
    """Eight rankings of two to four answers on prompts of their own, some tied: for the best, for the last, between."""
    draw = np.random.default_rng(1)
    ranks = [(1, 2), (2, 1, 3), (3, 1, 1, 2), (2, 1), (1, 2, 2), (4, 2, 2, 1), (0.5, 0.2), (2, 1, 1)]
    sizes = {2: (7, 9), 3: (5, 6, 4), 4: (3, 4, 5, 4)}
    rankings = []
    for place, rank in enumerate(ranks):
        prompt = draw.integers(0, 40, 5).tolist()
        answers = tuple(completion(draw, prompt, size, masked=place % 3 == 0) for size in sizes[len(rank)])
        rankings.append(EncodedRanking(answers, rank, Origin("rankings", place)))
    return rankings


ROWS = encoded_pairs()
RANKINGS = encoded_rankings()
FACTS = torch.tensor([pair.margin for pair in ROWS]), torch.tensor([pair.preference for pair in ROWS])


def batch_of(name: str, node_budget: int, rows: int = PAIRS) -> Batch:
    """The rankings, or the pairs as the objective takes them; what it imitates are the chosen answers."""
    if OBJECTIVES[name].takes == "rankings":
        return ranking_batch(RANKINGS[:rows], node_budget=node_budget)
    if OBJECTIVES[name].takes == "answers":
        demonstrations = [EncodedDemonstration(pair.chosen, pair.origin) for pair in ROWS[:rows]]
        return demonstration_batch(demonstrations, node_budget=node_budget)
    return pair_batch(ROWS[:rows], node_budget=node_budget, mismatched="mismatched" in OBJECTIVES[name].needs)


def batch_in(name: str, micro_batches: int) -> Batch:
    """The batch at the largest budget that cuts it into so many micro-batches and no unit in two."""
    for node_budget in range(200, 10, -1):
        batch = batch_of(name, node_budget)
        if len(batch.trained) == micro_batches and batch.whole:
            return batch
    raise AssertionError(f"no budget cuts {name} into {micro_batches}")


def gradient(model: PreTrainedModel, reference: PreTrainedModel, batch: Batch, text: str) -> tuple[Tensor, StepScores]:
    mixture = parse(text)
    frozen = Scorer(reference).frozen() if mixture.needs_reference else None
    scores = accumulate_gradient(Scorer(model), frozen, batch, mixture)
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


def plain_sums(
    policy: PreTrainedModel, reference: PreTrainedModel, sequences: list[TokenSequence], shared: list[int]
) -> Scores:
    """All that an objective may look at, from whole distributions of each sequence scored alone."""
    rows = []
    for sequence, limit in zip(sequences, shared, strict=True):
        ids, first = torch.from_numpy(sequence.ids).long(), sequence.first
        weight = torch.ones(len(ids) - first) if sequence.weights is None else torch.from_numpy(sequence.weights)
        weight = weight.double()
        early = weight * (weight.cumsum(0) <= limit)
        log_p = policy(input_ids=ids[None]).logits[0, first - 1 : -1].log_softmax(-1)
        with torch.no_grad():
            log_q = reference(input_ids=ids[None]).logits[0, first - 1 : -1].log_softmax(-1)
        own, other = (x.gather(1, ids[first:, None])[:, 0] for x in (log_p, log_q))
        rows.append(
            {
                "log_prob": own @ weight,
                "reference_log_prob": other @ weight,
                "tokens": weight.sum(),
                "shared_log_prob": own @ early,
                "shared_reference_log_prob": other @ early,
                "kl_policy_reference": (log_p.exp() * (log_p - log_q)).sum(-1) @ weight,
                "kl_reference_policy": (log_q.exp() * (log_q - log_p)).sum(-1) @ weight,
                "log_collision": (log_p.detach().exp() ** 2).sum(-1).log() @ weight,
            }
        )
    return Scores(**{name: torch.stack([row[name] for row in rows]) for name in rows[0]})


def scored_tokens(sequence: TokenSequence) -> int:
    return len(sequence.ids) - sequence.first if sequence.weights is None else int(sequence.weights.sum())


def flat_rankings() -> tuple[list[TokenSequence], list[int]]:
    """All answers, and for each the tokens of the shortest answer of its ranking."""
    sequences = [sequence for ranking in RANKINGS for sequence in ranking.sequences]
    shortest = [min(map(scored_tokens, ranking.sequences)) for ranking in RANKINGS for _ in ranking.ranks]
    return sequences, shortest


RANKING_A = torch.tensor([place for place, ranking in enumerate(RANKINGS) for _ in ranking.ranks])
RANK_A = torch.tensor([rank for ranking in RANKINGS for rank in ranking.ranks])


def plain_loss(name: str, policy: PreTrainedModel, reference: PreTrainedModel) -> Tensor:
    """The objective's mean over the batch, every sequence scored alone, written out without the batch's machinery."""
    row = OBJECTIVES[name]
    if row.takes == "rankings":
        answers = plain_sums(policy, reference, *flat_rankings())
        return row.loss(RankingScores(answers, RANKING_A, RANK_A), **row.defaults).mean()
    shared = [min(scored_tokens(pair.chosen), scored_tokens(pair.rejected)) for pair in ROWS]

    def scores(sequences: list[TokenSequence]) -> Scores:
        return plain_sums(policy, reference, sequences, shared if len(sequences) == PAIRS else [99] * len(sequences))

    chosen, rejected = scores([pair.chosen for pair in ROWS]), scores([pair.rejected for pair in ROWS])
    given: Any
    match row.takes:
        case "answers":
            return row.loss(chosen, **row.defaults).sum() / chosen.tokens_A.sum()
        case "all answers":
            return row.loss(chosen + rejected, **row.defaults).mean()
        case "pairs":
            given = PairScores(chosen, rejected, *FACTS)
        case "labelled":
            given = LabelledScores(chosen, rejected, scores(mismatched_sequences()))
        case _:
            raise AssertionError(row.takes)
    with torch.no_grad():
        state = row.state if row.remember is None else row.remember(given, **row.defaults, **row.state)
    return row.loss(given, **row.defaults, **state).mean()


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


# Losses that multiply log-ratios by 15 or 20, and the rounding of them too: taken less steep in float32.
LESS_STEEP = {"dpop": "dpop(penalty=5)", "discopop": "discopop(tau=0.5)"}


@pytest.mark.parametrize("micro_batches", [3, 8, "split"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_float32_gradient_does_not_depend_on_the_cut(
    name: str, micro_batches: int | str, models: list[PreTrainedModel]
) -> None:
    """It errs, against float64, as that of one batch does: also where the answers of a pair come to lie apart."""
    batch = batch_of(name, SPLITTING) if isinstance(micro_batches, str) else batch_in(name, micro_batches)
    assert batch.whole == (micro_batches != "split" or OBJECTIVES[name].takes == "answers")
    text = LESS_STEEP.get(name, name)
    wanted, whole = gradient(*models, batch_of(name, WHOLE), text)
    got, cut = gradient(*models, batch, text)
    exact, _ = gradient(*(copy.deepcopy(model).double() for model in models), batch_of(name, WHOLE), text)
    rounding = torch.finfo(torch.float32).eps
    assert relative_difference(got, exact) <= 2 * relative_difference(wanted, exact) + rounding
    assert cut.loss == pytest.approx(whole.loss, rel=1e-6)
    torch.testing.assert_close(cut.log_ratio_C, whole.log_ratio_C, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.needs_reference])
def test_a_policy_that_is_its_reference_has_the_loss_declared_at_zero(name: str, models: list[PreTrainedModel]) -> None:
    batch = batch_in(name, 3)
    _, scores = gradient(models[0], copy.deepcopy(models[0]), batch, name)
    (declared,) = batch.losses_at_zero(parse(name), scores.sums_C).values()
    assert scores.loss == pytest.approx(declared, rel=1e-6)
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


@pytest.mark.parametrize("micro_batches", [1, 8])
@pytest.mark.parametrize(
    ("mixture", "parts"),
    [
        ("dpo + 0.25*kl", {"dpo": 1, "kl": 0.25}),
        ("0.5*simpo + 2*kl_reference", {"simpo": 0.5, "kl_reference": 2}),
        ("bco_pair + 0.1*sft + 0.5*kl", {"bco_pair": 1, "sft": 0.1, "kl": 0.5}),
        ("bt_kl(beta=0) + 0.3*kl", {"bt_kl(beta=0.3)": 1}),
        ("bt_kl_reference(beta=0) + 0.3*kl_reference", {"bt_kl_reference(beta=0.3)": 1}),
    ],
)
def test_the_gradient_of_a_mixture_is_the_weighted_sum_of_its_terms(
    mixture: str, parts: dict[str, float], micro_batches: int, sharp_models: list[PreTrainedModel]
) -> None:
    """And KL weighs as a term what it weighs within."""
    policy, reference = map(in_float64, sharp_models)
    batch = batch_in("dpo", micro_batches)
    wanted, loss = torch.zeros(()), 0.0
    for part, weight in parts.items():
        slope, scores = gradient(policy, reference, batch, part)
        wanted, loss = wanted + weight * slope, loss + weight * scores.loss
        policy.zero_grad()
    got, scores = gradient(policy, reference, batch, mixture)
    assert scores.loss == pytest.approx(loss, rel=1e-12)
    assert relative_difference(got, wanted) <= 1e-12


@pytest.mark.parametrize("objective", ["dpo", "bco_pair", "simpo"])
@pytest.mark.parametrize("node_budget", [WHOLE, SPLITTING])
def test_a_trust_region_adds_the_gradient_of_its_penalty_to_another_model_than_the_reference(
    objective: str, node_budget: int, sharp_models: list[PreTrainedModel], tiny_model: MakeModel
) -> None:
    policy, reference, earlier = map(in_float64, [*sharp_models, tiny_model("llama", spread=0.2)])
    batch, penalty = pair_batch(ROWS, node_budget=node_budget), parse("dpo + 0.7*kl").terms[1:]
    slope, alone = gradient(policy, reference, batch, objective)
    policy.zero_grad()
    pull, held = gradient(policy, earlier, batch, "kl")
    policy.zero_grad()
    trust = TrustRegion(Scorer(earlier).frozen(), Mixture(penalty))
    frozen = Scorer(reference).frozen() if objective != "simpo" else None
    scores = accumulate_gradient(Scorer(policy), frozen, batch, parse(objective), None, trust)
    assert scores.loss == pytest.approx(alone.loss + 0.7 * held.loss, rel=1e-12)
    assert scores.losses["trust_region"] == pytest.approx(held.loss, rel=1e-12)
    assert relative_difference(flat_gradient(policy), slope + 0.7 * pull) <= 1e-12
    for name, sum_C in alone.sums_C.items():
        assert torch.equal(scores.sums_C[name], sum_C), name


@pytest.mark.parametrize("name", ["beta_dpo", "bco"])
def test_what_is_remembered_of_batches_is_what_the_objective_makes_of_their_scores(
    name: str, models: list[PreTrainedModel]
) -> None:
    """Batch after batch, whatever the cut; and the loss is that at what was remembered."""
    row, mixture = OBJECTIVES[name], parse(name)
    policy, reference = Scorer(models[0]), Scorer(models[1]).frozen()
    state, by_hand = dict(mixture.state), dict(row.state)
    for rows, node_budget in ((ROWS[:5], WHOLE), (ROWS[5:], 40), (ROWS[2:6], SPLITTING)):
        batch = pair_batch(rows, node_budget=node_budget)
        scores = accumulate_gradient(policy, reference, batch, mixture, state)
        state, seen = scores.state, batch.scores(row, scores.sums_C)
        assert row.remember is not None
        by_hand = row.remember(seen, **row.defaults, **by_hand)
        assert state == {f"{name}.{key}": value for key, value in by_hand.items()}
        assert scores.loss == pytest.approx(float(row.loss(seen, **row.defaults, **by_hand).mean()), rel=1e-6)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradient_does_not_depend_on_the_chunks_of_rows(
    name: str, sharp_models: list[PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = batch_in(name, 3)
    assert any(len(micro.tree.chunks(micro.unit_C, 8) or []) > 1 for micro in batch.trained)
    models = [in_float64(model) for model in sharp_models]
    wanted, whole = gradient(models[0], models[1], batch, name)
    models[0].zero_grad()
    monkeypatch.setattr(scorer_module, "chunk_rows", lambda vocabulary: 8)
    got, cut = gradient(models[0], models[1], batch, name)
    assert relative_difference(got, wanted) <= 1e-12
    assert cut.loss == pytest.approx(whole.loss, rel=1e-12)


def test_rankings_of_two_have_the_gradient_of_dpo_on_the_pairs(sharp_models: list[PreTrainedModel]) -> None:
    """Whichever answer stands first, and whatever the numbers of the ranks."""
    rankings = [
        EncodedRanking((pair.chosen, pair.rejected), (1, 2), pair.origin)
        if pair.origin.line % 2
        else EncodedRanking((pair.rejected, pair.chosen), (7.5, -3), pair.origin)
        for pair in ROWS
    ]
    models = [in_float64(model) for model in sharp_models]
    wanted, pairs = gradient(models[0], models[1], batch_of("dpo", WHOLE), "dpo")
    models[0].zero_grad()
    got, scores = gradient(models[0], models[1], ranking_batch(rankings, node_budget=40), "plackett_luce")
    assert scores.loss == pytest.approx(pairs.loss, rel=1e-12)
    assert relative_difference(got, wanted) <= 1e-12


@pytest.mark.parametrize("node_budget", [WHOLE, SPLITTING])
def test_what_a_mixture_imitates_of_rankings_are_their_best_answers(
    node_budget: int, sharp_models: list[PreTrainedModel]
) -> None:
    """All that are tied for the best, by the token."""
    plain, plain_reference = (in_plain_float64(copy.deepcopy(model)) for model in sharp_models)
    best = torch.tensor([rank == min(ranking.ranks) for ranking in RANKINGS for rank in ranking.ranks])
    answers = plain_sums(plain, plain_reference, *flat_rankings())
    imitated = -answers.log_prob_A[best].sum() / answers.tokens_A[best].sum()
    wanted = plain_loss("plackett_luce", plain, plain_reference) + 0.5 * imitated
    wanted.backward()
    policy, reference = map(in_float64, sharp_models)
    batch = ranking_batch(RANKINGS, node_budget=node_budget)
    got, scores = gradient(policy, reference, batch, "plackett_luce + 0.5*sft")
    assert scores.losses["sft"] == pytest.approx(imitated.item(), rel=1e-12)
    assert scores.loss == pytest.approx(wanted.item(), rel=1e-12)
    assert relative_difference(got, flat_gradient(plain)) <= 1e-12


def test_a_batch_without_good_answers_has_nothing_to_imitate(models: list[PreTrainedModel]) -> None:
    batch = labelled_batch(LABELLED_BATCHES["all bad"], node_budget=WHOLE)
    wanted, _ = gradient(*models, batch, "kto")
    models[0].zero_grad()
    got, scores = gradient(*models, batch, "kto + 0.2*sft")
    assert scores.losses["sft"] == 0
    assert relative_difference(got, wanted) <= 1e-6


def test_gradients_of_two_batches_add_up(models: list[PreTrainedModel]) -> None:
    batch = batch_in("dpo", 3)
    once, _ = gradient(*models, batch, "dpo")
    policy, reference = Scorer(models[0]), Scorer(models[1]).frozen()
    for _ in range(2):
        accumulate_gradient(policy, reference, batch, parse("dpo"))
    assert relative_difference(flat_gradient(models[0]), 2 * once) <= 1e-6


def test_scores_of_completions_are_in_the_places_of_the_batch(models: list[PreTrainedModel]) -> None:
    """Chosen and rejected of a pair side by side, the mismatched after all of them."""
    batch = pair_batch(ROWS, node_budget=40, mismatched=True)
    sequences = [s for pair in ROWS for s in (pair.chosen, pair.rejected)] + mismatched_sequences()
    got = score_completions(Scorer(in_float64(copy.deepcopy(models[0]))), batch.scored, batch.completions)["log_prob"]
    with torch.no_grad():
        wanted = completion_scores(in_plain_float64(models[0]), sequences)
    torch.testing.assert_close(got, wanted, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_one_row_alone_has_a_loss_and_a_gradient(name: str, models: list[PreTrainedModel]) -> None:
    """Also under kto, where no other pair is there to take mismatched answers from."""
    got, scores = gradient(*models, batch_of(name, WHOLE, rows=1), name)
    assert np.isfinite(scores.loss)
    assert torch.isfinite(got).all()


def labelled_rows() -> list[EncodedLabelled]:
    """The answers of the pairs, the good ones first."""
    good = [EncodedLabelled(pair.chosen, True, pair.origin) for pair in ROWS]
    return good + [EncodedLabelled(pair.rejected, False, pair.origin) for pair in ROWS]


LABELLED = labelled_rows()
# Orders and shares of labels; only the first has the mismatched answers that the pairs have.
LABELLED_BATCHES = {
    "good first": LABELLED,
    "in turn": [LABELLED[i // 2 + i % 2 * PAIRS] for i in range(2 * PAIRS)],
    "few bad": LABELLED[:5] + LABELLED[9:11],
    "all good": LABELLED[:PAIRS],
    "all bad": LABELLED[PAIRS:],
    "one row": LABELLED[:1],
}


def mismatched_of(rows: list[EncodedLabelled]) -> list[TokenSequence]:
    """Each prompt with the first answer behind it, round the batch, that is to another prompt."""
    sequences = []
    for place, row in enumerate(rows):
        prompt = row.sequence.ids[: row.sequence.first].tolist()
        for other in rows[place + 1 :] + rows[:place]:
            answered = other.sequence
            if answered.ids[: answered.first].tolist() != prompt:
                ids = np.array(prompt + answered.ids[answered.first :].tolist(), np.int32)
                sequences.append(TokenSequence(ids, len(prompt), answered.weights))
                break
    return sequences


@pytest.mark.parametrize("name", LABELLED_BATCHES)
def test_labelled_answers_have_the_loss_and_gradient_of_kto_written_out(
    name: str, sharp_models: list[PreTrainedModel]
) -> None:
    """In float64 (but for edge weights), every sequence scored alone, whatever the share of labels and the cut."""
    rows, beta, weight = LABELLED_BATCHES[name], 0.3, {True: 1.5, False: 0.4}
    plain, plain_reference = (in_plain_float64(copy.deepcopy(model)) for model in sharp_models)

    def log_ratio(sequences: list[TokenSequence]) -> Tensor:
        with torch.no_grad():
            reference_C = completion_scores(plain_reference, sequences)
        return completion_scores(plain, sequences) - reference_C

    mismatched = mismatched_of(rows)
    point = max(0.0, float(log_ratio(mismatched).mean().detach())) if mismatched else 0.0
    losses = [
        weight[row.good] * (1 - torch.sigmoid((1 if row.good else -1) * beta * (ratio - point)))
        for row, ratio in zip(rows, log_ratio([row.sequence for row in rows]), strict=True)
    ]
    wanted_loss = torch.stack(losses).mean()
    wanted_loss.backward()
    wanted = flat_gradient(plain)
    mixture = parse(f"kto(beta={beta}, desirable_weight={weight[True]}, undesirable_weight={weight[False]})")
    policy, reference = map(in_float64, sharp_models)
    cuts = set()
    for node_budget in (WHOLE, 40, SPLITTING):
        batch = labelled_batch(rows, node_budget=node_budget, mismatched=True)
        cuts.add(len(batch.trained))
        scores = accumulate_gradient(Scorer(policy), Scorer(reference).frozen(), batch, mixture)
        assert scores.loss == pytest.approx(wanted_loss.item(), rel=1e-12)
        assert relative_difference(flat_gradient(policy), wanted) <= 1e-12
        policy.zero_grad()
    assert len(cuts) > 1 or name == "one row"


def test_the_answers_of_pairs_have_the_loss_and_gradient_of_the_pairs(sharp_models: list[PreTrainedModel]) -> None:
    """With the good ones first each prompt meets the next prompt's like answer, as within pairs; only the last ones
    meet each other's: the same answers, and so the same reference point."""
    policy, reference = map(in_float64, sharp_models)
    wanted, pairs = gradient(policy, reference, batch_of("kto", WHOLE), "kto")
    policy.zero_grad()
    got, rows = gradient(policy, reference, labelled_batch(LABELLED, node_budget=WHOLE, mismatched=True), "kto")
    assert rows.loss == pytest.approx(pairs.loss, rel=1e-12)
    assert relative_difference(got, wanted) <= 1e-12


@pytest.mark.parametrize("name", LABELLED_BATCHES)
def test_a_policy_that_is_its_reference_has_the_loss_declared_for_the_labels_of_the_batch(
    name: str, models: list[PreTrainedModel]
) -> None:
    mixture = parse("kto(desirable_weight=3, undesirable_weight=0.5)")
    batch = labelled_batch(LABELLED_BATCHES[name], node_budget=40, mismatched=True)
    policy, reference = Scorer(models[0]), Scorer(copy.deepcopy(models[0])).frozen()
    scores = accumulate_gradient(policy, reference, batch, mixture)
    assert batch.losses_at_zero(mixture, scores.sums_C) == pytest.approx(scores.losses, rel=1e-6)
