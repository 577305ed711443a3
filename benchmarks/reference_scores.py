"""What it takes to keep a reference's scores, and what it saves: time and disk, on HH.

Prints a Markdown table with a row for each kind of `--cache`. The same pairs are aligned once over an empty store and
once over the full one, by an objective that needs log-probs alone and by one that needs exact KL, nothing held out; the
runs of a kind follow each other, so that on a machine that others use too they see about the same load. Seconds are
those of the steps (metrics.jsonl), without loading; computed tokens are the reference's own counter; disk is what the
store takes, by the tokens that it keeps.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from kilter.train.machine import settle
from objectives import write_pairs

COLUMNS = (
    "`--cache`", "objective", "s of steps, filling", "s, filled", "saved", "tokens computed, filling", "filled",
    "MB on disk", "bytes a token",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--data", required=True, type=Path, help="HH transcripts, JSONL or .gz")
    parser.add_argument("--characters", type=int, default=1000, help="of the longest pair of transcripts that is taken")
    parser.add_argument("--pairs", type=int, default=64, help="to train on: the last of the file")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--objectives", nargs="+", default=["dpo", "bt_kl"])
    parser.add_argument("--work", type=Path, default=Path("build/bench/reference-scores"))
    args = parser.parse_args()
    settle()
    args.work.mkdir(parents=True, exist_ok=True)
    data = write_pairs(args.data, args.work / "pairs.jsonl", characters=args.characters, count=args.pairs)
    print(f"| {' | '.join(COLUMNS)} |\n|---|---|{'--:|' * (len(COLUMNS) - 2)}")
    for kind in ("none", "log-probs", "hidden"):
        for objective in args.objectives:
            print(f"| {' | '.join(row(args, data, kind, objective))} |", flush=True)


def row(args: argparse.Namespace, data: Path, kind: str, objective: str) -> list[str]:
    """Two runs over one store, empty for the first."""
    from rich.console import Console

    from kilter.data.run_directory import RunDirectory
    from kilter.train.align import align
    from kilter.train.config import AlignConfig

    store = args.work / f"store-{kind}"
    shutil.rmtree(store, ignore_errors=True)
    seconds, computed = [], []
    for out in (args.work / "filling", args.work / "filled"):
        with (args.work / "log.txt").open("a") as log:
            config = AlignConfig.model_validate({
                "model": args.model, "data": str(data), "out": out, "overwrite": True, "objective": objective,
                "skip_bad": True, "batch_size": args.batch_size, "precision": args.precision, "cache": kind,
                "cache_dir": store,
            })  # fmt: skip
            counts = align(config, Console(file=log, width=200)).reference_scores
        seconds.append(sum(float(str(step["seconds"])) for step in RunDirectory(out).read_metrics()))
        computed.append("all" if counts is None else f"{counts.computed + counts.computed_unkept:,}")
        kept = 0 if counts is None else counts.hits + counts.misses
    size = sum(file.stat().st_size for file in store.rglob("*.scores"))
    return [
        f"`{kind}`",
        f"`{objective}`",
        *(f"{each:.1f}" for each in seconds),
        f"{1 - seconds[1] / seconds[0]:.0%}",
        *computed,
        f"{size / 1e6:.2f}",
        f"{size / kept:,.0f}" if size else "",
    ]


if __name__ == "__main__":
    main()
