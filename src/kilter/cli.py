"""The command line: parses, calls, prints. Whatever is heavy is imported inside the command that needs it."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
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

    settle()
    from kilter.train.align import align

    align(config)


@app.command
def sft(*, config: Annotated[SftConfig, Parameter(name="*")]) -> None:
    """Teach a model to say what the examples say; or begin one from scratch."""
    from kilter.train.machine import settle

    settle()
    from kilter.train.sft import sft

    sft(config)


@app.command
def score(*, config: Annotated[ScoreConfig, Parameter(name="*")]) -> None:
    """Score preference pairs under a model, and against a reference."""
    from kilter.train.machine import settle

    settle()
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
        app(sys.argv[1:], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(in_a_line(error))
    except KilterError as error:
        fail(str(error))
    except KeyboardInterrupt:
        print("\nstopped before the end; nothing was saved", file=sys.stderr)
        sys.exit(130)


def fail(message: str) -> NoReturn:
    Console(stderr=True).print("[bold red]error:[/] ", end="")
    print(message, file=sys.stderr)
    sys.exit(1)


def in_a_line(error: CycloptsError) -> str:
    """What is wrong with the flags, in flags' names; pydantic's own text names its internals."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return " ".join(str(error).split())
    problems = []
    for problem in cause.errors():
        flag = "".join(f"--{part} ".replace("_", "-") for part in problem["loc"])
        got = f", got {problem['input']}" if flag else ""
        problems.append(f"{flag}{problem['msg'].removeprefix('Value error, ')}{got}".replace("Input should", "should"))
    return "; ".join(problems)
