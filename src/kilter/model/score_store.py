"""A store on disk of what a fixed model says of tokens, found by the path of tokens that leads to each.

A directory holds segments, one for each process that wrote there, and a segment holds blocks, one after the other. A
block is written whole and synced, and nothing is ever written over: a kill leaves at most a torn end, which is passed
over, and processes that write at once never touch the same file.

    block     header   magic, bytes of a value, count, checksums of keys and of values, checksum of the header
              keys     16 bytes each
              values   as many, all of one width

A checksum is CRC-32: it tells every flipped bit, and of other damage all but one in four billion.

Axes: T nodes of a tree, K keys.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from kilter.tokens.tree import Ints, TokenTree

# A path's key, as two halves: (K, 2).
Keys = NDArray[np.uint64]
Found = NDArray[np.bool_]

SUFFIX = ".scores"
MAGIC = b"kilter01"
HEADER = struct.Struct("<8s5I")
KEY_BYTES = 16


def path_keys(tree: TokenTree) -> Keys:
    """A key for each node that says which tokens lead to it, itself included: (T, 2).

    It is chained, key = BLAKE2b(key of the parent, token): the same for a path whatever tree it lies in, and whatever
    comes after it. Among 2^40 paths two share a key with probability 2^-49.
    """
    keys: list[bytes] = []
    for token, parent, variant in zip(
        tree.ids_T.tolist(), tree.parent_T.tolist(), tree.variant_T.tolist(), strict=True
    ):
        above = keys[parent] if parent >= 0 else variant.to_bytes(KEY_BYTES, "little")
        keys.append(blake2b(above + token.to_bytes(4, "little"), digest_size=KEY_BYTES).digest())
    return np.frombuffer(b"".join(keys), "<u8").reshape(-1, 2)


def default_directory() -> Path:
    """Where stores lie: $KILTER_CACHE, or kilter in the user's directory for caches."""
    if named := os.environ.get("KILTER_CACHE"):
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "kilter"


class Index:
    """Keys with a row of numbers each, found by binary search; of a key added twice the first row counts.

    Sorted runs, each more than twice as long as the next: adding n keys sorts each of them about log n times.
    """

    def __init__(self, dtype: DTypeLike, width: int) -> None:
        self._runs = [_Run(np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty((0, width), dtype))]

    def __len__(self) -> int:
        return sum(len(run.high_K) for run in self._runs)

    def find(self, keys: Keys) -> tuple[NDArray[Any], Found]:
        """Rows (K, width), 0 where there is none, and where there is one."""
        first = self._runs[0].rows
        rows, found = np.zeros((len(keys), first.shape[1]), first.dtype), np.zeros(len(keys), bool)
        for run in self._runs:
            left = np.flatnonzero(~found)
            at = run.places(keys[left])
            here = left[at >= 0]
            rows[here], found[here] = run.rows[at[at >= 0]], True
        return rows, found

    def add(self, keys: Keys, rows: NDArray[Any]) -> None:
        self._runs.append(_Run.sorted(keys[:, 0], keys[:, 1], rows))
        while len(self._runs) > 1 and len(self._runs[-2].high_K) <= 2 * len(self._runs[-1].high_K):
            newer, older = self._runs.pop(), self._runs.pop()
            high_K, low_K, both = (np.concatenate(parts) for parts in zip(older, newer, strict=True))
            self._runs.append(_Run.sorted(high_K, low_K, both))

    def keep(self, wanted: Callable[[NDArray[Any]], Found]) -> None:
        """Forget the rows that are not wanted."""
        kept = ((run, wanted(run.rows)) for run in self._runs)
        self._runs = [_Run(run.high_K[here], run.low_K[here], run.rows[here]) for run, here in kept]


class _Run(NamedTuple):
    high_K: NDArray[np.uint64]
    low_K: NDArray[np.uint64]
    rows: NDArray[Any]

    @classmethod
    def sorted(cls, high_K: NDArray[np.uint64], low_K: NDArray[np.uint64], rows: NDArray[Any]) -> _Run:
        """By the first half; equal ones stay in the order they came in."""
        order = np.argsort(high_K, kind="stable")
        return cls(high_K[order], low_K[order], rows[order])

    def places(self, keys: Keys) -> Ints:
        """The first place of each key, -1 where it is not there."""
        at = np.searchsorted(self.high_K, keys[:, 0])
        place = np.full(len(keys), -1)
        left = np.arange(len(keys))
        while len(left):  # again only where two keys share their first half
            left = left[at[left] < len(self.high_K)]
            left = left[self.high_K[at[left]] == keys[left, 0]]
            same = self.low_K[at[left]] == keys[left, 1]
            place[left[same]] = at[left[same]]
            left = left[~same]
            at[left] += 1
        return place


class Block(NamedTuple):
    """Where a block's values lie, and what their checksum is; `number` counts the blocks of the file from 1."""

    file: Path
    number: int
    start: int
    length: int
    checksum: int

    def __str__(self) -> str:
        return f"{self.file}, block {self.number}"


class ScoreStore:
    """Values of `width` numbers by key, held in memory (16 bytes and the value each) and kept on disk.

    `warn` is told, in a line, of damage and of a disk that takes no more. Both cost time and never a run: what is
    damaged is passed over, to be computed again, and what cannot be written is known to this process alone.
    """

    def __init__(self, directory: Path, dtype: DTypeLike, width: int, warn: Callable[[str], None]) -> None:
        self.directory, self.dtype, self.width, self.warn = directory, np.dtype(dtype), width, warn
        self.index = self._empty_index()
        self._read_to: dict[str, int] = {}  # how far each segment has been read
        self._blocks_read: dict[str, int] = {}
        self._segment: Path | None = None
        self._writes = True
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._stop_writing(error)
        self.refresh()

    def _empty_index(self) -> Index:
        return Index(self.dtype, self.width)

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bytes_on_disk(self) -> int:
        return sum(size for _, size in self._segments())

    def find(self, keys: Keys) -> tuple[NDArray[Any], Found]:
        """Values (K, width), 0 where there is none, and where there is one; what others wrote since is looked at."""
        values, found = self.index.find(keys)
        return self.index.find(keys) if not found.all() and self.refresh() else (values, found)

    def append(self, keys: Keys, values: NDArray[Any]) -> None:
        """Keep values (K, width): on the disk to stay when this returns."""
        values = np.ascontiguousarray(values, self.dtype)
        if len(keys):
            self._write(keys, values)
            self.index.add(keys, values)

    def refresh(self) -> bool:
        """Take up what other processes have written; returns whether there was anything."""
        keys, rows = [], []
        for path, size in self._segments():
            if size > self._read_to.get(path.name, 0):
                for block, own_keys, values in self._blocks(path, size):
                    keys.append(own_keys)
                    rows.append(self._rows_of(block, values))
        if keys:
            self.index.add(np.concatenate(keys), np.concatenate(rows))
        return bool(keys)

    _reads_values = True

    def _rows_of(self, block: Block, values: bytes) -> NDArray[Any]:
        """What the index has of a block that was read."""
        return np.frombuffer(values, self.dtype).reshape(-1, self.width)

    @property
    def _value_bytes(self) -> int:
        return self.width * self.dtype.itemsize

    def _segments(self) -> list[tuple[Path, int]]:
        """The segments there are, in order of their names, with their sizes."""
        try:
            with os.scandir(self.directory) as entries:
                sizes = {entry.name: entry.stat().st_size for entry in entries if entry.name.endswith(SUFFIX)}
        except OSError:
            return []
        return [(self.directory / name, sizes[name]) for name in sorted(sizes)]

    def _blocks(self, path: Path, size: int) -> Iterator[tuple[Block, Keys, bytes]]:
        """The blocks of a segment that were not read yet; those that are damaged are told of and passed over."""
        at, number = self._read_to.get(path.name, 0), self._blocks_read.get(path.name, 0)
        try:
            with path.open("rb") as stream:
                while at + HEADER.size <= size:
                    header = _header(_read(stream, at, HEADER.size), self._value_bytes)
                    number += 1
                    if header is None:
                        self.warn(f"{path}, block {number}: {DAMAGED}")
                        at = _next_header(stream, at + 1, size, self._value_bytes)
                        continue
                    keys_at = at + HEADER.size
                    values_at = keys_at + header.length * KEY_BYTES
                    end = values_at + header.length * self._value_bytes
                    if end > size:  # torn, or not yet written to its end
                        number -= 1
                        break
                    at = end
                    block = Block(path, number, values_at, header.length, header.values)
                    keys = _read(stream, keys_at, values_at - keys_at)
                    values = _read(stream, values_at, end - values_at) if self._reads_values else b""
                    if zlib.crc32(keys) != header.keys or (self._reads_values and zlib.crc32(values) != header.values):
                        self.warn(f"{block}: {DAMAGED}")
                        continue
                    yield block, np.frombuffer(keys, "<u8").reshape(-1, 2), values
        except OSError as error:
            self.warn(f"{path} cannot be read: {error.strerror}; its scores are computed again where they are wanted")
            at = size
        self._read_to[path.name], self._blocks_read[path.name] = at, number

    def _write(self, keys: Keys, values: NDArray[Any]) -> Block | None:
        """Append a block to this process's segment; None where the disk takes no more."""
        if not self._writes:
            return None
        data = [np.ascontiguousarray(keys, "<u8").tobytes(), values.tobytes()]
        checksums = [zlib.crc32(part) for part in data]
        opening = HEADER.pack(MAGIC, self._value_bytes, len(keys), *checksums, 0)[:-4]
        whole = b"".join([opening, zlib.crc32(opening).to_bytes(4, "little"), *data])
        begin = 0
        try:
            if self._segment is None:
                self._segment = _new_segment(self.directory)
            path = self._segment
            begin = path.stat().st_size
            with path.open("ab", buffering=0) as stream:
                _write_all(stream, whole)
                os.fsync(stream.fileno())
        except OSError as error:
            self._stop_writing(error, begin)
            return None
        number = self._blocks_read.get(path.name, 0) + 1
        self._read_to[path.name], self._blocks_read[path.name] = begin + len(whole), number
        return Block(path, number, begin + len(whole) - values.nbytes, len(keys), checksums[1])

    def _stop_writing(self, error: OSError, begin: int = 0) -> None:
        self._writes = False
        if self._segment is not None:
            with suppress(OSError):  # a torn end is passed over
                os.truncate(self._segment, begin)
        self.warn(
            f"no more scores can be kept in {self.directory}: {error.strerror}; going on without, what is there is used"
        )


DAMAGED = "is not what was written; its scores are passed over, and computed again where they are wanted"


class MappedStore(ScoreStore):
    """The same for values too wide to be held: they stay on disk, mapped into memory, 24 bytes of each are held.

    A block's values are held against their checksum when the first of them is asked for.
    """

    def __init__(self, directory: Path, dtype: DTypeLike, width: int, warn: Callable[[str], None]) -> None:
        self._blocks_known: list[Block] = []
        self._whole: set[int] = set()
        self._maps: dict[Path, NDArray[np.uint8]] = {}
        super().__init__(directory, dtype, width, warn)

    _reads_values = False

    def _empty_index(self) -> Index:
        return Index(np.int32, 2)  # number of the block, place in it

    def has(self, keys: Keys) -> Found:
        """Where there is a value, as far as is known without looking at it."""
        return super().find(keys)[1]

    def find(self, keys: Keys) -> tuple[NDArray[Any], Found]:
        rows, found = super().find(keys)
        values = np.zeros((len(keys), self.width), self.dtype)
        for number in np.unique(rows[found, 0]).tolist():
            here = np.flatnonzero(found & (rows[:, 0] == number))
            block_values = self._values_of(number)
            if block_values is None:
                found[here] = False
                self.index.keep(lambda rows, number=number: rows[:, 0] != number)  # type: ignore[misc]
            else:
                values[here] = block_values[rows[here, 1]]
        return values, found

    def append(self, keys: Keys, values: NDArray[Any]) -> None:
        values = np.ascontiguousarray(values, self.dtype)
        block = self._write(keys, values) if len(keys) else None
        if block is not None:
            self.index.add(keys, self._rows_of(block, b""))

    def _rows_of(self, block: Block, values: bytes) -> NDArray[Any]:
        self._blocks_known.append(block)
        place = np.arange(block.length, dtype=np.int32)
        return np.stack([np.full_like(place, len(self._blocks_known) - 1), place], axis=1)

    def _values_of(self, number: int) -> NDArray[Any] | None:
        """A block's values in the file; None where they are not what was written."""
        block = self._blocks_known[number]
        end = block.start + block.length * self._value_bytes
        file = self._maps.get(block.file)
        if file is None or len(file) < end:
            file = self._maps[block.file] = np.memmap(block.file, np.uint8, "r")
        part = file[block.start : end]
        if number not in self._whole:
            if len(part) < end - block.start or zlib.crc32(part.data) != block.checksum:
                self.warn(f"{block}: {DAMAGED}")
                return None
            self._whole.add(number)
        return part.view(self.dtype).reshape(-1, self.width)


class _Header(NamedTuple):
    length: int
    keys: int
    values: int


def _header(data: bytes, value_bytes: int) -> _Header | None:
    """What a block's header says; None where it is damaged, or no header."""
    if len(data) < HEADER.size:
        return None
    magic, width, length, keys, values, checksum = HEADER.unpack(data)
    if magic != MAGIC or width != value_bytes or zlib.crc32(data[:-4]) != checksum:
        return None
    return _Header(length, keys, values)


def _next_header(stream: BinaryIO, begin: int, size: int, value_bytes: int) -> int:
    """Where the next whole header begins; the file's end where there is none."""
    rest = _read(stream, begin, size - begin)
    at = rest.find(MAGIC)
    while at >= 0:
        if _header(rest[at : at + HEADER.size], value_bytes) is not None:
            return begin + at
        at = rest.find(MAGIC, at + 1)
    return size


def _read(stream: BinaryIO, at: int, count: int) -> bytes:
    stream.seek(at)
    return stream.read(count)


def _new_segment(directory: Path) -> Path:
    """A file of this process's own, its name on the disk to stay."""
    path = directory / f"{os.getpid()}-{secrets.token_hex(8)}{SUFFIX}"
    path.touch(exist_ok=False)
    place = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
    return path


def _write_all(stream: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while len(left):
        left = left[stream.write(left) :]
