"""Held-out examples of an alignment: scored at evaluations, and accounted for at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
from rich.table import Table
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedTokenizerFast

from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged_file
from kilter.measure import labelled, pairs, rankings
from kilter.measure.answers import AnswerScores, Floats
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.measure.samples import NGRAM, SampleEvaluation, sample_evaluation
from kilter.measure.statistics import Interval, Sides, auc, auc_difference, paired_difference
from kilter.model.sampler import SamplingSettings, check_room
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers
from kilter.objectives import Mixture, PairScores, RankingScores, Scores, Term
from kilter.tokens.encoding import EncodedLabelled, EncodedPair, EncodedRanking
from kilter.tokens.sequence import Ids
from kilter.train.batches import pair_facts
from kilter.train.config import AlignConfig
from kilter.train.examples import Examples, prompt_of
from kilter.train.step import mean_losses
from kilter.train.stops import Stop
from kilter.train.writing import system_errors

Scored: TypeAlias = ScoredPairs | ScoredRankings | ScoredLabelled
Held: TypeAlias = EncodedPair | EncodedRanking | EncodedLabelled
# What scored pairs or rankings and their rows hold of an objective's needs.
KEPT = frozenset({
    "reference_log_prob", "tokens", "kl_policy_reference", "kl_reference_policy", "margin", "preference",
})  # fmt: skip
HEADINGS = ["", "before", "after", "difference (95% interval)"]


@dataclass(frozen=True, eq=False)
class Account:
    """What a run bought and what it cost: `rows` is a table with its headings, `note` says what sampled answers do."""

    title: str
    before: Scored
    after: Scored
    rows: Sequence[Sequence[str]]
    note: str

    def table(self) -> Table:
        headings, *rows = self.rows
        table = Table(title=self.title, title_justify="left")
        for column, heading in enumerate(headings):
            table.add_column(heading, justify="right" if column else "left")
        for cells in rows:
            table.add_row(*cells)
        return table


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """Examples to evaluate on, and all that an evaluation needs. Raises ConfigError where a prompt to be answered
    leaves no room for its answer."""

    examples: Examples[Held]
    policy: Scorer
    reference: Scorer | None
    mixture: Mixture
    tokenizer: PreTrainedTokenizerFast
    config: AlignConfig
    run: RunDirectory
    workers: Workers
    scored: dict[int, Scored] = field(default_factory=dict)
    sampled: dict[int, SampleEvaluation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self._prompts:
            check_room(self.policy, self._prompts, self.config.sample_tokens)

    def evaluate(self, step: int, stop: Stop, state: Mapping[str, float]) -> float:
        """Score the examples, write what was found to the run's metrics, and return the loss; `state` is what the
        objective remembers."""
        self.scored[step] = scored = self._score(stop)
        losses = self._mean_losses(scored, state)
        by_term = {f"loss_{name}": loss for name, loss in losses.items()} if len(losses) > 1 else {}
        loss = self.mixture.total(losses)
        found = {"step": step, "split": "eval", "loss": loss, **by_term, **self._instrument.summary(scored)}
        if self._prompts:
            self.sampled[step] = sampled = self._sample(stop)
            self.run.append_samples({"step": step, **row} for row in sampled.rows(self.tokenizer))
            found |= sampled.summary()
        self.run.append_metrics(found)
        if step == 0:
            self.workers.on_main(_save_scores, scored, self.run.before)
        return loss

    def account(self, step: int) -> Account:
        """The examples before the run, and under the policy as it is now, after a step."""
        instrument = self._instrument
        before = instrument.loaded(load_file(self.run.before))
        after = self.scored.get(step) or self._score(Stop())
        note = said_of_samples(self.sampled.get(step) or self._sample(Stop())) if self._prompts else ""
        title = f"{len(after):,} held-out {instrument.called}"
        return Account(title, before, after, instrument.compared(before, after), note)

    @property
    def _instrument(self) -> Instrument:
        return INSTRUMENTS[type(self.examples.rows[0])]

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

    def _sample(self, stop: Stop) -> SampleEvaluation:
        with self.workers.gathered(self.policy):
            return sample_evaluation(
                self.policy,
                self.reference,
                self._prompts,
                SamplingSettings(self.config.sample_tokens, self.config.sample_temperature),
                tokenizer=self.tokenizer,
                seed=self.config.seed,
                node_budget=self.config.node_limit,
                on_progress=stop.check,
            )

    def _mean_losses(self, scored: Scored, state: Mapping[str, float]) -> dict[str, float]:
        """The objective's mean by term; one that needs more than has been scored asks for it batch by batch."""
        mixture = self.mixture
        given = self._scores(scored)
        own = all(term.objective.takes in given and term.objective.unit != "batch" for term in mixture.terms)
        if own and mixture.needs <= KEPT:
            return {term.name: _mean_loss(term, given) for term in mixture.terms}
        sums, items = dict.fromkeys(mixture.names, 0.0), dict.fromkeys(mixture.names, 0.0)
        for positions in evaluation_batches(len(self.examples), self.config.batch_size):
            batch = self.examples.batch_of(positions)
            losses = mean_losses(self.policy, self.reference, batch, mixture, state)
            for term in mixture.terms:
                here = batch.denominator(term.objective)
                sums[term.name] += losses[term.name] * here
                items[term.name] += here
        return {name: sums[name] / (items[name] or 1.0) for name in sums}

    def _scores(self, scored: Scored) -> dict[str, Any]:
        """What objectives are given of scored examples, by what they take."""
        match scored:
            case ScoredPairs():
                chosen, rejected = _tensors(scored.chosen), _tensors(scored.rejected)
                facts = pair_facts([row for row in self.examples.rows if isinstance(row, EncodedPair)])
                pairs = PairScores(chosen, rejected, *facts)
                return {"pairs": pairs, "answers": chosen, "all answers": chosen + rejected}
            case ScoredRankings():
                places = torch.from_numpy(scored.ranking_A), torch.from_numpy(scored.rank_A)
                best = _tensors(scored.answers[scored.best_A])
                answers = _tensors(scored.answers)
                return {"rankings": RankingScores(answers, *places), "answers": best, "all answers": answers}
            case ScoredLabelled():
                return {}


def _tensors(scores: AnswerScores) -> Scores:
    return Scores(**{name: torch.from_numpy(values) for name, values in scores.sums.items()})


def _mean_loss(term: Term, given: Mapping[str, Any]) -> float:
    loss = term.objective.loss(given[term.objective.takes], **term.options)
    answers: Scores = given["answers"]
    return float(loss.sum() / (answers.tokens_A.sum() if term.objective.denominator == "tokens" else len(loss)))


def evaluation_batches(count: int, size: int) -> list[range]:
    """Positions in order, `size` at a time; a last one by itself, which has nothing to be compared with, joins the
    batch before."""
    starts = range(0, max(1, count - 1), size)
    return [range(start, count if start == starts[-1] else start + size) for start in starts]


def compared_pairs(before: ScoredPairs, after: ScoredPairs) -> list[list[str]]:
    """The same pairs before and after: a table with its headings."""
    sides = {"chosen": (before.chosen, after.chosen), "rejected": (before.rejected, after.rejected)}
    accuracy = _means("accuracy: chosen has the higher log-ratio", ".3f", before.correct_P, after.correct_P)
    return [
        HEADINGS,
        *([] if after.chosen.reference_log_prob_A is None else [accuracy]),
        _means("chosen is the likelier answer", ".3f", before.likelier_P, after.likelier_P),
        *_along(sides),
    ]


def compared_rankings(before: ScoredRankings, after: ScoredRankings) -> list[list[str]]:
    """The same rankings before and after, by which answer comes first and as pairs: a table with its headings."""
    return [
        HEADINGS,
        _means("a best answer has the highest log-ratio", ".3f", before.first_R, after.first_R),
        _means("a best answer is the likeliest", ".3f", before.likeliest_R, after.likeliest_R),
        *compared_pairs(before.pairs, after.pairs)[1:],
    ]


def compared_labelled(before: ScoredLabelled, after: ScoredLabelled) -> list[list[str]]:
    """The same labelled answers before and after: a table with its headings."""

    def areas(name: str, number: Callable[[AnswerScores], Floats]) -> list[str]:
        start, end = (Sides(number(scored.good), number(scored.bad)) for scored in (before, after))
        return _cells(name, ".3f", auc(*start).value, auc(*end).value, auc_difference(end, start))

    both = [
        areas("AUC: a good answer has the higher log-ratio", lambda side: side.log_ratio_A),
        areas("a good answer is the likelier one", lambda side: side.log_prob_A),
    ]
    there_are_both = len(after.good) > 0 and len(after.bad) > 0
    sides = {"good": (before.good, after.good), "bad": (before.bad, after.bad)}
    return [HEADINGS, *(both if there_are_both else []), *_along(sides)]


class Instrument(NamedTuple):
    """What examples of a kind are called, how they are scored, and how that is read, summed up and compared."""

    called: str
    score: Callable[..., Any]
    loaded: Callable[[Mapping[str, Floats]], Any]
    summary: Callable[[Any], dict[str, Any]]
    compared: Callable[[Any, Any], list[list[str]]]


INSTRUMENTS: Mapping[type[Any], Instrument] = {
    EncodedPair: Instrument("pairs", pairs.score_pairs, ScoredPairs.from_arrays, pairs.summary, compared_pairs),
    EncodedRanking: Instrument(
        "rankings",
        rankings.score_rankings,
        ScoredRankings.from_arrays,
        rankings.summary,
        compared_rankings,
    ),
    EncodedLabelled: Instrument(
        "labelled answers",
        labelled.score_labelled,
        ScoredLabelled.from_arrays,
        labelled.summary,
        compared_labelled,
    ),
}


def _along(sides: Mapping[str, tuple[AnswerScores, AnswerScores]]) -> list[list[str]]:
    """Log-ratios (log-probs, where there is no reference) and token KL of answers of each name, before and after; a
    name without answers has none."""
    present = {name: scores for name, scores in sides.items() if len(scores[0])}
    rows = []
    for name, (start, end) in present.items():
        number = "log-prob" if start.reference_log_prob_A is None else "log-ratio"
        rows.append(_means(f"{number} of {name}, nats", ".2f", start.log_ratio_A, end.log_ratio_A))
    for name, (start, end) in present.items():
        for direction, sums in start.kl_sums.items():
            first, second = direction.split("_")[1:3]
            per_token = (sums / start.tokens_A, end.kl_sums[direction] / end.tokens_A)
            rows.append(_means(f"token KL({first}, {second}) along {name}, nats/token", ".4f", *per_token))
    return rows


def _means(name: str, form: str, start: Floats, end: Floats) -> list[str]:
    return _cells(name, form, start.mean(), end.mean(), paired_difference(end, start))


def _cells(name: str, form: str, start: float, end: float, difference: Interval) -> list[str]:
    mean, low, high = difference
    return [name, format(start, form), format(end, form), f"{mean:+{form}} ({low:+{form}}, {high:+{form}})"]


def said_of_samples(sampled: SampleEvaluation) -> str:
    """What sampled answers are like, and how far they are from the reference's."""
    said = (
        f"{len(sampled.scored)} sampled answers ({sampled.settings.describe()}): {sampled.tokens.value:.1f} tokens, "
        f"{sampled.finished.value:.0%} finished, {sampled.repetition.value:.1%} of {NGRAM}-grams repeated"
    )
    if (found := sampled.answer_kl) is not None:
        name = "KL(policy, reference) of answers" if sampled.settings.faithful else "token KL(policy, reference) summed"
        said += f"; {name}: {found.kl.value:.3f} nats (standard error {found.kl.standard_error:.3f})"
    return f"{said}. Sampler and Scorer differ by at most {sampled.disagreement.largest:.1g} nats a token."


def _save_scores(scored: Scored, file: Path) -> None:
    with staged_file(file) as path, system_errors():
        save_file(scored.arrays(), path)
