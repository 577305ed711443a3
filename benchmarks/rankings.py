"""K ranked answers to a prompt: a step of Plackett-Luce on a token tree against the same step by separate sequences.

Prints a Markdown table. Both ways are kilter's own step, with a reference; in the second each answer carries its prompt
by itself, as answers do that are scored one by one or in a padded batch. "error" is that of the gradient against the
same by separate sequences in float64, relative to its norm. Conditions: the 8m shape (random weights, the reference
others), float32, four rankings a batch, prompts of 256 tokens, answers of 64, all in one micro-batch; a process for
each row and way, median of the steps after the first, peak of resident memory less what it was before the first step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shapes import SHAPES, peak_rss_bytes

WAYS = ("separate", "tree", "exact")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rankings", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--way", choices=WAYS, help="what one of the processes does")
    parser.add_argument("--out", type=Path, help="where it leaves its gradient")
    args = parser.parse_args()
    if args.way is not None:
        print(json.dumps(steps(args)))
        return
    print(
        "| K | tokens separately | nodes | separate, s | tree, s | | separate, GB | tree, GB | | error | tree, error |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|")
    for answers in args.answers:
        print(row(answers, args), flush=True)


def row(answers: int, args: argparse.Namespace) -> str:
    import torch

    found, gradients = {}, {}
    with tempfile.TemporaryDirectory() as directory:
        for way in WAYS:
            out = Path(directory) / way
            flags = {"answers": answers, "way": way, "out": out}
            flags |= {name: getattr(args, name) for name in ("rankings", "prompt", "answer", "steps")}
            command = [sys.executable, __file__, *(word for n, v in flags.items() for word in (f"--{n}", str(v)))]
            finished = subprocess.run(command, capture_output=True, text=True, check=False)
            if finished.returncode:
                sys.exit(f"{way} failed:\n{finished.stderr[-3000:]}")
            found[way] = json.loads(finished.stdout.splitlines()[-1])
            gradients[way] = torch.load(out)
    separate, tree = found["separate"], found["tree"]
    exact = gradients["exact"]
    errors = [float((gradients[way].double() - exact).norm() / exact.norm()) for way in ("separate", "tree")]
    return (
        f"| {answers} | {separate['nodes']:,} | {tree['nodes']:,} "
        f"| {separate['seconds']:.2f} | {tree['seconds']:.2f} | {tree['seconds'] / separate['seconds']:.2f}x "
        f"| {separate['peak'] / 1e9:.2f} | {tree['peak'] / 1e9:.2f} | {tree['peak'] / separate['peak']:.2f}x "
        f"| {errors[0]:.1e} | {errors[1]:.1e} |"
    )


def steps(args: argparse.Namespace) -> dict[str, Any]:
    """Time, memory and nodes of steps one way; the gradient of the last is saved."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kilter.data.records import Origin
    from kilter.model.scorer import Scorer
    from kilter.objectives import parse
    from kilter.tokens.encoding import EncodedRanking
    from kilter.tokens.sequence import TokenSequence
    from kilter.train.batches import ranking_batch
    from kilter.train.machine import settle
    from kilter.train.step import accumulate_gradient

    settle()
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES["8m"])
    models = [LlamaForCausalLM(config).eval() for _ in range(2)]
    if args.way == "exact":
        models = [model.double() for model in models]
    policy, reference = Scorer(models[0]), Scorer(models[1]).frozen()
    draw = np.random.default_rng(0)
    (answers,) = args.answers

    def ranking(place: int) -> EncodedRanking:
        prompt = draw.integers(2, config.vocab_size, args.prompt)
        sequences = []
        for rank in range(answers):
            ids = np.concatenate([prompt, draw.integers(2, config.vocab_size, args.answer)]).astype(np.int32)
            # Sequences of different variants share no nodes.
            sequences.append(TokenSequence(ids, args.prompt, variant=0 if args.way == "tree" else rank))
        return EncodedRanking(tuple(sequences), tuple(map(float, range(answers))), Origin("drawn", place))

    rankings = [ranking(place) for place in range(args.rankings)]
    tokens = args.rankings * answers * (args.prompt + args.answer)
    batch = ranking_batch(rankings, node_budget=tokens)
    assert len(batch.trained) == 1
    mixture = parse("plackett_luce")
    before, seconds = peak_rss_bytes(), []
    for _ in range(1 if args.way == "exact" else args.steps):
        policy.zero_grad()
        begin = time.perf_counter()
        accumulate_gradient(policy, reference, batch, mixture)
        seconds.append(time.perf_counter() - begin)
    torch.save(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]), args.out)
    return {
        "nodes": batch.nodes,
        "seconds": statistics.median(seconds[1:] or seconds),
        "peak": peak_rss_bytes() - before,
    }


if __name__ == "__main__":
    main()
