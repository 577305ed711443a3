"""Claims about win rates: counts by hand, judges with a known bias, and the regression against another optimiser."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from kilter.errors import ConfigError
from kilter.measure.judges import Judge, judge_by_reward, judge_named
from kilter.measure.statistics import wilson
from kilter.measure.win_rate import WinRate, at_equal_length, win_rate


def judge_of(verdicts: dict[tuple[str, str], float]) -> Judge:
    """Says of each two answers what the table says, whatever the prompt."""
    return lambda prompt, first, second: verdicts[first, second]


def asked(judge: Judge, policy: list[str], reference: list[str], prompts: list[str] | None = None) -> WinRate:
    return win_rate(prompts or [f"prompt {i}" for i in range(len(policy))], policy, reference, judge)


def test_both_orders_are_asked_and_averaged() -> None:
    """0.9 for the policy shown first, 0.6 for the reference shown first: (0.9 + 0.4) / 2."""
    found = asked(judge_of({("p", "r"): 0.9, ("r", "p"): 0.6}), ["p"], ["r"])
    assert found.win_rate.value == pytest.approx(0.65)
    assert (found.wins, found.ties, found.losses) == (1, 0, 0)
    assert found.first_preferred.value == pytest.approx(0.75)
    assert found.flipped == 1


def test_a_judge_that_sees_the_place_alone_makes_ties() -> None:
    found = asked(lambda prompt, first, second: 1.0, ["a", "b", "c"], ["x", "y", "z"])
    assert found.win_rate.value == found.length_controlled.value == 0.5
    assert (found.wins, found.ties, found.losses) == (0, 3, 0)
    assert found.first_preferred == (1, 1, 1)
    assert found.flipped == 1


def test_ties_count_half_and_identical_answers_are_ties_without_asking() -> None:
    told: list[tuple[str, str]] = []

    def judge(prompt: str, first: str, second: str) -> float:
        told.append((first, second))
        return float(first == "p")

    found = asked(judge, ["p", "same", "r", "r"], ["r", "same", "p", "p"])
    assert found.win_rate.value == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert (found.wins, found.ties, found.losses) == (1, 1, 2)
    assert len(told) == 6
    assert found.first_preferred.value == 0.5
    assert found.flipped == 0


def test_where_the_judge_was_never_asked_nothing_is_said_of_its_places() -> None:
    found = asked(lambda *_: 1.0, ["a", "b"], ["a", "b"])
    assert found.win_rate.value == 0.5
    assert math.isnan(found.first_preferred.value)
    assert math.isnan(found.flipped)


def test_a_prompt_with_several_answers_counts_once() -> None:
    """Two wins on one prompt and a loss on another: 1/2, not 2/3."""
    judge = judge_of({("p", "r"): 1.0, ("r", "p"): 0.0, ("l", "r"): 0.0, ("r", "l"): 1.0})
    assert asked(judge, ["p", "p", "l"], ["r"] * 3, ["one", "one", "two"]).win_rate.value == 0.5
    assert asked(judge, ["p", "p", "l"], ["r"] * 3).win_rate.value == pytest.approx(2 / 3)


def by_length(prompt: str, first: str, second: str) -> float:
    """A judge that looks at length alone: its log-odds go by the tanh of a difference of 20 characters."""
    return float(expit(2 * np.tanh((len(first) - len(second)) / 20)))


def answers(lengths: np.ndarray) -> list[str]:
    return ["x" * int(n) for n in lengths]


def test_what_a_judge_has_for_length_goes_out_of_the_length_controlled_win_rate() -> None:
    """The policy's answers are longer by 15 characters; at equal length nobody wins. A fair judge moves neither."""
    draw = np.random.default_rng(0)
    reference = draw.integers(40, 80, 2000)
    policy = reference + 15 + draw.integers(-20, 21, 2000)
    found = asked(by_length, answers(policy), ["y" * int(n) for n in reference])
    assert found.win_rate.low > 0.6
    assert abs(found.length_controlled.value - 0.5) < 0.02
    assert found.longer == pytest.approx((policy - reference).mean())


def test_a_real_advantage_stays_at_equal_length() -> None:
    """Log-odds of 1 at equal length, of a judge that prefers long answers, too."""
    draw = np.random.default_rng(1)
    longer = draw.integers(-30, 50, 4000)
    spread = longer.std(ddof=1)
    preference = expit(1.0 + 0.8 * np.tanh(longer / spread))
    (found,) = at_equal_length(preference, longer.astype(float), np.ones((1, 4000)))
    assert found == pytest.approx(expit(1.0), abs=1e-3)


@pytest.mark.parametrize("case", ["mild", "separated", "nearly all won", "few"])
def test_the_regression_is_the_optimum_that_another_optimiser_finds(case: str) -> None:
    draw = np.random.default_rng(2)
    longer = draw.normal(5, 30, 300)
    preference = {
        "mild": expit(0.3 + longer / 40),
        "separated": (longer > 3).astype(float),
        "nearly all won": np.r_[np.ones(299), 0.0],
        "few": (longer > draw.normal(0, 30, 300)).astype(float),
    }[case]
    weight = draw.integers(0, 4, 300).astype(float) if case != "few" else np.r_[np.ones(4), np.zeros(296)]
    length = np.tanh(longer / longer.std(ddof=1))

    def loss(x: np.ndarray) -> float:
        z = x[0] + x[1] * length
        return float(weight @ (np.logaddexp(0, z) - preference * z) + x[1] ** 2 / 2)

    best = minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 4000})
    (found,) = at_equal_length(preference, longer, weight[None])
    assert found == pytest.approx(expit(best.x[0]), abs=1e-5)


def test_answers_of_equal_length_have_the_plain_win_rate() -> None:
    judge = judge_by_reward(lambda prompt, answer: float(answer[0] == "p"))
    found = asked(judge, ["pa", "ra", "pc"], ["rb", "pb", "rd"])
    assert found.length_controlled.value == pytest.approx(found.win_rate.value) == pytest.approx(2 / 3)


def test_exchanging_the_two_gives_the_rest_to_one() -> None:
    draw = np.random.default_rng(3)
    policy, reference = answers(draw.integers(1, 60, 80)), ["y" * int(n) for n in draw.integers(1, 40, 80)]
    ours, theirs = asked(by_length, policy, reference), asked(by_length, reference, policy)
    assert ours.win_rate.value == pytest.approx(1 - theirs.win_rate.value)
    assert ours.length_controlled.value == pytest.approx(1 - theirs.length_controlled.value)
    assert (ours.wins, ours.losses) == (theirs.losses, theirs.wins)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """Bernoulli(0.6) verdicts on 60 prompts; 95% of 200 intervals, within four standard errors."""
    draw = np.random.default_rng(4)
    covered = []
    for seed in range(200):
        wins = draw.random(60) < 0.6
        judge = judge_by_reward(lambda prompt, answer: float(answer == "p"))
        policy, reference = (["p" if win is side else "r" for win in wins.tolist()] for side in (True, False))
        prompts = [str(i) for i in range(60)]
        _, low, high = win_rate(prompts, policy, reference, judge, resamples=300, seed=seed).win_rate
        covered.append(low <= 0.6 <= high)
    assert abs(np.mean(covered) - 0.95) < 4 * math.sqrt(0.95 * 0.05 / 200)


def test_where_all_is_won_the_interval_is_wilsons() -> None:
    judge = judge_by_reward(lambda prompt, answer: float(answer == "p"))
    found = asked(judge, ["p"] * 20, ["r"] * 20)
    assert found.win_rate == found.length_controlled == wilson(20, 20)


def test_the_same_seed_gives_the_same_intervals() -> None:
    draw = np.random.default_rng(5)
    policy, reference = answers(draw.integers(1, 60, 30)), ["y" * int(n) for n in draw.integers(1, 40, 30)]
    assert asked(by_length, policy, reference) == asked(by_length, policy, reference)


@pytest.mark.parametrize("said", [1.5, -0.1, float("nan"), None, "first"])
def test_a_verdict_that_is_none_is_refused(said: object) -> None:
    with pytest.raises(ConfigError, match="from 0 to 1"):
        asked(lambda *_: said, ["a"], ["b"])  # type: ignore[arg-type, return-value]


def test_lists_that_differ_in_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 1 prompts, 2 answers of the policy and 1"):
        win_rate(["how?"], ["a", "b"], ["c"], by_length)
    with pytest.raises(ConfigError, match="at least one"):
        win_rate([], [], [], by_length)


# Judges by name


@pytest.fixture
def mine(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "mine.py"
        path.write_text(text)
        return path

    return write


def test_a_function_of_a_file_is_a_judge_or_a_reward_by_what_it_takes(mine: Callable[[str], Path]) -> None:
    path = mine(
        "def judge(prompt, first, second):\n    return 0.25\ndef reward(prompt, answer):\n    return len(answer)\n"
    )
    assert judge_named(f"{path}:judge")("how?", "a", "b") == 0.25
    assert judge_named(f"{path}:reward")("how?", "long", "b") == 1.0


def test_a_function_of_an_installed_module_is_found() -> None:
    assert judge_named("operator:contains")("how?", "a", "b") == 0.5  # 'a' in 'how?' is False, and so is 'b'


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("judge", "module:function"),
        ("nowhere_to_be_found:judge", "cannot be imported"),
        ("math:no_such", "there is no function 'no_such'"),
        ("math:sqrt", "takes 1 arguments"),
    ],
)
def test_a_name_that_is_no_judge_is_refused_with_what_is_wanted(name: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        judge_named(name)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be imported"):
        judge_named(f"{tmp_path / 'none.py'}:judge")


def test_a_reward_that_is_no_number_is_refused() -> None:
    with pytest.raises(ConfigError, match="it should be a number"):
        judge_by_reward(lambda prompt, answer: math.nan)("how?", "a", "b")
