"""The demo's settings. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DemoConfig(BaseModel):
    """Train and align a small model where the best possible result is known exactly. Needs no download."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    out: Path = Field(Path("runs/demo"), description="Where everything goes; an earlier demo there is replaced.")
    seed: int = Field(0, ge=0, description="Seed of the data, the fresh weights and the order of examples.")
    sentences: int = Field(24000, ge=1, description="Sentences to learn the language from.")
    sft_epochs: float = Field(2.0, gt=0, description="Passes over them.")
    pairs: int = Field(24000, ge=2, description="Labelled pairs to align with.")
    align_epochs: float = Field(1.0, gt=0, description="Passes over them.")
    held_out: int = Field(2000, ge=2, description="Labelled pairs kept for evaluation.")
    beta: float = Field(0.5, gt=0, description="Strength of the tie to the reference.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
