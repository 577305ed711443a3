"""Claims about comparisons and rankings read from tables in memory: outcomes, covariates, what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from kilter.errors import ConfigError, DataError
from kilter.ranking.comparisons import Comparisons, Rankings
from kilter.ranking.reading.tables import read, read_comparisons

TABLE: dict[str, list[Any]] = {"left": ["x", "y", "x", "x"], "right": ["y", "x", "z", "y"]}


def comparisons(data: Any, **options: Any) -> Comparisons:
    found = read_comparisons(data, **options)
    assert isinstance(found, Comparisons)
    return found


def rankings(data: Any, **options: Any) -> Rankings:
    found = read_comparisons(data, **options)
    assert isinstance(found, Rankings)
    return found


def told(found: Comparisons) -> set[tuple[Any, Any, float, float]]:
    """Each unique row by the items' names: left, right, outcome, count."""
    return {
        (found.items[a], found.items[b], float(y), float(n))
        for a, b, y, n in zip(found.left, found.right, found.outcome, found.count, strict=True)
    }


def outcomes(columns: dict[str, list[Any]], **options: Any) -> list[float]:
    """The outcomes of rows that are kept apart by a prompt of their own."""
    rows = len(next(iter(columns.values())))
    found = comparisons(columns | {"row": list(range(rows))}, prompt="row", **options)
    assert found.prompt is not None
    return [float(y) for y in found.outcome[np.argsort(found.prompt)]]


def sides(rows: int, left: str = "model_a", right: str = "model_b") -> dict[str, list[Any]]:
    return {left: ["x"] * rows, right: ["y"] * rows}


def test_words_for_a_side_and_for_ties() -> None:
    words = ["model_a", "Model B", "tie", "tie (bothbad)", "both bad", "draw", "left", "RIGHT", "a", "b", "x", "y"]
    expected = [1, 0, 0.5, 0.5, 0.5, 0.5, 1, 0, 1, 0, 1, 0]
    assert outcomes(sides(12) | {"winner": words}) == expected


def test_of_home_and_away_h_d_and_a_are_known() -> None:
    assert outcomes(sides(3, "HomeTeam", "AwayTeam") | {"FTR": ["H", "D", "A"]}) == [1, 0.5, 0]


def test_one_hot_columns_are_read() -> None:
    columns = {"winner_model_a": [1, 0, 0], "winner_model_b": [0, 1, 0], "winner_tie": [0, 0, 1]}
    assert outcomes(sides(3) | columns) == [1, 0, 0.5]


def test_more_than_one_one_hot_winner_is_refused() -> None:
    columns = {"winner_model_a": [1], "winner_model_b": [1], "winner_tie": [0]}
    with pytest.raises(DataError, match=r"row 1: .* is 1, 1, 0, which is no outcome .*; expected a single 1"):
        read(sides(1) | columns)


def test_preference_above_one_and_a_half_favours_the_second() -> None:
    assert outcomes(sides(5) | {"preference": [1.0, 2.0, 1.5, 1.75, 0.0]}) == [1, 0, 0.5, 0.25, 0.5]
    assert outcomes(sides(1, "generator_1", "generator_2") | {"preference": [1.9]}) == [0.1]


def test_the_higher_score_wins() -> None:
    scores = {"home_score": [2, 0, 10], "away_score": [1, 0, 9.5]}
    assert outcomes(sides(3, "home_team", "away_team") | scores) == [1, 0.5, 1]
    assert outcomes(sides(2, "home", "away") | {"home_goals": ["2", "10"], "away_goals": ["10", "9"]}) == [0, 1]


def test_grades_are_the_left_items() -> None:
    assert outcomes(sides(3) | {"outcome": [1.0, 0.3, 0.0]}) == [1, 0.3, 0]
    assert outcomes(sides(2) | {"outcome": ["model_a", "tie"]}) == [1, 0.5]


def test_winner_and_loser_by_name() -> None:
    assert told(comparisons({"winner": ["x", "x"], "loser": ["y", "y"]})) == {("x", "y", 1.0, 2.0)}


def test_names_that_are_also_words_for_the_other_side_are_names_where_all_rows_say_so() -> None:
    columns: dict[str, list[Any]] = {"left": ["b", "a"], "right": ["a", "c"], "winner": ["a", "c"]}
    assert told(comparisons(columns)) == {("b", "a", 0.0, 1.0), ("a", "c", 0.0, 1.0)}


def test_a_winner_that_can_be_either_item_is_refused() -> None:
    with pytest.raises(DataError, match="is the name of an item and a word for the other side"):
        read({"left": ["b"], "right": ["a"], "winner": ["a"]})


@pytest.mark.parametrize("word", ["tei", "model_c", "z", "1.5", "none"])
def test_an_unknown_word_is_an_error_with_the_row_and_never_a_tie(word: str) -> None:
    with pytest.raises(DataError, match=rf"^row 3: winner is '{word}', .*\(in 2 rows\); expected .*model_a"):
        read(sides(4) | {"winner": ["tie", "model_a", word, word]})


def test_what_is_missing_is_an_error_with_the_row_unless_it_is_skipped() -> None:
    for columns, row in (
        (TABLE | {"winner": ["left", None, "right", "left"]}, 2),
        (TABLE | {"left": ["x", "y", " ", "x"], "winner": ["left"] * 4}, 3),
        (TABLE | {"winner": ["left"] * 4, "judge": ["j", "j", "j", None]}, 4),
    ):
        with pytest.raises(DataError, match=rf"^row {row}: \w+ has no value \(in 1 row\).*--skip-missing"):
            read(columns, judge="judge" if "judge" in columns else None)
        found = read(columns, skip_missing=True, judge="judge" if "judge" in columns else None)
        assert (found.skipped, found.data.games) == (1, 3)
        assert found.warnings == ("1 row with something missing left out",)


def test_an_item_against_itself_is_left_out_and_told() -> None:
    columns: dict[str, list[Any]] = {"left": ["x", "q"], "right": ["y", "q"], "winner": ["left", "left"]}
    found = read(columns)
    assert found.data.items == ("x", "y")
    assert "1 row left out" in found.warnings[0]
    with pytest.warns(UserWarning, match="compare an item with itself"):
        read_comparisons(columns)


@pytest.mark.parametrize(
    "make",
    [
        pd.DataFrame,
        pl.DataFrame,
        pl.LazyFrame,
        pa.table,
        dict,
        lambda columns: [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)],
        lambda columns: list(zip(columns["left"], columns["right"], columns["winner"], strict=True)),
        lambda columns: {name: np.array(values) for name, values in columns.items()},
        lambda columns: pd.DataFrame(columns).astype("category"),
        lambda columns: pl.DataFrame(columns).cast(pl.Categorical),
    ],
)
def test_every_kind_of_table_reads_alike(make: Any) -> None:
    columns = TABLE | {"winner": ["left", "right", "tie", "left"]}
    found = comparisons(make(columns))
    assert found.items == ("x", "y", "z")
    assert told(found) == {("x", "y", 1.0, 2.0), ("y", "x", 0.0, 1.0), ("x", "z", 0.5, 1.0)}


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.choice(["p", "q", "r", "s"], (200, 2)), columns=["left", "right"])
    frame = frame[frame.left != frame.right]
    frame["winner"] = rng.choice(["left", "right", "tie"], len(frame))
    frame["length"] = rng.integers(0, 3, len(frame))
    frame["judge"] = rng.choice(["m", "n"], len(frame))
    one = comparisons(frame, covariates=["length"], judge="judge")
    other = comparisons(frame.sample(frac=1, random_state=1), covariates=["length"], judge="judge")
    for name in ("left", "right", "outcome", "count", "covariates", "judge"):
        assert np.array_equal(getattr(one, name), getattr(other, name))
    assert (one.items, one.judges) == (other.items, other.judges)


def test_whole_numbers_are_items_in_order_of_size() -> None:
    assert comparisons([(10, 9, 1.0), (2, 10, 0.0)]).items == (2, 9, 10)
    assert comparisons([("10", "9"), ("2", "10")]).items == ("2", "9", "10")
    assert comparisons([("10", "9"), ("a", "10")]).items == ("10", "9", "a")


def test_tuples_are_comparisons_and_their_third_part_an_outcome_or_a_winner() -> None:
    assert told(comparisons([("x", "y"), ("x", "y")])) == {("x", "y", 1.0, 2.0)}
    assert told(comparisons([("x", "y", 0.25)])) == {("x", "y", 0.25, 1.0)}
    assert told(comparisons([("x", "y", "y")])) == {("x", "y", 0.0, 1.0)}
    assert told(comparisons([(1, 2, 2)])) == {(1, 2, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (3.5, "comparisons are float; expected a file's path"),
        ([], "there are no comparisons"),
        ([("x",)], "comparisons are a list of tuple"),
        ({"left": ["x"], "right": []}, "columns are of different lengths"),
        ({"left": ["x", 1], "right": ["y", "y"], "winner": ["left", "left"]}, "values of different kinds"),
        ({"left": [0.5], "right": [1.0], "winner": ["left"]}, "items are numbers with decimals"),
        ({"left": ["x"], "right": ["x"], "winner": ["left"]}, "none that compares two items"),
        ({"chosen": ["Yes. " * 90], "rejected": ["No."]}, "row 1: chosen has a text of 450 characters"),
        (pd.DataFrame({"left": [], "right": [], "winner": []}), "has no rows"),
    ],
)
def test_what_is_no_table_of_comparisons_is_refused(data: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(data)


def test_comparisons_are_returned_as_they_are_and_have_no_columns_to_name() -> None:
    given = Comparisons.counted(["x"], ["y"], [1.0])
    assert read_comparisons(given) is given
    with pytest.raises(ConfigError, match="comparisons have none"):
        read_comparisons(given, judge="judge")


def test_weights_are_kept_and_must_be_positive() -> None:
    columns = TABLE | {"winner": ["left"] * 4, "w": [1.0, 2.0, 0.5, 3.0]}
    found = comparisons(columns, weight="w")
    assert sorted(found.weight) == [0.5, 1, 2, 3]
    with pytest.raises(DataError, match=r"row 2: w is -2.0 .*expected a weight"):
        comparisons(columns | {"w": [1.0, -2.0, 0.5, 3.0]}, weight="w")


# Covariates.

BATTLES: dict[str, list[Any]] = {
    "model_a": ["x", "x", "x"],
    "model_b": ["y", "y", "y"],
    "winner": ["model_a", "tie", "model_b"],
    "chars_a": [10, 20, 30],
    "chars_b": [20, 10, 15],
    "style a": ["plain", "list", "plain"],
    "style b": ["list", "plain", "table"],
}


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("chars_a", [10, 20, 30]),
        ("chars_a-chars_b", [-10, 10, 15]),
        ("(chars_a - chars_b) / (chars_a + chars_b)", [-1 / 3, 1 / 3, 1 / 3]),
        ("log(chars_a) - log(chars_b)", [np.log(0.5), np.log(2), np.log(2)]),
        ("-abs(chars_a-2*chars_b)*0.5", [-15, 0, 0]),
    ],
)
def test_an_expression_of_columns_is_computed_as_written(text: str, expected: list[float], as_text: bool) -> None:
    columns = dict(BATTLES)
    if as_text:  # as in a CSV file
        columns |= {name: [str(value) for value in BATTLES[name]] for name in ("chars_a", "chars_b")}
    found = comparisons(columns, covariates=[text])
    assert found.covariate_names == (text,)
    by_outcome = dict(zip(found.outcome, found.covariates[:, 0], strict=True))
    assert [by_outcome[y] for y in (1.0, 0.5, 0.0)] == pytest.approx(expected, abs=1e-12)


def test_text_is_levels_against_the_most_frequent() -> None:
    found = comparisons(BATTLES, covariates=["style a"])
    assert found.covariate_names == ("style a=list",)
    assert dict(zip(found.outcome, found.covariates[:, 0], strict=True)) == {1.0: 0.0, 0.5: 1.0, 0.0: 0.0}


def test_texts_of_both_sides_give_differences_of_levels() -> None:
    found = comparisons(BATTLES, covariates=["`style a`-`style b`"])
    assert found.covariate_names == ("`style a`-`style b`=list", "`style a`-`style b`=table")
    rows = dict(zip(found.outcome, found.covariates.tolist(), strict=True))
    assert rows == {1.0: [-1.0, 0.0], 0.5: [1.0, 0.0], 0.0: [0.0, -1.0]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chars_c", r"no column 'chars_c' for the covariate 'chars_c'; did you mean"),
        ("chars_a-", "is no expression"),
        ("chars_a**2", r"has 'chars_a \*\* 2' in it"),
        ("__import__('os').getcwd()", "in it; expected a column"),
        ("exp(chars_a)", r"has 'exp\(chars_a\)' in it"),
        ("2+3", "names no column"),
        ("log(chars_a-10)", r"row 1: chars_a = 10: log\(chars_a-10\) is no finite number"),
        ("`style a`*2", "row 1: style a is .* expected a number"),
    ],
)
def test_what_is_no_covariate_is_told(text: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(BATTLES, covariates=[text])


@pytest.mark.parametrize("gap", [None, float("nan")])
def test_a_missing_number_of_a_covariate_is_told_with_the_row_or_skipped(gap: float | None) -> None:
    columns = pl.DataFrame(BATTLES | {"chars_a": [10.0, gap, 30.0]})
    with pytest.raises(DataError, match=r"row 2: chars_a-chars_b has no value \(in 1 row\)"):
        read(columns, covariates=["chars_a-chars_b"])
    found = read(columns, covariates=["chars_a-chars_b"], skip_missing=True)
    assert (found.skipped, found.data.games) == (1, 2)


# Rankings.


def entries(found: Rankings) -> set[tuple[tuple[tuple[int, Any], ...], float]]:
    """Each ranking as its places and items, with its count."""
    return {
        (
            tuple(
                (int(place), found.items[item])
                for item, place, at in zip(found.item, found.place, found.ranking, strict=True)
                if at == q
            ),
            float(found.count[q]),
        )
        for q in range(len(found.count))
    }


@pytest.mark.parametrize(
    "data",
    [
        {"ranking": ["x > y = z", "z>x", "z > x"]},
        pa.table({"ranking": [[["x"], ["y", "z"]], [["z"], ["x"]], [["z"], ["x"]]]}),
        {
            "ballot": ["p", "p", "p", "q", "q", "r", "r"],
            "item": ["x", "y", "z", "z", "x", "x", "z"],
            "rank": [1, 2, 2, 1, 2, 2, 1],
        },
    ],
)
def test_rankings_are_read_with_their_ties(data: Any) -> None:
    found = rankings(data)
    assert found.games == 3
    assert {places for places, _ in entries(found)} == {((1, "x"), (2, "y"), (2, "z")), ((1, "z"), (2, "x"))}


def test_lists_are_rankings_from_best_to_worst() -> None:
    found = rankings([["x", "y", "z"], ["z", "x"], ["z", "x"]])
    assert entries(found) == {(((1, "x"), (2, "y"), (3, "z")), 1.0), (((1, "z"), (2, "x")), 2.0)}


@pytest.mark.parametrize("bad", ["x", "x > x", "x > ", "x > y > x"])
def test_a_ranking_of_one_item_or_with_a_gap_or_a_repeat_is_refused_with_the_row(bad: str) -> None:
    with pytest.raises(DataError, match=rf"row 2: ranking is '{bad}'"):
        read({"ranking": ["x > y", bad]})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rank": [1, 0]}, "row 2: rank is 0 .*expected a place"),
        ({"item": ["x", "x"]}, "row 1: race and item 'p', 'x' has more than one place"),
        ({"race": ["p", "q"]}, "row 1: race 'p'; 'q' ranks a single item"),
        ({"rank": [1, None]}, "row 2: rank has no value"),
    ],
)
def test_places_that_make_no_ranking_are_refused_with_the_row(change: dict[str, list[Any]], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read({"race": ["p", "p"], "item": ["x", "y"], "rank": [1, 2]} | change)


def test_what_is_left_alone_in_a_ranking_is_skipped_with_what_was_missing() -> None:
    rows = {"race": ["p", "p", "q", "q", "q"], "item": ["x", "y", "x", "y", "z"], "rank": [1, None, 1, 2, None]}
    found = read(rows, skip_missing=True)
    assert found.skipped == 3
    assert found.data.games == 1
    with pytest.raises(DataError, match="race 'r' ranks a single item"):
        read(
            {name: [*values, more] for (name, values), more in zip(rows.items(), ["r", "x", 1], strict=True)},
            skip_missing=True,
        )


def test_the_order_of_rows_does_not_change_rankings() -> None:
    texts = ["x > y", "y = z > x", "z > y > x", "x > y"]
    one, other = rankings({"ranking": texts}), rankings({"ranking": texts[::-1]})
    for name in ("item", "ranking", "place", "count"):
        assert np.array_equal(getattr(one, name), getattr(other, name))


# Judges, prompts and weights of rankings.

BALLOTS: dict[str, list[Any]] = {
    "ranking": ["x > y = z", "z>x", "z > x", "x > z = y"],
    "who": ["bob", "ann", "ann", "bob"],
    "task": [7, 9, 9, 7],
    "w": [0.5, 2.0, 2.0, 0.5],
}
RACES: dict[str, list[Any]] = {
    "race": ["p", "p", "p", "q", "q", "r", "r", "s", "s", "s"],
    "item": ["x", "y", "z", "z", "x", "x", "z", "z", "x", "y"],
    "place": [1, 2, 2, 1, 2, 2, 1, 2, 1, 2],
    "who": ["bob"] * 3 + ["ann"] * 4 + ["bob"] * 3,
    "task": [7] * 3 + [9] * 4 + [7] * 3,
    "w": [0.5] * 3 + [2.0] * 4 + [0.5] * 3,
}
LAYOUTS = ("a row for each ranking", "a row for each place")
NAMED = {"judge": "who", "prompt": "task", "weight": "w"}


def same(one: Rankings, other: Rankings) -> bool:
    fields = ("item", "ranking", "place", "count", "weight", "judge", "prompt")
    equal = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)
    return equal and (one.items, one.judges) == (other.items, other.judges)


@pytest.mark.parametrize("make", [dict, pd.DataFrame, pl.DataFrame, pl.LazyFrame, pa.table])
@pytest.mark.parametrize("columns", [BALLOTS, RACES], ids=LAYOUTS)
def test_equal_rankings_by_one_judge_of_one_prompt_and_weight_are_counted_as_one(
    columns: dict[str, list[Any]], make: Any
) -> None:
    found = rankings(make(columns), **NAMED)
    assert entries(found) == {(((1, "x"), (2, "y"), (2, "z")), 2.0), (((1, "z"), (2, "x")), 2.0)}
    assert found.judges == ("ann", "bob")
    assert found.judge is not None
    assert found.prompt is not None
    first = int(np.flatnonzero(found.place[found.item == 0] == 1)[0])
    assert (found.judge[first], found.prompt[first], found.weight[first]) == (1, 0, 0.5)
    assert (found.judge[1 - first], found.prompt[1 - first], found.weight[1 - first]) == (0, 1, 2.0)


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_lists_have_judges_too(make: Any) -> None:
    found = rankings(make({"ranking": [["x", "y"], ["x", "y"], ["y", "x"]], "who": [3, 10, 3]}), judge="who")
    assert found.judges == (3, 10)
    assert found.judge is not None
    assert sorted(zip(found.judge.tolist(), found.place.reshape(3, 2)[:, 0], strict=True)) == [(0, 1), (0, 1), (1, 1)]
    assert found.count.tolist() == [1, 1, 1]


@pytest.mark.parametrize("other", [{"who": "cor"}, {"task": 8}, {"w": 3.0}])
@pytest.mark.parametrize("columns", [BALLOTS, RACES], ids=LAYOUTS)
def test_equal_rankings_that_differ_in_an_attribute_are_kept_apart(
    columns: dict[str, list[Any]], other: dict[str, Any]
) -> None:
    ((name, value),) = other.items()
    last = 1 if columns is BALLOTS else 3
    changed = columns | {name: columns[name][:-last] + [value] * last}
    assert sorted(rankings(changed, **NAMED).count) == [1, 1, 2]
    assert sorted(rankings(changed).count) == [2, 2]


@pytest.mark.parametrize("columns", [BALLOTS, RACES], ids=LAYOUTS)
def test_judged_rankings_do_not_depend_on_the_order_of_rows(columns: dict[str, list[Any]]) -> None:
    frame = pd.DataFrame(columns)
    one = rankings(frame, **NAMED)
    for seed in range(3):
        assert same(one, rankings(frame.sample(frac=1, random_state=seed), **NAMED))


def test_both_layouts_hold_the_same_rankings() -> None:
    assert same(rankings(BALLOTS, **NAMED), rankings(RACES, **NAMED))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("who", None, "row 2: who has no value .*--skip-missing"),
        ("task", None, "row 2: task has no value .*--skip-missing"),
        ("w", None, "row 2: w has no value .*--skip-missing"),
        ("w", -2.0, "row 2: w is -2.0 .*expected a weight, a positive number"),
    ],
)
@pytest.mark.parametrize("columns", [BALLOTS, RACES], ids=LAYOUTS)
def test_an_attribute_of_a_ranking_that_is_none_is_refused_with_the_row(
    columns: dict[str, list[Any]], name: str, value: Any, said: str
) -> None:
    changed = [columns[name][0], value, *columns[name][2:]]
    with pytest.raises(DataError, match=said):
        read(columns | {name: changed}, **NAMED)


@pytest.mark.parametrize(("columns", "gaps"), [(BALLOTS, [1]), (RACES, [3, 4])], ids=LAYOUTS)
def test_rankings_without_a_judge_are_skipped_and_their_rows_counted(
    columns: dict[str, list[Any]], gaps: list[int]
) -> None:
    judges = [None if row in gaps else judge for row, judge in enumerate(columns["who"])]
    found = read(columns | {"who": judges}, judge="who", skip_missing=True)
    assert (found.skipped, found.data.games) == (len(gaps), 3)
    with pytest.raises(DataError, match="rows have something missing; expected at least one ranking"):
        read(columns | {"who": [None] * len(judges)}, judge="who", skip_missing=True)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("who", "cor", "row 4: race and who are 'q', 'ann'; 'q', 'cor' .*expected one judge for each ranking"),
        ("task", 1, "row 4: race and task are 'q', 1; 'q', 9 .*expected one prompt for each ranking"),
        ("w", 3.0, "row 4: race and w are 'q', 2.0; 'q', 3.0 .*expected one weight for each ranking"),
    ],
)
def test_places_of_one_ranking_have_one_judge_prompt_and_weight(name: str, value: Any, said: str) -> None:
    with pytest.raises(DataError, match=said):
        read(RACES | {name: [*RACES[name][:4], value, *RACES[name][5:]]}, **NAMED)


def test_rankings_take_no_covariates_and_no_lists_of_judges() -> None:
    with pytest.raises(ConfigError, match="covariates are for comparisons, and these are rankings; leave w out"):
        read(BALLOTS, covariates=["w"])
    with pytest.raises(DataError, match="who holds lists or records; expected a judge in each row"):
        read(BALLOTS | {"who": [["ann"]] * 4}, judge="who")
