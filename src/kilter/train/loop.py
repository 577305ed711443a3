"""The training loop: batches, gradient, update, metrics. Every method runs through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console

from kilter.data.run_directory import RunDirectory
from kilter.errors import KilterError
from kilter.model.scorer import Scorer
from kilter.objectives import Objective
from kilter.train.batches import Batch, batches_of, made_ahead, shuffled_stream
from kilter.train.config import RunConfig
from kilter.train.optimizer import Updater, rate_at
from kilter.train.progress import progress
from kilter.train.step import StepScores, accumulate_gradient

# How far from its declared value the first loss may be: rounding of the summed log-probs, by type of matrix product.
STEP_0_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


def fit(
    policy: Scorer,
    reference: Scorer | None,
    *,
    objective: Objective,
    options: dict[str, float],
    steps: int,
    examples: int,
    make_batch: Callable[[list[int]], Batch],
    learning_rate: float,
    config: RunConfig,
    run: RunDirectory,
    console: Console,
    evaluate: Callable[[int], object] | None = None,
    starts_at_reference: bool = False,
) -> None:
    """Train the policy in place, writing one metrics row a step; `evaluate` is told the step it is called at."""
    updater = Updater(
        policy,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
    )
    positions = batches_of(shuffled_stream(examples, config.seed), config.batch_size, steps)
    batches = made_ahead(positions, make_batch)
    with progress(console, "training", steps) as report:
        for step, batch in enumerate(batches):
            begin = time.perf_counter()
            scores = accumulate_gradient(policy, reference, batch, objective, options)
            if step == 0 and starts_at_reference:
                check_first_loss(scores.loss, objective, options, config.precision)
            rate = rate_at(step, steps, schedule=config.schedule, warmup=config.warmup)
            row = {
                "step": step + 1,
                "loss": scores.loss,
                **preference_numbers(scores, batch, options),
                "grad_norm": updater.step(rate),
                "learning_rate": rate * learning_rate,
                "nodes": batch.nodes,
            }
            row["seconds"] = time.perf_counter() - begin
            run.append_metrics(row)
            report(step + 1, shown(row))
            if evaluate is not None and config.eval_every and (step + 1) % config.eval_every == 0 and step + 1 < steps:
                evaluate(step + 1)


def total_steps(examples: int, config: RunConfig) -> int:
    """Steps of the run: whole epochs rounded up to a step, or `max_steps`."""
    return config.max_steps or max(1, -int(-config.epochs * examples // config.batch_size))


def check_first_loss(loss: float, objective: Objective, options: dict[str, float], precision: str) -> None:
    """Before the first update the policy is the reference: the loss must have its declared value."""
    assert objective.at_zero is not None
    expected = objective.at_zero(**options)
    if not abs(loss - expected) <= STEP_0_TOLERANCE[precision] * max(1.0, abs(expected)):
        raise KilterError(
            f"before the first update the loss is {loss:.6g}, but where policy and reference agree it must be "
            f"{expected:.6g}: the two do not score alike, so no number of this run could be trusted"
        )


def preference_numbers(scores: StepScores, batch: Batch, options: dict[str, float]) -> dict[str, float]:
    """Accuracy, margin and mean log-ratios of a batch of pairs; nothing for other batches."""
    if not len(batch.rejected):
        return {}
    chosen, rejected = scores.log_ratio_C[batch.chosen], scores.log_ratio_C[batch.rejected]
    gap = chosen - rejected
    return {
        "accuracy": float(0.5 * (1 + gap.sign()).mean()),
        "margin": options.get("beta", 1.0) * float(gap.mean()),
        "chosen_log_ratio": float(chosen.mean()),
        "rejected_log_ratio": float(rejected.mean()),
    }


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a step that the progress line has room for."""
    text = {"loss": f"{row['loss']:.4f}"}
    if "accuracy" in row:
        text |= {"accuracy": f"{row['accuracy']:.2f}", "margin": f"{row['margin']:+.3f}"}
    return text | {"nodes/s": f"{row['nodes'] / row['seconds']:,.0f}"}
