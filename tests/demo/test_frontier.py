import numpy as np
import pytest
from scipy.optimize import minimize

from kilter.demo.frontier import (
    Optimum,
    answer_kl,
    expected_reward,
    f_tilt,
    optimum_at_kl,
    over_prompts,
    tilt,
    with_off_grammar,
)
from kilter.demo.world import restaurant
from kilter.divergence import F_DIVERGENCES, FDivergence, Probs, f_divergence, f_divergence_named
from kilter.errors import ConfigError, ModelError

COIN = np.log([0.5, 0.5])
ONE_OR_NOTHING = np.array([1.0, 0.0])
PENALTIES = {
    **{name: f_divergence_named(name) for name in F_DIVERGENCES if name != "alpha"},
    **{f"alpha of order {order:g}": f_divergence_named("alpha", order=order) for order in (-1, 0.5, 3)},
    "js of weight 0.1": f_divergence_named("js", weight=0.1),
}


def two_prompts(seed=0):
    rng = np.random.default_rng(seed)
    references = [np.log(rng.dirichlet(np.ones(size))) for size in (4, 6)]
    rewards = [rng.normal(size=size) for size in (4, 6)]
    return references, rewards, np.array([0.3, 0.7])


def kl_at(beta, references, rewards, prompt_probability):
    tilted = [tilt(q, r, beta) for q, r in zip(references, rewards, strict=True)]
    return over_prompts(list(map(answer_kl, tilted, references)), prompt_probability)


def test_a_fair_coin_tilted_by_log_three_lands_heads_three_times_in_four():
    np.testing.assert_allclose(np.exp(tilt(COIN, np.log(3) * ONE_OR_NOTHING, 1.0)), [0.75, 0.25], rtol=1e-15)


def test_halving_beta_squares_the_odds():
    np.testing.assert_allclose(np.exp(tilt(COIN, np.log(3) * ONE_OR_NOTHING, 0.5)), [0.9, 0.1], rtol=1e-15)


def test_expected_reward_of_a_three_to_one_coin():
    assert expected_reward(np.log([0.75, 0.25]), np.array([2.0, -2.0])) == pytest.approx(1.0)


def test_kl_from_a_fair_coin_to_certainty_is_log_two_and_the_other_way_infinite():
    certain = np.array([0.0, -np.inf])
    assert answer_kl(certain, COIN) == pytest.approx(np.log(2))
    assert answer_kl(COIN, certain) == np.inf


def test_kl_takes_its_average_under_the_first_argument():
    p, q = np.log([0.75, 0.25]), COIN
    assert answer_kl(p, q) == pytest.approx(0.75 * np.log(1.5) + 0.25 * np.log(0.5))
    assert answer_kl(q, p) == pytest.approx(0.5 * np.log(2 / 3) + 0.5 * np.log(2))


def test_kl_of_a_distribution_from_itself_is_zero_even_where_both_are_impossible():
    p = np.array([0.0, -np.inf, -np.inf])
    assert answer_kl(p, p) == 0.0


def test_infinite_beta_is_the_reference_and_zero_beta_the_reference_on_its_best_answers():
    reference = np.log([0.1, 0.3, 0.6])
    reward = np.array([2.0, 2.0, 1.0])
    np.testing.assert_allclose(tilt(reference, reward, np.inf), reference, atol=1e-15)
    np.testing.assert_allclose(np.exp(tilt(reference, reward, 0.0)), [0.25, 0.75, 0.0], atol=1e-15)
    np.testing.assert_allclose(np.exp(tilt(reference, reward, 5e-324)), [0.25, 0.75, 0.0], atol=1e-15)


def test_tilt_never_says_what_the_reference_cannot_say_however_well_paid():
    reference = np.append(COIN, -np.inf)
    for beta in (0.0, 0.1, np.inf):
        tilted = tilt(reference, np.array([1.0, 0.0, 50.0]), beta)
        assert tilted[2] == -np.inf
        assert np.exp(tilted).sum() == pytest.approx(1.0)


def test_a_constant_added_to_the_reward_changes_nothing():
    reference, reward = (arrays[1] for arrays in two_prompts()[:2])
    np.testing.assert_allclose(tilt(reference, reward + 7, 0.4), tilt(reference, reward, 0.4), atol=1e-12)


@pytest.mark.parametrize("beta", [-0.1, float("nan")])
def test_an_impossible_beta_is_refused(beta):
    with pytest.raises(ConfigError, match="beta"):
        tilt(COIN, ONE_OR_NOTHING, beta)


@pytest.mark.parametrize("beta", [0.2, 0.5, 5.0])
def test_no_perturbation_of_the_tilt_has_a_better_penalised_reward(beta):
    reference, reward = (arrays[1] for arrays in two_prompts()[:2])
    optimum = tilt(reference, reward, beta)
    rng = np.random.default_rng(1)

    def penalised(log_p):
        return expected_reward(log_p, reward) - beta * answer_kl(log_p, reference)

    for size in (0.01, 0.1, 1.0):
        for _ in range(100):
            other = optimum + size * rng.normal(size=optimum.size)
            other -= np.logaddexp.reduce(other)
            shortfall = penalised(optimum) - penalised(other)
            assert shortfall == pytest.approx(beta * answer_kl(other, optimum), rel=1e-6, abs=1e-12)
            assert shortfall > 0


@pytest.mark.parametrize("beta", [0.0, 1e-4, 0.05, 0.3, 2.0, 1e6, np.inf])
def test_the_tilt_of_the_kl_penalty_is_the_tilt(beta):
    forward_kl = f_divergence_named("forward_kl")
    for reference, reward in zip(*two_prompts()[:2], strict=True):
        reference, reward = np.append(reference, -np.inf), np.append(reward, 50.0)
        np.testing.assert_allclose(
            f_tilt(reference, reward, beta, forward_kl), tilt(reference, reward, beta), rtol=1e-12, atol=1e-12
        )


def test_the_tilt_of_the_kl_penalty_is_the_tilt_for_every_sentence_of_the_world():
    world = restaurant()
    log_p = np.log(world.probability(2))
    found = f_tilt(log_p, world.reward(2), 0.5, f_divergence_named("forward_kl"))
    np.testing.assert_allclose(found, tilt(log_p, world.reward(2), 0.5), rtol=1e-12)


def test_a_fair_coin_whose_odds_of_three_to_one_are_worth_the_slopes_they_cost():
    """At p = (3/4, 1/4), t = (3/2, 1/2): the reward must be beta times the difference of f'(t)."""
    worth = {
        "reverse_kl": -1 / 1.5 + 1 / 0.5,
        "chi2": 2 * 1.5 - 2 * 0.5,
        "js": 0.5 * (np.log(1.5 / 1.25) - np.log(0.5 / 0.75)),
        "squared_hellinger": 0.5 * (0.5**-0.5 - 1.5**-0.5),
    }
    for name, reward in worth.items():
        found = f_tilt(COIN, 0.7 * reward * ONE_OR_NOTHING, 0.7, PENALTIES[name])
        np.testing.assert_allclose(np.exp(found), [0.75, 0.25], rtol=1e-12, err_msg=name)


def test_a_penalty_that_leaves_an_answer_cheap_to_give_up_gives_it_up():
    """chi2 on a fair coin: p = 1/2 + reward / (8 beta) until that is 1; total variation: all at once, from beta on."""
    for reward, heads in ((2.0, 0.75), (4.0, 1.0), (40.0, 1.0)):
        found = f_tilt(COIN, reward * ONE_OR_NOTHING, 1.0, PENALTIES["chi2"])
        np.testing.assert_allclose(np.exp(found), [heads, 1 - heads], atol=1e-12)
    for reward, heads in ((0.9, 0.5), (1.1, 1.0)):
        found = f_tilt(COIN, reward * ONE_OR_NOTHING, 1.0, PENALTIES["total_variation"])
        np.testing.assert_allclose(np.exp(found), [heads, 1 - heads], atol=1e-12)


@pytest.mark.parametrize("penalty", PENALTIES)
@pytest.mark.parametrize("beta", [0.1, 0.5, 3.0])
def test_no_distribution_that_scipy_finds_pays_its_penalty_better(penalty, beta):
    f = PENALTIES[penalty]
    rng = np.random.default_rng(3)
    reference, reward = rng.dirichlet(np.ones(5)), rng.normal(size=5)

    def penalised(p):
        p = np.maximum(p, 1e-14) / np.maximum(p, 1e-14).sum()
        return float(p @ reward - beta * f_divergence(Probs(p), Probs(reference), f))

    optimum = np.exp(f_tilt(np.log(reference), reward, beta, f))
    assert optimum.sum() == pytest.approx(1, abs=1e-12)
    found = minimize(
        lambda p: -penalised(p),
        0.9 * reference + 0.02,
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-13, "maxiter": 1000},
    )
    best = found.x
    assert penalised(best) <= penalised(optimum) + 1e-12
    if penalty != "total_variation":  # where its corners are, a smooth search ends short of the optimum
        assert penalised(best) == pytest.approx(penalised(optimum), abs=1e-6)
    for size in (1e-3, 0.1, 1.0):
        for _ in range(100):
            other = optimum * np.exp(size * rng.normal(size=5)) + size * 1e-2 * rng.random(5)
            assert penalised(other) <= penalised(optimum) + 1e-12


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalised_answers_of_one_reward_keep_their_odds_and_better_ones_gain(penalty):
    world = restaurant()
    log_p, reward = np.log(world.probability(0)), world.reward(0)
    found = f_tilt(log_p, reward, 0.5, PENALTIES[penalty])
    by_reward = [(found - log_p)[reward == value] for value in np.unique(reward)]
    for ratios in by_reward:
        np.testing.assert_allclose(ratios, ratios[0], atol=1e-9)
    assert (np.diff([ratios[0] for ratios in by_reward if ratios[0] > -np.inf]) >= 0).all()
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-12)
    assert expected_reward(found, reward) > expected_reward(log_p, reward)


@pytest.mark.parametrize("penalty", PENALTIES)
def test_penalised_ends_are_the_best_answers_and_the_reference(penalty):
    reference = np.append(np.log([0.1, 0.3, 0.6]), -np.inf)
    reward = np.array([2.0, 2.0, 1.0, 50.0])
    f = PENALTIES[penalty]
    np.testing.assert_allclose(np.exp(f_tilt(reference, reward, np.inf, f)), [0.1, 0.3, 0.6, 0], atol=1e-12)
    np.testing.assert_allclose(np.exp(f_tilt(reference, reward, 0.0, f)), [0.25, 0.75, 0, 0], atol=1e-12)


def test_a_penalty_of_ones_own_is_paid_as_the_one_of_the_table():
    own = FDivergence.of(lambda t: (t - 1) ** 2, at_zero=1, slope_at_infinity=np.inf, derivative=lambda t: 2 * (t - 1))
    reference, reward = (arrays[1] for arrays in two_prompts()[:2])
    np.testing.assert_array_equal(
        f_tilt(reference, reward, 0.3, own), f_tilt(reference, reward, 0.3, PENALTIES["chi2"])
    )


@pytest.mark.parametrize("beta", [-0.1, float("nan")])
def test_an_impossible_beta_of_a_penalty_is_refused(beta):
    with pytest.raises(ConfigError, match="beta"):
        f_tilt(COIN, ONE_OR_NOTHING, beta, PENALTIES["js"])


def test_no_model_that_scipy_finds_has_more_reward_at_the_same_average_kl():
    references, rewards, prompt_probability = two_prompts()
    kl = 0.2

    def models(logits):
        return [part - np.logaddexp.reduce(part) for part in np.split(logits, [4])]

    def reward_of(logits):
        return over_prompts(list(map(expected_reward, models(logits), rewards)), prompt_probability)

    def kl_left(logits):
        return kl - over_prompts(list(map(answer_kl, models(logits), references)), prompt_probability)

    found = minimize(
        lambda logits: -reward_of(logits),
        np.concatenate(references),
        constraints={"type": "ineq", "fun": kl_left},
        method="SLSQP",
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    optimum = optimum_at_kl(references, rewards, prompt_probability, kl)
    assert -found.fun == pytest.approx(optimum.expected_reward, abs=1e-6)
    assert -found.fun <= optimum.expected_reward + 1e-8


def test_kl_and_reward_both_fall_as_beta_grows():
    references, rewards, prompt_probability = two_prompts()
    betas = np.geomspace(0.01, 100, 60)
    kls = [kl_at(beta, references, rewards, prompt_probability) for beta in betas]
    returns = [optimum_at_kl(references, rewards, prompt_probability, kl).expected_reward for kl in kls]
    assert (np.diff(kls) < 0).all()
    assert (np.diff(returns) < 0).all()


@pytest.mark.parametrize("beta", [0.1, 1.0, 30.0])
def test_the_optimum_at_the_kl_of_a_beta_is_that_beta(beta):
    references, rewards, prompt_probability = two_prompts()
    kl = kl_at(beta, references, rewards, prompt_probability)
    assert optimum_at_kl(references, rewards, prompt_probability, kl).beta == pytest.approx(beta, rel=1e-6)


def test_a_coin_at_the_kl_of_three_to_one_odds_earns_three_quarters():
    kl = answer_kl(np.log([0.75, 0.25]), COIN)
    optimum = optimum_at_kl([COIN], [np.log(3) * ONE_OR_NOTHING], np.ones(1), kl)
    assert optimum.beta == pytest.approx(1.0)
    assert optimum.expected_reward == pytest.approx(0.75 * np.log(3))


def test_no_kl_buys_the_reward_of_the_reference():
    assert optimum_at_kl([COIN], [ONE_OR_NOTHING], np.ones(1), 0.0) == Optimum(np.inf, 0.5)


@pytest.mark.parametrize("kl", [1e-30, 1e-18, 1e-9])
def test_hardly_any_kl_buys_hardly_any_reward(kl):
    references, rewards, prompt_probability = two_prompts()
    free = optimum_at_kl(references, rewards, prompt_probability, 0.0)
    bought = optimum_at_kl(references, rewards, prompt_probability, kl)
    assert bought.beta > 1e3
    assert bought.expected_reward == pytest.approx(free.expected_reward, abs=1e-4)


@pytest.mark.parametrize("kl", [np.log(2), 1.0, np.inf])
def test_more_kl_than_any_optimum_has_buys_the_best_reward(kl):
    assert optimum_at_kl([COIN], [ONE_OR_NOTHING], np.ones(1), kl) == Optimum(0.0, 1.0)


def test_a_hair_less_than_the_largest_kl_still_has_an_optimum():
    optimum = optimum_at_kl([COIN], [ONE_OR_NOTHING], np.ones(1), np.nextafter(np.log(2), 0))
    assert optimum.expected_reward == pytest.approx(1.0)


@pytest.mark.parametrize("kl", [-0.1, float("nan")])
def test_an_impossible_kl_is_refused(kl):
    with pytest.raises(ConfigError, match="kl"):
        optimum_at_kl([COIN], [ONE_OR_NOTHING], np.ones(1), kl)


def test_a_prompt_that_is_never_asked_does_not_count():
    assert over_prompts([1.0, 3.0], np.array([0.25, 0.75])) == 2.5
    assert over_prompts([1.0, np.inf], np.array([1.0, 0.0])) == 1.0


def test_what_the_sentences_leave_over_is_off_the_grammar():
    np.testing.assert_allclose(with_off_grammar(np.log([0.5, 0.2])), np.log([0.5, 0.2, 0.3]))


def test_sentences_that_leave_nothing_over_make_anything_else_impossible():
    assert with_off_grammar(COIN)[-1] == -np.inf
    rounded_up = with_off_grammar(COIN + 1e-6)
    assert rounded_up[-1] == -np.inf
    assert np.exp(rounded_up).sum() == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("log_sentence", [np.log([0.7, 0.4]), np.array([np.nan, -1.0])])
def test_sentences_that_are_more_than_certain_are_refused(log_sentence):
    with pytest.raises(ModelError, match="sum to"):
        with_off_grammar(log_sentence)
