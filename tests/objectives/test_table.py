"""Claims about the table of objectives."""

from __future__ import annotations

import math

import pytest
import torch

from kilter.errors import ConfigError
from kilter.objectives import OBJECTIVES, LabelledScores, PairScores, objective, resolve_options

# Values of each option that are not its default; label smoothing beyond 1/2 would prefer the rejected answer.
OTHER_VALUES = {"beta": 0.7, "label_smoothing": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.4}
WITH_REFERENCE = [name for name, row in OBJECTIVES.items() if row.needs_reference]


@pytest.mark.parametrize("others", [(), tuple(OTHER_VALUES), *((option,) for option in OTHER_VALUES)])
@pytest.mark.parametrize("name", WITH_REFERENCE)
def test_where_policy_and_reference_agree_the_mean_loss_is_as_declared(name: str, others: tuple[str, ...]) -> None:
    row = OBJECTIVES[name]
    options = row.options | {option: OTHER_VALUES[option] for option in others if option in row.options}
    zeros = torch.zeros(3, dtype=torch.float64)
    scores = {"pairs": PairScores(zeros, zeros), "labelled": LabelledScores(zeros, zeros, zeros)}[row.takes]
    assert row.at_zero is not None
    assert float(row.loss(scores, **options).mean()) == pytest.approx(row.at_zero(**options), abs=1e-14)


@pytest.mark.parametrize(("good", "bad"), [(3, 1), (4, 0), (0, 2)])
def test_the_declared_value_allows_for_how_many_answers_are_desirable(good: int, bad: int) -> None:
    zeros = torch.zeros(good + bad, dtype=torch.float64)
    options = {"beta": 0.7, "desirable_weight": 1.5, "undesirable_weight": 0.4}
    row = OBJECTIVES["kto"]
    loss = row.loss(LabelledScores(zeros[:good], zeros[good:], zeros), **options).mean()
    assert row.at_zero is not None
    assert float(loss) == pytest.approx(row.at_zero(**options, desirable=good / (good + bad)), abs=1e-14)


def test_declared_values_at_zero_are_those_of_the_papers() -> None:
    at_zero = {name: OBJECTIVES[name].at_zero(**OBJECTIVES[name].options) for name in WITH_REFERENCE}  # type: ignore[misc]
    assert at_zero == pytest.approx({"dpo": math.log(2), "ipo": 25, "ipo_mean": 25, "hinge": 1, "kto": 0.5})


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_row_says_what_it_is_where_it_comes_from_and_what_it_takes(name: str) -> None:
    row = OBJECTIVES[name]
    assert row.summary
    assert row.paper
    assert set(row.options) <= set(OTHER_VALUES)
    assert row.needs_reference == (row.takes != "answers")


def test_only_losses_whose_items_depend_on_each_other_are_of_the_batch() -> None:
    """Through the reference point that they share."""
    zeros = torch.zeros(2, dtype=torch.float64)
    near, far = (OBJECTIVES["kto"].loss(LabelledScores(zeros, zeros, shift + zeros)) for shift in (0, 5))
    assert (near != far).all()
    assert [name for name, row in OBJECTIVES.items() if row.unit == "batch"] == ["kto"]


def test_an_objective_is_found_by_name_and_an_unknown_one_lists_those_there_are() -> None:
    assert objective("dpo") is OBJECTIVES["dpo"]
    with pytest.raises(ConfigError, match=r"'dop'; choose one of: dpo, ipo, ipo_mean, hinge, kto, sft"):
        objective("dop")


def test_options_that_were_given_replace_defaults_and_zero_is_given() -> None:
    assert resolve_options("dpo", {}) == {"beta": 0.1, "label_smoothing": 0.0}
    given = {"beta": 0.3, "label_smoothing": None, "desirable_weight": None}
    assert resolve_options("dpo", given) == {"beta": 0.3, "label_smoothing": 0.0}
    assert resolve_options("kto", {"desirable_weight": 0.0})["desirable_weight"] == 0.0


@pytest.mark.parametrize(
    ("name", "option", "has"),
    [
        ("dpo", "desirable_weight", "beta, label_smoothing"),
        ("ipo", "label_smoothing", "beta"),
        ("kto", "label_smoothing", "beta, desirable_weight, undesirable_weight"),
        ("sft", "beta", "no options"),
    ],
)
def test_an_option_that_the_objective_would_ignore_is_refused_with_those_it_has(
    name: str, option: str, has: str
) -> None:
    with pytest.raises(ConfigError, match=rf"'{name}' does not use {option} \(it has: {has}\)"):
        resolve_options(name, {option: 0.2})
