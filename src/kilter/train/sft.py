"""`kilter sft`: demonstrations in, a model that says such things out; from a model, or from nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from kilter.data.checkpoints import Checkpoint
from kilter.data.reading import read_demonstrations
from kilter.data.records import Content, Demonstration
from kilter.errors import ConfigError
from kilter.model.loading import AUTOCAST, DTYPE, load_tokenizer, pick_device
from kilter.model.scorer import Scorer
from kilter.model.scratch import fresh_model, fresh_tokenizer, parse_shape
from kilter.model.workers import Workers, open_workers
from kilter.objectives import parse
from kilter.train.batches import Batch
from kilter.train.card import model_card
from kilter.train.checkpoint import Keeper
from kilter.train.config import SftConfig
from kilter.train.examples import encode
from kilter.train.loop import Task, fit
from kilter.train.resume import open_run
from kilter.train.setup import begin_run, read_examples, seed_everything, with_node_limit
from kilter.train.step import score_completions
from kilter.train.stops import Stop
from kilter.train.weights import MODEL, Weights, load_policy, start_fingerprint

LEARNING_RATE, LEARNING_RATE_FROM_SCRATCH = 2e-5, 2e-3


def sft(config: SftConfig, console: Console | None = None) -> Path:
    """Train on demonstrations by cross-entropy of the answers; returns where the result is.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend, and when asked to stop.
    """
    with open_workers(device=config.device, shard=config.shard, batch_size=config.batch_size) as workers:
        return _sft(config, workers, workers.console(console or Console(stderr=True)))


def _sft(config: SftConfig, workers: Workers, console: Console) -> Path:
    mixture = parse("sft")
    run, checkpoint = open_run(config, "sft", console, workers)
    seed_everything(config.seed)

    rows = read_examples(config, read_demonstrations, console)
    tokenizer, policy = _start(config, rows.train, checkpoint)
    config = with_node_limit(config, policy, console, workers)
    examples = encode(rows, tokenizer, config, policy, mixture, console, workers)

    facts = {
        "model": config.model or f"from scratch: {config.from_scratch}",
        **examples.facts,
        **start_fingerprint(policy, checkpoint),
    }
    begin_run(run, config, "sft", facts, workers)
    workers.spread(policy)

    train, held_out = examples.train, examples.held_out

    def evaluate(step: int, stop: Stop, _: Mapping[str, float]) -> float:
        loss = _mean_loss(policy, held_out.batch(held_out.rows), stop)
        run.append_metrics({"step": step, "split": "eval", "loss": loss})
        return loss

    task = Task(policy, None, mixture, len(train), train.batch_of, evaluate if held_out else None, workers=workers)
    keeper = Keeper(run, config, "sft", Weights(policy, tokenizer, config.model or "", workers), begin=checkpoint)
    rate = config.learning_rate or (LEARNING_RATE if config.model else LEARNING_RATE_FROM_SCRATCH)
    with run:
        done = fit(task, config, keeper, console, learning_rate=rate)
        step = keeper.take_best(done, console)
        losses = {row["step"]: float(str(row["loss"])) for row in run.read_metrics() if row.get("split") == "eval"}
        ends = [losses[0], losses[step]] if held_out else []
        table = [["held out", "before", "after"], ["cross-entropy, nats/token", *(f"{x:.4f}" for x in ends)]]
        card = model_card(
            config,
            title=f"{run.path.name}, fine-tuned",
            objective=f"{mixture.describe()}.",
            facts=run.read_manifest(),
            results=[table] if ends else [],
        )
        keeper.finish(card)
    if ends:
        console.print(f"held-out cross-entropy, nats/token: {ends[0]:.4f} before, {ends[1]:.4f} after", highlight=False)
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
    return run.model


def _start(
    config: SftConfig, rows: Sequence[Demonstration], checkpoint: Checkpoint | None
) -> tuple[PreTrainedTokenizerFast, Scorer]:
    """The tokenizer and the model to begin with, on the device, or where the run left them."""
    begun = None if checkpoint is None else checkpoint.path / MODEL
    if config.model is not None or begun is not None:
        name = config.model or str(begun)
        policy = load_policy(name, config, checkpoint)
        return load_tokenizer(str(begun) if begun is not None and begun.is_dir() else name), policy
    if config.from_scratch is None:
        raise ConfigError("give either model or from_scratch, to say where to start")
    shape = parse_shape(config.from_scratch)
    tokenizer = fresh_tokenizer(_texts(rows), shape["vocabulary"])
    model = fresh_model(shape, tokenizer, config.seed)
    model.to(device=pick_device(config.device), dtype=DTYPE[config.weights])  # type: ignore[call-arg]
    policy = Scorer(model, autocast=AUTOCAST[config.precision])
    if config.activation_checkpointing:
        policy.recompute_activations()
    return tokenizer, policy


def _texts(rows: Sequence[Demonstration]) -> Iterator[str]:
    def texts(content: Content) -> Iterator[str]:
        yield from [content] if isinstance(content, str) else [message.content for message in content]

    for row in rows:
        yield from texts(row.prompt)
        yield from texts(row.completion)


def _mean_loss(policy: Scorer, batch: Batch, stop: Stop) -> float:
    """Cross-entropy in nats per scored token."""
    total = 0.0
    for micro in batch.scored:
        stop.check()
        total += float(score_completions(policy, [micro], batch.completions)["log_prob"].sum())
    return -batch.workers.total(total) / float(batch.weight_C.sum())
