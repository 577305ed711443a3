"""Losses as small pure functions, the table that declares their shape, and their weighted sums."""

from kilter.objectives.labelled import kto
from kilter.objectives.likelihood import sft
from kilter.objectives.mixture import Mixture, Term, parse
from kilter.objectives.pairwise import dpo, hinge, ipo, ipo_mean
from kilter.objectives.scores import LabelledScores, PairScores, RankingScores, Scores
from kilter.objectives.table import OBJECTIVES, Objective, objective

__all__ = [
    "OBJECTIVES",
    "LabelledScores",
    "Mixture",
    "Objective",
    "PairScores",
    "RankingScores",
    "Scores",
    "Term",
    "dpo",
    "hinge",
    "ipo",
    "ipo_mean",
    "kto",
    "objective",
    "parse",
    "sft",
]
