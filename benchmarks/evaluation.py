"""Exact token KL in evaluation: what it costs over log-probs alone, with policy and reference in memory.

Prints a Markdown table: seconds and peak extra memory for log-probs of both models, and for those with full-vocabulary
KL both ways, for two references: an unlike one, and one so near (the policy with noise on its weights) that every row
takes the form that does not cancel. Memory is measured for two tree sizes: it must not grow with nodes x vocabulary.
Conditions: the shape named (random weights), float32, trees of HH-like pairs (prompt 128, answers 64), median of five
alternating runs.
"""

from __future__ import annotations

import argparse
import statistics
import time

from kilter.train.machine import settle

# Of the reference's weights, as a share of their own spread, where it is to be near.
NOISE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="8m")
    parser.add_argument("--pairs", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    settle()
    columns = "shape", "pairs", "nodes", "mean KL", "log-probs, s", "with KL, s", "cost", "chunk, MiB", "whole, MiB"
    print(f"| {' | '.join(columns)} |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|--:|")
    for pairs in args.pairs:
        for near in (False, True):
            print(row(args.shape, pairs, near, args.runs), flush=True)


def row(shape: str, pairs: int, near: bool, runs: int) -> str:
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kilter.model.head import chunk_rows
    from kilter.model.prepared import PreparedTree
    from kilter.model.row_functions import KL_POLICY_REFERENCE, KL_REFERENCE_POLICY, LOG_PROB, REFERENCE_LOG_PROB
    from kilter.model.scorer import Scorer
    from kilter.tokens.sequence import TokenSequence
    from kilter.tokens.tree import TokenTree
    from shapes import SHAPES

    config = LlamaConfig(**SHAPES[shape])
    torch.manual_seed(0)
    models = [LlamaForCausalLM(config).eval() for _ in range(2)]
    if near:
        own, other = (model.state_dict() for model in models)
        for name, weight in own.items():
            other[name].copy_(weight + NOISE * weight.std() * torch.randn_like(weight))
    policy, reference = (Scorer(model) for model in models)
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(pairs):
        prompt = rng.integers(2, config.vocab_size, 128)
        for _ in range(2):
            answer = rng.integers(2, config.vocab_size, 64)
            sequences.append(TokenSequence(np.concatenate([prompt, answer]).astype(np.int32), 128))
    tree = PreparedTree(TokenTree.build(sequences))

    @torch.no_grad()
    def plain() -> None:
        policy(tree)
        reference(tree)

    @torch.no_grad()
    def exact() -> torch.Tensor:
        functions = (LOG_PROB, REFERENCE_LOG_PROB, KL_POLICY_REFERENCE, KL_REFERENCE_POLICY)
        return policy(tree, functions, reference=reference)[2]

    def seconds(work: object) -> float:
        begin = time.perf_counter()
        work()  # type: ignore[operator]
        return time.perf_counter() - begin

    mean_kl = float(exact().mean())
    times = [(seconds(plain), seconds(exact)) for _ in range(runs + 1)][1:]
    without, with_kl = (statistics.median(column) for column in zip(*times, strict=True))
    chunk = chunk_rows(config.vocab_size) * config.vocab_size * 4 / 2**20
    whole = len(tree.row_N) * config.vocab_size * 4 / 2**20
    return (
        f"| {shape} | {pairs} | {len(tree):,} | {mean_kl:.1e} | {without:.3f} | {with_kl:.3f} | "
        f"{with_kl / without - 1:+.0%} | {chunk:.0f} | {whole:.0f} |"
    )


if __name__ == "__main__":
    main()
