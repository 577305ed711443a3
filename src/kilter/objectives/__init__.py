"""Losses as small pure functions, the table that declares their shape, and their weighted sums."""

from kilter.objectives.coupled import aot, aot_unpaired, bco_pair, beta_dpo
from kilter.objectives.explicit import bt_kl, bt_kl_reference, kl, kl_reference
from kilter.objectives.labelled import bco, kto
from kilter.objectives.likelihood import sft
from kilter.objectives.mixture import Mixture, Term, parse
from kilter.objectives.pairwise import dpo, hinge, ipo, ipo_mean
from kilter.objectives.rankings import plackett_luce
from kilter.objectives.reference_free import cpo, orpo, simpo, slic
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
    "aot",
    "aot_unpaired",
    "bco",
    "bco_pair",
    "beta_dpo",
    "bt_kl",
    "bt_kl_reference",
    "cpo",
    "dpo",
    "hinge",
    "ipo",
    "ipo_mean",
    "kl",
    "kl_reference",
    "kto",
    "objective",
    "orpo",
    "parse",
    "plackett_luce",
    "sft",
    "simpo",
    "slic",
]
