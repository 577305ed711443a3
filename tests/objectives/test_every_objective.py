"""Claims about every objective, on scores at random."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from kilter.objectives import OBJECTIVES, RankingScores, Scores
from objectives.drawn import drawn, item, leaves, loss_of, only, other_options
from objectives.points import parts_of, with_parts

TRAINED = ("log_prob", "shared_log_prob", "kl_policy_reference", "kl_reference_policy")
MODULES = {f"kilter.objectives.{name}" for name in ("reference_free", "labelled", "coupled", "explicit", "rankings")}
HERE = [name for name, row in OBJECTIVES.items() if row.loss.__module__ in MODULES]
# Through some of what they look at no gradient flows; they have tests of their own.
STOPPED = {"kto", "bco_pair", "beta_dpo"}


def trained_sums(name: str) -> list[str]:
    return [own for own in TRAINED if own == "log_prob" or own in OBJECTIVES[name].needs]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_loss_looks_at_nothing_that_its_row_does_not_name(name: str) -> None:
    row, scores = OBJECTIVES[name], drawn(OBJECTIVES[name])
    fewer = only(scores, row.needs)
    torch.testing.assert_close(loss_of(row, fewer, row.defaults), loss_of(row, scores, row.defaults), rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_depend_on_other_items_of_the_batch_where_the_row_says_so_and_only_there(name: str) -> None:
    row, scores = OBJECTIVES[name], drawn(OBJECTIVES[name])
    together = loss_of(row, scores, row.defaults)
    alone = torch.cat([loss_of(row, item(scores, place), row.defaults) for place in range(4)])
    assert torch.allclose(together[:4], alone, rtol=1e-12, atol=0) == (row.unit != "batch")


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("name", [name for name in HERE if name not in STOPPED])
def test_gradients_in_every_trained_sum_equal_finite_differences(name: str, others: bool) -> None:
    row, scores = OBJECTIVES[name], drawn(OBJECTIVES[name], seed=1)
    options, names = other_options(row) if others else row.defaults, trained_sums(name)
    state = row.state if row.remember is None else row.remember(scores, **options, **row.state)
    found, _ = leaves(scores, names)

    def loss(*sums: Tensor) -> Tensor:
        taken = iter(sums)
        parts = [Scores(**part.sums_A | {own: next(taken) for own in names}) for part in parts_of(scores)]
        return row.loss(with_parts(scores, parts), **options, **state)

    assert torch.autograd.gradcheck(loss, found)


def slopes(name: str, scores: Any, options: dict[str, float]) -> list[Tensor]:
    """By the log-probs of each part."""
    found, scores = leaves(scores, ["log_prob"])
    total = loss_of(OBJECTIVES[name], scores, options).sum()
    return list(torch.autograd.grad(total, found, materialize_grads=True))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [name for name in HERE if OBJECTIVES[name].takes in ("pairs", "labelled")])
def test_better_answers_should_become_likelier_and_worse_ones_less_likely(name: str, seed: int) -> None:
    better, worse, *_ = slopes(name, drawn(OBJECTIVES[name], seed), OBJECTIVES[name].defaults)
    assert (better <= 0).all()
    assert (worse >= 0).all()
    assert (better < 0).any()
    assert (worse > 0).any() or name == "slic"  # which leaves pairs alone that are far apart


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", [name for name in HERE if OBJECTIVES[name].takes == "rankings"])
def test_the_best_answers_should_become_likelier_and_the_worst_ones_less_likely(name: str, seed: int) -> None:
    scores: RankingScores = drawn(OBJECTIVES[name], seed)
    (slope_A,) = slopes(name, scores, OBJECTIVES[name].defaults)
    rank_RK, slope_RK = scores.rank_A.view(-1, 3), slope_A.view(-1, 3)
    for rank_K, slope_K in zip(rank_RK, slope_RK, strict=True):
        if len(rank_K.unique()) > 1:
            assert (slope_K[rank_K == rank_K.min()] < 0).all()
            assert (slope_K[rank_K == rank_K.max()] > 0).all()
        else:
            assert (slope_K == 0).all()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("chosen", [-1e4, -1e-9, 0.0])
@pytest.mark.parametrize("rejected", [-1e4, -1e-9, 0.0])
@pytest.mark.parametrize("name", HERE)
def test_losses_and_gradients_of_answers_that_are_certain_or_out_of_the_question_are_finite(
    name: str, chosen: float, rejected: float, kind: torch.dtype
) -> None:
    """Also where the reference thinks the opposite."""
    row, scores = OBJECTIVES[name], drawn(OBJECTIVES[name])
    parts = []
    for place, part in enumerate(parts_of(scores)):
        own = torch.full((len(part),), (chosen, rejected, chosen)[place], dtype=kind)
        own[1::2] = rejected  # a ranking's answers are all in one part
        sums = {key: x.to(kind) for key, x in part.sums_A.items()}
        parts.append(Scores(**sums | {"log_prob": own, "reference_log_prob": -1e4 - own}))
    found, extreme = leaves(with_parts(scores, parts), trained_sums(name))
    losses = loss_of(row, extreme, row.defaults)
    assert losses.isfinite().all()
    assert all(slope.isfinite().all() for slope in torch.autograd.grad(losses.sum(), found, materialize_grads=True))
