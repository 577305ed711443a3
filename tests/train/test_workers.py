"""Two workers make the gradients, the losses and the weights that one makes; real processes, started by torchrun."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kilter.data.checkpoints import Checkpoints
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.train.align import align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft
from train.runs import quiet, run
from train.test_resume import stop_after
from train.test_step import policy_and_reference
from train.two_workers import CUTS, FRESH, RUNS, batch_of, cases, gradient_of, scorers

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "train" / "two_workers.py"


def torchrun(*arguments: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(TESTS), *filter(None, sys.path)])
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def difference(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest error of any tensor, relative to that tensor's norm."""
    assert got.keys() == wanted.keys()
    return max(float((got[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)


@pytest.fixture(scope="module")
def gradients(tiny_model: Callable[..., PreTrainedModel], tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("gradients")
    for name, model in zip(("policy", "reference"), policy_and_reference(tiny_model, spread=0.3), strict=True):
        model.save_pretrained(directory / name)
    done = torchrun(SCRIPT, "gradients", directory)
    assert done.returncode == 0, done.stderr[-4000:]
    return directory


@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize(("name", "cut"), cases())
def test_two_workers_have_the_gradient_of_one(name: str, cut: str, sharded: bool, gradients: Path) -> None:
    """In float64, but for the edges' weights and their sums; those are small whole numbers here."""
    policy, reference = scorers(gradients)
    wanted, loss = gradient_of(policy, reference, name, batch_of(name, *CUTS[cut]))
    facts = json.loads((gradients / "facts.json").read_text())[f"{name} {cut} {sharded}"]
    assert facts["loss"] == pytest.approx(loss, rel=1e-12)
    assert difference(load_file(gradients / f"{name} {cut} {sharded}.safetensors"), wanted) <= 1e-12
    match cut:
        case "whole":
            assert facts["filled"] == [1, 1]
        case "one row":
            assert facts["filled"] == [1, 0]
        case _:
            assert facts["all"] == max(facts["filled"]) > 1


def test_some_batches_gave_workers_unequal_numbers_of_micro_batches(gradients: Path) -> None:
    facts = json.loads((gradients / "facts.json").read_text())
    assert any(0 < min(fact["filled"]) < max(fact["filled"]) for fact in facts.values() if "filled" in fact)


def test_a_sharded_update_is_that_of_one_worker_in_half_the_memory(gradients: Path) -> None:
    facts = json.loads((gradients / "facts.json").read_text())
    replicated, sharded = (facts[f"updated {shard}"] for shard in (False, True))
    assert sharded["norm"] == pytest.approx(replicated["norm"], rel=1e-12)
    assert sharded["bytes"] == pytest.approx(replicated["bytes"] / 2, rel=0.02)
    weights = [load_file(gradients / f"updated {shard}.safetensors") for shard in (False, True)]
    assert difference(*weights) <= 1e-12
    assert facts["restored True"]["loss"] == pytest.approx(facts["restored False"]["loss"], rel=1e-12)


@pytest.fixture(scope="module")
def runs(start: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, directory / "one to two")
    given: dict[str, Any] = {"model": start, "data": pairs_file, "holdout": 16, "learning_rate": 1e-3}
    given |= {"batch_size": 8, "max_steps": 6, "save_every": "3", "device": "cpu"}
    (directory / "settings.json").write_text(json.dumps(given, default=str))
    done = torchrun(SCRIPT, "runs", directory)
    assert done.returncode == 0, done.stderr[-4000:]
    return directory


def assert_same_but_for_rounding(directory: Path, whole: Path, *, weights: float = 1e-5, loss: float = 1e-6) -> None:
    ours, theirs = (RunDirectory(path).read_metrics() for path in (directory, whole))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, wanted in zip(ours, theirs, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=loss)
        for name in ("grad_norm", "accuracy", "sample_log_prob", "sample_answer_kl"):
            assert row.get(name) == pytest.approx(wanted.get(name), rel=100 * loss, abs=loss)
    moved, wanted = (
        {k: v for file in sorted((path / "model").glob("*.safetensors")) for k, v in load_file(file).items()}
        for path in (directory, whole)
    )
    assert difference(moved, wanted) <= weights


@pytest.fixture(scope="module")
def one(start: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that two workers make under the name of "replicated", by one."""
    return run("dpo", start, pairs_file, tmp_path_factory.mktemp("one") / "run").model.parent


@pytest.mark.parametrize("name", RUNS)
def test_a_run_by_two_workers_is_that_of_one(
    name: str, runs: Path, start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    settings = {key: value for key, value in RUNS[name].items() if key != "shard"}
    done = run(start=start, pairs=pairs_file, out=tmp_path / "one", **settings)
    rounding = {"weights": 2e-2, "loss": 1e-2} if name == "bfloat16" else {}
    assert_same_but_for_rounding(runs / name, done.model.parent, **rounding)


def test_fine_tuning_from_scratch_by_two_workers_is_that_of_one(runs: Path, pairs_file: Path, tmp_path: Path) -> None:
    sft(SftConfig(**FRESH, data=pairs_file, out=tmp_path / "one"), quiet())
    assert_same_but_for_rounding(runs / "fresh", tmp_path / "one")


def test_a_run_begun_by_one_worker_goes_on_with_two(runs: Path, one: Path) -> None:
    assert_same_but_for_rounding(runs / "one to two", one)


def test_a_run_begun_by_two_workers_goes_on_with_one(runs: Path, one: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "sharded", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    assert [c.step for c in Checkpoints(tmp_path / "cut" / "checkpoints")] == [3]
    align(AlignConfig.model_validate({"resume": tmp_path / "cut", "shard": False}), quiet())
    assert_same_but_for_rounding(tmp_path / "cut", one)


def test_the_command_line_is_run_by_two_workers_and_the_first_one_speaks(
    start: Path, pairs_file: Path, one: Path, tmp_path: Path
) -> None:
    flags = {"model": start, "data": pairs_file, "out": tmp_path / "run", "holdout": 16, "learning-rate": "1e-3"}
    flags |= {"batch-size": 8, "max-steps": 6, "device": "cpu"}
    done = torchrun("-m", "kilter", "align", *(word for flag, value in flags.items() for word in (f"--{flag}", value)))
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("training 6/6") == 1
    assert_same_but_for_rounding(tmp_path / "run", one)
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(path.name for path in one.iterdir())
    assert RunDirectory(tmp_path / "run").read_manifest()["workers"] == 2
    again = torchrun("-m", "kilter", "align", "--resume", tmp_path / "run")
    assert again.returncode != 0
    assert "is finished, and its result is in" in again.stderr


def test_sharding_needs_several_workers(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shard splits weights over workers, and there is one"):
        run("dpo", start, pairs_file, tmp_path / "run", shard=True)


def test_each_worker_needs_an_example_of_each_batch(
    start: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="a batch has 2 examples for 4 workers; use --batch-size 4 or more"):
        run("dpo", start, pairs_file, tmp_path / "run", batch_size=2)
