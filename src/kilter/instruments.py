"""Commands that work on tables: without a model of settings, and without PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from kilter.errors import ConfigError


def rank(
    *files: Annotated[
        str,
        Parameter(
            help="Comparisons or rankings: CSV, TSV, JSON, JSON lines, Parquet or Arrow, also packed; globs; - is "
            "standard input."
        ),
    ],
    columns: Annotated[
        str | None,
        Parameter(help="What columns are, where their names do not say it: left=x,right=y,winner=z."),
    ] = None,
    weight: Annotated[str | None, Parameter(help="The column of weights, positive numbers.")] = None,
    prompt: Annotated[str | None, Parameter(help="The column of prompts: intervals allow for what they share.")] = None,
    judge: Annotated[str | None, Parameter(help="The column of judges: intervals allow for what they share.")] = None,
    skip_missing: Annotated[
        bool, Parameter(negative="", help="Count and leave out rows in which something is missing.")
    ] = False,
    ties: Annotated[
        Literal["none", "half", "davidson", "rao-kupper"] | None,
        Parameter(help="The model of ties; by default davidson where there are ties, half where there are grades."),
    ] = None,
    order_effect: Annotated[
        bool, Parameter(negative="", help="Estimate what it is worth to be left, or at home.")
    ] = False,
    covariate: Annotated[
        list[str] | None,
        Parameter(help="What else counts, for the left item: columns, or expressions such as chars_a-chars_b."),
    ] = None,
    prior: Annotated[float | None, Parameter(help="The variance of a Gaussian prior on every log-strength.")] = None,
    disconnected: Annotated[
        Literal["refuse", "within", "prior"],
        Parameter(help="Where comparisons do not determine strengths: refuse, rank within groups, or use a prior."),
    ] = "refuse",
    scale: Annotated[
        Literal["log", "elo", "odds"] | None,
        Parameter(help="Log-strengths; 400 points for odds of 10 to 1; odds. By default log, with an anchor elo."),
    ] = None,
    anchor: Annotated[str | None, Parameter(help="An item and its place on the scale: gpt-4=1000.")] = None,
    level: Annotated[float, Parameter(help="How often intervals should hold what they are of.")] = 0.95,
    intervals: Annotated[
        Literal["wald", "sandwich", "profile", "bootstrap"] | None,
        Parameter(help="How intervals are found; by default sandwich with judges, prompts or grades, else wald."),
    ] = None,
    predict: Annotated[
        tuple[str, str] | None, Parameter(help="Two items: how likely each is to win against the other.")
    ] = None,
    suggest: Annotated[int, Parameter(help="Suggest so many comparisons to make next.")] = 0,
    top: Annotated[
        int | None, Parameter(help="Print so many items; by default all, or 100 where there are more than 500.")
    ] = None,
    csv: Annotated[Path | None, Parameter(help="Write the leaderboard there, as CSV.")] = None,
    plot: Annotated[Path | None, Parameter(help="Draw the leaderboard there, as SVG.")] = None,
    as_json: Annotated[
        bool, Parameter(name=("--as-json", "--json"), negative="", help="Print the same as JSON.")
    ] = False,
) -> None:
    """Rank what was compared: Bradley-Terry strengths with intervals, ranks and predictions; warnings first."""
    from kilter.ranking.report import Settings
    from kilter.ranking.report import rank as rank_files

    settings = Settings(
        ties=ties,
        order_effect=order_effect,
        prior=prior,
        disconnected=disconnected,
        scale=scale or ("log" if anchor is None else "elo"),
        anchor=None if anchor is None else _anchor(anchor),
        level=level,
        intervals=intervals,
    )
    for flag, count, least in (("--top", top, 1), ("--suggest", suggest, 0)):
        if count is not None and count < least:
            raise ConfigError(f"{flag} is {count}; expected {least} or more")
    rank_files(
        files,
        settings,
        predict=predict,
        suggest=suggest,
        csv=csv,
        plot=plot,
        as_json=as_json,
        top=top,
        columns=None if columns is None else _pairs(columns),
        covariates=covariate or (),
        judge=judge,
        prompt=prompt,
        weight=weight,
        skip_missing=skip_missing,
    )


def _anchor(text: str) -> tuple[str, float]:
    item, _, value = text.rpartition("=")
    try:
        return item, float(value)
    except ValueError:
        raise ConfigError(f"--anchor is {text!r}; expected an item and a number, as gpt-4=1000") from None


def _pairs(text: str) -> dict[str, str]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(role.strip() and column for role, _, column in pairs):
        raise ConfigError(f"--columns is {text!r}; expected what columns are, as left=x,right=y,winner=z")
    return {role.strip(): column for role, _, column in pairs}
