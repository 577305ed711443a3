"""Claims about the table of objectives."""

from __future__ import annotations

import math

import pytest
import torch

from kilter.errors import ConfigError
from kilter.objectives import OBJECTIVES, LabelledScores, objective
from objectives.drawn import drawn, loss_of, other_options
from objectives.points import answers, labelled, pairs, rankings

WITH_ZERO = [name for name, row in OBJECTIVES.items() if row.at_zero is not None]


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("name", WITH_ZERO)
def test_where_policy_and_reference_agree_the_mean_loss_is_as_declared(name: str, others: bool) -> None:
    row = OBJECTIVES[name]
    options = other_options(row) if others else row.defaults
    scores = drawn(row, at_zero=True)
    assert row.at_zero is not None
    assert float(loss_of(row, scores, options).mean()) == pytest.approx(row.at_zero(scores, **options), abs=1e-12)


@pytest.mark.parametrize("name", WITH_ZERO)
def test_where_they_differ_the_mean_loss_is_another(name: str) -> None:
    row = OBJECTIVES[name]
    scores = drawn(row)
    assert row.at_zero is not None
    assert abs(float(loss_of(row, scores, row.defaults).mean()) - row.at_zero(scores, **row.defaults)) > 1e-4


@pytest.mark.parametrize(("good", "bad"), [(3, 1), (4, 0), (0, 2)])
def test_the_declared_value_allows_for_how_many_answers_are_desirable(good: int, bad: int) -> None:
    scores = labelled([0.0] * good, [0.0] * bad, [0.0] * (good + bad))
    for name in [name for name, row in OBJECTIVES.items() if row.takes == "labelled"]:
        row = OBJECTIVES[name]
        assert row.at_zero is not None
        options = other_options(row)
        loss = loss_of(row, scores, options).mean()
        assert float(loss) == pytest.approx(row.at_zero(scores, **options), abs=1e-14)


def test_declared_values_at_zero_are_those_worked_out_by_hand() -> None:
    """Of the explicit forms the comparison is left, a gap of 2 here; of six orders two agree with one tie of two."""
    pair, one = pairs([0], [0]), labelled([0], [0], [0])
    log_probs = pair._replace(chosen=answers(log_prob=[-1]), rejected=answers(log_prob=[-3]))
    by_hand = {
        "dpo": (pair, math.log(2)),
        "ipo": (pair, 25),
        "ipo_mean": (pair, 25),
        "hinge": (pair, 1),
        "bco_pair": (pair, 2 * math.log(2)),
        "aot": (pair, math.log(2)),
        "aot_unpaired": (pair, math.log(2)),
        "beta_dpo": (pair, math.log(2)),
        "bt_kl": (log_probs, math.log1p(math.exp(-2))),
        "bt_kl_reference": (log_probs, math.log1p(math.exp(-2))),
        "kto": (one, 0.5),
        "bco": (one, math.log(2)),
        "plackett_luce": (rankings(([0, 0, 0], [4, 1, 4])), math.log(3)),
        "kl": (answers(log_prob=[-1]), 0),
        "kl_reference": (answers(log_prob=[-1]), 0),
    }
    for name, (scores, wanted) in by_hand.items():
        row = OBJECTIVES[name]
        assert row.at_zero is not None
        assert row.at_zero(scores, **row.defaults) == pytest.approx(wanted, abs=1e-12), name


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_row_says_what_it_is_where_it_comes_from_and_when_to_take_it(name: str) -> None:
    row = OBJECTIVES[name]
    assert row.summary
    assert row.paper
    assert row.when
    assert row.equation
    assert row.needs_reference == (row.at_zero is not None)
    assert bool(row.state) == (row.remember is not None)
    assert row.unit == "batch" or not row.state


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_mean_is_over_items_of_the_kind_that_the_loss_is_of(name: str) -> None:
    row = OBJECTIVES[name]
    denominators = {
        "pairs": {"pairs"},
        "labelled": {"answers"},
        "answers": {"tokens"},
        "all answers": {"answers"},
        "rankings": {"rankings"},
    }
    assert row.denominator in denominators[row.takes]
    scores = drawn(row)
    items = {"labelled": 9}.get(row.takes, 4)
    assert loss_of(row, scores, row.defaults).shape == (items,)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_defaults_are_within_their_ranges(name: str) -> None:
    for option in OBJECTIVES[name].options.values():
        assert option.check(option.default, name) == option.default


def test_the_reference_point_is_shared_by_all_answers_of_a_batch() -> None:
    zeros = answers(log_prob=[0.0, 0.0], reference_log_prob=[0.0, 0.0])
    near, far = (
        OBJECTIVES["kto"].loss(LabelledScores(zeros, zeros, answers(log_prob=[x], reference_log_prob=[0.0])))
        for x in (0.0, 5.0)
    )
    assert (near != far).all()
    torch.testing.assert_close(near, torch.full((4,), 0.5, dtype=torch.float64))


def test_an_objective_is_found_by_name_and_an_unknown_one_lists_those_there_are() -> None:
    assert objective("dpo") is OBJECTIVES["dpo"]
    with pytest.raises(ConfigError, match=rf"'dop'; choose one of: {', '.join(OBJECTIVES)}$"):
        objective("dop")
