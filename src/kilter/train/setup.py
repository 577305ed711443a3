"""What every run does before and after its steps: files, splits, the run directory, the saved result."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, TypeVar

import torch
from rich.console import Console
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kilter.data.reading import Dataset
from kilter.data.records import Demonstration, Pair
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged
from kilter.data.toml import to_toml
from kilter.errors import ConfigError
from kilter.model.loading import longest_sequence, no_bar_for_a_directory
from kilter.model.scorer import Scorer
from kilter.tokens.encoding import Encoder, Limits
from kilter.train.config import RunConfig

R = TypeVar("R", Pair, Demonstration)


def make_encoder(tokenizer: PreTrainedTokenizerFast, config: RunConfig, policy: Scorer) -> Encoder:
    """The run's encoder; sequences may be at most as long as the model has positions, and as the node budget."""
    longest = longest_sequence(policy, config.max_length, config.node_budget)
    limits = Limits(max_prompt=config.max_prompt, max_length=longest, on_overflow=config.on_overflow)
    return Encoder(tokenizer, config.style, limits, skip_bad=config.skip_bad)


@dataclass(frozen=True)
class Examples(Generic[R]):
    """The rows of a run's files to train on, those held out, and what the manifest says of the files."""

    train: Sequence[R]
    held_out: Sequence[R]
    facts: dict[str, Any]


def read_examples(config: RunConfig, read: Callable[..., Dataset[R]], console: Console) -> Examples[R]:
    """Read the data of a run, tell what it is, and hold out what it says; the run's directory must be free.

    Raises ConfigError if nothing is left to train on.
    """
    RunDirectory(config.out).check_free(overwrite=config.overwrite)
    data = read(config.data, skip_bad=config.skip_bad)
    console.print(data.describe(), highlight=False, soft_wrap=True)
    facts = {"data": _account(data)}
    if config.eval_data is not None:
        held_out = read(config.eval_data, skip_bad=config.skip_bad)
        console.print(held_out.describe(), highlight=False, soft_wrap=True)
        return Examples(data.rows, held_out.rows, facts | {"eval_data": _account(held_out)})
    kept = len(data.rows) - config.holdout
    if kept < 1:
        raise ConfigError(f"holdout is {config.holdout:,} and there are {len(data.rows):,} rows; hold out fewer")
    return Examples(data.rows[:kept], data.rows[kept:], facts)


def _account(data: Dataset[Any]) -> dict[str, Any]:
    return {"path": str(data.path), "sha256": data.sha256, "format": data.format, "bad_rows": len(data.bad_rows)}


def begin_run(config: RunConfig, method: str, facts: Mapping[str, Any]) -> RunDirectory:
    """Create the run directory with its manifest and resolved configuration."""
    run = RunDirectory.create(config.out, overwrite=config.overwrite)
    packages = ("kilter", "torch", "transformers", "tokenizers", "numpy")
    run.write_manifest(
        {
            "method": method,
            "command": sys.argv,
            "seed": config.seed,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in packages},
            **facts,
        }
    )
    run.write_config(to_toml(config.model_dump(mode="json")))
    return run


def template_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """SHA-256 of the chat template."""
    template = tokenizer.chat_template
    return None if template is None else hashlib.sha256(str(template).encode()).hexdigest()


def save_result(run: RunDirectory, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Save model and tokenizer so that transformers alone loads them; there whole, or not at all."""
    with staged(run.model) as directory, no_bar_for_a_directory(str(directory)):
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)


def seed_everything(seed: int) -> None:
    """Seed what randomness a model's own code may draw (dropout); order and fresh weights have seeds of their own."""
    torch.manual_seed(seed)
