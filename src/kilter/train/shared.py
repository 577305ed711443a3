"""What a run shares with the others of a sweep."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from kilter.data.reading import Dataset, read_rows
from kilter.train.progress import Report, progress
from kilter.train.stops import Stop


@dataclass(frozen=True)
class Shared:
    """How files are read, where progress is seen, and who has asked to stop; by default as of a run by itself."""

    read: Callable[..., Dataset[Any]] = read_rows
    progress: Callable[..., AbstractContextManager[Report]] = progress
    stop: Stop | None = None
