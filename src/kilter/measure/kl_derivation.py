"""How the numbers of `kilter kl` come about, line by line."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kilter.measure.kl import BIT, Apart
from kilter.measure.kl_input import Listed, Named
from kilter.measure.kl_picture import grid_about, log_density, most_different, places_of

if TYPE_CHECKING:
    from kilter.divergence.families import Family

Numbers: TypeAlias = NDArray[np.float64]
LINES = 12
SEEN = 5e-6  # what lines of six digits may lack of their sum without a line of its own


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
    symbol: str
    formula: str
    columns: tuple[str, ...]


RULES = (
    Rule("entropy_p", "H(p)", "sum of -p ln p", ("p", "-ln p", "-p ln p")),
    Rule("entropy_q", "H(q)", "sum of -q ln q", ("q", "-ln q", "-q ln q")),
    Rule("cross_entropy_pq", "H(p, q)", "sum of -p ln q", ("p", "-ln q", "-p ln q")),
    Rule("cross_entropy_qp", "H(q, p)", "sum of -q ln p", ("q", "-ln p", "-q ln p")),
    Rule("kl_pq", "KL(p, q)", "sum of p ln(p/q)", ("p", "q", "ln(p/q)", "p ln(p/q)")),
    Rule("kl_qp", "KL(q, p)", "sum of q ln(q/p)", ("q", "p", "ln(q/p)", "q ln(q/p)")),
    Rule(
        "js",
        "JS(p, q)",
        "half of KL(p, m) + KL(q, m), m = (p + q) / 2",
        ("m", "p ln(p/m)", "q ln(q/m)", "half of both"),
    ),
    Rule("tv", "TV(p, q)", "half the sum of |p - q|", ("p", "q", "|p - q| / 2")),
)


def _columns(ln_p: Numbers, ln_q: Numbers) -> dict[str, Numbers]:
    """All that RULES name, for each outcome; from logarithms, for probabilities underflow."""
    with np.errstate(all="ignore"):
        ln_m = np.logaddexp(ln_p, ln_q) - math.log(2)
        p, q, m = np.exp(ln_p), np.exp(ln_q), np.exp(ln_m)
        columns = {"p": p, "q": q, "m": m, "-ln p": -ln_p, "-ln q": -ln_q}
        columns |= {"ln(p/q)": ln_p - ln_q, "ln(q/p)": ln_q - ln_p}
        columns |= {"-p ln p": _adds(p, -ln_p), "-q ln q": _adds(q, -ln_q)}
        columns |= {"-p ln q": _adds(p, -ln_q), "-q ln p": _adds(q, -ln_p)}
        columns |= {"p ln(p/q)": _adds(p, ln_p - ln_q), "q ln(q/p)": _adds(q, ln_q - ln_p)}
        columns |= {"p ln(p/m)": _adds(p, ln_p - ln_m), "q ln(q/m)": _adds(q, ln_q - ln_m)}
    columns["half of both"] = (columns["p ln(p/m)"] + columns["q ln(q/m)"]) / 2
    return columns | {"|p - q| / 2": abs(p - q) / 2}


def _adds(p: Numbers, value: Numbers) -> Numbers:
    """p times value; 0 where p is 0, whatever the value."""
    return np.where(p > 0, p, 0.0) * np.where(p > 0, value, 0.0)


def derivations(apart: Apart) -> Iterator[Derivation]:
    """Each value's sum or integral, and how the values belong together."""
    if isinstance(apart.p, Listed) and isinstance(apart.q, Listed):
        yield from _by_outcomes(apart, apart.p, apart.q)
    elif isinstance(apart.p, Named) and isinstance(apart.q, Named):
        yield from _in_closed_form(apart, apart.p.family, apart.q.family)
        yield from _by_places(apart, apart.p.family, apart.q.family)
    yield _together(apart)


def _by_outcomes(apart: Apart, p: Listed, q: Listed) -> Iterator[Derivation]:
    places = most_different(p, q, LINES)
    with np.errstate(divide="ignore"):
        columns = _columns(np.log(p.probabilities), np.log(q.probabilities))
    columns |= {"p": p.probabilities, "q": q.probabilities}
    for rule in RULES:
        wanted = [columns[name] for name in rule.columns]
        lines = [Line(p.outcomes[i], tuple(float(column[i]) for column in wanted)) for i in places]
        if left := len(p.outcomes) - len(places):
            lines.append(_end(f"{left:,} others", float(np.delete(wanted[-1], places).sum()), rule.columns))
        lines.append(_end("sum", apart.values[rule.value], rule.columns))
        yield Derivation(f"{rule.symbol} = {rule.formula}", rule.columns, tuple(lines))


def _end(label: str, value: float, columns: Sequence[str]) -> Line:
    return Line(label, (*(None,) * (len(columns) - 1), value))


def _in_closed_form(apart: Apart, p: Family, q: Family) -> Iterator[Derivation]:
    from kilter.measure.kl_formulas import closed_form

    for symbol, value, one, other in (("KL(p, q)", "kl_pq", p, q), ("KL(q, p)", "kl_qp", q, p)):
        if found := closed_form(one, other):
            formula, terms = found
            formula = formula if symbol == "KL(p, q)" else exchanged(formula)
            steps = [f"{term.text} = {number(term.value)}" for term in terms if term.text[0] != "-"]
            yield Derivation(f"{symbol} = {formula}", words=(*steps, f"in all {number(apart.values[value])}"))


def _by_places(apart: Apart, p: Family, q: Family) -> Iterator[Derivation]:
    """What each stretch of the line adds; of whole numbers, each or some together."""
    stretches = _stretches(p, q)
    columns = _columns(log_density(p, stretches.points), log_density(q, stretches.points))
    for rule in RULES:
        heads = ("p", "q", rule.columns[-1])
        with np.errstate(invalid="ignore"):
            sums = [np.bincount(stretches.of, stretches.weights * columns[head]) for head in heads]
        lines = [Line(label, tuple(map(float, row))) for label, *row in zip(stretches.labels, *sums, strict=True)]
        value = apart.values[rule.value]
        elsewhere = value - float(sums[-1].sum()) if math.isfinite(value) else value
        if abs(elsewhere) > SEEN * (1 + abs(value)):
            lines.append(_end("elsewhere", elsewhere, heads))
        lines.append(_end("in all", value, heads))
        formula = rule.formula if p.discrete else rule.formula.replace("sum of", "integral of")
        yield Derivation(f"{rule.symbol} = {formula}", heads, tuple(lines))


class Stretches(NamedTuple):
    """Parts of the line by their labels; and points with the weights of a sum or an integral, each of one part."""

    labels: list[str]
    points: Numbers
    weights: Numbers
    of: NDArray[np.intp]


def _stretches(p: Family, q: Family) -> Stretches:
    places = np.asarray(places_of(p, q))
    if p.discrete:
        step = round(places[1] - places[0]) if len(places) > 1 else 1
        rows = places[:, None] + np.arange(step)
        labels = [f"{row[0]:.0f}" if step == 1 else f"{row[0]:.0f} to {row[-1]:.0f}" for row in rows]
        first, last = rows[0, 0], rows[-1, -1]
        high = min(max(float(of.support()[1]) for of in (p, q)), last + 1000 + 10 * (last - first))
        below = np.arange(max(0.0, first - 1000 - 10 * (last - first)), first)
        parts = [below, *rows, np.arange(last + 1, high + 1)]
        labels = [f"below {first:.0f}", *labels, f"above {last:.0f}"]
        of = np.repeat(np.arange(len(parts)), [part.size for part in parts])
        return _of_any(Stretches(labels, np.concatenate(parts), np.ones(of.size), of))
    # Panels end at the places, and lie close together where a density may be narrow or run off to infinity.
    edges = np.unique(np.concatenate([places, grid_about(p, 401), grid_about(q, 401)]))
    nodes, node_weights = np.polynomial.legendre.leggauss(12)
    half = np.diff(edges)[:, None] / 2
    points = (edges[:-1, None] + half + half * nodes).ravel()
    labels = [f"{start:g} to {end:g}" for start, end in pairwise(places)]
    labels = [f"below {places[0]:g}", *labels, f"above {places[-1]:g}"]
    return _of_any(Stretches(labels, points, (half * node_weights).ravel(), np.searchsorted(places, points)))


def _of_any(stretches: Stretches) -> Stretches:
    """Without the stretches that no point is of: there is nothing below the least outcome."""
    some, of = np.unique(stretches.of, return_inverse=True)
    return stretches._replace(labels=[stretches.labels[i] for i in some], of=of)


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


def exchanged(formula: str) -> str:
    """A formula with the parameters of p and q exchanged."""
    return re.sub(r"_([pq])\b", lambda found: "_q" if found[1] == "p" else "_p", formula)


def number(value: float) -> str:
    """Six digits; what is small or large with its power of ten; "" for what is no number, as ln(0/0)."""
    if math.isnan(value):
        return ""
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    return f"{value:.6f}" if 1e-4 <= abs(value) < 1e5 else f"{value:.5e}"
