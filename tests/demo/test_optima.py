"""Population optima against the expected losses themselves, minimised over all distributions."""

import numpy as np
import pytest
import torch

from kilter.demo.frontier import f_tilt
from kilter.demo.optima import nats_per_reward, penalty_of, population_optimum
from kilter.divergence import Probs, f_divergence
from kilter.objectives import OBJECTIVES, PairScores, Scores, parse

KNOWN = [
    "dpo(beta=0.4)",
    "dpo(beta=2)",
    "soft_dpo(beta=0.4)",
    "fdpo_forward_kl(beta=0.4)",
    "fdpo_js(beta=0.7)",
    "fdpo_alpha(beta=0.4)",
    "fdpo_alpha(beta=0.7, alpha=0.2)",
    "fdpo_alpha(beta=0.7, alpha=1)",
    "ipo(beta=0.2)",
]


def term_of(text):
    (term,) = parse(text).terms
    return term


def a_prompt(seed=0, answers=6):
    """The reference's log-probs, rewards, and how often each answer is drawn for comparison."""
    rng = np.random.default_rng(seed)
    reference, drawn = rng.dirichlet(np.ones(answers)), rng.dirichlet(3 * np.ones(answers))
    return np.log(reference), rng.normal(size=answers), drawn


def least_expected_loss(term, log_reference, reward, drawn):
    """The distribution with the least loss over all pairs, each as often as it is drawn and so labelled."""
    winner, loser = torch.nonzero(~torch.eye(len(reward), dtype=torch.bool), as_tuple=True)
    reference, r, mu = (torch.from_numpy(array) for array in (log_reference, reward, drawn))
    wins = torch.sigmoid(r[winner] - r[loser])
    weight = mu[winner] * mu[loser] * wins
    logits = reference.clone().requires_grad_()

    def scores(log_p, places):
        return Scores(log_prob=log_p[places], reference_log_prob=reference[places])

    def expected():
        log_p = torch.log_softmax(logits, 0)
        pairs = PairScores(scores(log_p, winner), scores(log_p, loser), preference_P=wins)
        return (weight * term.objective.loss(pairs, **term.options)).sum()

    optimizer = torch.optim.LBFGS(
        [logits], max_iter=3000, tolerance_grad=1e-13, tolerance_change=1e-16, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = expected()
        loss.backward()
        return loss

    optimizer.step(closure)
    return torch.softmax(logits.detach(), 0).numpy()


@pytest.mark.parametrize("text", KNOWN)
def test_no_distribution_has_less_expected_loss_than_the_population_optimum(text):
    term = term_of(text)
    for seed in range(3):
        prompt = a_prompt(seed)
        optimum = population_optimum(term.name, term.options)(*prompt)
        np.testing.assert_allclose(np.exp(optimum), least_expected_loss(term, *prompt), atol=2e-5)


@pytest.mark.parametrize("text", [text for text in KNOWN if not text.startswith("ipo")])
def test_the_population_optimum_pays_its_own_penalty_best(text):
    term = term_of(text)
    log_reference, reward, drawn = a_prompt(4)
    f = penalty_of(term.name, term.options)

    def penalised(p):
        return p @ reward - term.options["beta"] * float(f_divergence(Probs(p), Probs(np.exp(log_reference)), f))

    optimum = np.exp(population_optimum(term.name, term.options)(log_reference, reward, drawn))
    rng = np.random.default_rng(0)
    for size in (1e-2, 0.1, 1.0):
        for _ in range(50):
            other = optimum * np.exp(size * rng.normal(size=6))
            assert penalised(other / other.sum()) < penalised(optimum)


def test_what_is_drawn_for_comparison_matters_to_ipo_alone():
    log_reference, reward, drawn = a_prompt()
    for text in KNOWN:
        term = term_of(text)
        optimum = population_optimum(term.name, term.options)
        moved = np.abs(optimum(log_reference, reward, drawn) - optimum(log_reference, reward, drawn[::-1])).max()
        assert (moved > 1e-3) == (term.name == "ipo"), text


def test_a_mistake_of_one_unit_of_reward_is_one_over_beta_nats_under_the_kl_penalty():
    log_reference, reward, _ = a_prompt()
    f = penalty_of("dpo", {})
    assert nats_per_reward(f_tilt(log_reference, reward, 0.4, f), log_reference, 0.4, f) == pytest.approx(2.5, rel=1e-6)


def test_a_mistake_about_a_reward_moves_its_answer_by_as_many_nats_as_are_told():
    """A mistake small enough, about an answer so rare that the others' probabilities make no difference."""
    log_reference = np.log([1e-9, 0.4, 0.6 - 1e-9])
    reward = np.array([0.3, 0.1, -0.2])
    for text in ("fdpo_forward_kl(beta=0.7)", "fdpo_js(beta=0.7)", "fdpo_alpha(beta=0.7)"):
        term = term_of(text)
        f, beta = penalty_of(term.name, term.options), term.options["beta"]
        right = f_tilt(log_reference, reward, beta, f)
        wrong = f_tilt(log_reference, reward + np.array([1e-5, 0, 0]), beta, f)
        certain = np.where(np.arange(3) == 0, 0.0, -np.inf)
        told = nats_per_reward(certain, certain - (right - log_reference)[0], beta, f)
        assert told == pytest.approx((wrong - right)[0] / 1e-5, rel=1e-3), text


def test_objectives_without_a_closed_form_have_none():
    for name in ("kto", "simpo", "orpo", "hinge"):
        assert population_optimum(name, OBJECTIVES[name].defaults) is None
    assert population_optimum("dpo", {"beta": 0.1, "label_smoothing": 0.1}) is None
