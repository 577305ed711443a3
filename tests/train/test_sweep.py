"""Claims about `kilter sweep`: its runs are those of `kilter align`, made once, gone on with, told side by side."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import torch

from kilter.data.run_directory import RunDirectory
from kilter.data.sweep_directory import SweepDirectory
from kilter.errors import ConfigError, RunError, StoppedError
from kilter.train import sweep as sweeping
from kilter.train.grid import SweepConfig
from kilter.train.sweep import Swept, sweep
from kilter.train.sweep_account import Exact, Row, SweepAccount, result_row
from train.processes import kilter
from train.runs import assert_same_run, quiet, run, weights

SETTINGS: dict[str, Any] = {"holdout": 16, "learning_rate": 1e-3, "batch_size": 8, "max_steps": 3}


def grid(start: Path, pairs: Path, out: Path, **settings: Any) -> SweepConfig:
    return SweepConfig(model=str(start), data=pairs, out=out, **SETTINGS | settings)


def four(start: Path, pairs: Path, out: Path, **settings: Any) -> SweepConfig:
    return grid(start, pairs, out, **{"beta": "0.1,0.3", "objective": "dpo,ipo"} | settings)


NAMES = ("dpo_beta=0.1", "dpo_beta=0.3", "ipo_beta=0.1", "ipo_beta=0.3")


def rows_of(out: Path) -> list[dict[str, str]]:
    with (out / "frontier.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def swept(start: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Swept:
    return sweep(four(start, pairs_file, tmp_path_factory.mktemp("sweeps") / "whole"), quiet())


def test_each_run_is_to_the_last_bit_that_of_kilter_align(swept, start, pairs_file, tmp_path):
    assert swept.complete
    run("ipo", start, pairs_file, tmp_path / "alone", beta=0.3, max_steps=3)
    assert_same_run(swept.out / "ipo_beta=0.3", tmp_path / "alone")


def test_the_table_holds_what_the_runs_own_evaluations_say(swept):
    rows = rows_of(swept.out)
    assert [(row["objective"], row["beta"], row["state"]) for row in rows] == [
        ("dpo", "0.1", "finished"), ("dpo", "0.3", "finished"), ("ipo", "0.1", "finished"), ("ipo", "0.3", "finished"),
    ]  # fmt: skip
    for row, name in zip(rows, NAMES, strict=True):
        last = [found for found in RunDirectory(swept.out / name).read_metrics() if found.get("split") == "eval"][-1]
        assert last["step"] == 3
        for key in ("accuracy", "accuracy_low", "gap", "kl_policy_reference_along_chosen"):
            assert float(row[key]) == last[key]
    table = (swept.out / "frontier.md").read_text()
    assert "| run | accuracy | gap, nats | token KL along chosen | best | time |" in table
    assert "token KL(policy, reference) along held-out chosen answers, nats a token" in table
    assert "answer KL" not in table


def test_the_picture_has_a_dot_for_each_run(swept):
    root = ET.fromstring((swept.out / "frontier.svg").read_text())
    words = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("0.1") >= 2
    assert {"dpo", "ipo", "numbers: beta"} <= set(words)


def test_finished_runs_are_not_run_again(swept, monkeypatch):
    before = (swept.out / "frontier.csv").read_text()
    monkeypatch.setattr(sweeping, "align", None)
    assert sweep(SweepConfig(resume=swept.out), quiet()).complete
    assert (swept.out / "frontier.csv").read_text() == before


def test_the_data_is_read_once_for_all_runs(start, pairs_file, tmp_path, monkeypatch):
    read, real = [], sweeping.read_rows
    monkeypatch.setattr(
        sweeping, "read_rows", lambda *given, **settings: read.append(given) or real(*given, **settings)
    )
    sweep(four(start, pairs_file, tmp_path / "sweep", max_steps=1), quiet())
    assert len(read) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_sweep_that_is_stopped_says_how_to_go_on_and_ends_as_one_that_never_was(
    number, swept, start, pairs_file, tmp_path, monkeypatch
):
    rows, real = [], RunDirectory.append_metrics

    def asked_to_stop(self, row):
        real(self, row)
        rows.append(row)
        if len(rows) == 8:  # an evaluation, three steps and an evaluation of the first run; two steps of the second
            os.kill(os.getpid(), number)

    monkeypatch.setattr(RunDirectory, "append_metrics", asked_to_stop)
    out = tmp_path / "sweep"
    with pytest.raises(StoppedError, match=rf"1 of 4 runs finished\ngo on with: kilter sweep --resume {out}$") as told:
        sweep(four(start, pairs_file, out), quiet())
    assert told.value.signal == number
    assert not (out / "frontier.md").exists()
    assert [record["state"] for record in SweepDirectory(out).read()["runs"].values()] == [
        "finished", "stopped", "waiting", "waiting",
    ]  # fmt: skip
    monkeypatch.undo()
    assert sweep(SweepConfig(resume=out), quiet()).complete
    for name in NAMES:
        assert_same_run(out / name, swept.out / name)


def test_a_sweep_that_is_killed_goes_on_where_it_was(swept, start, pairs_file, tmp_path):
    out = tmp_path / "sweep"
    flags = {"model": start, "data": pairs_file, **SETTINGS, "beta": "0.1,0.3", "objective": "dpo,ipo", "save_every": 1}
    command = ["sweep", "--resume", str(out)]
    command += [word for name, value in flags.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    process = kilter(command, tmp_path / "said")
    while process.exitcode is None and not (out / NAMES[1] / "checkpoints").is_dir():
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, (tmp_path / "said").read_text()
    first = (out / NAMES[0] / "model").stat().st_mtime_ns
    process = kilter(command, tmp_path / "said")
    process.join()
    said = (tmp_path / "said").read_text()
    assert process.exitcode == 0, said
    assert "1 of 4 runs are finished, and not run again" in said
    assert (out / NAMES[0] / "model").stat().st_mtime_ns == first
    for name in NAMES:
        assert_same_run(out / name, swept.out / name)


def test_a_run_that_fails_is_told_and_the_others_are_made(start, pairs_file, tmp_path):
    out = tmp_path / "sweep"
    found = sweep(grid(start, pairs_file, out, learning_rate="1e30,1e-3"), console := quiet())
    assert not found.complete
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "learning_rate 1e+30: failed: step " in said
    assert [row["state"] for row in rows_of(out)] == ["failed", "finished"]
    assert "\n| learning_rate 1e+30 | failed | - | - |  | " in (out / "frontier.md").read_text()
    flags = ["sweep", "--resume", str(out)]
    process = kilter(flags, tmp_path / "said")
    process.join()
    assert process.exitcode == 1
    assert "Traceback" not in (tmp_path / "said").read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"objective": "dpo,orpo", "beta": "0.1,0.3"},
            r"^orpo, beta 0.1: objective 'orpo' does not use beta .*write it",
        ),
        ({"objective": "dpo,simp"}, "^simp: there is no objective 'simp'"),
        ({"objective": "dpo,sft"}, "^sft: objective 'sft' learns from demonstrations"),
        ({"beta": "0.1,-1"}, "^beta -1: beta of dpo is -1"),
        ({"objective": "dpo,dpo(beta=0.1)"}, r"^dpo\(beta=0.1\) is the same run as dpo: both minimise dpo"),
        ({"objective": "dpo(beta=1),ipo", "beta": "0.1,0.3"}, r"^dpo\(beta=1\), beta 0.3 is the same run as "),
        ({"objective": "dpo,margin_dpo"}, "^margin_dpo: objective 'margin_dpo' needs to know by how much"),
        ({"objective": "simpo,dpo", "reference": "none"}, "^dpo: objective 'dpo' needs a reference"),
        ({"batch_size": "1,2", "objective": "beta_dpo"}, "^batch_size 1: objective 'beta_dpo' compares examples"),
    ],
)
def test_a_combination_that_cannot_be_run_is_named_before_anything_is_run(settings, told, start, pairs_file, tmp_path):
    with pytest.raises(ConfigError, match=told):
        sweep(grid(start, pairs_file, tmp_path / "sweep", **settings), quiet())
    assert not list(tmp_path.rglob("manifest.json"))


def test_a_model_that_is_not_there_ends_the_sweep(pairs_file, tmp_path):
    with pytest.raises(Exception, match="does not exist; give a directory") as told:
        sweep(four(tmp_path / "none", pairs_file, tmp_path / "sweep"), quiet())
    assert type(told.value).__name__ == "ModelError"


def test_a_sweep_is_gone_on_with_by_more_values_of_what_varies(start, pairs_file, tmp_path):
    out = tmp_path / "sweep"
    sweep(grid(start, pairs_file, out, seed="0,1", max_steps=1), quiet())
    before = (out / "seed=0" / "model").stat().st_mtime_ns
    more = sweep(SweepConfig(resume=out, seed="1,2"), quiet())  # 1 is there already
    assert [str(row) for row in more.account.rows] == ["seed 0", "seed 1", "seed 2"]
    assert more.complete
    assert (out / "seed=0" / "model").stat().st_mtime_ns == before
    with pytest.raises(ConfigError, match="varies seed, and now beta, seed would vary"):
        sweep(SweepConfig(resume=out, beta="0.1,0.3"), quiet())
    with pytest.raises(ConfigError, match="seed=0 cannot be gone on with: max_prompt was None and now is 9"):
        sweep(SweepConfig(resume=out, max_prompt=9), quiet())
    other = tmp_path / "other.jsonl"
    other.write_text(pairs_file.read_text().replace("warm", "mild"))
    with pytest.raises(ConfigError, match="the SHA-256 of the data was"):
        sweep(SweepConfig(resume=out, data=other), quiet())


def test_a_directory_in_use_is_refused_and_only_a_sweep_is_replaced(start, pairs_file, tmp_path):
    out = tmp_path / "sweep"
    sweep(grid(start, pairs_file, out, seed="0,1", max_steps=1), quiet())
    with pytest.raises(RunError, match=f"is not empty; choose another --out, go on with it by --resume {out}"):
        sweep(grid(start, pairs_file, out, seed="0,1"), quiet())
    (out / "notes.txt").touch()
    with pytest.raises(RunError, match=r"holds 'notes.txt', which the sweep did not write"):
        sweep(grid(start, pairs_file, out, seed="2,3", overwrite=True), quiet())
    (out / "notes.txt").unlink()
    sweep(grid(start, pairs_file, out, seed="2,3", max_steps=1, overwrite=True), quiet())
    assert sorted(entry.name for entry in out.iterdir() if entry.is_dir()) == ["seed=2", "seed=3"]


def test_sampled_answers_are_the_frontiers_kl_where_all_runs_have_them(start, pairs_file, tmp_path):
    found = sweep(
        grid(start, pairs_file, tmp_path / "sweep", seed="0,1", max_steps=1, sample_eval=4, sample_tokens=4), quiet()
    )
    assert found.account.axes is not None
    assert found.account.axes[0].key == "answer_kl_policy_reference"
    assert "answer KL(policy, reference) of sampled answers" in (found.out / "frontier.svg").read_text()


def counts_of(out: Path, *keys: str) -> list[list[int]]:
    return [[int(row[f"reference_{key}"]) for key in keys] for row in rows_of(out)]


def test_the_reference_is_run_on_training_rows_by_the_first_run_alone(start, pairs_file, tmp_path):
    out, settings = tmp_path / "sweep", {"cache_dir": tmp_path / "cache", "seed": "0,1", "max_steps": 6}
    sweep(grid(start, pairs_file, out, objective="dpo,ipo", **settings), quiet())
    first, *others = counts_of(out, "hits", "misses", "computed")
    # Six steps of eight are all 48 pairs, whatever their order.
    assert first[0] == 0
    assert first[1] > 0
    assert first[2] > 0
    assert others == [[first[1], 0, 0]] * 3
    assert "| dpo, seed 1 | " in (out / "frontier.md").read_text().split("Tokens of the reference's scores")[1]


def test_with_hidden_states_kept_the_reference_is_not_run_again_at_all(start, pairs_file, tmp_path):
    out = tmp_path / "sweep"
    sweep(grid(start, pairs_file, out, seed="0,1", max_steps=6, cache="hidden", cache_dir=tmp_path / "cache"), quiet())
    first, second = counts_of(out, "misses", "computed", "computed_unkept")
    assert first[0] > 0
    assert second == [0, 0, 0]


def test_a_run_without_a_reference_in_its_loss_is_measured_against_the_start_and_is_the_same_run(
    start, pairs_file, tmp_path
):
    out = tmp_path / "sweep"
    found = sweep(grid(start, pairs_file, out, objective="simpo,orpo", cache_dir=tmp_path / "cache"), quiet())
    assert [row.has_kl for row in found.account.rows] == [True, True]
    run("simpo", start, pairs_file, tmp_path / "alone", max_steps=3)
    ours, theirs = weights(out / "simpo" / "model"), weights(tmp_path / "alone" / "model")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    before, after = (row for row in RunDirectory(out / "simpo").read_metrics() if row.get("split") == "eval")
    assert before["kl_policy_reference_along_chosen"] == 0
    assert after["kl_policy_reference_along_chosen"] > 0


def record(**of: Any) -> dict[str, Any]:
    return {"state": "finished", "seconds": 3.0} | of


class OfKnownReward:
    start_reward = 1.0
    limit = ((0.0, 1.0), (2.0, 3.0))

    def __call__(self, model: Path) -> Exact:
        raise AssertionError(model)


def test_the_share_of_the_gain_is_of_the_most_at_the_same_kl() -> None:
    row = Row({"beta": 0.1}, record(exact={"reward": 2.0, "kl": 2.0, "most": 3.0}), {"accuracy": 0.7})
    _, start, cells = SweepAccount([row], OfKnownReward()).exact_table()
    assert start == ["the start", "+1.000", "0.000", "+1.000", ""]
    assert cells == ["beta 0.1", "+2.000", "2.000", "+3.000", "50.0%"]


def test_a_run_without_a_reference_is_in_the_table_and_not_on_the_frontier() -> None:
    kl = "kl_policy_reference_along_chosen"
    rows = [
        Row({"objective": "dpo"}, record(), {"accuracy": 0.7, "accuracy_low": 0.6, "accuracy_high": 0.8, kl: 0.1}),
        Row({"objective": "simpo"}, record(), {"accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0}),
    ]
    account = SweepAccount(rows)
    assert account.best == {"dpo"}
    assert account.table()[1:] == [
        ["dpo", "0.700 (0.60, 0.80)", "-", "0.1", "*", "3 s"],
        ["simpo", "no reference", "-", "-", "", "3 s"],
    ]
    assert any("without a reference" in note for note in account.notes())


def test_the_row_of_a_result_is_the_last_evaluation_or_the_best_where_that_is_kept(tmp_path) -> None:
    with RunDirectory.create(tmp_path / "run") as there:
        for step, loss in ((0, 0.7), (2, 0.5), (4, 0.6)):
            there.append_metrics({"step": step, "split": "eval", "loss": loss})
            there.append_metrics({"step": step + 1, "loss": 0.0})
    assert result_row(there, keeps_best=False)["step"] == 4
    assert result_row(there, keeps_best=True)["step"] == 2


def test_sweep_json_says_what_was_asked_for_and_what_became_of_it(swept) -> None:
    state = json.loads((swept.out / "sweep.json").read_text())
    assert state["settings"]["beta"] == [0.1, 0.3]
    assert state["varies"] == ["objective", "beta"]
    assert list(state["runs"]) == list(NAMES)
    assert {name: state["runs"][NAMES[1]][name] for name in ("varied", "state")} == {
        "varied": {"objective": "dpo", "beta": 0.3}, "state": "finished",
    }  # fmt: skip
