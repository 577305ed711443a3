"""`kilter sft`: demonstrations in, a model that says such things out; from a model, or from nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from kilter.data.reading import read_demonstrations
from kilter.data.records import Content, Demonstration
from kilter.errors import ConfigError
from kilter.model.loading import AUTOCAST, load_scorer, load_tokenizer, pick_device
from kilter.model.scorer import Scorer
from kilter.model.scratch import fresh_model, fresh_tokenizer, parse_shape
from kilter.objectives import objective
from kilter.tokens.encoding import EncodedDemonstration
from kilter.train.batches import Batch, demonstration_batch
from kilter.train.config import SftConfig
from kilter.train.loop import fit, total_steps
from kilter.train.setup import (
    begin_run,
    make_encoder,
    read_examples,
    save_result,
    seed_everything,
    template_fingerprint,
)
from kilter.train.step import score_completions

LEARNING_RATE, LEARNING_RATE_FROM_SCRATCH = 2e-5, 2e-3


def sft(config: SftConfig, console: Console | None = None) -> Path:
    """Train on demonstrations by cross-entropy of the answers; returns where the result is.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend.
    """
    console = console or Console(stderr=True)
    row = objective("sft")
    device = pick_device(config.device)
    seed_everything(config.seed)

    data = read_examples(config, read_demonstrations, console)
    tokenizer, policy = _start(config, data.train, device)
    encoder = make_encoder(tokenizer, config, policy)
    examples, report = encoder.encode_demonstrations(data.train)
    console.print(report.describe(), highlight=False, soft_wrap=True)
    eval_examples = encoder.encode_demonstrations(data.held_out).rows if data.held_out else []

    facts = {
        "model": config.model or f"from scratch: {config.from_scratch}",
        "template_sha256": template_fingerprint(tokenizer),
        **data.facts,
        "encoding": asdict(report),
        "scoring_path": policy.path,
    }
    with begin_run(config, "sft", facts) as run:

        def make_batch(positions: Sequence[int]) -> Batch:
            return _batch([examples[i] for i in positions], config, policy)

        def evaluate(step: int) -> float:
            loss = _mean_loss(policy, eval_examples, config)
            run.append_metrics({"step": step, "split": "eval", "loss": loss})
            return loss

        steps = total_steps(len(examples), config)
        before = evaluate(0) if eval_examples else None
        fit(
            policy,
            None,
            objective=row,
            options={},
            steps=steps,
            examples=len(examples),
            make_batch=make_batch,
            learning_rate=config.learning_rate or (LEARNING_RATE if config.model else LEARNING_RATE_FROM_SCRATCH),
            config=config,
            run=run,
            console=console,
            evaluate=evaluate if eval_examples else None,
        )
        after = evaluate(steps) if eval_examples else None
        save_result(run, policy.model, tokenizer)
    if before is not None and after is not None:
        console.print(f"held-out cross-entropy, nats/token: {before:.4f} before, {after:.4f} after", highlight=False)
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
    return run.model


def _start(
    config: SftConfig, rows: Sequence[Demonstration], device: torch.device
) -> tuple[PreTrainedTokenizerFast, Scorer]:
    """The tokenizer and the model to begin with, on the device."""
    if config.model is not None:
        scorer = load_scorer(config.model, precision=config.precision, device=device, strict=config.strict)
        return load_tokenizer(config.model), scorer
    if config.from_scratch is None:
        raise ConfigError("give either model or from_scratch, to say where to start")
    shape = parse_shape(config.from_scratch)
    tokenizer = fresh_tokenizer(_texts(rows), shape["vocabulary"])
    model = fresh_model(shape, tokenizer, config.seed)
    model.to(device)  # type: ignore[arg-type]
    return tokenizer, Scorer(model, autocast=AUTOCAST[config.precision])


def _texts(rows: Sequence[Demonstration]) -> Iterator[str]:
    def texts(content: Content) -> Iterator[str]:
        yield from [content] if isinstance(content, str) else [message.content for message in content]

    for row in rows:
        yield from texts(row.prompt)
        yield from texts(row.completion)


def _batch(examples: Sequence[EncodedDemonstration], config: SftConfig, policy: Scorer) -> Batch:
    return demonstration_batch(
        examples, node_budget=config.node_budget, device=policy.device, node_multiple=policy.node_multiple
    )


def _mean_loss(policy: Scorer, examples: Sequence[EncodedDemonstration], config: SftConfig) -> float:
    """Cross-entropy in nats per scored token."""
    batch = _batch(examples, config, policy)
    log_prob = score_completions(policy, batch.scored, batch.completions)
    return -float(log_prob.sum()) / float(batch.weight_C.sum())
