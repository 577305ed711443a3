"""A table of ways to spoil a file, for every format and every container, and what must be said of each.

A case is a file of three rows of which the second is spoilt (or a file spoilt as a whole), and the parts that the
refusal must have: where, in which field, and what to do.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import zstandard

from kilter.data.formats import FORMATS, Format

FIXTURES = Path(__file__).with_name("formats")
Row = dict[str, Any]


BOMB = 16 << 20  # bytes unpacked; the test lowers the bound


@dataclass(frozen=True)
class Case:
    """A spoilt file: its name's ending, its content, and words that its refusal must have, in this order."""

    name: str
    ending: str
    content: bytes
    said: tuple[str, ...]
    where: str = ":2"


def fixture(name: str) -> list[Row]:
    return [json.loads(line) for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


# What is wrong with the value of a field that must be there, and how the refusal speaks of it.
VALUES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "null": (lambda value: None, "missing or null"),
    "a number": (lambda value: 3.5, ""),
    "a truth value": (lambda value: True, ""),
    "a list of numbers": (lambda value: [1, 2], ""),
    "an empty object": (lambda value: {}, ""),
    "empty text": (lambda value: "", ""),
    "an empty list": (lambda value: [], ""),
    "NUL": (lambda value: _in_first_text(value, "\0"), "NUL"),
    "half a surrogate pair": (lambda value: _in_first_text(value, "\ud800"), "half a surrogate pair"),
}


def _in_first_text(value: Any, spoilt: str) -> Any:
    """`value` with something put into the first text in it; unchanged where it has none."""
    if isinstance(value, str):
        return value[:1] + spoilt + value[1:]
    if isinstance(value, list) and value:
        return [_in_first_text(value[0], spoilt), *value[1:]]
    if isinstance(value, dict) and value:
        keys = [key for key in ("content", "value", "answer") if key in value] or list(value)[:1]
        return value | {keys[0]: _in_first_text(value[keys[0]], spoilt)}
    return value


def damaged_rows(name: str) -> Iterator[Case]:
    """A format's rows with one value spoilt, or one field missing."""
    known = FORMATS[name]
    good = fixture(name)[0]
    for key in known.keys:
        if key not in good:
            continue
        rows = {"missing": {k: v for k, v in good.items() if k != key}}
        for damage, (spoil, _) in VALUES.items():
            spoilt = spoil(good[key])
            if spoilt != good[key] and not _may_be(known, key, spoilt):
                rows[damage] = good | {key: spoilt}
        for damage, row in rows.items():
            words = VALUES[damage][1] if damage in VALUES else "missing or null"
            if key == "winner" and isinstance(row.get(key), str):
                words = "expected one of model_a, model_b, tie"
            yield Case(f"{name}: {key} is {damage}", ".jsonl", _between(good, json.dumps(row)), (key, words))


def _may_be(known: Format, key: str, value: Any) -> bool:
    """Whether a format takes such a value for a key."""
    truth = isinstance(value, bool) and key in ("label", "kto_tag")
    return truth or (known.name, key, value) == ("sft-prompt", "prompt", "")


def _between(good: Row, line: str | bytes) -> bytes:
    content = line if isinstance(line, bytes) else line.encode()
    around = json.dumps(good, ensure_ascii=False).encode()
    return b"\n".join([around, content, around, b""])


def damaged_lines(name: str) -> Iterator[Case]:
    """A format's rows with something wrong with the JSON of one."""
    good = fixture(name)[0]
    line = json.dumps(good, ensure_ascii=False)
    key = next(iter(good))
    for damage, spoilt, words in (
        ("cut off", line[: len(line) // 2], ("is not JSON at column", "expected a complete object")),
        ("a list", f"[{line}]", ("is a list", "expected an object")),
        ("two objects", line + line, ("More than one value on the line",)),
        ("NaN", '{"score": NaN, ' + line[1:], ("has NaN, which is not JSON", "expected a number or null")),
        (
            "a key given twice",
            json.dumps({key: 0})[:-1] + ", " + line[1:],
            (key, "more than once", "remove the others"),
        ),
        ("not UTF-8", line.encode()[:-1] + b', "x": "\xff"}', ("is not UTF-8 (byte 0xff)", "convert or mend")),
        ("a byte order mark", "\ufeff" + line, ("is not JSON at column 1",)),
        ("a raw NUL", line[:-1] + ', "x": "\0"}', ("is not JSON at column",)),
        ("nested deeply", '{"x": ' + "[" * 100_000 + "]" * 100_000 + ", " + line[1:], ("nested too deeply",)),
        ("a huge number", '{"x": ' + "9" * 5000 + ", " + line[1:], ("too many digits",)),
    ):
        yield Case(f"{name}: {damage}", ".jsonl", _between(good, spoilt), words)


PAIRS: list[Row] = [{"prompt": f"{n} + {n} is", "chosen": f" {2 * n}", "rejected": " 0"} for n in (1, 2, 3)]


def _csv(rows: list[list[str]], delimiter: str = ",") -> bytes:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter).writerows(rows)
    return stream.getvalue().encode()


def _table(kind: str, columns: dict[str, list[Any]]) -> bytes:
    table = pyarrow.table(columns)
    stream = io.BytesIO()
    if kind == ".parquet":
        pyarrow.parquet.write_table(table, stream)
    else:
        with pyarrow.ipc.new_file(stream, table.schema) as writer:
            writer.write_table(table)
    return stream.getvalue()


def containers() -> dict[str, bytes]:
    """The same three pairs in every container."""
    columns = {key: [row[key] for row in PAIRS] for key in PAIRS[0]}
    cells = [list(PAIRS[0]), *([row[key] for key in row] for row in PAIRS)]
    return {
        ".jsonl": "".join(json.dumps(row) + "\n" for row in PAIRS).encode(),
        ".json": json.dumps(PAIRS).encode(),
        ".csv": _csv(cells),
        ".tsv": _csv(cells, "\t"),
        ".parquet": _table(".parquet", columns),
        ".arrow": _table(".arrow", columns),
    }


def damaged_containers() -> Iterator[Case]:
    """Files that are spoilt as a whole, of each container and each packing."""
    packings: dict[str, Callable[[bytes], bytes]] = {
        ".gz": gzip.compress,
        ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    }
    titles = {".gz": "gzip", ".zst": "Zstandard"}
    for ending, content in containers().items():
        yield Case(f"{ending}: empty", ending, b"", ("is empty",), where="")
        for packed, pack in packings.items():
            whole, title = pack(content), titles[packed]
            for damage, spoilt, words in (
                ("empty inside", pack(b""), ("has no rows",)),
                ("cut off", whole[:-12], (f"damaged or truncated {title}", "again")),
                ("spoilt in the middle", whole[:14] + b"\xff" * 20 + whole[34:], (f"damaged or truncated {title}",)),
                ("something behind it", whole + b"more", (f"damaged or truncated {title}",)),
                ("packed twice", pack(whole), ("unpack it once",)),
                ("a bomb", pack(b"\n" * BOMB), ("unpacks to more than",)),
            ):
                yield Case(f"{ending}{packed}: {damage}", ending + packed, spoilt, words, where="")
    for ending in (".parquet", ".arrow"):
        content = containers()[ending]
        other = _table(ending, {"id": [1, 2], "vector": [[0.5], [0.25]]})
        nulls = _table(ending, {key: [PAIRS[0][key], None, PAIRS[2][key]] for key in PAIRS[0]})
        numbers = _table(ending, {"prompt": [1, 2], "chosen": [3, 4], "rejected": [5, 6]})
        none = _table(ending, {key: pyarrow.array([], pyarrow.string()) for key in PAIRS[0]})
        for damage, spoilt, words, where in (
            ("cut off", content[: len(content) // 2], ("damaged, truncated or unreadable", "again"), ""),
            ("its last bytes gone", content[:-3], ("damaged, truncated or unreadable", "again"), ""),
            ("columns of something else", other, ("id", "vector", "fits no format"), ":1"),
            ("null", nulls, ("prompt", "missing or null"), ":2"),
            ("numbers", numbers, ("prompt (a number)", "fits no format"), ":1"),
            ("no rows", none, ("has no rows",), ""),
        ):
            yield Case(f"{ending}: {damage}", ending, spoilt, words, where)
    for ending, delimiter in ((".csv", ","), (".tsv", "\t")):
        head, good = ["prompt", "chosen", "rejected"], ["q", "a", "b"]
        join = delimiter.join
        for damage, lines, words, where in (
            ("one cell too many", [join(head), join([*good, "c"]), join(good)], ("4 cells", "3"), ":2"),
            ("one cell too few", [join(head), join(good[:2]), join(good)], ("2 cells", "3"), ":2"),
            ("a quote that is not closed", [join(head), join(['"q', "a", "b"]), join(good)], ("quote",), ":2"),
            ("text behind a quote", [join(head), join(['"q"x', "a", "b"]), join(good)], ("quot",), ":2"),
            (
                "a column twice",
                [join(["prompt", "chosen", "chosen"]), join(good)],
                ("column chosen 2 times", "rename it"),
                ":1",
            ),
            ("a column without a name", [join(["prompt", "chosen", ""]), join(good)], ("name",), ":1"),
            ("a NUL", [join(head), join(["q\0", "a", "b"]), join(good)], ("NUL",), ":2"),
            ("an empty cell", [join(head), join(["q", "", "b"]), join(good)], ("chosen", "missing or null"), ":2"),
            ("identical answers", [join(head), join(["q", "b", "b"]), join(good)], ("rejected", "identical"), ":2"),
            ("no rows", [join(head)], ("has no rows",), ""),
            ("other columns", [join(["a", "b", "c"]), join(good)], ("fits no format",), ":2"),
        ):
            yield Case(f"{ending}: {damage}", ending, "\n".join([*lines, ""]).encode(), words, where)
        latin = "\n".join([join(head), join(["é", "a", "b"]), ""]).encode("latin-1")
        yield Case(f"{ending}: not UTF-8", ending, latin, ("is not UTF-8 (byte 0xe9)",), ":2")
        yield Case(f"{ending}: UTF-16", ending, join(head).encode("utf-16"), ("UTF-16",), "")
    for damage, content, words in (
        ("an array that is not closed", b"[" + json.dumps(PAIRS[0]).encode(), ("line 1", "Expected ',' or ']'")),
        ("something behind the array", json.dumps(PAIRS).encode() + b"x", ("More after the end",)),
        ("one object over many lines", json.dumps(PAIRS[0], indent=1).encode(), ("one object a line",)),
        ("an empty array", b"[]", ("has no rows",)),
        ("UTF-16", json.dumps(PAIRS).encode("utf-16"), ("UTF-16",)),
        ("a zip archive", b"PK\x03\x04" + bytes(40), ("zip archive",)),
        ("xz", b"\xfd7zXZ\0" + bytes(40), ("xz",)),
        ("bzip2", b"BZh9" + bytes(40), ("bzip2",)),
        ("plain text", b"Dear reader,\nthis is no data.\n", ("no JSON object",)),
        ("binary", bytes(range(256)) * 4, ("has no JSON object",)),
        ("a long line", b'{"prompt": "' + b"a" * (65 << 20) + b'"}', ("longer than 64 MiB",)),
    ):
        yield Case(f".json: {damage}", ".json", content, words, where="")


def cases() -> Iterator[Case]:
    """Every case there is."""
    for name in FORMATS:
        yield from damaged_rows(name)
        yield from damaged_lines(name)
    yield from damaged_containers()
