"""One worker and two: time and memory of DPO steps, with weights replicated and sharded (FSDP2).

Prints a Markdown table. Conditions: the 8m shape with fresh weights in float32 and a frozen copy as its reference,
batches of pairs with prompts of 60 to 200 and answers of 20 to 120 random tokens, on CPUs by gloo; median of the steps
after the second. "kept" is what a worker holds of weights, gradients and moments; "peak" its largest resident memory
above what it was after imports. Two workers of one thread have as many threads as one worker of two.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kilter.train.machine import settle
from shapes import SHAPES, peak_rss_bytes

# Workers, threads of each, sharded.
ROWS = {
    "1 worker, 1 thread": (1, 1, False),
    "1 worker, 2 threads": (1, 2, False),
    "2 workers, replicated": (2, 1, False),
    "2 workers, sharded": (2, 1, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="8m", choices=list(SHAPES))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--node-budget", type=int, default=1024)
    parser.add_argument("--shard", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.out:
        settle()
        work(args)
        return
    print("| | s/step | kept, MB | reference, MB | peak, MB |\n|---|--:|--:|--:|--:|")
    for name, (workers, threads, shard) in ROWS.items():
        seconds, kept, reference, peak = measured(args, workers, threads, shard)
        print(f"| {name} | {seconds:.3f} | {kept / 1e6:.1f} | {reference / 1e6:.1f} | {peak / 1e6:.0f} |", flush=True)


def measured(args: argparse.Namespace, workers: int, threads: int, shard: bool) -> list[float]:
    """Seconds a step, and the largest of the workers' bytes."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)] if workers > 1 else []
    given = ["--shape", args.shape, "--steps", args.steps, "--batch", args.batch, "--node-budget", args.node_budget]
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, *launch, __file__, *map(str, given), "--out", directory, *["--shard"] * shard]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if finished.returncode:
            sys.exit(finished.stderr[-3000:])
        found: list[dict[str, Any]] = [json.loads(path.read_text()) for path in Path(directory).iterdir()]
    return [max(one[key] for one in found) for key in ("seconds", "kept", "reference", "peak")]


def work(args: argparse.Namespace) -> None:
    import numpy as np
    import psutil
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kilter.data.records import Origin
    from kilter.model.loading import copy_of
    from kilter.model.scorer import Scorer
    from kilter.model.workers import open_workers, own_part
    from kilter.objectives import parse
    from kilter.tokens.encoding import EncodedPair
    from kilter.tokens.sequence import TokenSequence
    from kilter.train.batches import made_ahead, pair_batch
    from kilter.train.optimizer import Updater
    from kilter.train.step import accumulate_gradient

    config, draw = LlamaConfig(**SHAPES[args.shape]), np.random.default_rng(0)

    def pair(number: int) -> EncodedPair:
        prompt = draw.integers(0, config.vocab_size, draw.integers(60, 200))
        answers = [draw.integers(0, config.vocab_size, draw.integers(20, 120)) for _ in range(2)]
        ids = [np.concatenate([prompt, answer]).astype(np.int32) for answer in answers]
        return EncodedPair(*(TokenSequence(one, len(prompt)) for one in ids), Origin("random", number))

    cuts = [[pair(i) for i in range(args.batch)] for _ in range(args.steps)]
    with open_workers(device="cpu", shard=args.shard, batch_size=args.batch) as workers:
        before = psutil.Process().memory_info().rss
        torch.manual_seed(0)
        policy = Scorer(LlamaForCausalLM(config).eval())
        reference = copy_of(policy).frozen()
        workers.spread(policy, reference)
        updater = Updater(policy, learning_rate=1e-5, weight_decay=0.0, max_grad_norm=1.0, workers=workers)
        mixture = parse("dpo")
        seconds = []
        batches = made_ahead(iter(cuts), lambda cut: pair_batch(cut, node_budget=args.node_budget, workers=workers))
        for _, batch in batches:
            workers.meet()
            begin = time.perf_counter()
            accumulate_gradient(policy, reference, batch, mixture)
            updater.step()
            seconds.append(time.perf_counter() - begin)
        weights = sum(own_part(p).nbytes for p in policy.parameters())
        moments = sum(t.nbytes for state in updater.optimizer.state.values() for t in state.values())
        result = {
            "seconds": statistics.median(seconds[2:]),
            "kept": 2 * weights + moments,  # gradients lie as the weights do
            "reference": sum(own_part(p).nbytes for p in reference.parameters()),
            "peak": peak_rss_bytes() - before,
        }
        (args.out / f"{workers.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
