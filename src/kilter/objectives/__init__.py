"""Losses as small pure functions, the table that declares their shape, and their weighted sums."""

from kilter.objectives.coupled import aot, aot_unpaired, bco_pair, beta_dpo
from kilter.objectives.explicit import bt_kl, bt_kl_reference, kl, kl_reference
from kilter.objectives.f_dpo import fdpo_alpha, fdpo_forward_kl, fdpo_js
from kilter.objectives.labelled import bco, kto
from kilter.objectives.likelihood import sft
from kilter.objectives.mixture import Mixture, Term, parse
from kilter.objectives.pairwise import (
    apo_down,
    apo_zero,
    discopop,
    dpo,
    dpo_norm,
    dpop,
    exo,
    hinge,
    ipo,
    ipo_mean,
    margin_dpo,
    nca,
    robust,
    soft_dpo,
    sppo,
    sppo_soft,
)
from kilter.objectives.rankings import plackett_luce
from kilter.objectives.reference_free import cpo, orpo, simpo, slic
from kilter.objectives.scores import LabelledScores, PairScores, RankingScores, Scores
from kilter.objectives.table import OBJECTIVES, Objective, objective
from kilter.objectives.tokenwise import ld_dpo, ld_dpo_policy, tdpo1, tdpo2, wpo, wpo_clamped

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
    "apo_down",
    "apo_zero",
    "bco",
    "bco_pair",
    "beta_dpo",
    "bt_kl",
    "bt_kl_reference",
    "cpo",
    "discopop",
    "dpo",
    "dpo_norm",
    "dpop",
    "exo",
    "fdpo_alpha",
    "fdpo_forward_kl",
    "fdpo_js",
    "hinge",
    "ipo",
    "ipo_mean",
    "kl",
    "kl_reference",
    "kto",
    "ld_dpo",
    "ld_dpo_policy",
    "margin_dpo",
    "nca",
    "objective",
    "orpo",
    "parse",
    "plackett_luce",
    "robust",
    "sft",
    "simpo",
    "slic",
    "soft_dpo",
    "sppo",
    "sppo_soft",
    "tdpo1",
    "tdpo2",
    "wpo",
    "wpo_clamped",
]
