"""What `kilter compare` prints. Whatever models and files say is shown as it is; control characters are escaped."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kilter.data.formats import printable
from kilter.divergence.estimates import Estimate
from kilter.measure.compare import PERCENTS, Comparison, Spread, Token
from kilter.measure.config import CompareConfig

BESIDE = 3  # divergences in a table
CONTEXT_SHOWN = 70  # characters, of its end

# How a divergence is headed; p is model A's next-token distribution, q is B's.
TITLES = {
    "kl_a_b": "KL(A, B)",
    "kl_b_a": "KL(B, A)",
    "jeffreys": "Jeffreys",
    "js": "JS",
    "total_variation": "total variation",
    "squared_hellinger": "squared Hellinger",
    "chi2": "chi2(A, B)",
    "reverse_chi2": "chi2(B, A)",
}


def show(console: Console, found: Comparison, config: CompareConfig) -> None:
    """Print all of it, the worst tokens last."""
    for note in found.notes:
        console.print(f"note: {printable(note, 1000)}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    for name, model in (("A", found.model_a), ("B", found.model_b)):
        console.print(f"{name}: {printable(model, 1000)}", highlight=False, markup=False, soft_wrap=True)
    texts = f"{found.documents:,} {'text' if found.documents == 1 else 'texts'}"
    console.print(f"\n{found.tokens:,} tokens of {texts}; ±: one standard error over texts", highlight=False)
    names = list(found.divergences)
    for start in range(0, len(names), BESIDE):
        console.print(_divergences({name: found.divergences[name] for name in names[start : start + BESIDE]}))
    console.print(_each(found))
    console.print(_both(found))
    _show_worst(console, found, config.worst)
    if config.token_report is not None:
        console.print(
            f"all {found.tokens:,} tokens: {config.token_report}", highlight=False, soft_wrap=True, markup=False
        )
    console.print(f"{found.tokens / max(found.seconds, 1e-9):,.0f} tokens a second", highlight=False)


def _divergences(spreads: Mapping[str, Spread]) -> Table:
    """A column for each: the mean over tokens, percentiles of them, and the largest."""
    table = _table("a token", *(TITLES[name] for name in spreads))
    table.add_row("mean", *(shown(spread.mean) for spread in spreads.values()))
    for percent in PERCENTS:
        table.add_row(f"{percent:g}%", *(number(spread.percentiles[f"{percent:g}"]) for spread in spreads.values()))
    table.add_row("largest", *(number(spread.largest) for spread in spreads.values()))
    return table


def _each(found: Comparison) -> Table:
    table = _table("", "A", "B")
    table.add_row("perplexity", shown(found.perplexity_a), shown(found.perplexity_b))
    table.add_row("nats a token", shown(found.nats_a), shown(found.nats_b))
    return table


def _both(found: Comparison) -> Table:
    table = _table("", "A against B")
    table.add_row("perplexity of A / of B", shown(found.perplexity_ratio))
    table.add_row("same likeliest token", shown(found.same_top))
    table.add_row("correlation of log-probs", f"{found.correlation:.6f}")
    table.add_row("probability of the token, A - B", shown(found.probability_change))
    table.add_row("root mean square of that", number(found.probability_change_rms))
    return table


def _table(*headings: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", no_wrap=True)
    return table


def _show_worst(console: Console, found: Comparison, most: int) -> None:
    if not found.worst:
        if most:
            console.print("no token is apart", style="bold")
        return
    console.print(f"the {len(found.worst):,} tokens where they are furthest apart, by the larger KL", style="bold")
    for token in found.worst:
        console.print(_worst(token), soft_wrap=True)


def _worst(token: Token) -> Text:
    """Where, what stood before and the token itself, and what both made of it."""
    context = token.context if len(token.context) <= CONTEXT_SHOWN else "…" + token.context[-CONTEXT_SHOWN:]
    where = f"{token.origin}, {token.part}, token {token.position:,}"
    lines = Text(f"{printable(where, 1000)}: ", style="dim")
    lines.append(f"KL(A, B) {number(token.kl_a_b)}, KL(B, A) {number(token.kl_b_a)}\n")
    lines.append(f"  {_visible(context)}", style="default")
    lines.append(f"[{_visible(token.token)}]\n", style="bold")
    for name, log_prob, top in (("A", token.log_prob_a, token.top_a), ("B", token.log_prob_b, token.top_b)):
        likeliest = "its likeliest" if top == token.token else f"likeliest [{_visible(top)}]"
        lines.append(f"  {name}: probability {number(math.exp(log_prob))}, {likeliest}\n", style="default")
    lines.rstrip()
    return lines


def _visible(text: str) -> str:
    return printable(text.replace("\n", "↵"), 4 * len(text) + 1)


def number(value: float) -> str:
    """Four digits that count."""
    return f"{value:.4g}"


def shown(estimate: Estimate) -> str:
    """A value and its error, in as many places as two digits of the error need."""
    value, error = estimate.value, estimate.standard_error
    if not math.isfinite(error) or not math.isfinite(value):
        return number(value)
    if error == 0:
        return f"{number(value)} ± 0"
    places = max(0, 1 - math.floor(math.log10(error)))
    if places > 6:
        exponent = math.floor(math.log10(max(abs(value), error)))
        scale = 10.0**exponent
        digits = max(1, places + exponent)
        if exponent:
            return f"({value / scale:.{digits}f} ± {error / scale:.{digits}f})e{exponent:+03d}"
    return f"{value:.{places}f} ± {error:.{places}f}"
