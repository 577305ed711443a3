"""The bootstrap of strengths: counts drawn anew, or whole judges or prompts, and the strengths fitted to them.

Axes: D draws, B draws at once, U units that are drawn (comparisons, rankings or clusters), I items, p parameters,
A parameters that shift the advantage, G unique (left, right, covariates), O outcomes (left wins, tie, right wins).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from kilter.errors import ConfigError, DataError, NonFiniteError
from kilter.ranking.bradley_terry import Ranking
from kilter.ranking.choices import choices_of, stages_of
from kilter.ranking.comparisons import Floats, Item
from kilter.ranking.connectivity import connectivity_of_rankings
from kilter.ranking.fitted import Fitted, check_level, clusters_of
from kilter.ranking.information import centred
from kilter.ranking.likelihood import grouped, rows_of
from kilter.ranking.newton import NotConvergedError, maximize
from kilter.ranking.plackett_luce import RankingsFit
from kilter.ranking.uncertainty import Estimate

# To this many parameters, draws are fitted together; beyond, a fit's own work exceeds that of starting it.
BATCHED = 300
DRAWS = 1000
NUMBERS_AT_ONCE = 4_000_000
# From the estimate, a draw that has a maximum is there in six or seven steps.
MOST_STEPS = 30
# A step this small leaves an error of about its square, far below what draws vary by.
SMALL_STEP = 1e-5


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Strengths fitted to data drawn anew: `strengths` are (draws - failed) x I, of mean zero in every component.

    `failed` counts the draws in which no finite estimate exists, as when an item won all its comparisons.
    """

    ranking: Fitted
    parameters: Floats
    draws: int
    failed: int

    @property
    def strengths(self) -> Floats:
        """(D - failed) x I: log-strengths."""
        return self.parameters[:, : len(self.ranking.items)]

    def explanation(self) -> str:
        """What was drawn, and how many draws had no estimate."""
        alone = "comparisons" if isinstance(self.ranking, Ranking) else "rankings"
        unit = f"{self.ranking.cluster}s" if self.ranking.cluster else alone
        said = f"{self.draws:,} draws of {unit}"
        if not self.failed:
            return said
        return (
            f"{said}; in {self.failed:,} of them some items have no finite estimate, and these are left out: intervals "
            "are too narrow for such items; profile intervals or a prior say more"
        )

    def intervals(self, level: float = 0.95) -> Floats:
        """I2: percentiles of the log-strengths; not a number for an item that is alone in its component."""
        check_level(level)
        ends: Floats = np.quantile(self.strengths, [(1 - level) / 2, (1 + level) / 2], axis=0).T
        alone = np.bincount(self.ranking.component)[self.ranking.component] == 1
        return np.where(alone[:, None] & (len(alone) > 1), np.nan, ends)

    def difference(self, a: Item, b: Item, level: float = 0.95) -> Estimate:
        """How far `a` is ahead of `b`, in log-odds, with percentiles; raises DataError where nothing connects them."""
        check_level(level)
        contrast = self.ranking.contrast(a, b)
        drawn = self.parameters @ contrast
        low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
        return Estimate(float(contrast @ self.ranking.parameters), float(low), float(high), float(drawn.std(ddof=1)))


def bootstrap(
    ranking: Fitted, draws: int = DRAWS, seed: int = 0, *, progress: Callable[[int], object] | None = None
) -> Bootstrap:
    """Fits to `draws` multinomial reweightings of the counts; of whole judges or prompts if the ranking names them.

    `progress` is told of draws as they are done, how many at a time.
    Raises ConfigError for fewer than 2 draws, DataError where hardly a draw has an estimate.
    """
    if draws < 2:
        raise ConfigError(f"{draws} draws were asked for; give at least two, better a thousand")
    generator, found = np.random.default_rng(seed), []
    for number, fitted in _drawn(ranking, draws, generator):
        found.append(fitted)
        if progress is not None:
            progress(number)
    parameters = np.concatenate(found)
    if len(parameters) < 2:
        raise DataError(
            f"{draws - len(parameters):,} of {draws:,} draws have no finite estimate: a few comparisons more or less "
            "leave an item undefeated, winless or unconnected; use profile intervals, or fit with a prior "
            "(prior_variance)"
        )
    return Bootstrap(ranking, parameters, draws, draws - len(parameters))


def _drawn(ranking: Fitted, draws: int, generator: np.random.Generator) -> Iterator[tuple[int, Floats]]:
    """How many draws were made, and (B - failed) x p: the parameters of those that have an estimate."""
    if isinstance(ranking, RankingsFit):
        for found in _fitted_rankings(ranking, draws, generator):
            yield 1, found
    else:
        assert isinstance(ranking, Ranking)
        for observed in _reweighted(ranking, draws, generator):
            yield observed.shape[1], _fitted(ranking, observed)


def _fitted_rankings(fitted: RankingsFit, draws: int, generator: np.random.Generator) -> Iterator[Floats]:
    """1p: the parameters of each draw; 0p where it has no estimate."""
    of, cluster = fitted.rankings, clusters_of(fitted.rankings, fitted.cluster)
    often = of.count if cluster is None else np.ones(int(cluster.max()) + 1)
    nothing = np.empty((0, len(fitted.parameters)))
    for _ in range(draws):
        times = generator.multinomial(int(np.rint(often.sum())), often / often.sum()).astype(np.float64)
        drawn = times if cluster is None else times[cluster] * of.count
        entries = np.flatnonzero(drawn[of.ranking])
        part = np.unique(of.ranking[entries], return_inverse=True)[1].astype(np.int32)
        rankings = replace(of.of_entries(entries, part), count=drawn[drawn > 0])
        stages = stages_of(rankings)
        group = connectivity_of_rankings(of.items, stages).group
        choices = choices_of(rankings, stages)
        # Of a tie that was not drawn, log delta is minus infinity.
        if choices.orders != fitted.tie_orders or (
            fitted.prior_variance is None and group.max() != fitted.component.max()
        ):
            yield nothing
            continue
        try:
            best = maximize(
                choices, component=fitted.component, prior_variance=fitted.prior_variance, start=fitted.parameters
            )
        except (NotConvergedError, NonFiniteError):
            yield nothing
            continue
        yield best.parameters[None]


def _reweighted(ranking: Ranking, draws: int, generator: np.random.Generator) -> Iterator[Floats]:
    """OBG: what was observed in each draw."""
    units, often = _units(ranking)
    trials = int(np.rint(often.sum()))
    most = max(*units.shape, len(ranking.parameters) ** 2 if len(ranking.parameters) <= BATCHED else 1)
    at_once = max(1, min(draws, NUMBERS_AT_ONCE // most))
    equal = np.ptp(often) == 0
    for start in range(0, draws, at_once):
        number = min(at_once, draws - start)
        if equal:
            # Quicker than the multinomial's one binomial for each unit.
            drawn = generator.integers(len(often), size=(number, trials)) + len(often) * np.arange(number)[:, None]
            times = np.bincount(drawn.ravel(), minlength=number * len(often)).reshape(number, len(often))
        else:
            times = generator.multinomial(trials, often / often.sum(), size=number)
        yield (units.T @ times.T).reshape(3, -1, number).transpose(0, 2, 1)


def _units(ranking: Ranking) -> tuple[sparse.csr_array, Floats]:
    """U x OG: what each unit adds to the totals when it is drawn once; and U: how often it was observed."""
    of, cluster = ranking.comparisons, clusters_of(ranking.comparisons, ranking.cluster)
    totals, group, swapped = grouped(of, order_effect=ranking.order_effect, ties=ranking.ties)
    single = of if cluster is not None else replace(of, count=np.ones(len(of.left)))
    observed = rows_of(single, order_effect=ranking.order_effect, ties=ranking.ties).observed
    observed = np.where(swapped, observed[::-1], observed)
    unit = np.arange(len(of.left)) if cluster is None else cluster
    cells = group + len(totals.left) * np.arange(3)[:, None]
    shape = (int(unit.max()) + 1, 3 * len(totals.left))
    added = sparse.coo_array((observed.ravel(), (np.tile(unit, 3), cells.ravel())), shape=shape).tocsr()
    added.eliminate_zeros()
    return added, of.count if cluster is None else np.ones(shape[0])


def _fitted(ranking: Ranking, observed: Floats) -> Floats:
    """(B - failed) x p: the parameters of the draws that have an estimate."""
    if ranking.prior_variance is None:
        observed = observed[:, _identified(ranking, observed)]
    if not observed.shape[1]:
        return np.empty((0, len(ranking.parameters)))
    if len(ranking.parameters) <= BATCHED:
        parameters, converged = maximize_together(ranking, observed)
        return parameters[converged]
    found = []
    for draw in range(observed.shape[1]):
        try:
            best = maximize(
                replace(ranking.likelihood, totals=ranking.totals._replace(observed=observed[:, draw])),
                component=ranking.component,
                prior_variance=ranking.prior_variance,
                start=ranking.parameters,
            )
        except (NotConvergedError, NonFiniteError):
            continue
        found.append(best.parameters)
    return np.array(found).reshape(-1, len(ranking.parameters))


def _identified(ranking: Ranking, observed: Floats) -> NDArray[np.bool_]:
    """B: whether wins still lead from every item to every other of its component and back."""
    items, draws = len(ranking.items), observed.shape[1]
    left, right = ranking.totals.left, ranking.totals.right
    won, tied, lost = observed > 0
    draw_won, pair_won = np.nonzero(won | tied)
    draw_lost, pair_lost = np.nonzero(lost | tied)
    winner = np.concatenate([draw_won * items + left[pair_won], draw_lost * items + right[pair_lost]])
    loser = np.concatenate([draw_won * items + right[pair_won], draw_lost * items + left[pair_lost]])
    # One graph of all draws, side by side.
    beats = sparse.coo_array((np.ones(len(winner), np.int8), (winner, loser)), shape=(draws * items,) * 2).tocsr()
    _, group = connected_components(beats, directed=True, connection="strong")
    first = np.unique(group, return_index=True)[1]
    groups: NDArray[np.bool_] = np.bincount(first // items, minlength=draws) == int(ranking.component.max()) + 1
    return groups


def maximize_together(ranking: Ranking, observed: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Bp and B: the maxima for several `observed`, OBG, from the ranking's own; and which of them were reached.

    The same damped Newton steps as `maximize`, on dense matrices side by side.
    """
    problem = _Together(ranking)
    parameters = np.tile(ranking.parameters, (observed.shape[1], 1))
    value, converged = problem.objective(parameters, observed), np.zeros(observed.shape[1], bool)
    active = np.arange(observed.shape[1])
    for _ in range(MOST_STEPS):
        here, seen = parameters[active], observed[:, active]
        step, rise = problem.step(here, seen)
        length, pending = np.ones(len(active)), np.ones(len(active), bool)
        noise = 1e-13 * np.abs(value[active]) + ranking.likelihood.rounding(ranking.parameters)
        moved, risen = here.copy(), value[active].copy()
        while pending.any() and length.min() > 1e-8:
            tried = here[pending] + length[pending, None] * step[pending]
            allowed = np.array([not ranking.model.has_ties or ranking.model.allows(tie) for tie in tried[:, -1]])
            tried[~allowed] = here[pending][~allowed]
            got = problem.objective(tried, seen[:, pending])
            wanted = value[active][pending] + 1e-4 * length[pending] * rise[pending] - noise[pending]
            good = np.flatnonzero(pending)[allowed & (got >= wanted)]
            moved[good], risen[good] = tried[allowed & (got >= wanted)], got[allowed & (got >= wanted)]
            pending[good] = False
            length[pending] /= 2
        parameters[active], value[active] = problem.centred(moved), risen
        small = (length == 1) & (np.abs(step).max(axis=1) <= SMALL_STEP)
        converged[active[small]] = True
        active = active[~small & ~pending]
        if not len(active):
            break
    return parameters, converged


class _Together:
    """The objective of several draws, and its Newton steps."""

    def __init__(self, ranking: Ranking) -> None:
        totals = ranking.totals
        rows, extras = len(totals.left), totals.shifts.shape[1]
        index = np.arange(rows)
        columns = [totals.left, totals.right, *(np.full(rows, totals.items + extra) for extra in range(extras))]
        values = [np.ones(rows), -np.ones(rows), *totals.shifts.T]
        self.ranking, self.items, self.shifting = ranking, totals.items, totals.items + extras
        self.of_advantage = sparse.coo_array(
            (np.concatenate(values), (np.tile(index, len(values)), np.concatenate(columns))),
            shape=(rows, self.shifting),
        ).tocsr()
        pairs = [(a, b) for a in range(len(values)) for b in range(len(values))]
        self.of_information = sparse.coo_array(
            (
                np.concatenate([values[a] * values[b] for a, b in pairs]),
                (
                    np.tile(index, len(pairs)),
                    np.concatenate([columns[a].astype(np.int64) * self.shifting + columns[b] for a, b in pairs]),
                ),
            ),
            shape=(rows, self.shifting**2),
        ).tocsr()
        self.precision = 0.0 if ranking.prior_variance is None else 1 / ranking.prior_variance
        self.together = (ranking.component[:, None] == ranking.component) / totals.items
        self.ties = ranking.model.has_ties

    def advantage(self, parameters: Floats) -> Floats:
        """BG."""
        product: Floats = (self.of_advantage @ parameters[:, : self.shifting].T).T
        return product

    def objective(self, parameters: Floats, observed: Floats) -> Floats:
        """B: log-likelihoods less the prior's penalty."""
        logs = self.ranking.model.log_probabilities(self.advantage(parameters), parameters[:, -1:])
        penalty = self.precision * np.square(parameters[:, : self.items]).sum(axis=1) / 2
        value: Floats = np.sum(observed * logs, axis=(0, 2), where=observed > 0) - penalty
        return value

    def step(self, parameters: Floats, observed: Floats) -> tuple[Floats, Floats]:
        """Bp and B: the Newton steps, and how much the objective would rise along them at their beginning."""
        by = self.ranking.model.derivatives(self.advantage(parameters), parameters[:, -1:], observed)
        draws, items, shifting = len(parameters), self.items, self.shifting
        slope = np.zeros_like(parameters)
        slope[:, :shifting] = (self.of_advantage.T @ np.sum(observed * by.advantage, axis=0).T).T
        slope[:, :items] -= self.precision * parameters[:, :items]
        whole = np.zeros((draws, parameters.shape[1], parameters.shape[1]))
        of_pairs = (self.of_information.T @ by.advantage_advantage.T).T
        whole[:, :shifting, :shifting] = of_pairs.reshape(draws, shifting, shifting)
        if self.ties:
            slope[:, -1] = np.sum(observed * by.tie, axis=(0, 2))
            whole[:, -1, :shifting] = whole[:, :shifting, -1] = (self.of_advantage.T @ by.advantage_tie.T).T
            whole[:, -1, -1] = by.tie_tie.sum(axis=1)
        diagonal = np.einsum("bpp->bp", whole)
        scale = diagonal[:, :items].mean(axis=1)
        if self.precision:
            diagonal[:, :items] += self.precision
        else:
            whole[:, :items, :items] += scale[:, None, None] * self.together
        # A draw may leave an extra without information; this keeps the others' steps.
        diagonal += 1e-13 * diagonal + 1e-300
        step = np.linalg.solve(whole, slope[:, :, None])[:, :, 0].astype(np.float64, copy=False)
        return step, np.sum(step * slope, axis=1)

    def centred(self, parameters: Floats) -> Floats:
        """Bp, with strengths of mean zero where there is no prior."""
        return parameters if self.precision else centred(parameters.T, self.ranking.component).T
