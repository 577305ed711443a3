"""A sweep in the demo's world: the true reward of every run, against the most there is at its KL."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console

from kilter.demo.config import SWEEP, DemoConfig
from kilter.demo.frontier import frontier, with_off_grammar
from kilter.demo.wind_tunnel import enumerate_answers, measure, prepare, rewards_of, settings
from kilter.demo.world import restaurant
from kilter.measure.statistics import Interval
from kilter.model.loading import load_scorer
from kilter.train.grid import SweepConfig
from kilter.train.sweep import Swept, sweep
from kilter.train.sweep_account import Exact

UNKNOWN = Interval(math.nan, math.nan, math.nan)


class RestaurantOracle:
    """Enumerates all sentences of the world under a model, and holds it against the model that runs begin with."""

    def __init__(self, start: str) -> None:
        self.world, self.tokenizer = restaurant(), Path(start)
        self.before = enumerate_answers(load_scorer(start), self.world, self.tokenizer)
        log_start = [with_off_grammar(log_p) for log_p in self.before]
        self.limit = frontier(log_start, rewards_of(self.world), self.world.prompt_probability)
        self.start_reward = measure(self.world, self.before, self.before, UNKNOWN, math.nan).reward_before

    def __call__(self, model: Path) -> Exact:
        """Raises ModelError where the sentences' probabilities sum to more than 1."""
        after = enumerate_answers(load_scorer(str(model)), self.world, self.tokenizer)
        flight = measure(self.world, self.before, after, UNKNOWN, math.nan)
        return Exact(flight.reward_after, flight.kl, flight.reward_optimum)


def demo_sweep(config: DemoConfig, console: Console | None = None) -> Swept:
    """Draw data from the world, train, align again and again, and hold each result against the exact frontier."""
    console = console or Console()
    ready = prepare(config, console)
    console.rule("3. alignment, with several betas and objectives", align="left")
    here: dict[str, Any] = {"out": config.out / "sweep", "overwrite": True, "world": "demo"}
    grid = SweepConfig(**settings(config, ready), **SWEEP, **here)
    return sweep(grid, console, RestaurantOracle(str(ready.start)))
