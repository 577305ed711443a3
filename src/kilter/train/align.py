"""`kilter align`: preferences in, as pairs, rankings or labels; an aligned model and its account out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kilter.data.reading import Dataset, read_rows
from kilter.data.records import Labelled, Pair, Ranking
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError
from kilter.model.fingerprint import model_fingerprint
from kilter.model.loading import copy_of, load_tokenizer
from kilter.model.sampler import stop_tokens
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers, open_workers
from kilter.objectives import OBJECTIVES, Mixture, parse
from kilter.train.card import model_card
from kilter.train.checkpoint import PREVIOUS, REFERENCE, Keeper
from kilter.train.config import AlignConfig, Moving
from kilter.train.examples import encode, prompt_of
from kilter.train.held_out import Account, HeldOut, Scored
from kilter.train.kl_bounds import PENALTY, AnswerKlMeter, kl_bounds
from kilter.train.loop import Task, fit, total_steps
from kilter.train.moving_reference import MovingReference
from kilter.train.resume import open_run
from kilter.train.setup import Rows, begin_run, read_examples, seed_everything, with_node_limit
from kilter.train.step import TrustRegion
from kilter.train.weights import Weights, load_policy, load_reference, start_fingerprint

TRUSTED_STEPS = 50

UNITS = (
    "Log-ratios are to the reference that the run began with; KL is exact, over the whole vocabulary; both are in nats."
)


@dataclass(frozen=True)
class Aligned:
    """Where the result lies, and the held-out examples scored before and after (None where nothing was held out)."""

    model: Path
    before: Scored | None
    after: Scored | None


def align(config: AlignConfig, console: Console | None = None) -> Aligned:
    """Align a model with preferences; returns where the result is and what the held-out examples say of it.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend, and when asked to stop.
    """
    with open_workers(device=config.device, shard=config.shard, batch_size=config.batch_size) as workers:
        return _align(config, workers, workers.console(console or Console(stderr=True)))


def _align(config: AlignConfig, workers: Workers, console: Console) -> Aligned:
    mixture = _mixture(config)
    run, checkpoint = open_run(config, "align", console, workers)
    seed_everything(config.seed)

    rows = read_examples(config, _reader(mixture), console)
    _check_margins(mixture, rows)
    _tell_of(rows, mixture, console)
    policy = load_policy(config.model, config, checkpoint)
    tokenizer = load_tokenizer(config.model)
    needs_reference = mixture.needs_reference or config.measures_kl
    reference = load_reference(policy, config, checkpoint) if needs_reference else None
    fingerprint = None if reference is None else model_fingerprint(reference)
    moving = _moving(config, policy, reference, kept=bool(rows.held_out) or config.measures_kl)
    previous = _previous(config, policy)
    if reference is not None and (moving is None or moving.scorer is not reference):
        reference.frozen()
    starts_at_reference = reference is not None and config.reference is None
    config = with_node_limit(config, policy, console, workers)
    examples = encode(rows, tokenizer, config, policy, mixture, console, workers)

    facts = {
        "model": config.model,
        "objective": str(mixture),
        "reference": config.reference or config.model,
        "reference_sha256": fingerprint,
        **examples.facts,
        # Where the start of the run is the reference, that says it already.
        **({} if starts_at_reference else start_fingerprint(policy, checkpoint)),
    }
    begin_run(run, config, "align", facts, workers)
    followers = {file: follower for file, follower in ((REFERENCE, moving), (PREVIOUS, previous)) if follower}
    workers.spread(policy, reference, *(follower.scorer for follower in followers.values()))

    held_out = HeldOut(
        examples=examples.held_out,
        policy=policy,
        reference=reference,
        mixture=mixture,
        tokenizer=tokenizer,
        config=config,
        run=run,
        workers=workers,
    )
    bounds = None
    if config.measures_kl and reference is not None:
        prompts = [prompt_of(row) for row in examples.train.rows]
        meter = AnswerKlMeter(
            policy, reference, prompts, stop_tokens(policy.model, tokenizer), config.kl_tokens, config.seed, workers
        )
        bounds = kl_bounds(config, meter, mixture, total_steps(len(prompts), config))
    minimised = mixture if bounds is None else bounds.weighed(mixture)
    followed = reference if moving is None else moving.scorer
    task = Task(
        policy,
        followed if minimised.needs_reference else None,
        minimised,
        len(examples.train),
        examples.train.batch_of,
        held_out.evaluate if examples.held_out else None,
        starts_at_reference=starts_at_reference,
        followers=tuple(followers.values()),
        bounds=bounds,
        trust=_trust(config, previous),
        workers=workers,
    )
    weights = Weights(policy, tokenizer, config.model, workers)
    keeper = Keeper(run, config, "align", weights, reference=fingerprint, followers=followers, begin=checkpoint)
    with run:
        done = fit(task, config, keeper, console, learning_rate=config.learning_rate)
        if bounds is not None and bounds.exceeded(done):
            done = keeper.roll_back(done, console)
        step = keeper.take_best(done, console)
        account = held_out.account(step) if examples.held_out else None
        keeper.finish(_card(run, config, mixture, account))
    _show(account, run, console)
    if bounds is not None:
        said = bounds.describe(done, total_steps(len(examples.train), config))
        console.print(said, highlight=False, soft_wrap=True)
    return Aligned(run.model, *((None, None) if account is None else (account.before, account.after)))


def _mixture(config: AlignConfig) -> Mixture:
    """What the run minimises; raises ConfigError where that does not go with the other settings."""
    mixture = parse(
        config.objective,
        {
            "beta": config.beta,
            "label_smoothing": config.label_smoothing,
            "desirable_weight": config.desirable_weight,
            "undesirable_weight": config.undesirable_weight,
        },
    )
    if mixture.takes == "all answers":
        raise ConfigError(
            f"objective {config.objective!r} only holds the policy to its reference; add what it should learn from, "
            f"such as dpo + 0.1*{mixture.names[0]}"
        )
    if mixture.takes == "answers":
        raise ConfigError(f"objective {config.objective!r} learns from demonstrations; use `kilter sft` for it")
    if mixture.coupled and config.batch_size < 2:
        raise ConfigError(
            f"objective {config.objective!r} compares examples with each other; use --batch-size 2 or more"
        )
    for name in ("reference", "reference_mix", "reference_every"):
        if getattr(config, name) is not None and not (mixture.needs_reference or config.measures_kl):
            flag = name.replace("_", "-")
            raise ConfigError(f"objective {config.objective!r} has no reference; leave --{flag} out")
    return mixture


def _moving(config: AlignConfig, policy: Scorer, reference: Scorer | None, *, kept: bool) -> MovingReference | None:
    """The reference that follows the policy, if it is to: a copy where the one that the run begins with is `kept`, for
    held-out examples are measured against that."""
    if config.moving is None or reference is None:
        return None
    return MovingReference(copy_of(reference) if kept else reference, policy, config.moving, config.seed)


def _previous(config: AlignConfig, policy: Scorer) -> MovingReference | None:
    """The policy of some steps before, where there is a penalty on going away from it."""
    if config.trust_region is None:
        return None
    return MovingReference(
        copy_of(policy), policy, Moving(1.0, config.trust_region_every or TRUSTED_STEPS), config.seed
    )


def _trust(config: AlignConfig, previous: MovingReference | None) -> TrustRegion | None:
    if previous is None or config.trust_region is None:
        return None
    return TrustRegion(previous.scorer, Mixture(()).weighing(PENALTY, config.trust_region))


def _reader(mixture: Mixture) -> Callable[..., Dataset[Any]]:
    """Reads pairs, or rankings where the objective takes those, or labelled answers where that is what files have;
    raises ConfigError where the objective does not take what they have."""
    compared: type[Any] = Ranking if mixture.takes == "rankings" else Pair

    def read(sources: Any, **settings: Any) -> Dataset[Any]:
        data: Dataset[Any] = read_rows(sources, compared, Labelled, **settings)
        if mixture.takes != "labelled" and isinstance(data.rows[0], Labelled):
            files = ", ".join(f"{file.name} ({file.format})" for file in data.files)
            others = " or ".join(other for other, row in OBJECTIVES.items() if row.takes == "labelled")
            raise ConfigError(
                f"objective {' + '.join(mixture.names)!r} learns from {mixture.takes}, and answers labelled one by one "
                f"were found: {files}; use --objective {others}, or give files of {mixture.takes}"
            )
        return data

    return read


def _check_margins(mixture: Mixture, rows: Rows[Any]) -> None:
    """Raise ConfigError where the objective needs margins, naming the first row that has none."""
    without = (row for row in (*rows.train, *rows.held_out) if isinstance(row, Pair) and row.rated_margin is None)
    if "margin" in mixture.needs and (first := next(without, None)) is not None:
        needing = next(term.name for term in mixture.terms if "margin" in term.objective.needs)
        raise ConfigError(
            f"objective {needing!r} needs to know by how much each chosen answer is better, and {first.origin} does "
            "not say; give every row a margin or scores of both answers (--columns says which columns those are), or "
            "choose another objective"
        )


def _tell_of(rows: Rows[Any], mixture: Mixture, console: Console) -> None:
    """What a user may want to know of the labels before training."""
    every = (*rows.train, *rows.held_out)
    graded = sum(isinstance(row, Pair) and row.preference < 1 for row in every)
    if graded and "preference" not in mixture.needs:
        console.print(f"{graded:,} graded preferences (below 1) are taken as certain", highlight=False)
    if tied := sum(isinstance(row, Ranking) and len(set(row.ranks)) < len(row.ranks) for row in every):
        console.print(f"{tied:,} of {len(every):,} rankings have answers of equal rank", highlight=False)
    if isinstance(rows.train[0], Labelled):
        good = sum(row.good for row in rows.train)
        console.print(f"to train on: {good:,} good and {len(rows.train) - good:,} bad answers", highlight=False)


def _card(run: RunDirectory, config: AlignConfig, mixture: Mixture, account: Account | None) -> str:
    return model_card(
        config,
        title=f"{Path(config.model).name}, aligned",
        objective=f"{mixture.describe()}.",
        facts=run.read_manifest(),
        results=() if account is None else account.rows,
        note="" if account is None else f"{UNITS} {account.note}",
    )


def _show(account: Account | None, run: RunDirectory, console: Console) -> None:
    if account is not None:
        console.print(account.table())
        if account.note:
            console.print(account.note, highlight=False, soft_wrap=True)
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
