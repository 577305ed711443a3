"""How well strengths predict comparisons that they were not fitted to.

Axes: R rows of comparisons, F folds, N rows of predictions, O outcomes (left wins, tie, right wins).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from kilter.errors import ConfigError, DataError, NonFiniteError
from kilter.ranking.bradley_terry import Ranking, Ties, fit_comparisons, ties_of
from kilter.ranking.comparisons import Comparisons, Floats, Integers
from kilter.ranking.fitted import Cluster, clusters_of
from kilter.ranking.likelihood import advantage, rows_of
from kilter.ranking.newton import NotConvergedError


class Predictions(NamedTuple):
    """What was predicted of comparisons, and what happened: rows of equal comparisons of one fold."""

    row: NDArray[np.intp]  # N: of the comparisons
    fold: Integers  # N
    probability: Floats  # ON: NaN where there is no prediction
    share: Floats  # ON: the outcome, of which a grade is two
    baseline: Floats  # ON: the outcomes' frequencies in the rest
    games: Floats  # N
    weight: Floats  # N

    @property
    def predicted(self) -> NDArray[np.bool_]:
        """N: whether there is a prediction."""
        found: NDArray[np.bool_] = ~np.isnan(self.probability[0])
        return found


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """The log-loss of predictions for comparisons that were left out of the fit, in nats for each comparison.

    `baseline_log_loss` is what predicting the frequencies of ties, and with an order effect of left wins, would have
    lost on the same comparisons, and `even_log_loss` what predicting all outcomes alike would: ln 2, or ln 3 with ties.
    `unpredicted` comparisons are in none of these: an item of theirs was not connected in the rest. The standard error
    is that of the mean over comparisons (or clusters); that folds share most of what they were fitted to is not in it.
    """

    log_loss: float
    standard_error: float
    baseline_log_loss: float
    even_log_loss: float
    games: float
    unpredicted: float
    reasons: tuple[str, ...]
    predictions: Predictions

    def explanation(self) -> str:
        """The result in a sentence or two."""
        said = (
            f"held-out log-loss {self.log_loss:.4f} ± {self.standard_error:.4f} nats over {self.games:,.0f} "
            f"comparisons; {self.baseline_log_loss:.4f} by the outcomes' frequencies, {self.even_log_loss:.4f} by even "
            "odds"
        )
        if not self.unpredicted:
            return said
        why = "; ".join(self.reasons)
        return f"{said}. {self.unpredicted:,.0f} comparisons could not be predicted and are left out: {why}"


def cross_validate(
    comparisons: Comparisons,
    folds: int = 10,
    seed: int = 0,
    *,
    ties: Ties | None = None,
    cluster: Cluster | None = None,
    **settings: Any,
) -> CrossValidation:
    """Fits `folds` times to all comparisons but a fold's, and predicts those; `settings` are those of the fit.

    Every comparison falls into one fold by chance; with `cluster` all comparisons of a judge or prompt fall together.
    Without a prior, comparisons between items that the rest does not connect are counted as unpredicted.
    Raises ConfigError for fewer than 2 folds or more than there is to divide, DataError where nothing is predicted.
    """
    ties = ties_of(comparisons, ties)
    settings = {"disconnected": "within", **settings, "ties": ties}
    held_out = _folds(comparisons, folds, clusters_of(comparisons, cluster), np.random.default_rng(seed))
    rows = rows_of(comparisons, order_effect=bool(settings.get("order_effect")), ties=ties)
    shares = rows.observed / rows.observed.sum(axis=0)
    found, reasons = [], dict[str, None]()
    for fold, out in enumerate(held_out.T):
        test, rest = np.flatnonzero(out > 0), comparisons.count - out
        if not len(test):
            continue
        frequency = shares @ (rest * comparisons.weight)
        if not settings.get("order_effect"):  # who stands left says nothing, to the model as to the baseline
            frequency = (frequency + frequency[::-1]) / 2
        probability = np.full((3, len(test)), np.nan)
        try:
            ranking = fit_comparisons(comparisons.of_rows(rest > 0, rest[rest > 0]), **settings)
        except (DataError, NotConvergedError, NonFiniteError) as error:
            reasons[f"a fit without one fold has no estimate ({error})"] = None
        else:
            probability = probabilities_of(ranking, comparisons.of_rows(test))
            if np.isnan(probability[0]).any():
                reasons["items that the rest of the comparisons does not connect, or whose strength it leaves open"] = (
                    None
                )
            # A rest without ties says that there are none.
            impossible = (shares[1, test] > 0) & (probability[1] == 0) & (ties in ("davidson", "rao-kupper"))
            if impossible.any():
                reasons["ties, of which the rest has none"] = None
                probability[:, impossible] = np.nan
        found.append(
            Predictions(
                test,
                np.full(len(test), fold, np.int32),
                probability,
                shares[:, test],
                np.tile(frequency[:, None] / max(frequency.sum(), 1e-300), len(test)),
                out[test],
                comparisons.weight[test],
            )
        )
    together = (np.concatenate(parts, axis=-1) for parts in zip(*found, strict=True))
    predictions = Predictions(*together)
    return _summary(predictions, ties, clusters_of(comparisons, cluster), tuple(reasons))


def probabilities_of(ranking: Ranking, comparisons: Comparisons) -> Floats:
    """OR: the probability of each outcome of comparisons of the same items; NaN between components."""
    rows = rows_of(comparisons, order_effect=ranking.order_effect, ties="half")
    probability: Floats = np.exp(
        ranking.model.log_probabilities(advantage(ranking.parameters, rows), ranking.parameters[-1])
    )
    if not ranking.model.has_ties:
        probability[1] = 0
    probability[:, ranking.component[comparisons.left] != ranking.component[comparisons.right]] = np.nan
    return probability


def _folds(comparisons: Comparisons, folds: int, cluster: Integers | None, generator: np.random.Generator) -> Floats:
    """RF: how many of each row's comparisons are held out in each fold."""
    divided = comparisons.games if cluster is None else float(cluster.max()) + 1
    if not 2 <= folds <= divided:
        raise ConfigError(f"{folds} folds were asked for, of {divided:,.0f} to divide; give at least 2, as 5 or 10")
    if cluster is None:
        drawn = generator.multinomial(np.rint(comparisons.count).astype(np.int64), np.full(folds, 1 / folds))
        return drawn.astype(np.float64)
    fold = generator.permutation(int(divided)) % folds
    return np.where(fold[cluster][:, None] == np.arange(folds), comparisons.count[:, None], 0.0)


def _summary(
    predictions: Predictions, ties: Ties, cluster: Integers | None, reasons: tuple[str, ...]
) -> CrossValidation:
    known, games = predictions.predicted, float(predictions.games.sum())
    if not known.any():
        raise DataError(
            f"none of {games:,.0f} comparisons could be predicted from the rest: {'; '.join(reasons)}; "
            "give a prior (prior_variance), or more comparisons"
        )
    times = predictions.games[known] * predictions.weight[known]
    share = predictions.share[:, known]

    def mean_loss(probability: Floats) -> tuple[Floats, float]:
        losses = -special.xlogy(share, probability).sum(axis=0)
        return losses, float(times @ losses / times.sum())

    losses, log_loss = mean_loss(predictions.probability[:, known])
    apart = losses - log_loss
    if cluster is None:
        squares = float(predictions.games[known] @ np.square(predictions.weight[known] * apart))
        units = float(predictions.games[known].sum())
    else:
        sums = np.bincount(cluster[predictions.row[known]], times * apart)
        squares, units = float(sums @ sums), float(len(np.unique(cluster[predictions.row[known]])))
    return CrossValidation(
        log_loss,
        math.sqrt(squares * units / max(units - 1, 1)) / float(times.sum()),
        mean_loss(predictions.baseline[:, known])[1],
        math.log(3 if ties in ("davidson", "rao-kupper") else 2),
        float(predictions.games[known].sum()),
        float(predictions.games[~known].sum()),
        reasons,
        predictions,
    )
