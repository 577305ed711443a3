"""Flat configurations as TOML."""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from kilter.errors import ConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(values: Mapping[str, object]) -> str:
    """Return `values` as a TOML document, one line a key.

    A value is a string, a number, a truth value, or a list or a table of these. TOML has no null: a key whose value is
    None is left out, so that a reader takes its own default.
    """
    lines = (f"{_key(key)} = {_value(value)}\n" for key, value in values.items() if value is not None)
    return "".join(lines)


def read_settings(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Return the settings in a TOML file; hyphens in names are as good as underscores.

    Raises ConfigError where it cannot be read, or names a setting that there is not.
    """
    try:
        text = path.read_text(encoding="utf-8")
        settings = {name.replace("-", "_"): value for name, value in tomllib.loads(text).items()}
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{path} cannot be read as settings: {reason}; give a TOML file") from None
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            meant = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
            raise ConfigError(f"{path}: there is no setting {name!r}; {meant}")
    return settings


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _value(key)


def _value(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(int(value))
        case float():
            return str(float(value))
        case str():
            # JSON's strings are TOML's, except that TOML has no surrogate pairs and wants DEL escaped.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return f"{{ {', '.join(f'{_key(key)} = {_value(held)}' for key, held in value.items())} }}"
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"no TOML for {value!r}")
