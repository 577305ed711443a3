"""Losses as small pure functions, and the table that declares their shape."""

from kilter.objectives.labelled import kto
from kilter.objectives.likelihood import sft
from kilter.objectives.pairwise import dpo, hinge, ipo
from kilter.objectives.scores import LabelledScores, PairScores
from kilter.objectives.table import OBJECTIVES, Objective, objective, resolve_options

__all__ = [
    "OBJECTIVES",
    "LabelledScores",
    "Objective",
    "PairScores",
    "dpo",
    "hinge",
    "ipo",
    "kto",
    "objective",
    "resolve_options",
    "sft",
]
