"""Writes formats.md beside this file, from the table that files are read by and the rows that prove it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path

from kilter.data.canonical import canonical_row
from kilter.data.comparisons import SCORE_KEYS
from kilter.data.conversations import CALLERS, LEARNING_KEYS, SPEAKERS
from kilter.data.formats import FORMATS, PROMPT_FORMATS, Format
from kilter.data.records import VIEWS, Demonstration, Labelled, Origin, Pair, Prompt, Ranking, Steps

PAGE = Path(__file__).with_name("formats.md")
FIXTURES = Path(__file__).parents[2] / "tests" / "data" / "formats"

TOP = """\
# Formats

<!-- Written by docs/reference/make_formats.py from FORMATS in src/kilter/data/formats.py and tests/data/formats. -->

A row of data is an object with keys (a line of JSONL, a line of a table). kilter knows the formats below and tells them
apart by their keys, so there is nothing to set. Where a file has none of them, or a row fits two, it is refused and
the candidates are named. There are two ways out:

- `--columns chosen=winner,prompt=question` takes columns of other names for the keys of a format.
- `--format NAME` says which format is meant.

`kilter convert IN... OUT` writes files of any format as canonical JSONL: the rows after *becomes* below.
"""

RULES = """\
## What holds for every format

**Text or conversation.** Texts named `prompt`, `chosen`, `rejected` and `completion` are taken as they are, to the last
blank, unless the format says otherwise. Messages, transcripts, instructions and questions become a conversation, which
is written out with the model's chat template.

**Messages** have `role` and `content`, or `from` and `value`.
{speakers}
The words of {callers} are the call of a tool, in JSON. `content` may be a list of parts of type text. Tool calls
(`tool_calls`, `function_call`), `tool_call_id`, the `name` of a tool, `reasoning_content` and `thinking` are kept for
the chat template. {learning} would change what is learnt, so rows that have them are refused; so
are images, videos and sounds.

**`tools`** beside a conversation is the list of tools that the model may call; **`system`** is put before it.

**Lists and objects as text.** Tables have nothing but text in their cells, so lists, objects, messages, numbers and
true or false may be written as text, the former as JSON.

**Scores** are kept on the raters' own scale. They are read from {scores}.
`margin` is kept too.

**Ties and grades.** A pair keeps the probability that the chosen answer is the better one, its `preference`: 1 where
the data says no more than which is better, between 1/2 and 1 where it was graded, 1/2 for a tie. Ties are left out of
training, and counted. `kilter convert` keeps them.

**Refused**, each in its own sentence with file, line and field: empty prompts and answers, identical answers, fields
that are missing or of another type, labels that are neither yes nor no, verdicts that are none, numbers that are
infinite or NaN. `--skip-bad` leaves such rows out and counts them. Keys that are not read are named when a file is
read.
"""

# What a row becomes; many of them have the s at the first word.
KINDS = {
    Pair: "pair",
    Labelled: "answer with a label",
    Ranking: "ranking",
    Steps: "answer in labelled steps",
    Demonstration: "demonstration",
    Prompt: "prompt",
}

# What is taken of rows of one kind where another is wanted; where nothing is said, the rows themselves.
TAKEN: dict[tuple[type, type], str] = {
    (Pair, Ranking): "a ranking of two",
    (Ranking, Pair): "every two answers of different rank",
    (Pair, Labelled): "as one good and one bad answer",
    (Steps, Labelled): "each step by itself",
    (Pair, Demonstration): "the chosen answers",
    (Ranking, Demonstration): "the best answers",
    (Labelled, Demonstration): "the good answers",
    (Demonstration, Prompt): "what stands before the last answer",
}


def page() -> str:
    """The whole page."""
    sections = [TOP, _overview(FORMATS.values()), RULES.format(**_names()), _serving()]
    sections += [_section(known) for known in FORMATS.values()]
    prompts = [known for name, known in PROMPT_FORMATS.items() if name not in FORMATS]
    sections += [
        "## Prompts alone\n\nWhere prompts are wanted (`kilter generate`), all of the above serve, plain documents "
        "aside. So do rows without answers:\n\n" + _overview(prompts)
    ]
    sections += [_section(known) for known in prompts]
    return "\n".join(sections)


def _names() -> dict[str, str]:
    by_role: dict[str, list[str]] = {}
    for speaker, role in SPEAKERS.items():
        by_role.setdefault(role, []).append(speaker)
    others = [
        f"{_code(speakers[1:])} {'is' if len(speakers) == 2 else 'are'} `{role}`"
        for role, speakers in by_role.items()
        if len(speakers) > 1
    ]
    return {
        "speakers": f"Roles are {_code(by_role)}; {', '.join(others)}.",
        "callers": _code(CALLERS),
        "learning": _code(LEARNING_KEYS),
        "scores": " and ".join(_code(keys) for keys in SCORE_KEYS.values()),
    }


def _serving() -> str:
    heads = " | ".join(f"as {_many(kind)}" for kind in VIEWS)
    lines = ["## What serves where\n\n", f"| rows | {heads} |\n"]
    lines.append("|---" * (len(VIEWS) + 1) + "|\n")
    for given in KINDS:
        cells = (TAKEN.get((given, wanted), "yes" if given in views else "no") for wanted, views in VIEWS.items())
        lines.append(f"| {_many(given)} | {' | '.join(cells)} |\n")
    return "".join(lines)


def _one(kind: type) -> str:
    return f"{'an' if KINDS[kind].startswith('a') else 'a'} {KINDS[kind]}"


def _many(kind: type) -> str:
    first, *others = KINDS[kind].split()
    return " ".join([f"{first}s", *others])


def _overview(formats: Collection[Format]) -> str:
    """A table for each kind of row."""
    tables = []
    for kind in dict.fromkeys(known.yields for known in formats):
        lines = [f"**{_sentence(_many(kind))}**\n\n| format | rows | written by |\n|---|---|---|\n"]
        for known in formats:
            if known.yields is kind:
                name = f"[`{known.name}`](#{known.name})"
                lines.append(f"| {name} | {known.title}: {_code(known.keys)} | {known.used_by or '—'} |\n")
        tables.append("".join(lines))
    return "\n".join(tables)


def _section(known: Format) -> str:
    parts = [f"### {known.name}\n\n{_sentence(known.title)} Becomes {_one(known.yields)}."]
    if known.used_by:
        parts[0] += f" Written by: {known.used_by}."
    if known.remarks:
        parts.append(known.remarks)
    parts.append("\n".join(f"- `{key}`: {holds}" for key, holds in known.keys.items()))
    if beside := _optional(known):
        parts.append(f"Where they are there: {beside}.")
    row, expected = (_first(known.name, ending) for ending in ("jsonl", "expected.jsonl"))
    assert canonical_row(known.convert(row, Origin(known.name, 1))) == expected
    parts.append(f"```json\n{_written(row)}\n```")
    if row != expected:
        parts.append(f"becomes\n\n```json\n{_written(expected)}\n```")
    return "\n\n".join(parts) + "\n"


def _optional(known: Format) -> str:
    scores = {key for keys in SCORE_KEYS.values() for key in keys}
    keys = [f"`{key}` ({holds})" for key, holds in known.optional.items() if key not in scores]
    if scores & known.optional.keys():
        keys.append("scores")
    return ", ".join(keys)


def _sentence(title: str) -> str:
    return title[0].upper() + title[1:] + "."


def _code(keys: Iterable[str]) -> str:
    return ", ".join(f"`{key}`" for key in keys)


def _first(name: str, ending: str) -> dict[str, object]:
    with (FIXTURES / f"{name}.{ending}").open(encoding="utf-8") as lines:
        row: dict[str, object] = json.loads(next(lines))
    return row


def _written(row: dict[str, object]) -> str:
    """A key a line."""
    cells = (f'  "{key}": {json.dumps(value, ensure_ascii=False)}' for key, value in row.items())
    return "{\n" + ",\n".join(cells) + "\n}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
