"""The settings of the instruments. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ScoreConfig(BaseModel):
    """Score preference pairs under a model, and against a reference."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="Directory or hub name of the model.")
    data: Path = Field(description="File of preference pairs: JSONL or JSON, also .gz.")
    reference: str | None = Field(None, description="Model to compare with: adds log-ratios, margins and token KL.")
    out: Path | None = Field(None, description="Write one row a pair there: .parquet, .csv or .jsonl.")
    last: int | None = Field(None, ge=1, description="Score only the last so many rows.")
    beta: float = Field(0.1, gt=0, description="Margins are beta times the gap of log-ratios.")
    skip_bad: bool = Field(False, description="Leave out unusable rows, with a count, instead of refusing the file.")
    style: Literal["auto", "template", "hh", "plain"] = Field(
        "auto", description="How conversations are rendered; auto: the tokenizer's chat template, else HH style."
    )
    max_prompt: int | None = Field(None, ge=1, description="Cut the start of longer prompts, in tokens, by turns.")
    max_length: int | None = Field(None, ge=2, description="Longest prompt with its answer, in tokens.")
    on_overflow: Literal["refuse", "drop"] = Field("refuse", description="What to do with rows over --max-length.")
    node_budget: int = Field(2048, ge=2, description="Most tree nodes computed at once; bounds memory, not results.")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="Type of matrix products.")
    device: str = Field("auto", description="cpu, cuda or cuda:N; auto takes a GPU where there is one.")
    strict: bool = Field(False, description="Stop if the model fails its proof, instead of taking the slow path.")
