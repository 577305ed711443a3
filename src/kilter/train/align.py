"""`kilter align`: preference pairs in, an aligned model and its account out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from safetensors.numpy import load_file, save_file

from kilter.data.reading import read_pairs
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged_file
from kilter.errors import ConfigError
from kilter.measure.pairs import Floats, ScoredPairs, score_pairs, summary
from kilter.measure.samples import NGRAM, SampleEvaluation, sample_evaluation
from kilter.measure.statistics import paired_difference
from kilter.model.fingerprint import model_fingerprint, template_fingerprint, tokenizer_fingerprint
from kilter.model.loading import load_tokenizer
from kilter.model.sampler import SamplingSettings, check_room
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers, open_workers
from kilter.objectives import Objective, PairScores, objective, resolve_options
from kilter.tokens.encoding import EncodedPair
from kilter.train.batches import Batch, pair_batch
from kilter.train.card import model_card
from kilter.train.checkpoint import Keeper
from kilter.train.config import AlignConfig
from kilter.train.loop import Task, fit
from kilter.train.resume import open_run
from kilter.train.setup import begin_run, make_encoder, read_examples, seed_everything, with_node_limit
from kilter.train.step import mean_loss
from kilter.train.stops import Stop
from kilter.train.weights import load_policy, load_reference, restore_weights, save_result, save_weights, weights_size
from kilter.train.writing import system_errors

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
        },
        workers,
    )
    workers.spread(policy, reference)
    scored: dict[int, ScoredPairs] = {}
    sampled: dict[int, SampleEvaluation] = {}
    prompts = [pair.chosen.ids[: pair.chosen.first] for pair in eval_pairs[: config.sample_eval]]
    settings = SamplingSettings(config.sample_tokens, config.sample_temperature)
    check_room(policy, prompts, config.sample_tokens)

    def make_batch(positions: Sequence[int]) -> Batch:
        return _batch([pairs[i] for i in positions], row, config, policy, workers)

    def score(stop: Stop) -> ScoredPairs:
        return score_pairs(
            policy,
            eval_pairs,
            reference=reference,
            exact_kl=reference is not None,
            node_budget=config.node_limit,
            on_progress=stop.check,
            workers=workers,
        )

    def sample(stop: Stop) -> SampleEvaluation:
        with workers.gathered(policy):
            return sample_evaluation(
                policy,
                reference,
                prompts,
                settings,
                tokenizer=tokenizer,
                seed=config.seed,
                node_budget=config.node_limit,
                on_progress=stop.check,
            )

    def evaluate(step: int, stop: Stop) -> float:
        scored[step] = score(stop)
        loss = _mean_loss(policy, reference, eval_pairs, scored[step], row, options, config, workers)
        found = {"step": step, "split": "eval", "loss": loss, **summary(scored[step])}
        if prompts:
            sampled[step] = sample(stop)
            run.append_samples({"step": step, **one} for one in sampled[step].rows(tokenizer))
            found |= sampled[step].summary()
        run.append_metrics(found)
        if step == 0:
            workers.on_main(_save_scores, scored[0], run.before)
        return loss

    task = Task(
        policy,
        reference,
        row,
        options,
        len(pairs),
        make_batch,
        evaluate if eval_pairs else None,
        starts_at_reference=row.needs_reference and config.reference is None,
        workers=workers,
    )
    keeper = Keeper(
        run,
        config,
        "align",
        model=policy.model,
        save_weights=lambda directory, state: save_weights(directory, policy, tokenizer, config.model, state=state),
        weights_size=weights_size(policy),
        reference=fingerprint,
        begin=checkpoint,
        workers=workers,
    )
    with run:
        done = fit(task, config, keeper, console, learning_rate=config.learning_rate)
        best = keeper.best(done, lambda text: console.print(f"warning: {text}", soft_wrap=True))
        if best is not None:
            restore_weights(policy, best.path)
            console.print(f"the best evaluation was that of step {best.step}: its model is the result", highlight=False)
        before = after = None
        table, note = [], ""
        step = done.step if best is None else best.step
        if eval_pairs:
            before = ScoredPairs.from_arrays(load_file(run.before))
            after = scored.get(step) or score(Stop())
            table = account(before, after)
        if prompts:
            note = said_of_samples(sampled.get(step) or sample(Stop()))
        card = _card(run, config, row, table, note)
        keeper.write_result(
            lambda directory, state: save_result(
                directory, policy, tokenizer, config.model, card, merged=config.merge, state=state
            )
        )
    if table:
        console.print(_shown(table, len(eval_pairs)))
    if note:
        console.print(note, highlight=False, soft_wrap=True)
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


def _save_scores(scored: ScoredPairs, file: Path) -> None:
    with staged_file(file) as path, system_errors():
        save_file(scored.arrays(), path)


def _batch(
    pairs: Sequence[EncodedPair], row: Objective, config: AlignConfig, policy: Scorer, workers: Workers
) -> Batch:
    return pair_batch(
        pairs,
        node_budget=config.node_limit,
        mismatched=row.takes == "labelled",
        device=policy.device,
        node_multiple=policy.node_multiple,
        workers=workers,
    )


def _mean_loss(
    policy: Scorer,
    reference: Scorer | None,
    pairs: Sequence[EncodedPair],
    scored: ScoredPairs,
    row: Objective,
    options: dict[str, float],
    config: AlignConfig,
    workers: Workers,
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
        batch = _batch(pairs[i : i + config.batch_size], row, config, policy, workers)
        if not len(batch.mismatched):
            continue  # a last pair by itself has no other to be compared with
        here = batch.denominator(row)
        total += mean_loss(policy, reference, batch, row, options) * here
        items += here
    return total / items if items else math.nan


def account(before: ScoredPairs, after: ScoredPairs) -> list[list[str]]:
    """What the run bought and what it cost, on the held-out pairs: a table with its headings."""
    table = [["", "before", "after", "difference (95% interval)"]]

    def add(name: str, form: str, start: Floats, end: Floats) -> None:
        mean, low, high = paired_difference(end, start)
        difference = f"{mean:+{form}} ({low:+{form}}, {high:+{form}})"
        table.append([name, format(start.mean(), form), format(end.mean(), form), difference])

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


def _shown(rows: list[list[str]], pairs: int) -> Table:
    table = Table(title=f"{pairs:,} held-out pairs", title_justify="left")
    for column, heading in enumerate(rows[0]):
        table.add_column(heading, justify="right" if column else "left")
    for cells in rows[1:]:
        table.add_row(*cells)
    return table


def said_of_samples(sampled: SampleEvaluation) -> str:
    """What answers of the result's own are like, in a sentence or two."""
    said = (
        f"{len(sampled.scored)} sampled answers ({sampled.settings.describe()}): {sampled.tokens.value:.1f} tokens, "
        f"{sampled.finished.value:.0%} of them whole, {sampled.repetition.value:.1%} of {NGRAM}-grams repeated"
    )
    if (found := sampled.answer_kl) is not None:
        name = "KL(policy, reference) of answers" if sampled.settings.faithful else "token KL(policy, reference) summed"
        said += f"; {name}: {found.kl.value:.3f} nats (standard error {found.kl.error:.3f})"
    return f"{said}. Sampler and Scorer differ by at most {sampled.disagreement.largest:.1g} nats a token."


def _card(run: RunDirectory, config: AlignConfig, row: Objective, table: list[list[str]], note: str) -> str:
    return model_card(
        config,
        title=f"{Path(config.model).name}, aligned",
        objective=f"{config.objective}: {row.summary} ({row.paper}).",
        facts=run.read_manifest(),
        results=table,
        note=(
            f"Log-ratios are to the reference, KL is exact over the whole vocabulary, in nats. {note}" if table else ""
        ),
    )
