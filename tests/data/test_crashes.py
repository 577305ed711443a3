"""Whatever moment the machine stops at while a checkpoint is saved and old ones go: no run is lost.

Every disk that a crash may leave is made (crashing_disk.py), looked at as a run that is taken up would, and gone on with.
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.crashing_disk import Disk, Image, Operation, Recording, fail_at, lay_out, recorded
from kilter.data.checkpoints import Checkpoints, fault_of
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import is_staging
from kilter.errors import RunError

RUN = Path("runs") / "first"
STEPS = (3, 6, 9, 12)
LATER = 15


class Loss(AssertionError):
    """Something that a run was promised is not on the disk."""


def weights(step: int) -> bytes:
    return f"weights after step {step}; ".encode() * 3


def write(directory: Path, step: int, lengths: dict[str, int]) -> None:
    (directory / "model").mkdir()
    (directory / "model" / "weights").write_bytes(weights(step))
    (directory / "progress.json").write_text(json.dumps({"step": step, "lengths": lengths}), encoding="utf-8")


def check_contents(path: Path, step: int) -> dict[str, int]:
    """That a checkpoint holds what was written; returns the lengths that it notes."""
    progress = json.loads((path / "progress.json").read_bytes())
    if (path / "model" / "weights").read_bytes() != weights(step) or progress["step"] != step:
        raise Loss(f"{path.name} does not hold what was written")
    return progress["lengths"]


@dataclass(frozen=True)
class Told:
    """What the run has been promised: that it has begun, which step is being saved, and which have been."""

    begun: bool = False
    saving: int | None = None
    saved: tuple[int, ...] = ()


def begin(root: Path, told: Callable[[Told], None]) -> Told:
    run = RunDirectory.create(root / RUN)
    run.write_config("seed = 1\n")
    run.write_manifest({"seed": 1})
    told(now := Told(begun=True))
    return now


def save(
    root: Path, steps: Sequence[int], told: Callable[[Told], None], now: Told, *, keep: int, pinned: Collection[int]
) -> Told:
    run = RunDirectory(root / RUN)
    checkpoints = Checkpoints(run.checkpoints, keep=keep)
    with run:
        for step in steps:
            run.append_metrics({"step": step})
            told(now := replace(now, saving=step))
            lengths = run.lengths()
            with checkpoints.save(step, size=1, pinned=pinned) as directory:
                write(directory, step, lengths)
            told(now := replace(now, saving=None, saved=(*now.saved, step)))
    return now


def check(root: Path, told: Told, *, keep: int, pinned: Collection[int]) -> None:
    """That nothing promised is lost, and that the run can go on."""
    run = RunDirectory(root / RUN)
    if not told.begun:
        try:
            RunDirectory.create(root / RUN, overwrite=run.exists)
        except RunError as error:
            raise Loss(f"no run can begin: {error}") from error
        return
    if not run.exists or run.read_manifest() != {"seed": 1} or (run.path / "config.toml").read_text() != "seed = 1\n":
        raise Loss("the run's own files are gone")
    checkpoints = Checkpoints(run.checkpoints, keep=keep)
    for checkpoint in checkpoints:
        if fault_of(checkpoint) is not None:
            raise Loss(f"{checkpoint.path.name} is neither whole nor absent")
        lengths = check_contents(checkpoint.path, checkpoint.step)
        for name, length in lengths.items():
            if not (run.path / name).is_file() or (run.path / name).stat().st_size < length:
                raise Loss(f"{name} is shorter than when {checkpoint.path.name} was saved")
    there = {checkpoint.step for checkpoint in checkpoints}
    wanted = set(told.saved[-keep:])
    if told.saving in there:
        wanted = set((*told.saved, told.saving)[-keep:])
    wanted |= set(pinned) & set(told.saved)
    if not wanted <= there:
        raise Loss(f"steps {sorted(wanted)} were to be kept, and {sorted(there)} are there")
    if not there <= {*told.saved, told.saving}:
        raise Loss(f"steps {sorted(there)} are there, which were never saved")
    go_on(run, checkpoints, told, keep=keep, pinned=pinned)


def go_on(run: RunDirectory, checkpoints: Checkpoints, told: Told, *, keep: int, pinned: Collection[int]) -> None:
    before = [checkpoint.step for checkpoint in checkpoints]
    newest = checkpoints.newest(lambda warning: pytest.fail(warning))
    assert (None if newest is None else newest.step) == max(before, default=None)
    with checkpoints.save(LATER, pinned=pinned) as directory:
        write(directory, LATER, {})
    steps = [*before, LATER]
    assert [c.step for c in checkpoints] == [s for s in steps if s in steps[-keep:] or s in pinned]
    assert not any(is_staging(entry) for entry in run.checkpoints.iterdir())


def check_every_crash(
    recording: Recording, work: Path, *, keep: int, pinned: Collection[int], seeds: int = 4
) -> int:
    """Crash before, between and after the operations; returns how many different disks that left."""
    disk, told, looked_at = deepcopy(recording.start), Told(), set()
    for number, operation in enumerate([Operation("mark", "", note=told), *recording.operations]):
        if operation.kind == "mark":
            told = operation.note
        else:
            disk.do(operation)
        for what, image in disk.images(range(number * seeds, (number + 1) * seeds)):
            if (seen := (told, frozen(image))) not in looked_at:
                looked_at.add(seen)
                place = work / str(len(looked_at))
                lay_out(image, place)
                try:
                    check(place, told, keep=keep, pinned=pinned)
                except (AssertionError, OSError, ValueError) as error:
                    raise Loss(f"{what}, after {number}: {operation.kind} {operation.path}: {error}") from error
    return len(looked_at)


def frozen(image: Image) -> frozenset[object]:
    return frozenset(
        (re.sub(r"\.[0-9a-f]{8}\.staging$", "", name), content if isinstance(content, bytes) else frozen(content))
        for name, content in image.items()
    )


def record(root: Path, *, keep: int, pinned: Collection[int]) -> Recording:
    """A run of four checkpoints, as it changes the disk."""
    root.mkdir()
    with recorded(root) as recording:
        save(root, STEPS, recording.mark, begin(root, recording.mark), keep=keep, pinned=pinned)
    return recording


@pytest.mark.parametrize(("keep", "pinned"), [(1, ()), (2, ()), (1, (3,)), (2, (3, 6))])
def test_no_crash_loses_a_run(keep, pinned, tmp_path):
    recording = record(tmp_path / "recorded", keep=keep, pinned=pinned)
    (tmp_path / "work").mkdir()
    disks = check_every_crash(recording, tmp_path / "work", keep=keep, pinned=pinned)
    print(len(recording.operations), disks)
