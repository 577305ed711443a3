"""`kilter sweep`: a grid of runs over one reference, and what each has in reward for its KL."""

from __future__ import annotations

import io
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from kilter.data.reading import Dataset, read_rows
from kilter.data.run_directory import plain
from kilter.data.sweep_directory import SweepDirectory
from kilter.errors import ConfigError, KilterError, StoppedError
from kilter.train.align import align, mixture_of, rows_of
from kilter.train.config import START
from kilter.train.grid import Combination, SweepConfig
from kilter.train.progress import sweep_progress
from kilter.train.resume import check_settings, check_unchanged
from kilter.train.shared import Shared
from kilter.train.stops import Stop, StopAsked, stop_on_signals
from kilter.train.sweep_account import Oracle, Record, Row, SweepAccount, result_row

WRITE_OUT = (
    '; where not all objectives of a sweep have an option, write it with those that do: --objective "dpo(beta=0.1),'
    'dpo(beta=0.3),orpo"'
)


@dataclass(frozen=True)
class Swept:
    """Where a sweep lies, and what its runs found."""

    out: Path
    account: SweepAccount

    @property
    def complete(self) -> bool:
        """Whether every run is finished."""
        return all(row.record["state"] == "finished" for row in self.account.rows)


def sweep(config: SweepConfig, console: Console | None = None, oracle: Oracle | None = None) -> Swept:
    """Make every run of a grid that is not finished, one after the other, and tell, save and draw what all have found.

    A run that fails after it has begun is told of, and the others are made. Raises ConfigError, before anything is run,
    naming a combination that its objective or the data do not allow; what keeps a run from beginning (files, models)
    would keep all, and is raised; StoppedError when asked to stop, with the run in hand saved.
    """
    console = console or Console(stderr=True)
    runs, directory = _with_references(config.combinations()), SweepDirectory(config.out)
    records = _opened(config, runs, directory)
    try:
        with stop_on_signals(console) as stop:
            _sweep(config, runs, records, directory, console, oracle, stop)
    except (StopAsked, StoppedError, KeyboardInterrupt) as stopped:
        _stopped(stopped, records, directory)
    account = SweepAccount([_row(config, directory, name, record) for name, record in records.items()], oracle)
    directory.write_frontier(table=account.markdown(), rows=account.csv(), picture=account.picture())
    account.show(console)
    console.print(f"{directory.path}: frontier.md, frontier.csv, frontier.svg", highlight=False, soft_wrap=True)
    return Swept(config.out, account)


def _row(config: SweepConfig, directory: SweepDirectory, name: str, record: Record) -> Row:
    if record["state"] != "finished":
        return Row(record["varied"], record)
    run, keeps_best = directory.run(name), bool(config.given("keep_best")) or config.given("patience") is not None
    scores = run.read_manifest().get("reference_scores") or {}
    return Row(record["varied"], record, result_row(run, keeps_best=keeps_best), scores)


def _with_references(runs: Sequence[Combination]) -> list[Combination]:
    """The runs, all of them measured against a reference, also where the objective has none.

    Raises ConfigError, naming it, where an objective does not go with a combination, or two are the same run.
    """
    measured = []
    seen: dict[tuple[str, str], Combination] = {}
    for run in runs:
        try:
            mixture = mixture_of(run.config)
        except ConfigError as error:
            raise ConfigError(f"{run}: {error}{WRITE_OUT if 'does not use' in str(error) else ''}") from None
        options = {option for term in mixture.terms for option in term.objective.options}
        others = {name: value for name, value in run.varied.items() if name not in {"objective", *options}}
        same = seen.setdefault((str(mixture), str(others)), run)
        if same is not run:
            raise ConfigError(f"{run} is the same run as {same}: both minimise {mixture}; give each once")
        wanted = run.config.reference or START
        measured.append(run._replace(config=run.config.model_copy(update={"reference": wanted})))
    return measured


def _opened(config: SweepConfig, runs: Sequence[Combination], directory: SweepDirectory) -> dict[str, Record]:
    """What is known of each run, in a directory that is now there; raises ConfigError where runs that lie in it were
    begun with other settings."""
    known: dict[str, Record] = {}
    if config.given("resume") is not None and directory.exists:
        begun = directory.read()
        if begun["varies"] != config.varies:
            raise ConfigError(
                f"{directory.path} varies {', '.join(begun['varies'])}, and now {', '.join(config.varies)} would vary; "
                "give several values to each of those and to no other, or begin another sweep with another --out"
            )
        known = begun["runs"]
        for run in runs:
            if directory.run(run.name).exists:
                check_settings(run.config, directory.run(run.name))
    else:
        directory.create(overwrite=bool(config.given("overwrite")))
    begin = {"state": "waiting", "seconds": 0.0}
    records: dict[str, Record] = {run.name: {"varied": run.varied} | known.get(run.name, begin) for run in runs}
    for name, record in records.items():
        if directory.run(name).finished:
            record["state"] = "finished"
    _write(config, records, directory)
    return records


def _write(config: SweepConfig, records: Mapping[str, Record], directory: SweepDirectory) -> None:
    directory.write({"settings": config.settings, "varies": config.varies, "runs": records})


def _sweep(
    config: SweepConfig,
    runs: Sequence[Combination],
    records: dict[str, Record],
    directory: SweepDirectory,
    console: Console,
    oracle: Oracle | None,
    stop: Stop,
) -> None:
    read = _remembered(read_rows)
    _check_rows(runs, directory, console, Shared(read=read), stop)
    done = sum(records[run.name]["state"] == "finished" for run in runs)
    if done:
        console.print(f"{done} of {len(runs)} runs are finished, and not run again", highlight=False)
    with sweep_progress(console, len(runs), done) as progress:
        for number, run in enumerate(runs, 1):
            record = records[run.name]
            if record["state"] != "finished":
                stop.check()
                progress.begin(number, str(run))
                record["state"] = "running"
                _write(config, records, directory)
                begin = time.perf_counter()
                try:
                    _run(run, record, directory, Shared(read, progress.of_run, stop))
                finally:
                    record["seconds"] += time.perf_counter() - begin
                    _write(config, records, directory)
                progress.end()
            if record["state"] == "finished" and oracle is not None and "exact" not in record:
                exact = oracle(directory.run(run.name).model)._asdict()
                record["exact"] = {name: plain(value) for name, value in exact.items()}
                _write(config, records, directory)
            console.print(_row(config, directory, run.name, record).line(), highlight=False, soft_wrap=True)


def _run(run: Combination, record: Record, directory: SweepDirectory, shared: Shared) -> None:
    """One run, to its end or to where it fails; what it says goes to its log."""
    record.pop("error", None)
    with directory.log(run.name).open("a", encoding="utf-8") as log:
        try:
            align(run.config, Console(file=log, width=120), shared)
        except StoppedError:
            record["state"] = "stopped"
            raise
        except KilterError as error:
            if not directory.run(run.name).exists:
                raise  # before a run has begun: the others could not begin either
            record |= {"state": "failed", "error": str(error)}
        else:
            record["state"] = "finished"


def _remembered(read: Callable[..., Dataset[Any]]) -> Callable[..., Dataset[Any]]:
    """The same function, which does what it was asked for before only once."""
    known: dict[str, Dataset[Any]] = {}

    def once(*arguments: Any, **settings: Any) -> Dataset[Any]:
        asked = repr((arguments, sorted(settings.items())))
        if asked not in known:
            known[asked] = read(*arguments, **settings)
        return known[asked]

    return once


def _check_rows(
    runs: Sequence[Combination], directory: SweepDirectory, console: Console, shared: Shared, stop: Stop
) -> None:
    """Read the data and tell what it is; raise ConfigError where an objective does not take it, or a finished run was
    made on other data."""
    for run in runs:
        stop.check()
        here = console if run is runs[0] else Console(file=io.StringIO())
        try:
            rows = rows_of(run.config, mixture_of(run.config), here, shared)
        except ConfigError as error:
            raise ConfigError(f"{run}: {error}") from None
        if directory.run(run.name).finished:
            check_unchanged(directory.run(run.name), rows.facts)


def _stopped(stopped: BaseException, records: Mapping[str, Record], directory: SweepDirectory) -> NoReturn:
    """Say how to go on."""
    number = getattr(stopped, "signal", signal.SIGINT)
    done = sum(record["state"] == "finished" for record in records.values())
    at_once = "at once, " if isinstance(stopped, KeyboardInterrupt) else ""
    raise StoppedError(
        f"stopped {at_once}with {done} of {len(records)} runs finished\n"
        f"go on with: kilter sweep --resume {directory.path}",
        number,
    ) from None
