"""Opening a run: a new one, or one that is taken up where it was left, with nothing changed that matters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from kilter.data.checkpoints import Checkpoint, Checkpoints
from kilter.data.run_directory import CONFIG, MANIFEST, RunDirectory
from kilter.data.toml import read_settings
from kilter.errors import ConfigError, RunError
from kilter.model.workers import ALONE, Workers
from kilter.train.config import RunConfig

# What the manifest says that must be so again, and what it is called in messages.
UNCHANGED = {
    "objective": "the objective with its options",
    "data": "the SHA-256 of the data",
    "eval_data": "the SHA-256 of the data to evaluate on",
    "tokenizer_sha256": "the SHA-256 of the tokenizer",
    "template_sha256": "the SHA-256 of the chat template",
    "reference_sha256": "the SHA-256 of the reference",
    "model_sha256": "the SHA-256 of the model it starts from",
    # A smaller node budget may leave out rows that were not too long before.
    "examples": "the number of examples",
    "held_out": "the number of held-out examples",
}


def open_run(
    config: RunConfig, method: str, console: Console, workers: Workers = ALONE
) -> tuple[RunDirectory, Checkpoint | None]:
    """The run's directory, which is free or holds the run to be taken up, and the checkpoint to go on from.

    Raises ConfigError where a setting that matters is not what the run began with, RunError where the directory is
    in use, or the run is finished.
    """
    run = RunDirectory(config.out, write=workers.is_main)
    if config.resume is None or not run.exists:
        run.check_free(overwrite=config.overwrite)
        return run, None
    begun_by = run.read_manifest().get("method")
    if begun_by is None:
        raise RunError(f"{run.path / MANIFEST} is not that of a run; give --resume the directory that a run made")
    if begun_by != method:
        raise ConfigError(
            f"{run.path} was begun by kilter {begun_by}; go on with: kilter {begun_by} --resume {run.path}"
        )
    if run.finished:
        raise RunError(f"{run.path} is finished, and its result is in {run.model}; to train on, give that as --model")
    check_settings(config, run)
    checkpoint = Checkpoints(run.checkpoints).newest(lambda text: console.print(f"warning: {text}", soft_wrap=True))
    where = "from its beginning: it has no checkpoint" if checkpoint is None else f"after step {checkpoint.step}"
    console.print(f"going on with {run.path} {where}", highlight=False, soft_wrap=True)
    return run, checkpoint


def check_settings(config: RunConfig, run: RunDirectory) -> None:
    """Raise ConfigError, naming what it is, where a setting that matters is not what a run began with."""
    path = run.path / CONFIG
    begun = type(config).model_validate(read_settings(path, type(config).model_fields))
    changes = [
        f"{name} was {getattr(begun, name)!r} and now is {getattr(config, name)!r}"
        for name in type(config).model_fields
        if name not in RunConfig.MAY_CHANGE and getattr(begun, name) != getattr(config, name)
    ]
    if changes:
        raise ConfigError(
            f"{run.path} cannot be gone on with: {'; '.join(changes)}; leave that as it was, "
            "or begin another run with another --out"
        )


def check_unchanged(run: RunDirectory, facts: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming what it is, where a fact is not the one that the run's manifest has."""
    begun = run.read_manifest()
    for name, called in UNCHANGED.items():
        if name not in facts:
            continue
        was, now = begun.get(name), facts[name]
        if name.endswith("data"):
            was, now = (None if value is None else ", ".join(file["sha256"] for file in value) for value in (was, now))
        if was != now:
            raise ConfigError(
                f"{run.path} cannot be gone on with: {called} was {was} when it began, and is {now} now; "
                "restore what it was, or begin another run with another --out"
            )
