"""What samples say of a model: how long they are, whether they end, how they repeat, and how far they lie from a
reference.

Answer KL is a divergence between distributions over whole answers (kilter.divergence.estimates.sequences says how it is
estimated from answers that one of the two drew). KL(policy, reference) takes the policy's own answers, and
KL(reference, policy) the reference's. What is said here of policy and reference holds for the reference's answers with
the two exchanged.

Axes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from kilter.divergence.estimates import Estimate, SequenceKl, kl_from_sequences, mean_estimate
from kilter.model.row_functions import (
    ENTROPY,
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_PROB,
    REFERENCE_ENTROPY,
    REFERENCE_LOG_PROB,
    RowFunction,
)
from kilter.model.sampler import (
    Disagreement,
    Sample,
    SamplingSettings,
    TransformersSampler,
    disagreement,
    stop_tokens,
)
from kilter.model.scorer import Reference, Scorer
from kilter.model.token_values import Floats, token_values
from kilter.tokens.sequence import Ids

NGRAM = 4  # tokens


@dataclass(frozen=True, eq=False, slots=True)
class ScoredSample:
    """A sample, and what the Scorer says of each of its tokens, in nats: log-probs under the policy and under the
    reference, the policy's entropy there, and the exact token KL(policy, reference); None without a reference."""

    sample: Sample
    log_prob: Floats
    entropy: Floats
    reference_log_prob: Floats | None = None
    kl: Floats | None = None

    @property
    def log_ratio(self) -> Floats:
        """Of each token, policy to reference."""
        assert self.reference_log_prob is not None
        return self.log_prob - self.reference_log_prob

    @property
    def prompt(self) -> bytes:
        """The same for samples of the same prompt."""
        return self.sample.prompt.tobytes()


def score_samples(
    policy: Scorer, samples: Sequence[Sample], reference: Reference | None = None, *, node_budget: int = 2048
) -> list[ScoredSample]:
    """The policy's samples with their tokens' log-probs and entropies and, with a reference, the exact KL to it."""
    functions = [LOG_PROB, ENTROPY] + ([] if reference is None else [REFERENCE_LOG_PROB, KL_POLICY_REFERENCE])
    return _scored(policy, samples, functions, reference, node_budget)


def score_reference_samples(
    policy: Scorer, samples: Sequence[Sample], reference: Scorer, *, node_budget: int = 2048
) -> list[ScoredSample]:
    """The reference's samples, with policy and reference exchanged: its log-probs and entropies, the policy's log-probs
    in the place of a reference's, and KL(reference, policy)."""
    functions = [REFERENCE_LOG_PROB, REFERENCE_ENTROPY, LOG_PROB, KL_REFERENCE_POLICY]
    return _scored(policy, samples, functions, reference, node_budget)


def _scored(
    policy: Scorer,
    samples: Sequence[Sample],
    functions: Sequence[RowFunction],
    reference: Reference | None,
    node_budget: int,
) -> list[ScoredSample]:
    sequences = [sample.sequence for sample in samples]
    values = token_values(policy, sequences, functions, reference=reference, node_budget=node_budget)
    return [ScoredSample(sample, *found) for sample, found in zip(samples, values, strict=True)]


def answer_kl(scored: Sequence[ScoredSample]) -> SequenceKl:
    """KL(policy, reference) of answers, from samples that the policy drew and that were scored with the reference.

    Standard errors are over prompts, each prompt's samples averaged first; over samples, where there is one prompt.
    """
    return kl_from_sequences(
        [row.kl for row in scored], [row.log_ratio for row in scored], clusters=[row.prompt for row in scored]
    )


def repetition(answer: Ids, n: int = NGRAM) -> float:
    """The share of an answer's n-grams of tokens that repeat an earlier one; 0 where it is too short for any.

    seq-rep-n of Welleck et al. 2019 (arXiv 1908.04319).
    """
    if len(answer) < n:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(answer, n)
    return 1 - len(np.unique(grams, axis=0)) / len(grams)


@dataclass(frozen=True, eq=False)
class SampleEvaluation:
    """Samples drawn with some settings, scored."""

    scored: Sequence[ScoredSample]
    settings: SamplingSettings

    @property
    def samples(self) -> list[Sample]:
        return [row.sample for row in self.scored]

    def prompts(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """Each sample's prompt as text, special tokens written out."""
        return [text_of(sample.prompt, tokenizer) for sample in self.samples]

    def answers(self, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """Each sample's answer as text."""
        return [answer_text(sample, tokenizer) for sample in self.samples]

    @property
    def disagreement(self) -> Disagreement:
        """Of the sampler's log-probs with the Scorer's."""
        return disagreement(self.samples, [row.log_prob for row in self.scored])

    @property
    def tokens(self) -> Estimate:
        """Length of an answer, its stop token included."""
        return self._mean([len(sample.answer) for sample in self.samples])

    @property
    def finished(self) -> Estimate:
        """Share of answers that end with a stop token, not for want of room."""
        return self._mean([sample.finished for sample in self.samples])

    @property
    def repetition(self) -> Estimate:
        """Mean of `repetition`."""
        return self._mean([repetition(sample.answer) for sample in self.samples])

    @property
    def log_prob(self) -> float:
        """Nats per token, at temperature 1 whatever the settings."""
        return float(np.concatenate([row.log_prob for row in self.scored]).mean())

    @property
    def entropy(self) -> float:
        """Of the next-token distributions along the answers, nats per token."""
        return float(np.concatenate([row.entropy for row in self.scored]).mean())

    @property
    def answer_entropy(self) -> Estimate:
        """Entropy of the distribution over answers, nats per answer: the mean of the sum of exact token entropies along
        each, by the chain rule. That is what its name says only where `settings.faithful`."""
        return self._mean([float(row.entropy.sum()) for row in self.scored])

    @property
    def kl(self) -> float | None:
        """Exact token KL(policy, reference) along the answers, nats per token; None without reference."""
        rows = [row.kl for row in self.scored if row.kl is not None]
        return float(np.concatenate(rows).mean()) if rows else None

    @property
    def answer_kl(self) -> SequenceKl | None:
        """As `answer_kl` has it, which is what its name says only where `settings.faithful`; None without reference."""
        return None if self.scored[0].kl is None else answer_kl(self.scored)

    def summary(self) -> dict[str, float]:
        """What the answers are like, and `divergences`, as one flat row for metrics."""
        return {
            "samples": len(self.scored),
            "sample_prompts": len({row.prompt for row in self.scored}),
            **self.facts("sample"),
            "sampler_disagreement": self.disagreement.largest,
            "sampler_disagreement_mean": self.disagreement.mean,
            **self.divergences(),
        }

    def facts(self, called: str) -> dict[str, float]:
        """What answers that are `called` so are like."""
        return {
            f"{called}_tokens": self.tokens.value,
            f"{called}_finished": self.finished.value,
            f"{called}_repetition": self.repetition.value,
            f"{called}_log_prob": self.log_prob,
        }

    def divergences(self, drawn_by: str = "policy", other: str = "reference") -> dict[str, float]:
        """Entropy and KL, each by a name that says of what and along what; `_se` is a standard error over prompts, and
        `_variance` that of one answer's value.

        Of answers (nats per answer) there is something to be said only where the settings are faithful to the model;
        along those that were drawn (nats per token) always.
        """
        row = {f"{drawn_by}_entropy_along_{drawn_by}_answers": self.entropy}
        if self.kl is not None:
            row[f"kl_{drawn_by}_{other}_along_{drawn_by}_answers"] = self.kl
        if not self.settings.faithful:
            return row
        entropy = self.answer_entropy
        row |= {
            f"answer_entropy_{drawn_by}": entropy.value,
            f"answer_entropy_{drawn_by}_se": entropy.standard_error,
        }
        if (found := self.answer_kl) is not None:
            name = f"answer_kl_{drawn_by}_{other}"
            for ending, by in (("", "kl"), ("_k1", "log_ratio"), ("_k3", "k3")):
                estimate: Estimate = getattr(found, by)
                row[f"{name}{ending}"] = estimate.value
                row[f"{name}{ending}_se"] = estimate.standard_error
                row[f"{name}{ending}_variance"] = getattr(found.variance, by)
        return row

    def rows(self, tokenizer: PreTrainedTokenizerFast) -> list[dict[str, Any]]:
        """One flat row a sample, in nats summed over the answer's tokens; for a file of samples."""
        return [_row(scored, tokenizer) for scored in self.scored]

    def _mean(self, value_S: Sequence[float]) -> Estimate:
        return mean_estimate(np.array(value_S), clusters=[row.prompt for row in self.scored])


def sample_evaluation(
    policy: Scorer,
    reference: Reference | None,
    prompts: Sequence[Ids],
    settings: SamplingSettings,
    *,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    node_budget: int = 2048,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> SampleEvaluation:
    """Let the policy answer prompts, and measure the answers; a prompt given K times is answered K times.

    With a reference, KL(policy, reference) is measured along them. Raises ConfigError where a prompt leaves no room
    for its answer, or where the two pass the node budget.
    """
    samples = draw_samples(policy, prompts, settings, tokenizer=tokenizer, seed=seed, on_progress=on_progress)
    return SampleEvaluation(score_samples(policy, samples, reference, node_budget=node_budget), settings)


def draw_samples(
    policy: Scorer,
    prompts: Sequence[Ids],
    settings: SamplingSettings,
    *,
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    on_progress: Callable[[int], None] = lambda samples: None,
) -> list[Sample]:
    """What a model answers, each answer up to one of its stop tokens."""
    sampler = TransformersSampler(policy, stop_tokens(policy.model, tokenizer), settings)
    return sampler.sample(prompts, seed=seed, on_progress=on_progress)


def answer_text(sample: Sample, tokenizer: PreTrainedTokenizerFast) -> str:
    """An answer as it continues its prompt, without the stop token it ends with."""
    answer = sample.answer[:-1] if sample.finished else sample.answer
    whole = text_of(np.concatenate([sample.prompt, answer]), tokenizer)
    return whole.removeprefix(text_of(sample.prompt, tokenizer))


def text_of(ids: Ids, tokenizer: PreTrainedTokenizerFast) -> str:
    """Tokens as text, special ones written out."""
    return str(tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _row(scored: ScoredSample, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    sample = scored.sample
    row: dict[str, Any] = {
        "prompt": text_of(sample.prompt, tokenizer),
        "answer": answer_text(sample, tokenizer),
        "tokens": len(sample.answer),
        "finished": sample.finished,
        "repetition": repetition(sample.answer),
        "log_prob": float(scored.log_prob.sum()),
    }
    if scored.reference_log_prob is not None and scored.kl is not None:
        row["reference_log_prob"] = float(scored.reference_log_prob.sum())
        row["kl_policy_reference"] = float(scored.kl.sum())
    return row
