"""Scores at random, of which every sum is known, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kilter.objectives import LabelledScores, Objective, PairScores, RankingScores, Scores
from objectives.points import parts_of, with_parts

# Values of options that are nowhere a default, the first of them that an option may have is taken.
OTHERS = (0.45, 1.75)


def drawn(row: Objective, seed: int = 0, items: int = 4, *, at_zero: bool = False) -> Any:
    """What an objective takes: so many pairs, answers or rankings of three; of labelled answers one bad one more.

    At zero policy and reference agree.
    """
    draw = torch.Generator().manual_seed(seed)

    def uniform(count: int, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, dtype=torch.float64, generator=draw)

    def answers(count: int) -> Scores:
        log_prob, shared = uniform(count, -20, -10), uniform(count, -10, -5)
        apart = 0.0 if at_zero else 1.0
        return Scores(
            log_prob=log_prob,
            reference_log_prob=log_prob + apart * uniform(count, -3, 3),
            tokens=torch.randint(2, 9, (count,), generator=draw),
            shared_log_prob=shared,
            shared_reference_log_prob=shared + apart * uniform(count, -3, 3),
            kl_policy_reference=apart * uniform(count, 0.5, 2),
            kl_reference_policy=apart * uniform(count, 0.5, 2),
            log_collision=uniform(count, -8, -4),
        )

    match row.takes:
        case "pairs":
            return PairScores(answers(items), answers(items), uniform(items, 0.2, 2), uniform(items, 0.6, 1))
        case "labelled":
            return LabelledScores(answers(items), answers(items + 1), answers(items))
        case "rankings":
            rank_A = torch.tensor([2, 0, 1, 5, 5, 7, 1, 1, 1, 3, 2, 2] * items)[: 3 * items]
            return RankingScores(answers(3 * items), torch.arange(items).repeat_interleave(3), rank_A)
        case _:
            return answers(items)


def only(scores: Any, needs: frozenset[str]) -> Any:
    """The same, but of sums and facts that are not named nothing is known."""
    known = [{name: x for name, x in part.sums_A.items() if name in needs | {"log_prob"}} for part in parts_of(scores)]
    fewer = with_parts(scores, [Scores(**sums) for sums in known])
    if isinstance(fewer, PairScores):
        margin_P = fewer.margin_P if "margin" in needs else None
        preference_P = fewer.preference_P if "preference" in needs else None
        return PairScores(fewer.chosen, fewer.rejected, margin_P, preference_P)
    return fewer


def item(scores: Any, place: int) -> Any:
    """One pair, answer or ranking of three alone."""

    def at(answers: Scores, places: slice) -> Scores:
        return Scores(**{name: x[places] for name, x in answers.sums_A.items()})

    here = slice(place, place + 1)
    match scores:
        case PairScores(chosen, rejected, margin_P, preference_P):
            return PairScores(at(chosen, here), at(rejected, here), margin_P[here], preference_P[here])
        case RankingScores(answers, ranking_A, rank_A):
            of = slice(3 * place, 3 * place + 3)
            return RankingScores(at(answers, of), ranking_A[of] - place, rank_A[of])
        case LabelledScores(desirable, undesirable, mismatched):
            return LabelledScores(at(desirable, here), at(undesirable, slice(0)), at(mismatched, slice(0)))
        case Scores():
            return at(scores, here)
    raise AssertionError(type(scores))


def other_options(row: Objective) -> dict[str, float]:
    """Options none of which is at its default."""
    return {
        name: next(value for value in OTHERS if value in option.range and value != option.default)
        for name, option in row.options.items()
    }


def loss_of(row: Objective, scores: Any, options: Mapping[str, float]) -> Tensor:
    """The losses of a first batch."""
    with torch.no_grad():
        state = row.state if row.remember is None else row.remember(scores, **options, **row.state)
    return row.loss(scores, **options, **state)


def leaves(scores: Any, names: Sequence[str]) -> tuple[list[Tensor], Any]:
    """These sums of all parts as leaves of a graph, and the scores made of them."""
    found: list[Tensor] = []
    parts = []
    for part in parts_of(scores):
        own = {name: part.sums_A[name].clone().requires_grad_() for name in names}
        found += own.values()
        parts.append(Scores(**part.sums_A | own))
    return found, with_parts(scores, parts)
