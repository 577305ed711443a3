"""Runs of the real command line that are killed, or refused the disk, and taken up until they end.

The result is, to the last bit, that of a run that nothing ever happened to.
"""

from __future__ import annotations

import errno
import itertools
import random
import re
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from kilter.data.checkpoints import Checkpoints, fault_of
from kilter.data.run_directory import RunDirectory
from kilter.model.loading import load_tokenizer
from kilter.train.writing import system_errors
from train.processes import Around, counting_operations, full_disk, killed_at_operation, kilter
from train.runs import assert_same_run, write_pairs


def arguments(start: Path, pairs: Path, out: Path, **changes: object) -> list[str]:
    """Of one command that begins a run, or goes on with it."""
    settings = {
        "model": start, "data": pairs, "resume": out, "holdout": 16, "learning_rate": 1e-2, "batch_size": 8,
        "schedule": "constant", "max_steps": 60, "save_every": 3, "keep": 1, "eval_every": 4,
        "gradient_noise": 1e-3,
    }  # fmt: skip
    flags = ([f"--{name.replace('_', '-')}", str(value)] for name, value in (settings | changes).items())
    return ["align", "--keep-best", *itertools.chain(*flags)]


def finish(command: list[str], said: Path, around: Around = nullcontext) -> float:
    """Run to the end; returns the seconds it took."""
    begin = time.monotonic()
    process = kilter(command, said, around)
    process.join()
    assert process.exitcode == 0, said.read_text()
    return time.monotonic() - begin


def assert_all_whole(out: Path) -> None:
    for checkpoint in Checkpoints(out / "checkpoints"):
        assert fault_of(checkpoint) is None


def kill_again_and_again(kills: int, steps: int, start: Path, tmp_path: Path) -> None:
    """As many kills at random moments, over as many runs as that takes; the best model is the first."""
    pairs = write_pairs(tmp_path / "pairs.jsonl", contrary=16)
    command = arguments(start, pairs, out := tmp_path / "whole", max_steps=steps)
    finish(command, tmp_path / "said")
    out.rename(tmp_path / "first")
    length = finish(command, tmp_path / "said")
    assert_same_run(tmp_path / "first", tmp_path / "whole")
    losses = {row["step"]: row["loss"] for row in RunDirectory(out).read_metrics() if row.get("split") == "eval"}
    assert min(losses, key=losses.get) == 0
    draw, killed, runs = random.Random(0), 0, 0
    while killed < kills:
        out = tmp_path / f"run-{runs}"
        command = arguments(start, pairs, out, max_steps=steps)
        runs += 1
        while not (out / "model").is_dir() and killed < kills:
            process = kilter(command, tmp_path / "said")
            process.join(draw.uniform(0, length))
            process.kill()
            process.join()
            assert process.exitcode in (0, -signal.SIGKILL), (tmp_path / "said").read_text()
            killed += process.exitcode != 0
            assert_all_whole(out)
        if not (out / "model").is_dir():
            finish(command, tmp_path / "said")
        assert_same_run(out, tmp_path / "whole")


def test_a_run_killed_at_five_random_moments_ends_bit_identical(start, tmp_path):
    kill_again_and_again(5, 12, start, tmp_path)


@pytest.mark.slow
def test_a_run_of_sixty_steps_killed_at_fifty_random_moments_ends_bit_identical(start, tmp_path):
    kill_again_and_again(50, 60, start, tmp_path)


SHORT = {"max_steps": 4, "save_every": 1, "eval_every": 2}


@pytest.fixture(scope="module")
def short(start, pairs_file, tmp_path_factory) -> Path:
    """A run of four steps, and how many operations on files it takes."""
    place = tmp_path_factory.mktemp("short")
    command = arguments(start, pairs_file, place / "whole", **SHORT)
    finish(command, place / "said", counting_operations(place / "whole", place / "count"))
    return place


def kill_at(number: int, short: Path, start: Path, pairs: Path, out: Path) -> None:
    command = arguments(start, pairs, out, **SHORT)
    process = kilter(command, out.parent / "said", killed_at_operation(out, number))
    process.join()
    assert process.exitcode == -signal.SIGKILL, (out.parent / "said").read_text()
    assert_all_whole(out)
    if not (out / "model").is_dir():
        finish(command, out.parent / "said")
    assert_same_run(out, short / "whole")
    assert not [entry for entry in out.rglob("*") if entry.name.endswith(".staging")]


def test_a_run_killed_at_an_operation_on_files_ends_bit_identical(short, start, pairs_file, tmp_path):
    operations = int((short / "count").read_text())
    assert operations > 100
    for number in random.Random(1).sample(range(operations), 4):
        kill_at(number, short, start, pairs_file, tmp_path / str(number))


@pytest.mark.slow
def test_a_run_killed_at_every_operation_on_files_ends_bit_identical(short, start, pairs_file, tmp_path):
    for number in range(int((short / "count").read_text())):
        kill_at(number, short, start, pairs_file, tmp_path / str(number))


FULL = pytest.mark.parametrize(
    ("at", "size", "last"),
    [
        ("the second checkpoint", 2_000, 1),  # at the beginning of model.safetensors
        ("the second checkpoint", 50_000, 1),  # in the middle of model.safetensors
        ("the second checkpoint", 200_000, 1),  # in training.safetensors
        ("the model", 50_000, 4),
    ],
)


@FULL
def test_a_full_disk_is_told_in_a_line_and_the_run_goes_on_later(at, size, last, short, start, pairs_file, tmp_path):
    out = tmp_path / "run"
    command = arguments(start, pairs_file, out, **SHORT)
    process = kilter(command, tmp_path / "said", full_disk(size, at=at))
    process.join()
    *_, line = (tmp_path / "said").read_text().splitlines()
    assert process.exitcode == 1
    what = f"the model in {out}/model" if at == "the model" else f"the checkpoint of step 2 in {out}/checkpoints"
    assert re.fullmatch(
        rf"error: cannot save {what}: File too large; it takes \d+\.\d kB, and there is [\d.]+ [kMGT]B free; "
        rf"step-00000{last} is whole; make room or mend the disk, and take the run up again with --resume",
        line,
    )
    assert_all_whole(out)
    assert not [entry for entry in out.rglob("*") if entry.name.endswith(".staging")]
    finish(command, tmp_path / "said")
    assert_same_run(out, short / "whole")


@FULL
def test_a_run_killed_in_the_middle_of_a_librarys_write_ends_bit_identical(
    at, size, last, short, start, pairs_file, tmp_path
):
    out = tmp_path / "run"
    command = arguments(start, pairs_file, out, **SHORT)
    process = kilter(command, tmp_path / "said", full_disk(size, at=at, deadly=True))
    process.join()
    assert process.exitcode == -signal.SIGXFSZ
    assert_all_whole(out)
    assert max(c.step for c in Checkpoints(out / "checkpoints")) == last
    finish(command, tmp_path / "said")
    assert_same_run(out, short / "whole")
    assert not [entry for entry in out.rglob("*") if entry.name.endswith(".staging")]


@contextmanager
def small_files(size: int) -> Iterator[None]:
    """Files of this process may not grow beyond a size."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_libraries_say_of_a_full_disk_becomes_the_systems_own_error(start, tmp_path):
    tokenizer = load_tokenizer(str(start)).backend_tokenizer
    for save in (tokenizer.save, lambda path: save_file({"x": torch.zeros(1000)}, path)):
        with small_files(1000), pytest.raises(OSError, match="File too large") as told, system_errors():
            save(str(tmp_path / "file"))
        assert told.value.errno == errno.EFBIG
    with pytest.raises(ValueError, match="a bug"), system_errors():
        raise ValueError("a bug")
