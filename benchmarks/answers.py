"""K answers to one prompt: a token tree against separate sequences, forward and backward.

Prints a Markdown table. "share of tokens" is what the tree computes of what separate sequences do; "share of time"
should come near it. Conditions: the 8m shape (random weights), float32, prompt of 256 tokens, answers of 64, the
median of seven runs that alternate between the two.
"""

from __future__ import annotations

import argparse
import statistics
import time

from kilter.train.machine import settle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompt", type=int, default=256)
    parser.add_argument("--answer", type=int, default=64)
    parser.add_argument("--runs", type=int, default=7)
    args = parser.parse_args()
    settle()
    print("| K | tokens separately | nodes | share of tokens | separate, s | tree, s | share of time |")
    print("|--:|--:|--:|--:|--:|--:|--:|")
    for answers in (2, 8, 64):
        print(row(answers, args.prompt, args.answer, args.runs), flush=True)


def row(answers: int, prompt: int, answer: int, runs: int) -> str:
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from kilter.model.prepared import PreparedTree
    from kilter.model.scorer import Scorer
    from kilter.tokens.sequence import TokenSequence
    from kilter.tokens.tree import TokenTree
    from shapes import SHAPES

    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES["8m"])
    model = LlamaForCausalLM(config).eval()
    rng = np.random.default_rng(0)
    common = rng.integers(2, config.vocab_size, prompt)
    sequences = [
        TokenSequence(np.concatenate([common, rng.integers(2, config.vocab_size, answer)]).astype(np.int32), prompt)
        for _ in range(answers)
    ]
    tree = PreparedTree(TokenTree.build(sequences))
    alone = [PreparedTree(TokenTree.build([sequence])) for sequence in sequences]
    scorer = Scorer(model)

    def seconds(trees: list[PreparedTree]) -> float:
        begin = time.perf_counter()
        for one in trees:
            (log_prob,) = scorer(one)
            log_prob.sum().backward()
        taken = time.perf_counter() - begin
        scorer.zero_grad(set_to_none=True)
        return taken

    times = [(seconds(alone), seconds([tree])) for _ in range(runs + 1)][1:]
    separate, together = (statistics.median(column) for column in zip(*times, strict=True))
    tokens = sum(len(one) for one in alone)
    return (
        f"| {answers} | {tokens:,} | {len(tree):,} | {len(tree) / tokens:.2f} | "
        f"{separate:.3f} | {together:.3f} | {together / separate:.2f} |"
    )


if __name__ == "__main__":
    main()
