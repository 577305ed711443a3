"""Checkpoints on disk: whole and verified, or absent.

checkpoints/step-000200/
  ...              what the run keeps there
  manifest.json    written last: the step, and size and SHA-256 of every file
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kilter.data.staging import is_staging, make_directory, run_error, sha256_of, sibling, staged
from kilter.errors import RunError

MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{6,})")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint's directory and the number of updates that had been made."""

    path: Path
    step: int


class Checkpoints:
    """The checkpoints of one run, oldest first; `keep` is how many of the newest outlive the next one."""

    def __init__(self, path: Path, *, keep: int = 2) -> None:
        self.path, self.keep = path, keep

    def __iter__(self) -> Iterator[Checkpoint]:
        if not self.path.is_dir():
            return
        named = ((_NAME.fullmatch(entry.name), entry) for entry in self.path.iterdir() if entry.is_dir())
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
        with run_error(self.path):
            make_directory(self.path)
            self._delete_left_overs()
            free = shutil.disk_usage(self.path).free
        if free < size:
            raise RunError(
                f"a checkpoint takes {gigabytes(size)} and {self.path} has {gigabytes(free)} free; "
                f"{self._newest_is()}; make room, and take the run up again with --resume"
            )
        try:
            with staged(self.at(step)) as directory:
                yield directory
                _write_manifest(directory, step)
        except RunError as error:
            raise RunError(
                f"{error}; a checkpoint takes {gigabytes(size)}; {self._newest_is()}; "
                "the run can be taken up again with --resume"
            ) from error
        with run_error(self.path):
            self._rotate(pinned)

    def newest(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint that is whole, by the sizes and digests of its files; None where there is none.

        `warn` is told of each newer one that is not, and why.
        """
        for checkpoint in reversed(list(self)):
            fault = _fault(checkpoint)
            if fault is None:
                return checkpoint
            warn(f"{checkpoint.path} is not whole: {fault}; looking for an older one")
        return None

    def _newest_is(self) -> str:
        whole = self.newest(lambda _: None)
        return "there is no checkpoint yet" if whole is None else f"{whole.path} is whole"

    def _rotate(self, pinned: Collection[int]) -> None:
        for checkpoint in list(self)[: -self.keep]:
            if checkpoint.step not in pinned:
                # Under its own name it is whole or absent, also when the deletion is cut short.
                aside = sibling(checkpoint.path)
                checkpoint.path.rename(aside)
                shutil.rmtree(aside)

    def _delete_left_overs(self) -> None:
        for entry in self.path.iterdir():
            if is_staging(entry):
                shutil.rmtree(entry, ignore_errors=True)


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


def _fault(checkpoint: Checkpoint) -> str | None:
    """What is wrong with a checkpoint's files."""
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
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its {MANIFEST} cannot be read ({type(error).__name__})"
    return None
