"""Sampling: answers drawn from a model, each with the log-probs that the sampler saw.

`TransformersSampler` generates with the model's own attention and key-value cache, a way apart from the Scorer's;
so the log-probs of what it drew are recomputed by the Scorer, and how far the two disagree is reported.

Axes: B answers generated at once, V vocabulary.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from kilter.errors import ConfigError, ModelError
from kilter.model.attention import NAME as TREE_ATTENTION
from kilter.model.scorer import Scorer
from kilter.model.token_values import Floats, token_values
from kilter.tokens.sequence import Ids, TokenSequence


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How answers are drawn; temperature 0 takes the likeliest token each time. Raises ConfigError out of bounds."""

    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0  # of the likeliest tokens, those that make up this much probability
    top_k: int = 0  # this many of the likeliest tokens; 0: all

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"max_new_tokens is {self.max_new_tokens}; use 1 or more")
        if not 0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; use 0 (the likeliest token each time) or more")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"top_p is {self.top_p}; use more than 0, and at most 1 (all tokens)")
        if self.top_k < 0:
            raise ConfigError(f"top_k is {self.top_k}; use 1 or more, or 0 for all tokens")

    @property
    def faithful(self) -> bool:
        """Whether answers are drawn from the model's own distribution, up to their greatest length."""
        return (self.temperature, self.top_p, self.top_k) == (1, 1, 0)

    def describe(self) -> str:
        """In a few words, for headings."""
        if self.temperature == 0:
            return "the likeliest token each time"
        parts = [f"temperature {self.temperature:g}"]
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        return ", ".join(parts)


@dataclass(frozen=True, eq=False, slots=True)
class Sample:
    """An answer drawn for a prompt.

    `log_prob` has each answer token's log-prob under the model itself (temperature 1, all tokens) as the sampler saw
    it, in nats. A `finished` answer ends with a stop token; any other was cut at its greatest length.
    """

    prompt: Ids
    answer: Ids
    log_prob: Floats
    finished: bool

    @property
    def sequence(self) -> TokenSequence:
        """Prompt and answer as one path."""
        return TokenSequence(np.concatenate([self.prompt, self.answer]), first=len(self.prompt))


class Sampler(Protocol):
    """Draws an answer for each prompt; a prompt given K times gets K answers drawn apart."""

    def sample(
        self, prompts: Sequence[Ids], *, seed: int, on_progress: Callable[[int], None] = ...
    ) -> list[Sample]: ...


@dataclass(frozen=True, eq=False)
class TransformersSampler:
    """Transformers' generation, in batches of prompts of like length.

    An answer's randomness depends on the seed, its prompt and how often that prompt came before in the same call, and
    on nothing else: neither the other prompts nor the size of batches matter, but for rounding. Two models asked with
    one seed draw with the same Gumbel noise (Maddison et al. 2014), so their answers part where the models do.

    `stops` are the tokens that end an answer. Of a generation configuration saved with the model nothing is heeded.
    Prompts are padded on the left where the architecture is on the allow-list; prompts for any other model are batched
    only with those of just their length. `batch_tokens` bounds a batch's padded tokens, those to come included.
    """

    scorer: Scorer
    stops: frozenset[int]
    settings: SamplingSettings = field(default_factory=SamplingSettings)
    batch_tokens: int = 16_384

    def sample(
        self, prompts: Sequence[Ids], *, seed: int, on_progress: Callable[[int], None] = lambda samples: None
    ) -> list[Sample]:
        """An answer for each prompt, in their order; `on_progress` is told of samples as their batch ends.

        Raises ConfigError where a prompt is empty or leaves no room for its answer.
        """
        check_room(self.scorer, prompts, self.settings.max_new_tokens)
        earlier: Counter[bytes] = Counter()
        streams = []
        for prompt in prompts:
            key = np.asarray(prompt, np.int32).tobytes()
            streams.append(_exponentials(_seed(seed, earlier[key], key), self.scorer.device))
            earlier[key] += 1
        samples: dict[int, Sample] = {}
        with generating(self.scorer) as model:
            for places in self._batches(prompts):
                draw = _Draw(self.settings, [streams[place] for place in places])
                drawn = self._generate(model, [prompts[place] for place in places], draw)
                samples |= zip(places, drawn, strict=True)
                on_progress(len(places))
        return [samples[place] for place in range(len(prompts))]

    def _batches(self, prompts: Sequence[Ids]) -> Iterator[list[int]]:
        """Places of prompts to be answered together, shortest first."""
        batch: list[int] = []
        for place in sorted(range(len(prompts)), key=lambda place: len(prompts[place])):
            length = len(prompts[place])
            full = (len(batch) + 1) * (length + self.settings.max_new_tokens) > self.batch_tokens
            unlike = self.scorer.path != "tree" and len(prompts[batch[0]]) != length if batch else False
            if batch and (full or unlike):
                yield batch
                batch = []
            batch.append(place)
        if batch:
            yield batch

    def _generate(self, model: Any, prompts: Sequence[Ids], draw: _Draw) -> list[Sample]:
        longest = max(map(len, prompts))
        ids = np.zeros((len(prompts), longest), np.int64)
        given = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = prompt
            given[row, longest - len(prompt) :] = 1
        stops = sorted(self.stops)
        generated = model.generate(
            input_ids=torch.from_numpy(ids).to(model.device),
            attention_mask=torch.from_numpy(given).to(model.device),
            generation_config=GenerationConfig(
                max_new_tokens=self.settings.max_new_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=stops or None,
                pad_token_id=stops[0] if stops else 0,
            ),
            logits_processor=LogitsProcessorList([draw]),
        )
        answers = generated[:, longest:].cpu().numpy().astype(np.int32)
        log_prob = torch.stack(draw.log_probs, dim=1).double().cpu().numpy()
        return [self._sample(*row) for row in zip(prompts, answers, log_prob, strict=True)]

    def _sample(self, prompt: Ids, answer: Ids, log_prob: Floats) -> Sample:
        """Less what a batch writes behind an answer that is finished."""
        ends = np.flatnonzero(np.isin(answer, list(self.stops)))
        length = int(ends[0]) + 1 if len(ends) else len(answer)
        return Sample(np.asarray(prompt, np.int32), answer[:length], log_prob[:length], finished=len(ends) > 0)


def stop_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's EOS, and those that the model was saved with."""
    saved = None if model.generation_config is None else model.generation_config.eos_token_id
    several = saved if isinstance(saved, list) else [saved]
    return frozenset(int(token) for token in [tokenizer.eos_token_id, *several] if token is not None)


def check_room(scorer: Scorer, prompts: Sequence[Ids], max_new_tokens: int, *, flag: str = "--max-new-tokens") -> None:
    """Raises ConfigError where a prompt is empty, or it and its answer would pass the model's positions; `flag` is what
    sets how long answers may be."""
    positions = getattr(scorer.model.config, "max_position_embeddings", None)
    limit = min((limit for limit in (positions, scorer.exact_up_to) if limit is not None), default=None)
    lengths = [len(prompt) for prompt in prompts]
    if 0 in lengths:
        raise ConfigError("a prompt has no tokens; an answer needs at least one before it")
    longest = max(lengths, default=0)
    if limit is None or longest + max_new_tokens <= limit:
        return
    remedies = [f"lower {flag} to {limit - longest}"] if longest < limit else []
    remedies += [f"cut prompts with --max-prompt {limit - max_new_tokens}"] if max_new_tokens < limit else []
    raise ConfigError(
        f"a prompt of {longest:,} tokens and {max_new_tokens:,} new ones pass the {limit:,} positions of the model; "
        f"{', or '.join(remedies) or f'lower {flag} below {limit}'}"
    )


@contextmanager
def generating(scorer: Scorer) -> Iterator[Any]:
    """The scorer's model, ready to generate with its own attention; it is left as it was."""
    model = scorer.model
    attention, saved = model.config._attn_implementation, model.generation_config
    training = [module for module in model.modules() if module.training]
    if not model.can_generate():
        raise ModelError(f"{type(model).__name__} cannot generate; give a causal language model")
    try:
        model.eval()
        model.generation_config = GenerationConfig()
        if attention == TREE_ATTENTION:
            model.set_attn_implementation(_own_attention(model))
        with (
            scorer.in_force(),
            torch.autocast(scorer.device.type, dtype=scorer.autocast, enabled=scorer.autocast is not None),
        ):
            yield model
    finally:
        model.generation_config = saved
        for module in training:
            module.training = True
        if attention == TREE_ATTENTION:
            model.set_attn_implementation(attention)


def _own_attention(model: PreTrainedModel) -> str:
    """The fused one where it computes all of the model's attention; it knows no soft cap."""
    capped = getattr(model.config, "attn_logit_softcapping", None) is not None
    return "sdpa" if model._supports_sdpa and not capped else "eager"


class _Draw(LogitsProcessor):
    """Draws the next tokens, each row with a stream of noise of its own, and leaves no other token to be chosen.

    log p + Gumbel noise is largest at a token drawn from p; the noise is -log of an exponential.
    """

    def __init__(self, settings: SamplingSettings, streams: Sequence[Callable[[Tensor], object]]) -> None:
        self.streams = streams
        self.greedy = settings.temperature == 0
        self.log_probs: list[Tensor] = []  # (B,) for each token drawn
        self.warpers = LogitsProcessorList()
        if settings.temperature not in (0, 1):
            self.warpers.append(TemperatureLogitsWarper(float(settings.temperature)))
        if settings.top_k:
            self.warpers.append(TopKLogitsWarper(settings.top_k))
        if settings.top_p < 1:
            self.warpers.append(TopPLogitsWarper(settings.top_p))

    def __call__(self, input_ids: torch.LongTensor, logits_BV: Tensor) -> Tensor:
        log_p_BV = logits_BV.log_softmax(-1)
        if self.greedy:
            token_B = logits_BV.argmax(-1)
        else:
            noise_BV = torch.empty_like(log_p_BV, dtype=torch.float64)
            for noise_V, fill in zip(noise_BV, self.streams, strict=True):
                fill(noise_V)
            token_B = (self.warpers(input_ids, log_p_BV) - noise_BV.log_()).argmax(-1)
        self.log_probs.append(log_p_BV.gather(-1, token_B[:, None])[:, 0])
        return torch.full_like(logits_BV, -torch.inf).scatter_(-1, token_B[:, None], 0.0)


def _exponentials(seed: int, device: torch.device) -> Callable[[Tensor], object]:
    """Fills one float64 tensor after another with exponential noise, by the quickest generator of the device."""
    if device.type == "cpu":
        draw = np.random.default_rng(seed)
        return lambda noise_V: draw.standard_exponential(out=noise_V.numpy())
    generator = torch.Generator(device).manual_seed(seed)
    return lambda noise_V: noise_V.exponential_(generator=generator)


def _seed(seed: int, earlier: int, prompt: bytes) -> int:
    """64 bits that tell apart every seed, prompt and repetition of it."""
    digest = hashlib.blake2b(b"%d,%d," % (seed, earlier) + prompt, digest_size=8).digest()
    return int.from_bytes(digest, "little")


class Disagreement(NamedTuple):
    """Absolute differences of tokens' log-probs by sampler and Scorer, in nats."""

    largest: float
    mean: float


def recompute(scorer: Scorer, samples: Sequence[Sample], *, node_budget: int = 2048) -> list[Floats]:
    """The log-probs of samples' tokens by the Scorer, which computes what answers share once."""
    values = token_values(scorer, [sample.sequence for sample in samples], node_budget=node_budget)
    return [log_prob for (log_prob,) in values]


def disagreement(samples: Sequence[Sample], recomputed: Sequence[Floats]) -> Disagreement:
    """How far the sampler's log-probs are from recomputed ones; NaN without samples."""
    if not samples:
        return Disagreement(float("nan"), float("nan"))
    apart = np.abs(np.concatenate([sample.log_prob for sample in samples]) - np.concatenate(recomputed))
    return Disagreement(float(apart.max()), float(apart.mean()))
