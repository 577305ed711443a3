"""Claims about estimates of answer KL, against every answer there is: weighed one by one, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from kilter.demo.answer_kl import Texts, exact_answer_kl, sampled_answer_kl
from kilter.model.prepared import PreparedTree
from kilter.model.sampler import SamplingSettings, TransformersSampler
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from model.plain import in_plain_float64

MakeModel = Callable[..., PreTrainedModel]

VOCABULARY, EOS = 5, 0
PROMPTS = ([1, 2], [3])
# The texts of each prompt. Other answers end where they leave these.
TEXTS = (([1, 1, EOS], [1, 2, EOS], [1, 2, 2, EOS], [4, EOS]), ([2, EOS], [3, 3, 3, EOS], [3, 1, EOS]))
SAMPLES = 400


class Answer(NamedTuple):
    """One that p may draw: its chance, and at each of its tokens the exact KL, the log-ratio and k3."""

    probability: float
    kl: list[float]
    k1: list[float]
    k3: list[float]


@pytest.fixture(scope="module")
def models(tiny_model: MakeModel) -> tuple[PreTrainedModel, PreTrainedModel]:
    first, second = (tiny_model("llama", vocab_size=VOCABULARY, seed=seed) for seed in (0, 1))
    return first, second


@pytest.fixture(scope="module")
def texts() -> Texts:
    sequences = [
        TokenSequence(np.array([*prompt, *text], np.int32), len(prompt))
        for prompt, of_it in zip(PROMPTS, TEXTS, strict=True)
        for text in of_it
    ]
    return Texts.of(PreparedTree(TokenTree.build(sequences)))


def every_answer(p: PreTrainedModel, q: PreTrainedModel, prompt: int) -> Iterator[Answer]:
    """All of them, by the models' own forward, one context at a time."""
    inside = {tuple(text[:n]) for text in TEXTS[prompt] for n in range(len(text))}

    def after(context: tuple[int, ...], sofar: Answer) -> Iterator[Answer]:
        ids = torch.tensor([[*PROMPTS[prompt], *context]])
        log_p, log_q = (model(input_ids=ids, use_cache=False).logits[0, -1].log_softmax(-1) for model in (p, q))
        kl = float((log_p.exp() * (log_p - log_q)).sum())
        for token in range(VOCABULARY):
            ratio = float(log_p[token] - log_q[token])
            here = Answer(
                sofar.probability * math.exp(log_p[token]),
                [*sofar.kl, kl],
                [*sofar.k1, ratio],
                [*sofar.k3, math.exp(-ratio) - 1 + ratio],
            )
            longer = (*context, token)
            if longer in inside:
                yield from after(longer, here)
            else:
                yield here

    with torch.no_grad():
        yield from after((), Answer(1.0, [], [], []))


def moments(answers: list[Answer], name: str) -> tuple[float, float]:
    """Mean and variance of the sum along an answer."""
    p, value = np.array([a.probability for a in answers]), np.array([sum(getattr(a, name)) for a in answers])
    return float(p @ value), float(p @ value**2 - (p @ value) ** 2)


def test_all_answers_together_are_certain(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    p, q = map(in_plain_float64, models)
    for prompt in range(len(PROMPTS)):
        assert sum(answer.probability for answer in every_answer(p, q, prompt)) == pytest.approx(1)


@pytest.mark.parametrize("swapped", [False, True], ids=["KL(p, q)", "KL(q, p)"])
def test_kl_and_all_variances_are_those_of_every_answer(
    swapped: bool, models: tuple[PreTrainedModel, PreTrainedModel], texts: Texts
) -> None:
    p, q = models[::-1] if swapped else models
    kl_P, spread = exact_answer_kl(Scorer(p), Scorer(q), texts)
    for prompt in range(len(PROMPTS)):
        answers = list(every_answer(in_plain_float64(p), in_plain_float64(q), prompt))
        true_kl = sum(a.probability * sum(a.k1) for a in answers)  # sum p log p / q, over whole answers
        assert kl_P[prompt] == pytest.approx(true_kl, rel=1e-4)
        for name, variance_P in spread._asdict().items():
            mean, variance = moments(answers, name)
            assert mean == pytest.approx(true_kl, rel=1e-9)  # each estimate is unbiased
            assert variance_P[prompt] == pytest.approx(variance, rel=1e-3)


def test_the_term_of_each_token_varies_less_by_its_exact_kl(models: tuple[PreTrainedModel, PreTrainedModel]) -> None:
    """Rao and Blackwell: it is the mean of the other two, given what came before."""
    p, q = map(in_plain_float64, models)
    for prompt in range(len(PROMPTS)):
        answers = list(every_answer(p, q, prompt))
        chance = np.array([a.probability for a in answers])
        for place in range(max(len(a.kl) for a in answers)):
            variance = {}
            for name in ("kl", "k1", "k3"):
                value = np.array([[*getattr(a, name), *[0.0] * 9][place] for a in answers])
                variance[name] = chance @ value**2 - (chance @ value) ** 2
            assert variance["kl"] < variance["k1"]
            assert variance["kl"] < variance["k3"]


@pytest.mark.parametrize("swapped", [False, True], ids=["KL(p, q)", "KL(q, p)"])
def test_estimates_from_samples_are_within_four_standard_errors_and_vary_as_enumerated(
    swapped: bool, models: tuple[PreTrainedModel, PreTrainedModel], texts: Texts
) -> None:
    """The standard errors are the exact ones. A sample's variance is as near to the exact one as its fourth moment
    allows, by enumeration."""
    own, other = models[::-1] if swapped else models
    p, q = Scorer(own), Scorer(other)
    kl_P, spread = exact_answer_kl(p, q, texts)
    sampler = TransformersSampler(p, frozenset({EOS}), SamplingSettings(max_new_tokens=5))
    asked = [np.array(prompt, np.int32) for prompt in PROMPTS for _ in range(SAMPLES)]
    drawn = sampler.sample(asked, seed=0)
    found = sampled_answer_kl(p, q, texts, [drawn[:SAMPLES], drawn[SAMPLES:]])
    for prompt, estimates in enumerate(found):
        answers = list(every_answer(in_plain_float64(own), in_plain_float64(other), prompt))
        chance = np.array([a.probability for a in answers])
        three = (estimates.kl, estimates.log_ratio, estimates.k3)
        for name, estimate, measured in zip(("kl", "k1", "k3"), three, estimates.variance, strict=True):
            exact = getattr(spread, name)[prompt]
            assert abs(estimate.value - kl_P[prompt]) < 4 * math.sqrt(exact / SAMPLES)
            value = np.array([sum(getattr(a, name)) for a in answers]) - kl_P[prompt]
            error = math.sqrt((chance @ value**4 - exact**2) / SAMPLES)
            assert abs(measured - exact) < 4 * error


def test_an_answer_counts_as_far_as_the_texts_go(texts: Texts) -> None:
    def reached(prompt: int, *answer: int) -> int:
        return texts.reached(prompt, np.array(answer, np.int32))

    assert reached(0, 1, 2, 2, EOS) == 4
    assert reached(0, 1, 2, EOS) == 3
    assert reached(0, 3, 1, EOS) == 1  # begins as none does
    assert reached(0, 1, 2, 4, 4, EOS) == 3
    assert reached(1, 3, 3, 3, 3) == 4
