"""What is remembered of models on disk, so that one need not be loaded to say which it is.

A model's files are known by their place, size and time of change, as build tools know theirs: reading them to the end
would take about as long as loading them. What is remembered is what a loaded model was found to be; whoever loads it
later holds that against it again.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
import transformers

from kilter.model.loading import adapter_base_of

PLACE = "known-models"


class KnownModel(NamedTuple):
    """A model's fingerprint, and the size of its vocabulary."""

    fingerprint: str
    vocabulary: int


def identity(name: str, *how: object) -> str | None:
    """What stands for a model's files as they are now, loaded in some way; None for one that is not in a directory."""
    base = adapter_base_of(name)
    places = [Path(place).resolve() for place in (name, base) if place is not None]
    if not all(place.is_dir() for place in places):
        return None
    files = [
        (str(entry), entry.stat().st_size, entry.stat().st_mtime_ns)
        for place in places
        for entry in sorted(place.iterdir())
        if entry.is_file()
    ]
    said = json.dumps([files, [str(part) for part in how], torch.__version__, transformers.__version__])
    return hashlib.sha256(said.encode()).hexdigest()


def recall(directory: Path, which: str | None) -> KnownModel | None:
    """What is remembered of an identity, if anything is."""
    if which is None:
        return None
    try:
        return KnownModel(**json.loads((directory / PLACE / f"{which}.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def remember(directory: Path, which: str | None, known: KnownModel) -> None:
    """Note what a model is; there whole, or not at all. Where that cannot be written it will be found out again."""
    if which is None:
        return
    place = directory / PLACE / f"{which}.json"
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        staging = place.with_suffix(f".{os.getpid()}-{secrets.token_hex(4)}")
        staging.write_text(json.dumps(known._asdict()) + "\n", encoding="utf-8")
        staging.replace(place)
