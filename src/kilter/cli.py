"""The command line: parses, calls, prints. Whatever is heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console

from kilter.demo.config import DemoConfig
from kilter.errors import KilterError
from kilter.measure.config import ScoreConfig
from kilter.train.config import AlignConfig, SftConfig

app = App(
    name="kilter",
    help="Align language models with preferences: every token computed once, every nat accounted for.",
    version_flags=["--version"],
)


@app.command
def align(*, config: Annotated[AlignConfig, Parameter(name="*")]) -> None:
    """Align a model with preference pairs."""
    from kilter.train.machine import settle

    settle(config.device)
    from kilter.train.align import align

    align(config)


@app.command
def sft(*, config: Annotated[SftConfig, Parameter(name="*")]) -> None:
    """Teach a model to say what the examples say; or begin one from scratch."""
    from kilter.train.machine import settle

    settle(config.device)
    from kilter.train.sft import sft

    sft(config)


@app.command
def score(*, config: Annotated[ScoreConfig, Parameter(name="*")]) -> None:
    """Score preference pairs under a model, and against a reference."""
    from kilter.train.machine import settle

    settle(config.device)
    from kilter.measure.score import score

    score(config)


@app.command
def demo(*, config: Annotated[DemoConfig | None, Parameter(name="*")] = None) -> None:
    """Train and align a small model in a world where the best possible result is known exactly."""
    from kilter.train.machine import settle

    settle()
    from kilter.demo.wind_tunnel import demo

    demo(config or DemoConfig())


def main() -> None:
    """The `kilter` command. What a user can mend is told in a sentence; anything else keeps its traceback."""
    try:
        app(sys.argv[1:])
    except KilterError as error:
        Console(stderr=True).print("[bold red]error:[/] ", end="")
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped before the end; nothing was saved", file=sys.stderr)
        sys.exit(130)
