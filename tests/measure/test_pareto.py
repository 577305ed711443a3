"""Claims about the reward-KL frontier: which points are best, and what its picture shows."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from itertools import pairwise

import numpy as np
import pytest

from kilter.data.svg import Panel, ticks
from kilter.measure.frontier import (
    KL_AXES,
    REWARD_AXES,
    Axis,
    Plane,
    Spot,
    drawing,
    first_of_all,
    markdown,
    pareto_best,
)
from kilter.measure.statistics import Interval

SVG = "{http://www.w3.org/2000/svg}"


def test_a_point_is_best_where_none_has_as_much_reward_at_less_kl_or_more_at_no_more() -> None:
    #        best        best        less reward  same KL, less  same reward, more KL
    points = [(1.0, 0.6), (2.0, 0.7), (2.5, 0.65), (1.0, 0.5), (3.0, 0.7)]
    assert pareto_best(points) == [True, True, False, False, False]


def test_points_at_the_same_place_are_best_together_and_one_alone_is() -> None:
    assert pareto_best([(1.0, 0.6), (1.0, 0.6)]) == [True, True]
    assert pareto_best([(5.0, 0.1)]) == [True]
    assert pareto_best([]) == []


def test_the_best_points_are_those_on_the_upper_left_of_every_other() -> None:
    draw = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in draw.integers(0, 12, (60, 2))]
    best = sorted({point for point, is_best in zip(points, pareto_best(points), strict=True) if is_best})
    assert all(before[1] < after[1] for before, after in pairwise(best))
    for kl, reward in points:
        assert max(y for x, y in best if x <= kl) >= reward


def test_the_interval_of_a_number_is_that_of_its_ends_or_of_its_standard_error() -> None:
    row = {
        "accuracy": 0.7,
        "accuracy_low": 0.6,
        "accuracy_high": 0.8,
        "answer_kl_policy_reference": 3.0,
        "answer_kl_policy_reference_se": 0.5,
    }
    accuracy, kl = REWARD_AXES[0].interval(row), KL_AXES[0].interval(row)
    assert accuracy == (0.7, 0.6, 0.8)
    assert kl == pytest.approx((3.0, 3.0 - 1.96 * 0.5, 3.0 + 1.96 * 0.5), abs=1e-4)
    assert Axis("gap", "", "").interval({"gap": 2}) == (2.0, 2.0, 2.0)
    assert Axis("gap", "", "").interval({"gap": 2, "gap_se": math.nan}) == (2.0, 2.0, 2.0)


def test_runs_are_held_against_each_other_by_the_first_kl_that_all_of_them_have() -> None:
    both = {"answer_kl_policy_reference": 3.0, "kl_policy_reference_along_chosen": 0.1}
    one = {"kl_policy_reference_along_chosen": 0.2}
    assert [axis and axis.key for axis in (first_of_all(KL_AXES, [both]), first_of_all(KL_AXES, [both, one]))] == [
        "answer_kl_policy_reference", "kl_policy_reference_along_chosen",
    ]  # fmt: skip
    assert first_of_all(KL_AXES, []) is None


def plane(*places: tuple[float, float], **settings: object) -> Plane:
    spots = [
        Spot(Interval(x, x - 0.1, x + 0.1), Interval(y, y - 0.05, y + 0.05), f"<{i}>", "a & b")
        for i, (x, y) in enumerate(places)
    ]
    return Plane(spots, "KL", "reward", "A plane", **settings)  # type: ignore[arg-type]


def test_a_picture_is_well_formed_with_a_ring_about_each_best_dot_and_all_within_it() -> None:
    limit = [(x / 10, math.sqrt(x / 10)) for x in range(100)]
    root = ET.fromstring(drawing([plane((1, 0.6), (2, 0.7), (2.5, 0.65)), plane((1, 0.5), limit=limit)], "Runs"))
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    circles = root.findall(f"{SVG}circle")
    assert sum(circle.attrib["fill"] == "none" for circle in circles) == 3  # two on the one plane, one on the other
    assert sum(circle.attrib["fill"] != "none" for circle in circles) == 4 + 1  # and one in the legend
    for circle in circles:
        assert 0 < float(circle.attrib["cx"]) < width
        assert 0 < float(circle.attrib["cy"]) < height
    for line in root.findall(f"{SVG}polyline"):
        for place in line.attrib["points"].split():
            x, y = map(float, place.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
    words = {text.text for text in root.findall(f"{SVG}text")}
    assert {"<0>", "<1>", "<2>", "a & b", "KL", "reward", "A plane", "line: the most there is"} <= words


def test_a_dot_lies_where_its_numbers_say() -> None:
    panel = Panel(10, 20, 100, 50, (0, 4), (0, 1))
    assert panel.at(1, 0.75) == (35, 20 + 50 / 4)


@pytest.mark.parametrize("places", [[], [(0.0, 0.5)], [(1.0, 0.5)] * 12])
def test_a_picture_of_no_run_of_one_that_did_not_move_and_of_many_at_one_place_is_drawn(
    places: list[tuple[float, float]],
) -> None:
    ET.fromstring(drawing([plane(*places)] if places else [], "Runs"))


def test_a_run_infinitely_far_away_is_not_drawn() -> None:
    root = ET.fromstring(drawing([plane((1, 0.6), (math.inf, 0.9))], "Runs"))
    words = {text.text for text in root.findall(f"{SVG}text")}
    assert "<0>" in words
    assert "<1>" not in words
    assert "inf" not in ET.tostring(root, "unicode")


def test_labels_of_dots_near_each_other_do_not_lie_on_each_other() -> None:
    root = ET.fromstring(drawing([plane((1, 0.6), (1.02, 0.6), (1.04, 0.6), (1.06, 0.6))], "Runs"))
    labels = [text for text in root.findall(f"{SVG}text") if (text.text or "").startswith("<")]
    places = [(float(text.attrib["x"]), float(text.attrib["y"])) for text in labels]
    for i, (x, y) in enumerate(places):
        assert not any(abs(x - other[0]) < 20 and abs(y - other[1]) < 10 for other in places[:i])


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert ticks(0.83, 1.01) == [0.85, 0.9, 0.95, 1.0]
    assert ticks(-1.2, 2.4) == [-1, 0, 1, 2]


def test_a_table_is_markdown() -> None:
    assert markdown([["run", "KL"], ["dpo", "1.0"]]) == "| run | KL |\n| --- | --: |\n| dpo | 1.0 |\n"
