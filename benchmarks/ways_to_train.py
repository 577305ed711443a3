"""Ways to train the same model on the same pairs: time against memory.

Prints two Markdown tables. The first has all weights, adapters (LoRA of rank 16 on every linear layer), activation
checkpointing, and what the optimiser and the weights are kept in. The second draws the node budget against speed and
memory, on batches of 24 pairs. Conditions: DPO steps on batches of 8 Anthropic HH pairs (those of dpo_vs_trl.py), one
process a row, rows one after the other, median of the steps after the first; peak is that of resident memory.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from dpo_vs_trl import HERE, prepare
from shapes import SHAPES

WAYS: dict[str, list[str]] = {
    "all weights": [],
    "all weights, activations computed again": ["--activation-checkpointing"],
    "LoRA": ["--lora-rank", "16"],
    "LoRA, activations computed again": ["--lora-rank", "16", "--activation-checkpointing"],
    "all weights, Adafactor": ["--optimizer", "adafactor"],
    "all weights, bfloat16": ["--dtype", "bfloat16"],
    "LoRA, bfloat16": ["--lora-rank", "16", "--dtype", "bfloat16"],
    "weights kept in bfloat16": ["--dtype", "bfloat16", "--weights", "bfloat16"],
}
BUDGETS = (512, 1024, 2048, 4096, 8192)
BAR = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory with hh_harmless_test.jsonl.gz")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where models and results go")
    parser.add_argument("--shape", default="135m", choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--only", choices=("ways", "budgets"), help="one table alone")
    args = parser.parse_args()
    prepare(args.shape, args.data, args.work)
    if args.only != "budgets":
        print(f"| {args.shape} | s/step | of all weights | peak GB | of all weights |\n|---|--:|--:|--:|--:|")
        first = None
        for way, flags in WAYS.items():
            seconds, peak = measured(args, ["--steps", str(args.steps), *flags])
            first = first or (seconds, peak)
            shares = f"{seconds / first[0]:.2f}x | {peak:.2f} | {peak / first[1]:.2f}x"
            print(f"| {way} | {seconds:.2f} | {shares} |", flush=True)
    if args.only != "ways":
        print(f"\n| {args.shape}: node budget | nodes/s | | peak GB |\n|--:|--:|:--|--:|")
        large = ["--batch", "24", "--steps", "3"]
        found = [(budget, *measured(args, ["--node-budget", str(budget), *large], per_node=True)) for budget in BUDGETS]
        most = max(rate for _, rate, _ in found)
        for budget, rate, peak in found:
            print(f"| {budget:,} | {rate:,.0f} | {'#' * round(BAR * rate / most)} | {peak:.2f} |")


def measured(args: argparse.Namespace, flags: list[str], *, per_node: bool = False) -> tuple[float, float]:
    """Median seconds a step (or nodes a second) after the first, and peak GB."""
    out = args.work / f"ways-{args.shape}.json"
    model = args.work / args.shape
    files = ["--model", str(model), "--pairs", str(model / "pairs.json"), "--out", str(out)]
    command = [sys.executable, str(HERE / "dpo_kilter_worker.py"), *files, *flags]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{' '.join(flags)} failed:\n{finished.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(out.read_text())
    steps = result["steps"][1:]
    value = (lambda s: s["nodes"] / s["seconds"]) if per_node else (lambda s: s["seconds"])
    return statistics.median(map(value, steps)), (result["peak_cuda_bytes"] or result["peak_rss_bytes"]) / 1e9


if __name__ == "__main__":
    main()
