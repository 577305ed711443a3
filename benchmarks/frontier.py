"""How near objectives come to the exact optimum of what they stand for, in the world of `kilter demo`.

For each seed a small start model is trained from scratch, and every objective from it. At each step, every prompt has
answers drawn anew from the start model, and each two of them go to the noisy judge once: Bradley and Terry's choice by
the true reward. So labels are as noisy as the demo's and do not run out. The result is enumerated: the reward, KL from
the start model in both directions, and where the objective's population optimum is known, the distance to it.

    dpo                     pi_ref exp(r / beta), normalised
    f-DPO                   the p of most E_p[r] - beta E_ref[f(p / ref)] (arXiv 2309.16240)
    ipo                     pi_ref exp(w / beta), w being the chance to be preferred to an answer of the start model
                            (arXiv 2310.12036, eq. 7)

Writes frontier.md and frontier.svg into the output directory. Each finished run is a line of runs.jsonl there, and is
not run again; objectives that this version does not have are left out with a line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.train.machine import settle

Floats: TypeAlias = NDArray[np.float64]
Run: TypeAlias = dict[str, Any]
Optimum: TypeAlias = Callable[[Floats, Floats, float], Floats]

SHAPE = "layers=3,hidden=64,heads=4,kv_heads=4,mlp=192,vocabulary=1024,length=64"
SENTENCES = 96_000
LONGEST = 24  # tokens of an answer that is drawn; the longest sentence has 12

# Betas at which the optimum is between about half a nat and three away: far enough that the objective has something to
# do, near enough that the start model's answers show what is best.
OBJECTIVES = (
    "dpo(beta=1)",
    "dpo(beta=0.5)",
    "dpo(beta=0.3)",
    "fdpo_forward_kl(beta=1)",
    "fdpo_js(beta=4)",
    "fdpo_alpha(beta=0.7)",
    "ipo(beta=0.2)",
    "kto(beta=0.5)",
    "simpo(beta=2, gamma=1)",
    "orpo(beta=0.1)",
)


class Asked(NamedTuple):
    """What one prompt's answers are drawn from: S sentences, and texts off the grammar that the start model wrote."""

    sentences: list[Any]
    off_grammar: list[Any]
    log_p_S: Floats  # the off-grammar outcome last
    reward_S: Floats


@dataclass(frozen=True)
class Tunnel:
    """The world as one start model sees it."""

    start: Path
    asked: list[Asked]
    share: Floats

    @cached_property
    def every_sentence(self) -> Any:
        from kilter.model.prepared import PreparedTree
        from kilter.tokens.tree import TokenTree

        return PreparedTree(TokenTree.build([s for asked in self.asked for s in asked.sentences]))

    def enumerate(self, policy: Any) -> list[Floats]:
        """Log-probs of all outcomes under a model, one array for each prompt."""
        import torch

        from kilter.demo.frontier import with_off_grammar

        with torch.no_grad():
            (log_prob,) = policy(self.every_sentence)
            sums = self.every_sentence.sum_edges(log_prob.double()).numpy()
        ends = np.cumsum([len(asked.sentences) for asked in self.asked])[:-1]
        return [with_off_grammar(part) for part in np.split(sums, ends)]

    def over_prompts(self, value: Callable[..., float], *arrays: Sequence[Floats]) -> float:
        from kilter.demo.frontier import over_prompts

        return over_prompts([value(*parts) for parts in zip(*arrays, strict=True)], self.share)
