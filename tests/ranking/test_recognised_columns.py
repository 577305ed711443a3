"""Claims about which column of a table is taken for what, and what its words mean."""

from __future__ import annotations

import pytest

from kilter.errors import ConfigError, DataError
from kilter.ranking.reading.columns import LAYOUTS, recognise


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_is_recognised_by_its_own_first_names(name: str) -> None:
    layout = LAYOUTS[name]
    names = layout.example.split(", ")
    found = recognise(["id", *names, "remarks"])
    assert (found.layout, dict(found.of)) == (name, dict(zip(layout.roles, names, strict=True)))
    assert all(column in found.says for column in names)


def test_case_and_punctuation_of_names_do_not_matter() -> None:
    found = recognise(["HomeTeam", "Away Team", "FTHG", "FTAG", "Referee"])
    assert found.layout == "scores"
    assert found.of == {"left": "HomeTeam", "right": "Away Team", "left_score": "FTHG", "right_score": "FTAG"}


def test_named_columns_win_and_the_others_are_recognised() -> None:
    found = recognise(["model_a", "model_b", "winner", "human_vote"], {"winner": "human_vote"})
    assert found.of == {"left": "model_a", "right": "model_b", "winner": "human_vote"}
    found = recognise(["x", "y", "z"], {"left": "x", "right": "y", "winner": "z"})
    assert found.of == {"left": "x", "right": "y", "winner": "z"}
    assert "x" in found.words.left


def test_a_side_that_is_named_leaves_the_other_to_be_recognised() -> None:
    found = recognise(["model_x", "model_b", "winner"], {"left": "model_x"})
    assert found.of == {"left": "model_x", "right": "model_b", "winner": "winner"}


def test_unknown_columns_are_listed_with_what_is_known() -> None:
    with pytest.raises(DataError, match=r"the columns are cat, dog: .*model_a, model_b, winner"):
        recognise(["cat", "dog"])


def test_a_role_or_column_that_is_none_is_told_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"cannot be 'winer'; did you mean winner\?"):
        recognise(["left", "right", "winner"], {"winer": "winner"})
    with pytest.raises(DataError, match=r"no column 'victor' to be winner; did you mean victors\?"):
        recognise(["left", "right", "victors"], {"winner": "victor"})


def test_a_is_the_left_side_of_models_and_the_away_side_of_teams() -> None:
    assert "a" in recognise(["model_a", "model_b", "winner"]).words.left
    assert "a" in recognise(["home", "away", "winner"]).words.right
