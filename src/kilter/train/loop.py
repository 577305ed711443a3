"""The training loop: batches, gradient, update, metrics. Every method runs through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from kilter.errors import KilterError, NonFiniteError, StoppedError
from kilter.model.scorer import Reference, Scorer
from kilter.model.workers import ALONE, Workers
from kilter.objectives import Mixture
from kilter.train.batches import Batch, batches_of, made_ahead, shuffled_stream
from kilter.train.checkpoint import Keeper, Progress
from kilter.train.config import RunConfig
from kilter.train.faults import check_scores, named, without_finite_gradient
from kilter.train.kl_bounds import KlBounds
from kilter.train.memory import told_of_memory
from kilter.train.moving_reference import MovingReference
from kilter.train.optimizer import Updater, rate_at
from kilter.train.shared import Shared
from kilter.train.step import StepScores, TrustRegion, accumulate_gradient, mean_losses
from kilter.train.stops import Stop, StopAsked, stop_on_signals

# Share of log-probs by which two that are the same may differ: scores that are kept come of other batches.
ROUNDING = 1e-6
# How far from its declared value the first loss may be: rounding of the summed log-probs, by type of matrix product.
STEP_0_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


@dataclass(frozen=True)
class Task:
    """What is trained on what: the models, the loss, and how examples become a batch.

    `bounds` are those of the KL of answers; `trust` is a penalty on going away from an earlier policy; `followers` are
    models that follow the policy: a reference that moves, that earlier policy. `evaluate` is told the step it is called
    at and what the objective remembers, and returns the held-out loss; it asks `stop.check` now and then.
    """

    policy: Scorer
    reference: Reference | None
    mixture: Mixture
    examples: int
    make_batch: Callable[[Sequence[int]], Batch]
    evaluate: Callable[[int, Stop, Mapping[str, float]], float] | None = None
    starts_at_reference: bool = False
    followers: Sequence[MovingReference] = ()
    bounds: KlBounds | None = None
    trust: TrustRegion | None = None
    workers: Workers = ALONE


def fit(
    task: Task,
    config: RunConfig,
    keeper: Keeper,
    console: Console,
    shared: Shared | None = None,
    *,
    learning_rate: float,
) -> Progress:
    """Train the policy in place from where the run stands, writing one metrics row a step; returns where it ended.

    Raises StoppedError, with the run saved, when asked to stop; NonFiniteError, with nothing updated, where a score,
    a loss or a gradient is not finite; OutOfMemoryError, saying what would fit.
    """
    updater = Updater(
        task.policy,
        learning_rate=learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optimizer=config.optimizer,
        gradient_noise=config.gradient_noise,
        seed=config.seed,
        workers=task.workers,
    )
    steps = total_steps(task.examples, config)
    done = keeper.restore(updater)
    most, bounds = steps, task.bounds
    if bounds is not None:
        bounds.take_up(done)
        most = bounds.most_steps(steps)
    stream = shuffled_stream(task.examples, config.seed, done.step * config.batch_size)
    positions = batches_of(stream, config.batch_size, most - done.step)
    shared = shared or Shared()
    with (
        nullcontext(shared.stop) if shared.stop is not None else stop_on_signals(console, task.workers) as stop,
        shared.progress(console, "training", steps, done.step) as report,
        closing(made_ahead(positions, task.make_batch)) as batches,
    ):
        try:
            while True:
                _measure_kl_if_due(task, keeper, updater, done, steps, stop)
                ends = done.step == most if bounds is None else bounds.ended(done, steps)
                _evaluate_if_due(task, config, keeper, updater, done, ends, stop)
                if ends or (config.patience is not None and done.since_best >= config.patience):
                    task.workers.meet()
                    return done
                if keeper.due(done):
                    keeper.save(done, updater)
                stop.check()
                row = _train_step(task, config, updater, done, steps, *next(batches))
                keeper.append_metrics(row)
                report(done.step, shown(row))
        except StopAsked as asked:
            path = keeper.save(done, updater)
            raise StoppedError(
                f"stopped after step {done.step} of {steps}; saved in {path}\n"
                f"go on with: kilter {keeper.method} --resume {keeper.run.path}",
                asked.signal,
            ) from None


def _evaluate_if_due(
    task: Task, config: RunConfig, keeper: Keeper, updater: Updater, done: Progress, ends: bool, stop: Stop
) -> None:
    at_an_end = done.step == 0 or ends
    on_the_way = config.eval_every is not None and done.step % config.eval_every == 0
    if task.evaluate is None or done.evaluated == done.step or not (at_an_end or on_the_way):
        return
    best = done.note(task.workers.of_main(task.evaluate(done.step, stop, done.objective)))
    if best and keeper.keeps_best:
        keeper.save(done, updater)


def _measure_kl_if_due(task: Task, keeper: Keeper, updater: Updater, done: Progress, steps: int, stop: Stop) -> None:
    """Raises KilterError where the KL of answers is beyond its limit, and there is no checkpoint to roll back to."""
    bounds = task.bounds
    if bounds is None:
        return
    if bounds.measure_if_due(done, steps, stop.check):
        keeper.append_metrics({"step": done.step, "split": "kl", **bounds.numbers(done)})
        if bounds.rolls_back and not bounds.exceeded(done):
            done.within_step = done.step
            keeper.save(done, updater)
    if bounds.exceeded(done) and done.within_step is None:
        path = keeper.save(done, updater)
        raise KilterError(
            f"{bounds.describe(done, steps)} There is no result, and the run is saved in {path}. Hold the policy back "
            "(--kl-budget, a lower --learning-rate), measure more often (--kl-every), or take the last checkpoint "
            "within (--on-max-kl rollback)"
        )


def _train_step(
    task: Task, config: RunConfig, updater: Updater, done: Progress, steps: int, positions: list[int], batch: Batch
) -> dict[str, Any]:
    """One update; returns its row of metrics."""
    begin = time.perf_counter()
    policy = task.policy
    mixture = task.mixture if task.bounds is None else task.bounds.weighed(task.mixture)

    def alone() -> list[Batch]:
        return [task.make_batch([position]) for position in positions]

    least = 0.0 if task.bounds is None else task.bounds.least_rate
    rate = rate_at(done.step, steps, schedule=config.schedule, warmup=config.warmup, least=least)
    try:
        with told_of_memory(policy, batch):
            scores = accumulate_gradient(policy, task.reference, batch, mixture, done.objective, task.trust)
        check_scores(policy, task.reference, scores, batch, alone)
        if done.step == 0 and task.starts_at_reference:
            losses = scores.losses
            if policy.drops_out:
                losses = mean_losses(policy, task.reference, batch, mixture, scores.state)
            check_first_losses(losses, batch.losses_at_zero(mixture, scores.sums_C), config.precision)
        try:
            norm = updater.step(rate, done.step)
        except NonFiniteError as error:
            raise NonFiniteError(f"{error}, by {named(without_finite_gradient(policy, alone()) or [batch])}") from None
    except NonFiniteError as error:
        updater.discard()
        raise NonFiniteError(
            f"step {done.step + 1}: {error}; nothing was updated, and the last checkpoint is as it was; look at those "
            "rows, try a lower --learning-rate, or begin another run with the model/ of a checkpoint as its --model"
        ) from None
    done.step += 1
    done.objective = scores.state
    for follower in task.followers:
        follower.follow(done.step)
    numbers = {}
    if task.bounds is not None:
        numbers = task.bounds.numbers(done)
        task.bounds.follow(scores.losses, done)
    seconds = time.perf_counter() - begin
    done.seconds += seconds
    return {
        "step": done.step,
        "loss": scores.loss,
        **({f"loss_{name}": loss for name, loss in scores.losses.items()} if len(scores.losses) > 1 else {}),
        **scores.state,
        **numbers,
        **preference_numbers(scores, batch, mixture.beta),
        "grad_norm": norm,
        "learning_rate": rate * updater.learning_rate,
        "nodes": batch.nodes,
        "seconds": seconds,
    }


def total_steps(examples: int, config: RunConfig) -> int:
    """Steps of the run: whole epochs rounded up to a step, or `max_steps`."""
    return config.max_steps or max(1, -int(-config.epochs * examples // config.batch_size))


def check_first_losses(losses: Mapping[str, float], expected: Mapping[str, float], precision: str) -> None:
    """Before the first update the policy is the reference: the terms' losses must have their declared values."""
    for name, declared in expected.items():
        if not abs(losses[name] - declared) <= STEP_0_TOLERANCE[precision] * max(1.0, abs(declared)):
            raise KilterError(
                f"before the first update the loss of {name} is {losses[name]:.6g}, but where policy and reference "
                f"agree it must be {declared:.6g}: the two do not score alike, so no number of this run could be "
                "trusted"
            )


def preference_numbers(scores: StepScores, batch: Batch, beta: float) -> dict[str, float]:
    """Accuracy, margin and mean log-ratios of a batch of pairs, or of rankings as the pairs that they tell apart, their
    best answers as chosen; of labelled answers the mean log-ratios alone (of those kinds that it has); nothing for what
    is imitated. Without a reference there are log-probs instead, and their gap."""
    if batch.examples == "demonstrations":
        return {}
    kind = "log_prob" if scores.reference_C is None else "log_ratio"
    names = ("good", "bad") if batch.examples == "labelled" else ("chosen", "rejected")
    sides = zip(names, (scores.log_ratio_C[batch.chosen], scores.log_ratio_C[batch.rejected]), strict=True)
    means = {f"{name}_{kind}": float(side.mean()) for name, side in sides if len(side)}
    if batch.examples == "labelled":
        return means
    better, worse = batch.compared
    gap = scores.log_ratio_C[better] - scores.log_ratio_C[worse]
    size = scores.log_prob_C[better].abs() + scores.log_prob_C[worse].abs()
    wins = gap.masked_fill(gap.abs() < ROUNDING * size, 0).sign()
    apart = {"gap": float(gap.mean())} if scores.reference_C is None else {"margin": beta * float(gap.mean())}
    return {"accuracy": float(0.5 * (1 + wins).mean()), **apart, **means}


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """The numbers of a step that the progress line has room for."""
    text = {"loss": f"{row['loss']:.4f}"}
    if "accuracy" in row:
        text["accuracy"] = f"{row['accuracy']:.2f}"
    text |= {name: f"{row[name]:+.3f}" for name in ("margin", "gap") if name in row}
    for side in ("good", "bad"):
        if (name := f"{side}_log_ratio") in row:
            text[side] = f"{row[name]:+.3f}"
    return text | {"nodes/s": f"{row['nodes'] / row['seconds']:,.0f}"}
