"""Claims about sampling: what is drawn, how often, by which seed, and that the Scorer agrees with what was seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from conftest import TINY, VOCABULARY
from kilter.errors import ConfigError
from kilter.model import sampler
from kilter.model.adapter import LoraSettings, reference_of, train_adapter
from kilter.model.sampler import (
    Sample,
    SamplingSettings,
    TransformersSampler,
    check_room,
    disagreement,
    recompute,
    stop_tokens,
)
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import Ids

MakeModel = Callable[..., PreTrainedModel]
EOS = 0


def prompts_of(*lengths: int) -> list[Ids]:
    draw = np.random.default_rng(0)
    return [draw.integers(1, VOCABULARY, length).astype(np.int32) for length in lengths]


PROMPTS = prompts_of(3, 7, 2, 7, 11, 5, 3)


def draw(scorer: Scorer, prompts: Sequence[Ids] = PROMPTS, *, seed: int = 0, stops: Any = (EOS,), **given: Any) -> Any:
    batch = {"batch_tokens": given.pop("batch_tokens")} if "batch_tokens" in given else {}
    settings = SamplingSettings(**{"max_new_tokens": 12} | given)
    return TransformersSampler(scorer, frozenset(stops), settings, **batch).sample(prompts, seed=seed)


def answers(samples: Sequence[Sample]) -> list[list[int]]:
    return [sample.answer.tolist() for sample in samples]


def own_logits(model: PreTrainedModel, ids: Sequence[int]) -> Tensor:
    """The next token's, by the model's own forward on that sequence alone, without a cache."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([list(ids)]), use_cache=False).logits[0, -1].double()


def of_two_tokens(
    model: PreTrainedModel, prompt: Ids, warp: Callable[[Tensor], Tensor]
) -> dict[tuple[int, ...], float]:
    """The exact probabilities of all answers of two tokens, each token's being `warp(logits)`."""
    first = warp(own_logits(model, prompt.tolist()))
    second = {a: warp(own_logits(model, [*prompt.tolist(), a])) for a in range(len(first)) if first[a] > 0}
    return {(a, b): float(first[a] * p[b]) for a, p in second.items() for b in range(len(p))}


# What is drawn, and how often


@pytest.mark.parametrize("shape", ["llama", "gpt2", "gemma2", "mamba"])
def test_greedy_answers_take_the_likeliest_token_of_the_models_own_forward_at_each_step(
    shape: str, tiny_model: MakeModel
) -> None:
    own = tiny_model(shape)
    for sample in draw(Scorer(tiny_model(shape)), temperature=0.0):
        ids = sample.prompt.tolist()
        for token, log_prob in zip(sample.answer.tolist(), sample.log_prob, strict=True):
            log_p = own_logits(own, ids).log_softmax(-1)
            assert token == int(log_p.argmax())
            assert log_prob == pytest.approx(float(log_p.max()), abs=1e-4)
            ids.append(token)


def tempered(logits: Tensor) -> Tensor:
    return (logits / 0.6).softmax(-1)


def two_likeliest(logits: Tensor) -> Tensor:
    p = logits.softmax(-1)
    kept = torch.where(p >= p.sort(descending=True).values[1], p, 0.0)
    return kept / kept.sum()


def nucleus(logits: Tensor) -> Tensor:
    """The fewest likeliest tokens that make up 0.7 of the probability, found one by one."""
    p, kept, mass = logits.softmax(-1), torch.zeros_like(logits), 0.0
    for token in p.argsort(descending=True).tolist():
        if mass < 0.7:
            kept[token] = p[token]
            mass += float(p[token])
    return kept / kept.sum()


@pytest.mark.parametrize(
    ("settings", "warp"),
    [
        ({}, lambda logits: logits.softmax(-1)),
        ({"temperature": 0.6}, tempered),
        ({"top_k": 2}, two_likeliest),
        ({"top_p": 0.7}, nucleus),
    ],
    ids=["plain", "temperature", "top-k", "top-p"],
)
def test_answers_are_as_frequent_as_they_are_probable(
    settings: dict[str, Any], warp: Callable[[Tensor], Tensor], tiny_model: MakeModel
) -> None:
    """Chi-square over all 25 answers of two tokens: 24 degrees of freedom at most, whose 99.99% quantile is 58.6."""
    shape = {"vocab_size": 5, "seed": 3}
    prompt, count = np.array([1, 2, 3], np.int32), 3000
    expected = of_two_tokens(tiny_model("llama", **shape), prompt, warp)
    scorer = Scorer(tiny_model("llama", **shape))
    drawn = Counter(map(tuple, answers(draw(scorer, [prompt] * count, stops=(), max_new_tokens=2, **settings))))
    assert set(drawn) <= {answer for answer, p in expected.items() if p > 0}
    likely = {answer: p * count for answer, p in expected.items() if p * count >= 5}
    rest = max(0.0, count - sum(likely.values()))
    chi_square = sum((drawn[answer] - wanted) ** 2 / wanted for answer, wanted in likely.items())
    assert chi_square < 58.6
    assert sum(n for answer, n in drawn.items() if answer not in likely) <= rest + 5 * rest**0.5 + 5
    if settings:  # and the untempered distribution is told apart
        other = of_two_tokens(tiny_model("llama", **shape), prompt, lambda logits: logits.softmax(-1))
        assert sum((drawn[a] - p * count) ** 2 / (p * count) for a, p in other.items()) > 100


def test_log_probs_are_the_models_own_whatever_the_temperature_and_the_cuts(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    samples = draw(scorer, temperature=0.5, top_k=5, top_p=0.8)
    assert disagreement(samples, recompute(scorer, samples)).largest < 1e-4


# Seeds


def test_the_same_seed_draws_the_same_answers_and_another_seed_others(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    first, again, other = (answers(draw(scorer, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert sum(a != b for a, b in zip(first, other, strict=True)) == len(PROMPTS)


def test_copies_of_a_prompt_get_answers_of_their_own(tiny_model: MakeModel) -> None:
    drawn = answers(draw(Scorer(tiny_model("llama")), [PROMPTS[0]] * 8))
    assert len(set(map(tuple, drawn))) == 8


@pytest.mark.parametrize("shape", TINY)
def test_neither_batches_nor_other_prompts_change_an_answer(shape: str, tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model(shape))
    together = answers(draw(scorer))
    assert answers(draw(scorer, batch_tokens=1)) == together
    assert answers(draw(scorer, PROMPTS[2:4])) == together[2:4]


def test_nothing_global_is_touched_even_where_generation_fails(
    tiny_model: MakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Random state, modes, attention, generation configuration and gradients stay what they were."""
    model = tiny_model("gpt2", attn_pdrop=0.1).train()
    model.base_model.h[0].eval()
    scorer = Scorer(model)
    saved = model.generation_config

    def state() -> list[object]:
        modes = [module.training for module in model.modules()]
        grads = [p.requires_grad for p in model.parameters()]
        return [torch.get_rng_state().tolist(), modes, grads, model.config._attn_implementation]

    before = state()
    without_dropout = answers(draw(scorer))
    assert state() == before
    assert without_dropout == answers(draw(Scorer(tiny_model("gpt2"))))

    def broken(self: Any, *given: Any) -> Tensor:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(sampler._Draw, "__call__", broken)
    with pytest.raises(RuntimeError, match="out of memory"):
        draw(scorer)
    assert state() == before
    assert model.generation_config is saved


# Ends of answers


def test_a_finished_answer_ends_with_its_first_stop_token_and_any_other_is_cut(tiny_model: MakeModel) -> None:
    stops = (0, 5, 9, 17, 30)
    samples = draw(Scorer(tiny_model("llama")), PROMPTS * 8, stops=stops)
    assert {sample.finished for sample in samples} == {True, False}
    assert len({int(sample.answer[-1]) for sample in samples if sample.finished}) > 1
    for sample in samples:
        found = np.isin(sample.answer, stops)
        assert not found[:-1].any()
        assert bool(found[-1]) == sample.finished
        assert len(sample.answer) == len(sample.log_prob) <= 12
        assert sample.finished or len(sample.answer) == 12


def test_a_saved_generation_configuration_changes_nothing(tiny_model: MakeModel) -> None:
    plain, surprising = tiny_model("llama"), tiny_model("llama")
    odd = {"do_sample": True, "temperature": 0.1, "top_k": 1, "num_beams": 4, "repetition_penalty": 5.0}
    odd |= {"max_length": 9, "min_new_tokens": 11, "eos_token_id": [3, 4], "suppress_tokens": [1, 2]}
    surprising.generation_config = GenerationConfig(**odd, no_repeat_ngram_size=2)
    assert answers(draw(Scorer(plain))) == answers(draw(Scorer(surprising)))


class EndsWith7:
    eos_token_id = 7


@pytest.mark.parametrize(("saved", "stops"), [(None, {7}), (3, {3, 7}), ([3, 4, 7], {3, 4, 7})])
def test_answers_end_with_the_eos_of_the_tokenizer_and_of_the_model(
    saved: Any, stops: set[int], tiny_model: MakeModel
) -> None:
    model = tiny_model("llama")
    model.generation_config = GenerationConfig(eos_token_id=saved)
    assert stop_tokens(model, EndsWith7()) == stops  # type: ignore[arg-type]


# The Scorer agrees, or shows that the sampler is wrong


@pytest.mark.parametrize("shape", TINY)
def test_the_scorer_agrees_with_what_the_sampler_saw(shape: str, tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model(shape))
    samples = draw(scorer, PROMPTS * 2)
    found = disagreement(samples, recompute(scorer, samples))
    assert 0 <= found.mean <= found.largest < 1e-4


def test_a_sampler_that_pads_on_the_left_without_positions_is_found_out(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("gpt2"))
    samples = draw(scorer)
    own = tiny_model("gpt2")
    padded = []
    for sample in samples:
        ids = torch.from_numpy(np.concatenate([np.zeros(4, np.int32), sample.sequence.ids])).long()
        mask = (torch.arange(len(ids)) >= 4).long()
        with torch.no_grad():
            log_p = own(ids[None], attention_mask=mask[None], use_cache=False).logits[0, :-1].log_softmax(-1)
        log_prob = log_p.gather(-1, ids[1:, None])[-len(sample.answer) :, 0].double().numpy()
        padded.append(Sample(sample.prompt, sample.answer, log_prob, sample.finished))
    found = disagreement(padded, recompute(scorer, samples))
    assert found.largest > 0.1
    assert found.mean > 0.01


def test_disagreement_is_that_worked_out_by_hand() -> None:
    two = [Sample(PROMPTS[0], PROMPTS[1][:n], np.array(p), True) for n, p in ((2, [-1.0, -2.0]), (1, [-3.0]))]
    found = disagreement(two, [np.array([-1.0, -2.5]), np.array([-2.75])])
    assert found == (0.5, 0.25)


def test_in_bfloat16_sampler_and_scorer_agree_to_its_rounding(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama", spread=0.1), autocast=torch.bfloat16)
    for one in (scorer, scorer.frozen()):
        samples = draw(one)
        assert 0 < disagreement(samples, recompute(one, samples)).largest < 0.1


def test_an_adapters_reference_answers_as_the_model_without_the_adapter(tiny_model: MakeModel) -> None:
    before = answers(draw(Scorer(tiny_model("llama"))))
    model = tiny_model("llama")
    train_adapter(model, LoraSettings(rank=4))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.5, generator=torch.Generator().manual_seed(0))
    policy = Scorer(model)
    for one, same in ((reference_of(policy), True), (policy, False)):
        samples = draw(one)
        assert (answers(samples) == before) == same
        assert disagreement(samples, recompute(one, samples)).largest < 1e-4


# Refusals


def test_room_is_for_prompt_and_answer_to_the_last_position(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("gpt2"))  # 64 positions
    (full,) = prompts_of(60)
    assert len(draw(scorer, [full], max_new_tokens=4, stops=())[0].answer) == 4
    with pytest.raises(ConfigError, match=r"60 tokens and 5 new ones pass the 64 .*-tokens to 4, or .*-prompt 59$"):
        draw(scorer, [full], max_new_tokens=5)


def test_a_model_without_positions_has_room_for_any_length(tiny_model: MakeModel) -> None:
    check_room(Scorer(tiny_model("mamba")), prompts_of(5000), 5000)


def test_an_empty_prompt_is_refused(tiny_model: MakeModel) -> None:
    with pytest.raises(ConfigError, match="no tokens"):
        draw(Scorer(tiny_model("llama")), [PROMPTS[0], np.array([], np.int32)])


OUT_OF_BOUNDS = [("max_new_tokens", 0), ("temperature", -1), ("temperature", np.inf), ("top_p", 0), ("top_p", 1.1)]


@pytest.mark.parametrize(("name", "value"), [*OUT_OF_BOUNDS, ("top_k", -1)])
def test_settings_out_of_bounds_are_refused(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}"):
        SamplingSettings(**{name: value})


def test_no_prompts_get_no_answers(tiny_model: MakeModel) -> None:
    scorer = Scorer(tiny_model("llama"))
    assert draw(scorer, []) == []
    assert np.isnan(disagreement([], recompute(scorer, [])).largest)
