"""Claims about every objective, from its points worked out by hand."""

from __future__ import annotations

import pytest

from kilter.objectives import OBJECTIVES
from objectives.points import POINTS, Point, losses_at

EVERY_POINT = [pytest.param(name, point, id=f"{name}-{i}") for name in POINTS for i, point in enumerate(POINTS[name])]
EVERY_OPTION = [(name, option) for name, row in OBJECTIVES.items() for option in row.options]


@pytest.mark.parametrize(("name", "point"), EVERY_POINT)
def test_losses_are_those_worked_out_by_hand(name: str, point: Point) -> None:
    assert losses_at(point, OBJECTIVES[name]).tolist() == pytest.approx(point.losses, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_two_points_at_a_beta_of_their_own(name: str) -> None:
    """A point at the default beta would not tell whether beta is used; nor would one at a beta of 1."""
    default = OBJECTIVES[name].defaults.get("beta")
    own = [point for point in POINTS[name] if default is None or point.options.get("beta", default) not in (default, 1)]
    assert len(own) >= 2


@pytest.mark.parametrize(("name", "option"), EVERY_OPTION)
def test_every_option_has_a_point_away_from_its_default(name: str, option: str) -> None:
    default = OBJECTIVES[name].defaults[option]
    assert any(point.options.get(option, default) != default for point in POINTS[name])


def test_points_are_of_objectives_that_there_are() -> None:
    assert set(POINTS) == set(OBJECTIVES)
