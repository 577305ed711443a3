"""Checkpoints on disk: whole and verified, or absent.

checkpoints/step-000200/
  ...              what the run keeps there
  manifest.json    written last: the step, and size and SHA-256 of every file
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from kilter.data.staging import delete_left_overs, make_directory, run_error, sha256_of, sibling, staged, sync
from kilter.errors import RunError

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's directory and the number of updates that had been made."""

    path: Path
    step: int


class Checkpoints:
    """The checkpoints of one run, oldest first; `keep` is how many of the newest outlive the next one.

    Those of `doubtful` steps are passed over for others that are whole: they are not kept, unless saved again.
    """

    def __init__(self, path: Path, *, keep: int = 2, doubtful: Collection[int] = ()) -> None:
        self.path, self.keep = path, keep
        self._doubtful = set(doubtful)

    def __iter__(self) -> Iterator[Checkpoint]:
        with run_error(self.path):
            entries = [entry for entry in self.path.iterdir() if entry.is_dir()] if self.path.is_dir() else []
        named = ((_NAME.fullmatch(entry.name), entry) for entry in entries)
        yield from sorted((Checkpoint(entry, int(name[1])) for name, entry in named if name), key=lambda c: c.step)

    def at(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.path / f"step-{step:06d}"

    @contextmanager
    def save(self, step: int, *, size: int = 0, pinned: Collection[int] = ()) -> Iterator[Path]:
        """Yield an empty directory that becomes the checkpoint of a step when the block succeeds.

        Older ones are then deleted, but for the newest `keep` and those of `pinned` steps. `size` is how many bytes
        will be written: where there is not the room, a RunError says so before anything is touched. Whatever fails
        leaves the checkpoints there are as they were.
        """
        try:
            with run_error(self.path):
                make_directory(self.path)
                delete_left_overs(self.path)
                if self._free() < size:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with staged(self.at(step)) as directory:
                yield directory
                _write_manifest(directory, step)
            self._doubtful.discard(step)
            with run_error(self.path):
                self._rotate(pinned)
        except RunError as error:
            raise RunError(self.account(error, f"the checkpoint of step {step} in {self.path}", size)) from error

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, by the sizes and digests of its files; None where there is none.

        `warn` is told of each newer one that is not, and why.
        """
        for checkpoint in reversed(list(self)):
            fault = fault_of(checkpoint)
            if fault is None:
                return checkpoint
            warn(f"{checkpoint.path} is not whole: {fault}; looking for an older one")
        return None

    def account(self, error: RunError, what: str, size: int) -> str:
        """Why `what` could not be saved, how much room it needs, and which checkpoint there is to go on from."""
        cause = error.__cause__
        reason = (cause.strerror or cause) if isinstance(cause, OSError) else error
        parts = [f"cannot save {what}: {reason}"]
        with suppress(OSError):
            free = f"{gigabytes(self._free())} free"
            parts.append(f"it takes {gigabytes(size)}, and there is {free}" if size else f"there is {free}")
        with suppress(OSError):
            whole = self.newest(lambda _: None)
            parts.append("there is no checkpoint yet" if whole is None else f"{whole.path.name} is whole")
        return "; ".join([*parts, "make room or mend the disk, and take the run up again with --resume"])

    def _free(self) -> int:
        return shutil.disk_usage(self.path if self.path.is_dir() else self.path.parent).free

    def _rotate(self, pinned: Collection[int]) -> None:
        sound = [checkpoint.step for checkpoint in self if checkpoint.step not in self._doubtful]
        kept = {*sound[-self.keep :], *pinned} - self._doubtful
        aside = []
        for checkpoint in self:
            if checkpoint.step not in kept:
                aside.append(sibling(checkpoint.path))
                checkpoint.path.rename(aside[-1])
        if aside:
            # Under its own name it is whole or absent, also when the deletion is cut short.
            sync(self.path)
        for path in aside:
            shutil.rmtree(path)


def gigabytes(size: int) -> str:
    """A number of bytes as people read it: in units of 1000."""
    unit = next((unit for unit in ("TB", "GB", "MB", "kB") if size >= _UNITS[unit]), "bytes")
    return f"{size} bytes" if unit == "bytes" else f"{size / _UNITS[unit]:.1f} {unit}"


_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def _write_manifest(directory: Path, step: int) -> None:
    files = {
        str(path.relative_to(directory)): {"size": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    text = json.dumps({"step": step, "files": files}, indent=2)
    (directory / MANIFEST).write_text(text + "\n", encoding="utf-8")


def fault_of(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint's files; None where it is whole."""
    try:
        manifest = json.loads((checkpoint.path / MANIFEST).read_bytes())
        if manifest["step"] != checkpoint.step:
            return f"its manifest is that of step {manifest['step']}"
        for name, fact in manifest["files"].items():
            path = checkpoint.path / name
            if not path.is_file():
                return f"{name} is missing"
            if (size := path.stat().st_size) != fact["size"]:
                return f"{name} has {size:,} bytes instead of {fact['size']:,}"
            if sha256_of(path) != fact["sha256"]:
                return f"{name} is not what was written (its SHA-256 differs)"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    return None
