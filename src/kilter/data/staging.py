"""Files and directories that are written whole or not at all, also when the machine stops in the middle.

Whatever goes wrong while writing or reading (a full disk, permissions) is a `RunError`.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path

from kilter.errors import ConfigError, RunError

STAGING = ".staging"


@contextmanager
def staged(path: str | PathLike[str]) -> Iterator[Path]:
    """Yield an empty directory that becomes `path` when the block succeeds, and vanishes when it fails.

    On success every file is fsynced, the directory is renamed to `path`, and the parent is fsynced: after a
    crash `path` is whole or absent. A directory at `path` is moved aside for the rename and deleted after it
    (a crash between the two leaves it beside `path`, its name ending in .staging). An OSError in the block
    becomes a `RunError`; whatever fails in the block leaves `path` as it was.
    """
    path = Path(os.path.realpath(path))
    staging = sibling(path)
    with run_error(path):
        try:
            make_directory(path.parent)
            staging.mkdir()
            yield staging
            _fsync_tree(staging)
            _replace_directory(path, staging)
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise


@contextmanager
def staged_file(path: Path) -> Iterator[Path]:
    """The same for one file: yield a path to write, which replaces `path` when the block succeeds."""
    staging = sibling(path)
    with run_error(path):
        try:
            yield staging
            sync(staging)
            staging.replace(path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                staging.unlink()
            raise


def check_free(path: Path, *, overwrite: bool, sources: Sequence[str] = ()) -> None:
    """Raise what writing a file would, and ConfigError where it would replace one, before hours of work go into it.

    One of `sources`, the files that are read, is not replaced even with `overwrite`.
    """
    if path.is_dir():
        raise ConfigError(f"{path} is a directory; name a file in it")
    if not path.parent.is_dir():
        raise ConfigError(f"{path.parent} is not a directory; create it, or write elsewhere")
    if path.exists():
        if any(_is_same(path, source) for source in sources):
            raise ConfigError(f"{path} is one of the files to read; write elsewhere")
        if not overwrite:
            raise ConfigError(f"{path} exists; write elsewhere, or pass --overwrite to replace it")
    with run_error(path):
        staging = sibling(path)
        staging.touch(exist_ok=False)
        staging.unlink()


def _is_same(path: Path, source: str) -> bool:
    try:
        return path.samefile(source)
    except (OSError, ValueError):
        return False


def make_directory(path: Path) -> None:
    """Make a directory and those above it, each there to stay when this returns."""
    if path.exists():
        # Who made it may have been stopped before it was there to stay. Where we may not look, we did not make it.
        with suppress(PermissionError):
            sync(path.parent)
        return
    make_directory(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def sha256_of(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with run_error(Path(path)), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sibling(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}{STAGING}")


def is_staging(path: Path) -> bool:
    return path.name.startswith(".") and path.name.endswith(STAGING)


def delete_left_overs(directory: Path) -> None:
    """Delete what writers that were killed have left in a directory, as far as that can be done."""
    for entry in directory.iterdir():
        if is_staging(entry):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                with suppress(OSError):
                    entry.unlink()


def _replace_directory(path: Path, staging: Path) -> None:
    if not path.is_dir():
        staging.rename(path)
        sync(path.parent)
        return
    former = sibling(path)
    path.rename(former)
    try:
        staging.rename(path)
    except BaseException:
        former.rename(path)
        raise
    sync(path.parent)
    shutil.rmtree(former, ignore_errors=True)


def _fsync_tree(directory: Path) -> None:
    for entry in directory.rglob("*"):
        sync(entry)
    sync(directory)


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def run_error(path: Path) -> Iterator[None]:
    try:
        yield
    except RunError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise RunError(
            f"cannot write or read {path}: {reason}; make room, mend the permissions, or choose another place"
        ) from error
