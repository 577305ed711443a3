"""Claims about the pages under docs/reference: those written from a table of the code are up to date."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np

from kilter.cli import app
from kilter.data.formats import FORMATS, PROMPT_FORMATS
from kilter.divergence.families import FAMILIES
from kilter.divergence.families.notation import signature
from kilter.model.architectures import ARCHITECTURES
from kilter.objectives import OBJECTIVES
from kilter.train.config import AlignConfig

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"


def written(name: str) -> str:
    """The page as its writer makes it now, which must be the page that lies there."""
    writer: dict[str, Any] = runpy.run_path(str(REFERENCE / f"make_{name}.py"))
    page: str = writer["page"]()
    lies_there = writer["PAGE"].read_text(encoding="utf-8")
    assert lies_there == page, f"run: python docs/reference/make_{name}.py"
    return page


def test_the_page_of_models_is_what_the_table_says() -> None:
    page = written("models")
    assert all(f"| `{kind}` | {row.families} |" in page for kind, row in ARCHITECTURES.items())


def test_the_page_of_objectives_is_what_the_table_says() -> None:
    page = written("objectives")
    for name, row in OBJECTIVES.items():
        section = page.split(f"\n### {name}\n")[1].split("\n#")[0]
        assert all(said in section for said in (row.equation, row.paper, *(f"- `{option}`:" for option in row.options)))
        assert f"| [`{name}`](#{name}) | {row.summary} | {row.when} |" in page


def test_the_page_of_formats_is_what_the_table_says() -> None:
    page = written("formats")
    for name, known in (FORMATS | PROMPT_FORMATS).items():
        assert f"| [`{name}`](#{name}) | {known.title}: `" in page
        section = page.split(f"### {name}\n")[1].split("\n#")[0]
        assert all(f"- `{key}`: {holds}" in section for key, holds in known.keys.items())
        assert known.remarks in section


def test_the_page_of_closed_forms_is_what_the_registry_says() -> None:
    page = written("closed_forms")
    assert all(f"| `{signature(family)}` |" in page for family in FAMILIES.values())
    (normal,) = (line for line in page.splitlines() if line.startswith("| normal | "))
    _, _, closed, infinite, integrated, _ = normal.split("|")
    assert "gumbel" in closed
    assert "exponential" in infinite
    assert "cauchy" in integrated


def test_the_page_of_the_command_line_is_what_the_settings_say() -> None:
    page = written("cli")
    for name in (name for name in app if not name.startswith("-")):
        section = page.split(f"\n## kilter {name}\n")[1].split("\n## ")[0]
        arguments = [argument for argument in app[name].assemble_argument_collection() if argument.show]
        assert all(section.count(f"\n| `{argument.name}`") == 1 for argument in arguments)
        assert section.count("\n| `") == len(arguments)
    section = page.split("\n## kilter align\n")[1].split("\n## ")[0]
    help_ = AlignConfig.model_fields["label_smoothing"].description
    assert f"| `--label-smoothing` | number, at least 0, less than 0.5 | | {help_} |" in section
    assert "| `--schedule` | `linear`, `cosine`, `constant` | `linear` |" in section
    assert "| `--model` | text | *required* |" in section
    assert "| `--node-budget` | whole number, at least 2 or `auto` | `2048` |" in section


def test_the_page_of_pitfalls_is_what_the_calls_return() -> None:
    page = written("pitfalls")
    calls = [line for line in page.splitlines() if line.count("`") >= 4]
    assert len(calls) >= 20


def test_in_every_pitfall_the_others_are_wrong_and_kilter_is_right() -> None:
    writer: dict[str, Any] = runpy.run_path(str(REFERENCE / "make_pitfalls.py"))
    known, returned = writer["names"](), writer["returned"]
    for pitfall in (pitfall for pitfalls in writer["SECTIONS"].values() for pitfall in pitfalls):
        (theirs, _), (ours, _) = (returned(call, known) for call in (pitfall.theirs, pitfall.ours))
        assert not isinstance(theirs, str), pitfall.theirs
        if pitfall.right is None:
            assert isinstance(ours, str), f"{pitfall.ours} is not refused"
            continue
        np.testing.assert_allclose(ours, pitfall.right, rtol=2e-6, atol=1e-40, err_msg=pitfall.ours)
        assert not np.allclose(theirs, pitfall.right, rtol=1e-2, atol=1e-40), f"{pitfall.theirs} is right"
