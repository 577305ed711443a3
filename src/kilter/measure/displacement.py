"""How far answers moved since the run began, and what it is called when all of them fall.

Preference losses see the difference of two log-probs. It also grows where both fall, the rejected one faster:
likelihood displacement (Razin et al. 2024, arXiv 2410.08847). What both lose goes to answers that the data do not have,
which may be as good as the chosen ones, or their opposite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from kilter.measure.answers import AnswerScores
from kilter.measure.labelled import ScoredLabelled
from kilter.measure.pairs import ScoredPairs
from kilter.measure.rankings import ScoredRankings
from kilter.measure.statistics import Interval, Sides, auc_difference, mean_interval, paired_difference


class Moved(NamedTuple):
    """Answers of one kind, scored before and after."""

    called: str
    before: AnswerScores
    after: AnswerScores

    @property
    def nats(self) -> Interval:
        """Mean change of an answer's log-prob, whatever the reference is."""
        return mean_interval(self.after.log_prob_A - self.before.log_prob_A)


@dataclass(frozen=True, eq=False)
class Displacement:
    """The better and the worse answers, before and after, and how much better they are now told apart; `remedies` are
    objectives for such data that hold the better ones up."""

    better: Moved
    worse: Moved
    told_apart: Interval
    remedies: tuple[str, ...]

    def summary(self) -> dict[str, float]:
        """One flat row for metrics: nats per answer, each with the ends of its 95% interval."""
        row: dict[str, float] = {}
        for side in (self.better, self.worse):
            if len(side.after):
                row |= side.nats.named(f"{side.called}_moved")
        return row

    @property
    def both_fall(self) -> bool:
        """Whether better and worse answers became less likely while they came to be told apart better, each by more
        than chance would have it."""
        return self.told_apart.low > 0 and self.better.nats.high < 0 and self.worse.nats.high < 0

    @property
    def words(self) -> str:
        """What to say where `both_fall`, and what to try; nothing otherwise."""
        if not self.both_fall:
            return ""
        better, worse = self.better, self.worse
        to_try = [f'--objective "{name}"' if " " in name else f"--objective {name}" for name in self.remedies]
        return (
            f"Likelihood displacement: accuracy rose because both fell, {better.called} answers by "
            f"{-better.nats.value:.2f} nats and {worse.called} ones by {-worse.nats.value:.2f}. What they lost went to "
            f"answers that the data do not have: read samples. To hold {better.called} answers up, try "
            f"{', '.join(to_try)}; or fewer steps, a larger --beta."
        )


def of_pairs(before: ScoredPairs, after: ScoredPairs) -> Displacement:
    """Chosen and rejected answers of the same pairs."""
    return Displacement(
        Moved("chosen", before.chosen, after.chosen),
        Moved("rejected", before.rejected, after.rejected),
        paired_difference(after.correct_P, before.correct_P),
        ("dpo + 0.2*sft", "dpop", "apo_zero"),
    )


def of_rankings(before: ScoredRankings, after: ScoredRankings) -> Displacement:
    """The better and the worse of every two answers whose ranks differ, in the same rankings."""
    pairs = of_pairs(before.pairs, after.pairs)
    return Displacement(pairs.better, pairs.worse, pairs.told_apart, ("plackett_luce + 0.2*sft",))


def of_labelled(before: ScoredLabelled, after: ScoredLabelled) -> Displacement:
    """Good and bad answers, the same ones; told apart by the area under the ROC curve."""
    start, end = (Sides(scored.good.log_ratio_A, scored.bad.log_ratio_A) for scored in (before, after))
    return Displacement(
        Moved("good", before.good, after.good),
        Moved("bad", before.bad, after.bad),
        auc_difference(end, start),
        ("kto + 0.2*sft",),
    )
