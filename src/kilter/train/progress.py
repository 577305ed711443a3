"""How a run looks from outside: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINES = 10  # plain lines for a whole run


class Report(Protocol):
    """Told of each step's numbers."""

    def __call__(self, step: int, shown: Mapping[str, str]) -> None: ...


@contextmanager
def progress(console: Console, label: str, steps: int, done: int = 0) -> Iterator[Report]:
    """A bar with the latest numbers and the time left; about ten plain lines where there is no terminal.

    `done` steps have been made before.
    """
    if not console.is_terminal:
        begin = time.monotonic()

        def line(step: int, shown: Mapping[str, str]) -> None:
            if step * LINES // steps != (step - 1) * LINES // steps or step == done + 1:
                left = (time.monotonic() - begin) / (step - done) * (steps - step)
                numbers = "  ".join(f"{name} {value}" for name, value in shown.items())
                console.print(f"{label} {step}/{steps}  {numbers}  {left:.0f} s left", highlight=False, soft_wrap=True)

        yield line
        return
    columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[shown]}"))
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task(label, total=steps, completed=done, shown="")

        def update(step: int, shown: Mapping[str, str]) -> None:
            bar.update(task, completed=step, shown="  ".join(f"{name} {value}" for name, value in shown.items()))

        yield update
