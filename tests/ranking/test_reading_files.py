"""Claims about comparisons read from files: every kind alike, the line of what is wrong, quick imports."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet
import pytest

from kilter.errors import DataError
from kilter.ranking.comparisons import Comparisons, Rankings
from kilter.ranking.reading.tables import read

SHARED = Path(os.environ.get("KILTER_SHARED", Path(__file__).parents[3] / "shared"))
ROWS: list[dict[str, Any]] = [
    {"model_a": "x", "model_b": "y", "winner": "model_a", "chars_a": 10, "chars_b": 5},
    {"model_a": "y", "model_b": "x", "winner": "tie", "chars_a": 7, "chars_b": 7},
    {"model_a": "z, the last", "model_b": "x", "winner": "model_b", "chars_a": 1, "chars_b": 2},
]


def as_csv(separator: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        lines = [separator.join(ROWS[0])]
        lines += [separator.join(f'"{value}"' for value in row.values()) for row in ROWS]
        path.write_text("\n".join(lines) + "\n")

    return write


def as_json_lines(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def as_stream(path: Path) -> None:
    table = pa.Table.from_pylist(ROWS)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def as_gzip(path: Path) -> None:
    as_json_lines(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


WRITERS: dict[str, Callable[[Path], None]] = {
    "battles.csv": as_csv(","),
    "battles.tsv": as_csv("\t"),
    "semicolons.csv": as_csv(";"),
    "battles.jsonl": as_json_lines,
    "battles.jsonl.gz": as_gzip,
    "battles.json": lambda path: path.write_text(json.dumps(ROWS)) and None,
    "battles.parquet": lambda path: pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), path),
    "battles.feather": lambda path: pyarrow.feather.write_feather(pa.Table.from_pylist(ROWS), path),
    "battles.arrow": as_stream,
    "no_name": as_csv(","),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_reads_alike(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    found = read(tmp_path / name, covariates=["chars_a-chars_b"]).data
    assert isinstance(found, Comparisons)
    assert found.items == ("x", "y", "z, the last")
    assert found.left.tolist() == [0, 1, 2]
    assert found.outcome.tolist() == [1, 0.5, 0]
    assert found.covariates[:, 0].tolist() == [5, 0, -1]


def test_globs_and_lists_of_files_are_one_table(tmp_path: Path) -> None:
    for part in ("p1.csv", "p2.csv"):
        as_csv(",")(tmp_path / part)
    assert read(f"{tmp_path}/p*.csv").data.games == 6
    assert read([tmp_path / "p1.csv", str(tmp_path / "p2.csv")]).data.games == 6
    as_json_lines(tmp_path / "p3.jsonl")
    with pytest.raises(DataError, match=r"several kinds \(CSV, JSON\)"):
        read(f"{tmp_path}/p*")


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("b.csv", 'left,right,winner\n"x\n1",y,left\nx,y,leftt\n', "b.csv:4: winner is 'leftt'"),
        (
            "b.jsonl",
            '{"left":"x","right":"y","winner":"left"}\n\n{"left":"x","right":"y","winner":"X?"}\n',
            "b.jsonl:3:",
        ),
        ("b.json", '[{"left":"x","right":"y","winner":"no"}]', "b.json: row 1: winner is 'no'"),
        ("b.csv", "left,right,winner\nx,y,left\nx,,left\n", "b.csv:3: right has no value"),
        ("b.csv", "model_a,model_b,preference\nx,y,1.0\nx,y,2.5\n", "b.csv:3: preference is '2.5'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(name: str, text: str, where: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name)
    assert where in str(caught.value)


def test_the_row_of_a_parquet_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "b.parquet"
    pyarrow.parquet.write_table(
        pa.table({"left": ["x"] * 3, "right": ["y"] * 3, "winner": ["left", "tie", "oops"]}), path
    )
    with pytest.raises(DataError, match=r"b.parquet: row 3: winner is 'oops'"):
        read(path)


def test_a_covariate_that_is_no_number_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    path.write_text("left,right,winner,length\nx,y,left,1\nx,y,left,long\n")
    with pytest.raises(DataError, match=r"b.csv:3: length is 'long' \(in 1 row\); expected a number"):
        read(path, covariates=["length"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("r.csv", "ranking,who,task,w\nx > y,bob,q,1\ny > x,ann,p,0.50\nx>y,bob,q,1.0\n"),
        (
            "r.jsonl",
            '{"ranking": ["x", "y"], "who": "bob", "task": "q", "w": 1}\n'
            '{"ranking": ["y", "x"], "who": "ann", "task": "p", "w": 0.5}\n'
            '{"ranking": ["x", "y"], "who": "bob", "task": "q", "w": 1}\n',
        ),
        (
            "places.csv",
            "race,item,place,who,task,w\n1,x,1,bob,q,1\n1,y,2,bob,q,1.0\n2,y,1,ann,p,0.5\n2,x,2,ann,p,.5\n"
            "3,x,1,bob,q,1\n3,y,2,bob,q,1\n",
        ),
    ],
)
def test_judges_prompts_and_weights_of_rankings_are_read_from_files(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    found = read(tmp_path / name, judge="who", prompt="task", weight="w").data
    assert isinstance(found, Rankings)
    assert found.judge is not None
    assert found.prompt is not None
    assert found.judges == ("ann", "bob")
    assert (found.item.tolist(), found.place.tolist()) == ([0, 1, 1, 0], [1, 2, 1, 2])
    assert (found.judge.tolist(), found.prompt.tolist()) == ([1, 0], [1, 0])
    assert (found.weight.tolist(), found.count.tolist()) == ([1, 0.5], [2, 1])


@pytest.mark.parametrize(
    ("name", "text", "where"),
    [
        ("r.csv", "ranking,who,w\nx > y,bob,1\ny > x,,1\n", "r.csv:3: who has no value"),
        ("r.csv", "ranking,who,w\nx > y,bob,1\ny > x,ann,none\n", "r.csv:3: w is 'none'"),
        (
            "r.jsonl",
            '{"ranking": ["x", "y"], "who": "a", "w": 1}\n\n{"ranking": ["x", "y"], "who": null, "w": 1}\n',
            "r.jsonl:3: who has no value",
        ),
        (
            "r.csv",
            "race,item,place,who,w\np,x,1,a,1\np,y,2,a,1\nq,x,1,a,1\nq,y,2,b,1\n",
            "r.csv:4: race and who are 'q', 'a'; 'q', 'b'",
        ),
    ],
)
def test_what_is_wrong_beside_a_ranking_is_told_with_its_line(name: str, text: str, where: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        read(tmp_path / name, judge="who", weight="w")
    assert where in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("a,b\n1,2\n", "the columns are a, b: that is no layout"),
        ("left,right,winner\n", "has no rows"),
    ],
)
def test_a_file_without_comparisons_is_refused(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        read(tmp_path / "b.csv")


def test_files_of_other_columns_and_headers_without_names_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("left,right,winner\nx,y,left\n")
    (tmp_path / "2.csv").write_text("right,left,winner\nx,y,left\n")
    (tmp_path / "3.csv").write_text("left,right,winner,\nx,y,left,\n")
    with pytest.raises(DataError, match=r"2.csv: has the columns right, left, winner, and .*1.csv left, right, winner"):
        read([tmp_path / "1.csv", tmp_path / "2.csv"])
    with pytest.raises(DataError, match=r"3.csv:1: the header has a column without a name"):
        read(tmp_path / "3.csv")


def test_lines_of_windows_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b'\xef\xbb\xbfleft,right,winner\r\nx,y,left\r\nx,"y",tie\r\n')
    assert read(tmp_path / "b.csv").data.games == 2


def test_a_file_that_is_not_there_or_is_damaged_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.csv: cannot be read: No such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"b.parquet: cannot be read as it is"):
        read(tmp_path / "b.parquet")


def test_a_cell_too_many_is_refused_with_the_line(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_text("left,right,winner\n" + "x,y,left\n" * 3 + "x,y,left,left\n")
    with pytest.raises(DataError, match=r"(?i)line: 5"):
        read(tmp_path / "b.csv")


def test_reading_a_file_loads_neither_pandas_nor_torch(tmp_path: Path) -> None:
    as_csv(",")(tmp_path / "b.csv")
    code = (
        "import sys; from kilter.ranking.reading.tables import read; "
        "read(sys.argv[1], covariates=['chars_a-chars_b'], judge='winner'); "
        "print({'pandas', 'polars', 'torch'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "b.csv"], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_many_rows_of_many_items_are_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    left = rng.integers(0, 5_000, 100_000)
    right = (left + rng.integers(1, 5_000, 100_000)) % 5_000
    table = pa.table({"left": left, "right": right, "outcome": rng.integers(0, 2, 100_000)})
    pyarrow.parquet.write_table(table, tmp_path / "b.parquet")
    found = read(tmp_path / "b.parquet").data
    assert isinstance(found, Comparisons)
    key, times = np.unique(np.stack([left, right, table["outcome"].to_numpy()]), axis=1, return_counts=True)
    items = np.array(found.items)
    assert np.array_equal(np.stack([items[found.left], items[found.right], found.outcome]), key)
    assert np.array_equal(found.count, times)


@pytest.mark.skipif(not SHARED.joinpath("data").is_dir(), reason=f"{SHARED}/data is absent; set KILTER_SHARED to it")
def test_real_judgements_are_read_whole() -> None:
    reading = read(
        SHARED / "data" / "alpaca_eval_battles.csv.gz",
        covariates=["chars_a-chars_b"],
        judge="judge",
        prompt="instruction_id",
    )
    found = reading.data
    assert isinstance(found, Comparisons)
    assert (found.games + reading.alone, len(found.items), len(found.judges)) == (108_601, 103, 6)
    assert found.graded
    food = read(SHARED / "data" / "food.csv").data
    assert (food.games, len(food.items)) == (30, 5)
