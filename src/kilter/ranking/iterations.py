"""Two fixed-point iterations for Bradley-Terry that are older, or simpler, than Newton's: named alternatives to it.

Both converge linearly where Newton's method converges quadratically, and give no covariance: they are here to check
other fits by, and for those who ask for them by name. Strengths are only ever subtracted, so none overflows.

Axes: I items, G pairs that were compared.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit, logsumexp

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Floats, Integers, Item
from kilter.ranking.connectivity import UnidentifiedError, connectivity
from kilter.ranking.newton import NotConvergedError


@dataclass(frozen=True, eq=False)
class Iterated:
    """Where an iteration stopped: log-strengths of mean zero, and how much the last step still changed."""

    items: tuple[Item, ...]
    strengths: Floats  # I
    tie_parameter: float | None  # Davidson's t or Rao and Kupper's k, as in the fits; None without one
    iterations: int
    last_change: float  # of any strength or the tie parameter, at most


def minorize_maximize(comparisons: Comparisons, *, tolerance: float = 1e-12, max_iterations: int = 100_000) -> Iterated:
    """Strengths by the MM iteration, a tie being half a win for each: strength += log(wins / expected wins).

    Zermelo 1929; Hunter 2004 (Annals of Statistics 32, equation 3) proves that no step lowers the likelihood.
    Raises UnidentifiedError where no estimate exists and NotConvergedError where `max_iterations` were too few.
    """
    pairs = _pairs_of(comparisons)
    won_G, lost_G = pairs.wins + pairs.ties / 2, pairs.losses + pairs.ties / 2
    score_I = pairs.sums(won_G, lost_G)

    def step(strengths: Floats, tie: float) -> tuple[Floats, float]:
        expected_G = (won_G + lost_G) * expit(pairs.gaps(strengths))
        expected_I = pairs.sums(expected_G, won_G + lost_G - expected_G)
        return strengths + np.log(score_I) - np.log(expected_I), tie

    return _iterate(step, comparisons.items, None, tolerance, max_iterations)


def newman(
    comparisons: Comparisons, *, ties: str = "half", tolerance: float = 1e-12, max_iterations: int = 100_000
) -> Iterated:
    """Strengths by Newman's iteration: strength += log(wins it was not given / losses it was not given) / 2.

    Newman 2023 (JMLR 24:238): pi_i = sum_j w_ij pi_j / (pi_i + pi_j) over sum_j w_ji / (pi_i + pi_j), and the like for
    Davidson's and for Rao and Kupper's ties. His steps move one item at a time; here all move at once, each by
    half as far on the log scale. A pair's log-likelihood f is concave and depends on two items, so that f(both move by
    half) is at least the mean of f(one moves) and f(the other moves), and what raises the likelihood item by item
    raises it here too. (All at once and all the way, two items would swing for ever.)

    `ties` is "half", "davidson" or "rao-kupper". Raises ConfigError for another word, DataError where ties are to be
    fitted and there are none, or grades, UnidentifiedError where no estimate exists, and NotConvergedError where
    `max_iterations` were too few or the tie parameter runs away.
    """
    if ties not in NEWMAN_TIES:
        raise ConfigError(f"Newman's iteration knows no ties called {ties!r}; choose from {', '.join(NEWMAN_TIES)}")
    pairs = _pairs_of(comparisons)
    if ties != "half":
        if comparisons.graded:
            raise DataError(
                f"grades between 0 and 1 are no wins, losses or ties; ties={ties!r} wants those: use 'half'"
            )
        if not pairs.ties.any() or not (pairs.wins + pairs.losses).any():
            none = "ties" if not pairs.ties.any() else "wins"
            raise DataError(f"there are no {none}, so that ties={ties!r} has no finite estimate; use ties='half'")
    advance, start = NEWMAN_TIES[ties]
    return _iterate(partial(advance, pairs), comparisons.items, start, tolerance, max_iterations)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Weighed results of each pair of items that met, the item of the lower index being `left`."""

    left: Integers  # G
    right: Integers  # G
    wins: Floats  # G, of left; a grade y is y wins and 1 - y losses
    losses: Floats  # G
    ties: Floats  # G
    items: int

    def gaps(self, strengths: Floats) -> Floats:
        return strengths[self.left] - strengths[self.right]

    def sums(self, of_left: Floats, of_right: Floats) -> Floats:
        return np.asarray(
            np.bincount(self.left, of_left, self.items) + np.bincount(self.right, of_right, self.items), np.float64
        )


def _pairs_of(comparisons: Comparisons) -> _Pairs:
    """The totals of each pair; raises ConfigError where covariates would be ignored, and UnidentifiedError."""
    if comparisons.covariate_names:
        raise ConfigError(
            f"the iterations fit no covariates and there are: {', '.join(comparisons.covariate_names)}; "
            "leave them out, or use kilter.ranking.bradley_terry"
        )
    if not (found := connectivity(comparisons)).identified:
        raise UnidentifiedError(found)
    low, high = np.minimum(comparisons.left, comparisons.right), np.maximum(comparisons.left, comparisons.right)
    items = len(comparisons.items)
    keys, pair_R = np.unique(low.astype(np.int64) * items + high, return_inverse=True)
    score_R = np.where(comparisons.left == low, comparisons.outcome, 1 - comparisons.outcome)
    games_R, tied_R = comparisons.count * comparisons.weight, comparisons.outcome == 0.5

    def of_pair(share_R: Floats) -> Floats:
        return np.asarray(np.bincount(pair_R, games_R * share_R, len(keys)), np.float64)

    wins, losses = of_pair(np.where(tied_R, 0, score_R)), of_pair(np.where(tied_R, 0, 1 - score_R))
    ties = of_pair(tied_R.astype(np.float64))
    return _Pairs((keys // items).astype(np.int32), (keys % items).astype(np.int32), wins, losses, ties, items)


def _half_step(pairs: _Pairs, strengths: Floats, surprising_wins: Floats, surprising_losses: Floats) -> Floats:
    """The strengths after half of Newman's step, from what left won and lost beyond what it was given to."""
    gained = pairs.sums(surprising_wins, surprising_losses)
    lost = pairs.sums(surprising_losses, surprising_wins)
    return strengths + (np.log(gained) - np.log(lost)) / 2


def _newman_half(pairs: _Pairs, strengths: Floats, tie: float) -> tuple[Floats, float]:
    won_G, lost_G = pairs.wins + pairs.ties / 2, pairs.losses + pairs.ties / 2
    gap_G = pairs.gaps(strengths)
    return _half_step(pairs, strengths, won_G * expit(-gap_G), lost_G * expit(gap_G)), tie


def _newman_davidson(pairs: _Pairs, strengths: Floats, tie: float) -> tuple[Floats, float]:
    # Win, loss and tie are as exp(gap / 2), exp(-gap / 2) and exp(tie); a tie counts half a win.
    gap_G = pairs.gaps(strengths)
    logits_3G = np.stack([gap_G / 2, -gap_G / 2, np.full_like(gap_G, tie)])
    win_G, loss_G, tie_G = np.exp(logits_3G - logsumexp(logits_3G, axis=0))
    decisive_G = pairs.wins + pairs.losses
    tie += np.log(np.sum(pairs.ties * (win_G + loss_G))) - np.log(np.sum(decisive_G * tie_G))
    won_G, lost_G = pairs.wins + pairs.ties / 2, pairs.losses + pairs.ties / 2
    return _half_step(pairs, strengths, won_G * (loss_G + tie_G / 2), lost_G * (win_G + tie_G / 2)), float(tie)


def _newman_rao_kupper(pairs: _Pairs, strengths: Floats, tie: float) -> tuple[Floats, float]:
    # A tie has probability (exp(2 k) - 1) sigmoid(gap - k) sigmoid(-gap - k): one win of each, and a factor of k alone.
    gap_G = pairs.gaps(strengths)
    won_G, lost_G = pairs.wins + pairs.ties, pairs.losses + pairs.ties
    surprising_wins, surprising_losses = won_G * expit(tie - gap_G), lost_G * expit(tie + gap_G)
    # Hunter 2004, section 4.1: with c the surprises over exp(k), 2 ties exp(k) = c (exp(2 k) - 1).
    ratio = pairs.ties.sum() * np.exp(tie) / (surprising_wins.sum() + surprising_losses.sum())
    return _half_step(pairs, strengths, surprising_wins, surprising_losses), float(np.arcsinh(ratio))


# Each treatment of ties: its step, and the tie parameter that it starts from.
NEWMAN_TIES: dict[str, tuple[Callable[[_Pairs, Floats, float], tuple[Floats, float]], float | None]] = {
    "half": (_newman_half, None),
    "davidson": (_newman_davidson, 0.0),
    "rao-kupper": (_newman_rao_kupper, 1.0),
}


def _iterate(
    step: Callable[[Floats, float], tuple[Floats, float]],
    items: tuple[Item, ...],
    tie: float | None,
    tolerance: float,
    max_iterations: int,
) -> Iterated:
    strengths, parameter, change, iteration = np.zeros(len(items)), tie or 0.0, np.inf, 0
    for iteration in range(1, max_iterations + 1):
        with np.errstate(divide="ignore", invalid="ignore"):
            moved, moved_parameter = step(strengths, parameter)
            moved = moved - moved.mean()
        if not (np.all(np.isfinite(moved)) and np.isfinite(moved_parameter)):
            break
        change = max(float(np.abs(moved - strengths).max()), abs(moved_parameter - parameter))
        strengths, parameter = moved, moved_parameter
        if change <= tolerance:
            return Iterated(items, strengths, None if tie is None else parameter, iteration, change)
    raise NotConvergedError(
        f"after {iteration:,} iterations the last step was still {change:.2g}, and at most {tolerance:.2g} was wanted; "
        "allow more (max_iterations), or use kilter.ranking.fit, which says so if an estimate lies at infinity",
        np.append(strengths, [] if tie is None else parameter),
    )
