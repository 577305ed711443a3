"""The settings of `kilter convert`. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ConvertConfig(BaseModel):
    """Write files of any format as canonical JSON lines."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip_bad: bool = Field(False, description="Leave out unusable rows, with a count, instead of refusing the file.")
    overwrite: bool = Field(False, description="Replace the file to write where it is there already.")
