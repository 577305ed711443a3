"""Whatever moment the machine stops at while a checkpoint is saved and old ones go: no run is lost.

Every disk that a crash may leave is made (crashing_disk.py), looked at as a resumed run would, and gone on with.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from data.crashing_disk import CRASHES, Image, Operation, Recording, fail_at, lay_out, recorded
from kilter.data.checkpoints import Checkpoints, fault_of
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import is_staging
from kilter.errors import RunError

RUN = Path("runs") / "first"
STEPS = (3, 6, 9, 12)
LATER = 15


class LossError(AssertionError):
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
        raise LossError(f"{path.name} does not hold what was written")
    return progress["lengths"]


@dataclass(frozen=True)
class Told:
    """What the run has been promised: that it has begun, which step is being saved, and which have been."""

    begun: bool = False
    saving: int | None = None
    saved: tuple[int, ...] = ()


def begin(root: Path, told: Callable[[Told], None]) -> Told:
    """Begin a run, or take it up where its manifest is there already."""
    run = RunDirectory(root / RUN)
    if not run.exists:
        RunDirectory.create(root / RUN)
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
            raise LossError(f"no run can begin: {error}") from error
        return
    if not run.exists or run.read_manifest() != {"seed": 1} or (run.path / "config.toml").read_text() != "seed = 1\n":
        raise LossError("the run's own files are gone")
    checkpoints = Checkpoints(run.checkpoints, keep=keep)
    for checkpoint in checkpoints:
        if fault_of(checkpoint) is not None:
            raise LossError(f"{checkpoint.path.name} is neither whole nor absent")
        lengths = check_contents(checkpoint.path, checkpoint.step)
        for name, length in lengths.items():
            if not (run.path / name).is_file() or (run.path / name).stat().st_size < length:
                raise LossError(f"{name} is shorter than when {checkpoint.path.name} was saved")
    there = {checkpoint.step for checkpoint in checkpoints}
    wanted = set(told.saved[-keep:])
    if told.saving in there:
        wanted = set((*told.saved, told.saving)[-keep:])
    wanted |= set(pinned) & set(told.saved)
    if not wanted <= there:
        raise LossError(f"steps {sorted(wanted)} were to be kept, and {sorted(there)} are there")
    if not there <= {*told.saved, told.saving}:
        raise LossError(f"steps {sorted(there)} are there, which were never saved")
    go_on(run, checkpoints, told, keep=keep, pinned=pinned)


def go_on(run: RunDirectory, checkpoints: Checkpoints, told: Told, *, keep: int, pinned: Collection[int]) -> None:
    before = [checkpoint.step for checkpoint in checkpoints]
    newest = checkpoints.newest(pytest.fail)
    assert (None if newest is None else newest.step) == max(before, default=None)
    with checkpoints.save(LATER, pinned=pinned) as directory:
        write(directory, LATER, {})
    steps = [*before, LATER]
    assert [c.step for c in checkpoints] == [s for s in steps if s in steps[-keep:] or s in pinned]
    assert not any(is_staging(entry) for entry in run.checkpoints.iterdir())


def check_every_crash(
    recording: Recording, tmp_path: Path, *, keep: int, pinned: Collection[int], seeds: int = 2
) -> int:
    """Crash before, between and after the operations; returns how many different disks that left."""
    (tmp_path / "disks").mkdir()
    disk, told, looked_at = deepcopy(recording.start), Told(), set()
    for number, operation in enumerate([Operation("mark", "", note=told), *recording.operations]):
        if operation.kind == "mark":
            told = operation.note
        else:
            disk.do(operation)
        for what, image in disk.images(range(number * seeds, (number + 1) * seeds)):
            if (seen := (told, frozen(image))) not in looked_at:
                looked_at.add(seen)
                place = tmp_path / "disks" / str(len(looked_at))
                lay_out(image, place)
                try:
                    check(place, told, keep=keep, pinned=pinned)
                except (AssertionError, OSError, ValueError) as error:
                    raise LossError(f"{what}, after {number}: {operation.kind} {operation.path}: {error}") from error
                shutil.rmtree(place)
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


KEPT = pytest.mark.parametrize(("keep", "pinned"), [(1, ()), (2, ()), (1, (3,)), (2, (3, 6))])


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """What is to be tested is in the model of the disk: no real one need be waited for."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


@KEPT
def test_no_crash_while_saving_and_deleting_loses_a_run(keep, pinned, tmp_path):
    recording = record(tmp_path / "recorded", keep=keep, pinned=pinned)
    assert len(recording.operations) > 120
    assert check_every_crash(recording, tmp_path, keep=keep, pinned=pinned) > 150


def test_no_loss_of_power_loses_what_a_run_saved_that_was_killed_and_taken_up(tmp_path):
    """What the killed process had not synced is still not synced when the next one goes on from it."""
    recording = record(tmp_path / "recorded", keep=1, pinned=())
    disk = deepcopy(recording.start)
    for number, operation in enumerate(recording.operations):
        disk.do(operation)
        root = tmp_path / str(number)
        lay_out(disk.image(CRASHES["killed"]), root)
        after = deepcopy(disk)
        after.moved_to(root)
        with recorded(root) as next_process:
            save(root, (LATER,), next_process.mark, begin(root, next_process.mark), keep=1, pinned=())
        for done in next_process.operations:
            after.do(done)
        for crash, (what, image) in enumerate(after.images(range(2))):
            place = tmp_path / f"{number}-{crash}"
            lay_out(image, place)
            found = Checkpoints(place / RUN / "checkpoints").newest(lambda text: None)
            assert found is not None, (what, number, operation)
            assert found.step == LATER, (what, number, operation)
            lengths = check_contents(found.path, LATER)
            assert (place / RUN / "metrics.jsonl").stat().st_size >= lengths["metrics.jsonl"]
            assert RunDirectory(place / RUN).read_manifest() == {"seed": 1}
            shutil.rmtree(place)
        shutil.rmtree(root)


def test_no_crash_while_a_run_is_replaced_keeps_another_from_replacing_it(tmp_path):
    root = tmp_path / "recorded"
    record(root, keep=1, pinned=())
    with recorded(root) as recording:
        RunDirectory.create(root / RUN, overwrite=True)
    disk = deepcopy(recording.start)
    for number, operation in enumerate(recording.operations):
        disk.do(operation)
        for crash, (what, image) in enumerate(disk.images(range(4))):
            place = tmp_path / f"{number}-{crash}"
            lay_out(image, place)
            run = RunDirectory.create(place / RUN, overwrite=True)
            assert list(run.path.iterdir()) == [], (what, operation)


# The checks have teeth: take one safeguard away, and they find what is lost by it.


def role(path: str) -> str:
    """What a synced path is to a run: its name, without numbers."""
    return re.sub(r"^\.(.*)\.[0-9a-f]{8}\.staging$", r"staged \1", re.sub(r"step-\d+", "step", Path(path).name)) or "."


def without(recording: Recording, omitted: Callable[[Operation], bool]) -> Recording:
    return Recording(recording.start, [operation for operation in recording.operations if not omitted(operation)])


SYNCED = {
    "weights": "a file of a checkpoint",
    "manifest.json": "a checkpoint's manifest",
    "model": "a directory in a checkpoint",
    "staged step": "a checkpoint's directory",
    "checkpoints": "the directory of checkpoints",
    "metrics.jsonl": "metrics",
    "first": "the run's directory",
    "runs": "the directory of runs",
    "recorded": "the directory above",
    "staged manifest.json": "the run's manifest",
    "staged config.toml": "the run's settings",
    "progress.json": "progress",
}


def test_all_that_is_synced_has_its_control(tmp_path):
    recording = record(tmp_path / "recorded", keep=1, pinned=())
    assert {role(o.path) for o in recording.operations if o.kind == "sync"} == SYNCED.keys() - {"recorded"} | {"."}


@pytest.mark.parametrize("name", SYNCED)
def test_without_one_kind_of_sync_something_is_lost(name, tmp_path):
    recording = record(tmp_path / "recorded", keep=1, pinned=())
    kind = "." if name == "recorded" else name
    with pytest.raises(LossError, match="power lost"):
        check_every_crash(
            without(recording, lambda o: o.kind == "sync" and role(o.path) == kind), tmp_path, keep=1, pinned=()
        )


def each_save(operations: Sequence[Operation]) -> Iterator[list[Operation]]:
    """The operations between marks."""
    part: list[Operation] = []
    for operation in operations:
        if operation.kind == "mark":
            yield part
            yield [operation]
            part = []
        else:
            part.append(operation)
    yield part


def renamed_first(part: list[Operation]) -> list[Operation]:
    """A checkpoint gets its name before what it holds is synced."""
    for named in (o for o in part if o.kind == "rename" and role(o.path) == "staged step"):
        first = next(i for i, o in enumerate(part) if o.kind == "sync" and Path(o.path).is_relative_to(named.path))
        rest = [o for o in part if o is not named]
        return [*rest[:first], named, *rest[first:]]
    return part


def deleted_first(part: list[Operation]) -> list[Operation]:
    """The old checkpoint goes before the new one has its name."""
    for at, operation in enumerate(part):
        if operation.kind == "rename" and role(operation.path) == "staged step":
            return [*part[:at], *part[at + 2 :], *part[at : at + 2]]
    return part


def emptied_before_its_name_is_gone(part: list[Operation]) -> list[Operation]:
    """The old checkpoint's files are deleted before it is sure to have lost its name."""
    return [
        o
        for i, o in enumerate(part)
        if not (o.kind == "sync" and [after.kind for after in part[i + 1 : i + 2]] == ["remove"])
    ]


@pytest.mark.parametrize("disorder", [renamed_first, deleted_first, emptied_before_its_name_is_gone])
def test_in_another_order_something_is_lost(disorder, tmp_path):
    recording = record(tmp_path / "recorded", keep=1, pinned=())
    parts = [o for part in each_save(recording.operations) for o in disorder(part)]
    with pytest.raises(LossError, match=r"power lost|killed"):
        check_every_crash(Recording(recording.start, parts), tmp_path, keep=1, pinned=())


# A disk that is full, or fails.

WRITING = ("make directory", "open", "write", "close", "sync", "rename")
FAULTS = {
    "full": (errno.ENOSPC, WRITING, True),
    "one error": (errno.EIO, (*WRITING, "remove"), False),
    "errors from there on": (errno.EIO, (*WRITING, "remove"), True),
}


def counted(root: Path, kinds: Sequence[str], change: Callable[[], None]) -> int:
    seen: list[str] = []
    with recorded(root, lambda kind, path: seen.append(kind)):
        change()
    return sum(kind in kinds for kind in seen)


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_operation_of_a_save_is_refused_the_former_checkpoint_is_whole(fault, tmp_path):
    number, kinds, lasting = FAULTS[fault]

    def saved(root: Path, step: int) -> None:
        with Checkpoints(root, keep=1).save(step, size=12345) as directory:
            write(directory, step, {})

    def begun(root: Path) -> Path:
        saved(root / "checkpoints", 3)
        return root / "checkpoints"

    operations = counted(tmp_path, kinds, lambda: saved(begun(tmp_path / "counted"), 6)) - counted(
        tmp_path, kinds, lambda: saved(tmp_path / "first" / "checkpoints", 3)
    )
    assert operations >= 25
    reason = re.escape(os.strerror(number))
    for count in range(operations):
        path = begun(tmp_path / str(count))
        with (
            recorded(tmp_path, fail_at(count, number, kinds, lasting=lasting)),
            pytest.raises(
                RunError,
                match=rf"^cannot save the checkpoint of step 6 in {path}: {reason}; it takes 12\.3 kB, and there is "
                r"[\d.]+ [kMGT]B free; step-00000[36] is whole; make room or mend the disk, and take the run up "
                r"again with --resume$",
            ),
        ):
            saved(path, 6)
        for checkpoint in Checkpoints(path):
            assert fault_of(checkpoint) is None
            check_contents(checkpoint.path, checkpoint.step)
        assert {c.step for c in Checkpoints(path)} in ({3}, {3, 6}, {6})
        saved(path, 9)
        assert [entry.name for entry in path.iterdir()] == ["step-000009"]


@pytest.mark.parametrize("fault", FAULTS)
def test_whichever_operation_on_the_manifest_is_refused_the_former_one_is_whole(fault, tmp_path):
    number, kinds, lasting = FAULTS[fault]
    run = RunDirectory.create(tmp_path / "run")
    run.write_manifest({"seed": 1})
    operations = counted(tmp_path, kinds, lambda: run.write_manifest({"seed": 1}))
    assert operations >= 6
    for count in range(operations):
        with (
            recorded(tmp_path, fail_at(count, number, kinds, lasting=lasting)),
            pytest.raises(RunError, match=rf"manifest\.json: {re.escape(os.strerror(number))}; make room"),
        ):
            run.write_manifest({"seed": 2})
        assert run.read_manifest() in ({"seed": 1}, {"seed": 2})
        run.write_manifest({"seed": 1})
