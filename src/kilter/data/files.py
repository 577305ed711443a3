"""From names to bytes: which files are meant, and what lies in them once it is unpacked.

A name is a path, a glob (`data/*.jsonl`, `**`), a data set on the hub (`hf://datasets/...`, see data/hub.py) or `-`,
standard input. Whatever fails here is a `DataError`.

Bounds: gzip and Zstandard may unpack to 1 GiB, or to 200 times the file's size where that is more.
"""

from __future__ import annotations

import codecs
import difflib
import glob
import gzip
import hashlib
import io
import os
import re
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from kilter.data.formats import printable
from kilter.data.hub import fetched, is_on_hub
from kilter.errors import DataError

LARGEST_UNPACKED = 1 << 30
LARGEST_RATIO = 200
LARGEST_PIPE = 64 << 30
BLOCK = 1 << 20
# 2 KiB of Zstandard unpack to 64 MiB at most: a block of 4 bytes may stand for 128 KiB.
ZSTD_PIECE = 1 << 11
SHOWN_NAMES = 8

STANDARD_INPUT = "-"
PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "Zstandard"}
PACKED_SUFFIXES = (".gz", ".zst")
DATA_SUFFIXES = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".txt")

Source: TypeAlias = str | PathLike[str]


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file that is to be read.

    `name` is what messages call it; `path` is where its bytes lie, None for standard input; `note` is what a reader
    should know of how the file was found.
    """

    name: str
    path: Path | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that is open, from its first byte as often as it is asked for.

    `suffix` is its name's, in small letters, without those of packing ("" where nothing has given it a name);
    `sha256` is of the bytes as they lie; `packed` says by what it is packed, "" if it is not; `most` bounds the bytes
    that it may hold once unpacked.
    """

    name: str
    suffix: str
    raw: BinaryIO
    sha256: str
    packed: str
    most: int

    def unpacked(self) -> io.BufferedReader:
        """Return a reader of the contents from their beginning; it raises DataError where they are damaged."""
        self.raw.seek(0)
        match self.packed:
            case "gzip":
                return _bounded(gzip.GzipFile(fileobj=self.raw).read, self)
            case "Zstandard":
                return _bounded(_ZstdReader(self.raw).read, self)
            case _:
                return io.BufferedReader(_Unclosed(self.raw), BLOCK)

    @contextmanager
    def seekable(self) -> Iterator[BinaryIO]:
        """Yield the contents as a file that can be read at any place; packed ones go to a temporary file."""
        if not self.packed:
            self.raw.seek(0)
            yield self.raw
            return
        with _spooled(self.unpacked().read, self.name, self.most) as unpacked:
            yield unpacked


def listed(sources: Source | Sequence[Source]) -> list[DataFile]:
    """Return the files that names stand for, in the order of the names, those of a glob in that of their paths.

    Raises `DataError` where there is no such file, or one is meant twice.
    """
    given = [sources] if isinstance(sources, str | PathLike) else list(sources)
    if not given:
        raise DataError("no file was given; expected at least one")
    files: dict[object, DataFile] = {}
    for source in given:
        for file in _meant(os.fspath(source)):
            identity = _identity(file)
            if (other := files.get(identity)) is not None:
                same = "is given twice" if other.name == file.name else f"is the same file as {other.name}"
                raise DataError(f"{file.name}: {same}; expected each file once; leave one out")
            files[identity] = file
    return list(files.values())


@contextmanager
def opened(file: DataFile) -> Iterator[OpenFile]:
    """Open a file; whatever fails in reading it is a DataError."""
    name = file.name
    try:
        with ExitStack() as stack:
            raw, size = _raw(file, stack)
            digest = hashlib.file_digest(raw, "sha256")  # type: ignore[arg-type]
            sha256 = digest.hexdigest()
            raw.seek(0)
            head = raw.read(4)
            packed = next((kind for magic, kind in PACKED.items() if head.startswith(magic)), "")
            most = max(LARGEST_UNPACKED, LARGEST_RATIO * size)
            yield OpenFile(name, _suffix(file), raw, sha256, packed, most)
    except OSError as error:
        raise DataError(
            f"{name}: cannot be read: {error.strerror or error}; check the file and its permissions"
        ) from None


def _meant(name: str) -> list[DataFile]:
    if name in (STANDARD_INPUT, "/dev/stdin"):
        return [DataFile("standard input", None)]
    if is_on_hub(name):
        return [DataFile(file.name, file.path, file.note) for file in fetched(name)]
    if glob.has_magic(name) and not os.path.lexists(name) and "\0" not in name:
        return [DataFile(_shown(path), Path(path)) for path in _matches(name)]
    return [DataFile(_shown(name), Path(name))]


def _matches(pattern: str) -> list[str]:
    paths = sorted(path for path in glob.glob(pattern, recursive=True) if not Path(path).is_dir())  # noqa: PTH207
    if not paths:
        near = _near(Path(re.split(r"[*?\[]", pattern)[0] + "*"))
        raise DataError(f"{_shown(pattern)}: matches no file{near}; check the pattern, and quote it in a shell")
    return paths


def _identity(file: DataFile) -> object:
    if file.path is None:
        return STANDARD_INPUT
    try:
        status = file.path.stat()
    except (OSError, ValueError):
        return file.name
    # Two files of a data set on the hub may be one in the cache.
    return file.name if is_on_hub(file.name) else (status.st_dev, status.st_ino)


def _suffix(file: DataFile) -> str:
    if file.path is None:
        return ""
    *_, last = ["", *(s for s in map(str.lower, file.path.suffixes[-2:]) if s not in PACKED_SUFFIXES)]
    return last


def _raw(file: DataFile, stack: ExitStack) -> tuple[BinaryIO, int]:
    """The file as it lies, to be read at any place, and its size; what flows is kept in a temporary file first."""
    if file.path is None:
        _check_alone(file.name)
        _check_flows(file.name)
        raw = stack.enter_context(_spooled(sys.stdin.buffer.read, file.name, LARGEST_PIPE))
    elif _is_regular(file.path, file.name):
        raw = stack.enter_context(file.path.open("rb"))
    else:
        _check_alone(file.name)
        with file.path.open("rb") as flow:
            raw = stack.enter_context(_spooled(flow.read, file.name, LARGEST_PIPE))
    size = raw.seek(0, io.SEEK_END)
    raw.seek(0)
    if not size:
        raise DataError(f"{file.name}: is empty; expected rows, or text")
    return raw, size


def _is_regular(path: Path, name: str) -> bool:
    """Whether a path is a file on disk; False for a pipe. Raises DataError for anything that is neither."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{name}: cannot be read: {reason}{_near(path)}; check the path") from None
    if stat.S_ISDIR(mode):
        held = _names(sorted(child.name for child in path.iterdir() if _is_data(child.name)))
        there = f"; there are: {held}" if held else ""
        raise DataError(
            f"{name}: is a directory; expected a file{there}; name a file in it, or all of them by a glob: "
            f"'{name.rstrip('/')}/*.jsonl'"
        )
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise DataError(f"{name}: is a device or a socket; expected a file or a pipe; save it as a file first")
    return stat.S_ISREG(mode)


def _check_alone(name: str) -> None:
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise DataError(f"{name}: can be read once, and every worker has to; save it as a file first")


def _check_flows(name: str) -> None:
    if sys.stdin is None or sys.stdin.isatty():
        what = "closed" if sys.stdin is None else "a terminal"
        raise DataError(f"{name}: is {what}; expected rows; name a file, or give one by `<`")


def _near(path: Path) -> str:
    """What lies beside a path that is not there: names like its own, else some that hold data."""
    try:
        there = sorted(child.name for child in path.parent.iterdir())
    except (OSError, ValueError):
        return ""
    if close := difflib.get_close_matches(path.name, there, n=3, cutoff=0.75):
        return f"; did you mean {_names([str(path.parent / name) for name in close])}?"
    held = _names([name for name in there if _is_data(name)])
    return f"; in {_shown(str(path.parent))} there are: {held}" if held else ""


def _is_data(name: str) -> bool:
    plain = name.lower()
    for suffix in PACKED_SUFFIXES:
        plain = plain.removesuffix(suffix)
    return plain.endswith(DATA_SUFFIXES)


def _names(names: Sequence[str]) -> str:
    shown = [printable(name, 200) for name in names[:SHOWN_NAMES]]
    return ", ".join(shown + ([f"{len(names) - SHOWN_NAMES} more"] if len(names) > SHOWN_NAMES else []))


def _shown(path: str) -> str:
    return printable(path, 1000)


@contextmanager
def _spooled(read: Callable[[int], bytes], name: str, most: int) -> Iterator[BinaryIO]:
    """Yield what `read` gives, as a temporary file."""
    with tempfile.TemporaryFile() as spool:
        size = 0
        while block := read(BLOCK):
            size += len(block)
            if size > most:
                raise DataError(f"{name}: is longer than {most:,} bytes; expected less; save it as a file first")
            try:
                spool.write(block)
                spool.flush()
            except OSError as error:
                raise DataError(
                    f"{name}: cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}; "
                    "make room there, or set TMPDIR to where there is some"
                ) from None
        spool.seek(0)
        yield spool


class _Unclosed(io.RawIOBase):
    """A file that stays open when a reader of it is done."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._raw.readinto(buffer)  # type: ignore[attr-defined, no-any-return]


class _Bounded(io.RawIOBase):
    """What a packed file unpacks to, up to as much as it may; DataError for more, and for damage."""

    def __init__(self, read: Callable[[int], bytes], file: OpenFile) -> None:
        self._read = read
        self._file = file
        self._unpacked = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        file = self._file
        try:
            block = self._read(len(buffer))
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise DataError(
                f"{file.name}: is damaged or truncated {file.packed} ({error}); fetch or write the file again"
            ) from None
        self._unpacked += len(block)
        if self._unpacked > file.most:
            raise DataError(too_large(file.name, file.most))
        buffer[: len(block)] = block
        return len(block)


def _bounded(read: Callable[[int], bytes], file: OpenFile) -> io.BufferedReader:
    return io.BufferedReader(_Bounded(read, file), BLOCK)


def too_large(name: str, most: int) -> str:
    """What is said of a file that unpacks to more than it may."""
    return (
        f"{name}: unpacks to more than {most:,} bytes; expected at most {LARGEST_UNPACKED:,}, or "
        f"{LARGEST_RATIO} times the file's size; if it is meant to be so, unpack the file first"
    )


class _ZstdReader:
    """Frames of Zstandard, one after the other; EOFError where the last one breaks off or one is damaged."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        self._raw = raw
        self._decompressor = zstandard.ZstdDecompressor()
        self._error = zstandard.ZstdError
        self._frame = self._decompressor.decompressobj()
        self._fed = False
        self._left = b""
        self._ready = memoryview(b"")

    def read(self, most: int) -> bytes:
        while not self._ready:
            packed = self._left or self._raw.read(ZSTD_PIECE)
            if not packed:
                if self._fed:
                    raise EOFError("it ends in the middle of a frame")
                return b""
            self._ready = memoryview(self._unpack(packed))
        block, self._ready = bytes(self._ready[:most]), self._ready[most:]
        return block

    def _unpack(self, packed: bytes) -> bytes:
        try:
            unpacked = self._frame.decompress(packed)
        except self._error as error:
            raise EOFError(str(error).removeprefix("zstd decompress error: ")) from None
        self._fed, self._left = True, b""
        if self._frame.eof:
            self._left = self._frame.unused_data
            self._frame = self._decompressor.decompressobj()
            self._fed = False
        return bytes(unpacked)


# What is refused by its first bytes, and what to do about it.
_OTHER_KINDS = {
    codecs.BOM_UTF16_LE: "UTF-16 text; save it as UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16 text; save it as UTF-8",
    b"\x1f\x8b": "gzip inside {packed}; unpack it once",
    b"\x28\xb5\x2f\xfd": "Zstandard inside {packed}; unpack it once",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"BZh": "bzip2; unpack it, or use gzip",
    b"\xfd7zXZ": "xz; unpack it, or use gzip",
    b"PARE": "encrypted Parquet; write it without encryption",
    b"FEA1": "Feather of version 1; write it as version 2",
    b"SQLite format 3": "an SQLite database; write its table as JSON lines",
}


def check_no_other_kind(file: OpenFile, head: bytes) -> None:
    """Raise DataError where a file's contents begin as those of a kind do that is not read."""
    for magic, kind in _OTHER_KINDS.items():
        if head.startswith(magic):
            raise DataError(f"{file.name}: expected JSON, found {kind.format(packed=file.packed)}")
