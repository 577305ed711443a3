"""The settings of every command that reads rows. Imports no torch, so that `--help` is quick."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

# What a field of sources takes, for `--help`.
ACCEPTED = (
    "JSONL, JSON, CSV, TSV, Parquet or Arrow, also .gz or .zst; one or several, globs, "
    "hf://datasets/ORG/NAME, or - for standard input."
)


def _as_names(given: Any) -> Any:
    sources = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(sources, Sequence) or not all(isinstance(source, str | os.PathLike) for source in sources):
        raise ValueError("should be the name of a file, or a list of names")
    names = [os.fspath(source) for source in sources]
    if not names:
        raise ValueError("names no file; give at least one")
    # The command line takes a hyphen for a flag's beginning, and says /dev/stdin.
    return tuple("-" if name == "/dev/stdin" else name for name in names)


def _as_mapping(given: Any) -> Any:
    """`chosen=winner,prompt=question`, as the command line has it, as a mapping."""
    if isinstance(given, str):
        columns: dict[str, str] = {}
        for item in given.split(","):
            field, _, column = (part.strip() for part in item.partition("="))
            if not field or not column:
                raise ValueError("should be FIELD=COLUMN, several with commas between: chosen=winner,rejected=loser")
            if field in columns:
                raise ValueError(f"names {field} twice; give each field one column")
            columns[field] = column
        return columns
    return given


Sources: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_as_names)]
Overwrite: TypeAlias = Annotated[bool, Field(description="Replace the file to write where it is there already.")]
Columns: TypeAlias = Annotated[Mapping[str, str], BeforeValidator(_as_mapping)]


class ReadingConfig(BaseModel):
    """How files of rows are read."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    skip_bad: bool = Field(False, description="Leave out unusable rows, with a count, instead of refusing the file.")
    columns: Columns | None = Field(
        None,
        description="Columns to take for the fields of a format: chosen=winner,prompt=question. "
        "Dots reach into objects: chosen=answers.best.text.",
    )
    format: str | None = Field(None, description="The format of the rows, by name; default: recognised by their keys.")

    @property
    def reading(self) -> dict[str, Any]:
        """These settings as the keyword arguments of `read_pairs` and its kin."""
        return {"skip_bad": self.skip_bad, "columns": self.columns, "format": self.format}


class ConvertConfig(ReadingConfig):
    """Write files of any format as canonical JSON lines."""

    overwrite: Overwrite = False
