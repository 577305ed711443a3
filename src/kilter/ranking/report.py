"""`kilter rank`: reads comparisons or rankings, says what it understood, warns, and prints a leaderboard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kilter.errors import ConfigError, DataError
from kilter.ranking.bradley_terry import Disconnected, Ranking, Ties, fit_comparisons
from kilter.ranking.comparisons import Comparisons, Item, Rankings
from kilter.ranking.connectivity import UnidentifiedError
from kilter.ranking.fitted import Fitted, Kind
from kilter.ranking.leaderboard import Intervals, Leaderboard, leaderboard
from kilter.ranking.plackett_luce import RankingsFit, fit_rankings
from kilter.ranking.reading.tables import Reading, read
from kilter.ranking.uncertainty import Estimate

if TYPE_CHECKING:
    from rich.console import Console

    from kilter.ranking.schedule import Suggestion

FEW_CLUSTERS = 30
# A standard error that is rounding.
NO_WIDTH = 1e-7
WIDE = 10_000
# A leaderboard that is longer is cut to its first lines, if nothing else is asked for.
LONG, FIRST = 500, 100
MODELS = {
    "none": "Bradley-Terry",
    "half": "Bradley-Terry, a tie as half a win each and a grade as its part",
    "davidson": "Bradley-Terry with ties (Davidson)",
    "rao-kupper": "Bradley-Terry with ties (Rao-Kupper)",
}


@dataclass(frozen=True)
class Settings:
    """What a ranking is asked for; the names are those of the command's flags."""

    ties: Ties | None = None
    order_effect: bool = False
    prior: float | None = None
    disconnected: Disconnected = "refuse"
    scale: str = "log"
    anchor: tuple[str, float] | None = None
    level: float = 0.95
    intervals: Intervals | None = None


@dataclass(frozen=True)
class Report:
    """A ranking with all that is told of it."""

    reading: Reading
    fitted: Ranking | RankingsFit
    board: Leaderboard
    warnings: tuple[str, ...]
    predictions: Mapping[str, Estimate]
    suggestions: tuple[Suggestion, ...] = ()

    @property
    def model(self) -> str:
        """What was fitted, and how well the fit converged."""
        fitted = self.fitted
        name = "Plackett-Luce" if isinstance(fitted, RankingsFit) else MODELS[fitted.ties]
        prior = f", prior of variance {fitted.prior_variance:g}" if fitted.prior_variance is not None else ""
        steps = _counted(fitted.steps, "Newton step")
        return (
            f"{name}{prior}; log-likelihood {fitted.log_likelihood:,.2f}, {steps} to a slope of "
            f"{fitted.gradient_norm:.1g}; {self.board.intervals} intervals"
        )

    def as_json(self, top: int | None = None) -> str:
        """All of it as JSON."""
        found: dict[str, Any] = {
            "understood": self.reading.says,
            "columns": dict(self.reading.columns.of) if self.reading.columns else {},
            "warnings": self.warnings,
            "model": self.model,
            "log_likelihood": self.fitted.log_likelihood,
            "gradient_norm": self.fitted.gradient_norm,
        }
        found |= self.board.as_json(top)
        found["predictions"] = {name: estimate._asdict() for name, estimate in self.predictions.items()}
        found["suggestions"] = [{"left": match.left, "right": match.right} for match in self.suggestions]
        return json.dumps(found, indent=2, allow_nan=False)


def report(reading: Reading, settings: Settings, predict: tuple[str, str] | None = None, suggest: int = 0) -> Report:
    """Fit what was read, and say what can be said of it; raises DataError where it does not determine strengths."""
    fitted = fitted_to(reading.data, settings, suggest)
    intervals = settings.intervals or _fitting_intervals(fitted)
    anchor: tuple[Item, float] | None = settings.anchor
    with _waiting(intervals) as progress:
        board = leaderboard(
            fitted, scale=settings.scale, anchor=anchor, level=settings.level, intervals=intervals, progress=progress
        )
    warnings = (*reading.warnings, *_doubts(fitted, intervals), *board.warnings)
    predictions = {} if predict is None else dict(_predictions(fitted, *predict, settings.level, intervals))
    return Report(reading, fitted, board, warnings, predictions, suggested(fitted, suggest))


@contextmanager
def _waiting(intervals: Intervals) -> Iterator[Callable[[int], object] | None]:
    """Something to look at on a terminal while intervals are computed: draws of a bootstrap, with the time left."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
    elif intervals != "bootstrap":
        with console.status(f"{intervals} intervals"):
            yield None
    else:
        from rich.progress import Progress

        from kilter.ranking.resampling import DRAWS

        with Progress(console=console, transient=True) as bar:
            task = bar.add_task("bootstrap", total=DRAWS)
            yield lambda draws: bar.advance(task, draws)


def suggested(data: Fitted | Comparisons | Rankings, count: int) -> tuple[Suggestion, ...]:
    """The comparisons to make next; none where none are asked for."""
    if not count:
        return ()
    from kilter.ranking.schedule import suggest_matches

    return tuple(suggest_matches(data, count))


def fitted_to(data: Comparisons | Rankings, settings: Settings, suggest: int = 0) -> Ranking | RankingsFit:
    """Strengths of comparisons or rankings; what cannot be ranked is told with the flags that help."""
    try:
        if isinstance(data, Rankings):
            if settings.ties is not None or settings.order_effect:
                raise ConfigError("--ties and --order-effect are for comparisons, and these are rankings")
            return fit_rankings(data, prior_variance=settings.prior, disconnected=settings.disconnected)
        return fit_comparisons(
            data,
            ties=settings.ties,
            order_effect=settings.order_effect,
            prior_variance=settings.prior,
            disconnected=settings.disconnected,
        )
    except UnidentifiedError as error:
        matches = "; ".join(map(_match, suggested(data, suggest)))
        raise DataError(
            f"the data do not determine strengths: {error.found.explanation()}. How far those lie from the "
            f"others has no finite estimate. Compare more ({matches or '--suggest 5 says whom'}); or rank each group "
            "by itself: --disconnected within; or say what you believe beforehand: --disconnected prior, or --prior "
            "with a variance"
        ) from None


def _counted(number: float, unit: str) -> str:
    return f"{number:,.0f} {unit}{'s' * (number != 1)}"


def _match(match: Suggestion) -> str:
    return f"{match.left} against {match.right}"


def _fitting_intervals(fitted: Fitted) -> Intervals:
    """Those that hold for grades and for judges, where there are any."""
    graded = isinstance(fitted, Ranking) and fitted.comparisons.graded
    return "sandwich" if graded or fitted.cluster is not None else "wald"


def _doubts(fitted: Fitted, intervals: Intervals) -> Iterator[str]:
    found = fitted.connectivity
    if not found.identified:
        held = (
            f"their strengths rest on the prior (variance {fitted.prior_variance:g})"
            if fitted.prior_variance is not None
            else "strengths and ranks are within groups, and say nothing between them"
        )
        yield f"{found.explanation()}; {held}"
    if fitted.left_out:
        unit = "choice" if isinstance(fitted, RankingsFit) else "comparison"
        yield f"{_counted(fitted.left_out, unit)} between groups not used"
    if intervals == "sandwich":
        if fitted.clusters is not None and fitted.clusters < FEW_CLUSTERS:
            yield (
                f"intervals rest on {fitted.clusters} {fitted.cluster}s: with so few they are rough, and may be too "
                "narrow"
            )
        if np.any(fitted.standard_errors("sandwich") < NO_WIDTH):
            yield (
                "some sandwich intervals have no width: the fit meets every outcome of an item exactly, so nothing "
                "shows how they vary; --intervals wald"
            )
    elif isinstance(fitted, Ranking) and fitted.comparisons.graded:
        yield f"{intervals} intervals take grades for wins and losses; --intervals sandwich does not"


def _predictions(fitted: Fitted, a: str, b: str, level: float, intervals: Intervals) -> Iterator[tuple[str, Estimate]]:
    kind: Kind = "sandwich" if intervals == "sandwich" else "fisher"
    if isinstance(fitted, RankingsFit):
        found = fitted.predict([a, b], level=level, kind=kind)
        yield f"{a} before {b}", found.first[0]
        yield f"{b} before {a}", found.first[1]
        return
    assert isinstance(fitted, Ranking)
    told = fitted.predict(a, b, level=level, kind=kind)
    yield f"{a} beats {b}", told.left_wins
    if fitted.model.has_ties:
        yield f"{a} and {b} tie", told.tie
    yield f"{b} beats {a}", told.right_wins


def rank(
    files: Sequence[str],
    settings: Settings,
    *,
    predict: tuple[str, str] | None = None,
    suggest: int = 0,
    csv: Path | None = None,
    plot: Path | None = None,
    as_json: bool = False,
    top: int | None = None,
    console: Console | None = None,
    **reading: Any,
) -> Report:
    """Rank what files hold, print it, and write it where that is asked for; `reading` goes to `read`."""
    from rich.console import Console

    _check_paths(csv, plot, settings, files)
    found = report(read(list(files), **reading), settings, predict, suggest)
    if csv is not None:
        found.board.write_csv(csv)
    if plot is not None:
        _draw(found, plot, settings)
    console = console or Console(soft_wrap=True)
    if as_json:
        print(found.as_json(top), file=console.file)
    else:
        show(found, console, top)
    return found


def _check_paths(csv: Path | None, plot: Path | None, settings: Settings, files: Sequence[str]) -> None:
    if not files:
        raise ConfigError("no file was given: kilter rank battles.csv")
    for flag, path, suffix in (("--csv", csv, ".csv"), ("--plot", plot, ".svg")):
        if path is not None and path.suffix != suffix:
            raise ConfigError(f"{flag} {path} does not end in {suffix}; name it so")
        if path is not None and any(Path(file).resolve() == path.resolve() for file in files):
            raise ConfigError(f"{flag} {path} is what is to be read; name another file")


def _draw(found: Report, plot: Path, settings: Settings) -> None:
    from kilter.ranking.checks import calibration
    from kilter.ranking.pictures import draw

    draw(
        found.fitted,
        plot,
        calibration(found.fitted) if isinstance(found.fitted, Ranking) else None,
        scale=settings.scale,
        anchor=settings.anchor,
        level=settings.level,
        told=found.board.told,
    )


def show(found: Report, console: Console, top: int | None = None) -> None:
    """Print what was understood, warnings, the leaderboard, the model's other parts and predictions.

    Lines that are not for a terminal are as long as they need be, and end without blanks.
    """
    if console.is_terminal:
        _show(found, console, top)
        return
    console.width = WIDE
    with console.capture() as captured:
        _show(found, console, top)
    for line in captured.get().splitlines():
        print(line.rstrip(), file=console.file)


def _show(found: Report, console: Console, top: int | None) -> None:
    from rich.text import Text

    console.print(Text(found.reading.says))
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning))
    console.print()
    if top is None and len(found.board.lines) > LONG:
        top = FIRST
    console.print(found.board.table(top))
    if (more := len(found.board.lines) - len(found.board.lines[:top])) > 0:
        console.print(Text(f"and {more:,} more: --top {len(found.board.lines)} or --csv shows them", style="dim"))
    console.print()
    for extra in found.board.extras:
        console.print(Text(f"{extra.name}: {extra.value:.4g} ({extra.low:.4g} to {extra.high:.4g})"))
    for name, estimate in found.predictions.items():
        console.print(Text(f"{name}: {estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"))
    for match in found.suggestions:
        console.print(Text(f"compare next: {_match(match)} ({match.reason})"))
    console.print(Text(found.model, style="dim"))
