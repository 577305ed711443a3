"""`kilter align`: preference pairs in, an aligned model and its account out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from kilter.data.reading import read_pairs
from kilter.errors import ConfigError
from kilter.measure.pairs import Floats, ScoredPairs, score_pairs, summary
from kilter.measure.statistics import paired_difference
from kilter.model.loading import check_same_vocabulary, copy_of, load_scorer, load_tokenizer, pick_device
from kilter.model.scorer import Scorer
from kilter.objectives import Objective, PairScores, objective, resolve_options
from kilter.tokens.encoding import EncodedPair
from kilter.train.batches import Batch, pair_batch
from kilter.train.config import AlignConfig
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


@dataclass(frozen=True)
class Aligned:
    """Where the result lies, and the held-out pairs scored before and after (None where nothing was held out)."""

    model: Path
    before: ScoredPairs | None
    after: ScoredPairs | None


def align(config: AlignConfig, console: Console | None = None) -> Aligned:
    """Align a model with preference pairs; returns where the result is and what the held-out pairs say of it.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend.
    """
    console = console or Console(stderr=True)
    row = objective(config.objective, takes=("pairs", "labelled"))
    options = resolve_options(config.objective, _given_options(config))
    _check_objective(row, config)
    device = pick_device(config.device)
    seed_everything(config.seed)

    examples = read_examples(config, read_pairs, console)
    tokenizer = load_tokenizer(config.model)
    policy = load_scorer(config.model, precision=config.precision, device=device, strict=config.strict)
    reference = _reference(config, policy) if row.needs_reference else None
    encoder = make_encoder(tokenizer, config, policy)
    pairs, report = encoder.encode_pairs(examples.train)
    console.print(report.describe(), highlight=False, soft_wrap=True)
    eval_pairs = encoder.encode_pairs(examples.held_out).rows if examples.held_out else []

    facts = {
        "model": config.model,
        "reference": config.reference or config.model,
        "template_sha256": template_fingerprint(tokenizer),
        **examples.facts,
        "encoding": asdict(report),
        "scoring_path": policy.path,
    }
    with begin_run(config, "align", facts) as run:

        def make_batch(positions: Sequence[int]) -> Batch:
            return _batch([pairs[i] for i in positions], row, config, policy)

        def evaluate(step: int) -> ScoredPairs:
            exact_kl = reference is not None
            scored = score_pairs(
                policy, eval_pairs, reference=reference, exact_kl=exact_kl, node_budget=config.node_budget
            )
            loss = _mean_loss(policy, reference, eval_pairs, scored, row, options, config)
            run.append_metrics({"step": step, "split": "eval", "loss": loss, **summary(scored)})
            return scored

        steps = total_steps(len(pairs), config)
        before = evaluate(0) if eval_pairs else None
        fit(
            policy,
            reference,
            objective=row,
            options=options,
            steps=steps,
            examples=len(pairs),
            make_batch=make_batch,
            learning_rate=config.learning_rate,
            config=config,
            run=run,
            console=console,
            evaluate=evaluate if eval_pairs else None,
            starts_at_reference=row.needs_reference and config.reference is None,
        )
        after = evaluate(steps) if eval_pairs else None
        save_result(run, policy.model, tokenizer)
    if before is not None and after is not None:
        console.print(account(before, after))
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
    return Aligned(run.model, before, after)


def _given_options(config: AlignConfig) -> dict[str, float | None]:
    return {
        "beta": config.beta,
        "label_smoothing": config.label_smoothing,
        "desirable_weight": config.desirable_weight,
        "undesirable_weight": config.undesirable_weight,
    }


def _check_objective(row: Objective, config: AlignConfig) -> None:
    if row.takes == "answers":
        raise ConfigError(f"objective {config.objective!r} learns from demonstrations; use `kilter sft` for it")
    if row.takes == "labelled" and config.batch_size < 2:
        raise ConfigError(f"objective {config.objective!r} compares pairs with each other; use --batch-size 2 or more")
    if config.reference is not None and not row.needs_reference:
        raise ConfigError(f"objective {config.objective!r} has no reference; leave --reference out")


def _reference(config: AlignConfig, policy: Scorer) -> Scorer:
    """The frozen reference: another model, or the start of the run, whose proof has been given already."""
    if config.reference is not None:
        other = load_scorer(config.reference, precision=config.precision, device=policy.device, strict=config.strict)
        check_same_vocabulary(policy, other)
        return other.frozen()
    return copy_of(policy).frozen()


def _batch(pairs: Sequence[EncodedPair], row: Objective, config: AlignConfig, policy: Scorer) -> Batch:
    return pair_batch(
        pairs,
        node_budget=config.node_budget,
        mismatched=row.takes == "labelled",
        device=policy.device,
        node_multiple=policy.node_multiple,
    )


def _mean_loss(
    policy: Scorer,
    reference: Scorer | None,
    pairs: Sequence[EncodedPair],
    scored: ScoredPairs,
    row: Objective,
    options: dict[str, float],
    config: AlignConfig,
) -> float:
    """The objective's mean over pairs that have been scored; one that looks across a batch scores what it needs."""
    if row.takes == "pairs":
        score = [
            torch.from_numpy(answer.log_ratio_P / (answer.tokens_P if row.score == "mean" else 1))
            for answer in (scored.chosen, scored.rejected)
        ]
        return float(row.loss(PairScores(*score), **options).mean())
    total = items = 0.0
    for i in range(0, len(pairs), config.batch_size):
        batch = _batch(pairs[i : i + config.batch_size], row, config, policy)
        if not len(batch.mismatched):
            continue  # a last pair by itself has no other to be compared with
        log_prob = score_completions(policy, batch.scored, batch.completions)
        other = None if reference is None else score_completions(reference, batch.scored, batch.completions)
        total += float(batch.loss_sum(row, options, log_prob, other))
        items += batch.denominator(row)
    return total / items if items else math.nan


def account(before: ScoredPairs, after: ScoredPairs) -> Table:
    """What the run bought and what it cost, on the held-out pairs."""
    table = Table(title=f"{len(after):,} held-out pairs", title_justify="left")
    table.add_column("")
    for heading in ("before", "after", "difference (95% interval)"):
        table.add_column(heading, justify="right")

    def add(name: str, form: str, start: Floats, end: Floats) -> None:
        mean, low, high = paired_difference(end, start)
        table.add_row(
            name,
            format(start.mean(), form),
            format(end.mean(), form),
            f"{mean:+{form}} ({low:+{form}}, {high:+{form}})",
        )

    add("accuracy: chosen has the higher log-ratio", ".3f", before.correct_P, after.correct_P)
    add("chosen is the likelier answer", ".3f", before.likelier_P, after.likelier_P)
    add("log-ratio of chosen, nats", ".2f", before.chosen.log_ratio_P, after.chosen.log_ratio_P)
    add("log-ratio of rejected, nats", ".2f", before.rejected.log_ratio_P, after.rejected.log_ratio_P)
    for name, start, end in (("chosen", before.chosen, after.chosen), ("rejected", before.rejected, after.rejected)):
        for direction in ("kl_policy_reference_P", "kl_reference_policy_P"):
            sums = getattr(start, direction), getattr(end, direction)
            if sums[0] is not None:
                first, second = direction.split("_")[1:3]
                per_token = [s / start.tokens_P for s in sums]
                add(f"token KL({first}, {second}) along {name}, nats/token", ".4f", *per_token)
    return table
