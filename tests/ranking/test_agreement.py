"""Claims about judges: agreement by hand, beyond chance, and with the fitted strengths."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from kilter.errors import DataError
from kilter.ranking import Comparisons, fit_comparisons
from kilter.ranking.agreement import judge_agreement

Verdicts = list[tuple[str, int, str, str, float]]


def judged(verdicts: Verdicts) -> Comparisons:
    judges, prompts, left, right, outcome = zip(*verdicts, strict=True)
    names = tuple(dict.fromkeys(judges))
    return replace(
        Comparisons.counted(left, right, outcome),
        judge=np.array([names.index(judge) for judge in judges], np.int32),
        judges=names,
        prompt=np.array(prompts, np.int64),
    )


def test_agreement_and_kappa_are_as_by_hand_whichever_item_is_written_first() -> None:
    # Four questions: the same verdict three times, once written the other way round; a tie against a win.
    found = judge_agreement(
        judged(
            [
                ("x", 1, "a", "b", 1.0),
                ("y", 1, "a", "b", 1.0),
                ("x", 2, "a", "b", 0.0),
                ("y", 2, "b", "a", 1.0),
                ("x", 3, "b", "a", 1.0),
                ("y", 3, "b", "a", 1.0),
                ("x", 4, "a", "b", 0.5),
                ("y", 4, "a", "b", 1.0),
                ("x", 5, "a", "b", 1.0),
            ]
        )
    )
    assert (found.pairs.first, found.pairs.second, found.pairs.questions.tolist()) == (("x",), ("y",), [4])
    assert found.pairs.agreement == pytest.approx([0.75])
    # x ties on a quarter, y never: chance is 3/4 / 2.
    assert found.pairs.kappa == pytest.approx([(0.75 - 0.375) / (1 - 0.375)])
    assert found.questions == 4
    assert found.note == "1 of 5 questions have one judge only"


def test_judges_who_always_agree_have_kappa_and_alpha_one_even_if_one_item_always_wins() -> None:
    found = judge_agreement(judged([(judge, prompt, "a", "b", 1.0) for judge in "xyz" for prompt in range(5)]))
    assert found.pairs.kappa == pytest.approx([1, 1, 1])
    assert found.alpha == pytest.approx(1)


def test_judges_who_toss_coins_have_alpha_near_zero() -> None:
    generator = np.random.default_rng(1)
    found = judge_agreement(
        judged([(j, p, "a", "b", float(generator.integers(3)) / 2) for j in "wxyz" for p in range(500)])
    )
    assert found.alpha == pytest.approx(0, abs=4 / math.sqrt(6 * 500))
    assert found.pairs.kappa == pytest.approx(0, abs=4 / math.sqrt(500))


def test_alpha_is_that_of_a_plain_count_over_questions_written_both_ways() -> None:
    generator, verdicts = np.random.default_rng(2), []
    for prompt in range(40):
        truth = generator.integers(3)
        for judge in generator.choice(list("uvwxyz"), generator.integers(1, 5), replace=False):
            said = truth if generator.random() < 0.6 else generator.integers(3)
            verdicts.append((str(judge), prompt, "a", "b", float(said) / 2))
    # Each question once as it is and once with its items exchanged; the correction n - 1 for the doubled values.
    pooled, alike, values = [], 0.0, 0
    for prompt in range(40):
        said = [v for _, p, _, _, v in verdicts if p == prompt]
        if len(said) > 1:
            alike += sum(a == b for a, b in permutations(said, 2)) / (len(said) - 1)
            values += len(said)
            pooled += said + [1 - v for v in said]
    chance = sum(pooled.count(v) ** 2 for v in (0, 0.5, 1)) / 4
    expected = 1 - (values - 1) * (values - alike) / (values**2 - chance)
    assert judge_agreement(judged(verdicts)).alpha == pytest.approx(expected)


def test_a_judge_who_answers_often_counts_for_one() -> None:
    once = [("x", 1, "a", "b", 1.0), ("y", 1, "a", "b", 1.0), ("x", 2, "a", "b", 0.0), ("y", 2, "a", "b", 1.0)]
    often = judged(once)
    often = replace(often, count=np.array([7.0, 1, 1, 1]))
    assert judge_agreement(often).pairs.agreement == pytest.approx(judge_agreement(judged(once)).pairs.agreement)
    assert judge_agreement(often).alpha == pytest.approx(judge_agreement(judged(once)).alpha)


def test_agreement_with_the_ranking_counts_decided_verdicts() -> None:
    verdicts = [("x", p, "a", "b", 1.0) for p in range(8)] + [("y", p, "a", "b", 0.0) for p in range(2)]
    verdicts += [("y", 9, "b", "a", 0.0), ("y", 10, "a", "b", 0.5)]
    ranking = fit_comparisons(judged(verdicts), ties="half")
    found = judge_agreement(ranking)
    assert found.with_ranking == pytest.approx([1, 1 / 3])
    assert found.decided.tolist() == [8, 3]
    assert found.expected_with_ranking == pytest.approx(9.5 / 12)


def test_without_judges_or_shared_questions_it_says_so() -> None:
    with pytest.raises(DataError, match="no judge"):
        judge_agreement(Comparisons.counted("ab", "ba", [1, 1]))
    found = judge_agreement(judged([("x", 1, "a", "b", 1.0), ("y", 2, "a", "b", 1.0)]))
    assert math.isnan(found.alpha)
    assert found.pairs.first == ()
    assert np.isnan(found.with_ranking).all()
