"""Held-out examples of an alignment: scored at evaluations, and accounted for at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast

from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged_file
from kilter.measure import displacement, labelled, pairs, rankings
from kilter.measure.answers import AnswerScores, Floats
from kilter.measure.displacement import Displacement
from kilter.measure.judges import Judge
from kilter.measure.kept_samples import read_samples, write_samples
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.measure.samples import SampleEvaluation, draw_samples, sample_evaluation, score_reference_samples
from kilter.measure.statistics import RatioMean
from kilter.measure.win_rate import WinRate, win_rate
from kilter.model.sampler import Sample, SamplingSettings, check_room
from kilter.model.scorer import Reference, Scorer
from kilter.model.workers import Workers
from kilter.objectives import Mixture, PairScores, RankingScores, Scores, Term
from kilter.tokens.encoding import EncodedLabelled, EncodedPair, EncodedRanking
from kilter.tokens.sequence import Ids
from kilter.train.account import (
    Account,
    Rows,
    Scored,
    compared_labelled,
    compared_losses,
    compared_margins,
    compared_pairs,
    compared_rankings,
    said_of_samples,
    sampled_answers,
)
from kilter.train.batches import pair_facts
from kilter.train.config import AlignConfig
from kilter.train.examples import Examples, prompt_of
from kilter.train.step import mean_losses
from kilter.train.stops import Stop
from kilter.train.writing import system_errors

Held: TypeAlias = EncodedPair | EncodedRanking | EncodedLabelled
# What scored pairs or rankings and their rows hold of an objective's needs.
KEPT = frozenset({
    "reference_log_prob", "tokens", "kl_policy_reference", "kl_reference_policy", "margin", "preference",
})  # fmt: skip


class Sampled(NamedTuple):
    """What policy and reference answered to the same prompts, each scored with the other beside it."""

    policy: SampleEvaluation
    reference: SampleEvaluation | None
    win_rate: WinRate | None = None

    @property
    def evaluations(self) -> list[SampleEvaluation]:
        return [found for found in (self.policy, self.reference) if found is not None]

    def summary(self) -> dict[str, float]:
        """One flat row for metrics."""
        row = self.policy.summary()
        if self.reference is not None:
            row |= self.reference.facts("reference_sample") | self.reference.divergences("reference", "policy")
        if self.win_rate is not None:
            row |= self.win_rate.summary()
        return row


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """Examples to evaluate on, and all that an evaluation needs. Raises ConfigError where a prompt to be answered
    leaves no room for its answer."""

    examples: Examples[Held]
    policy: Scorer
    reference: Reference | None
    mixture: Mixture
    tokenizer: PreTrainedTokenizerFast
    config: AlignConfig
    run: RunDirectory
    workers: Workers
    judge: Judge | None = None
    scored: dict[int, Scored] = field(default_factory=dict)
    sampled: dict[int, Sampled] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self._prompts:
            for scorer in (self.policy, *(() if self.reference is None else (self.reference.scorer,))):
                check_room(scorer, self._prompts, self.config.sample_tokens, flag="--sample-tokens")

    def evaluate(self, step: int, stop: Stop, state: Mapping[str, float]) -> float:
        """Score the examples, write what was found to the run's metrics, and return the loss; `state` is what the
        objective remembers."""
        self.scored[step] = scored = self._score(stop)
        if step == 0:
            self.workers.on_main(_save_scores, scored, self.run.before)
        losses = self._losses(scored, state)
        by_term = {f"loss_{name}": loss.value for name, loss in losses.items()} if len(losses) > 1 else {}
        loss = self._total(losses)
        moved = self._instrument.displacement(self._before, scored)
        found = {
            "step": step,
            "split": "eval",
            **loss.interval.named("loss"),
            **by_term,
            **self._instrument.summary(scored),
            **self._margin(scored),
            **moved.summary(),
            **({"displacement": moved.words} if moved.both_fall else {}),
        }
        if self._prompts:
            self.sampled[step] = sampled = self._sample(stop)
            self.run.append_samples({"step": step, **row} for row in sampled.policy.rows(self.tokenizer))
            found |= sampled.summary()
        self.run.append_metrics(found)
        return loss.value

    def account(self, step: int) -> Account:
        """The examples before the run, and under the policy as it is now, after a step."""
        instrument = self._instrument
        before = self._before
        after = self.scored.get(step) or self._score(Stop())
        headings, *rows = instrument.compared(before, after)
        if gaps := [pairs.gap_P for scored in (before, after) if (pairs := self._with_margins(scored))]:
            rows.insert(0, compared_margins(self.mixture.beta, *gaps))
        if self._from_scores(before):
            rows.insert(0, compared_losses(*(self._total(self._losses(scored, {})) for scored in (before, after))))
        table, notes = [], [instrument.displacement(before, after).words]
        if self._prompts:
            sampled = self.sampled.get(step) or self._sample(Stop())
            table = sampled_answers(*sampled)
            notes.append("" if sampled.win_rate is None else f"{sampled.win_rate.describe()}.")
            notes.append(said_of_samples(sampled.evaluations))
        title = f"{len(after):,} held-out {instrument.called}"
        return Account(title, before, after, [headings, *rows], table, [note for note in notes if note])

    @property
    def _instrument(self) -> Instrument:
        return INSTRUMENTS[type(self.examples.rows[0])]

    @property
    def _before(self) -> Scored:
        """The examples' scores before the first step, which a run that is gone on with has on disk."""
        if 0 not in self.scored:
            self.scored[0] = self._instrument.loaded(load_file(self.run.before))
        return self.scored[0]

    @property
    def _prompts(self) -> list[Ids]:
        """What the policy is to answer at evaluations."""
        return [prompt_of(row) for row in self.examples.rows[: self.config.sample_eval]]

    def _score(self, stop: Stop) -> Scored:
        scored: Scored = self._instrument.score(
            self.policy,
            self.examples.rows,
            reference=self.reference,
            exact_kl=self.reference is not None,
            node_budget=self.config.node_limit,
            on_progress=stop.check,
            workers=self.workers,
        )
        return scored

    def _with_margins(self, scored: Scored) -> ScoredPairs | None:
        """Pairs, or those of rankings, where there is a reference."""
        if self.reference is None or isinstance(scored, ScoredLabelled):
            return None
        return scored.pairs if isinstance(scored, ScoredRankings) else scored

    def _margin(self, scored: Scored) -> dict[str, float]:
        pairs = self._with_margins(scored)
        return {} if pairs is None else pairs.gap.times(self.mixture.beta).named("margin")

    @property
    def _settings(self) -> SamplingSettings:
        return SamplingSettings(self.config.sample_tokens, self.config.sample_temperature)

    def _sample(self, stop: Stop) -> Sampled:
        # Answers are drawn anew each time: their scores are not worth keeping.
        reference_model = None if self.reference is None else self.reference.scorer
        with self.workers.gathered(self.policy):
            policy = sample_evaluation(
                self.policy,
                reference_model,
                self._prompts,
                self._settings,
                tokenizer=self.tokenizer,
                seed=self.config.seed,
                node_budget=self.config.node_limit,
                on_progress=stop.check,
            )
        if reference_model is None:
            return Sampled(policy, None)
        own = self._reference_samples(reference_model, stop)
        scored = score_reference_samples(self.policy, own, reference_model, node_budget=self.config.node_limit)
        reference = SampleEvaluation(scored, self._settings)
        judged = None if self.judge is None else self.workers.on_main(self._win_rate, self.judge, policy, reference)
        return Sampled(policy, reference, judged)

    def _win_rate(self, judge: Judge, policy: SampleEvaluation, reference: SampleEvaluation) -> WinRate:
        answers = policy.answers(self.tokenizer), reference.answers(self.tokenizer)
        return win_rate(policy.prompts(self.tokenizer), *answers, judge, seed=self.config.seed)

    def _reference_samples(self, reference: Scorer, stop: Stop) -> list[Sample]:
        """The reference's own answers: drawn once, and the same ones at each evaluation of the run."""
        file = self.run.reference_samples
        there = self.workers.of_main(file.is_file())
        if there and (kept := read_samples(file, self._prompts, self._settings)) is not None:
            return kept
        with self.workers.gathered(reference):
            drawn = draw_samples(
                reference,
                self._prompts,
                self._settings,
                tokenizer=self.tokenizer,
                seed=self.config.seed,
                on_progress=stop.check,
            )
        self.workers.on_main(write_samples, drawn, self._settings, file, self.tokenizer)
        return drawn

    def _from_scores(self, scored: Scored) -> bool:
        """Whether the scores that there are say every example's loss."""
        given = self._scores(scored)
        own = all(term.objective.takes in given and term.objective.unit != "batch" for term in self.mixture.terms)
        return own and self.mixture.needs <= KEPT

    def _total(self, losses: Mapping[str, RatioMean]) -> RatioMean:
        """The weighted sum of the terms' losses."""
        first, *others = (losses[term.name] * term.weight for term in self.mixture.terms)
        return sum(others, start=first)

    def _losses(self, scored: Scored, state: Mapping[str, float]) -> dict[str, RatioMean]:
        """The objective's mean by term, over examples; one that needs more than has been scored asks for it batch by
        batch, and is a mean over batches."""
        mixture = self.mixture
        if self._from_scores(scored):
            given = self._scores(scored)
            return {term.name: _mean_loss(term, given, len(self.examples)) for term in mixture.terms}
        batches = evaluation_batches(len(self.examples), self.config.batch_size)
        totals, sizes = (np.zeros((len(mixture.terms), len(batches))) for _ in range(2))
        for place, positions in enumerate(batches):
            batch = self.examples.batch_of(positions)
            losses = mean_losses(self.policy, self.reference, batch, mixture, state)
            for total, size, term in zip(totals, sizes, mixture.terms, strict=True):
                size[place] = batch.denominator(term.objective)
                total[place] = losses[term.name] * size[place]
        return {term.name: RatioMean.of(*row) for term, *row in zip(mixture.terms, totals, sizes, strict=True)}

    def _scores(self, scored: Scored) -> dict[str, Given]:
        """What objectives are given of scored examples, by what they take, and which example each item is of."""
        match scored:
            case ScoredPairs():
                chosen, rejected = _tensors(scored.chosen), _tensors(scored.rejected)
                facts = pair_facts([row for row in self.examples.rows if isinstance(row, EncodedPair)])
                pair_P = np.arange(len(scored))
                return {
                    "pairs": Given(PairScores(chosen, rejected, *facts), pair_P),
                    "answers": Given(chosen, pair_P),
                    "all answers": Given(chosen + rejected, np.tile(pair_P, 2)),
                }
            case ScoredRankings():
                places = torch.from_numpy(scored.ranking_A), torch.from_numpy(scored.rank_A)
                best = _tensors(scored.answers[scored.best_A])
                answers = _tensors(scored.answers)
                return {
                    "rankings": Given(RankingScores(answers, *places), np.arange(len(scored))),
                    "answers": Given(best, scored.ranking_A[scored.best_A]),
                    "all answers": Given(answers, scored.ranking_A),
                }
            case ScoredLabelled():
                return {}


class Given(NamedTuple):
    """What an objective is given, and the held-out example that each of its losses is of."""

    scores: Any
    example_I: NDArray[Any]


def _tensors(scores: AnswerScores) -> Scores:
    return Scores(**{name: torch.from_numpy(values) for name, values in scores.sums.items()})


def _mean_loss(term: Term, given: Mapping[str, Given], examples: int) -> RatioMean:
    """Over held-out examples, each with the loss and the size (items, or tokens of answers) of what was made of it."""
    scores, example_I = given[term.objective.takes]
    loss_I = term.objective.loss(scores, **term.options).double().numpy()
    size_I, sized_I = np.ones(len(loss_I)), example_I
    if term.objective.denominator == "tokens":
        answers, sized_I = given["answers"]
        size_I = answers.tokens_A.numpy()
    return RatioMean.of(np.bincount(example_I, loss_I, examples), np.bincount(sized_I, size_I, examples))


def evaluation_batches(count: int, size: int) -> list[range]:
    """Positions in order, `size` at a time; a last one by itself, which has nothing to be compared with, joins the
    batch before."""
    starts = range(0, max(1, count - 1), size)
    return [range(start, count if start == starts[-1] else start + size) for start in starts]


class Instrument(NamedTuple):
    """What examples of a kind are called, how they are scored, and how that is read, summed up and compared, and how
    far they moved."""

    called: str
    score: Callable[..., Any]
    loaded: Callable[[Mapping[str, Floats]], Any]
    summary: Callable[[Any], dict[str, Any]]
    compared: Callable[[Any, Any], Rows]
    displacement: Callable[[Any, Any], Displacement]


INSTRUMENTS: Mapping[type[Any], Instrument] = {
    EncodedPair: Instrument(
        "pairs",
        pairs.score_pairs,
        ScoredPairs.from_arrays,
        pairs.summary,
        compared_pairs,
        displacement.of_pairs,
    ),
    EncodedRanking: Instrument(
        "rankings",
        rankings.score_rankings,
        ScoredRankings.from_arrays,
        rankings.summary,
        compared_rankings,
        displacement.of_rankings,
    ),
    EncodedLabelled: Instrument(
        "labelled answers",
        labelled.score_labelled,
        ScoredLabelled.from_arrays,
        labelled.summary,
        compared_labelled,
        displacement.of_labelled,
    ),
}


def _save_scores(scored: Scored, file: Path) -> None:
    with staged_file(file) as path, system_errors():
        save_file(scored.arrays(), path)
