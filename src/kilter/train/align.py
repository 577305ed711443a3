"""`kilter align`: preferences in, as pairs, rankings or labels; an aligned model and its account out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kilter.data.checkpoints import Checkpoint
from kilter.data.reading import Dataset
from kilter.data.records import Labelled, Pair, Ranking
from kilter.data.run_directory import RunDirectory
from kilter.errors import ConfigError
from kilter.measure.judges import judge_named
from kilter.model.loading import copy_of, load_tokenizer
from kilter.model.reference_scores import Counts, ReferenceScores
from kilter.model.sampler import stop_tokens
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers, open_workers
from kilter.objectives import OBJECTIVES, Mixture, parse
from kilter.train.account import Account, Scored
from kilter.train.card import model_card
from kilter.train.checkpoint import PREVIOUS, REFERENCE, Keeper
from kilter.train.config import NONE, AlignConfig, Moving
from kilter.train.examples import Encodings, encode, prompt_of
from kilter.train.held_out import HeldOut
from kilter.train.kl_bounds import PENALTY, AnswerKlMeter, KlBounds, kl_bounds
from kilter.train.loop import Task, fit, total_steps
from kilter.train.moving_reference import MovingReference
from kilter.train.reference import RunReference, open_reference
from kilter.train.resume import open_run
from kilter.train.setup import Rows, begin_run, read_examples, seed_everything, with_node_limit
from kilter.train.shared import Shared
from kilter.train.step import OF_BOTH, TrustRegion
from kilter.train.weights import Weights, load_policy, start_fingerprint

TRUSTED_STEPS = 50

UNITS = (
    "Log-ratios are to the reference that the run began with. Token KL is exact, over the whole vocabulary; KL and "
    "entropy of answers are estimates. All are in nats."
)


@dataclass(frozen=True)
class Aligned:
    """Where the result lies; the held-out examples scored before and after (None where nothing was held out); and what
    was found and computed of the reference's scores (None where they are not kept)."""

    model: Path
    before: Scored | None
    after: Scored | None
    reference_scores: Counts | None


def align(config: AlignConfig, console: Console | None = None, shared: Shared | None = None) -> Aligned:
    """Align a model with preferences; returns where the result is and what the held-out examples say of it.

    Raises a KilterError (of data, configuration, model or run) for whatever the user can mend, and when asked to stop.
    """
    with open_workers(device=config.device, shard=config.shard, batch_size=config.batch_size) as workers:
        return _align(config, workers, workers.console(console or Console(stderr=True)), shared or Shared())


def _align(config: AlignConfig, workers: Workers, console: Console, shared: Shared) -> Aligned:
    mixture = mixture_of(config)
    judge = None if config.judge is None else judge_named(config.judge)
    run, checkpoint = open_run(config, "align", console, workers)
    seed_everything(config.seed)

    rows = rows_of(config, mixture, console, shared)
    policy = load_policy(config.model, config, checkpoint)
    tokenizer = load_tokenizer(config.model)
    reference = _reference(config, mixture, policy, checkpoint, rows, console)
    moving = _moving(config, policy, reference.model, kept=bool(rows.held_out) or config.measures_kl)
    previous = _previous(config, policy)
    if reference.model is not None and (moving is None or moving.scorer is not reference.model):
        reference.model.frozen()
    # A reference that is not in memory may yet have to be.
    to_come = 0 if reference.kept is None or reference.kept.in_memory else sum(p.nbytes for p in policy.parameters())
    config = with_node_limit(config, policy, console, workers, reserved=to_come)
    examples = encode(rows, tokenizer, config, policy, mixture, console, workers)

    # Before anything is written: these refuse settings that do not go with the rows.
    held_out = HeldOut(
        judge=judge,
        examples=examples.held_out,
        policy=policy,
        reference=reference.scores,
        mixture=mixture,
        tokenizer=tokenizer,
        config=config,
        run=run,
        workers=workers,
    )
    bounds = _bounds(config, mixture, policy, reference, examples, stop_tokens(policy.model, tokenizer), workers)

    facts = {
        "model": config.model,
        "objective": str(mixture),
        "reference": reference.name,
        "reference_sha256": reference.fingerprint,
        **examples.facts,
        # Where the start of the run is the reference, that says it already.
        **({} if reference.is_start else start_fingerprint(policy, checkpoint)),
    }
    begin_run(run, config, "align", facts, workers)
    followers = {file: follower for file, follower in ((REFERENCE, moving), (PREVIOUS, previous)) if follower}
    workers.spread(policy, reference.model, *(follower.scorer for follower in followers.values()))

    minimised = mixture if bounds is None else bounds.weighed(mixture)
    followed = reference.scores if moving is None else moving.scorer
    task = Task(
        policy,
        followed if minimised.needs_reference else None,
        minimised,
        len(examples.train),
        examples.train.batch_of,
        held_out.evaluate if examples.held_out else None,
        starts_at_reference=reference.is_start and minimised.needs_reference,
        followers=tuple(followers.values()),
        bounds=bounds,
        trust=_trust(config, previous),
        workers=workers,
    )
    weights = Weights(policy, tokenizer, config.model, workers)
    keeper = Keeper(
        run, config, "align", weights, reference=reference.fingerprint, followers=followers, begin=checkpoint
    )
    with run:
        done = fit(task, config, keeper, console, shared, learning_rate=config.learning_rate)
        if bounds is not None and bounds.exceeded(done):
            done = keeper.roll_back(done, console)
        step = keeper.take_best(done, console)
        account = held_out.account(step) if examples.held_out else None
        counts = _told_of_scores(reference.kept, run, workers, console)
        keeper.finish(_card(run, config, mixture, account))
    _show(account, run, console)
    if bounds is not None:
        said = bounds.describe(done, total_steps(len(examples.train), config))
        console.print(said, highlight=False, soft_wrap=True)
    before, after = (None, None) if account is None else (account.before, account.after)
    return Aligned(run.model, before, after, counts)


def mixture_of(config: AlignConfig) -> Mixture:
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
    if config.reference == NONE and mixture.needs_reference:
        without = ", ".join(name for name, row in OBJECTIVES.items() if not row.needs_reference and name != "sft")
        raise ConfigError(
            f"objective {config.objective!r} needs a reference, and reference is none; leave that out (the start of "
            f"the run), name a model, or take an objective that has none: {without}"
        )
    # What is held out, and the KL of answers, may be measured against a reference that the objective does without.
    measured = bool(config.holdout or config.eval_data) or config.measures_kl
    for name in ("reference_mix", "reference_every", *(() if measured else ("reference",))):
        if getattr(config, name) not in (None, NONE) and not mixture.needs_reference:
            flag = name.replace("_", "-")
            raise ConfigError(f"objective {config.objective!r} has no reference; leave --{flag} out")
    if config.judge is not None and not _has_reference(config, mixture):
        raise ConfigError(f"objective {config.objective!r} has no reference to be judged against; leave --judge out")
    return mixture


def _moving(config: AlignConfig, policy: Scorer, reference: Scorer | None, *, kept: bool) -> MovingReference | None:
    """The reference that follows the policy, if it is to: a copy where the one that the run begins with is `kept`, for
    held-out examples are measured against that."""
    if config.moving is None or reference is None:
        return None
    return MovingReference(copy_of(reference) if kept else reference, policy, config.moving, config.seed)


def _bounds(
    config: AlignConfig,
    mixture: Mixture,
    policy: Scorer,
    reference: RunReference,
    examples: Encodings,
    stops: frozenset[int],
    workers: Workers,
) -> KlBounds | None:
    """What the run does about the KL of its answers, if anything."""
    if not config.measures_kl or reference.scores is None:
        return None
    prompts = [prompt_of(row) for row in examples.train.rows]
    # Answers are drawn anew each time: their scores are not worth keeping.
    meter = AnswerKlMeter(policy, reference.scores.scorer, prompts, stops, config.kl_tokens, config.seed, workers)
    steps = total_steps(len(prompts), config)
    return kl_bounds(config, meter, mixture, steps, starts_at_zero=reference.is_start)


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


def rows_of(config: AlignConfig, mixture: Mixture, console: Console, shared: Shared) -> Rows[Any]:
    """The rows of a run, read; tells what they are, and raises ConfigError where the objective does not take them."""
    rows = read_examples(config, _reader(mixture, shared), console)
    _check_margins(mixture, rows)
    _tell_of(rows, mixture, console)
    return rows


def _reference(
    config: AlignConfig,
    mixture: Mixture,
    policy: Scorer,
    checkpoint: Checkpoint | None,
    rows: Rows[Any],
    console: Console,
) -> RunReference:
    if not _has_reference(config, mixture):
        return RunReference()
    return open_reference(
        policy,
        config,
        checkpoint,
        model_needed=_model_needed(config, mixture, rows),
        warn=lambda text: console.print(f"warning: {text}", highlight=False, soft_wrap=True),
    )


def _has_reference(config: AlignConfig, mixture: Mixture) -> bool:
    return mixture.needs_reference or config.measures_kl or config.reference not in (None, NONE)


def _model_needed(config: AlignConfig, mixture: Mixture, rows: Rows[Any]) -> bool:
    """Whether more will be asked of the reference than what is kept: its distributions, or those along new answers."""
    new_answers = bool(config.sample_eval) or config.measures_kl
    distributions = bool(rows.held_out) or not OF_BOTH.isdisjoint(mixture.needs)
    return new_answers or (distributions and config.keeps != "hidden")


def _told_of_scores(
    kept: ReferenceScores | None, run: RunDirectory, workers: Workers, console: Console
) -> Counts | None:
    """Together: print, and note in the manifest, what was found and computed of the reference's scores."""
    if kept is None:
        return None
    counts = Counts(*(int(workers.total(count)) for count in astuple(kept.counts)))
    facts = asdict(counts) | {"bytes": kept.bytes_on_disk, "path": str(kept.directory)}
    workers.on_main(lambda: run.write_manifest(run.read_manifest() | {"reference_scores": facts}))
    console.print(kept.describe(counts), highlight=False, soft_wrap=True)
    return counts


def _reader(mixture: Mixture, shared: Shared) -> Callable[..., Dataset[Any]]:
    """Reads pairs, or rankings where the objective takes those, or labelled answers where that is what files have;
    raises ConfigError where the objective does not take what they have."""
    compared: type[Any] = Ranking if mixture.takes == "rankings" else Pair

    def read(sources: Any, **settings: Any) -> Dataset[Any]:
        data: Dataset[Any] = shared.read(sources, compared, Labelled, **settings)
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
        results=() if account is None else account.tables,
        notes=() if account is None else (UNITS, *account.notes),
    )


def _show(account: Account | None, run: RunDirectory, console: Console) -> None:
    if account is not None:
        account.show(console)
    console.print(f"model: {run.model}\nmetrics: {run.path / 'metrics.jsonl'}", highlight=False, soft_wrap=True)
