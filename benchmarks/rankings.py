"""K ranked answers to a prompt: a step of Plackett-Luce on a token tree against the same step by separate sequences.

Prints a Markdown table. Both ways are kilter's own step, with a reference; in the second each answer carries its prompt
by itself, as answers do that are scored one by one or in a padded batch. "error" is that of the gradient against the
same by separate sequences in float64, relative to its norm. Conditions: the 8m shape (random weights, the reference
others), float32, four rankings a batch, prompts of 256 tokens, answers of 64, all in one micro-batch. Times are medians
of steps that alternate between the two, after the first; peaks are of resident memory in a process for each way, less
what it was before the step.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from shapes import SHAPES, peak_rss_bytes

HEADINGS = "K | tokens separately | nodes | separate, s | tree, s | | separate, GB | tree, GB | | error | tree, error"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--answers", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rankings", type=int, default=4)
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--part", choices=PARTS, help="what one of the processes does")
    parser.add_argument("--out", type=Path, help="where it leaves its gradient")
    args = parser.parse_args()
    if args.part is not None:
        print(json.dumps(PARTS[args.part](args)))
        return
    print(f"| {HEADINGS} |")
    print("|" + "--:|" * (HEADINGS.count("|") + 1))
    for answers in args.answers:
        print(row(answers, args), flush=True)


def row(answers: int, args: argparse.Namespace) -> str:
    import torch

    with tempfile.TemporaryDirectory() as directory:
        found = {part: measured(part, answers, args, Path(directory) / part) for part in PARTS}
        gradients = {part: torch.load(Path(directory) / part) for part in PARTS if part != "times"}
    exact = gradients["exact"]
    errors = [float((gradients[way].double() - exact).norm() / exact.norm()) for way in ("separate", "tree")]
    times, peaks, nodes = (
        [found[part][fact] for part, fact in facts]
        for facts in (
            [("times", "separate"), ("times", "tree")],
            [("separate", "peak"), ("tree", "peak")],
            [("separate", "nodes"), ("tree", "nodes")],
        )
    )
    return (
        f"| {answers} | {nodes[0]:,} | {nodes[1]:,} "
        f"| {times[0]:.2f} | {times[1]:.2f} | {times[1] / times[0]:.2f}x "
        f"| {peaks[0] / 1e9:.2f} | {peaks[1] / 1e9:.2f} | {peaks[1] / peaks[0]:.2f}x "
        f"| {errors[0]:.1e} | {errors[1]:.1e} |"
    )


def measured(part: str, answers: int, args: argparse.Namespace, out: Path) -> dict[str, Any]:
    """What a process by itself finds out."""
    flags = {"part": part, "answers": answers, "out": out}
    flags |= {name: getattr(args, name) for name in ("rankings", "prompt", "answer", "runs")}
    command = [sys.executable, __file__, *(word for name, value in flags.items() for word in (f"--{name}", str(value)))]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{part} failed:\n{finished.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return result


def peak_of(args: argparse.Namespace) -> dict[str, Any]:
    """Memory and nodes of a step one way; its gradient is saved."""
    import torch

    policy, step_on = begun(exact=args.part == "exact")
    batch = batch_of(args, shared=args.part == "tree")
    before = peak_rss_bytes()
    step_on(batch)
    torch.save(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]), args.out)
    return {"nodes": batch.nodes, "peak": peak_rss_bytes() - before}


def times_of(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step both ways, in turn."""
    policy, step_on = begun()
    batches = {"separate": batch_of(args, shared=False), "tree": batch_of(args, shared=True)}
    seconds: dict[str, list[float]] = {way: [] for way in batches}
    for _ in range(args.runs + 1):
        for way, batch in batches.items():
            policy.zero_grad()
            begin = time.perf_counter()
            step_on(batch)
            seconds[way].append(time.perf_counter() - begin)
    return {way: statistics.median(taken[1:]) for way, taken in seconds.items()}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "separate": peak_of,
    "tree": peak_of,
    "exact": peak_of,
    "times": times_of,
}


def begun(*, exact: bool = False) -> tuple[Any, Callable[[Any], Any]]:
    """A policy, and what forms its gradient of a batch."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kilter.model.scorer import Scorer
    from kilter.objectives import parse
    from kilter.train.machine import settle
    from kilter.train.step import accumulate_gradient

    settle()
    torch.manual_seed(0)
    models = [LlamaForCausalLM(LlamaConfig(**SHAPES["8m"])).eval() for _ in range(2)]
    policy, reference = (Scorer(model.double() if exact else model) for model in models)
    reference.frozen()
    mixture = parse("plackett_luce")
    return policy, lambda batch: accumulate_gradient(policy, reference, batch, mixture)


def batch_of(args: argparse.Namespace, *, shared: bool) -> Any:
    import numpy as np

    from kilter.data.records import Origin
    from kilter.tokens.encoding import EncodedRanking
    from kilter.tokens.sequence import TokenSequence
    from kilter.train.batches import ranking_batch

    draw, vocabulary = np.random.default_rng(0), SHAPES["8m"]["vocab_size"]
    (answers,) = args.answers

    def ranking(place: int) -> EncodedRanking:
        prompt = draw.integers(2, vocabulary, args.prompt)
        sequences = []
        for rank in range(answers):
            ids = np.concatenate([prompt, draw.integers(2, vocabulary, args.answer)]).astype(np.int32)
            # Sequences of different variants share no nodes.
            sequences.append(TokenSequence(ids, args.prompt, variant=0 if shared else rank))
        return EncodedRanking(tuple(sequences), tuple(map(float, range(answers))), Origin("drawn", place))

    rankings = [ranking(place) for place in range(args.rankings)]
    batch = ranking_batch(rankings, node_budget=args.rankings * answers * (args.prompt + args.answer))
    assert len(batch.trained) == 1
    return batch


if __name__ == "__main__":
    main()
