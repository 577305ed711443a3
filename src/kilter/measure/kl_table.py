"""What `kilter kl` prints: the two distributions as bars, the numbers in nats and bits, and how they come about."""

from __future__ import annotations

import math

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from kilter.measure.kl import BIT, QUANTITIES, Apart
from kilter.measure.kl_derivation import Derivation, derivations, number
from kilter.measure.kl_picture import Bar, bars

P_STYLE, Q_STYLE = "blue", "dark_orange"
LABEL, VALUE = 14, 8  # cells of an outcome's name and of its probability
LONGEST_BAR, SHORTEST_BAR = 32, 6
WIDE = 80  # cells from which on there is room to say what a number is
EIGHTHS = " ▏▎▍▌▋▊▉"


def show(console: Console, apart: Apart, *, explain: bool) -> None:
    """Print everything; lines that are not for a terminal end without blanks."""
    if console.is_terminal:
        _show(console, apart, explain)
        return
    with console.capture() as captured:
        _show(console, apart, explain)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=console.file)


def _show(console: Console, apart: Apart, explain: bool) -> None:
    _picture(console, apart)
    console.print(_numbers(apart, console.width))
    for remark in apart.remarks:
        console.print(Padding(Text(remark), (1, 0, 0, 0)))
    if explain:
        for derivation in derivations(apart):
            console.print()
            _derive(console, derivation)


def _picture(console: Console, apart: Apart) -> None:
    rows, remark = bars(apart.p, apart.q)
    for name, given, style in (("p", apart.p, P_STYLE), ("q", apart.q, Q_STYLE)):
        console.print(Text(f"{name}  {given.text}", style=style, overflow="ellipsis", no_wrap=True))
    console.print()
    if rows:
        console.print(_grid(console, rows))
    if remark:
        console.print(Text(remark, style="dim"))
    console.print()


def _grid(console: Console, rows: list[Bar]) -> Table:
    label = min(max(len(bar.label) for bar in rows), LABEL)
    room = (console.width - label - 2 * (VALUE + 1) - 4) // 2
    longest = max(min(room, LONGEST_BAR), SHORTEST_BAR)
    most = max(height for bar in rows for height in (bar.p, bar.q) if math.isfinite(height))
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=label, overflow="ellipsis", no_wrap=True, style="dim")
    for style in (P_STYLE, Q_STYLE):
        grid.add_column(width=VALUE, justify="right", no_wrap=True)
        grid.add_column(width=longest, no_wrap=True, style=style)
    grid.add_row("", Text("p", style="bold"), "", Text("q", style="bold"), "")
    for bar in rows:
        drawn = [_bar(min(height / most, 1) * longest, console) for height in (bar.p, bar.q)]
        grid.add_row(Text(bar.label), f"{bar.p:.3g}", drawn[0], f"{bar.q:.3g}", drawn[1])
    return grid


def _bar(cells: float, console: Console) -> str:
    """A bar so many cells long, to an eighth of one; what is not 0 is seen."""
    eighths = max(round(cells * 8), cells > 0)
    if not console.encoding.lower().startswith("utf"):
        return "#" * max(round(eighths / 8), cells > 0)
    return "█" * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _numbers(apart: Apart, width: int) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("")
    table.add_column("")
    for unit in ("nats", "bits"):
        table.add_column(unit, justify="right", header_style="dim", min_width=10)
    if width >= WIDE:
        table.add_column("", style="dim", overflow="fold")
    for quantity in QUANTITIES:
        value = apart.values[quantity.name]
        told = "not computed" if math.isnan(value) else number(value)
        in_bits = number(value / BIT) if quantity.in_nats else ""
        entropy_of_density = apart.of_densities and quantity.symbol.startswith("H")
        says = ["" if entropy_of_density else quantity.says] if width >= WIDE else []
        style = "bold" if quantity.symbol.startswith("KL") else ""
        table.add_row(quantity.words, quantity.symbol, Text(told, style), Text(in_bits, style), *says)
    return table


def _derive(console: Console, derivation: Derivation) -> None:
    console.print(Text(derivation.formula, style="bold"))
    if derivation.heads:
        table = Table(box=None, pad_edge=False, padding=(0, 1))
        table.add_column("", max_width=LABEL, overflow="ellipsis", no_wrap=True, style="dim")
        for head in derivation.heads:
            table.add_column(head, justify="right", header_style="dim", min_width=8, no_wrap=True)
        for line in derivation.lines:
            table.add_row(Text(line.label), *("" if cell is None else number(cell) for cell in line.numbers))
        console.print(Padding(table, (0, 0, 0, 2)))
    for words in derivation.words:
        console.print(Padding(Text(words), (0, 0, 0, 2)))
