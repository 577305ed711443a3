"""Commands that calculate: without a model of settings, whose import takes longer than the answer."""

from __future__ import annotations

import difflib
from typing import Annotated

from cyclopts import Parameter

from kilter.errors import ConfigError

FLAGS = ("--data", "--outcomes", "--explain", "--json", "--help")


def kl(
    *distributions: Annotated[
        str,
        Parameter(
            allow_leading_hyphen=True,  # -0.2,1.2 is told what is wrong with it
            help="Two of them, p and q: probabilities (0.2,0.8 or 1/3,2/3), counts:3,5, logits:0,1.5, "
            "log_probs:..., or a family as in normal:0,1 or 'normal(0,1)'.",
        ),
    ],
    data: Annotated[
        str | None,
        Parameter(
            help="A file of which p and q are columns, an outcome a row: CSV, TSV, Parquet, Arrow, JSON or JSON lines."
        ),
    ] = None,
    outcomes: Annotated[str | None, Parameter(help="The column that names the outcomes.")] = None,
    explain: Annotated[bool, Parameter(negative="", help="Derive the numbers line by line.")] = False,
    as_json: Annotated[
        bool, Parameter(name=("--as-json", "--json"), negative="", help="Print the same numbers as JSON.")
    ] = False,
) -> None:
    """Say how far apart two distributions are: entropies, cross-entropies, KL both ways, JS, TV."""
    for given in distributions:
        if given.startswith("--"):
            near = difflib.get_close_matches(given, FLAGS, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(FLAGS)}"
            raise ConfigError(f"there is no flag {given}; {meant}")
    from kilter.measure.kl import kl

    kl(distributions, data=data, outcomes=outcomes, explain=explain, as_json=as_json)
