"""`kilter check` of 100,000 pairs: seconds by stage and peak memory, with and without a model's tokenizer.

Prints a Markdown table. Conditions: Anthropic HH rows repeated, each repeat with a number put into the human's first
turn, so that no row, prompt or text comes twice; one process for each column.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory with a tokenizer and a configuration")
    parser.add_argument("--data", required=True, type=Path, help="HH transcripts, JSONL or .gz")
    parser.add_argument("--pairs", type=int, default=100_000)
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--stages", nargs="+", help=argparse.SUPPRESS)  # a column of the table, in its own process
    args = parser.parse_args()
    if args.stages:
        print(json.dumps(timed(*args.stages)))
        return
    path = args.work / f"hh-{args.pairs}.jsonl"
    if not path.exists():
        args.work.mkdir(parents=True, exist_ok=True)
        write_repeated(args.data, path, args.pairs)
    print(f"{args.pairs:,} pairs, {path.stat().st_size / 1e6:.0f} MB\n", flush=True)
    columns = [column(path), column(path, args.model)]
    print("| | without a model | with its tokenizer |\n|---|--:|--:|")
    for stage in columns[1]:
        print("| " + " | ".join([stage, *(f"{of[stage]:,.1f}" if stage in of else "" for of in columns)]) + " |")


def write_repeated(source: Path, path: Path, pairs: int) -> None:
    """Numbers go in after the first words of the human, the same in both answers."""
    with gzip.open(source, "rt") if source.suffix == ".gz" else source.open() as stream:
        rows = [row for line in stream if usable(row := json.loads(line))]
    staging = path.with_suffix(".part")
    with staging.open("w") as stream:
        for i in range(pairs):
            row = rows[i % len(rows)]
            numbered = {
                side: row[side].replace("\n\nHuman:", f"\n\nHuman: ({i})", 1) for side in ("chosen", "rejected")
            }
            stream.write(json.dumps(numbered) + "\n")
    staging.rename(path)


def usable(row: dict[str, str]) -> bool:
    """Whether the sides differ in their last turn alone, and have one."""
    (prompt, _, chosen), (other, _, rejected) = (
        row[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected")
    )
    return prompt == other and chosen != rejected and bool(chosen.strip()) and bool(rejected.strip())


def column(path: Path, *model: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--model", "-", "--data", "-", "--stages", str(path), *model]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def timed(path: str, model: str | None = None) -> dict[str, float]:
    import resource

    from kilter.measure.check import gather
    from kilter.measure.config import CheckConfig

    begin = time.perf_counter()
    starts: dict[str, float] = {}

    def stage(name: str, steps: int) -> Callable[[int], None]:
        starts[name] = time.perf_counter()
        return lambda done: None

    facts = gather(CheckConfig(data=(path,), model=model), stage)
    ends = [*list(starts.values())[1:], time.perf_counter()]
    seconds = {f"{name}, s": end - start for (name, start), end in zip(starts.items(), ends, strict=True)}
    assert facts.duplicates.rows == 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return seconds | {"**all, s**": time.perf_counter() - begin, "peak memory, MiB": peak / 1024}


if __name__ == "__main__":
    main()
