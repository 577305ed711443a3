"""Small runs that several tests make: pairs whose chosen answer is always the happy one, and a model to begin with."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from kilter.train.align import Aligned, align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft

SHAPE = "layers=2,hidden=32,heads=4,kv_heads=2,mlp=64,vocabulary=300,length=128"
ADJECTIVES = ("warm", "cold", "salty", "sweet", "plain", "rich", "thin", "fine")


def write_pairs(path: Path, dishes: int = 8) -> Path:
    rows = [
        {"prompt": f"Dish {i} is {adjective}.", "chosen": " I love it.", "rejected": " I hate it."}
        for i in range(dishes)
        for adjective in ADJECTIVES
    ]
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
