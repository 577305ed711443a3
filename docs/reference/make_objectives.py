"""Writes objectives.md beside this file, from the table of objectives."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kilter.objectives import OBJECTIVES, Objective

PAGE = Path(__file__).with_name("objectives.md")

TOP = """\
# Objectives

<!-- Written by docs/reference/make_objectives.py from OBJECTIVES in src/kilter/objectives/table.py. -->

What `kilter align --objective` takes; [Choosing an objective](../guides/choosing-an-objective.md) says which. An
objective is written by its name, with options in brackets, and several are added up with weights:
`dpo(beta=0.3) + 0.2*sft`. Each is the mean over its own items, so weights mean the same for any size of batch. Options
can also be given as `--beta` and the like, to all terms that have them and do not set them. One that no term has is an
error.

Each is a pure function in `kilter.objectives`, one value an item, in nats:

    r = log pi(y | x) - log pi_ref(y | x)     the log-ratio of an answer, summed over its tokens
    r_w, r_l                                  of the chosen and of the rejected answer
    gap = r_w - r_l
    l, l_w, l_l                               the policy's own log-probs
    n, n_w, n_l                               tokens of an answer
    D, D_w, D_l                               exact token KL, summed along an answer; its direction is said
    sigma(t) = 1 / (1 + exp(-t))
"""

KINDS = {
    "pairs": "Pairs",
    "labelled": "Answers labelled one by one",
    "rankings": "Rankings",
    "answers": "Answers",
}
SAID_OF_KINDS = {
    "pairs": "",
    "labelled": "Good and bad answers, in any number. Of pairs, the chosen answers are good and the rejected bad.",
    "rankings": "Two answers or more to a prompt, in order. A pair is a ranking of two.",
    "answers": "Terms for mixtures.",
}
NEEDS = {
    "reference_log_prob": "a reference",
    "tokens": "numbers of tokens",
    "shared_log_prob": "log-probs of the part that both answers have in length",
    "shared_reference_log_prob": "the reference's too",
    "kl_policy_reference": "exact token KL(policy, reference)",
    "kl_reference_policy": "exact token KL(reference, policy)",
    "log_collision": "the policy's whole distributions",
    "margin": "margins or scores in the data",
    "preference": "chances of preference in the data (1 where they say nothing)",
    "mismatched": "answers behind other prompts",
}
DENOMINATORS = {"pairs": "a pair", "answers": "an answer", "tokens": "a token", "rankings": "a ranking"}


def page() -> str:
    """The whole page."""
    sections = [TOP]
    for kind, heading in KINDS.items():
        rows = {name: row for name, row in OBJECTIVES.items() if row.takes == kind}
        if not rows:
            continue
        cells = [(f"[`{name}`](#{name})", row.summary, row.when) for name, row in rows.items()]
        sections.append(f"## {heading}\n\n" + (f"{SAID_OF_KINDS[kind]}\n\n" if SAID_OF_KINDS[kind] else ""))
        sections[-1] += _table(("objective", "what it is", "take it when"), cells)
        sections += [section(name, row) for name, row in rows.items()]
    return "\n".join(sections)


def section(name: str, row: Objective) -> str:
    """One objective: its equation, and what there is to know of it."""
    needs = [NEEDS[need] for need in NEEDS if need in row.needs]
    coupled = "; items of a batch depend on each other" if row.unit == "batch" else ""
    lines = [
        f"- paper: {row.paper}",
        f"- needs: {', '.join(needs) or 'nothing but the policy'}",
        f"- mean over: {DENOMINATORS[row.denominator]}{coupled}",
        *(f"- `{o.name}`: {o.default:g} unless said otherwise; {o.range}" for o in row.options.values()),
    ]
    return f"### {name}\n\n    {row.equation}\n\n" + "\n".join(lines) + "\n"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
