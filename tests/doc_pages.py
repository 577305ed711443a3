"""The pages that people read, and what a test asks of them: blocks, commands, links, headings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


class Block(NamedTuple):
    """A block of code: its language ("" for commands) and its text."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = re.findall(r"^```(\S*)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [Block(*block) for block in found]


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[str]:
    """The lines of a block of commands, each command whole."""
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def commands(page: Path) -> list[str]:
    """What a page runs by `kilter`, also within a longer line, in blocks that are run and in those that are not."""
    lines = [line for block in blocks(page) if block.language in ("", "bash") for line in command_lines(block.text)]
    return [found[0].strip() for line in lines if (found := re.search(r"\bkilter [a-z]+( [^|>]*)?", line))]


def links(page: Path) -> Iterator[str]:
    """The targets of relative links, without those in code."""
    text = re.sub(r"(`+).*?\1", "", prose(page))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ +(.*?) *$", prose(page), flags=re.MULTILINE):
        plain = re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{i}" for i in range(1, 1000))) if name not in found))
    return found
