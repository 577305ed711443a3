"""All objectives on HH, one run each: what was gained, what it cost in KL, and the time of a step.

Prints a Markdown table. Every run aligns the same model on the same pairs, in the same order, with one learning rate
and the objective's default options; the last pairs of the file are held out, and rows that are no pair left out. All
results are measured alike, against the model they began as, also where the objective has no reference: accuracy is the
share of held-out pairs whose chosen answer has the higher log-ratio (the reference itself has 0.5); "chosen is
likelier" goes by log-probs alone, as a difference from the reference with a 95% interval over pairs. KL(policy,
reference) is exact over the vocabulary, mean over tokens along held-out answers; KL of answers is summed along answers
that the policy sampled, with its standard error over prompts.

With `--timing`, seconds of a gradient instead: the same batches for each objective, the objectives in turn, several
times over, as a ratio to dpo. On a machine that others use too only the ratios mean something.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kilter.train.machine import settle

if TYPE_CHECKING:
    from kilter.measure.pairs import ScoredPairs
    from kilter.model.scorer import Scorer
    from kilter.tokens.encoding import EncodedPair

MIXTURES = ("dpo + 0.2*sft", "dpo + 0.1*kl")
# What pairs without ratings have nothing for, and what nothing is learned from by itself.
LEFT_OUT = ("margin_dpo", "sft", "kl", "kl_reference")
COLUMNS = (
    "objective", "accuracy", "chosen is likelier, against the reference", "KL along chosen", "along rejected",
    "KL of answers, nats", "log-ratio of chosen", "of rejected",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--data", required=True, type=Path, help="HH transcripts, JSONL or .gz")
    parser.add_argument("--characters", type=int, default=800, help="of the longest pair of transcripts that is taken")
    parser.add_argument("--pairs", type=int, default=640, help="to train on: the last before those held out")
    parser.add_argument("--held-out", type=int, default=400)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-4)
    parser.add_argument("--samples", type=int, default=64, help="prompts to answer")
    parser.add_argument("--runs", type=int, default=5, help="of the timing")
    parser.add_argument("--objectives", nargs="+", help="default: all")
    parser.add_argument("--timing", action="store_true")
    parser.add_argument("--work", type=Path, default=Path("build/bench/objectives"))
    args = parser.parse_args()
    settle()
    from kilter.measure.pairs import score_pairs
    from kilter.model.loading import load_scorer
    from kilter.objectives import OBJECTIVES

    args.work.mkdir(parents=True, exist_ok=True)
    names = args.objectives or [*OBJECTIVES, *MIXTURES]
    names = [name for name in names if name not in LEFT_OUT]
    path, count = args.work / "pairs.jsonl", args.pairs + args.held_out
    data = write_pairs(args.data, path, characters=args.characters, count=count)
    reference = load_scorer(args.model).frozen()
    pairs = encoded(args, data)
    if args.timing:
        time_gradients(args, reference, pairs[: args.pairs], names)
        return
    held_out = pairs[-args.held_out :]
    before = score_pairs(reference, held_out)
    print(f"| {' | '.join(COLUMNS)} |\n|---|{'--:|' * (len(COLUMNS) - 1)}")
    for name in names:
        print(f"| {' | '.join(result(args, data, reference, held_out, before, name))} |", flush=True)


def write_pairs(source: Path, path: Path, *, characters: int, count: int) -> Path:
    """So many of the file's pairs that are short enough, the last ones, in a file of their own."""
    opened = gzip.open if source.suffix == ".gz" else open
    with opened(source, "rt", encoding="utf-8") as stream:
        lines = [line for line in stream if len(line) <= characters]
    path.write_text("".join(lines[-count:]), encoding="utf-8")
    return path


def encoded(args: argparse.Namespace, data: Path) -> list[EncodedPair]:
    from kilter.data.reading import read_pairs
    from kilter.model.loading import load_tokenizer
    from kilter.tokens.encoding import Encoder

    return Encoder(load_tokenizer(args.model)).encode_pairs(read_pairs(data, skip_bad=True).rows).rows


def result(
    args: argparse.Namespace,
    data: Path,
    reference: Scorer,
    held_out: Sequence[EncodedPair],
    before: ScoredPairs,
    name: str,
) -> list[str]:
    """Train, and measure."""
    from rich.console import Console

    from kilter.measure.pairs import ScoredPairs, score_pairs, summary
    from kilter.measure.samples import sample_evaluation
    from kilter.measure.statistics import paired_difference
    from kilter.model.loading import load_scorer, load_tokenizer
    from kilter.model.sampler import SamplingSettings
    from kilter.train.align import align
    from kilter.train.config import AlignConfig

    out = args.work / "".join(letter if letter.isalnum() else "-" for letter in name)
    with (args.work / "log.txt").open("a") as log:
        aligned = align(
            AlignConfig(
                model=args.model, data=str(data), out=out, overwrite=True, objective=name, holdout=args.held_out,
                skip_bad=True, batch_size=args.batch_size, learning_rate=args.learning_rate,
            ),
            Console(file=log, width=200),
        )  # fmt: skip
    policy, after = load_scorer(str(aligned.model), prove=False), aligned.after
    if not isinstance(after, ScoredPairs) or after.chosen.reference_log_prob_A is None:
        after = score_pairs(policy, held_out, reference=reference, exact_kl=True)
    found: dict[str, Any] = summary(after)
    mean, low, high = paired_difference(after.likelier_P, before.likelier_P)
    prompts = [pair.chosen.ids[: pair.chosen.first] for pair in held_out[: args.samples]]
    settings, tokenizer = SamplingSettings(max_new_tokens=64), load_tokenizer(args.model)
    answers = sample_evaluation(policy, reference, prompts, settings, tokenizer=tokenizer, seed=0).answer_kl
    assert answers is not None
    return [
        f"`{name}`",
        f"{after.accuracy.value:.3f} ({after.accuracy.low:.3f}, {after.accuracy.high:.3f})",
        f"{mean:+.3f} ({low:+.3f}, {high:+.3f})",
        f"{found['kl_policy_reference_along_chosen']:.4f}",
        f"{found['kl_policy_reference_along_rejected']:.4f}",
        f"{answers.kl.value:.2f} ± {answers.kl.standard_error:.2f}",
        f"{found['chosen_log_ratio']:+.2f}",
        f"{found['rejected_log_ratio']:+.2f}",
    ]


def time_gradients(args: argparse.Namespace, reference: Scorer, pairs: Sequence[EncodedPair], names: list[str]) -> None:
    """Gradients of the same batches, the objectives in turn."""
    from kilter.model.loading import load_scorer
    from kilter.objectives import Mixture, parse
    from kilter.train.batches import Batch, pair_batch
    from kilter.train.step import accumulate_gradient

    policy = load_scorer(args.model, prove=False)
    cuts = [pairs[i : i + args.batch_size] for i in range(0, len(pairs), args.batch_size)][:4]

    def batches(mixture: Mixture) -> list[Batch]:
        return [pair_batch(cut, node_budget=2048, mismatched="mismatched" in mixture.needs) for cut in cuts]

    def seconds(mixture: Mixture, prepared: list[Batch]) -> float:
        beside = reference if mixture.needs_reference else None
        # As in a run: memory that the objective before did not take has to be mapped first.
        accumulate_gradient(policy, beside, prepared[0], mixture)
        begin = time.perf_counter()
        for batch in prepared:
            accumulate_gradient(policy, beside, batch, mixture)
        policy.zero_grad()
        return (time.perf_counter() - begin) / len(prepared)

    # Rankings are timed by rankings.py.
    mixtures = {name: parse(name) for name in dict.fromkeys(["dpo", *names])}
    work = {name: (mixture, batches(mixture)) for name, mixture in mixtures.items() if mixture.takes != "rankings"}
    runs = [{name: seconds(*given) for name, given in work.items()} for _ in range(args.runs + 1)][1:]
    print("| objective | s a step | of dpo's |\n|---|--:|--:|")
    for name in work:
        own = statistics.median(run[name] for run in runs)
        ratio = statistics.median(run[name] / run["dpo"] for run in runs)
        print(f"| `{name}` | {own:.3f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
