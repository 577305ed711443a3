"""What kind of file the bytes of a file are, and how its rows are got."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

from kilter.data.files import OpenFile, check_no_other_kind
from kilter.data.json_rows import Parsed, array_rows, document_lines, is_array, line_rows, prompt_lines
from kilter.data.records import Demonstration, Prompt
from kilter.data.tabular import arrow_rows, parquet_rows, separated_rows

HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Container:
    """One kind of file: how its rows are got, what it should hold, and by what they are numbered if not by lines."""

    expected: str
    rows: Callable[[OpenFile, ExitStack], Iterator[Parsed]]
    numbered: str = ""


def _streamed(rows: Callable[[BinaryIO, str], Iterator[Parsed]]) -> Callable[[OpenFile, ExitStack], Iterator[Parsed]]:
    return lambda file, stack: rows(stack.enter_context(file.unpacked()), file.name)


def _sought(
    rows: Callable[[BinaryIO, str, int], Iterator[Parsed]],
) -> Callable[[OpenFile, ExitStack], Iterator[Parsed]]:
    return lambda file, stack: rows(stack.enter_context(file.seekable()), file.name, file.most)


OBJECTS = "expected one JSON object a line, or an array of them"
_CELLS = "expected a header and rows below it"
_COLUMNS = "expected columns with rows in them"

CONTAINERS: dict[str, Container] = {
    "JSON lines": Container(OBJECTS, _streamed(line_rows)),
    "JSON": Container(OBJECTS, _streamed(array_rows), "by their place in the array"),
    "prompts": Container("expected a prompt a line", _streamed(prompt_lines)),
    "documents": Container("expected a document a line", _streamed(document_lines)),
    "CSV": Container(_CELLS, _streamed(lambda stream, file: separated_rows(stream, file, ","))),
    "TSV": Container(_CELLS, _streamed(lambda stream, file: separated_rows(stream, file, "\t"))),
    "Parquet": Container(_COLUMNS, _sought(parquet_rows), "by their place in the table"),
    "Arrow": Container(
        _COLUMNS,
        _sought(lambda stream, file, most: arrow_rows(stream, file, most, is_stream=False)),
        "by their place in the table",
    ),
    "Arrow stream": Container(
        _COLUMNS,
        _sought(lambda stream, file, most: arrow_rows(stream, file, most, is_stream=True)),
        "by their place in the table",
    ),
}

_MAGIC = {b"PAR1": "Parquet", b"ARROW1": "Arrow", b"\xff\xff\xff\xff": "Arrow stream"}
_SUFFIXES = {".csv": "CSV", ".tsv": "TSV"}


def container_of(file: OpenFile, wanted: Collection[type[Any]]) -> Container:
    """Which kind a file is: by its first bytes where they can say, else by its name."""
    with file.unpacked() as stream:
        head = stream.read(HEAD)
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return CONTAINERS[kind]
    check_no_other_kind(file, head)
    if file.suffix == ".txt" and (Prompt in wanted or Demonstration in wanted):
        return CONTAINERS["prompts" if Prompt in wanted else "documents"]
    if file.suffix in _SUFFIXES:
        return CONTAINERS[_SUFFIXES[file.suffix]]
    if is_array(head):
        return CONTAINERS["JSON"]
    return CONTAINERS[_SUFFIXES[_separated_by(head)] if not file.suffix and _separated_by(head) else "JSON lines"]


def _separated_by(head: bytes) -> str:
    """For what has no name: the suffix it would have had if it begins with a header, "" where it does not."""
    first = head.removeprefix(codecs.BOM_UTF8).lstrip().partition(b"\n")[0]
    if first.startswith((b"{", b"[")):
        return ""
    return ".tsv" if b"\t" in first else ".csv" if b"," in first else ""
