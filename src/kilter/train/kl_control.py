"""Controllers of the weight of a KL penalty, for any method: each is told what the KL was found to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

LEAST = 1e-4  # weight: one that holds nothing back


class KlController(Protocol):
    """Moves the weight of a KL penalty by what is measured of the KL; `state` is plain numbers, for checkpoints."""

    @property
    def weight(self) -> float: ...

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Take account of a measured KL, in nats, with its standard error, so many steps after the one before; 0 where
        the policy is measured before its first step."""
        ...

    def follow(self, token_kl: float) -> None:
        """Take account of a step: of the penalty that its batch had before it, in nats an answer."""
        ...

    @property
    def state(self) -> dict[str, float]: ...

    def load_state(self, state: Mapping[str, float]) -> None: ...


@dataclass
class FixedKl:
    """The same weight all the time."""

    weight: float

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Changes nothing."""

    def follow(self, token_kl: float) -> None:
        """Changes nothing."""

    @property
    def state(self) -> dict[str, float]:
        return {"weight": self.weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.weight = state["weight"]


@dataclass
class AdaptiveKl(FixedKl):
    """Proportional control of the weight's logarithm (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    At each step, weight *= 1 + gain clip((kl - target) / target, -0.2, 0.2); where several steps lie between two
    observations, once for each. It integrates the error: while the KL is short of its target the weight falls without
    end, which suits a policy that follows its penalty within a few steps.
    """

    target: float
    gain: float = 0.1
    CLIP: ClassVar[float] = 0.2

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Move the weight by the relative error, whatever its standard error."""
        error = min(max(kl / self.target - 1, -self.CLIP), self.CLIP)
        self.weight *= (1 + self.gain * error) ** steps


@dataclass
class KlBudget:
    """Brings the KL of answers to a target and keeps it there.

    **What it goes by.** Measurements of the KL are few and noisy, while every step has the token KL of its batch for
    nothing. So that is followed, and measurements say how many nats of the one there are to a nat of the other: the
    logarithm of that ratio is taken to wander by `DRIFT` from one measurement to the next, so its best estimate is a
    Kalman filter's. An optimiser that scales its steps has a policy move at its own speed, the weight deciding only
    whereto, and go on for the `MEMORY` steps of its momentum. The root of a KL is about a distance; so it is the root
    that is smoothed together with its trend (Holt's linear method), and looked at `MEMORY` steps ahead.

    **What it does.** With e = log(KL / target) now, and e' so many steps ahead, the weight is

        exp(balance + GAIN min(e', CLIP))    or LEAST where e' < FREE: far below its target, nothing holds it

    and the balance, which is to become what holds the policy where it is, moves by min(left, CLIP) / horizon in a step
    where e > FREE. Left is what the trend leaves of e in `PATIENCE` horizons, or in half of the steps that are planned
    yet: 0 where e will have changed its sign, for a policy that is on its way needs no other weight, and e where it
    does not shrink.

    A policy that begins above its target is not pulled at once: the target comes down from there, evenly in its
    logarithm, in the first half of the run. A hard pull goes too far, and its squared gradients, which the optimiser
    remembers, make all later steps small.
    """

    target: float
    weight: float
    horizon: float
    planned: int
    GAIN: ClassVar[float] = 4.0
    FREE: ClassVar[float] = -1.0
    CLIP: ClassVar[float] = 0.5
    MEMORY: ClassVar[int] = 5
    PATIENCE: ClassVar[float] = 2.5  # horizons
    DESCENT: ClassVar[float] = 0.5  # of the run
    SMOOTHING: ClassVar[float] = 0.3  # of the root of token KL
    TREND_SMOOTHING: ClassVar[float] = 0.1
    DRIFT: ClassVar[float] = 0.1
    NEARLY_NOTHING: ClassVar[float] = 1e-9  # of the target
    MOST: ClassVar[float] = 10.0
    REMEMBERED: ClassVar[tuple[str, ...]] = (
        "weight", "balance", "steps", "above", "root", "trend", "ratio", "doubt",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.balance = math.log(self.weight)
        self.steps, self.above = 0, 0.0  # since it began, and log(KL / target) then, if that is above 0
        self.root, self.trend = 0.0, 0.0  # of token KL, and its change in a step
        self.ratio, self.doubt = 0.0, 0.25  # log(KL of answers / token KL), and the variance of what is known of it

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Learn from a measured KL where the policy begins, and later how it compares with token KL."""
        if self.steps == 0:
            self.above = max(self._log(kl / self.target), 0.0)
            return
        root = self.root + self.trend  # a step has the KL before its update
        if kl > 0 and root > 0:
            self.doubt += self.DRIFT**2
            share = self.doubt / (self.doubt + (standard_error / kl) ** 2)
            self.ratio += share * (math.log(kl / root**2) - self.ratio)
            self.doubt *= 1 - share

    def follow(self, token_kl: float) -> None:
        """Smooth the token KL, and move the weight."""
        root = math.sqrt(max(token_kl, 0.0))
        before = self.root if self.steps else root
        self.root = max(before + self.trend + self.SMOOTHING * (root - before - self.trend), 0.0)
        self.trend += self.TREND_SMOOTHING * (self.root - before - self.trend)
        self.steps += 1
        patience = max(min(self.PATIENCE * self.horizon, (self.planned - self.steps) / 2), self.MEMORY)
        error, ahead, later = (self._error(steps) for steps in (0, self.MEMORY, patience))
        left = 0.0 if error * later < 0 else min(error, later, key=abs)
        if error > self.FREE:
            balance = self.balance + min(left, self.CLIP) / self.horizon
            self.balance = min(max(balance, math.log(LEAST)), math.log(self.MOST))
        weight = math.exp(self.balance + self.GAIN * min(ahead, self.CLIP))
        self.weight = LEAST if ahead < self.FREE else min(max(weight, LEAST), self.MOST)

    def _error(self, ahead: float) -> float:
        """log(KL / target), so many steps ahead."""
        root = max(self.root + ahead * self.trend, 0.0)
        coming_down = self.above * max(0.0, 1 - (self.steps + ahead) / (self.DESCENT * self.planned))
        return self._log(root**2 * math.exp(self.ratio) / self.target) - coming_down

    def _log(self, share: float) -> float:
        return math.log(max(share, self.NEARLY_NOTHING))

    @property
    def state(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in self.REMEMBERED}

    def load_state(self, state: Mapping[str, float]) -> None:
        for name in self.REMEMBERED:
            setattr(self, name, state[name])
