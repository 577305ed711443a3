"""Controllers of the weight of a KL penalty, for any method: each is told what the KL was found to be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol


class KlController(Protocol):
    """Moves the weight of a KL penalty by what is measured of the KL; `state` is plain numbers, for checkpoints."""

    @property
    def weight(self) -> float: ...

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Take account of a measured KL, in nats, with its standard error, so many steps after the one before."""
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

    @property
    def state(self) -> dict[str, float]:
        return {"weight": self.weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.weight = state["weight"]


@dataclass
class AdaptiveKl:
    """Proportional control of the weight's logarithm (Ziegler et al. 2019, arXiv 1909.08593, section 2.2).

    At each step, weight *= 1 + gain clip((kl - target) / target, -0.2, 0.2); where several steps lie between two
    observations, once for each. It integrates the error: while the KL is short of its target the weight falls without
    end, which suits a policy that follows its penalty within a few steps.
    """

    weight: float
    target: float
    gain: float = 0.1
    CLIP: ClassVar[float] = 0.2

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Move the weight by the relative error, whatever its standard error."""
        error = min(max(kl / self.target - 1, -self.CLIP), self.CLIP)
        self.weight *= (1 + self.gain * error) ** steps

    @property
    def state(self) -> dict[str, float]:
        return {"weight": self.weight}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.weight = state["weight"]


@dataclass
class KlBudget:
    """Brings the KL to a target and keeps it there: proportional and integral control of the weight's logarithm.

    The error is e = log(kl / target), clipped to +-CLIP. From one observation to the next

        log weight += gain (change of the shrunk error) + e steps / horizon

    where an error with standard error s shrinks to e max(0, 1 - s^2 / e^2): what chance alone explains moves nothing at
    once, and in the sum of errors chance averages out. Under an optimiser that scales its steps the policy follows the
    sign of what weighs more, so the KL is about an integral of log weight, and only the first term damps.

    Nothing is summed up while the error is beyond its clip and has become smaller by more than chance: a policy that is
    on its way needs no other weight, and what was summed up there would have to be taken back beyond the target.
    """

    target: float
    weight: float
    horizon: float
    gain: float = 4.0
    shrunk: float = 0.0
    distance: float = 0.0  # |log(kl / target)| at the observation before
    CLIP: ClassVar[float] = 0.5
    NEARLY_NOTHING: ClassVar[float] = 1e-9  # of the target
    LEAST: ClassVar[float] = 1e-4
    MOST: ClassVar[float] = 1e3

    def observe(self, kl: float, standard_error: float, steps: int) -> None:
        """Move the weight by the error, and by how the error has changed beyond chance."""
        error = math.log(max(kl / self.target, self.NEARLY_NOTHING))
        chance = standard_error / kl if kl > 0 else 0.0
        shrunk = 0.0 if abs(error) <= chance else self._clipped(error * (1 - (chance / error) ** 2))
        change = self.gain * (shrunk - self.shrunk)
        if abs(error) < self.CLIP or self.distance - abs(error) <= chance:
            change += self._clipped(error) * steps / self.horizon
        self.shrunk, self.distance = shrunk, abs(error)
        self.weight = min(max(self.weight * math.exp(change), self.LEAST), self.MOST)

    def _clipped(self, error: float) -> float:
        return min(max(error, -self.CLIP), self.CLIP)

    @property
    def state(self) -> dict[str, float]:
        return {"weight": self.weight, "shrunk": self.shrunk, "distance": self.distance}

    def load_state(self, state: Mapping[str, float]) -> None:
        self.weight, self.shrunk, self.distance = state["weight"], state["shrunk"], state["distance"]
