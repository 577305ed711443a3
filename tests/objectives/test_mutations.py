"""Every way to get an objective wrong that is easily written and hard to see breaks one of its points."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
from torch import Tensor

from kilter.objectives import OBJECTIVES, LabelledScores, Objective, PairScores, RankingScores, Scores
from objectives.points import POINTS, Point, losses_at, parts_of, with_parts


class Mutation(NamedTuple):
    """What is wrong, in which objectives it can be, and what they make of a point with it."""

    name: str
    applies: Callable[[str, Objective], bool]
    losses_at: Callable[[Point, Objective], Tensor]


def at(option: str, value: float) -> Mutation:
    """An option that is ignored."""
    return Mutation(
        f"{option} is always {value:g}", lambda name, row: option in row.options, partial(losses_at, **{option: value})
    )


def each(change: Callable[[Scores], Scores], scores: Any) -> Any:
    """The change made to all answers, however they are arranged."""
    return with_parts(scores, [change(answers) for answers in parts_of(scores)])


def log_probs_negated(answers: Scores) -> Scores:
    """Log-ratios and gaps have the other sign; divergences and lengths stay."""
    sums_A = answers.sums_A
    return Scores(**{name: -x if name.endswith("log_prob") else x for name, x in sums_A.items()})


def with_directions_of_kl_exchanged(answers: Scores) -> Scores:
    other = {"kl_policy_reference": "kl_reference_policy", "kl_reference_policy": "kl_policy_reference"}
    return Scores(**{other.get(name, name): x for name, x in answers.sums_A.items()})


def exchanged(scores: Any) -> Any:
    """The worse answers in the place of the better ones."""
    match scores:
        case PairScores(chosen, rejected):
            return scores._replace(chosen=rejected, rejected=chosen)
        case LabelledScores(desirable, undesirable, mismatched):
            return LabelledScores(undesirable, desirable, mismatched)
        case RankingScores():
            return scores._replace(rank_A=-scores.rank_A)
    raise AssertionError(type(scores))


# They are divergences between distributions, whatever the answer's own tokens.
WITHOUT_LOG_RATIOS = {"kl", "kl_reference"}

MUTATIONS = [
    Mutation("the loss is negated", lambda name, row: True, lambda point, row: -losses_at(point, row)),
    Mutation(
        "log-ratios are negated",
        lambda name, row: name not in WITHOUT_LOG_RATIOS,
        partial(losses_at, change=partial(each, log_probs_negated)),
    ),
    Mutation(
        "chosen and rejected are exchanged",
        lambda name, row: row.takes in ("pairs", "labelled", "rankings"),
        partial(losses_at, change=exchanged),
    ),
    Mutation(
        "the directions of KL are exchanged",
        lambda name, row: bool(row.needs & {"kl_policy_reference", "kl_reference_policy"}),
        partial(losses_at, change=partial(each, with_directions_of_kl_exchanged)),
    ),
    Mutation(
        "nothing is remembered",
        lambda name, row: bool(row.state),
        lambda point, row: row.loss(point.scores, **row.defaults | point.options, **row.state),
    ),
    at("beta", 1),
    *(at(*pair) for pair in sorted({pair for row in OBJECTIVES.values() for pair in row.defaults.items()})),
]
MUTANTS = [
    pytest.param(name, mutation, id=f"{name}: {mutation.name}")
    for name, row in OBJECTIVES.items()
    for mutation in MUTATIONS
    if mutation.applies(name, row)
]


def broken(point: Point, losses_at: Callable[[], Tensor]) -> bool:
    """Whether losses are not those of a point; what cannot even be formed is not."""
    try:
        losses = losses_at().tolist()
    except (KeyError, RuntimeError):
        return True
    return bool(losses != pytest.approx(point.losses, rel=1e-6, abs=1e-9))


@pytest.mark.parametrize(("name", "mutation"), MUTANTS)
def test_no_mutant_passes_all_points(name: str, mutation: Mutation) -> None:
    row = OBJECTIVES[name]
    assert any(broken(point, partial(mutation.losses_at, point, row)) for point in POINTS[name])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_that_is_right_passes_all_points(name: str) -> None:
    """So what a mutant breaks is broken by the mutation."""
    assert not any(broken(point, partial(losses_at, point, OBJECTIVES[name])) for point in POINTS[name])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_has_mutants_of_its_sign_its_sides_and_its_options(name: str) -> None:
    row = OBJECTIVES[name]
    mutations = {mutation.name for mutation in MUTATIONS if mutation.applies(name, row)}
    assert "the loss is negated" in mutations
    assert ("chosen and rejected are exchanged" in mutations) == (row.takes in ("pairs", "labelled", "rankings"))
    assert {f"{option} is always {value:g}" for option, value in row.defaults.items()} <= mutations
    assert ("beta is always 1" in mutations) == ("beta" in row.options)
