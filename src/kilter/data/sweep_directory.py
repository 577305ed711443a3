"""What a sweep writes: the directory of runs that differ in a few settings.

OUT/
  sweep.json       the settings, and what became of each run
  NAME/            a run (data/run_directory.py), named for what tells it from the others
  NAME.log         what that run had to say
  frontier.md, frontier.csv, frontier.svg   what the runs have in reward for their KL
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kilter.data.run_directory import RunDirectory, delete_run, read_object, write_whole
from kilter.data.staging import is_staging, make_directory, run_error
from kilter.errors import RunError

SWEEP = "sweep.json"
FRONTIER_TABLE, FRONTIER_ROWS, FRONTIER_PICTURE = "frontier.md", "frontier.csv", "frontier.svg"
OWN = (SWEEP, FRONTIER_TABLE, FRONTIER_ROWS, FRONTIER_PICTURE)


class SweepDirectory:
    """The directory of one sweep. Making one touches nothing on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def exists(self) -> bool:
        """Whether a sweep has begun here."""
        return (self.path / SWEEP).is_file()

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.path / name)

    def log(self, name: str) -> Path:
        return self.path / f"{name}.log"

    def create(self, *, overwrite: bool = False) -> None:
        """Make the directory of a new sweep, which must be free, or with `overwrite` hold a sweep and nothing else."""
        with run_error(self.path):
            if self.path.exists() and not self.path.is_dir():
                raise RunError(f"{self.path} is a file; expected a directory for the sweep; choose another --out")
            if self.path.is_dir():
                self._make_free(overwrite)
            make_directory(self.path)

    def _make_free(self, overwrite: bool) -> None:
        there = {entry.name for entry in self.path.iterdir() if not is_staging(entry)}
        if not there:
            return
        if not overwrite:
            go_on = f", go on with it by --resume {self.path}" if self.exists else ""
            raise RunError(
                f"{self.path} exists and is not empty; choose another --out{go_on}, or replace it with --overwrite"
            )
        if not self.exists:
            raise RunError(
                f"{self.path} has no {SWEEP}, so it does not look like a sweep; --overwrite replaces only sweeps; "
                "choose another --out, or delete the directory yourself"
            )
        names = self.read()["runs"]
        if foreign := there - {*OWN, *names, *(self.log(name).name for name in names)}:
            raise RunError(
                f"{self.path} holds {min(foreign)!r}, which the sweep did not write; --overwrite replaces only sweeps; "
                "move it elsewhere, or choose another --out"
            )
        for name in names:
            self.run(name).check_free(overwrite=True)
        for name in names:
            if (self.path / name).is_dir():
                delete_run(self.path / name)
                (self.path / name).rmdir()
            self.log(name).unlink(missing_ok=True)
        for name in (FRONTIER_TABLE, FRONTIER_ROWS, FRONTIER_PICTURE, SWEEP):
            (self.path / name).unlink(missing_ok=True)

    def read(self) -> dict[str, Any]:
        """The settings, and what became of each run, as `write` was given them."""
        return read_object(self.path / SWEEP)

    def write(self, state: Mapping[str, Any]) -> None:
        """Write sweep.json: there whole, or not at all. Numbers must be finite."""
        write_whole(self.path / SWEEP, json.dumps(state, indent=2, allow_nan=False) + "\n")

    def write_frontier(self, *, table: str, rows: str, picture: str) -> None:
        """Write what the runs found, in three forms, each there whole."""
        for name, text in ((FRONTIER_TABLE, table), (FRONTIER_ROWS, rows), (FRONTIER_PICTURE, picture)):
            write_whole(self.path / name, text)
