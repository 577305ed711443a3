"""Claims about KL from log-ratios, and about the gradient of each term, by enumeration of all sequences."""

from __future__ import annotations

import math
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from divergence.estimates.enumerable import exact_kl, gradient, policy
from kilter.divergence.estimates.log_ratios import TERMS, k1, k2, k3, kl_from_log_ratios, kl_loss
from kilter.errors import DistributionError

P, Q = policy(0, trained=True), policy(1)
LOG_P, LOG_Q = P.log_prob(), Q.log_prob()
EXACT = {"KL(p, q)": exact_kl(LOG_P, LOG_Q), "KL(q, p)": exact_kl(LOG_Q, LOG_P)}


def mean_over_p(values: Tensor) -> Tensor:
    """Over samples of p, which are drawn already: no gradient flows through how likely they were."""
    return (LOG_P.exp().detach() * values).sum()


def test_the_model_tells_directions_apart() -> None:
    one, other = (gradient(value, P) for value in EXACT.values())
    assert (one - other).norm() > 0.3 * one.norm()


@pytest.mark.parametrize("name", TERMS)
def test_the_mean_gradient_of_each_term_is_that_of_the_divergence_in_its_row(name: str) -> None:
    """k2: of KL(p, q). k3: of KL(q, p), the other direction. k1: none at all."""
    found = gradient(mean_over_p(TERMS[name].function(LOG_P - LOG_Q)), P)
    wanted = {direction: gradient(value, P) for direction, value in EXACT.items()}
    wanted["0"] = torch.zeros_like(found)
    for of, value in wanted.items():
        agrees = torch.allclose(found, value, atol=1e-12)
        assert agrees == (of == TERMS[name].gradient), of


def test_as_values_k1_and_k3_are_unbiased_for_kl_p_q_and_k2_is_not() -> None:
    exact = EXACT["KL(p, q)"].item()
    assert mean_over_p(k1(LOG_P - LOG_Q)).item() == pytest.approx(exact, rel=1e-12)
    assert mean_over_p(k3(LOG_P - LOG_Q)).item() == pytest.approx(exact, rel=1e-12)
    assert abs(mean_over_p(k2(LOG_P - LOG_Q)).item() - exact) > 0.05 * exact


def test_the_loss_has_the_value_of_k3_and_the_gradient_of_kl_p_q() -> None:
    loss = kl_loss(LOG_P - LOG_Q)
    torch.testing.assert_close(loss.detach(), k3(LOG_P - LOG_Q).detach(), rtol=0, atol=0)
    torch.testing.assert_close(gradient(mean_over_p(loss), P), gradient(EXACT["KL(p, q)"], P))


def test_drawn_samples_give_the_gradients_that_enumeration_does() -> None:
    """The same claims without enumeration: 200,000 sequences drawn from p, each term's gradient averaged over them."""
    draws = np.random.default_rng(0).multinomial(200_000, LOG_P.exp().detach().numpy() / LOG_P.exp().sum().item())
    share = torch.tensor(draws / draws.sum())
    for name, direction in (("k2", "KL(p, q)"), ("k3", "KL(q, p)")):
        found = gradient((share * TERMS[name].function(LOG_P - LOG_Q)).sum(), P)
        nearer = {of: float((found - gradient(value, P)).norm()) for of, value in EXACT.items()}
        assert min(nearer, key=nearer.__getitem__) == direction
        assert nearer[direction] < 0.05 * float(found.norm())


def test_near_the_reference_both_directions_have_one_gradient_and_far_from_it_not() -> None:
    """So the wrong loss is not noticed at the start of a run."""
    near = policy(1, trained=True)
    with torch.no_grad():
        near.second[0, 0] += 1e-3
    ways = [gradient(exact_kl(*pair), near) for pair in ((near.log_prob(), LOG_Q), (LOG_Q, near.log_prob()))]
    assert (ways[0] - ways[1]).norm() < 1e-2 * ways[0].norm()


def test_k3_misses_the_mass_that_q_has_where_p_has_none() -> None:
    """p rules out the last of three outcomes, as top-p sampling does: the mean of k3 is KL less q's mass there."""
    p, q = np.array([0.5, 0.5]), np.array([0.25, 0.5])
    exact = float(p @ np.log(p / q))
    assert float(p @ k3(np.log(p / q))) == pytest.approx(exact - 0.25, abs=1e-15)
    assert float(p @ k1(np.log(p / q))) == pytest.approx(exact, abs=1e-15)


@given(st.floats(-700, 700))
def test_k3_is_never_negative_and_0_only_at_0(log_ratio: float) -> None:
    found = float(k3(np.float64(log_ratio) * np.ones(1))[0])
    assert found >= 0
    assert found > 0 or abs(log_ratio) < 1e-150


@pytest.mark.parametrize(
    "log_ratio", [1e-12, -1e-12, 3e-5, -3e-5, 0.02, -0.02, 0.4999, 0.5001, -0.5001, 3, -3, 30, -30]
)
def test_k3_keeps_its_digits(log_ratio: float) -> None:
    """Against decimals of 60 digits."""
    with localcontext() as context:
        context.prec = 60
        wanted = (-Decimal(log_ratio)).exp() - 1 + Decimal(log_ratio)
    assert float(k3(np.array(log_ratio))) == pytest.approx(float(wanted), rel=2e-15)


@pytest.mark.parametrize("log_ratio", [-2.0, -0.6, -0.4, -1e-3, 1e-3, 0.4, 0.6, 5.0])
def test_the_derivative_of_k3_is_one_less_the_inverse_ratio_on_both_sides_of_its_seams(log_ratio: float) -> None:
    x = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(k3(x), x)
    assert found.item() == pytest.approx(-math.expm1(-log_ratio), rel=1e-10)


def test_estimates_are_the_worked_example_and_have_its_error() -> None:
    """p = (.2, .8), q = (.8, .2): five samples, as p has them. KL = 0.6 log 4; log-ratios are -log 4 and four log 4."""
    log_ratio = np.log(4) * np.array([-1, 1, 1, 1, 1])
    found = kl_from_log_ratios(log_ratio, term="k1")
    assert found.value == pytest.approx(0.6 * math.log(4), rel=1e-14)
    assert found.standard_error == pytest.approx(np.log(4) * math.sqrt(0.8) / math.sqrt(5))
    assert kl_from_log_ratios(log_ratio).value == pytest.approx(0.6 * math.log(4), rel=1e-14)
    assert kl_from_log_ratios(torch.tensor(log_ratio)).samples == 5


def test_clusters_make_the_error() -> None:
    log_ratio = np.array([0.1, 0.1, 0.3, 0.3])
    apart, together = (kl_from_log_ratios(log_ratio, term="k1", clusters=c) for c in (None, list("aabb")))
    assert together.value == pytest.approx(apart.value)
    assert together.standard_error == pytest.approx(0.1)


def test_a_sample_that_q_rules_out_makes_it_infinite() -> None:
    for term in TERMS:
        assert kl_from_log_ratios(np.array([0.1, math.inf]), term=term).value == math.inf
    assert kl_loss(torch.tensor([math.inf])).item() == math.inf


def test_one_sample_that_holds_most_of_the_weight_is_warned_of() -> None:
    """For N(0, 1) and N(3, 1), KL 4.5, exp(-l) has a variance of e^9; k3 of 500 samples misses what rules it."""
    x = np.random.default_rng(0).normal(size=(100, 500))
    far, near = 4.5 - 3 * x, 0.125 - 0.5 * x
    weight = np.exp(-far[0])
    with pytest.warns(UserWarning, match=r"one sample holds \d+% of the weight.* see term='k1'"):
        found = kl_from_log_ratios(far[0])
    assert f"one sample holds {weight.max() / weight.sum():.0%} of the weight" in found.bias
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        heavy = ["one sample" in kl_from_log_ratios(row).bias for row in far]
    assert np.mean(heavy) > 0.8
    for row in near:
        assert "one sample" not in kl_from_log_ratios(row).bias
    assert "one sample" not in kl_from_log_ratios(far[0], term="k1").bias


def test_an_infinite_log_ratio_has_an_infinite_loss_and_a_gradient_of_nothing() -> None:
    log_ratio = torch.tensor([math.inf, 0.3], requires_grad=True)
    loss = kl_loss(log_ratio)
    (found,) = torch.autograd.grad(loss.sum(), log_ratio)
    assert loss[0] == math.inf
    assert found.tolist() == pytest.approx([0, 0.3])


@pytest.mark.parametrize("bad", [-math.inf, math.nan])
def test_what_no_sample_of_p_can_have_is_refused(bad: float) -> None:
    with pytest.raises(DistributionError, match="sample 1 is"):
        kl_from_log_ratios(np.array([0.1, bad]))


def test_an_unknown_term_is_refused_with_those_there_are() -> None:
    with pytest.raises(DistributionError, match="k1, k2, k3"):
        kl_from_log_ratios(np.array([0.1]), term="k4")


def test_jax_has_the_same_loss_and_gradient() -> None:
    jax = pytest.importorskip("jax")
    x = jax.numpy.asarray([-0.7, 0.2])
    assert np.allclose(kl_loss(x), k3(np.array([-0.7, 0.2])), atol=1e-6)
    assert np.allclose(jax.grad(lambda y: kl_loss(y).sum())(x), x, atol=1e-6)
