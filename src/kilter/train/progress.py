"""How a run looks from outside: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import NamedTuple, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column

LINES = 10  # plain lines for a whole run


class Report(Protocol):
    """Told of each step's numbers."""

    def __call__(self, step: int, shown: Mapping[str, str]) -> None: ...


@contextmanager
def progress(console: Console, label: str, steps: int, done: int = 0) -> Iterator[Report]:
    """A bar with the latest numbers and the time left; about ten plain lines where there is no terminal.

    `done` steps have been made before. Steps beyond those that were planned count as planned.
    """
    if not console.is_terminal:
        begin = time.monotonic()

        def line(step: int, shown: Mapping[str, str]) -> None:
            if step * LINES // steps != (step - 1) * LINES // steps or step == done + 1:
                total = max(step, steps)
                left = (time.monotonic() - begin) / (step - done) * (total - step)
                numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
                console.print(f"{label} {step}/{total}  {numbers}  {left:.0f} s left", highlight=False, soft_wrap=True)

        yield line
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=steps, completed=done, shown="")

        def update(step: int, shown: Mapping[str, str]) -> None:
            numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
            bar.update(task, completed=step, total=max(step, steps), shown=numbers)

        yield update


class SweepProgress(NamedTuple):
    """Told when a run begins (its number, its name) and when it has ended; `of_run` is the `progress` of that run."""

    begin: Callable[[int, str], None]
    end: Callable[[], None]
    of_run: Callable[..., AbstractContextManager[Report]]


@contextmanager
def sweep_progress(console: Console, runs: int, done: int) -> Iterator[SweepProgress]:
    """A bar for the run in hand and one for all runs with the time so far and left; plain lines where there is no
    terminal."""
    if not console.is_terminal:

        def say(number: int, name: str) -> None:
            console.print(f"run {number} of {runs}: {name}", highlight=False, soft_wrap=True)

        @contextmanager
        def quiet(*_: object) -> Iterator[Report]:
            yield lambda step, shown: None

        yield SweepProgress(say, lambda: None, quiet)
        return
    name = TextColumn("{task.description}", table_column=Column(no_wrap=True, overflow="ellipsis", max_width=30))
    shown = TextColumn("{task.fields[shown]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
    with Progress(
        name,
        BarColumn(10),
        shown,
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        speed_estimate_period=3600,
    ) as bars:
        run = bars.add_task("", total=1, shown="", visible=False)
        whole = bars.add_task("all runs", total=runs, completed=done, shown=f"{done}/{runs}")
        ended = done

        def begin(number: int, name: str) -> None:
            bars.reset(run, description=name, total=1, visible=True, shown="beginning")

        def end() -> None:
            nonlocal ended
            ended += 1
            bars.update(run, visible=False)
            bars.update(whole, completed=ended, shown=f"{ended}/{runs}")

        @contextmanager
        def of_run(_: Console, label: str, steps: int, done: int = 0) -> Iterator[Report]:
            bars.reset(run, total=steps, completed=done, shown=f"{done}/{steps}")

            def report(step: int, shown: Mapping[str, str]) -> None:
                numbers = "  ".join(f"{name} {shown[name]}" for name in ("loss", "accuracy") if name in shown)
                total = max(step, steps)
                bars.update(run, completed=step, total=total, shown=f"{step}/{total}  {numbers}")
                bars.update(whole, completed=ended + step / total)

            yield report

        yield SweepProgress(begin, end, of_run)
