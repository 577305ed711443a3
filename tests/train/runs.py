"""Small runs that several tests make: pairs whose chosen answer is always the happy one, and a model to begin with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from kilter.data.run_directory import RunDirectory
from kilter.train.align import Aligned, align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft

SHAPE = "layers=2,hidden=32,heads=4,kv_heads=2,mlp=64,vocabulary=300,length=128"
ADJECTIVES = ("warm", "cold", "salty", "sweet", "plain", "rich", "thin", "fine")


def write_pairs(path: Path, dishes: int = 8, *, contrary: int = 0) -> Path:
    """The last `contrary` rows have their answers the other way round: the better a model learns the others, the worse
    it does on those."""
    rows = [
        {"prompt": f"Dish {i} is {adjective}.", "chosen": " I love it.", "rejected": " I hate it."}
        for i in range(dishes)
        for adjective in ADJECTIVES
    ]
    for row in rows[len(rows) - contrary :]:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_start(pairs: Path, out: Path) -> Path:
    settings: dict[str, Any] = {"from_scratch": SHAPE, "epochs": 2, "batch_size": 8}
    return sft(SftConfig(data=pairs, out=out, **settings), quiet())


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def run(
    objective: str, start: Path, pairs: Path, out: Path, console: Console | None = None, **settings: Any
) -> Aligned:
    given = {"data": pairs, "holdout": 16, "learning_rate": 1e-3, "batch_size": 8, "max_steps": 6} | settings
    return align(AlignConfig(model=str(start), out=out, objective=objective, **given), console or quiet())


def weights(directory: Path) -> dict[str, Tensor]:
    """Of a model, or of an adapter."""
    (path,) = directory.glob("*model.safetensors")
    return load_file(path)


def assert_same_run(resumed: Path, whole: Path) -> None:
    """To the last bit: the result, and every row of metrics."""
    ours, theirs = weights(resumed / "model"), weights(whole / "model")
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert_same_rows(resumed, whole)


def assert_same_rows(resumed: Path, whole: Path) -> None:
    """Every row of metrics, but for its seconds."""
    rows = [RunDirectory(path).read_metrics() for path in (resumed, whole)]
    for row in (row for side in rows for row in side):
        row.pop("seconds", None)
    assert rows[0] == rows[1]
