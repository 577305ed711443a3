"""The demo's settings. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

# The grid of `kilter demo --sweep`, and the answers that measure each run's KL beside the exact one.
SWEEP: dict[str, Any] = {"objective": "dpo,ipo", "beta": "0.2,0.5,1,2", "sample_eval": 256, "sample_tokens": 24}


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
    sweep: bool = Field(
        False, description="Align with several betas and objectives, and hold all of them against the exact frontier."
    )

    @model_validator(mode="after")
    def _one_beta_or_a_sweep(self) -> Self:
        if self.sweep and "beta" in self.model_fields_set:
            raise ValueError(f"a sweep has betas of its own ({SWEEP['beta']}); leave beta or sweep out")
        return self
