"""Claims about a sweep in the demo's world: true rewards and the exact frontier stand beside what is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from kilter.demo.config import SWEEP, DemoConfig
from kilter.demo.frontier import FRONTIER, frontier, optimum_at_kl, with_off_grammar
from kilter.demo.sweep import RestaurantOracle
from kilter.demo.wind_tunnel import rewards_of, text_rows, write_rows
from kilter.demo.world import restaurant
from kilter.train.config import SftConfig
from kilter.train.grid import SweepConfig
from kilter.train.sft import sft
from kilter.train.sweep import sweep
from train.runs import quiet, write_pairs

TINY = "layers=1,hidden=16,heads=2,kv_heads=1,mlp=16,vocabulary=300,length=64"


@pytest.fixture(scope="module")
def small_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("world")
    write_rows(text_rows(restaurant().sample_text(200, 0)), place / "text.jsonl")
    return sft(SftConfig(data=place / "text.jsonl", from_scratch=TINY, max_steps=4, out=place / "sft"), quiet())


def test_every_point_of_the_frontier_is_the_most_reward_at_its_kl() -> None:
    world = restaurant()
    log_p = [with_off_grammar(np.log(0.9 * world.probability(i))) for i in range(len(world.prompts))]
    points = frontier(log_p, rewards_of(world), world.prompt_probability)
    assert len(points) == len(FRONTIER)
    for (kl, reward), beta in list(zip(points, FRONTIER, strict=True))[::12]:
        best = optimum_at_kl(log_p, rewards_of(world), world.prompt_probability, kl)
        assert best.beta == pytest.approx(beta, rel=1e-6)
        assert best.expected_reward == pytest.approx(reward, abs=1e-9)


def test_the_start_itself_has_no_kl_and_all_the_reward_there_is_at_none(small_start: Path) -> None:
    oracle = RestaurantOracle(str(small_start))
    found = oracle(small_start)
    assert found.kl == pytest.approx(0, abs=1e-9)
    assert found.reward == pytest.approx(oracle.start_reward) == pytest.approx(found.most)


def test_a_sweep_in_the_world_says_true_rewards_none_above_the_most_at_its_kl(
    small_start: Path, tmp_path: Path
) -> None:
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    given: dict[str, Any] = {"learning_rate": 1e-2, "holdout": 8, "max_steps": 2, "batch_size": 8, "world": "demo"}
    config = SweepConfig(model=str(small_start), data=pairs, beta="0.1,1", out=tmp_path / "sweep", **given)
    found = sweep(config, quiet(), RestaurantOracle(config.model))
    exact = [row.exact for row in found.account.rows]
    assert all(e is not None and e.kl > 0 and e.reward <= e.most for e in exact)
    assert "## Against the exact optimum" in (found.out / "frontier.md").read_text()
    assert "line: the most there is" in (found.out / "frontier.svg").read_text()
    assert "exact_reward" in (found.out / "frontier.csv").read_text().splitlines()[0]


def test_the_demos_own_sweep_has_betas_of_its_own() -> None:
    assert DemoConfig(sweep=True).sweep
    with pytest.raises(ValidationError, match="a sweep has betas of its own"):
        DemoConfig(sweep=True, beta=0.3)
    grid = SweepConfig(model="m", data="x", eval_data="y", out=Path("o"), **SWEEP)
    assert len(grid.combinations()) == 8
