"""Writes cli.md beside this file, from the command line's own commands and the models of their settings."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from cyclopts import App
from pydantic import BaseModel, TypeAdapter

from kilter.cli import app
from kilter.flags import by_subject

PAGE = Path(__file__).with_name("cli.md")

TOP = """\
# Command line

<!-- Written by docs/reference/make_cli.py from the commands in src/kilter/commands.py and their settings. -->

Every command prints this with `--help`. Where a command has `--config`, each flag is also a setting of that name in a
TOML file, with `_` for `-`: `--max-length 512` is `max_length = 512`. Flags come first, then the file, then the
defaults; `--print-config` prints such a file. Most flags of yes or no have an opposite: `--skip-bad` and
`--no-skip-bad`. A flag that takes several values takes them one after the other.

"""

HEADS = ("flag", "takes", "default", "what it is")
KINDS = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "object": "FIELD=COLUMN,...",
    "boolean": "yes or no",
}
BOUNDS = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most", "exclusiveMaximum": "less than"}


class Setting(NamedTuple):
    """A row of the page; what has no flag is told by its place."""

    flag: str
    takes: str
    default: str
    help: str

    @property
    def is_flag(self) -> bool:
        return self.flag.startswith("`--")


def page() -> str:
    """The whole page."""
    sections = [TOP, _table(("command", "what it does"), [(f"[`kilter {c}`](#kilter-{c})", _help(c)) for c in names()])]
    return "".join([*sections, *map(section, names())])


def names() -> list[str]:
    """The commands, in the order of `kilter --help`."""
    return [name for name in app if not name.startswith("-")]


def section(command: str) -> str:
    """A command's heading, what it does, and a table of flags for each subject."""
    found = settings(command)
    flags = by_subject(name for name in found if found[name].is_flag)
    subjects = {"Arguments": [name for name in found if not found[name].is_flag], **flags}
    parts = [f"\n## kilter {command}\n\n{_help(command)}\n"]
    for subject, known in subjects.items():
        if known:
            parts.append(f"\n### {subject}\n\n" + _table(HEADS, [found[name] for name in known]))
    return "".join(parts)


def settings(command: str) -> dict[str, Setting]:
    """Every setting of a command, by its name; one that is told by its place, by what it is called in help."""
    called = app[command]
    schemas = dict(_schemas(called))
    found = {}
    for argument in called.assemble_argument_collection():
        if not argument.show:
            continue  # the model itself, whose fields are arguments
        help_, flags = _cell(argument.parameter.help or ""), [n for n in argument.names if n not in argument.negatives]
        if argument.field_info.kind is inspect.Parameter.VAR_POSITIONAL:
            found[argument.name] = Setting(f"`{argument.name}`", "text, one or more", "", help_)
            continue
        name = str(argument.field_info.name)
        schema = schemas.get(name) or TypeAdapter(argument.hint).json_schema()
        default = "*required*" if argument.required else _default(argument.field_info.default)
        found[name] = Setting(", ".join(f"`{flag}`" for flag in flags), takes(schema), default, help_)
    return found


def takes(schema: dict[str, Any]) -> str:
    """What a setting may be, in words, from its JSON schema."""
    if options := [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]:
        return " or ".join(dict.fromkeys(map(takes, options)))
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if schema.get("type") == "array":
        items = schema.get("items") or (schema.get("prefixItems") or [{"type": "string"}])[0]
        return f"{takes(items)}, one or more"
    if schema.get("format") == "path":
        return "path"
    bounds = [f"{words} {schema[bound]:g}" for bound, words in BOUNDS.items() if bound in schema]
    return ", ".join([KINDS.get(schema.get("type", ""), "text"), *bounds])


def _schemas(called: App) -> Iterator[tuple[str, dict[str, Any]]]:
    """The JSON schema of each field of the models that a command's function takes."""
    assert called.default_command is not None
    for hint in get_type_hints(called.default_command).values():
        for model in (hint, *getattr(hint, "__args__", ())):
            if inspect.isclass(model) and issubclass(model, BaseModel):
                yield from model.model_json_schema(by_alias=False)["properties"].items()


def _default(value: Any) -> str:
    if value is None or value is inspect.Parameter.empty or value == () or value == {}:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value}`"


def _help(command: str) -> str:
    return _cell(app[command].help or "")


def _cell(text: str) -> str:
    """Help as a cell of a table, with flags as code."""
    return re.sub(
        r"(?<![\w-])--[a-z][\w-]*", r"`\g<0>`", " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    )


def _table(heads: tuple[str, ...], rows: list[Any]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
