"""Damage good files at random, in bulk: reading ends in rows or in a DataError, in bounded memory.

    python tests/data/fuzz_reading.py --inputs 100000 --seed 0

Prints what came of the inputs. An input that ends in anything else is kept in the directory that is named, and the exit
code is 1. Good files are the fixtures of all formats, in every container that can hold them.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.parquet
import zstandard

from kilter.data.canonical import canonical_row
from kilter.data.reading import read_demonstrations, read_pairs, read_prompts, read_records
from kilter.errors import DataError

FIXTURES = Path(__file__).with_name("formats")
MOST_GROWTH = 512 << 20  # bytes of memory, above what there was before the first input

Rows = list[dict[str, object]]


def as_lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_array(rows: Rows) -> bytes:
    return json.dumps(rows, indent=1).encode()


def as_csv(rows: Rows, delimiter: str = ",") -> bytes:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter)
    writer.writerow(keys)
    for row in rows:
        cells = [row.get(key) for key in keys]
        writer.writerow([cell if isinstance(cell, str | None) else json.dumps(cell) for cell in cells])
    return stream.getvalue().encode()


def as_tsv(rows: Rows) -> bytes:
    return as_csv(rows, "\t")


def as_parquet(rows: Rows) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


def as_arrow(rows: Rows) -> bytes:
    table = pyarrow.Table.from_pylist(rows)
    stream = io.BytesIO()
    with pyarrow.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


CONTAINERS: dict[str, Callable[[Rows], bytes]] = {
    ".jsonl": as_lines,
    ".json": as_array,
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".parquet": as_parquet,
    ".arrow": as_arrow,
}
PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": lambda content: gzip.compress(content, 1),
    ".zst": lambda content: zstandard.compress(content, 1),
}

WORDS = rb"""{ } [ ] , : " "" ' \ \u \ud800 \u0000 null true false NaN Infinity -1 0 1.5 1e999 tie model_a "prompt":
"chosen": "rejected": "role":"user" "content":
"messages":[ "label": "answers": "rank": [{ }] "from":"gpt" "value":""".split()
CHUNKS = [
    *WORDS,
    b"\n",
    b"\r",
    b"\r\n",
    b"\t",
    b"\0",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\xc3",
    b"\xed\xa0\x80",
    "漢字".encode(),
    b"9" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\x1f\x8b\x08\0",
    b"\x28\xb5\x2f\xfd",
    b"PAR1",
    b"ARROW1",
    b"\n\nHuman: ",
    b"\n\nAssistant: ",
]


def damaged(content: bytes, draw: Random) -> bytes:
    """`content` with one thing wrong with it."""
    at = draw.randrange(len(content) + 1)
    span = draw.choice((1, 1, 2, 8, 64, 1024))
    match draw.randrange(8):
        case 0:
            return content[:at]
        case 1:
            return content[:at] + content[at + span :]
        case 2:
            return content[:at] + draw.choice(CHUNKS) + content[at:]
        case 3:
            return content[:at] + draw.choice(CHUNKS) + content[at + span :]
        case 4:
            return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]
        case 5:
            return content[:at] + content[at : at + span] * draw.choice((2, 3, 100)) + content[at + span :]
        case 6:
            return draw.randbytes(span) + content[span:]
        case _:
            other = draw.randrange(len(content) + 1)
            return content[:at] + content[other : other + span] + content[at:]


def odd_value(draw: Random) -> object:
    """A JSON value that hardly belongs where it is put."""
    return draw.choice(
        (
            None, True, False, 0, 1, -1, 2.5, 10**30, 1e300, "", " ", "\0", "\ud800", "x", "tie", "model_a", "1", "[]",
            "{}",
            "[[", "null", '["a", "b"]', '[{"role": "user", "content": "q"}]', "\n\nHuman: q\n\nAssistant: a",
            [], [None], [[]], [""], ["a"], ["a", "b"], [3, 3], [{}], {}, {"role": "user"}, {"a": {"b": []}},
            [{"role": "user", "content": "q"}], {"role": "assistant", "content": "a"}, [{"from": "gpt", "value": "a"}],
            [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}],
            [{"answer": "a", "rank": 1}, {"answer": "b", "rank": "x"}], "漢字" * 50, "a" * 3000,
        )
    )  # fmt: skip


def rearranged(rows: Rows, draw: Random) -> Rows:
    """Rows, some of whose values are others, or elsewhere."""
    rows = json.loads(json.dumps(rows))
    for _ in range(draw.randint(1, 3)):
        holder: object = draw.choice(rows)
        while True:
            if isinstance(holder, dict) and holder:
                key: object = draw.choice(list(holder))
            elif isinstance(holder, list) and holder:
                key = draw.randrange(len(holder))
            else:
                break
            inner = holder[key]  # type: ignore[index]
            if isinstance(inner, dict | list) and draw.random() < 0.7:
                holder = inner
                continue
            match draw.randrange(4):
                case 0:
                    del holder[key]  # type: ignore[attr-defined]
                case 1 if isinstance(holder, dict):
                    holder[draw.choice(("prompt", "chosen", "messages", "label", "text", "x"))] = holder.pop(key)
                case _:
                    holder[key] = odd_value(draw)  # type: ignore[index]
            break
    return [row for row in rows if row] or [{}]


def inputs(seed: int) -> Iterator[tuple[str, bytes]]:
    """A name's ending and a content, without end."""
    draw = Random(seed)
    fixtures = [
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(FIXTURES.glob("*.jsonl"))
        if not path.name.endswith(".expected.jsonl")
    ]
    assert fixtures
    while True:
        rows = draw.choice(fixtures)
        if draw.random() < 0.6:
            rows = rearranged(rows, draw)
        ending = draw.choice(list(CONTAINERS))
        try:
            content = CONTAINERS[ending](rows)
        except (pyarrow.ArrowException, UnicodeEncodeError, TypeError, OverflowError):
            ending = draw.choice((".jsonl", ".json"))
            content = json.dumps(rows).encode() if ending == ".json" else "\n".join(map(json.dumps, rows)).encode()
        for _ in range(draw.choice((0, 1, 1, 2, 4))):
            content = damaged(content, draw)
        packing = draw.choice(list(PACKINGS))
        if packing and draw.random() < 0.02:
            content *= 2000  # packs well
        content = PACKINGS[packing](content)
        if packing and draw.random() < 0.3:
            content = damaged(content, draw)
        yield draw.choice((ending + packing, ending + packing, ending, ".txt", "")), content


def outcome(path: Path, draw: Random) -> str:
    """What reading a file comes to, in a word; raises whatever is no DataError, and AssertionError for a poor one."""
    read = draw.choice((read_records, read_records, read_pairs, read_demonstrations, read_prompts))
    try:
        data = read(path, skip_bad=draw.random() < 0.5)
    except DataError as error:
        said = str(error)
        assert said.replace("\n", "").isprintable(), f"unprintable: {said!r}"
        assert path.name in said, f"names no file: {said}"
        return "refused"
    assert data.rows
    assert data.describe().replace("\n", "").isprintable()
    if read is read_records:
        for record in data.rows:
            json.dumps(canonical_row(record), allow_nan=False).encode()
    return "read, less bad rows" if data.bad_rows else "read"


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def fuzz(count: int, seed: int, directory: Path) -> tuple[Counter[str], list[str]]:
    """Read so many damaged files; returns what came of them, and a traceback for each that came to something else."""
    outcomes: Counter[str] = Counter()
    failures: list[str] = []
    draw = Random(seed)
    for number, (ending, content) in zip(range(count), inputs(seed), strict=False):
        path = directory / f"input{number}{ending}"
        path.write_bytes(content)
        try:
            outcomes[outcome(path, draw)] += 1
        except Exception:
            failures.append(f"{path}\n{traceback.format_exc()}")
        else:
            path.unlink()
    return outcomes, failures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where inputs that fail are kept; default: nowhere")
    args = parser.parse_args()
    with TemporaryDirectory() as temporary:
        directory = args.keep or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        fuzz(200, args.seed + 1, directory)  # libraries are loaded
        before, began = memory(), time.perf_counter()
        outcomes, failures = fuzz(args.inputs, args.seed, directory)
        seconds, growth = time.perf_counter() - began, memory() - before
    print(f"{sum(outcomes.values()) + len(failures):,} inputs, seed {args.seed}, {seconds:.0f} s")
    for name, count in outcomes.most_common():
        print(f"{count:>9,} {name}")
    print(f"{len(failures):>9,} anything else")
    print(f"memory grew by at most {growth / 1e6:.0f} MB")
    for failure in failures[:5]:
        print(failure)
    sys.exit(bool(failures) or growth > MOST_GROWTH)


if __name__ == "__main__":
    main()
