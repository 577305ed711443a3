"""The run directory: what is written can be read, whole or not at all, and nobody's files are deleted."""

from __future__ import annotations

import errno
import json
import math
import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.data import staging
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import sha256_of, staged
from kilter.data.toml import to_toml
from kilter.errors import DataError, RunError


def contents(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "runs" / "first")


# Making a run.


def test_a_new_run_may_use_a_new_or_an_empty_directory(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in "empty", "new", "a/b/c":
        run = RunDirectory.create(tmp_path / name)
        assert run.path.is_dir()
        assert run.model == tmp_path / name / "model"


def test_a_directory_in_use_is_refused_and_kept(run: RunDirectory) -> None:
    run.write_manifest({"seed": 1})
    with pytest.raises(RunError, match=r"first exists and is not empty; choose another --out, .* --overwrite"):
        RunDirectory.create(run.path)
    assert contents(run.path).keys() == {"manifest.json"}


def test_overwriting_replaces_a_whole_run(run: RunDirectory) -> None:
    with run:
        run.write_config("")
        run.append_metrics({"step": 1})
    with staged(run.model) as directory:
        (directory / "weights").write_text("w")
    (run.path / "checkpoints" / "step-1").mkdir(parents=True)
    (run.path / ".model.0a1b.staging").mkdir()
    run.write_manifest({"seed": 1})
    RunDirectory.create(run.path, overwrite=True)
    assert list(run.path.iterdir()) == []


def test_overwriting_refuses_what_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match=r"no manifest\.json, so it does not look like a run"):
        RunDirectory.create(tmp_path, overwrite=True)
    assert contents(tmp_path) == {"thesis.tex": b"years of work"}


def test_overwriting_refuses_a_run_that_holds_other_files(run: RunDirectory) -> None:
    run.write_manifest({"seed": 1})
    (run.path / "notes.txt").write_text("mine")
    before = contents(run.path)
    with pytest.raises(RunError, match=r"holds 'notes\.txt', which no run writes"):
        RunDirectory.create(run.path, overwrite=True)
    assert contents(run.path) == before


def test_overwriting_does_not_follow_links(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "weights").write_text("w")
    run.model.symlink_to(tmp_path / "elsewhere")
    run.write_manifest({})
    RunDirectory.create(run.path, overwrite=True)
    assert contents(tmp_path / "elsewhere") == {"weights": b"w"}
    assert not run.model.is_symlink()


def test_a_place_where_no_directory_can_be_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="file is a file; expected a directory"):
        RunDirectory.create(tmp_path / "file", overwrite=True)
    with pytest.raises(RunError, match="Not a directory; make room, mend the permissions, or choose another place"):
        RunDirectory.create(tmp_path / "file" / "run")


def test_what_a_killed_process_left_half_written_is_deleted_and_nothing_else(run: RunDirectory) -> None:
    run.write_config("seed = 1\n")
    (run.path / ".model.0a1b2c3d.staging").mkdir()
    (run.path / ".model.0a1b2c3d.staging" / "weights").write_text("half")
    (run.path / ".config.toml.0a1b2c3d.staging").write_text("half")
    (run.path / ".notes").write_text("mine")
    run.delete_left_overs()
    assert contents(run.path) == {"config.toml": b"seed = 1\n", ".notes": b"mine"}


# What a run writes.


def test_a_manifest_is_pretty_json_and_replaced_whole(run: RunDirectory) -> None:
    run.write_manifest({"seed": 1})
    run.write_manifest({"seed": 2, "command": ["kilter", "train", "ü\udcff"]})
    text = (run.path / "manifest.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"seed": 2, "command": ["kilter", "train", "ü\udcff"]}
    assert text.startswith('{\n  "seed": 2,\n')
    assert os.listdir(run.path) == ["manifest.json"]  # noqa: PTH208


def test_a_failed_write_leaves_the_former_file_and_nothing_else(
    run: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.write_config("seed = 1\n")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RunError, match=r"cannot write or read .*config\.toml: No space left on device; make room"):
        run.write_config("seed = 2\n")
    assert contents(run.path) == {"config.toml": b"seed = 1\n"}


def test_a_configuration_that_is_no_text_is_a_run_error(run: RunDirectory) -> None:
    with pytest.raises(RunError, match=r"'data = \\udcff' is not valid text"):
        run.write_config("data = \udcff")
    assert contents(run.path) == {}


def test_metrics_come_back_as_they_went_in(run: RunDirectory) -> None:
    rows = [{"step": 1, "loss": math.log(2), "note": "é\n", "ok": True, "lr": None}, {"step": 2, "kl": math.inf}]
    with run:
        for row in rows:
            run.append_metrics(row)
        run.append_metrics({"loss": math.nan, "low": -math.inf})
    assert run.read_metrics()[:2] == rows
    [last] = run.read_metrics()[2:]
    assert math.isnan(last["loss"])
    assert last["low"] == -math.inf


def test_each_metrics_line_is_strict_json_and_readable_at_once(run: RunDirectory) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    with run:
        run.append_metrics({"loss": math.nan, "kl": -math.inf})
        line = (run.path / "metrics.jsonl").read_text()
        assert json.loads(line, parse_constant=refuse) == {"loss": "nan", "kl": "-inf"}
        assert line.endswith("}\n")


@given(st.floats())
def test_every_number_survives_the_metrics_file(tmp_path_factory: pytest.TempPathFactory, number: float) -> None:
    run = RunDirectory.create(tmp_path_factory.mktemp("run"))
    with run:
        run.append_metrics({"x": number})
    [row] = run.read_metrics()
    assert row["x"] == number or (math.isnan(number) and math.isnan(row["x"]))


def test_metrics_go_on_after_closing(run: RunDirectory) -> None:
    for step in 1, 2:
        run.append_metrics({"step": step})
        run.close()
        run.close()
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


def test_a_line_cut_off_at_the_end_is_not_read_and_a_damaged_one_is_refused(run: RunDirectory) -> None:
    path = run.path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"st')
    assert run.read_metrics() == [{"step": 1}]
    for damaged in "{", "3", "[" * 100_000, "":
        path.write_text(f'{{"step": 1}}\n{damaged}\n{{"step": 2}}\n')
        with pytest.raises(RunError, match=r"metrics\.jsonl:2: is not a JSON object"):
            run.read_metrics()


def test_metrics_that_are_not_there_are_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"metrics\.jsonl: No such file or directory"):
        RunDirectory(tmp_path).read_metrics()


# Saving a directory.


def test_a_staged_directory_appears_when_it_is_complete(tmp_path: Path) -> None:
    with staged(tmp_path / "runs" / "model") as directory:
        (directory / "shards").mkdir()
        (directory / "shards" / "1").write_text("weights")
        assert not (tmp_path / "runs" / "model").exists()
        assert directory.parent == tmp_path / "runs"
    assert contents(tmp_path) == {"runs/model/shards/1": b"weights"}
    assert (tmp_path / "runs" / "model").stat().st_mode == (tmp_path / "runs").stat().st_mode


def test_a_staged_directory_replaces_the_former_one_whole(tmp_path: Path) -> None:
    for name in "first", "second":
        with staged(tmp_path / "model") as directory:
            (directory / name).write_text(name)
    assert contents(tmp_path) == {"model/second": b"second"}


def test_a_link_to_a_directory_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "big-disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "big-disk")
    with staged(tmp_path / "model") as directory:
        (directory / "weights").write_text("w")
    assert (tmp_path / "model").is_symlink()
    assert contents(tmp_path / "big-disk") == {"weights": b"w"}


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), DataError("bad"), RunError("full"), ValueError("bug")])
def test_what_fails_in_the_block_is_raised_as_it_is_and_nothing_changes(tmp_path: Path, failure: BaseException) -> None:
    with staged(tmp_path / "model") as directory:
        (directory / "weights").write_text("former")

    def save() -> None:
        with staged(tmp_path / "model") as directory:
            (directory / "weights").write_text("half")
            raise failure

    with pytest.raises(type(failure)) as caught:
        save()
    assert caught.value is failure
    assert contents(tmp_path) == {"model/weights": b"former"}


def test_a_full_disk_in_the_block_is_a_run_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"model: No space left on device; make room"), staged(tmp_path / "model"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert contents(tmp_path) == {}


def test_a_rename_that_fails_puts_the_former_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with staged(tmp_path / "model") as directory:
        (directory / "weights").write_text("former")
    rename = Path.rename

    def no_new_name(self: Path, target: Path) -> Path:
        if self.joinpath("new").exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", no_new_name)
    with pytest.raises(RunError, match="Permission denied"), staged(tmp_path / "model") as directory:
        (directory / "new").write_text("new")
    assert contents(tmp_path) == {"model/weights": b"former"}


def test_files_are_synced_before_the_rename_and_the_parent_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    fsync, rename = staging.sync, Path.rename

    def noted_fsync(path: Path) -> None:
        events.append(f"sync {path.name}")
        fsync(path)

    def noted_rename(self: Path, target: Path) -> Path:
        events.append(f"rename to {target.name}")
        return rename(self, target)

    monkeypatch.setattr(staging, "sync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    with staged(tmp_path / "model") as directory:
        assert events == [f"sync {tmp_path.parent.name}"]
        events.clear()
        (directory / "weights").write_text("w")
        (directory / "config").write_text("c")
    assert sorted(events[:2]) == ["sync config", "sync weights"]
    assert events[2:] == [f"sync {directory.name}", "rename to model", f"sync {tmp_path.name}"]


def test_the_fingerprint_of_three_letters_is_the_standards_own(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(RunError, match="No such file"):
        sha256_of(tmp_path / "none")


# Configurations as TOML.


def test_a_configuration_is_one_line_a_key() -> None:
    config = {"model": "tiny", "lr": 1e-05, "steps": 200, "strict": True, "seed": None, "layers": ["q", "v"]}
    assert to_toml(config) == ('model = "tiny"\nlr = 1e-05\nsteps = 200\nstrict = true\nlayers = ["q", "v"]\n')


_scalars = st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()

_values = _scalars | st.lists(_scalars) | st.dictionaries(st.text(), _scalars)


@given(st.dictionaries(st.text(), _values | st.none()))
def test_a_configuration_survives_toml(config: dict[str, object]) -> None:
    assert tomllib.loads(to_toml(config)) == {key: value for key, value in config.items() if value is not None}


def test_not_a_number_survives_toml() -> None:
    assert math.isnan(tomllib.loads(to_toml({"x": math.nan}))["x"])


def test_a_table_is_written_in_a_line() -> None:
    table = {"a b": 1, 'c"': ["d"], "e": {}}
    assert tomllib.loads(to_toml({"x": table, "y": 2})) == {"x": table, "y": 2}


def test_a_value_that_toml_has_not_is_a_bug() -> None:
    with pytest.raises(TypeError, match="no TOML for"):
        to_toml({"set": {1}})
