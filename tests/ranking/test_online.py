"""Claims about ratings updated game by game, against worked examples and what Elo's rule says by hand."""

from __future__ import annotations

import math

import pytest

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Item
from kilter.ranking.online import Elo, Glicko, GlickoRating


def test_glickmans_example_comes_to_1464_and_151() -> None:
    # Glickman, "The Glicko system": 1500/200 beats 1400/30, loses to 1550/100 and to 1700/300.
    glicko = Glicko()
    ratings = {"player": (1500, 200), "one": (1400, 30), "two": (1550, 100), "three": (1700, 300)}
    glicko.ratings = {name: GlickoRating(*rating) for name, rating in ratings.items()}
    glicko.update("player", "one", 1)
    glicko.end_period([("two", "player", 1), ("player", "three", 0)])
    rating, deviation = glicko.ratings["player"]
    assert rating == pytest.approx(1464.06, abs=0.06)  # 1464 in the text, whose steps are rounded
    assert deviation == pytest.approx(151.4, abs=0.05)


def test_glickmans_expected_score_is_0_376_and_damps_by_both_deviations() -> None:
    # His example of a prediction: 1400/80 against 1500/150.
    glicko = Glicko()
    glicko.ratings = {"a": GlickoRating(1400, 80), "b": GlickoRating(1500, 150)}
    assert glicko.predict("a", "b") == pytest.approx(0.376, abs=5e-4)
    assert glicko.predict("b", "a") == pytest.approx(1 - glicko.predict("a", "b"), rel=1e-14)


def test_deviations_grow_with_the_periods_up_to_where_they_began() -> None:
    # His c: from 50 to 350 in 30 periods is 63.2.
    glicko = Glicko(growth=63.2)
    glicko.ratings = {"idle": GlickoRating(1600, 50)}
    for _ in range(30):
        glicko.end_period()
    assert glicko.ratings["idle"].deviation == pytest.approx(350, abs=0.5)
    glicko.end_period()
    assert glicko.ratings["idle"] == GlickoRating(1600, 350)


def test_ratings_move_only_when_the_period_ends_and_all_at_once() -> None:
    games: list[tuple[Item, Item, float]] = [("a", "b", 1), ("b", "c", 0.5), ("c", "a", 0)]
    one, other = Glicko(), Glicko()
    for game in games:
        one.update(*game)
    assert one.ratings == {}
    one.end_period()
    other.end_period(reversed(games))
    for item in "abc":
        assert one.ratings[item] == pytest.approx(other.ratings[item], rel=1e-14)
    assert one.ratings["a"].interval() == pytest.approx(
        (
            one.ratings["a"].rating - 1.96 * one.ratings["a"].deviation,
            one.ratings["a"].rating + 1.96 * one.ratings["a"].deviation,
        )
    )


def test_a_deviation_never_falls_below_the_least() -> None:
    glicko = Glicko(least_deviation=300)
    glicko.end_period([("a", "b", 0.5)] * 50)
    assert glicko.ratings["a"].deviation == 300


def test_an_even_game_of_elo_moves_half_of_k() -> None:
    elo = Elo(k=32)
    elo.update("a", "b", 1)
    assert elo.ratings == {"a": 1016, "b": 984}


def test_400_points_ahead_are_odds_of_ten_to_one() -> None:
    elo = Elo(k=20)
    elo.ratings = {"a": 1400.0, "b": 1000.0}
    assert elo.predict("a", "b") == pytest.approx(10 / 11, rel=1e-14)
    elo.update("a", "b", 0)
    assert elo.ratings == pytest.approx({"a": 1400 - 20 * 10 / 11, "b": 1000 + 20 * 10 / 11}, rel=1e-14)


def test_who_is_at_home_is_expected_to_win_more() -> None:
    elo = Elo(home=100)
    assert elo.predict("a", "b") == pytest.approx(1 / (1 + 10 ** (-100 / 400)), rel=1e-14)
    assert elo.predict("b", "a") == elo.predict("a", "b")


def test_k_may_fall_with_the_games_an_item_has_played() -> None:
    elo = Elo(k=lambda games: 40 if games < 1 else 10)
    elo.update("a", "b", 1)
    elo.update("a", "c", 0.5)
    expected = elo_expected(1020 - 1000)
    assert elo.ratings["a"] == pytest.approx(1020 + 10 * (0.5 - expected), rel=1e-14)
    assert elo.ratings["c"] == pytest.approx(1000 - 40 * (0.5 - expected), rel=1e-14)


def elo_expected(ahead: float) -> float:
    return 1 / (1 + 10 ** (-ahead / 400))


def test_elo_depends_on_the_order_of_the_games() -> None:
    games = [("a", "b", 1), ("b", "c", 1), ("c", "a", 1)]
    forwards, backwards = Elo(), Elo()
    for game in games:
        forwards.update(*game)
    for game in reversed(games):
        backwards.update(*game)
    assert forwards.ratings["a"] < backwards.ratings["a"]


def test_elo_agrees_with_evalica_on_wins_and_ties() -> None:
    evalica = pytest.importorskip("evalica")
    left, right = list("abcabca"), list("bcabcac")
    won = [1, 0, 0.5, 1, 0.5, 0, 1]
    winner = {1: evalica.Winner.X, 0: evalica.Winner.Y, 0.5: evalica.Winner.Draw}
    theirs = evalica.elo(left, right, [winner[outcome] for outcome in won], initial=1000, k=30).scores
    elo = Elo(k=30)
    for game in zip(left, right, won, strict=True):
        elo.update(*game)
    assert elo.ratings == pytest.approx(theirs.to_dict(), rel=1e-12)


def test_ratings_come_back_from_json_as_they_were() -> None:
    elo = Elo(k=24, scale=300, initial=1200, home=50)
    elo.update("a", 7, 1)
    back = Elo.from_json(elo.to_json())
    assert (back.ratings, back.games, vars(back)) == (elo.ratings, elo.games, vars(elo))
    glicko = Glicko(growth=20)
    glicko.end_period([("a", 7, 1)])
    glicko.update(7, "b", 0.5)
    restored = Glicko.from_json(glicko.to_json())
    assert vars(restored) == vars(glicko)
    glicko.end_period()
    restored.end_period()
    assert restored.ratings == glicko.ratings


def test_a_k_that_is_a_function_must_be_given_again() -> None:
    text = Elo(k=lambda games: 40 / (1 + games)).to_json()
    with pytest.raises(ConfigError, match="give it again"):
        Elo.from_json(text)
    assert Elo.from_json(text, k=20).k == 20


@pytest.mark.parametrize("text", ["[1]", "no json", '{"method": "glicko"}', Glicko().to_json()])
def test_text_that_is_no_saved_elo_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"no saved ratings|no ratings saved by elo"):
        Elo.from_json(text)


def test_impossible_outcomes_pairs_and_settings_are_refused() -> None:
    for method in (Elo(), Glicko()):
        with pytest.raises(DataError, match="an outcome is 1"):
            method.update("a", "b", 2)
        with pytest.raises(DataError, match="an outcome is 1"):
            method.update("a", "b", math.nan)
        with pytest.raises(DataError, match="compared with itself"):
            method.update("a", "a", 1)
        assert method.ratings == {}
    with pytest.raises(ConfigError, match="k is -1"):
        Elo(k=-1)
    with pytest.raises(ConfigError, match="initial is nan"):
        Elo(initial=math.nan)
    with pytest.raises(ConfigError, match="initial_deviation is 0"):
        Glicko(initial_deviation=0)
    with pytest.raises(ConfigError, match="least_deviation 400"):
        Glicko(least_deviation=400)
