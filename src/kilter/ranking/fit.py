"""The front door: strengths from whatever holds comparisons or rankings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kilter.errors import ConfigError
from kilter.ranking.bradley_terry import Disconnected, Ranking, Ties, fit_comparisons
from kilter.ranking.comparisons import Rankings
from kilter.ranking.fitted import Cluster
from kilter.ranking.plackett_luce import RankingsFit, fit_rankings


def fit(
    data: Any,
    *,
    ties: Ties | None = None,
    order_effect: bool = False,
    covariates: Sequence[str] = (),
    prior_variance: float | None = None,
    disconnected: Disconnected = "refuse",
    judge: str | None = None,
    prompt: str | None = None,
    cluster: Cluster | None = None,
    weight: str | None = None,
    columns: Mapping[str, str] | None = None,
    skip_missing: bool = False,
) -> Ranking | RankingsFit:
    """Maximum-likelihood strengths of what was compared: Bradley-Terry of comparisons, Plackett-Luce of rankings.

    `data` is a file's path or several (CSV, JSON lines, Parquet, Arrow, ...), a frame of pandas, Polars, PyArrow,
    DuckDB, PySpark or Dask, a dictionary of columns, a list of rows, `Comparisons` or `Rankings`. What its columns are
    is recognised by their names, or said by `columns`; `covariates`, `judge`, `prompt` and `weight` name columns too
    (see `kilter.ranking.reading.tables.read`).

    `ties` is a model of ties: "davidson", "rao-kupper", "half" (half a win each) or "none"; left alone, Davidson's if
    there are ties. `order_effect` estimates what it is worth to be left, or at home. `prior_variance` is that of a
    Gaussian prior of mean 0 on every log-strength. `disconnected` says what to do where strengths are not determined:
    "refuse", rank "within" groups, or use a "prior" of variance 1. `cluster` says whether the sandwich sums over each
    "judge" or each "prompt": where both are named, over judges.

    Raises UnidentifiedError or SeparatedError where no finite estimate exists, NotConvergedError where steps do not
    come to an end, DataError for data and ConfigError for settings that cannot be used.
    """
    from kilter.ranking.reading.tables import read_comparisons

    held = read_comparisons(
        data,
        columns=columns,
        covariates=covariates,
        judge=judge,
        prompt=prompt,
        weight=weight,
        skip_missing=skip_missing,
    )
    if isinstance(held, Rankings):
        for name, given in (("ties", ties), ("order_effect", order_effect or None)):
            if given is not None:
                raise ConfigError(f"{name} is for comparisons, and these are rankings; leave it out")
        return fit_rankings(held, prior_variance=prior_variance, disconnected=disconnected, cluster=cluster)
    return fit_comparisons(
        held,
        ties=ties,
        order_effect=order_effect,
        prior_variance=prior_variance,
        disconnected=disconnected,
        cluster=cluster,
    )
