"""Every kind of file, packed or not, gives the same rows; each way in which one is broken is told in a sentence."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import tracemalloc
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from kilter.data import files, json_rows
from kilter.data.arrow_sizes import unpacked_bytes
from kilter.data.files import opened
from kilter.data.reading import read_demonstrations, read_pairs, read_prompts
from kilter.data.records import Message, Origin, Pair
from kilter.errors import DataError

# A comma, a tab, quotes, a line's end in a cell, and letters beyond ASCII.
ROWS = [
    {"prompt": "2 + 2, is", "chosen": ' "4"', "rejected": "\t5"},
    {"prompt": "name\na letter", "chosen": "é", "rejected": "犬"},
    {"prompt": "q", "chosen": "a\r\nb", "rejected": "''"},
]
PAIRS = [(row["prompt"], row["chosen"], row["rejected"]) for row in ROWS]

Table = Sequence[Mapping[str, object]]


def json_lines(rows: Table) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def json_array(rows: Table) -> bytes:
    return json.dumps(rows).encode()


def separated(rows: Table, separator: str) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator)
    writer.writerows([rows[0].keys(), *(row.values() for row in rows)])
    return text.getvalue().encode()


def parquet(rows: Table | pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows), sink, **options)
    return sink.getvalue()


def arrow(rows: Table | pa.Table, new: Callable[..., Any] = pa.ipc.new_file, compression: str | None = None) -> bytes:
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    with new(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


CONTAINERS: dict[str, Callable[[Table], bytes]] = {
    "a.jsonl": json_lines,
    "a.json": json_array,
    "a.csv": lambda rows: separated(rows, ","),
    "a.TSV": lambda rows: separated(rows, "\t"),
    "a.parquet": parquet,
    "a.arrow": arrow,
    "zstd.feather": lambda rows: arrow(rows, compression="zstd"),
    "lz4.feather": lambda rows: arrow(rows, compression="lz4"),
    "stream.arrow": lambda rows: arrow(rows, pa.ipc.new_stream),
    "packed-stream.arrow": lambda rows: arrow(rows, pa.ipc.new_stream, "zstd"),
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


def written(tmp_path: Path, content: bytes | str, name: str = "a.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path: Path, *, skip_bad: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        read_pairs(path, skip_bad=skip_bad)
    return str(caught.value).replace(str(path), path.name)


def flaw(tmp_path: Path, row: str | bytes) -> str:
    """What is said of a line of CSV between two good ones."""
    line = row if isinstance(row, bytes) else row.encode()
    path = written(tmp_path, b"prompt,chosen,rejected\nq,a,b\n" + line + b"\nq,a,b\n")
    dataset = read_pairs(path, skip_bad=True)
    assert len(dataset.rows) == 2
    [bad] = dataset.bad_rows
    assert bad.origin == Origin(str(path), 3)
    return ": ".join(part for part in (bad.field, bad.message) if part)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_every_kind_of_file_gives_the_same_pairs(name: str, packing: str, tmp_path: Path) -> None:
    path = written(tmp_path, PACKINGS[packing](CONTAINERS[name](ROWS)), name + packing)
    dataset = read_pairs(path)
    assert [(row.prompt, row.chosen, row.rejected) for row in dataset.rows] == PAIRS
    lines = [2, 3, 5] if name in ("a.csv", "a.TSV") else [1, 2, 3]
    assert [row.origin for row in dataset.rows] == [Origin(str(path), line) for line in lines]


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_what_typed_tables_hold_is_known_by_their_first_bytes_whatever_their_name(name: str, tmp_path: Path) -> None:
    for other in "rows", "rows.json", "rows.csv":
        assert len(read_pairs(written(tmp_path, CONTAINERS[name](ROWS), other)).rows) == 3


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.arrow", "zstd.feather", "stream.arrow"])
def test_conversations_come_out_of_typed_tables_as_of_json(name: str, tmp_path: Path) -> None:
    def turn(role: str, content: str) -> list[dict[str, str | None]]:
        return [{"role": role, "content": content, "name": None}]

    row = {"prompt": turn("user", "q"), "chosen": turn("assistant", "a"), "rejected": turn("assistant", "b")}
    path = written(tmp_path, CONTAINERS[name]([row]), name)
    [pair] = read_pairs(path).rows
    assert pair == Pair(
        (Message("user", "q"),), (Message("assistant", "a"),), (Message("assistant", "b"),), Origin(str(path), 1)
    )


# CSV.


def test_a_row_of_csv_is_numbered_by_the_line_where_it_begins(tmp_path: Path) -> None:
    text = '\ufeffprompt,chosen,rejected\r\n"q\r\n\r\n",a,b\r\n\r\nq,c,d\r\nq,,d\r\n'
    dataset = read_pairs(written(tmp_path, text), skip_bad=True)
    assert [(row.prompt, row.origin.line) for row in dataset.rows] == [("q\r\n\r\n", 2), ("q", 6)]
    assert [(bad.origin.line, bad.field) for bad in dataset.bad_rows] == [(7, "chosen")]
    assert dataset.bad_rows[0].message.startswith("is missing or null")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("q,a", "has 2 cells and the header 3; expected as many; quote cells"),
        ("q,a,b,c", "has 4 cells and the header 3; "),
        ('q,"a"x,b', "is not quoted as CSV is: ',' expected after '\"'; expected cells that hold quotes"),
        (b"q,a,\xff", "is not UTF-8 (byte 0xff); "),
        (b"q,a,b\0", "rejected: has a NUL at character 2; "),
        ("q,a,a", "rejected: is identical to chosen; "),
    ],
)
def test_a_malformed_row_of_csv_is_refused_in_these_words(row: str | bytes, said: str, tmp_path: Path) -> None:
    assert flaw(tmp_path, row).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("prompt,chosen,rejected\n", "a.csv: has no rows; expected a header and rows below it"),
        ("\n \n", "a.csv:2: column 1 of 1 has no name; "),
        ("\n\n", "a.csv: has no rows; "),
        (",prompt,chosen\n0,a,b\n", "a.csv:1: column 1 of 3 has no name; expected a header that names each column; "),
        ("a,b,a\n1,2,3\n", "a.csv:1: the header names the column a 2 times; expected it once; rename it"),
        ("prompt;chosen;rejected\na;b;c\n", "a.csv:1: the header has ';' in it and no commas; expected columns"),
        ("prompt\tchosen\trejected\na\tb\tc\n", "a.csv:1: the header has '\\t' in it and no commas; "),
        (b"\xff,a\n1,2\n", "a.csv:1: the header is not UTF-8 (byte 0xff); "),
        ('prompt,chosen,rejected\nq,a,b\nq,"a,b\nq,a,b\n', "a.csv:3: a cell of the row that begins here is quoted so"),
        ('prompt,chosen,rejected\nq,"a,b\nq,"a",b\n', "a.csv:2: a cell of the row that begins here is quoted so"),
        ('"prompt,chosen\nq,a\n', "a.csv:1: a cell of the row that begins here is quoted so"),
        ("q,w\n1,2\n", "a.csv:2: found the keys q (text), w (text), which fits no format"),
        ('{"prompt": "q"}\n{"prompt": "q"}\n', "a.csv:"),
    ],
)
def test_a_file_of_csv_that_cannot_be_read_is_refused_in_these_words(
    content: str | bytes, said: str, tmp_path: Path
) -> None:
    assert refusal(written(tmp_path, content), skip_bad=True).startswith(said)


def test_cells_of_csv_stay_text(tmp_path: Path) -> None:
    path = written(tmp_path, 'text,score,list\n1,0.5,"[""a""]"\ntrue,,\n')
    assert [row.completion for row in read_demonstrations(path).rows] == ["1", "true"]


def test_a_huge_cell_is_read_and_one_beyond_the_bound_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(read_demonstrations(written(tmp_path, "text\n" + "a" * 500_000)).rows[0].completion) == 500_000
    monkeypatch.setattr(json_rows, "LONGEST_LINE", 1 << 20)
    for cell in "a" * (2 << 20), '"' + ("a" * 1000 + "\n") * 2100 + '"':
        with pytest.raises(DataError, match=r"a\.csv:2: "):
            read_demonstrations(written(tmp_path, f"text\n{cell}\n"))


def test_text_without_a_name_that_begins_with_a_header_is_csv(tmp_path: Path) -> None:
    assert len(read_pairs(written(tmp_path, separated(ROWS, ","), "rows")).rows) == 3
    assert len(read_pairs(written(tmp_path, separated(ROWS, "\t"), "rows")).rows) == 3


# Parquet and Arrow.


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "stream.arrow"])
def test_columns_of_every_type_are_no_hindrance(name: str, tmp_path: Path) -> None:
    extra = {
        "when": [datetime(2024, 2, 3, 4, 5, 6, tzinfo=UTC)],
        "nanoseconds": pa.array([1], pa.timestamp("ns")),
        "day": [date(2024, 2, 3)],
        "took": [timedelta(seconds=3)],
        "image": [b"\x89PNG"],
        "votes": [[1, 2]],
        "big": pa.array([1 << 60], pa.uint64()),
        "half": pa.array([0.5], pa.float32()),
        "nothing": pa.nulls(1),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    }
    table = pa.table({key: [value] for key, value in ROWS[0].items()} | extra)
    dataset = read_pairs(written(tmp_path, CONTAINERS[name](table), name))  # type: ignore[arg-type]
    assert dataset.rows[0].chosen == ROWS[0]["chosen"]
    assert dataset.files[0].ignored == tuple(extra)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_text_in_dictionaries_and_large_text_is_text(name: str, tmp_path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    table = table.set_column(0, "prompt", table["prompt"].dictionary_encode())
    table = table.set_column(1, "chosen", table["chosen"].cast(pa.large_string()))
    path = written(tmp_path, CONTAINERS[name](table), name)  # type: ignore[arg-type]
    assert [(row.prompt, row.chosen, row.rejected) for row in read_pairs(path).rows] == PAIRS


def test_rows_are_numbered_through_batches_and_a_bad_one_is_named_by_its_place(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "a" if n == 700 else "b"} for n in range(1, 1001)]
    path = written(tmp_path, parquet(rows, row_group_size=300), "a.parquet")
    assert refusal(path).splitlines()[:2] == [
        "a.parquet: 1 of 1,000 rows cannot be used (numbered by their place in the table):",
        "  a.parquet:700: rejected: is identical to chosen; expected two different answers",
    ]
    read = read_pairs(path, skip_bad=True).rows
    assert [str(row.origin.line) for row in read] == [row.prompt for row in read]


def test_bytes_are_no_text(tmp_path: Path) -> None:
    table = pa.table({"prompt": [b"q"], "chosen": ["a"], "rejected": ["b"]})
    with pytest.raises(DataError, match=r"found the keys prompt \(of type bytes\), chosen \(text\)"):
        read_pairs(written(tmp_path, parquet(table), "a.parquet"))
    with pytest.raises(DataError, match=r"a\.parquet:1: prompt: is of type bytes; expected text"):
        read_pairs(written(tmp_path, parquet(table), "a.parquet"), format="pair-text")


def test_a_cell_that_is_not_utf8_is_a_bad_row_with_its_column(tmp_path: Path) -> None:
    values = pa.array([b"a", b"\xff"])
    text = pa.StringArray.from_buffers(2, values.buffers()[1], values.buffers()[2])
    path = written(tmp_path, parquet(pa.table({"text": text})), "a.parquet")
    dataset = read_demonstrations(path, skip_bad=True)
    assert [(str(bad.origin), bad.field) for bad in dataset.bad_rows] == [(f"{path}:2", "text")]
    with pytest.raises(DataError, match=r"a\.arrow: is damaged, truncated or unreadable Arrow \(.*Invalid UTF8"):
        read_demonstrations(written(tmp_path, arrow(pa.table({"text": text})), "a.arrow"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (parquet(pa.table({"x": [1], "y": ["a"]})), "a:1: found the keys x (a number), y (text), which fits no format"),
        (parquet(pa.table({"text": pa.array([], pa.string())})), "a: has no rows; expected columns with rows in them"),
        (parquet(pa.Table.from_arrays([pa.array(["a"])] * 2, ["text", "text"])), "a: the table names the column text"),
        (parquet(ROWS)[:-20], "a: is damaged, truncated or unreadable Parquet (Parquet magic bytes not found"),
        (b"PAR1" + b"\0" * 40 + b"\xff\xff\xff\x7fPAR1", "a: is damaged, truncated or unreadable Parquet ("),
        (arrow(ROWS)[:-20], "a: is damaged, truncated or unreadable Arrow (its footer is missing)"),
        (arrow(ROWS, pa.ipc.new_stream)[:-40], "a: is damaged, truncated or unreadable Arrow ("),
        (b"ARROW1\0\0", "a: is damaged, truncated or unreadable Arrow ("),
        (b"\xff\xff\xff\xff\x10\0\0\0", "a: is damaged, truncated or unreadable Arrow ("),
        (b"FEA1\0", "a: expected JSON, found Feather of version 1; write it as version 2"),
        (b"PARE\0", "a: expected JSON, found encrypted Parquet; "),
        (zstandard.compress(zstandard.compress(b"x")), "a: expected JSON, found Zstandard inside Zstandard; "),
        (gzip.compress(zstandard.compress(b"x")), "a: expected JSON, found Zstandard inside gzip; unpack it once"),
        (zstandard.compress(json_lines(ROWS))[:-9], "a: is damaged or truncated Zstandard (it ends in the middle"),
        (zstandard.compress(json_lines(ROWS)) + b"more", "a: is damaged or truncated Zstandard ("),
        (zstandard.compress(json_lines(ROWS))[:9] + b"\xff" * 90, "a: is damaged or truncated Zstandard ("),
        (b"\x28\xb5\x2f\xfd", "a: is damaged or truncated Zstandard (it ends in the middle of a frame)"),
        (zstandard.compress(parquet(ROWS))[:-9], "a: is damaged or truncated Zstandard ("),
        (zstandard.compress(b""), "a: has no rows; "),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_in_these_words(content: bytes, said: str, tmp_path: Path) -> None:
    assert refusal(written(tmp_path, content, "a"), skip_bad=True).startswith(said)


@pytest.mark.parametrize(
    "content",
    [parquet(ROWS), arrow(ROWS), arrow(ROWS, compression="zstd"), arrow(ROWS, pa.ipc.new_stream), separated(ROWS, ",")],
    ids=["parquet", "arrow", "zstd", "stream", "csv"],
)
def test_a_table_changed_in_any_byte_is_read_or_a_data_error(content: bytes, tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.choice((1, 1, 4))):
            changed[draw.randrange(4, len(changed))] = draw.randrange(256)
        try:
            read_pairs(written(tmp_path, bytes(changed[: draw.choice((None, draw.randrange(9, len(changed))))])))
        except DataError as error:
            assert all(line.isprintable() for line in str(error).split("\n"))  # noqa: PT017


# Bounds.


def test_frames_of_zstandard_put_one_after_the_other_are_read_through(tmp_path: Path) -> None:
    frame = zstandard.compress(json_lines(ROWS))
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0abcd"
    assert len(read_pairs(written(tmp_path, frame + skipped + frame, "a.jsonl.zst")).rows) == 6


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet", "a.arrow"])
@pytest.mark.parametrize("packing", [".gz", ".zst"])
def test_what_unpacks_to_too_much_is_refused(
    name: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_UNPACKED", 1 << 16)
    rows = [{"text": "a" * 500_000}] * 2
    unpacked = arrow(rows) if name == "a.arrow" else CONTAINERS[name](rows)
    if name == "a.parquet":
        unpacked += b"PAR1" * 500_000  # what is no Parquet at its end is found out only after it is unpacked
    path = written(tmp_path, PACKINGS[packing](unpacked), name + packing)
    with pytest.raises(DataError, match=r"unpacks to more than [0-9,]+ bytes; expected at most 65,536, or 200 times"):
        read_demonstrations(path)


@pytest.mark.parametrize(
    "content",
    [
        parquet([{"text": "a" * 3_000_000}], compression="zstd"),
        arrow([{"text": "a" * 3_000_000}], compression="zstd"),
        arrow([{"text": "a" * 3_000_000}], pa.ipc.new_stream, "zstd"),
        parquet([{"text": "a" * 30_000}] * 300),
    ],
    ids=["parquet", "arrow", "stream", "dictionary"],
)
def test_a_table_that_unpacks_to_too_much_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_UNPACKED", 1 << 20)
    path = written(tmp_path, content)
    assert len(content) * files.LARGEST_RATIO < 3_000_000
    with pytest.raises(DataError, match=r"unpacks to more than [0-9,]+ bytes"):
        read_demonstrations(path)
    monkeypatch.undo()
    assert len(read_demonstrations(path).rows) in (1, 300)


def test_a_bomb_of_zstandard_takes_no_more_memory_than_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGEST_UNPACKED", 32 << 20)
    path = written(tmp_path, zstandard.ZstdCompressor(level=19).compress(b" " * (1 << 29)), "a.jsonl.zst")
    tracemalloc.start()
    with pytest.raises(DataError, match="unpacks to more than"):
        read_pairs(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20


@pytest.mark.parametrize("compression", [None, "zstd", "lz4"])
@pytest.mark.parametrize("new", [pa.ipc.new_file, pa.ipc.new_stream])
def test_what_arrow_unpacks_to_is_known_before_it_is(new: Callable[..., Any], compression: str | None) -> None:
    rows = [{"text": "ab" * 40_000, "n": n} for n in range(7)]
    table = pa.Table.from_pylist(rows)
    table = table.append_column("kind", pa.array(["x" * 1000] * 7).dictionary_encode())
    counted = unpacked_bytes(io.BytesIO(arrow(table, new, compression)), is_stream=new is pa.ipc.new_stream)
    assert table.nbytes - 1000 <= counted <= table.nbytes + 5000


def test_prompts_are_read_of_any_kind_of_file(tmp_path: Path) -> None:
    for name, make in CONTAINERS.items():
        path = written(tmp_path, make([{"prompt": "hi"}]), name)
        assert [row.prompt for row in read_prompts(path).rows] == ["hi"]
    path = written(tmp_path, zstandard.compress(b"hi\nho\n"), "a.txt.zst")
    assert [row.prompt for row in read_prompts(path).rows] == [(Message("user", "hi"),), (Message("user", "ho"),)]


def test_a_packed_table_leaves_no_temporary_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = tmp_path / "room"
    room.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(room))
    read_pairs(written(tmp_path, gzip.compress(parquet(ROWS)), "a.parquet.gz"))
    assert list(room.iterdir()) == []
    with opened(files.DataFile("a", tmp_path / "a.parquet.gz")) as file, file.seekable() as unpacked:
        assert unpacked.read(4) == b"PAR1"
