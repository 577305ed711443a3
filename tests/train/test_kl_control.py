"""Controllers of a KL penalty's weight: worked out by hand, and let loose on simulated policies."""

import json
import math

import numpy as np
import pytest

from kilter.train.kl_control import LEAST, AdaptiveKl, FixedKl, KlBudget, KlController

CONTROLLERS = (FixedKl(0.2), AdaptiveKl(0.2, target=6), KlBudget(target=6, weight=0.2, horizon=10, planned=8))


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


def exactly(controller, root, *, ratio=1.0, trend=0.0):
    """The controller, as if it had followed a policy of such a token KL and ratio for long."""
    controller.steps, controller.root, controller.trend, controller.ratio = 1000, root, trend, math.log(ratio)
    return controller


def test_the_weight_goes_by_the_error_and_by_its_sum():
    """e = 0.4: the balance moves by e / 10 in a step, and the weight is exp(4 e) times that."""
    controller = exactly(KlBudget(target=5, weight=0.1, horizon=10, planned=18), math.sqrt(5 * math.exp(0.4)))
    for step in (1, 2, 3):
        controller.follow(5 * math.exp(0.4))
        assert math.log(controller.weight / 0.1) == pytest.approx(step * 0.04 + 4 * 0.4)


def test_what_is_followed_counts_by_what_it_was_measured_to_be():
    """Half a nat of answers to a nat of token KL."""
    controller = exactly(KlBudget(target=5, weight=0.1, horizon=10, planned=18), math.sqrt(8), ratio=0.5)
    controller.follow(8.0)
    error = math.log(4 / 5)
    assert math.log(controller.weight / 0.1) == pytest.approx(error / 10 + 4 * error)


def test_it_looks_ahead_by_the_trend_of_the_root():
    """The root of token KL is 2 and grows by 0.02 a step: five steps on it is 2.12, if the next one is 2.02."""
    controller = exactly(KlBudget(target=4, weight=0.1, horizon=10, planned=18), 2.0, trend=0.02)
    controller.follow(2.02**2)
    now, then = 2 * math.log(2.02 / 2), 2 * math.log(2.12 / 2)
    assert math.log(controller.weight / 0.1) == pytest.approx(now / 10 + 4 * then)


@pytest.mark.parametrize(
    ("trend", "left"),
    [
        (-0.004, 2 * math.log((3 - 25 * 0.004) / 2.5)),  # of the root, which is 3 and should be 2.5: it comes nearer
        (-0.03, 0.0),  # it will have passed its target
        (0.01, 2 * math.log(3 / 2.5)),  # it goes away
    ],
)
def test_of_an_error_what_its_trend_will_leave_is_summed_up(trend, left):
    controller = exactly(KlBudget(target=2.5**2, weight=0.1, horizon=10, planned=9999), 3 - trend, trend=trend)
    controller.follow(9.0)
    assert controller.balance - math.log(0.1) == pytest.approx(left / 10)


@pytest.mark.parametrize(("planned", "ahead"), [(9999, 25), (1017, 8), (1001, 5), (900, 5)])
def test_towards_its_end_a_run_has_less_patience(planned, ahead):
    """The trend takes 0.004 of the root in a step, which is 3 and should be 2.5, after 1,001 steps."""
    controller = exactly(KlBudget(target=2.5**2, weight=0.1, horizon=10, planned=planned), 3.004, trend=-0.004)
    controller.follow(9.0)
    left = 2 * math.log((3 - ahead * 0.004) / 2.5)
    assert controller.balance - math.log(0.1) == pytest.approx(left / 10)


def test_far_below_its_target_nothing_holds_a_policy_and_nothing_is_summed_up():
    controller = KlBudget(target=5, weight=0.1, horizon=10, planned=18)
    for share in (0.0, 0.1, 0.3):
        exactly(controller, math.sqrt(5 * share)).follow(5 * share)
        assert controller.weight == LEAST
    exactly(controller, math.sqrt(5)).follow(5)
    assert controller.weight == pytest.approx(0.1)


def test_far_above_its_target_an_error_counts_as_half_and_is_summed_up():
    for share in (2.0, 1e6):
        controller = exactly(KlBudget(target=5, weight=0.1, horizon=10, planned=18), math.sqrt(5 * share))
        for step in (1, 2, 3):
            controller.follow(5 * share)
            assert math.log(controller.weight / 0.1) == pytest.approx(step * 0.05 + 4 * 0.5)


def test_the_ratio_is_the_kalman_filter_of_a_random_walk():
    """Against the textbook's posterior, from the joint normal distribution of the walk and all measurements."""
    controller = exactly(KlBudget(target=5, weight=0.1, horizon=10, planned=18), 2.0)
    measured, chances = np.array([3.0, 5.0, 4.5, 2.0]), np.array([0.1, 0.3, 0.02, 0.5])
    for kl, chance in zip(measured, chances, strict=True):
        controller.observe(kl, chance * kl, 5)
    walk = 0.25 + 0.01 * (1 + np.minimum.outer(np.arange(4), np.arange(4)))
    weights = np.linalg.solve(walk + np.diag(chances**2), walk[:, -1])
    assert controller.ratio == pytest.approx(weights @ np.log(measured / 4))
    assert controller.doubt == pytest.approx(walk[-1, -1] - weights @ walk[:, -1])


@pytest.mark.parametrize("step", [1, 4, 6, 12])
def test_from_above_the_target_comes_down_evenly_in_its_logarithm(step):
    """From ten times the target in 10 steps: five steps after the fourth it is 10^0.1 of what it will be."""
    controller = KlBudget(target=2, weight=0.1, horizon=1e9, planned=20)
    controller.observe(20.0, 1.0, 0)
    kl = 2 * 10 ** max(0, 1 - step / 10)  # as the plan has it
    controller.steps, controller.root = step - 1, math.sqrt(kl)
    controller.follow(kl)
    ahead = math.log(kl / 2) - math.log(10) * max(0, 1 - (step + 5) / 10)
    assert controller.weight == pytest.approx(0.1 * math.exp(4 * min(ahead, 0.5)), rel=1e-6)


def test_a_measurement_below_the_target_where_the_policy_begins_changes_nothing():
    controllers = [KlBudget(target=5, weight=0.1, horizon=10, planned=18) for _ in range(2)]
    controllers[0].observe(1.0, 0.1, 0)
    for controller in controllers:
        controller.follow(1.0)
    assert controllers[0].state == controllers[1].state


def test_the_weight_stays_within_its_ends_and_comes_back_from_them_at_once():
    controller = exactly(KlBudget(target=5, weight=0.1, horizon=1, planned=18), math.sqrt(5 * math.exp(-0.9)))
    for _ in range(99):
        controller.follow(5 * math.exp(-0.9))
    assert controller.weight == LEAST
    exactly(controller, math.sqrt(5 * math.exp(0.4))).follow(5 * math.exp(0.4))
    assert controller.weight == pytest.approx(LEAST * math.exp(0.4 + 4 * 0.4))
    for _ in range(99):
        controller.follow(5 * math.exp(0.4))
    assert controller.weight == KlBudget.MOST


@pytest.mark.parametrize("controller", CONTROLLERS, ids=lambda controller: type(controller).__name__)
def test_a_controller_taken_up_from_its_state_goes_on_as_if_it_had_not_been_left(controller: KlController):
    fresh = {FixedKl: FixedKl(9), AdaptiveKl: AdaptiveKl(9, target=6), KlBudget: KlBudget(6, 9, horizon=10, planned=8)}
    seen = [(9.5, 0.1), (9.0, 0.3), (6.1, 0.2), (5.0, 0.2), (7.0, 0.1)]

    def see(controller, places):
        for place in places:
            controller.observe(*seen[place], 2 * min(place, 1))
            controller.follow(0.9 * seen[place][0])
            controller.follow(0.8 * seen[place][0])
            yield controller.weight

    list(see(controller, range(3)))
    other = fresh[type(controller)]
    other.load_state(json.loads(json.dumps(controller.state, allow_nan=False)))
    assert list(see(other, (3, 4))) == list(see(controller, (3, 4)))


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
    """Token KL is three fifths of that of answers, and as noisy in a batch as measurements are."""
    random = np.random.default_rng(seed)
    for step in range(steps):
        if step % every == 0:
            measured = policy.kl * math.exp(noise * random.standard_normal())
            controller.observe(measured, noise * measured, every if step else 0)
        controller.follow(0.6 * policy.kl * math.exp(noise * random.standard_normal()))
        policy.step(controller.weight, max(1 - step / steps, 0.2))
    return policy.kl


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("holds", [0.02, 0.3])
@pytest.mark.parametrize("speed", [0.05, 0.15])
@pytest.mark.parametrize("start", [1e-3, 8.0], ids=["below", "above"])
@pytest.mark.parametrize("target", [0.3, 3.0, 30.0])
def test_a_noisy_policy_ends_at_its_budget_from_below_and_from_above(target, start, speed, holds, seed):
    controller = KlBudget(target=target, weight=0.1, horizon=10, planned=400)
    kl = fly(controller, Policy(start * target, target=target, holds=holds, speed=speed), noise=0.1, seed=seed)
    assert kl == pytest.approx(target, rel=0.1)


def test_the_adaptive_controller_keeps_a_policy_that_follows_its_penalty_within_a_step():
    """What it was made for: the KL is a function of the weight, with some noise."""
    controller, random = AdaptiveKl(0.2, target=6), np.random.default_rng(0)
    kl = 0.0
    for _ in range(400):
        kl = 1 / controller.weight * math.exp(0.05 * random.standard_normal())
        controller.observe(kl, 0.05 * kl, 1)
    assert 1 / controller.weight == pytest.approx(6, rel=0.05)
