"""Claims about losses on ranked answers."""

from __future__ import annotations

import math
from itertools import pairwise, permutations

import pytest
import torch

from kilter.objectives import PairScores, RankingScores, dpo, plackett_luce
from kilter.objectives.rankings import log_orders_per_agreeing
from objectives.points import numbers, rankings

LOG_RATIOS = [0.7, -1.9, 2.4, 0.1, -0.6, 1.3, -2.2]


def log_probability(order: tuple[int, ...], rewards: list[float]) -> float:
    """Of one order, place by place: the equation of the paper."""
    return sum(rewards[i] - math.log(sum(math.exp(rewards[j]) for j in order[k:])) for k, i in enumerate(order))


def agreeing(ranks: list[int]) -> list[tuple[int, ...]]:
    """All orders in which no answer comes before a better one."""
    orders = permutations(range(len(ranks)))
    return [order for order in orders if all(ranks[a] <= ranks[b] for a, b in pairwise(order))]


def by_enumeration(log_ratios: list[float], ranks: list[int], beta: float) -> float:
    rewards = [beta * x for x in log_ratios]
    return -math.log(sum(math.exp(log_probability(order, rewards)) for order in agreeing(ranks)))


@pytest.mark.parametrize("beta", [0.05, 1.7])
def test_two_answers_have_the_loss_and_the_gradient_of_dpo(beta: float) -> None:
    better, worse = numbers(2.0, -1.0, 40.0).requires_grad_(), numbers(0.5, 3.0, -40.0).requires_grad_()
    pairs = PairScores.of_log_ratios(better, worse)
    answers = torch.stack([worse, better], dim=1).flatten()
    ranked = PairScores.of_log_ratios(answers, answers).chosen
    losses = plackett_luce(
        RankingScores(ranked, torch.arange(3).repeat_interleave(2), torch.tensor([1, 0] * 3)), beta=beta
    )
    torch.testing.assert_close(losses, dpo(pairs, beta=beta), rtol=1e-14, atol=1e-15)
    ours, theirs = (torch.autograd.grad(x.sum(), (better, worse)) for x in (losses, dpo(pairs, beta=beta)))
    torch.testing.assert_close(ours, theirs, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_without_ties_it_is_the_product_over_places(count: int) -> None:
    ranks = [5, 1, 9, 2, 4, 3, 8][:count]
    order = tuple(sorted(range(count), key=ranks.__getitem__))
    wanted = -log_probability(order, [0.6 * x for x in LOG_RATIOS])
    assert plackett_luce(rankings((LOG_RATIOS[:count], ranks)), beta=0.6).tolist() == pytest.approx([wanted], abs=1e-14)


@pytest.mark.parametrize(
    "ranks",
    [
        [0, 0, 1],
        [1, 0, 1],
        [0, 0, 0],
        [1, 0, 1, 0],
        [2, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
        [3, 1, 1, 3, 1, 2, 2],
        [0, 1, 0, 1, 0, 1, 1],
        [4, 4, 4, 1, 1, 1, 1],
    ],
)
def test_ties_have_the_summed_probability_of_all_orders_that_agree(ranks: list[int]) -> None:
    log_ratios = LOG_RATIOS[: len(ranks)]
    wanted = by_enumeration(log_ratios, ranks, 0.6)
    assert plackett_luce(rankings((log_ratios, ranks)), beta=0.6).tolist() == pytest.approx([wanted], abs=1e-13)


def test_the_probabilities_of_what_may_be_known_of_three_answers_add_up_to_1() -> None:
    """Of all strict orders, of which one is best, and of which one is worst."""
    for ranked in (list(permutations(range(3))), [(0, 1, 1), (1, 0, 1), (1, 1, 0)], [(0, 0, 1), (0, 1, 0), (1, 0, 0)]):
        losses = plackett_luce(rankings(*((LOG_RATIOS[:3], list(ranks)) for ranks in ranked)), beta=0.6)
        assert float(torch.exp(-losses).sum()) == pytest.approx(1, abs=1e-14)


def test_rankings_do_not_touch_each_other_and_ranks_count_by_their_order_alone() -> None:
    first, second = (LOG_RATIOS[:4], [3, 0, 0, 2]), (LOG_RATIOS[4:], [9, 4, 7])
    alone = [float(plackett_luce(rankings(ranked))) for ranked in (first, second)]
    assert plackett_luce(rankings(first, second)).tolist() == pytest.approx(alone, abs=1e-15)
    assert float(plackett_luce(rankings((LOG_RATIOS[:4], [70, -2, -2, 5])))) == pytest.approx(alone[0], abs=1e-15)


def test_the_order_in_which_answers_are_listed_does_not_matter() -> None:
    listed = plackett_luce(rankings((LOG_RATIOS, [3, 1, 1, 3, 1, 2, 2])))
    turned = plackett_luce(rankings((LOG_RATIOS[::-1], [2, 2, 1, 3, 1, 1, 3])))
    torch.testing.assert_close(listed, turned, rtol=1e-14, atol=0)


def test_answers_that_are_all_tied_say_nothing() -> None:
    leaf = numbers(*LOG_RATIOS).requires_grad_()
    tied = RankingScores(PairScores.of_log_ratios(leaf, leaf).chosen, torch.zeros(7, dtype=torch.int64), torch.zeros(7))
    losses = plackett_luce(tied)
    (slope,) = torch.autograd.grad(losses.sum(), leaf)
    assert losses.tolist() == [0]
    assert not slope.any()


def test_what_all_answers_have_in_common_does_not_matter() -> None:
    leaf = numbers(*LOG_RATIOS).requires_grad_()
    scores = RankingScores(
        PairScores.of_log_ratios(leaf, leaf).chosen,
        torch.zeros(7, dtype=torch.int64),
        torch.tensor([3, 1, 1, 3, 1, 2, 2]),
    )
    (slope,) = torch.autograd.grad(plackett_luce(scores, beta=0.6).sum(), leaf)
    assert float(slope.sum()) == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("ranks", [[0], [0, 1], [2, 1, 1], [0, 0, 0], [1, 0, 1, 0], [3, 1, 1, 3, 1, 2, 2]])
def test_at_zero_it_is_how_many_orders_there_are_to_each_that_agrees(ranks: list[int]) -> None:
    scores = rankings(([0.0] * len(ranks), ranks))
    wanted = math.log(math.factorial(len(ranks)) / len(agreeing(ranks)))
    assert log_orders_per_agreeing(scores).tolist() == pytest.approx([wanted], abs=1e-13)
    assert plackett_luce(scores).tolist() == pytest.approx([wanted], abs=1e-13)


def test_a_batch_without_rankings_has_no_losses() -> None:
    assert plackett_luce(rankings()).tolist() == []


def test_ten_answers_tied_for_best_are_soon_summed() -> None:
    """Against one worse answer of the same reward each: it comes last in one of eleven orders."""
    ranked = ([0.5] * 11, [0] * 10 + [1])
    assert plackett_luce(rankings(*[ranked] * 16)).tolist() == pytest.approx([math.log(11)] * 16, abs=1e-12)
