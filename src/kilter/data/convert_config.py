"""The settings of `kilter convert`. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

from pydantic import Field

from kilter.data.config import ReadingConfig


class ConvertConfig(ReadingConfig):
    """Write files of any format as canonical JSON lines."""

    overwrite: bool = Field(False, description="Replace the file to write where it is there already.")
