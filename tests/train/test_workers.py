"""Two workers make the gradients, the losses and the weights that one makes; real processes, started by torchrun."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kilter import commands
from kilter.data.checkpoints import Checkpoints
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.train.align import align
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.sft import sft
from kilter.train.weights import load_policy
from train.runs import quiet, run
from train.test_resume import stop_after
from train.test_step import policy_and_reference
from train.two_workers import CUTS, FRESH, RUNS, batch_of, cases, gradient_of, scorers

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "train" / "two_workers.py"


def launched(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, sys.path)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def torchrun(*arguments: object) -> tuple[int, str]:
    """Exit status and what was printed."""
    process = launched(*arguments)
    try:
        printed = process.communicate(timeout=600)[0]
    except subprocess.TimeoutExpired:
        process.terminate()
        raise
    return process.returncode, printed


def flags(**settings: object) -> list[object]:
    return [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", value)]


def difference(got: dict[str, Tensor], wanted: dict[str, Tensor]) -> float:
    """The largest error of any tensor, relative to that tensor's norm."""
    assert got.keys() == wanted.keys()
    return max(float((got[name] - wanted[name]).norm() / wanted[name].norm()) for name in wanted)


@pytest.fixture(scope="module")
def made(
    tiny_model: Callable[..., PreTrainedModel], start: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Where two workers left what two_workers.py does; imports take the longest, so it is one launch."""
    directory = tmp_path_factory.mktemp("two")
    for name, model in zip(("policy", "reference"), policy_and_reference(tiny_model, spread=0.3), strict=True):
        model.save_pretrained(directory / name)
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        with pytest.raises(StoppedError):
            run("dpo", start, pairs_file, directory / "one to two")
    given: dict[str, Any] = {"model": start, "data": pairs_file, "holdout": 16, "learning_rate": 1e-3}
    given |= {"batch_size": 8, "max_steps": 6, "save_every": "3", "device": "cpu"}
    (directory / "settings.json").write_text(json.dumps(given, default=str))
    status, printed = torchrun(SCRIPT, directory)
    assert status == 0, printed[-4000:]
    return directory


@pytest.mark.parametrize("sharded", [False, True], ids=["replicated", "sharded"])
@pytest.mark.parametrize(("name", "cut"), cases())
def test_two_workers_have_the_gradient_of_one(name: str, cut: str, sharded: bool, made: Path) -> None:
    """In float64, but for the edges' weights and their sums; those are small whole numbers here."""
    policy, reference = scorers(made)
    wanted, loss = gradient_of(policy, reference, name, batch_of(name, *CUTS[cut]))
    facts = json.loads((made / "facts.json").read_text())[f"{name} {cut} {sharded}"]
    assert facts["loss"] == pytest.approx(loss, rel=1e-12)
    assert difference(load_file(made / f"{name} {cut} {sharded}.safetensors"), wanted) <= 1e-12
    match cut:
        case "whole":
            assert facts["filled"] == [1, 1]
        case "one row":
            assert facts["filled"] == [1, 0]
        case _:
            assert facts["all"] == max(facts["filled"]) > 1


def test_some_batches_gave_workers_unequal_numbers_of_micro_batches(made: Path) -> None:
    facts = json.loads((made / "facts.json").read_text())
    assert any(0 < min(fact["filled"]) < max(fact["filled"]) for fact in facts.values() if "filled" in fact)


def test_a_sharded_update_is_that_of_one_worker_in_half_the_memory(made: Path) -> None:
    facts = json.loads((made / "facts.json").read_text())
    replicated, sharded = (facts[f"updated {shard}"] for shard in (False, True))
    assert sharded["norm"] == pytest.approx(replicated["norm"], rel=1e-12)
    assert sharded["bytes"] == pytest.approx(replicated["bytes"] / 2, rel=0.02)
    weights = [load_file(made / f"updated {shard}.safetensors") for shard in (False, True)]
    assert difference(*weights) <= 1e-12
    assert facts["restored True"]["loss"] == pytest.approx(facts["restored False"]["loss"], rel=1e-12)


def weights(run: Path) -> dict[str, Tensor]:
    return {name: tensor for file in (run / "model").glob("*.safetensors") for name, tensor in load_file(file).items()}


def assert_same_but_for_rounding(directory: Path, whole: Path, *, weight: float = 1e-5, loss: float = 1e-6) -> None:
    ours, theirs = (RunDirectory(path).read_metrics() for path in (directory, whole))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    for row, wanted in zip(ours, theirs, strict=True):
        assert row.get("loss", 0.0) == pytest.approx(wanted.get("loss", 0.0), rel=loss)
        for name in ("grad_norm", "accuracy", "sample_log_prob", "answer_kl_policy_reference"):
            assert row.get(name, 0.0) == pytest.approx(wanted.get(name, 0.0), rel=100 * loss, abs=100 * loss)
    assert difference(weights(directory), weights(whole)) <= weight


@pytest.fixture(scope="module")
def one(start: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that two workers make under the name of "replicated", by one."""
    return run("dpo", start, pairs_file, tmp_path_factory.mktemp("one") / "run").model.parent


@pytest.mark.parametrize("name", RUNS)
def test_a_run_by_two_workers_is_that_of_one(
    name: str, made: Path, start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    settings = {key: value for key, value in RUNS[name].items() if key != "shard"}
    done = run(start=start, pairs=pairs_file, out=tmp_path / "one", **settings)
    rounding = {"weight": 2e-2, "loss": 1e-2} if name == "bfloat16" else {}
    assert_same_but_for_rounding(made / name, done.model.parent, **rounding)


def test_fine_tuning_from_scratch_by_two_workers_is_that_of_one(made: Path, pairs_file: Path, tmp_path: Path) -> None:
    sft(SftConfig(**FRESH, data=pairs_file, out=tmp_path / "one"), quiet())
    assert_same_but_for_rounding(made / "fresh", tmp_path / "one")


def test_two_workers_that_go_on_make_the_same_bits(made: Path) -> None:
    """Also with dropout, which each draws from a stream of its own."""
    ours, theirs = weights(made / "dropout again"), weights(made / "dropout")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_begun_by_one_worker_goes_on_with_two(made: Path, one: Path) -> None:
    assert_same_but_for_rounding(made / "one to two", one)


def test_a_run_begun_by_two_workers_goes_on_with_one(made: Path, one: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "sharded", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "model")
    assert [c.step for c in Checkpoints(tmp_path / "cut" / "checkpoints")] == [3]
    align(AlignConfig.model_validate({"resume": tmp_path / "cut", "shard": False}), quiet())
    assert_same_but_for_rounding(tmp_path / "cut", one)


def begun(start: Path, pairs_file: Path, out: Path) -> subprocess.Popen[str]:
    """`kilter align` by two workers, in the midst of a run that is too long to wait for."""
    given = {"model": start, "data": pairs_file, "holdout": 16, "batch_size": 8, "device": "cpu", "out": out}
    process = launched("-m", "kilter", "align", *flags(**given, max_steps=100_000))
    metrics = out / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < 5):
        time.sleep(0.05)
    return process


def test_a_signal_stops_all_workers_after_the_same_step_and_the_first_one_speaks(
    start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    process = begun(start, pairs_file, tmp_path / "run")
    process.terminate()
    printed = process.communicate(timeout=60)[0]
    (found,) = re.findall(r"stopped after step (\d+) of 100000", printed)
    assert printed.count("training 1/100000") == 1
    (checkpoint,) = Checkpoints(tmp_path / "run" / "checkpoints")
    assert checkpoint.step == int(found)
    assert [row["step"] for row in RunDirectory(tmp_path / "run").read_metrics()] == list(range(checkpoint.step + 1))
    assert RunDirectory(tmp_path / "run").read_manifest()["workers"] == 2


def test_a_worker_that_dies_does_not_leave_the_other_waiting(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    process = begun(start, pairs_file, tmp_path / "run")
    psutil.Process(process.pid).children()[1].kill()
    printed = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert "Signal 9 (SIGKILL)" in printed


@pytest.mark.slow
def test_the_guide_to_scale_runs_as_it_is_printed(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    guide = (TESTS.parent / "docs" / "guides" / "scale.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^torchrun --standalone --nproc-per-node 2 (.*)$", guide, flags=re.MULTILINE)
    shutil.copytree(start, tmp_path / "runs" / "sft" / "model")
    shutil.copy(pairs_file, tmp_path / "pairs.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        status, printed = torchrun(*line.split(), "--device", "cpu")
    assert status == 0, printed[-4000:]
    assert (tmp_path / "runs" / "dpo" / "model" / "model.safetensors").is_file()


def test_sharding_needs_several_workers(start: Path, pairs_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--shard splits weights over workers, and there is one"):
        run("dpo", start, pairs_file, tmp_path / "run", shard=True)


def test_what_does_not_train_runs_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="kilter demo runs in one process; start it without torchrun"):
        commands.demo()


def test_sharding_is_refused_where_workers_would_not_run_alike(
    tiny_model: Callable[..., PreTrainedModel], start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    given = {"data": pairs_file, "out": tmp_path / "run", "shard": True}
    with pytest.raises(ConfigError, match="an adapter has few; leave it out"):
        load_policy(str(start), AlignConfig(model=str(start), lora_rank=2, **given), None)
    tiny_model("mamba").save_pretrained(tmp_path / "mamba")
    with pytest.raises(ConfigError, match="is scored one sequence at a time"):
        load_policy(str(tmp_path / "mamba"), AlignConfig(model=str(tmp_path / "mamba"), **given), None)


def test_each_worker_needs_an_example_of_each_batch(
    start: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="a batch has 2 examples for 4 workers; use --batch-size 4 or more"):
        run("dpo", start, pairs_file, tmp_path / "run", batch_size=2)
