"""What every run does before and after its steps: files, splits, the run directory, the saved result."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from kilter.data.reading import Dataset
from kilter.data.records import Demonstration, Labelled, Pair, Ranking
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError
from kilter.model.loading import longest_sequence
from kilter.model.scorer import Scorer
from kilter.model.workers import ALONE, Workers
from kilter.tokens.encoding import Encoder, Limits
from kilter.train.config import RunConfig
from kilter.train.memory import fitting_node_budget
from kilter.train.resume import check_unchanged

R = TypeVar("R", Pair, Ranking, Labelled, Demonstration)


def make_encoder(tokenizer: PreTrainedTokenizerFast, config: RunConfig, policy: Scorer) -> Encoder:
    """The run's encoder; sequences may be at most as long as the model has positions, and as the node budget."""
    longest = longest_sequence(policy, config.max_length, config.node_limit)
    limits = Limits(max_prompt=config.max_prompt, max_length=longest, on_overflow=config.on_overflow)
    return Encoder(tokenizer, config.style, limits, skip_bad=config.skip_bad)


@dataclass(frozen=True)
class Rows(Generic[R]):
    """The rows of a run's files to train on, those held out, and what the manifest says of the files."""

    train: Sequence[R]
    held_out: Sequence[R]
    facts: dict[str, Any]


def read_examples(config: RunConfig, read: Callable[..., Dataset[R]], console: Console) -> Rows[R]:
    """Read the data of a run, tell what it is, and hold out what it says.

    Raises ConfigError if nothing is left to train on.
    """
    data = read(config.data, **config.reading)
    console.print(data.describe(), highlight=False, soft_wrap=True)
    facts = {"data": _account(data)}
    if config.eval_data is not None:
        held_out = read(config.eval_data, **config.reading)
        console.print(held_out.describe(), highlight=False, soft_wrap=True)
        return Rows(data.rows, held_out.rows, facts | {"eval_data": _account(held_out)})
    kept = whole_origins(data.rows, len(data.rows) - config.holdout)
    held_out_rows = len(data.rows) - kept
    if kept < 1:
        found = f"there are {len(data.rows):,} rows"
        found += "" if held_out_rows == config.holdout else ", of which those made of one row of the file stay together"
        raise ConfigError(f"holdout is {config.holdout:,} and {found}; hold out fewer")
    if held_out_rows != config.holdout:
        together = f"{config.holdout:,} and those made of the same row of the file"
        console.print(f"held out: the last {held_out_rows:,} rows ({together})", highlight=False)
    elif held_out_rows:
        console.print(f"held out: the last {held_out_rows:,} rows", highlight=False)
    return Rows(data.rows[:kept], data.rows[kept:], facts)


def whole_origins(rows: Sequence[Pair | Ranking | Labelled | Demonstration], cut: int) -> int:
    """The last place up to `cut` where rows can be parted so that what one row of a file was made into (the pairs of
    a ranking, the steps of an answer, two labelled answers of a pair) stays on one side."""
    while 0 < cut < len(rows) and rows[cut - 1].origin == rows[cut].origin:
        cut -= 1
    return cut


def _account(data: Dataset[Any]) -> list[dict[str, Any]]:
    return [
        {"path": file.name, "sha256": file.sha256, "format": file.format, "bad_rows": len(file.bad_rows)}
        for file in data.files
    ]


def begin_run(
    run: RunDirectory, config: RunConfig, method: str, facts: Mapping[str, Any], workers: Workers = ALONE
) -> None:
    """Together: write down what the run is, or, where it is taken up again, that it was, once it is found the same."""
    workers.meet()  # all have looked at the directory as it was
    workers.on_main(_write_down, run, config, method, facts, workers.count)


def _write_down(run: RunDirectory, config: RunConfig, method: str, facts: Mapping[str, Any], workers: int) -> None:
    packages = ("kilter", "torch", "transformers", "tokenizers", "numpy")
    now = {
        "command": sys.argv,
        "workers": workers,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
    }
    if config.resume is not None and run.exists:
        check_unchanged(run, facts)
        run.delete_left_overs()
        manifest = run.read_manifest()
        manifest = manifest | {"resumed": [*manifest.get("resumed", []), now]}
    else:
        RunDirectory.create(run.path, overwrite=config.overwrite)
        manifest = {"method": method, **now, "seed": config.seed, **facts}
    run.write_config(config.toml)
    run.write_manifest(manifest)


C = TypeVar("C", bound=RunConfig)


def with_node_limit(config: C, policy: Scorer, console: Console, workers: Workers = ALONE, *, reserved: int = 0) -> C:
    """The settings with a number for the node budget: where it is `auto`, as many nodes as there is memory for once
    `reserved` bytes are left."""
    if config.node_budget != "auto":
        return config
    budget = -workers.largest(-fitting_node_budget(policy, reserved=reserved))
    console.print(f"node budget: {budget:,}", highlight=False)
    return config.model_copy(update={"node_budget": budget})


def seed_everything(seed: int) -> None:
    """Seed what dropout draws; order, fresh weights, noise and rounding have seeds of their own."""
    torch.manual_seed(seed)
