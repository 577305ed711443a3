"""Ratings that are updated game by game: Elo and Glicko, for streams.

Online approximations. They depend on the order in which games come, forget old ones at a rate that is set beforehand,
and do not converge to the maximum-likelihood strengths however many games there are: where all comparisons are at hand,
`kilter.ranking.bradley_terry` is what to use. Ratings are in points, of which 400 are odds of 10 to 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Item

# Log-odds of one point: Glickman's q.
PER_POINT = math.log(10) / 400


class Elo:
    """Elo's ratings: after each game the winner takes k times what was not expected of it from the loser.

    Elo 1978, "The Rating of Chessplayers". An online approximation: it depends on the order of the games, and swings
    about the maximum-likelihood strengths without coming to them. `k` is a number of points, or a function of how many
    games an item has played before this one (FIDE lowers it with experience). `home` is the advantage of the left item
    in points. `scale` points are odds of 10 to 1. Raises ConfigError for a setting that is no such number.
    """

    def __init__(
        self,
        k: float | Callable[[int], float] = 32.0,
        *,
        scale: float = 400.0,
        initial: float = 1000.0,
        home: float = 0.0,
    ) -> None:
        _check_settings(k=k, scale=scale)
        _check_finite(initial=initial, home=home)
        self.k = k
        self.scale = scale
        self.initial = initial
        self.home = home
        self.ratings: dict[Item, float] = {}
        self.games: dict[Item, int] = {}

    def predict(self, left: Item, right: Item) -> float:
        """The expected score of `left`: the probability that it wins, and half of that of a tie."""
        _check_pair(left, right)
        ahead = self.ratings.get(left, self.initial) + self.home - self.ratings.get(right, self.initial)
        return _logistic(math.log(10) * ahead / self.scale)

    def update(self, left: Item, right: Item, outcome: float) -> None:
        """Take in one game: 1 if `left` won, 0 if `right` did, 0.5 for a tie, a grade between."""
        _check_outcome(outcome)
        surprise = outcome - self.predict(left, right)
        for item, sign in ((left, 1), (right, -1)):
            played = self.games.get(item, 0)
            k = self.k(played) if callable(self.k) else self.k
            self.ratings[item] = self.ratings.get(item, self.initial) + sign * k * surprise
            self.games[item] = played + 1

    def to_json(self) -> str:
        """The settings and the ratings as text; a `k` that is a function is not in it, and must be given again."""
        k = None if callable(self.k) else self.k
        settings = {"method": "elo", "k": k, "scale": self.scale, "initial": self.initial, "home": self.home}
        items = [[item, self.ratings[item], self.games[item]] for item in self.ratings]
        return json.dumps({**settings, "items": items})

    @classmethod
    def from_json(cls, text: str, k: float | Callable[[int], float] | None = None) -> Elo:
        """The ratings as `to_json` wrote them; `k` if it was a function. Raises DataError for other text."""
        state = _state(text, "elo", ("k", "scale", "initial", "home", "items"))
        if k is None and state["k"] is None:
            raise ConfigError(
                "these ratings were updated with k as a function of the games played; give it again: k=..."
            )
        elo = cls(state["k"] if k is None else k, scale=state["scale"], initial=state["initial"], home=state["home"])
        elo.ratings = {item: rating for item, rating, _ in state["items"]}
        elo.games = {item: games for item, _, games in state["items"]}
        return elo


class GlickoRating(NamedTuple):
    """A rating and how far from it the true strength may lie: its standard deviation, in points."""

    rating: float
    deviation: float

    def interval(self, deviations: float = 1.96) -> tuple[float, float]:
        """Glickman's 95% interval."""
        return self.rating - deviations * self.deviation, self.rating + deviations * self.deviation


class Glicko:
    """Glickman's ratings with deviations, updated once for each rating period (Glicko-1).

    Glickman 1999, "Parameter estimation in large dynamic paired comparison experiments" (Applied Statistics 48), and
    "The Glicko system". An online approximation: a normal distribution for each item alone, one step of Newton's method
    in each period, dependent on where periods end. `growth` is his c: with every period the variance grows by
    growth squared, up to `initial_deviation` squared. Raises ConfigError for a setting that is no such number.
    """

    def __init__(
        self,
        *,
        initial: float = 1500.0,
        initial_deviation: float = 350.0,
        growth: float = 0.0,
        least_deviation: float = 0.0,
    ) -> None:
        _check_settings(initial_deviation=initial_deviation)
        _check_finite(initial=initial, growth=growth, least_deviation=least_deviation)
        if growth < 0 or not 0 <= least_deviation <= initial_deviation:
            raise ConfigError(
                f"growth is {growth:g} and least_deviation {least_deviation:g}: neither can be below 0, nor the least "
                f"deviation above the initial one of {initial_deviation:g}"
            )
        self.initial = GlickoRating(initial, initial_deviation)
        self.growth = growth
        self.least_deviation = least_deviation
        self.ratings: dict[Item, GlickoRating] = {}
        self._pending: list[tuple[Item, Item, float]] = []

    def predict(self, left: Item, right: Item) -> float:
        """The expected score of `left`, drawn towards a half by how unsure both ratings are (his equation 16)."""
        _check_pair(left, right)
        (a, a_deviation), (b, b_deviation) = (self.ratings.get(item, self.initial) for item in (left, right))
        return _logistic(_damping(math.hypot(a_deviation, b_deviation)) * PER_POINT * (a - b))

    def update(self, left: Item, right: Item, outcome: float) -> None:
        """Take in one game of the current period: 1 if `left` won, 0 if `right` did, 0.5 for a tie, a grade between.

        Ratings move when the period ends.
        """
        _check_pair(left, right)
        _check_outcome(outcome)
        self._pending.append((left, right, outcome))

    def end_period(self, games: Iterable[tuple[Item, Item, float]] = ()) -> None:
        """Rate the period's games, those given here among them, all against the ratings at its start."""
        for left, right, outcome in games:
            self.update(left, right, outcome)
        before = {
            item: GlickoRating(rating, min(math.hypot(deviation, self.growth), self.initial.deviation))
            for item, (rating, deviation) in self.ratings.items()
        }
        sums: dict[Item, tuple[float, float]] = {}
        for left, right, outcome in self._pending:
            for item, opponent, score in ((left, right, outcome), (right, left, 1 - outcome)):
                rating = before.setdefault(item, self.initial).rating
                other, deviation = before.get(opponent, self.initial)
                damping = _damping(deviation)
                expected = _logistic(damping * PER_POINT * (rating - other))
                slope, information = sums.get(item, (0.0, 0.0))
                sums[item] = (
                    slope + damping * (score - expected),
                    information + (PER_POINT * damping) ** 2 * expected * (1 - expected),
                )
        self.ratings = before
        for item, (slope, information) in sums.items():
            rating, deviation = before[item]
            variance = 1 / (1 / deviation**2 + information)
            self.ratings[item] = GlickoRating(
                rating + PER_POINT * variance * slope, max(math.sqrt(variance), self.least_deviation)
            )
        self._pending = []

    def to_json(self) -> str:
        """The settings, the ratings and the games of the period that has not ended, as text."""
        settings = {
            "method": "glicko",
            "initial": self.initial.rating,
            "initial_deviation": self.initial.deviation,
            "growth": self.growth,
            "least_deviation": self.least_deviation,
        }
        items = [[item, *rating] for item, rating in self.ratings.items()]
        return json.dumps({**settings, "items": items, "pending": self._pending})

    @classmethod
    def from_json(cls, text: str) -> Glicko:
        """The ratings as `to_json` wrote them; raises DataError for other text."""
        names = ("initial", "initial_deviation", "growth", "least_deviation")
        state = _state(text, "glicko", (*names, "items", "pending"))
        glicko = cls(**{name: state[name] for name in names})
        glicko.ratings = {item: GlickoRating(rating, deviation) for item, rating, deviation in state["items"]}
        glicko._pending = [(left, right, outcome) for left, right, outcome in state["pending"]]
        return glicko


def _damping(deviation: float) -> float:
    """Glickman's g: how much less a result says against an opponent whose own rating is unsure."""
    return 1 / math.sqrt(1 + 3 * (PER_POINT * deviation / math.pi) ** 2)


def _logistic(log_odds: float) -> float:
    return 1 / (1 + math.exp(-log_odds)) if log_odds >= 0 else math.exp(log_odds) / (1 + math.exp(log_odds))


def _check_outcome(outcome: float) -> None:
    if not 0 <= outcome <= 1:
        raise DataError(f"an outcome is 1 (left won), 0 (right won), 0.5 (neither), or a grade between; got {outcome}")


def _check_pair(left: Item, right: Item) -> None:
    if left == right:
        raise DataError(f"{left!r} is compared with itself; that says nothing about its strength")


def _check_settings(**settings: float | Callable[[int], float]) -> None:
    for name, value in settings.items():
        if not callable(value) and not (0 < value < math.inf):
            raise ConfigError(f"{name} is {value}; give a positive number of points")


def _check_finite(**settings: float) -> None:
    for name, value in settings.items():
        if not math.isfinite(value):
            raise ConfigError(f"{name} is {value}; give a finite number of points")


def _state(text: str, method: str, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        state = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"these are no saved ratings, nor any JSON: {error}") from error
    if not isinstance(state, dict) or state.get("method") != method or not set(names) <= state.keys():
        raise DataError(f"these are no ratings saved by {method}; give the text that its to_json returned")
    return dict(state)
