"""The account at the end of an alignment: what it bought on held-out examples, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from rich import box
from rich.console import Console
from rich.table import Table

from kilter.divergence.estimates import Estimate
from kilter.measure.answers import AnswerScores, Floats
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.measure.samples import NGRAM, SampleEvaluation
from kilter.measure.statistics import Interval, RatioMean, Sides, auc, auc_difference, paired_difference
from kilter.measure.win_rate import WinRate

Scored: TypeAlias = ScoredPairs | ScoredRankings | ScoredLabelled
Rows: TypeAlias = list[list[str]]
HEADINGS = ["", "before", "after", "difference (95% interval)"]


@dataclass(frozen=True, eq=False)
class Account:
    """What a run bought and what it cost: `rows` is a table of the held-out examples with its headings, `sampled` one
    of sampled answers (empty where there are none), `notes` say in words what there is to say."""

    title: str
    before: Scored
    after: Scored
    rows: Rows
    sampled: Rows
    notes: Sequence[str]

    @property
    def tables(self) -> list[Rows]:
        return [rows for rows in (self.rows, self.sampled) if rows]

    def show(self, console: Console) -> None:
        """Print it; where the terminal is narrow, what stands on the left is broken into lines, and no number is."""
        for title, rows in zip((self.title, None), self.tables, strict=False):
            console.print(_table(title, rows))
            console.print()
        for note in self.notes:
            console.print(note, highlight=False)


def _table(title: str | None, rows: Rows) -> Table:
    headings, *body = rows
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for column, heading in enumerate(headings):
        table.add_column(heading, justify="right" if column else "left", no_wrap=column > 0)
    for cells in body:
        table.add_row(*cells)
    return table


def compared_pairs(before: ScoredPairs, after: ScoredPairs) -> Rows:
    """The same pairs before and after: a table with its headings."""
    sides = {"chosen": (before.chosen, after.chosen), "rejected": (before.rejected, after.rejected)}
    accuracy = _means("accuracy: chosen has the higher log-ratio", ".3f", before.correct_P, after.correct_P)
    return [
        HEADINGS,
        *([] if after.chosen.reference_log_prob_A is None else [accuracy]),
        _means("chosen is the likelier answer", ".3f", before.likelier_P, after.likelier_P),
        *_along(sides),
    ]


def compared_rankings(before: ScoredRankings, after: ScoredRankings) -> Rows:
    """The same rankings before and after, by which answer comes first and as pairs: a table with its headings."""
    return [
        HEADINGS,
        _means("a best answer has the highest log-ratio", ".3f", before.first_R, after.first_R),
        _means("a best answer is the likeliest", ".3f", before.likeliest_R, after.likeliest_R),
        *compared_pairs(before.pairs, after.pairs)[1:],
    ]


def compared_labelled(before: ScoredLabelled, after: ScoredLabelled) -> Rows:
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


def _along(sides: Mapping[str, tuple[AnswerScores, AnswerScores]]) -> Rows:
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


def compared_losses(before: RatioMean, after: RatioMean) -> list[str]:
    """A row of the table: the loss of the same examples."""
    return _cells("loss", ".3f", before.value, after.value, (after - before).interval)


def compared_margins(beta: float, before_P: Floats, after_P: Floats) -> list[str]:
    """A row of the table: beta times the gap of the same pairs."""
    return _means(f"margin: {beta:g} x gap of log-ratios", ".3f", beta * before_P, beta * after_P)


def sampled_answers(
    policy: SampleEvaluation, reference: SampleEvaluation | None, win_rate: WinRate | None = None
) -> Rows:
    """What policy and reference answered to the same prompts, in two columns: a table with its headings."""
    both = [policy] if reference is None else [policy, reference]
    faithful = policy.settings.faithful

    def row(name: str, cell: Callable[[SampleEvaluation], str]) -> list[str]:
        return [name, *map(cell, both)]

    drawn = f"{len(policy.scored)} answers of at most {policy.settings.max_new_tokens} tokens, "
    headings = [drawn + policy.settings.describe(), "the policy's", "the reference's"]
    rows = [headings[: 1 + len(both)]]
    if win_rate is not None:
        rows += [
            ["win rate of the policy (95% interval)", _with_ends(win_rate.win_rate), ""],
            ["the same at equal length", _with_ends(win_rate.length_controlled), ""],
        ]
    if reference is not None:
        if faithful:
            rows += _kl_of_answers(policy, reference)
        else:
            rows += [
                ["token KL(policy, reference) along them, nats/token", f"{policy.kl:.4f}", ""],
                ["token KL(reference, policy) along them, nats/token", "", f"{reference.kl:.4f}"],
            ]
    if faithful:
        rows.append(row("entropy of answers, nats", lambda one: _plus_minus(one.answer_entropy, 2)))
    return [
        *rows,
        row("entropy of the next token along them, nats/token", lambda one: f"{one.entropy:.3f}"),
        row("length, tokens", lambda one: _plus_minus(one.tokens, 1)),
        row("finished", lambda one: f"{one.finished.value:.0%}"),
        row(f"repeated {NGRAM}-grams", lambda one: f"{one.repetition.value:.1%}"),
    ]


def _kl_of_answers(policy: SampleEvaluation, reference: SampleEvaluation) -> Rows:
    """Each direction in the column of whose answers it is measured along."""
    forward, backward = policy.answer_kl, reference.answer_kl
    assert forward is not None
    assert backward is not None
    return [
        ["KL(policy, reference) of answers, nats", _plus_minus(forward.kl), ""],
        ["KL(reference, policy) of answers, nats", "", _plus_minus(backward.kl)],
        ["the same by log-ratios (k1)", *(_plus_minus(found.log_ratio) for found in (forward, backward))],
        ["the same by k3", *(_plus_minus(found.k3) for found in (forward, backward))],
        [
            "variance of one answer's: exact, k1, k3",
            *(", ".join(f"{value:.3g}" for value in found.variance) for found in (forward, backward)),
        ],
    ]


def said_of_samples(evaluations: Sequence[SampleEvaluation]) -> str:
    """What the errors in a table of sampled answers are, and how far the sampler is to be trusted."""
    largest = max(found.disagreement.largest for found in evaluations)
    prompts = len({row.prompt for row in evaluations[0].scored})
    over = "prompts" if prompts > 1 else "answers"
    return f"±: one standard error over {over}. Sampler and Scorer differ by at most {largest:.1g} nats a token."


def _with_ends(interval: Interval) -> str:
    return "{:.3f} ({:.3f}, {:.3f})".format(*interval)


def _plus_minus(estimate: Estimate, places: int = 3) -> str:
    return f"{estimate.value:.{places}f} ± {estimate.standard_error:.{places}f}"
