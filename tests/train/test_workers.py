"""Two workers make the gradients, the losses and the weights that one makes; real processes, started by torchrun."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError, StoppedError
from kilter.train.align import align
from kilter.train.config import AlignConfig
from train.runs import quiet, run
from train.test_resume import stop_after
from train.test_step import policy_and_reference
from train.two_workers import CUTS, RUNS, batch_of, cases, gradient_of, scorers

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
        assert row.get("nodes") == wanted.get("nodes")
    moved, wanted = (load_file(path / "model" / "model.safetensors") for path in (directory, whole))
    assert difference(moved, wanted) <= weights


@pytest.mark.parametrize("name", RUNS)
def test_a_run_by_two_workers_is_that_of_one(
    name: str, runs: Path, start: Path, pairs_file: Path, tmp_path: Path
) -> None:
    settings = {key: value for key, value in RUNS[name].items() if key != "shard"}
    done = run(start=start, pairs=pairs_file, out=tmp_path / "one", **settings)
    assert_same_but_for_rounding(runs / name, done.model.parent)
