"""Keeping a policy near its reference: what measures the KL of its answers, and what a run does about it.

What is controlled is the KL of answers: KL(policy, reference) between distributions over whole answers, measured on
answers that the policy itself draws. What is penalised is token KL along the data's answers, in the loss. The two are
not the same number, nor in a fixed ratio; so measurements of the one say what the other is worth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from kilter.divergence.estimates import Estimate, kl_from_sequences
from kilter.measure.samples import score_samples
from kilter.model.sampler import SamplingSettings, TransformersSampler, check_room
from kilter.model.scorer import Scorer
from kilter.model.workers import ALONE, Workers
from kilter.objectives import Mixture
from kilter.tokens.sequence import Ids
from kilter.train.checkpoint import Progress
from kilter.train.config import AlignConfig
from kilter.train.kl_control import LEAST, AdaptiveKl, KlBudget, KlController

PENALTY = "kl"  # the objective whose weight a budget moves
MEASURED = "answer_kl_policy_reference"  # as metrics of evaluations name it
FIRST_WEIGHT = 0.1  # of it, where the objective does not say one
MEASUREMENTS = 50  # in a run, where it is not said how often
HORIZON = 1 / 40  # of a run: in which an error by a factor of e, if it lasts, moves the balance by one
LEAST_HORIZON = 5  # steps; Adam's momentum has a memory of ten
NODES = 2048  # scored at once


@dataclass(frozen=True, eq=False)
class AnswerKlMeter:
    """Measures KL(policy, reference) of answers: those that the policy draws for prompts of the data, each drawn anew
    at every measurement; Rao-Blackwellised, in nats an answer of at most `tokens` tokens.

    `prompts` has the prompt of every row, so one that is asked more often counts more. Raises ConfigError where one
    leaves no room for its answer.
    """

    policy: Scorer
    reference: Scorer
    prompts: Sequence[Ids]
    stops: frozenset[int]
    tokens: int
    seed: int
    workers: Workers = ALONE

    def __post_init__(self) -> None:
        check_room(self.policy, self.prompts, self.tokens, flag="--kl-tokens")

    def measure(self, step: int, samples: int, on_progress: Callable[[int], None] = lambda samples: None) -> Estimate:
        """Together: the KL from so many samples; what is drawn follows from the seed and the step."""
        random = np.random.default_rng([self.seed, step, samples])
        rounds = -(-samples // len(self.prompts))
        rows = np.concatenate([random.permutation(len(self.prompts)) for _ in range(rounds)])[:samples]
        prompts = [self.prompts[row] for row in rows]
        longest = max(map(len, prompts)) + self.tokens
        with self.workers.gathered(self.policy):
            sampler = TransformersSampler(self.policy, self.stops, SamplingSettings(self.tokens))
            drawn = sampler.sample(prompts, seed=int(random.integers(2**62)), on_progress=on_progress)
            scored = score_samples(self.policy, drawn, self.reference, node_budget=max(NODES, longest))
        found = kl_from_sequences([row.kl for row in scored], [row.log_ratio for row in scored]).kl
        value, standard_error = (self.workers.of_main(number) for number in (found.value, found.standard_error))
        return Estimate(value, standard_error, found.samples, found.bias)


@dataclass(frozen=True, eq=False)
class KlBounds:
    """What a run does about the KL of its answers: a budget that it is to end at, a limit not to be passed, or both.

    It is measured before the first step where the policy does not begin at the reference, then every so many steps, and
    after the last, with more samples. There, a run with a budget goes on until what is measured is in the band, and by
    its standard error to spare, for at most a `CORRECTION` of its steps.
    """

    meter: AnswerKlMeter
    every: int
    samples: int
    budget: float | None = None
    controller: KlController | None = None
    most: float | None = None
    rolls_back: bool = False
    starts_at_zero: bool = True

    TOLERANCE: ClassVar[float] = 0.1  # share of the budget by which what is measured may miss it
    # Share of the peak learning rate that is left with a budget: at a rate of 0 no weight would change anything.
    LEAST_RATE: ClassVar[float] = 0.2
    CORRECTION: ClassVar[float] = 0.5
    # After the last step, times as many samples as on the way: at least, and at most to have a standard error of
    # `PRECISION` of the budget.
    FINAL: ClassVar[int] = 4
    FINAL_AT_MOST: ClassVar[int] = 32
    PRECISION: ClassVar[float] = 0.025

    def weighed(self, mixture: Mixture) -> Mixture:
        """What is minimised: with a budget, the penalty at its present weight."""
        return mixture if self.controller is None else mixture.weighing(PENALTY, self.controller.weight)

    @property
    def least_rate(self) -> float:
        return 0.0 if self.budget is None else self.LEAST_RATE

    def most_steps(self, steps: int) -> int:
        """How many steps there are at most, where so many are planned."""
        corrections = 0 if self.budget is None else math.ceil(self.CORRECTION * steps / self.every)
        return steps + corrections * self.every

    def take_up(self, done: Progress) -> None:
        """Go on from where a run stands."""
        if self.controller is not None and done.controller:
            self.controller.load_state(done.controller)

    def follow(self, losses: Mapping[str, float], done: Progress) -> None:
        """Take account of a step's losses by term."""
        if self.controller is not None:
            self.controller.follow(losses[PENALTY])
            done.controller = self.controller.state

    def measure_if_due(self, done: Progress, steps: int, on_progress: Callable[[int], None]) -> bool:
        """Together: measure the KL if it is time, and note it; returns whether it was."""
        since_planned = done.step - steps
        due = (since_planned if since_planned >= 0 else done.step) % self.every == 0
        if not due or done.measured_step == done.step or (done.step == 0 and self.starts_at_zero):
            return False
        found = self._measured(done.step, on_progress, final=since_planned >= 0)
        if self.controller is not None:
            self.controller.observe(found.value, found.standard_error, done.step - max(done.measured_step, 0))
            done.controller = self.controller.state
        done.measured_step, done.answer_kl, done.answer_kl_se = done.step, found.value, found.standard_error
        return True

    def _measured(self, step: int, on_progress: Callable[[int], None], *, final: bool) -> Estimate:
        if not final:
            return self.meter.measure(step, self.samples, on_progress)
        found = self.meter.measure(step, self.FINAL * self.samples, on_progress)
        if self.budget is None or found.standard_error <= self.PRECISION * self.budget:
            return found
        wanted = math.ceil(found.samples * (found.standard_error / (self.PRECISION * self.budget)) ** 2)
        return self.meter.measure(step, min(wanted, self.FINAL_AT_MOST * self.samples), on_progress)

    def numbers(self, done: Progress) -> dict[str, float]:
        """For metrics: the KL as it was measured last, its standard error, and the weight of the penalty."""
        weight = {} if self.controller is None else {"weight_kl": self.controller.weight}
        if done.answer_kl is None or done.answer_kl_se is None:
            return weight
        return {MEASURED: done.answer_kl, f"{MEASURED}_se": done.answer_kl_se, **weight}

    def exceeded(self, done: Progress) -> bool:
        """Whether what was measured last is more than the limit."""
        return self.most is not None and done.answer_kl is not None and done.answer_kl > self.most

    def ended(self, done: Progress, steps: int) -> bool:
        """Whether the run is to go no further: beyond the limit, or with all steps made and nothing to be corrected,
        for the KL is in the band, or falls short of it though the penalty has no weight left to lose."""
        if self.exceeded(done) or done.step == self.most_steps(steps):
            return True
        if done.step < steps or done.measured_step != done.step:
            return False
        return self._in_band(done) or self._falls_short(done)

    def describe(self, done: Progress, steps: int) -> str:
        """What became of the KL, in a sentence."""
        found = f"KL(policy, reference) of answers: {done.answer_kl:.3f} nats (standard error {done.answer_kl_se:.3f})"
        if self.most is not None:
            found += f" after step {done.step}, of at most {self.most:g}"
        if self.budget is None or self.exceeded(done):
            return f"{found}."
        weight = done.controller["weight"]
        found += f" for a budget of {self.budget:g}, the weight of exact token KL at {weight:.3g}"
        if (extra := done.step - steps) > 0:
            found += f", after {extra} corrective steps"
        if self._falls_short(done):
            return (
                f"{found}. Nothing held the policy back: the data did not ask for more. More epochs or a higher "
                "learning rate would use the budget."
            )
        if abs(self._miss(done)) > self.TOLERANCE:
            return f"{found}. That misses it by {self._miss(done):+.0%}: give the run more steps."
        return f"{found}."

    def _miss(self, done: Progress) -> float:
        """By which share of the budget the KL is above it."""
        assert self.budget is not None
        assert done.answer_kl is not None
        return done.answer_kl / self.budget - 1

    def _in_band(self, done: Progress) -> bool:
        assert self.budget is not None
        assert done.answer_kl_se is not None
        spare = min(done.answer_kl_se / self.budget, self.TOLERANCE / 2)
        return abs(self._miss(done)) <= self.TOLERANCE - spare

    def _falls_short(self, done: Progress) -> bool:
        return self._miss(done) < -self.TOLERANCE and done.controller["weight"] <= LEAST


def kl_bounds(
    config: AlignConfig, meter: AnswerKlMeter, mixture: Mixture, steps: int, *, starts_at_zero: bool
) -> KlBounds:
    """The bounds that a run's settings ask for; the weight begins at that of the mixture's own penalty, if there is."""
    every = config.kl_every or max(1, steps // MEASUREMENTS)
    weight = next((term.weight for term in mixture.terms if term.name == PENALTY), FIRST_WEIGHT)
    controller: KlController | None = None
    if config.kl_budget is not None and config.kl_control == "ziegler":
        controller = AdaptiveKl(weight, config.kl_budget)
    elif config.kl_budget is not None:
        horizon = max(LEAST_HORIZON, HORIZON * steps)
        controller = KlBudget(config.kl_budget, weight, horizon, planned=steps)
    return KlBounds(
        meter,
        every=every,
        samples=config.kl_samples,
        budget=config.kl_budget,
        controller=controller,
        most=config.max_kl,
        rolls_back=config.on_max_kl == "rollback",
        starts_at_zero=starts_at_zero,
    )
