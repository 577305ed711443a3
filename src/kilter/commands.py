"""What each command of `kilter` does: settle the machine, then import and call. Loaded when a command is named."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from cyclopts import Parameter

from kilter.data.config import ConvertConfig
from kilter.demo.config import DemoConfig
from kilter.errors import ConfigError
from kilter.measure.config import CheckConfig, CompareConfig, GenerateConfig, ScoreConfig
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.grid import SweepConfig

PrintConfig = Annotated[
    bool, Parameter(negative="", help="Print the settings as a file that --config reads, and do nothing else.")
]


def align(*, config: Annotated[AlignConfig, Parameter(name="*")], print_config: PrintConfig = False) -> None:
    """Align a model with preferences: pairs, rankings, or labelled answers."""
    if print_config:
        print(config.toml, end="")
        return
    from kilter.train.machine import settle

    settle()
    from kilter.train.align import align

    align(config)


def sweep(*, config: Annotated[SweepConfig, Parameter(name="*")], print_config: PrintConfig = False) -> None:
    """Align over a grid (--beta 0.1,0.3 --objective dpo,ipo), and show what each run gains for its KL."""
    if print_config:
        print(config.toml, end="")
        return
    from kilter.train.machine import settle

    _not_by_many("sweep")
    settle()
    from kilter.train.sweep import sweep

    oracle = None
    if config.world is not None:
        from kilter.demo.sweep import RestaurantOracle

        oracle = RestaurantOracle(config.model)
    if not sweep(config, oracle=oracle).complete:
        sys.exit(1)


def sft(*, config: Annotated[SftConfig, Parameter(name="*")], print_config: PrintConfig = False) -> None:
    """Teach a model to say what the examples say; or begin one from scratch."""
    if print_config:
        print(config.toml, end="")
        return
    from kilter.train.machine import settle

    settle()
    from kilter.train.sft import sft

    sft(config)


def check(
    *data: Annotated[str, Parameter(help="Files to look at: pairs, labelled or ranked answers, demonstrations.")],
    config: Annotated[CheckConfig | None, Parameter(name="*", consume_multiple=True)] = None,
) -> None:
    """Look at data before training: what it holds, what must be mended, what a run would take."""
    from kilter.measure.check import check

    config = config or CheckConfig()
    if data:
        config = CheckConfig(**config.model_dump(exclude_unset=True) | {"data": data + (config.data or ())})
    if check(config).to_mend:
        sys.exit(1)


def score(*, config: Annotated[ScoreConfig, Parameter(name="*")]) -> None:
    """Score preference pairs under a model, and against a reference."""
    from kilter.train.machine import settle

    _not_by_many("score")
    settle()
    from kilter.measure.score import score

    score(config)


def compare(
    model_a: Annotated[str, Parameter(help="Directory or hub name of a model, such as the aligned or quantised one.")],
    model_b: Annotated[str, Parameter(help="The model that it is compared with, such as its reference.")],
    /,
    *,
    config: Annotated[CompareConfig, Parameter(name="*")],
) -> None:
    """Measure how far apart two models with one vocabulary are on the same text."""
    from kilter.train.machine import settle

    _not_by_many("compare")
    settle()
    from kilter.measure.compare import compare

    compare(model_a, model_b, config)


def generate(*, config: Annotated[GenerateConfig, Parameter(name="*")]) -> None:
    """Let a model answer prompts, alone or beside another."""
    from kilter.train.machine import settle

    _not_by_many("generate")
    settle()
    from kilter.measure.generate import generate

    if not generate(config).complete:
        sys.exit(130)


def convert(
    *paths: Annotated[
        str,
        Parameter(help="Files to read, and last the file to write: .jsonl, .jsonl.gz or .jsonl.zst, or - to print."),
    ],
    config: Annotated[ConvertConfig | None, Parameter(name="*")] = None,
) -> None:
    """Write files of any format as canonical JSON lines."""
    _not_by_many("convert")
    if len(paths) < 2:
        raise ConfigError("kilter convert takes files to read and, last, the file to write: kilter convert IN... OUT")
    from kilter.data.convert import convert

    *sources, out = paths
    convert(sources, out, config)


def demo(*, config: Annotated[DemoConfig | None, Parameter(name="*")] = None) -> None:
    """Train and align a small model in a world where the best possible result is known exactly."""
    from kilter.train.machine import settle

    _not_by_many("demo")
    settle()
    config = config or DemoConfig()
    if config.sweep:
        from kilter.demo.sweep import demo_sweep

        if not demo_sweep(config).complete:
            sys.exit(1)
        return
    from kilter.demo.wind_tunnel import demo

    demo(config)


def _not_by_many(command: str) -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(f"kilter {command} runs in one process; start it without torchrun")
