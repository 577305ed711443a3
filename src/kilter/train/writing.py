"""Errors of the system that libraries written in Rust raise as exceptions of their own."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def system_errors() -> Iterator[None]:
    """Make an OSError of what safetensors and tokenizers raise when the disk is full, or fails."""
    try:
        yield
    except Exception as error:
        found = _NUMBER.search(str(error))
        if isinstance(error, OSError) or found is None:
            raise
        number = int(found[1])
        raise OSError(number, os.strerror(number)) from error
