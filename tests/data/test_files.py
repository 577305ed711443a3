"""Names on the command line: paths, several of them, globs, pipes; columns and formats that are said by name."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from kilter.data import files
from kilter.data.formats import FORMATS
from kilter.data.reading import read_demonstrations, read_pairs, read_prompts, read_records
from kilter.data.records import Demonstration, Pair
from kilter.errors import ConfigError, DataError

READ = "import sys; from kilter.data.reading import read_pairs; d = read_pairs(sys.argv[1:]); print(d.describe())"


def row(prompt: str = "q", **more: object) -> dict[str, object]:
    return {"prompt": prompt, "chosen": "a", "rejected": "b", **more}


def written(path: Path, *rows: dict[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows or (row(path.stem),)))
    return path


def refusal(*sources: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        read_pairs([*sources])
    assert "\n" not in str(caught.value)
    return str(caught.value)


def prompts(sources: str | Path | Sequence[str | Path]) -> list[str]:
    return [str(pair.prompt) for pair in read_pairs(sources).rows]


# Which files are meant.


def test_files_are_read_in_the_order_of_their_names_and_each_has_its_account(tmp_path: Path) -> None:
    b, a = written(tmp_path / "b.jsonl", row("b"), row("bb")), written(tmp_path / "a.jsonl")
    dataset = read_pairs([b, str(a)])
    assert [pair.prompt for pair in dataset.rows] == ["b", "bb", "a"]
    assert [(file.name, file.rows) for file in dataset.files] == [(str(b), 2), (str(a), 1)]
    assert dataset.describe().splitlines()[-1] == "3 pairs in all"


def test_a_glob_means_the_files_that_match_it_sorted(tmp_path: Path) -> None:
    for name in "10.jsonl", "2.jsonl", "sub/3.jsonl", "notes.md":
        written(tmp_path / name)
    assert prompts(f"{tmp_path}/*.jsonl") == ["10", "2"]
    assert prompts(Path(f"{tmp_path}/**/*.jsonl")) == ["10", "2", "3"]
    assert prompts(f"{tmp_path}/[0-9].jsonl") == ["2"]
    assert prompts(f"{tmp_path}/s*/*") == ["3"]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl")
    assert prompts(written(tmp_path / "[a].jsonl")) == ["[a]"]


def test_a_glob_without_a_match_names_what_is_near(tmp_path: Path) -> None:
    written(tmp_path / "pairs.csv")
    said = refusal(f"{tmp_path}/*.jsonl")
    assert said == (
        f"{tmp_path}/*.jsonl: matches no file; in {tmp_path} there are: pairs.csv; "
        "check the pattern, and quote it in a shell"
    )
    assert refusal("nowhere/*.jsonl").startswith("nowhere/*.jsonl: matches no file; check the pattern")


def test_a_missing_file_names_what_is_near(tmp_path: Path) -> None:
    written(tmp_path / "pairs.jsonl.gz")
    (tmp_path / "x.py").touch()
    assert refusal(tmp_path / "pairs.jsonl") == (
        f"{tmp_path}/pairs.jsonl: cannot be read: No such file or directory; did you mean {tmp_path}/pairs.jsonl.gz?"
        "; check the path"
    )
    assert f"; in {tmp_path} there are: pairs.jsonl.gz; check the path" in refusal(tmp_path / "train.csv")


def test_a_directory_names_what_is_in_it(tmp_path: Path) -> None:
    for number in range(10):
        written(tmp_path / f"{number}.JSONL")
    assert refusal(tmp_path) == (
        f"{tmp_path}: is a directory; expected a file; there are: 0.JSONL, 1.JSONL, 2.JSONL, 3.JSONL, 4.JSONL, 5.JSONL,"
        f" 6.JSONL, 7.JSONL, 2 more; name a file in it, or all of them by a glob: '{tmp_path}/*.jsonl'"
    )


def test_a_file_that_is_given_twice_is_refused_however_it_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    assert refusal(path, path) == f"{path}: is given twice; expected each file once; leave one out"
    link = tmp_path / "b.jsonl"
    link.symlink_to(path)
    assert refusal(path, link) == f"{link}: is the same file as {path}; expected each file once; leave one out"
    assert "is the same file as" in refusal(f"{tmp_path}/*.jsonl")
    assert "is given twice" in refusal(path, f"{tmp_path}/a*")
    assert refusal("-", "/dev/stdin").startswith("standard input: is given twice; ")
    assert refusal() == "no file was given; expected at least one"


# What flows.


@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input_is_read(name: str) -> None:
    text = "".join(json.dumps(row(str(number))) + "\n" for number in range(3))
    ran = subprocess.run([sys.executable, "-c", READ, name], input=text, capture_output=True, text=True, check=True)
    assert ran.stdout == "standard input: 3 pairs, format pair-text (prompt and answers as text)\n"


def test_a_file_as_standard_input_is_what_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.jsonl")
    with path.open() as opened:
        monkeypatch.setattr(sys, "stdin", opened)
        dataset = read_pairs("-")
    assert dataset.files[0].sha256 == read_pairs(path).files[0].sha256
    assert str(dataset.rows[0].origin) == "standard input:1"


def test_csv_comes_through_standard_input_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"prompt,chosen,rejected\nq,a,b\n")))
    assert read_pairs("-").rows[0].origin.line == 2


def test_standard_input_that_holds_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert refusal("-").startswith("standard input: is empty; ")
    monkeypatch.setattr(sys, "stdin", None)
    assert refusal("-") == "standard input: is closed; expected rows; name a file, or give one by `<`"


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    leader, terminal = os.openpty()
    with os.fdopen(leader, "rb"), os.fdopen(terminal, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        assert refusal("-") == "standard input: is a terminal; expected rows; name a file, or give one by `<`"


def test_a_pipe_is_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: written(pipe, row("1"), row("2")))
    writer.start()
    assert prompts(pipe) == ["1", "2"]
    writer.join()


def test_what_flows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LARGEST_PIPE", 100)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x" * 101)))
    assert refusal("-") == "standard input: is longer than 100 bytes; expected less; save it as a file first"


def test_one_of_many_workers_does_not_take_what_can_be_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert refusal("-") == "standard input: can be read once, and every worker has to; save it as a file first"


def test_a_file_that_finds_no_room_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", Full)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"x")))
    assert "standard input: cannot be kept in /" in refusal("-")


# Columns.


def test_columns_are_taken_for_fields_before_the_format_is_recognised(tmp_path: Path) -> None:
    answers = {"best": {"text": "A"}, "all": [{"text": "B"}]}
    path = written(tmp_path / "a.jsonl", {"question": "q", "answers": answers, "chosen": 3, "a.b": "no"})
    given = {"prompt": "question", "chosen": "answers.best.text", "rejected": "answers.all.0.text"}
    dataset = read_pairs(path, columns=given)
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in dataset.rows] == [("q", "A", "B")]
    assert dataset.files[0].ignored == ("answers", "a.b")
    assert read_pairs(path, columns=given | {"chosen": "a.b"}).rows[0].chosen == "no"


def test_columns_may_change_places(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row())
    pair = read_pairs(path, columns={"chosen": "rejected", "rejected": "chosen"}).rows[0]
    assert (pair.chosen, pair.rejected) == ("b", "a")


def test_a_row_without_the_column_is_a_bad_row_and_a_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row(better="A"), row())
    dataset = read_pairs(path, columns={"chosen": "better"}, skip_bad=True)
    assert [pair.chosen for pair in dataset.rows] == ["A"]
    assert [str(bad) for bad in dataset.bad_rows] == [f"{path}:2: chosen: is missing or null; expected text"]
    with pytest.raises(DataError) as caught:
        read_pairs(path, columns={"chosen": "bettr"})
    assert str(caught.value) == (
        f"{path}: no row has the column bettr, which is to be chosen; did you mean better? "
        "there are: prompt, chosen, rejected, better"
    )
    with pytest.raises(DataError, match=r"no row has the column more\.x, which is to be text; there are: prompt, "):
        read_pairs(path, columns={"text": "more.x"})  # also where the format does without


def test_a_field_that_no_format_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no format has a field 'choosen'; did you mean chosen"):
        read_pairs(written(tmp_path / "a.jsonl"), columns={"choosen": "winner"})


# Formats by name.


def test_a_format_that_is_named_is_not_recognised_but_held_to(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", row(text="t"))
    assert read_pairs(path, format="pair-text").files[0].format == "pair-text"
    assert read_demonstrations(path, format="sft-text").rows[0].completion == "t"
    with pytest.raises(DataError, match=r"a\.jsonl:1: chosen: is not a transcript"):
        read_pairs(written(tmp_path / "a.jsonl", {"chosen": "a", "rejected": "b"}), format="hh")


@pytest.mark.parametrize("name", FORMATS)
def test_rows_without_the_fields_of_a_named_format_are_bad_rows(name: str, tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", {}, {"other": 1}, dict.fromkeys(FORMATS[name].keys, 3))
    with pytest.raises(DataError, match="3 of 3 rows cannot be used:"):
        read_records(path, format=name)


def test_a_format_that_there_is_not_or_that_does_not_serve_is_refused_with_those_that_do(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl")
    with pytest.raises(ConfigError, match="there is no format 'pair-txt'; did you mean pair-text\\? there are: pair-"):
        read_pairs(path, format="pair-txt")
    with pytest.raises(ConfigError, match="format 'sft-text' holds no pairs; there are: pair-text, ") as caught:
        read_pairs(path, format="sft-text")
    assert "prompt-messages" not in str(caught.value)
    assert read_prompts(path, format="prompt").rows[0].prompt == "a"


# Records.


def test_records_are_what_the_files_hold_each_file_its_own_kind(tmp_path: Path) -> None:
    sources = [written(tmp_path / "a.jsonl"), written(tmp_path / "b.jsonl", {"text": "t"})]
    dataset = read_records(sources)
    assert [type(record) for record in dataset.rows] == [Pair, Demonstration]
    assert dataset.describe().splitlines() == [
        f"{sources[0]}: 1 pair, format pair-text (prompt and answers as text)",
        f"{sources[1]}: 1 demonstration, format sft-text (plain documents)",
        "2 rows in all",
    ]
    assert dataset.ties == 0


def test_one_kind_is_what_a_run_takes(tmp_path: Path) -> None:
    sources = [written(tmp_path / "a.jsonl"), written(tmp_path / "b.jsonl", {"text": "t"})]
    with pytest.raises(DataError, match=r"b\.jsonl:1: found a demonstration, .* expected a pair"):
        read_pairs(sources)
    assert len(read_demonstrations(sources).rows) == 2
