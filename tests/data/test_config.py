"""The settings that every command which reads rows has, however they are given."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from kilter.data.config import ReadingConfig, Sources
from kilter.data.toml import to_toml


class Config(ReadingConfig):
    data: Sources


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a.jsonl", ("a.jsonl",)),
        (Path("b") / "a.jsonl", ("b/a.jsonl",)),
        (["a", Path("b")], ("a", "b")),
        (("a*",), ("a*",)),
        ("/dev/stdin", ("-",)),
        ("hf://datasets/o/n", ("hf://datasets/o/n",)),
    ],
)
def test_one_name_or_several_are_sources(given: str | Path | Sequence[str | Path], names: tuple[str, ...]) -> None:
    config = Config(data=given)  # type: ignore[arg-type]
    assert config.data == names
    assert Config(**tomllib.loads(to_toml(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize("given", [3, [3], None, [], {"a": 1}])
def test_what_is_no_name_is_refused(given: Any) -> None:
    with pytest.raises(ValidationError, match=r"give at least one|should be the name of a file"):
        Config(data=given)


def test_columns_are_a_mapping_or_what_the_command_line_has() -> None:
    columns = {"chosen": "winner", "prompt": "a.b c"}
    config = Config(data="a", columns=columns)  # type: ignore[arg-type]
    assert Config(data="a", columns="chosen=winner, prompt=a.b c") == config  # type: ignore[arg-type]
    assert config.reading == {"skip_bad": False, "columns": columns, "format": None}
    assert Config(**tomllib.loads(to_toml(config.model_dump(mode="json")))) == config


@pytest.mark.parametrize("given", ["chosen", "=a", "chosen=", "a=b,", "a=b,a=c", {"a": 1}, 3])
def test_columns_that_are_no_mapping_of_names_are_refused(given: Any) -> None:
    with pytest.raises(ValidationError):
        Config(data="a", columns=given)
