"""Claims about every objective, from its points worked out by hand."""

from __future__ import annotations

import pytest

from kilter.objectives import OBJECTIVES
from objectives.points import POINTS, Point

EVERY_POINT = [pytest.param(name, point, id=f"{name}-{i}") for name in POINTS for i, point in enumerate(POINTS[name])]


@pytest.mark.parametrize(("name", "point"), EVERY_POINT)
def test_losses_are_those_worked_out_by_hand(name: str, point: Point) -> None:
    row = OBJECTIVES[name]
    losses = row.loss(point.scores, **(row.state | point.options))
    assert losses.tolist() == pytest.approx(point.losses, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_two_points_at_options_of_its_own(name: str) -> None:
    """A point at the default beta would not tell whether beta is used; nor would one at a beta of 1."""
    row = OBJECTIVES[name]
    assert set(POINTS) == set(OBJECTIVES)
    scales = [option for option in ("beta", "weight") if option in row.options]
    own = [
        point
        for point in POINTS[name]
        if all(point.options.get(option, row.defaults[option]) not in (row.defaults[option], 1) for option in scales)
    ]
    assert len(own) >= 2


@pytest.mark.parametrize(
    ("name", "option"), [(name, option) for name, row in OBJECTIVES.items() for option in (*row.options, *row.state)]
)
def test_every_option_has_a_point_away_from_its_default(name: str, option: str) -> None:
    default = (OBJECTIVES[name].defaults | OBJECTIVES[name].state)[option]
    assert any(point.options.get(option, default) != default for point in POINTS[name])
