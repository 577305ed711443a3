"""Controllers of a KL penalty's weight: worked out by hand, and let loose on simulated policies."""

import json
import math

import numpy as np
import pytest

from kilter.train.kl_control import AdaptiveKl, FixedKl, KlBudget, KlController

CONTROLLERS = (FixedKl(0.2), AdaptiveKl(0.2, target=6), KlBudget(target=6, weight=0.2, horizon=10))


def test_a_fixed_weight_stays():
    controller = FixedKl(0.2)
    controller.observe(100.0, 1.0, 5)
    assert controller.weight == 0.2


@pytest.mark.parametrize(
    ("kl", "steps", "factor"),
    [
        (6.6, 1, 1.01),  # the error is 0.1, a tenth of which is taken
        (6.0, 1, 1.0),
        (12.0, 1, 1.02),  # 1, clipped to 0.2
        (0.0, 1, 0.98),
        (12.0, 3, 1.02**3),
    ],
)
def test_the_adaptive_controller_is_that_of_ziegler(kl, steps, factor):
    controller = AdaptiveKl(0.2, target=6)
    controller.observe(kl, 0.0, steps)
    assert controller.weight == pytest.approx(0.2 * factor, rel=1e-12)


def test_the_budget_moves_the_log_weight_by_the_errors_change_and_by_its_sum():
    controller = KlBudget(target=5, weight=0.1, horizon=10, gain=2)
    controller.observe(5 * math.exp(0.4), 0.0, 0)
    assert math.log(controller.weight / 0.1) == pytest.approx(2 * 0.4)
    controller.observe(5 * math.exp(0.25), 0.0, 4)
    assert math.log(controller.weight / 0.1) == pytest.approx(2 * 0.25 + 0.25 * 4 / 10)
    controller.observe(5.0, 0.0, 4)
    assert math.log(controller.weight / 0.1) == pytest.approx(0.25 * 4 / 10)


def test_errors_beyond_the_clip_count_as_that():
    for kl, sign in ((0.0, -1), (5e-5, -1), (5e5, 1)):
        controller = KlBudget(target=5, weight=0.1, horizon=10, gain=2)
        controller.observe(kl, 0.0, 5)
        assert math.log(controller.weight / 0.1) == pytest.approx(sign * 0.5 * (2 + 0.5))


@pytest.mark.parametrize("sign", [1, -1], ids=["above", "below"])
def test_far_from_its_target_the_weight_waits_while_the_kl_comes_nearer_and_moves_on_where_it_does_not(sign):
    controller = KlBudget(target=5, weight=0.1, horizon=10, gain=2)
    moved = []
    for error, chance in ((3, 0.0), (2, 0.0), (2, 0.0), (1.9, 0.2), (1.5, 0.2), (2.5, 0.2)):
        before, kl = controller.weight, 5 * math.exp(sign * error)
        controller.observe(kl, chance * kl, 4)
        moved.append(round(sign * math.log(controller.weight / before), 3))
    # The second is nearer, the third is not; of the others one is nearer by less than chance, one by more.
    assert moved == [1.2, 0, 0.2, pytest.approx(0.2, abs=0.05), 0, pytest.approx(0.2, abs=0.05)]


def test_what_chance_explains_moves_nothing_at_once_and_what_it_does_not_is_shrunk():
    kl = 5 * math.exp(0.2)
    for chance, share in ((0.2, 0.0), (0.4, 0.0), (0.1, 0.75), (0.0, 1.0)):
        controller = KlBudget(target=5, weight=0.1, horizon=10, gain=2)
        controller.observe(kl, chance * kl, 0)
        assert math.log(controller.weight / 0.1) == pytest.approx(2 * 0.2 * share), chance


def test_an_error_within_chance_is_still_summed_up():
    controller = KlBudget(target=5, weight=0.1, horizon=10, gain=2)
    for _ in range(5):
        controller.observe(5 * math.exp(-0.2), 5.0, 4)
    assert math.log(controller.weight / 0.1) == pytest.approx(-0.2 * 5 * 4 / 10)


def test_the_weight_stays_within_its_ends_and_comes_back_from_them_at_once():
    controller = KlBudget(target=5, weight=0.1, horizon=1, gain=0.5)
    for _ in range(99):
        controller.observe(0.01, 0.0, 1)
    assert controller.weight == KlBudget.LEAST
    controller.observe(5 * math.exp(0.6), 0.0, 1)
    assert controller.weight == pytest.approx(KlBudget.LEAST * math.exp(0.5 * (2 * 0.5)))
    for _ in range(99):
        controller.observe(50.0, 0.0, 1)
    assert controller.weight == KlBudget.MOST


@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda controller: type(controller).__name__)
def test_a_controller_taken_up_from_its_state_goes_on_as_if_it_had_not_been_left(controller: KlController):
    fresh = {FixedKl: FixedKl(9), AdaptiveKl: AdaptiveKl(9, target=6), KlBudget: KlBudget(6, 9, horizon=10)}
    seen = [(0.5, 0.1), (9.0, 0.3), (6.1, 0.2), (5.0, 0.2), (7.0, 0.1)]
    for kl, error in seen[:3]:
        controller.observe(kl, error, 2)
    other = fresh[type(controller)]
    other.load_state(json.loads(json.dumps(controller.state)))
    for kl, error in seen[3:]:
        controller.observe(kl, error, 2)
        other.observe(kl, error, 2)
        assert other.weight == controller.weight


class Policy:
    """A policy under an optimiser that scales its steps: which way its KL goes depends on what weighs more.

    The data's push is `holds` at the target, and less the further the policy has gone; the pull is the penalty's
    weight. `speed` is the change of the KL in a step in which nothing pulls against it, as a share.
    """

    def __init__(self, kl, *, target, holds, speed, memory=0.9):
        self.kl, self.target, self.holds, self.speed, self.memory = kl, target, holds, speed, memory
        self.momentum = 0.0

    def step(self, weight, rate):
        push, pull = self.holds * 3 / (1 + 2 * self.kl / self.target), weight * self.kl / (self.kl + 0.02)
        self.momentum = self.memory * self.momentum + (1 - self.memory) * (push - pull) / (push + pull)
        towards = rate * self.speed * self.momentum
        self.kl = self.kl + towards * (self.kl + 0.1 * self.target) if towards > 0 else self.kl * math.exp(towards)


def fly(controller, policy, *, noise, seed, steps=400, every=8):
    random = np.random.default_rng(seed)
    for step in range(steps):
        if step % every == 0:
            measured = policy.kl * math.exp(noise * random.standard_normal())
            controller.observe(measured, noise * measured, every if step else 0)
        policy.step(controller.weight, max(1 - step / steps, 0.2))
    return policy.kl


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("holds", [0.02, 0.3])
@pytest.mark.parametrize("speed", [0.05, 0.15])
@pytest.mark.parametrize("start", [1e-3, 8.0], ids=["below", "above"])
@pytest.mark.parametrize("target", [0.3, 3.0, 30.0])
def test_a_noisy_policy_ends_at_its_budget_from_below_and_from_above(target, start, speed, holds, seed):
    controller = KlBudget(target=target, weight=0.1, horizon=2.5 * 8)
    kl = fly(controller, Policy(start * target, target=target, holds=holds, speed=speed), noise=0.05, seed=seed)
    assert kl == pytest.approx(target, rel=0.1)


def test_the_adaptive_controller_keeps_a_policy_that_follows_its_penalty_within_a_step():
    """What it was made for: the KL is a function of the weight, with some noise."""
    controller, random = AdaptiveKl(0.2, target=6), np.random.default_rng(0)
    kl = 0.0
    for _ in range(400):
        kl = 1 / controller.weight * math.exp(0.05 * random.standard_normal())
        controller.observe(kl, 0.05 * kl, 1)
    assert 1 / controller.weight == pytest.approx(6, rel=0.05)
