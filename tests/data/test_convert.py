"""`kilter convert`: what is written, what is told, and what is refused."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from kilter.data.config import ConvertConfig
from kilter.data.convert import convert
from kilter.data.formats import FORMATS
from kilter.data.reading import read_records
from kilter.data.records import Origin, Pair
from kilter.errors import ConfigError, DataError, RunError

FIXTURES = Path(__file__).with_name("formats")
PAIRS = str(FIXTURES / "alpaca-eval.jsonl")
EXPECTED = (FIXTURES / "alpaca-eval.expected.jsonl").read_text(encoding="utf-8")


def rows(text: str) -> list[object]:
    return [json.loads(line) for line in text.splitlines()]


def unpacked_zstandard(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


@pytest.mark.parametrize(
    ("ending", "unpacked"),
    [("", bytes), (".gz", gzip.decompress), (".zst", unpacked_zstandard), (".GZ", gzip.decompress)],
)
def test_rows_are_written_plain_or_packed_by_the_ending(
    ending: str, unpacked: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"out.jsonl{ending}"
    convert([PAIRS], str(out))
    assert rows(unpacked(out.read_bytes()).decode()) == rows(EXPECTED)
    assert list(tmp_path.iterdir()) == [out]
    first = out.read_bytes()
    monkeypatch.setattr("time.time", lambda: 0x5EED)
    convert([PAIRS], str(out), ConvertConfig(overwrite=True))
    assert out.read_bytes() == first, "the same rows should be the same bytes at any time"


def one_shape(name: str, directory: Path) -> list[Path]:
    """The format's fixture in files whose rows are all written in one format."""
    parts: dict[bool, list[str]] = {}
    for line in (FIXTURES / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
        parts.setdefault('"role"' in line or '"from"' in line, []).append(line)
    made = []
    for number, lines in enumerate(parts.values()):
        made.append(directory / f"{number}.jsonl")
        made[-1].write_text("\n".join(lines), encoding="utf-8")
    return made


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_written_reads_back_as_what_was_read(name: str, tmp_path: Path) -> None:
    here = Origin("", 0)
    for source in one_shape(name, tmp_path):
        out = tmp_path / f"out-{source.name}"
        convert([str(source)], str(out))
        read, again = ([replace(row, origin=here) for row in read_records(str(path)).rows] for path in (source, out))
        assert read == again


def test_what_became_of_the_rows_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    bad = '{"instruction": "a", "output_1": "b", "output_2": "c", "preference": null}\n'
    source.write_text(Path(PAIRS).read_text(encoding="utf-8") + bad, encoding="utf-8")
    with pytest.raises(DataError, match=r"in\.jsonl:5: preference: is missing or null"):
        convert([str(source)], str(out))
    assert not out.exists()
    convert([str(source)], str(out), ConvertConfig(skip_bad=True))
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == f"5 rows read, 4 written to {out} (format pair-chat), 2 of them ties, 1 bad row left out"
    assert "1 bad row skipped" in told[0]
    assert [pair.tied for pair in read_records(str(out)).rows if isinstance(pair, Pair)] == [False, False, True, True]


def test_columns_and_the_format_may_be_named(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"q": "2+2 =", "completion": " 4", "text": "2+2 = 4"}\n')
    with pytest.raises(DataError, match=r"more than one way(.|\n)*sft-text(.|\n)*sft-prompt"):
        convert([str(source)], str(out), ConvertConfig(columns={"prompt": "q"}))
    convert([str(source)], str(out), ConvertConfig(columns={"prompt": "q"}, format="sft-prompt"))
    assert rows(out.read_text()) == [{"prompt": "2+2 =", "completion": " 4"}]


def test_several_files_become_one_and_rows_of_several_kinds_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    convert([PAIRS, str(FIXTURES / "shp.jsonl")], str(out))
    assert len(read_records(str(out)).rows) == 6
    with pytest.raises(DataError, match=r"rows of different kinds would be written \(4 as pair-chat, 2 as kto\)"):
        convert([PAIRS, str(FIXTURES / "kto-alpaca.jsonl")], str(tmp_path / "other.jsonl"))


def test_a_hyphen_prints_rows_and_tells_elsewhere(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    convert([PAIRS], "-")
    printed, told = capfdbinary.readouterr()
    assert rows(printed.decode()) == rows(EXPECTED)
    assert told.decode().splitlines()[-1].startswith("4 rows read, 4 written to standard output (format pair-chat)")


def test_a_reader_that_leaves_gets_no_traceback(tmp_path: Path) -> None:
    many = tmp_path / "many.jsonl"
    many.write_text(Path(PAIRS).read_text(encoding="utf-8") * 3000, encoding="utf-8")
    program = f"""
import sys
from kilter.cli import fail
from kilter.data.convert import convert
from kilter.errors import RunError
try:
    convert([{str(many)!r}], "-")
except RunError as error:
    fail(str(error))
"""
    ran = subprocess.run(
        ["bash", "-c", f"{sys.executable} - | head -n 1"], input=program, capture_output=True, text=True, check=False
    )
    assert len(ran.stdout.splitlines()) == 1
    assert ran.stderr.splitlines()[-1] == (
        "error: standard output cannot be written: Broken pipe; write the rows to a file"
    )
    assert "Traceback" not in ran.stderr


def test_a_file_that_is_there_is_replaced_only_when_asked_and_never_when_it_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("years of work")
    with pytest.raises(ConfigError, match=r"out.jsonl exists; .*--overwrite"):
        convert([PAIRS], str(out))
    assert out.read_text() == "years of work"
    convert([PAIRS], str(out), ConvertConfig(overwrite=True))
    assert rows(out.read_text(encoding="utf-8")) == rows(EXPECTED)
    with pytest.raises(ConfigError, match="is one of the files to read"):
        convert([PAIRS, str(out)], str(out), ConvertConfig(overwrite=True))


@pytest.mark.parametrize("name", ["out.csv", "out", "jsonl", "out.jsonl.xz"])
def test_an_ending_that_is_not_written_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no ending that is written; use one of \.jsonl, \.jsonl\.gz"):
        convert([PAIRS], str(tmp_path / name))


def test_a_place_that_cannot_be_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not a directory; create it"):
        convert(["no-such-file"], str(tmp_path / "none" / "out.jsonl"))
    (tmp_path / "in.jsonl").mkdir()
    with pytest.raises(ConfigError, match="is a directory; name a file in it"):
        convert(["no-such-file"], str(tmp_path / "in.jsonl"))


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("years of work")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kilter.data.convert.canonical_row", full)
    with pytest.raises(RunError, match="No space left"):
        convert([PAIRS], str(out), ConvertConfig(overwrite=True))
    assert out.read_text() == "years of work"
    assert list(tmp_path.iterdir()) == [out]
