"""How the numbers of `kilter kl` come about, line by line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.measure.kl import BIT, Apart
from kilter.measure.kl_input import Listed
from kilter.measure.kl_picture import most_different

Numbers: TypeAlias = NDArray[np.float64]
LINES = 12


class Line(NamedTuple):
    """What an outcome, or all of them together, adds."""

    label: str
    numbers: tuple[float | None, ...]


@dataclass(frozen=True)
class Derivation:
    """A formula, a line an outcome under the heads of its parts, and the sum in words."""

    formula: str
    heads: tuple[str, ...] = ()
    lines: tuple[Line, ...] = ()
    words: tuple[str, ...] = ()


class Rule(NamedTuple):
    """How a value is a sum over outcomes: the columns that lead to the last, which is what each adds."""

    value: str
    formula: str
    columns: tuple[str, ...]


RULES = (
    Rule("entropy_p", "H(p) = sum of -p ln p", ("p", "-ln p", "-p ln p")),
    Rule("entropy_q", "H(q) = sum of -q ln q", ("q", "-ln q", "-q ln q")),
    Rule("cross_entropy_pq", "H(p, q) = sum of -p ln q", ("p", "-ln q", "-p ln q")),
    Rule("cross_entropy_qp", "H(q, p) = sum of -q ln p", ("q", "-ln p", "-q ln p")),
    Rule("kl_pq", "KL(p, q) = sum of p ln(p/q)", ("p", "q", "ln(p/q)", "p ln(p/q)")),
    Rule("kl_qp", "KL(q, p) = sum of q ln(q/p)", ("q", "p", "ln(q/p)", "q ln(q/p)")),
    Rule(
        "js", "JS(p, q) = half of KL(p, m) + KL(q, m), m = (p + q) / 2", ("m", "p ln(p/m)", "q ln(q/m)", "half of both")
    ),
    Rule("tv", "TV(p, q) = half the sum of |p - q|", ("p", "q", "|p - q| / 2")),
)


def _columns(p: Numbers, q: Numbers) -> dict[str, Numbers]:
    """All that RULES name, for each outcome."""
    m = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {"p": p, "q": q, "m": m, "-ln p": -np.log(p), "-ln q": -np.log(q)}
        columns |= {"ln(p/q)": np.log(p / q), "ln(q/p)": np.log(q / p)}
        columns |= {"-p ln p": _adds(p, -np.log(p)), "-q ln q": _adds(q, -np.log(q))}
        columns |= {"-p ln q": _adds(p, -np.log(q)), "-q ln p": _adds(q, -np.log(p))}
        columns |= {"p ln(p/q)": _adds(p, np.log(p / q)), "q ln(q/p)": _adds(q, np.log(q / p))}
        columns |= {"p ln(p/m)": _adds(p, np.log(p / m)), "q ln(q/m)": _adds(q, np.log(q / m))}
    columns["half of both"] = (columns["p ln(p/m)"] + columns["q ln(q/m)"]) / 2
    return columns | {"|p - q| / 2": abs(p - q) / 2}


def _adds(p: Numbers, value: Numbers) -> Numbers:
    """p times value; 0 where p is 0, whatever the value."""
    return np.where(p > 0, p, 0.0) * np.where(p > 0, value, 0.0)


def derivations(apart: Apart) -> Iterator[Derivation]:
    """Each value's derivation; what is another's with p and q exchanged is left out."""
    p, q = apart.p, apart.q
    assert isinstance(p, Listed)
    assert isinstance(q, Listed)
    places = most_different(p, q, LINES)
    columns = _columns(p.probabilities, q.probabilities)
    for rule in RULES:
        wanted = [columns[name] for name in rule.columns]
        lines = [Line(p.outcomes[i], tuple(float(column[i]) for column in wanted)) for i in places]
        blank = (None,) * (len(wanted) - 1)
        if left := len(p.outcomes) - len(places):
            others = float(np.delete(wanted[-1], places).sum())
            lines.append(Line(f"{left:,} others", (*blank, others)))
        lines.append(Line("sum", (*blank, apart.values[rule.value])))
        yield Derivation(rule.formula, rule.columns, tuple(lines))
    yield _together(apart)


def _together(apart: Apart) -> Derivation:
    value = {name: number(nats) for name, nats in apart.values.items()}
    return Derivation(
        "Together",
        words=(
            f"H(p, q) = H(p) + KL(p, q):  {value['entropy_p']} + {value['kl_pq']} = {value['cross_entropy_pq']}",
            f"H(q, p) = H(q) + KL(q, p):  {value['entropy_q']} + {value['kl_qp']} = {value['cross_entropy_qp']}",
            f"bits are nats / ln 2:  {value['kl_pq']} / {BIT:.6f} = {number(apart.values['kl_pq'] / BIT)}",
        ),
    )


def number(value: float) -> str:
    """Six digits; what is small or large with its power of ten."""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.6f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.5e}"
