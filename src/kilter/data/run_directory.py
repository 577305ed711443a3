"""What a run writes and a report reads: the run directory's schema.

    runs/NAME/
      config.toml      the resolved configuration
      manifest.json    versions, command, seeds, fingerprints of data files, model, reference, chat template
      metrics.jsonl    one row a step
      model/           the result

Whatever goes wrong while writing or reading (a full disk, permissions) is a `RunError`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from kilter.errors import RunError

CONFIG = "config.toml"
MANIFEST = "manifest.json"
METRICS = "metrics.jsonl"
MODEL = "model"
# All that a run may leave in its directory. What is not among these is not kilter's, and is never deleted.
ENTRIES = (CONFIG, METRICS, MODEL, "checkpoints", "report.html", MANIFEST)
STAGING = ".staging"

_NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class RunDirectory:
    """The directory of one run; closing it closes the metrics file.

    Making one touches nothing on disk: `create` begins a new run, `RunDirectory(path)` opens one that exists.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self._metrics: IO[str] | None = None

    @classmethod
    def create(cls, path: str | PathLike[str], *, overwrite: bool = False) -> Self:
        """Make the directory of a new run.

        A directory that is not empty is refused. With `overwrite` an earlier run in it is deleted, but only
        if it has a manifest.json and nothing that a run does not write.
        """
        run = cls(path)
        run.check_free(overwrite=overwrite)
        with _run_error(run.path):
            if run.path.is_dir():
                _delete_run(run.path)
            run.path.mkdir(parents=True, exist_ok=True)
        return run

    def check_free(self, *, overwrite: bool = False) -> None:
        """Raise what `create` would raise, so that a long preparation is not for nothing; touches nothing."""
        with _run_error(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file; expected a directory for the run; choose another --out")
            if self.path.is_dir() and any(self.path.iterdir()):
                _check_replaceable(self.path, overwrite)

    @property
    def model(self) -> Path:
        """Where the run's result goes, whether or not it is there yet."""
        return self.path / MODEL

    def write_config(self, text: str) -> None:
        """Write config.toml: there whole, or not at all."""
        _write_whole(self.path / CONFIG, text)

    def write_manifest(self, manifest: Mapping[str, object]) -> None:
        """Write manifest.json: there whole, or not at all. Numbers must be finite."""
        _write_whole(self.path / MANIFEST, json.dumps(manifest, indent=2, allow_nan=False) + "\n")

    def append_metrics(self, row: Mapping[str, object]) -> None:
        """Add one line to metrics.jsonl; when this returns, any process can read it.

        JSON has no NaN or infinity: they are written as the strings "nan", "inf" and "-inf", and
        `read_metrics` gives them back as numbers. A row is flat: its values are numbers, strings, truth values
        or None.
        """
        line = json_line(row)
        with _run_error(self.path / METRICS):
            if self._metrics is None:
                self._metrics = (self.path / METRICS).open("a", buffering=1, encoding="utf-8", newline="\n")
            self._metrics.write(line)

    def read_metrics(self) -> list[dict[str, object]]:
        """Return the rows of metrics.jsonl, without a last line that was cut off in the middle of a write."""
        path = self.path / METRICS
        with _run_error(path):
            lines = path.read_bytes().split(b"\n")[:-1]
        return [_metrics_row(path, number, line) for number, line in enumerate(lines, 1)]

    def close(self) -> None:
        """Close the metrics file; a later `append_metrics` opens it again."""
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            with _run_error(self.path / METRICS):
                metrics.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def json_line(row: Mapping[str, object]) -> str:
    """A flat row as a line of JSON, with "nan", "inf" and "-inf" for the numbers that JSON lacks."""
    return json.dumps({name: _plain(value) for name, value in row.items()}, allow_nan=False) + "\n"


@contextmanager
def rows_file(path: Path) -> Iterator[Callable[[Mapping[str, object]], None]]:
    """Yield a function that writes a row as `json_line`; when that returns, any process can read it.

    What was in the file is replaced.
    """
    with _run_error(path):
        stream = path.open("w", buffering=1, encoding="utf-8", newline="\n")

    def write(row: Mapping[str, object]) -> None:
        with _run_error(path):
            stream.write(json_line(row))

    with stream:
        yield write


@contextmanager
def staged(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block succeeds, and vanishes when it fails.

    On success every file is fsynced, the directory is renamed to `path`, and the parent is fsynced: after a
    crash `path` is whole or absent. A directory at `path` is moved aside for the rename and deleted after it
    (a crash between the two leaves it beside `path`, its name ending in .staging). An OSError in the block
    becomes a `RunError`; whatever fails in the block leaves `path` as it was.
    """
    path = Path(os.path.realpath(path))
    staging = _sibling(path)
    with _run_error(path):
        try:
            staging.mkdir(parents=True)
            yield staging
            _fsync_tree(staging)
            _replace_directory(path, staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """The same for one file: yield a path to write, which replaces `path` when the block succeeds."""
    staging = _sibling(path)
    with _run_error(path):
        try:
            yield staging
            _fsync(staging)
            staging.replace(path)
            _fsync(path.parent)
        except BaseException:
            with suppress(OSError):
                staging.unlink()
            raise


def sha256_of(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with _run_error(Path(path)), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_replaceable(path: Path, overwrite: bool) -> None:
    if not overwrite:
        raise RunError(f"{path} exists and is not empty; choose another --out, or replace it with --overwrite")
    if not (path / MANIFEST).is_file():
        raise RunError(
            f"{path} has no {MANIFEST}, so it does not look like a run; --overwrite replaces only runs; "
            "choose another --out, or delete the directory yourself"
        )
    foreign = [entry.name for entry in path.iterdir() if entry.name not in ENTRIES and not _is_staging(entry)]
    if foreign:
        raise RunError(
            f"{path} holds {sorted(foreign)[0]!r}, which no run writes; --overwrite replaces only runs; "
            "move it elsewhere, or choose another --out"
        )


def _delete_run(path: Path) -> None:
    # The manifest goes last: a deletion that is cut short can be taken up again.
    for entry in sorted(path.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{STAGING}")


def _is_staging(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(STAGING)


def _write_whole(path: Path, text: str) -> None:
    with staged_file(path) as staging:
        staging.write_bytes(_encoded(text, path))


def _encoded(text: str, path: Path) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:  # half a surrogate pair, as in a file name that is not UTF-8
        found = text[max(error.start - 20, 0) : error.end]
        raise RunError(f"cannot write {path}: {found!r} is not valid text; expected UTF-8; rename it") from None


def _replace_directory(path: Path, staging: Path) -> None:
    if not path.is_dir():
        staging.rename(path)
        _fsync(path.parent)
        return
    former = _sibling(path)
    path.rename(former)
    try:
        staging.rename(path)
    except BaseException:
        former.rename(path)
        raise
    _fsync(path.parent)
    shutil.rmtree(former, ignore_errors=True)


def _fsync_tree(directory: Path) -> None:
    for entry in directory.rglob("*"):
        _fsync(entry)
    _fsync(directory)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _plain(value: object) -> object:
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def _metrics_row(path: Path, number: int, line: bytes) -> dict[str, object]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise RunError(f"{path}:{number}: is not a JSON object; expected one a line; remove the line")
    return {name: _NON_FINITE.get(value, value) if isinstance(value, str) else value for name, value in row.items()}


@contextmanager
def _run_error(path: Path) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"cannot write or read {path}: {reason}; make room, mend the permissions, or choose another place"
        ) from error
