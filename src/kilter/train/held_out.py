"""Held-out pairs of an alignment: scored at evaluations, and accounted for at the end.

Axis: P pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from rich.table import Table
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast

from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged_file
from kilter.measure.pairs import Floats, ScoredPairs, score_pairs, summary
from kilter.measure.samples import NGRAM, SampleEvaluation, sample_evaluation
from kilter.measure.statistics import paired_difference
from kilter.model.sampler import SamplingSettings, check_room
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers
from kilter.objectives import Objective, PairScores
from kilter.tokens.encoding import EncodedPair
from kilter.tokens.sequence import Ids
from kilter.train.batches import Batch
from kilter.train.config import AlignConfig
from kilter.train.step import mean_loss
from kilter.train.stops import Stop
from kilter.train.writing import system_errors


@dataclass(frozen=True, eq=False)
class Account:
    """What a run bought and what it cost: `rows` is a table with its headings, `note` says what sampled answers do."""

    before: ScoredPairs
    after: ScoredPairs
    note: str

    @property
    def rows(self) -> list[list[str]]:
        return compared(self.before, self.after)

    def table(self) -> Table:
        headings, *rows = self.rows
        table = Table(title=f"{len(self.after):,} held-out pairs", title_justify="left")
        for column, heading in enumerate(headings):
            table.add_column(heading, justify="right" if column else "left")
        for cells in rows:
            table.add_row(*cells)
        return table


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOutPairs:
    """Pairs to evaluate on, and all that an evaluation needs. Raises ConfigError where a prompt to be answered leaves
    no room for its answer."""

    pairs: Sequence[EncodedPair]
    policy: Scorer
    reference: Scorer | None
    objective: Objective
    options: dict[str, float]
    batch_of: Callable[[Sequence[EncodedPair]], Batch]
    tokenizer: PreTrainedTokenizerFast
    config: AlignConfig
    run: RunDirectory
    workers: Workers
    scored: dict[int, ScoredPairs] = field(default_factory=dict)
    sampled: dict[int, SampleEvaluation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_room(self.policy, [self._prompt(pair) for pair in self._answered], self.config.sample_tokens)

    def evaluate(self, step: int, stop: Stop) -> float:
        """Score the pairs, write what was found to the run's metrics, and return the loss."""
        self.scored[step] = scored = self._score(stop)
        found = {"step": step, "split": "eval", "loss": self._mean_loss(scored), **summary(scored)}
        if self._answered:
            self.sampled[step] = sampled = self._sample(stop)
            self.run.append_samples({"step": step, **row} for row in sampled.rows(self.tokenizer))
            found |= sampled.summary()
        self.run.append_metrics(found)
        if step == 0:
            self.workers.on_main(_save_scores, scored, self.run.before)
        return float(found["loss"])

    def account(self, step: int) -> Account:
        """The pairs before the run, and under the policy as it is now, after a step."""
        before = ScoredPairs.from_arrays(load_file(self.run.before))
        after = self.scored.get(step) or self._score(Stop())
        note = said_of_samples(self.sampled.get(step) or self._sample(Stop())) if self._answered else ""
        return Account(before, after, note)

    @property
    def _answered(self) -> Sequence[EncodedPair]:
        return self.pairs[: self.config.sample_eval]

    def _prompt(self, pair: EncodedPair) -> Ids:
        return pair.chosen.ids[: pair.chosen.first]

    def _score(self, stop: Stop) -> ScoredPairs:
        return score_pairs(
            self.policy,
            self.pairs,
            reference=self.reference,
            exact_kl=self.reference is not None,
            node_budget=self.config.node_limit,
            on_progress=stop.check,
            workers=self.workers,
        )

    def _sample(self, stop: Stop) -> SampleEvaluation:
        with self.workers.gathered(self.policy):
            return sample_evaluation(
                self.policy,
                self.reference,
                [self._prompt(pair) for pair in self._answered],
                SamplingSettings(self.config.sample_tokens, self.config.sample_temperature),
                tokenizer=self.tokenizer,
                seed=self.config.seed,
                node_budget=self.config.node_limit,
                on_progress=stop.check,
            )

    def _mean_loss(self, scored: ScoredPairs) -> float:
        """The objective's mean over scored pairs; one that looks across a batch scores what it needs."""
        row = self.objective
        if row.takes == "pairs":
            score = [
                torch.from_numpy(answer.log_ratio_P / (answer.tokens_P if row.score == "mean" else 1))
                for answer in (scored.chosen, scored.rejected)
            ]
            return float(row.loss(PairScores(*score), **self.options).mean())
        total = items = 0.0
        for i in range(0, len(self.pairs), self.config.batch_size):
            batch = self.batch_of(self.pairs[i : i + self.config.batch_size])
            if not len(batch.mismatched):
                continue  # a last pair by itself has no other to be compared with
            here = batch.denominator(row)
            total += mean_loss(self.policy, self.reference, batch, row, self.options) * here
            items += here
        return total / items if items else math.nan


def compared(before: ScoredPairs, after: ScoredPairs) -> list[list[str]]:
    """The same pairs before and after: a table with its headings."""
    table = [["", "before", "after", "difference (95% interval)"]]

    def add(name: str, form: str, start: Floats, end: Floats) -> None:
        mean, low, high = paired_difference(end, start)
        difference = f"{mean:+{form}} ({low:+{form}}, {high:+{form}})"
        table.append([name, format(start.mean(), form), format(end.mean(), form), difference])

    add("accuracy: chosen has the higher log-ratio", ".3f", before.correct_P, after.correct_P)
    add("chosen is the likelier answer", ".3f", before.likelier_P, after.likelier_P)
    add("log-ratio of chosen, nats", ".2f", before.chosen.log_ratio_P, after.chosen.log_ratio_P)
    add("log-ratio of rejected, nats", ".2f", before.rejected.log_ratio_P, after.rejected.log_ratio_P)
    for name, start, end in (("chosen", before.chosen, after.chosen), ("rejected", before.rejected, after.rejected)):
        for direction in ("kl_policy_reference_P", "kl_reference_policy_P"):
            sums = getattr(start, direction), getattr(end, direction)
            if sums[0] is not None:
                first, second = direction.split("_")[1:3]
                per_token = [s / start.tokens_P for s in sums]
                add(f"token KL({first}, {second}) along {name}, nats/token", ".4f", *per_token)
    return table


def said_of_samples(sampled: SampleEvaluation) -> str:
    """What sampled answers are like, and how far they are from the reference's."""
    said = (
        f"{len(sampled.scored)} sampled answers ({sampled.settings.describe()}): {sampled.tokens.value:.1f} tokens, "
        f"{sampled.finished.value:.0%} finished, {sampled.repetition.value:.1%} of {NGRAM}-grams repeated"
    )
    if (found := sampled.answer_kl) is not None:
        name = "KL(policy, reference) of answers" if sampled.settings.faithful else "token KL(policy, reference) summed"
        said += f"; {name}: {found.kl.value:.3f} nats (standard error {found.kl.error:.3f})"
    return f"{said}. Sampler and Scorer differ by at most {sampled.disagreement.largest:.1g} nats a token."


def _save_scores(scored: ScoredPairs, file: Path) -> None:
    with staged_file(file) as path, system_errors():
        save_file(scored.arrays(), path)
