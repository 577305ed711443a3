"""How much an Arrow file or stream unpacks to, from what it says of its buffers before any of them is unpacked.

Arrow's messages are flatbuffers (arrow.apache.org/docs/format/Columnar.html, "IPC streaming format" and "IPC file
format"); pyarrow shows no sizes of compressed buffers, so the few fields that have them are read here.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CONTINUATION = b"\xff\xff\xff\xff"
LONGEST_METADATA = 64 << 20

# Places of fields in their tables (format/Message.fbs, format/File.fbs).
MESSAGE_TYPE, MESSAGE_HEADER, MESSAGE_BODY_LENGTH = 1, 2, 3
DICTIONARY_BATCH, RECORD_BATCH = 2, 3
DICTIONARY_DATA = 1
BATCH_BUFFERS, BATCH_COMPRESSION = 2, 3
FOOTER_DICTIONARIES, FOOTER_BATCHES = 2, 3


def unpacked_bytes(stream: BinaryIO, *, is_stream: bool) -> int:
    """Return the bytes of all buffers once unpacked; raises ValueError where the messages make no sense."""
    size = stream.seek(0, io.SEEK_END)
    starts = _after_each_other(stream, size) if is_stream else _from_footer(stream, size)
    try:
        return sum(_unpacked_message(stream, start, size) for start in starts)
    except struct.error:
        raise ValueError("a message is cut short") from None


def _after_each_other(stream: BinaryIO, size: int) -> Iterator[int]:
    start = 0
    while start < size:
        table, body = _message(stream, start)
        if table is None:
            return
        yield start
        start = body + max(0, table.integer(MESSAGE_BODY_LENGTH, "<q"))


def _from_footer(stream: BinaryIO, size: int) -> Iterator[int]:
    stream.seek(max(0, size - 10))
    length, magic = struct.unpack("<i6s", stream.read(10))
    if magic != b"ARROW1" or not 0 < length <= min(size, LONGEST_METADATA):
        raise ValueError("its footer is missing")
    stream.seek(size - 10 - length)
    footer = _Table.root(stream.read(length))
    for place in FOOTER_DICTIONARIES, FOOTER_BATCHES:
        for (start,) in footer.structs(place, "<q16x"):
            yield start


def _message(stream: BinaryIO, start: int) -> tuple[_Table | None, int]:
    """The table of the message that begins at `start` (None at the end of a stream), and where its body begins."""
    stream.seek(start)
    head = stream.read(8)
    old = not head.startswith(CONTINUATION)  # before Arrow 0.15
    (length,) = struct.unpack("<i", head[:4] if old else head[4:])
    if length == 0:
        return None, start
    if not 0 < length <= LONGEST_METADATA:
        raise ValueError("a message has no length")
    begin = start + (4 if old else 8)
    stream.seek(begin)
    return _Table.root(stream.read(length)), begin + length


def _unpacked_message(stream: BinaryIO, start: int, size: int) -> int:
    message, body = _message(stream, start)
    if message is None or message.integer(MESSAGE_TYPE, "<B") not in (DICTIONARY_BATCH, RECORD_BATCH):
        return 0
    batch = message.table(MESSAGE_HEADER)
    if batch is not None and message.integer(MESSAGE_TYPE, "<B") == DICTIONARY_BATCH:
        batch = batch.table(DICTIONARY_DATA)
    if batch is None:
        return 0
    compressed = batch.table(BATCH_COMPRESSION) is not None
    total = 0
    for offset, length in batch.structs(BATCH_BUFFERS, "<qq"):
        if offset < 0 or length < 0 or body + offset + length > size:
            raise ValueError("a buffer lies beyond its end")
        unpacked = length
        if compressed and length:
            stream.seek(body + offset)
            (said,) = struct.unpack("<q", stream.read(8))
            unpacked = length if said == -1 else max(0, said)
        total += unpacked
    return total


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of a flatbuffer: a list of fields of which each may be absent."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> _Table:
        return cls(data, _unsigned(data, 0))

    def _field(self, place: int) -> int | None:
        (back,) = struct.unpack_from("<i", self.data, self.at)
        fields = self.at - back
        if fields < 0:
            raise ValueError("a message points outside of itself")
        (length,) = struct.unpack_from("<H", self.data, fields)
        if 4 + 2 * place >= length:
            return None
        (offset,) = struct.unpack_from("<H", self.data, fields + 4 + 2 * place)
        return self.at + offset if offset else None

    def integer(self, place: int, form: str) -> int:
        at = self._field(place)
        return 0 if at is None else int(struct.unpack_from(form, self.data, at)[0])

    def table(self, place: int) -> _Table | None:
        at = self._field(place)
        return None if at is None else _Table(self.data, at + _unsigned(self.data, at))

    def structs(self, place: int, form: str) -> Iterator[tuple[int, ...]]:
        at = self._field(place)
        if at is None:
            return
        start = at + _unsigned(self.data, at)
        for number in range(_unsigned(self.data, start)):
            yield struct.unpack_from(form, self.data, start + 4 + number * struct.calcsize(form))


def _unsigned(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])
