"""The command line: parses, calls, prints. A command's own module is imported when the command is named."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from kilter.errors import KilterError, StoppedError
from kilter.flags import PanelsBySubject

# Which of torchrun's processes this is.
WORKER = os.environ.get("RANK", "0")

app = App(
    name="kilter",
    help="Align language models with preferences: every token computed once, every nat accounted for.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # main says what became of the work
    help_formatter=PanelsBySubject(),
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),  # --data a.jsonl b.jsonl
)


for command, summary in {
    "align": "Align a model with preferences: pairs, rankings, or labelled answers.",
    "sweep": "Align over a grid (--beta 0.1,0.3 --objective dpo,ipo), and show what each run gains for its KL.",
    "sft": "Teach a model to say what the examples say; or begin one from scratch.",
    "check": "Look at data before training: what it holds, what must be mended, what a run would take.",
    "score": "Score preference pairs under a model, and against a reference.",
    "compare": "Measure how far apart two models with one vocabulary are on the same text.",
    "generate": "Let a model answer prompts, alone or beside another.",
    "convert": "Write files of any format as canonical JSON lines.",
    "demo": "Train and align a small model in a world where the best possible result is known exactly.",
}.items():
    app.command(f"kilter.commands:{command}", help=summary)
# By itself, so that it answers at once.
app.command(
    "kilter.calculators:kl",
    help="Say how far apart two distributions are: entropies, cross-entropies, KL both ways, JS, TV.",
)
app.command(
    "kilter.instruments:rank",
    help="Rank what was compared: Bradley-Terry strengths with intervals, ranks and predictions; warnings first.",
)


def main() -> None:
    """The `kilter` command. What a user can mend is told in a sentence; anything else keeps its traceback."""
    try:
        # A hyphen by itself is no flag: it is standard input.
        app(["/dev/stdin" if token == "-" else token for token in sys.argv[1:]], exit_on_error=False, print_error=False)
    except CycloptsError as error:
        fail(in_a_line(error))
    except StoppedError as stopped:
        if WORKER == "0":
            print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
    except KilterError as error:
        fail(str(error))
    except BrokenPipeError:  # whoever read our output has seen enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except KeyboardInterrupt:
        print("\nstopped at once; nothing more was saved", file=sys.stderr)
        sys.exit(130)


def fail(message: str) -> NoReturn:
    Console(stderr=True).print("[bold red]error:[/] ", end="")
    print(message if WORKER == "0" else f"(worker {WORKER}) {message}", file=sys.stderr)
    sys.exit(1)


def in_a_line(error: CycloptsError) -> str:
    """What is wrong with the flags, in flags' names; pydantic's own text names its internals."""
    from pydantic import ValidationError

    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValidationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return " ".join(str(error).split())
    problems = []
    for problem in cause.errors():
        # A number is the place of a value within those of its flag.
        flag = "".join(f"--{part} ".replace("_", "-") for part in problem["loc"] if isinstance(part, str))
        if problem["type"] == "missing":
            problems.append(f"{flag}is required")
            continue
        got = f", got {problem['input']}" if flag else ""
        problems.append(f"{flag}{problem['msg'].removeprefix('Value error, ')}{got}".replace("Input should", "should"))
    return "; ".join(problems)
