"""`kilter score`: how a model sees preference pairs, alone or against a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from kilter.data.reading import read_pairs
from kilter.data.tables import check_table_path, write_table
from kilter.measure.config import ScoreConfig
from kilter.measure.pairs import ScoredPairs, score_pairs
from kilter.measure.statistics import wilson
from kilter.model.fingerprint import model_fingerprint
from kilter.model.loading import (
    check_same_vocabulary,
    load_scorer,
    load_tokenizer,
    longest_sequence,
    pick_device,
)
from kilter.model.prepared import PreparedTree
from kilter.model.reference_scores import ReferenceScores
from kilter.model.score_store import default_directory
from kilter.model.scorer import Reference, Scorer
from kilter.tokens.encoding import EncodedPair, Encoder, Limits
from kilter.tokens.packing import pack

SHOWN = 10  # pairs in the printed table


def score(config: ScoreConfig, console: Console | None = None) -> ScoredPairs:
    """Score the pairs of a file; prints a table, and writes every pair where `out` says so."""
    console = console or Console()
    device = pick_device(config.device)
    if config.out is not None:
        check_table_path(config.out, overwrite=config.overwrite, sources=config.data)
    data = read_pairs(config.data, **config.reading)
    console.print(data.describe(), highlight=False, soft_wrap=True)
    rows = data.rows if config.last is None else data.rows[-config.last :]

    policy: Reference = load_scorer(config.model, precision=config.precision, device=device, strict=config.strict)
    reference: Reference | None = None
    if config.reference is not None:
        reference = load_scorer(config.reference, precision=config.precision, device=device, strict=config.strict)
        check_same_vocabulary(policy.scorer, reference.scorer)
    longest = longest_sequence(policy.scorer, config.max_length, config.node_budget)
    limits = Limits(max_prompt=config.max_prompt, max_length=longest, on_overflow=config.on_overflow)
    encoder = Encoder(load_tokenizer(config.model), config.style, limits, skip_bad=config.skip_bad)
    pairs, report = encoder.encode_pairs(rows)
    console.print(report.describe(), highlight=False, soft_wrap=True)

    kept = None
    if config.cache != "none":
        kept = _kept(config, (reference or policy).scorer, console)
        policy, reference = (kept, None) if reference is None else (policy, kept)

    with Progress(console=Console(stderr=True), transient=True) as bar:
        if kept is not None:
            task = bar.add_task("filling", total=len(pairs))
            fill(kept, pairs, config.node_budget, lambda count: bar.advance(task, count))
        task = bar.add_task("scoring", total=len(pairs))
        scored = score_pairs(
            policy,
            pairs,
            reference=reference,
            exact_kl=reference is not None,
            node_budget=config.node_budget,
            on_progress=lambda count: bar.advance(task, count),
        )
    if config.out is not None:
        write_table(columns(pairs, scored, config.beta), config.out)
    console.print(first_pairs(pairs, scored, config.beta))
    console.print(totals(scored))
    if kept is not None:
        console.print(kept.describe(kept.counts), highlight=False, soft_wrap=True)
    if config.out is not None:
        console.print(f"all {len(pairs):,} pairs: {config.out}", highlight=False, soft_wrap=True)
    return scored


def _kept(config: ScoreConfig, scorer: Scorer, console: Console) -> ReferenceScores:
    """The scores of a model that is at hand, where a run with this model as its reference looks for them."""
    kept = ReferenceScores(
        config.cache_dir or default_directory(),
        model_fingerprint(scorer),
        lambda: scorer,
        hidden=config.cache == "hidden",
        warn=lambda text: console.print(f"warning: {text}", highlight=False, soft_wrap=True),
    )
    kept.use(scorer)
    return kept


def fill(
    kept: ReferenceScores, pairs: Sequence[EncodedPair], node_budget: int, on_progress: Callable[[int], None]
) -> None:
    """See to it that the scores of both answers of all pairs are kept, a tree at a time: it may be cut off anywhere."""
    units = [(pair.chosen, pair.rejected) for pair in pairs]
    for micro in pack(units, node_budget=node_budget).micro_batches:
        kept.fill(PreparedTree(micro.tree.padded(kept.node_multiple), kept.device))
        on_progress(len(micro.completion_C) // 2)


def columns(pairs: Sequence[EncodedPair], scored: ScoredPairs, beta: float) -> dict[str, Sequence[Any]]:
    """One column for each number: nats, summed over the answer's tokens."""
    table: dict[str, Sequence[Any]] = {
        "file": [pair.origin.file for pair in pairs],
        "line": [pair.origin.line for pair in pairs],
    }
    for name, answer in (("chosen", scored.chosen), ("rejected", scored.rejected)):
        table[f"{name}_tokens"] = answer.tokens_A.astype(int).tolist()
        table[f"{name}_log_prob"] = answer.log_prob_A.tolist()
        for column, values in (
            ("reference_log_prob", answer.reference_log_prob_A),
            ("kl_policy_reference", answer.kl_policy_reference_A),
            ("kl_reference_policy", answer.kl_reference_policy_A),
        ):
            if values is not None:
                table[f"{name}_{column}"] = values.tolist()
    if scored.chosen.reference_log_prob_A is not None:
        table["margin"] = (beta * scored.gap_P).tolist()
    table["correct"] = scored.correct_P.tolist()
    return table


def first_pairs(pairs: Sequence[EncodedPair], scored: ScoredPairs, beta: float) -> Table:
    """The first few pairs, as a table to look at."""
    compared = scored.chosen.reference_log_prob_A is not None
    table = Table(title=f"first {min(SHOWN, len(pairs))} of {len(pairs):,} pairs", title_justify="left")
    for heading in ("row", "log-prob of chosen", "of rejected", "margin" if compared else "gap"):
        table.add_column(heading, justify="left" if heading == "row" else "right")
    margin = (beta if compared else 1.0) * scored.gap_P
    for i, pair in enumerate(pairs[:SHOWN]):
        chosen, rejected = scored.chosen.log_prob_A[i], scored.rejected.log_prob_A[i]
        table.add_row(str(pair.origin.line), f"{chosen:.2f}", f"{rejected:.2f}", f"{margin[i]:+.3f}")
    return table


def totals(scored: ScoredPairs) -> Table:
    """Means over all pairs, each saying along what."""
    table = Table(title=f"all {len(scored):,} pairs", title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    compared = scored.chosen.reference_log_prob_A is not None
    likelier = wilson(float(scored.likelier_P.sum()), len(scored))
    table.add_row("chosen is the likelier answer", f"{likelier.value:.3f} ({likelier.low:.3f}, {likelier.high:.3f})")
    if compared:
        accuracy = scored.accuracy
        text = f"{accuracy.value:.3f} ({accuracy.low:.3f}, {accuracy.high:.3f})"
        table.add_row("accuracy: chosen has the higher log-ratio", text)
    for name, answer in (("chosen", scored.chosen), ("rejected", scored.rejected)):
        per_token = answer.log_prob_A.sum() / answer.tokens_A.sum()
        table.add_row(f"log-prob of {name}, nats per token", f"{per_token:.4f}")
        if compared:
            table.add_row(f"log-ratio of {name}, nats per answer", f"{answer.log_ratio_A.mean():+.3f}")
        for words, sums in (
            ("KL(policy, reference)", answer.kl_policy_reference_A),
            ("KL(reference, policy)", answer.kl_reference_policy_A),
        ):
            if sums is not None:
                table.add_row(
                    f"token {words} along {name}, nats per token", f"{sums.sum() / answer.tokens_A.sum():.5f}"
                )
    return table
