"""Claims about tables that are written some rows at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kilter.data.tables import check_rows_path, check_table_path, table_in_parts, write_table
from kilter.errors import ConfigError, RunError

PARTS: list[dict[str, list[Any]]] = [
    {"file": ["a", "a"], "x": [1.5, 2.0]},
    {"file": ["b"], "x": [float("inf")]},
    {"file": [], "x": []},
]
WHOLE = {"file": ["a", "a", "b"], "x": [1.5, 2.0, float("inf")]}


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_parts_make_the_same_file_as_the_whole(ending: str, tmp_path: Path) -> None:
    with table_in_parts(tmp_path / f"parts{ending}") as write:
        for part in PARTS:
            write(part)
    write_table(WHOLE, tmp_path / f"whole{ending}")
    assert (tmp_path / f"parts{ending}").read_bytes() == (tmp_path / f"whole{ending}").read_bytes()


def test_parts_make_the_same_parquet_table_as_the_whole(tmp_path: Path) -> None:
    with table_in_parts(tmp_path / "parts.parquet") as write:
        for part in PARTS:
            write(part)
    write_table(WHOLE, tmp_path / "whole.parquet")
    assert pq.read_table(tmp_path / "parts.parquet") == pq.read_table(tmp_path / "whole.parquet")
    assert pq.read_table(tmp_path / "parts.parquet").to_pydict() == WHOLE


def test_a_part_of_other_columns_is_refused(tmp_path: Path) -> None:
    with table_in_parts(tmp_path / "t.parquet") as write:
        write({"x": [1]})
        with pytest.raises((KeyError, pa.ArrowException)):
            write({"y": [1]})
    assert pq.read_table(tmp_path / "t.parquet").to_pydict() == {"x": [1]}


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_table_that_fails_on_the_way_is_not_there_and_leaves_the_old_one(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"t{ending}"
    write_table(WHOLE, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"shorter|length"), table_in_parts(path) as write:
        write({"file": PARTS[0]["file"], "x": [1.0]})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_a_table_without_rows_is_there(ending: str, tmp_path: Path) -> None:
    with table_in_parts(tmp_path / f"t{ending}"):
        pass
    assert (tmp_path / f"t{ending}").is_file()


@pytest.mark.parametrize("check", [check_table_path, check_rows_path])
def test_a_file_that_is_there_is_replaced_only_when_asked_and_never_one_that_is_read(
    check: Any, tmp_path: Path
) -> None:
    path = tmp_path / "t.jsonl"
    check(path, overwrite=False)
    assert not list(tmp_path.iterdir())
    path.write_text("mine")
    with pytest.raises(ConfigError, match=r"t.jsonl exists; .*--overwrite"):
        check(path, overwrite=False)
    check(path, overwrite=True, sources=["-", "hf://datasets/a/b", str(tmp_path / "other.jsonl")])
    (tmp_path / "link.jsonl").symlink_to(path)
    for source in (path, tmp_path / "link.jsonl"):
        with pytest.raises(ConfigError, match=r"t.jsonl is one of the files to read"):
            check(path, overwrite=True, sources=[str(source)])
    assert path.read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told_beforehand(tmp_path: Path) -> None:
    (tmp_path / "dir.parquet").mkdir()
    with pytest.raises(ConfigError, match=r"dir.parquet is a directory; name a file in it"):
        check_table_path(tmp_path / "dir.parquet", overwrite=True)
    with pytest.raises(ConfigError, match="none is not a directory; create it"):
        check_table_path(tmp_path / "none" / "t.csv", overwrite=False)
    with pytest.raises(RunError, match="File name too long"):  # of all that may go wrong, what also root runs into
        check_table_path(tmp_path / ("t" * 250 + ".csv"), overwrite=False)
