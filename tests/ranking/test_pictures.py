"""Claims about the pictures of a ranking: what is in them, in which order, and what is said of the rest."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from kilter.errors import ConfigError, RunError
from kilter.ranking import Comparisons, Ranking, Rankings, fit_comparisons, fit_rankings, pictures
from kilter.ranking.outcomes import OUTCOMES


def ranking(strengths: list[float], ties: str = "none", extra: float = 0.0, **changes: Any) -> Ranking:
    """A ring of games, and strengths of our choice in the place of those that fit it."""
    items = [f"item-{index}" for index in range(len(strengths))]
    outcomes = [1.0, 0.0, *([0.5] if OUTCOMES[ties].has_ties else [])]
    both = [(a, b, outcome) for a, b in zip(items, [*items[1:], items[0]], strict=True) for outcome in outcomes]
    left, right, outcome = zip(*both, strict=True)
    fitted = fit_comparisons(Comparisons.counted(left, right, outcome, items=items), ties=ties)  # type: ignore[arg-type]
    parameters = np.array([*strengths, *([extra] if OUTCOMES[ties].has_ties else [])])
    maximum = fitted.maximum._replace(parameters=parameters)
    if names := changes.pop("items", None):
        changes["comparisons"] = replace(fitted.comparisons, items=names)
    return replace(fitted, maximum=maximum, **changes)


def bins() -> Any:
    columns = {"predicted": [0.2, 0.5, 0.9], "observed": [0.25, 0.5, math.nan], "low": [0.1, 0.4, math.nan]}
    columns |= {"high": [0.4, 0.6, math.nan], "games": [50.0, 100.0, 0.0]}
    return SimpleNamespace(**{name: np.array(values) for name, values in columns.items()})


def texts(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [element.text or "" for element in root.iter() if element.tag.endswith("}text")]


def of_part(part: pictures.Part) -> str:
    return f'<svg xmlns="http://www.w3.org/2000/svg">{"".join(part.elements)}</svg>'


def circles(svg: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}circle")]


def test_the_strongest_item_stands_first_in_both_parts() -> None:
    drawn = [text for text in texts(pictures.drawing(ranking([0.1, 2.0, -1.0]))) if "item-" in text]
    assert drawn == ["1  item-1", "2  item-0", "3  item-2"] * 2


def test_a_stronger_item_is_drawn_further_right_and_higher_up() -> None:
    part = pictures.forest(["a", "b"], np.array([0.0, 1.0]), np.array([[-1.0, 1.0], [0.5, 1.5]]))
    (right, high), (left, low) = ((float(dot.attrib["cx"]), float(dot.attrib["cy"])) for dot in circles(of_part(part)))
    assert right > left
    assert high < low


def test_items_beyond_the_most_are_counted_not_dropped_silently() -> None:
    strengths = np.linspace(0, 1, 70)
    part = pictures.forest(list(range(70)), strengths, np.stack([strengths, strengths], axis=1))
    assert "10 more of 70 items are not shown" in texts(of_part(part))
    assert len(circles(of_part(part))) == 60


def test_an_interval_without_an_end_is_cut_with_an_arrow_and_leaves_the_others_room() -> None:
    intervals = np.array([[-np.inf, np.inf], [0.9, 1.1], [1.9, 2.1]])
    svg = of_part(pictures.forest(["a", "b", "c"], np.array([0.0, 1.0, 2.0]), intervals))
    assert {"◂", "▸"} <= set(texts(svg))
    places = [float(dot.attrib["cx"]) for dot in circles(svg)]
    assert max(places) - min(places) > pictures.FOREST_WIDTH / 3
    assert "nan" not in svg
    assert "inf" not in svg


def test_one_item_s_interval_of_no_width_can_be_drawn() -> None:
    assert len(circles(of_part(pictures.forest(["a"], np.zeros(1), np.zeros((1, 2)))))) == 1


def test_win_probabilities_are_those_of_bradley_and_terry() -> None:
    wins = pictures.win_probabilities(ranking([math.log(2), 0.0, math.log(10 / 3)]), np.arange(3))
    assert wins[0, 1] == pytest.approx(2 / 3)
    assert wins[0, 2] == pytest.approx(3 / 8)
    assert np.allclose(wins + wins.T, 1)


@pytest.mark.parametrize(("ties", "extra"), [("davidson", 0.4), ("rao-kupper", 0.4)])
def test_a_tie_is_half_a_win_each(ties: str, extra: float) -> None:
    gap = 1.3
    wins = pictures.win_probabilities(ranking([gap, 0.0], ties=ties, extra=extra), np.arange(2))
    if ties == "davidson":
        left, right, tie = math.exp(gap / 2), math.exp(-gap / 2), math.exp(extra)
        total = left + right + tie
        left, tie = left / total, tie / total
    else:
        left, right = 1 / (1 + math.exp(extra - gap)), 1 / (1 + math.exp(extra + gap))
        tie = 1 - left - right
    assert wins[0, 1] == pytest.approx(left + tie / 2)
    assert np.allclose(wins + wins.T, 1)


def test_very_far_strengths_have_probabilities_and_never_a_certainty() -> None:
    for ties in ("none", "davidson", "rao-kupper"):
        far = ranking([3000.0, -3000.0], ties=ties, extra=0.1)
        assert np.allclose(pictures.win_probabilities(far, np.arange(2)), [[0.5, 1], [0, 0.5]], atol=0.1)
    assert {">99", "<1"} <= set(texts(pictures.drawing(ranking([30.0, -30.0]))))


def test_items_of_other_components_have_no_probability() -> None:
    apart = ranking([0.0, 1.0, 0.5], component=np.array([0, 0, 1], np.int32))
    assert np.array_equal(np.isnan(pictures.win_probabilities(apart, np.arange(3)))[2], [True, True, False])
    svg = pictures.drawing(apart)
    assert "nan" not in svg
    assert "stroke-dasharray" in svg


def test_bins_without_games_are_left_out_and_more_games_are_larger_dots() -> None:
    few, many = circles(of_part(pictures.calibration(bins())))
    assert float(few.attrib["r"]) < float(many.attrib["r"])


def test_bins_of_favourites_fill_the_picture() -> None:
    above = SimpleNamespace(
        **{name: np.array([0.6, 0.9]) for name in ("predicted", "observed", "high")},
        low=np.array([0.55, 0.85]),
        games=np.array([9.0, 9.0]),
    )
    part = pictures.calibration(above)
    near, far = (float(dot.attrib["cx"]) for dot in circles(of_part(part)))
    assert "0.5" in texts(of_part(part))
    assert far - near > pictures.CALIBRATION_SIDE / 2


def test_long_names_are_cut_in_their_middle_and_stay_whole_for_the_pointer() -> None:
    name = "organisation/" + "very-" * 20 + "long-v0.2"
    shown = pictures.short(name)
    assert pictures.text_width(shown) <= pictures.LONGEST_NAME
    assert shown.startswith("organisation/")
    assert shown.endswith("long-v0.2")
    assert name in pictures.drawing(ranking([0.0, 1.0], items=(name, "b")))


def test_names_are_escaped_and_may_be_integers_or_have_control_characters() -> None:
    svg = pictures.drawing(ranking([0.0, 1.0, 2.0], items=('<b>&"x"', 7, "a\tb\x1b")))
    assert any('<b>&"x"' in text for text in texts(svg))


def test_nothing_overlaps_the_edges_of_the_picture() -> None:
    svg = pictures.drawing(ranking(list(np.linspace(-2, 2, 30))), bins())
    root = ElementTree.fromstring(svg)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    places = [(float(x), float(y)) for x, y in re.findall(r'x="([-\d.]+)" y="([-\d.]+)"', svg)]
    assert all(0 <= x <= width and 0 <= y <= height for x, y in places)


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.svg"
    pictures.draw(ranking([0.0, 1.0]), path, bins())
    assert ElementTree.parse(path).getroot().tag.endswith("svg")
    path.write_text("before")

    with pytest.raises(ConfigError, match="scale"):
        pictures.draw(ranking([0.0, 1.0]), path, scale="none")
    assert path.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.svg"]
    with pytest.raises(RunError, match=r"out\.svg"):
        pictures.draw(ranking([0.0, 1.0]), tmp_path / "none" / "out.svg")


def test_a_fitted_ranking_is_drawn_on_the_scale_that_is_asked_for() -> None:
    fitted = fit_comparisons(Comparisons.counted("AABBCA", "BBCCAC", [1, 0, 1, 0, 1, 1], [8, 4, 3, 2, 5, 3]))
    drawn = texts(pictures.drawing(fitted, scale="elo", anchor=("B", 1000.0), method="profile", level=0.9))
    assert "Elo points, 90% intervals" in drawn
    assert "1000" in drawn


def test_an_item_alone_in_its_component_has_a_dot_and_no_interval() -> None:
    intervals = np.array([[np.nan, np.nan], [0.9, 1.1]])
    svg = of_part(pictures.forest(["a", "b"], np.array([0.0, 1.0]), intervals, np.array([0, 1], np.int32)))
    assert len(circles(svg)) == 2
    assert "nan" not in svg


def test_fitted_rankings_are_drawn_too() -> None:
    item = np.array([0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2], np.int32)
    place = np.array([1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 1, 3], np.int32)
    held = Rankings(("a", "b", "c"), item, np.repeat(np.arange(4, dtype=np.int32), 3), place, np.ones(4))
    fitted = fit_rankings(held)
    assert "3  c" in texts(pictures.drawing(fitted))
    wins = pictures.win_probabilities(fitted, np.arange(3))
    left, right, tie = np.exp([fitted.strengths[0], fitted.strengths[1], fitted.tie_parameters[0]])
    tie *= math.sqrt(left * right)
    assert wins[0, 1] == pytest.approx((left + tie / 2) / (left + right + tie))
    told = fitted.told_on()
    assert pictures.drawing(fitted, told=told) == pictures.drawing(fitted)
    told[:, 2] += 1
    assert pictures.drawing(fitted, told=told) != pictures.drawing(fitted)
