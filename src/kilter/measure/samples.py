"""What samples say of a model: how long they are, whether they end, how they repeat, and how far they lie from a
reference.

Answer KL is a divergence between distributions over whole answers (kilter.divergence.estimates.sequences says how it is
estimated from answers that the policy drew).

Axes: S samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from kilter.divergence.estimates import Estimate, SequenceKl, kl_from_sequences, mean_estimate
from kilter.model.row_functions import KL_POLICY_REFERENCE, LOG_PROB, REFERENCE_LOG_PROB
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
    reference, and the exact token KL(policy, reference); None without a reference."""

    sample: Sample
    log_prob: Floats
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
    """Samples with their tokens' log-probs by the Scorer and, with a reference, the exact KL to it."""
    functions = [LOG_PROB] if reference is None else [LOG_PROB, REFERENCE_LOG_PROB, KL_POLICY_REFERENCE]
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
    def answer_kl(self) -> SequenceKl | None:
        """As `answer_kl` has it, which is what its name says only where `settings.faithful`; None without reference."""
        return None if self.scored[0].kl is None else answer_kl(self.scored)

    def summary(self) -> dict[str, float]:
        """One flat row for metrics; `_se` is a standard error over prompts.

        Where the settings are not faithful to the model, the sum of token KL along what was drawn is no estimate of
        answer KL, and its name is sample_kl_along_answers.
        """
        row = {
            "samples": len(self.scored),
            "sample_prompts": len({row.prompt for row in self.scored}),
            "sample_tokens": self.tokens.value,
            "sample_finished": self.finished.value,
            "sample_repetition": self.repetition.value,
            "sample_log_prob": self.log_prob,
            "sampler_disagreement": self.disagreement.largest,
            "sampler_disagreement_mean": self.disagreement.mean,
        }
        if (found := self.answer_kl) is not None:
            name = "sample_answer_kl" if self.settings.faithful else "sample_kl_along_answers"
            row |= {name: found.kl.value, f"{name}_se": found.kl.standard_error}
            row |= {"sample_log_ratio": found.log_ratio.value, "sample_log_ratio_se": found.log_ratio.standard_error}
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
    sampler = TransformersSampler(policy, stop_tokens(policy.model, tokenizer), settings)
    samples = sampler.sample(prompts, seed=seed, on_progress=on_progress)
    return SampleEvaluation(score_samples(policy, samples, reference, node_budget=node_budget), settings)


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
