"""Checkpoints on disk: what is kept, what is found, what is said of one that is damaged."""

from __future__ import annotations

import json
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest

from kilter.data.checkpoints import Checkpoint, Checkpoints, fault_of, gigabytes
from kilter.data.staging import sha256_of
from kilter.errors import RunError


def save(checkpoints: Checkpoints, *steps: int, pinned: tuple[int, ...] = ()) -> None:
    for step in steps:
        with checkpoints.save(step, pinned=pinned) as directory:
            (directory / "model").mkdir()
            (directory / "model" / "weights").write_text(f"weights {step}")
            (directory / "progress").write_text(f"progress {step}")


def steps(checkpoints: Checkpoints) -> list[int]:
    return [checkpoint.step for checkpoint in checkpoints]


def newest(checkpoints: Checkpoints) -> tuple[int | None, list[str]]:
    warnings: list[str] = []
    found = checkpoints.newest(warnings.append)
    return None if found is None else found.step, warnings


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "run" / "checkpoints"


def test_where_nothing_was_saved_there_is_no_checkpoint(place: Path) -> None:
    assert steps(Checkpoints(place)) == []
    assert newest(Checkpoints(place)) == (None, [])
    assert not place.exists()


def test_a_checkpoint_holds_what_was_written_and_its_account(place: Path) -> None:
    save(Checkpoints(place), 200)
    (checkpoint,) = Checkpoints(place)
    assert checkpoint == Checkpoint(place / "step-000200", 200) == Checkpoint(Checkpoints(place).at(200), 200)
    assert (checkpoint.path / "model" / "weights").read_text() == "weights 200"
    manifest = json.loads((checkpoint.path / "manifest.json").read_text())
    assert manifest == {
        "step": 200,
        "files": {
            "model/weights": {"size": 11, "sha256": sha256_of(checkpoint.path / "model" / "weights")},
            "progress": {"size": 12, "sha256": sha256_of(checkpoint.path / "progress")},
        },
    }


@pytest.mark.parametrize(("keep", "left"), [(1, [40]), (2, [30, 40]), (3, [20, 30, 40]), (9, [10, 20, 30, 40])])
def test_the_newest_are_kept(keep: int, left: list[int], place: Path) -> None:
    save(Checkpoints(place, keep=keep), 10, 20, 30, 40)
    assert steps(Checkpoints(place)) == left
    assert newest(Checkpoints(place)) == (40, [])


def test_pinned_ones_are_kept_besides(place: Path) -> None:
    save(Checkpoints(place, keep=2), 10, 20, 30, 40, 50, pinned=(20, 40, 70))
    assert steps(Checkpoints(place)) == [20, 40, 50]
    save(Checkpoints(place, keep=2), 60)
    assert steps(Checkpoints(place)) == [50, 60]


def test_steps_are_ordered_as_numbers(place: Path) -> None:
    save(Checkpoints(place, keep=2), 999_999, 1_000_000)
    assert [c.path.name for c in Checkpoints(place)] == ["step-999999", "step-1000000"]


def test_what_is_no_checkpoint_is_left_alone(place: Path) -> None:
    save(Checkpoints(place, keep=1), 10)
    for name in "step-best", "step-000005.copy", "notes", "step-12":
        (place / name).mkdir()
    (place / "step-000007").write_text("a file")
    save(Checkpoints(place, keep=1), 20)
    assert steps(Checkpoints(place)) == [20]
    names = {entry.name for entry in place.iterdir()}
    assert names == {"step-best", "step-000005.copy", "notes", "step-12", "step-000007", "step-000020"}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a bit flipped": (lambda c: flip_a_bit(c / "model" / "weights"), "model/weights is not what was written"),
    "a file cut short": (lambda c: os.truncate(c / "progress", 3), "progress has 3 bytes instead of 11"),
    "a file too long": (lambda c: (c / "progress").write_text("p" * 1234), "progress has 1,234 bytes instead of 11"),
    "a file emptied": (lambda c: os.truncate(c / "model" / "weights", 0), "model/weights has 0 bytes instead of 10"),
    "a file missing": (lambda c: (c / "progress").unlink(), "progress is missing"),
    "a directory missing": (lambda c: shutil.rmtree(c / "model"), "model/weights is missing"),
    "no manifest": (lambda c: (c / "manifest.json").unlink(), "manifest.json cannot be read (FileNotFoundError)"),
    "half a manifest": (lambda c: os.truncate(c / "manifest.json", 20), "manifest.json cannot be read (JSONDecode"),
    "zeros for a manifest": (lambda c: (c / "manifest.json").write_bytes(bytes(9)), "manifest.json cannot be read"),
    "no text": (lambda c: (c / "manifest.json").write_bytes(b"\xff"), "manifest.json cannot be read (UnicodeDecode"),
    "a list": (lambda c: (c / "manifest.json").write_text("[]"), "manifest.json cannot be read (TypeError)"),
    "no files": (lambda c: (c / "manifest.json").write_text('{"step": 20}'), "manifest.json cannot be read (KeyError)"),
    "files as a list": (
        lambda c: (c / "manifest.json").write_text('{"step": 20, "files": []}'),
        "manifest.json cannot be read (AttributeError)",
    ),
    "deep nesting": (
        lambda c: (c / "manifest.json").write_text("[" * 100_000),
        "manifest.json cannot be read (RecursionError)",
    ),
    "another's manifest": (
        lambda c: shutil.copy(c.parent / "step-000010" / "manifest.json", c),
        "its manifest is that of step 10",
    ),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_one_is_passed_over_with_its_fault(kind: str, place: Path) -> None:
    damage, said = DAMAGE[kind]
    save(Checkpoints(place), 10, 20)
    damage(place / "step-000020")
    step, warnings = newest(Checkpoints(place))
    assert step == 10
    (warning,) = warnings
    assert warning.startswith(f"{place / 'step-000020'} is not whole: ")
    assert said in warning
    assert warning.endswith("; looking for an older one")


def test_where_all_are_damaged_there_is_none(place: Path) -> None:
    save(Checkpoints(place), 10, 20)
    for checkpoint in Checkpoints(place):
        flip_a_bit(checkpoint.path / "progress")
    step, warnings = newest(Checkpoints(place))
    assert step is None
    assert [Path(w.split()[0]).name for w in warnings] == ["step-000020", "step-000010"]


def test_damaged_ones_that_were_passed_over_do_not_push_out_whole_ones(place: Path) -> None:
    save(Checkpoints(place), 10, 20)
    flip_a_bit(place / "step-000020" / "progress")
    taken_up = Checkpoints(place, keep=1, doubtful=[20])
    save(taken_up, 15)
    assert steps(taken_up) == [15]
    assert newest(taken_up) == (15, [])


def test_a_damaged_one_is_replaced_by_the_same_step_and_counts_again(place: Path) -> None:
    save(Checkpoints(place), 10, 20)
    flip_a_bit(place / "step-000020" / "progress")
    taken_up = Checkpoints(place, keep=2, doubtful=[20])
    save(taken_up, 20, 30)
    assert steps(taken_up) == [20, 30]
    assert all(fault_of(checkpoint) is None for checkpoint in taken_up)


def test_left_overs_of_a_killed_process_are_swept_by_the_next_save(place: Path) -> None:
    save(Checkpoints(place), 10)
    half = place / ".step-000020.0a1b2c3d.staging"
    half.mkdir()
    (half / "weights").write_text("half")
    assert newest(Checkpoints(place)) == (10, [])
    save(Checkpoints(place), 20)
    assert sorted(entry.name for entry in place.iterdir()) == ["step-000010", "step-000020"]


def test_without_the_room_a_save_says_how_much_it_needs_and_touches_nothing(place: Path) -> None:
    needs = r"checkpoint of step 20 .*: No space left on device; it takes 5000000\.0 TB, and there is [\d.]+ \wB free; "
    with (
        pytest.raises(RunError, match=needs + "there is no checkpoint yet; make room"),
        Checkpoints(place).save(20, size=5 * 10**18),
    ):
        pytest.fail("the block is not reached")
    save(Checkpoints(place), 10)
    with (
        pytest.raises(RunError, match=needs + "step-000010 is whole; make room"),
        Checkpoints(place).save(20, size=5 * 10**18),
    ):
        pytest.fail("the block is not reached")
    assert [entry.name for entry in place.iterdir()] == ["step-000010"]


def test_room_to_the_byte_is_room(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=1000))
    with Checkpoints(place).save(10, size=1000):
        pass
    with pytest.raises(RunError, match=r"it takes 1\.0 kB, and"), Checkpoints(place).save(20, size=1001):
        pass
    assert steps(Checkpoints(place)) == [10]


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("bug")])
def test_what_fails_in_the_block_leaves_all_as_it_was(failure: BaseException, place: Path) -> None:
    save(Checkpoints(place, keep=1), 10)

    def fail() -> None:
        with Checkpoints(place, keep=1).save(20) as directory:
            (directory / "weights").write_text("half")
            raise failure

    with pytest.raises(type(failure)):
        fail()
    assert [entry.name for entry in place.iterdir()] == ["step-000010"]
    assert newest(Checkpoints(place)) == (10, [])


def test_a_place_that_cannot_be_read_is_a_run_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.mkdir(parents=True)

    def refused(_: Path) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(Path, "iterdir", refused)
    with pytest.raises(RunError, match=r"cannot write or read .*checkpoints: Input/output error"):
        newest(Checkpoints(place))


@pytest.mark.parametrize(
    ("size", "said"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (1_500_000, "1.5 MB"), (2 * 10**9, "2.0 GB"),
     (3 * 10**12, "3.0 TB"), (4 * 10**15, "4000.0 TB")],
)  # fmt: skip
def test_sizes_are_told_as_people_read_them(size: int, said: str) -> None:
    assert gigabytes(size) == said
