"""The model card beside a result: what was trained on what, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kilter.train.config import RunConfig


def model_card(
    config: RunConfig,
    *,
    title: str,
    objective: str,
    facts: Mapping[str, Any],
    results: Sequence[Sequence[Sequence[str]]] = (),
    notes: Sequence[str] = (),
) -> str:
    """A README.md for the hub: front matter, data, objective, settings that are not defaults, and results.

    `results` are tables, the first row of each its headings.
    """
    base = str(facts["model"])
    data = ", ".join(f"`{file['path']}` (SHA-256 `{file['sha256'][:16]}...`)" for file in facts["data"])
    on_the_hub = f"base_model: {base}\n" if base.count("/") == 1 and not Path(base).exists() else ""
    settings = [
        [name, f"`{value}`"]
        for name, value in config.model_dump(mode="json", exclude_defaults=True, exclude={"config", "resume"}).items()
    ]
    parts = [
        f"---\n{on_the_hub}library_name: transformers\npipeline_tag: text-generation\ntags:\n- kilter\n"
        "- preference-alignment\n---",
        f"# {title}",
        f"Trained with kilter {facts['versions']['kilter']} from `{base}`.",
        f"**Data.** {data}, {facts['examples']:,} examples; {facts['held_out']:,} held out.",
        f"**Objective.** {objective}",
    ]
    if facts.get("reference_sha256"):
        parts.append(f"**Reference.** `{facts['reference']}` (weights' SHA-256 `{facts['reference_sha256'][:16]}...`)")
    if results:
        parts += ["## Results", *map(_table, results)]
    parts += notes
    parts += ["## Settings", "Those that are not defaults.", _table([["setting", "value"], *settings])]
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    rule = "|" + "---|" + "--:|" * (len(rows[0]) - 1)
    return "\n".join([lines[0], rule, *lines[1:]])
