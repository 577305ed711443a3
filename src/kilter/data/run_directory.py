"""What a run writes and a report reads: the run directory's schema.

    runs/NAME/
      config.toml      the resolved configuration
      manifest.json    versions, command, seeds, fingerprints of data files, model, reference, chat template
      metrics.jsonl    one row a step
      before.safetensors  the held-out examples' scores before the first step
      samples.jsonl    answers sampled at evaluations
      reference-samples.jsonl  the reference's own answers to the same prompts, drawn once
      checkpoints/     what the run can be taken up from (data/checkpoints.py)
      model/           the result

Whatever goes wrong while writing or reading (a full disk, permissions) is a `RunError`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from kilter.data.staging import delete_left_overs, is_staging, make_directory, run_error, staged_file, sync
from kilter.errors import RunError

CONFIG = "config.toml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
MODEL = "model"
CHECKPOINTS = "checkpoints"
BEFORE = "before.safetensors"
SAMPLES = "samples.jsonl"
REFERENCE_SAMPLES = "reference-samples.jsonl"
# All that a run may leave in its directory. What is not among these is not kilter's, and is never deleted.
ENTRIES = (CONFIG, METRICS, BEFORE, SAMPLES, REFERENCE_SAMPLES, CHECKPOINTS, MODEL, "report.html", MANIFEST)

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class RunDirectory:
    """The directory of one run; closing it closes the metrics file.

    Making one touches nothing on disk: `create` begins a new run, `RunDirectory(path)` opens one that exists. Of
    several processes that make one run, those that do not `write` leave its growing files to the one that does.
    """

    def __init__(self, path: str | PathLike[str], *, write: bool = True) -> None:
        self.path = Path(path)
        self.write = write
        self._metrics: IO[str] | None = None

    @classmethod
    def create(cls, path: str | PathLike[str], *, overwrite: bool = False) -> Self:
        """Make the directory of a new run.

        A directory that is not empty is refused. With `overwrite` an earlier run in it is deleted, but only
        if it has a manifest.json and nothing that a run does not write.
        """
        run = cls(path)
        run.check_free(overwrite=overwrite)
        with run_error(run.path):
            if run.path.is_dir():
                delete_run(run.path)
            make_directory(run.path)
        return run

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raise what `create` would raise, so that a long preparation is not for nothing; touches nothing."""
        with run_error(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file; expected a directory for the run; choose another --out")
            if self.path.is_dir() and not _never_begun(self.path):
                _check_replaceable(self.path, overwrite)

    @property
    def exists(self) -> bool:
        """Whether a run has begun here: its manifest is written when all that it needs to go on is there."""
        return (self.path / MANIFEST).is_file()

    @property
    def finished(self) -> bool:
        """Whether the result is there."""
        return self.model.is_dir()

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def before(self) -> Path:
        return self.path / BEFORE

    @property
    def reference_samples(self) -> Path:
        return self.path / REFERENCE_SAMPLES

    @property
    def model(self) -> Path:
        """Where the run's result goes, whether or not it is there yet."""
        return self.path / MODEL

    def write_config(self, text: str) -> None:
        """Write config.toml: there whole, or not at all."""
        write_whole(self.path / CONFIG, text)

    def write_manifest(self, manifest: Mapping[str, object]) -> None:
        """Write manifest.json: there whole, or not at all. Numbers must be finite."""
        write_whole(self.path / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")

    def append_metrics(self, row: Mapping[str, object]) -> None:
        """Add one line to metrics.jsonl; when this returns, any process can read it.

        JSON has no NaN or infinity: they are written as the strings "nan", "inf" and "-inf", and
        `read_metrics` gives them back as numbers. A row is flat: its values are numbers, strings, truth values
        or None.
        """
        if not self.write:
            return
        line = json_line(row)
        with run_error(self.path / METRICS):
            if self._metrics is None:
                self._metrics = (self.path / METRICS).open("a", buffering=1, encoding="utf-8", newline="\n")
            self._metrics.write(line)

    def append_samples(self, rows: Iterable[Mapping[str, object]]) -> None:
        """Add lines to samples.jsonl, one an answer."""
        if not self.write:
            return
        path = self.path / SAMPLES
        with run_error(path), path.open("a", encoding="utf-8", newline="\n") as file:
            file.writelines(map(json_line, rows))

    def read_metrics(self) -> list[dict[str, object]]:
        """Return the rows of metrics.jsonl, without a last line that was cut off in the middle of a write."""
        path = self.path / METRICS
        with run_error(path):
            lines = path.read_bytes().split(b"\n")[:-1]
        return [_metrics_row(path, number, line) for number, line in enumerate(lines, 1)]

    def read_manifest(self) -> dict[str, Any]:
        return read_object(self.path / MANIFEST)

    def lengths(self) -> dict[str, int]:
        """The bytes of each file that grows as the run goes on, which are on the disk to stay when this returns."""
        lengths = {}
        for name in (METRICS, SAMPLES):
            path = self.path / name
            with run_error(path):
                if path.exists():
                    sync(path)
                    lengths[name] = path.stat().st_size
        with run_error(self.path):
            sync(self.path)
        return lengths

    def cut_back(self, lengths: Mapping[str, int]) -> None:
        """Take growing files back to the lengths they had: what came after will be written again."""
        self.close()
        if not self.write:
            return
        for name in (METRICS, SAMPLES):
            path = self.path / name
            with run_error(path):
                if path.exists() and path.stat().st_size > lengths.get(name, 0):
                    os.truncate(path, lengths.get(name, 0))

    def delete_left_overs(self) -> None:
        """Delete what a process that was killed has left half written."""
        with run_error(self.path):
            for place in (self.path, self.checkpoints):
                if place.is_dir():
                    delete_left_overs(place)

    def close(self) -> None:
        """Close the metrics file; a later `append_metrics` opens it again."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            with run_error(self.path / METRICS):
                metrics.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def json_line(row: Mapping[str, object]) -> str:
    """A flat row as a line of JSON, with "nan", "inf" and "-inf" for the numbers that JSON lacks."""
    return json.dumps({name: plain(value) for name, value in row.items()}, allow_nan=False) + "\n"


@contextmanager
def rows_file(path: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Yield a function that writes a row as `json_line`; when that returns, any process can read it.

    What was in the file is replaced.
    """
    with run_error(path):
        stream = path.open("w", buffering=1, encoding="utf-8", newline="\n")

    def write(row: Mapping[str, object]) -> None:
        with run_error(path):
            stream.write(json_line(row))

    with stream:
        yield write


def _never_begun(path: Path) -> bool:
    """Whether a directory is empty but for what a run leaves that was stopped before its manifest was written."""
    return all(entry.name == CONFIG or is_staging(entry) for entry in path.iterdir())


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not overwrite:
        go_on = f", go on with it by --resume {path}" if (path / MANIFEST).is_file() else ""
        raise RunError(f"{path} exists and is not empty; choose another --out{go_on}, or replace it with --overwrite")
    if not (path / MANIFEST).is_file():
        raise RunError(
            f"{path} has no {MANIFEST}, so it does not look like a run; --overwrite replaces only runs; "
            "choose another --out, or delete the directory yourself"
        )
    foreign = [entry.name for entry in path.iterdir() if entry.name not in ENTRIES and not is_staging(entry)]
    if foreign:
        raise RunError(
            f"{path} holds {sorted(foreign)[0]!r}, which no run writes; --overwrite replaces only runs; "
            "move it elsewhere, or choose another --out"
        )


def delete_run(path: Path) -> None:
    """Delete what a run left in its directory; nothing in it is looked at."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MANIFEST:
            entry.unlink()
    # The manifest goes last: a deletion that is cut short can be taken up again.
    sync(path)
    (path / MANIFEST).unlink(missing_ok=True)


def read_object(path: Path) -> dict[str, Any]:
    """What a file of JSON holds; raises RunError where it cannot be read or is none."""
    with run_error(path):
        text = path.read_bytes()
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        raise RunError(f"{path} is not JSON; expected what kilter wrote; restore it from a copy") from None
    return found


def write_whole(path: Path, text: str) -> None:
    """Write a file of text: there whole, or not at all."""
    with staged_file(path) as staging:
        staging.write_bytes(_encoded(text, path))


def _encoded(text: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, as in a file name that is not UTF-8
        found = text[max(error.start - 20, 0) : error.end]
        raise RunError(f"cannot write {path}: {found!r} is not valid text; expected UTF-8; rename it") from None


def plain(value: object) -> object:
    """A value that JSON has: of numbers that it lacks their names, which `float` reads."""
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def _metrics_row(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RunError(f"{path}:{number}: is not a JSON object; expected one a line; remove the line")
    return {name: _NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}
