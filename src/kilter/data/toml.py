"""Flat configurations as TOML, to be read back with `tomllib`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(values: Mapping[str, object]) -> str:
    """Return `values` as a TOML document, one line a key.

    A value is a string, a number, a truth value or a list of these. TOML has no null: a key whose value is
    None is left out, so that a reader takes its own default.
    """
    lines = (f"{_key(key)} = {_value(value)}\n" for key, value in values.items() if value is not None)
    return "".join(lines)


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
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
    raise TypeError(f"no TOML for {value!r}")
