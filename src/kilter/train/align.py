"""`kilter align`: preference pairs in, an aligned model and its account out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError
from kilter.measure.pairs import ScoredPairs
from kilter.model.fingerprint import model_fingerprint, template_fingerprint, tokenizer_fingerprint
from kilter.model.loading import load_tokenizer
from kilter.model.workers import Workers, open_workers
from kilter.objectives import Objective, objective, resolve_options
from kilter.tokens.encoding import EncodedPair
from kilter.train.batches import Batch, pair_batch
from kilter.train.card import model_card
from kilter.train.checkpoint import Keeper
from kilter.train.config import AlignConfig
from kilter.train.held_out import Account, HeldOutPairs
from kilter.train.loop import Task, fit
from kilter.train.resume import open_run
from kilter.train.setup import begin_run, make_encoder, read_examples, seed_everything, with_node_limit
from kilter.train.weights import Weights, load_policy, load_reference, start_fingerprint

UNITS = "Log-ratios are to the reference; KL is exact, over the whole vocabulary; both are in nats."


@dataclass(frozen=True)
class Aligned:
    """Where the result lies, and the held-out pairs scored before and after (None where nothing was held out)."""

    model: Path
    before: ScoredPairs | None
    after: ScoredPairs | None


def align(config: AlignConfig, console: Console | None = None) -> Aligned:
    """Align a model with preference pairs; returns where the result is and what the held-out pairs say of it.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend, and when asked to stop.
    """
    with open_workers(device=config.device, shard=config.shard, batch_size=config.batch_size) as workers:
        return _align(config, workers, workers.console(console or Console(stderr=True)))


def _align(config: AlignConfig, workers: Workers, console: Console) -> Aligned:
    row = objective(config.objective, takes=("pairs", "labelled"))
    options = resolve_options(config.objective, _given_options(config))
    _check_objective(row, config)
    run, checkpoint = open_run(config, "align", console, workers)
    seed_everything(config.seed)

    examples = read_examples(config, read_pairs, console)
    policy = load_policy(config.model, config, checkpoint)
    tokenizer = load_tokenizer(config.model)
    reference = load_reference(policy, config, checkpoint) if row.needs_reference else None
    fingerprint = None if reference is None else model_fingerprint(reference)
    if reference is not None:
        reference.frozen()
    starts_at_reference = reference is not None and config.reference is None
    config = with_node_limit(config, policy, console, workers)
    encoder = make_encoder(tokenizer, config, policy)
    pairs, report = encoder.encode_pairs(examples.train)
    console.print(report.describe(), highlight=False, soft_wrap=True)
    eval_pairs = encoder.encode_pairs(examples.held_out).rows if examples.held_out else []

    begin_run(
        run,
        config,
        "align",
        {
            "model": config.model,
            "reference": config.reference or config.model,
            "reference_sha256": fingerprint,
            "tokenizer_sha256": tokenizer_fingerprint(tokenizer),
            "template_sha256": template_fingerprint(tokenizer),
            **examples.facts,
            "examples": len(pairs),
            "held_out": len(eval_pairs),
            "encoding": asdict(report),
            "scoring_path": policy.path,
            # Where the start of the run is the reference, that says it already.
            **({} if starts_at_reference else start_fingerprint(policy, checkpoint)),
        },
        workers,
    )
    workers.spread(policy, reference)

    def batch_of(chosen: Sequence[EncodedPair]) -> Batch:
        return pair_batch(
            chosen,
            node_budget=config.node_limit,
            mismatched=row.takes == "labelled",
            device=policy.device,
            node_multiple=policy.node_multiple,
            workers=workers,
        )

    held_out = HeldOutPairs(
        pairs=eval_pairs,
        policy=policy,
        reference=reference,
        objective=row,
        options=options,
        batch_of=batch_of,
        tokenizer=tokenizer,
        config=config,
        run=run,
        workers=workers,
    )
    task = Task(
        policy,
        reference,
        row,
        options,
        len(pairs),
        lambda positions: batch_of([pairs[i] for i in positions]),
        held_out.evaluate if eval_pairs else None,
        starts_at_reference=starts_at_reference,
        workers=workers,
    )
    weights = Weights(policy, tokenizer, config.model, workers)
    keeper = Keeper(run, config, "align", weights, reference=fingerprint, begin=checkpoint)
    with run:
        done = fit(task, config, keeper, console, learning_rate=config.learning_rate)
        step = keeper.take_best(done, console)
        account = held_out.account(step) if eval_pairs else None
        keeper.finish(_card(run, config, row, account))
    if account is not None:
        console.print(account.table())
        if account.note:
            console.print(account.note, highlight=False, soft_wrap=True)
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
    before, after = (None, None) if account is None else (account.before, account.after)
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


def _card(run: RunDirectory, config: AlignConfig, row: Objective, account: Account | None) -> str:
    return model_card(
        config,
        title=f"{Path(config.model).name}, aligned",
        objective=f"{config.objective}: {row.summary} ({row.paper}).",
        facts=run.read_manifest(),
        results=() if account is None else account.rows,
        note="" if account is None else f"{UNITS} {account.note}",
    )
