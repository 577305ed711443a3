"""Building trees: seconds for 10,000 pairs after tokenisation, in global batches of 8.

Conditions: Anthropic HH rows tokenised by the given model's tokenizer, repeated (with distinct first tokens) to 10,000.
"""

from __future__ import annotations

import argparse
import time


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory with a tokenizer")
    parser.add_argument("--data", required=True, help="HH transcripts, JSONL or .gz")
    parser.add_argument("--pairs", type=int, default=10_000)
    args = parser.parse_args()

    from kilter.data.reading import read_pairs
    from kilter.model.loading import load_tokenizer
    from kilter.tokens.encoding import Encoder, Limits
    from kilter.tokens.packing import pack
    from kilter.tokens.tree import TokenTree

    encoder = Encoder(load_tokenizer(args.model), limits=Limits(max_length=1024, on_overflow="drop"))
    rows, report = encoder.encode_pairs(read_pairs(args.data, skip_bad=True).rows)
    print(report.describe())
    units = [(rows[i % len(rows)].chosen, rows[i % len(rows)].rejected) for i in range(args.pairs)]
    units = [tuple(s._replace(variant=i // len(rows)) for s in unit) for i, unit in enumerate(units)]

    begin = time.perf_counter()
    tree = TokenTree.build([sequence for unit in units for sequence in unit])
    print(f"one tree: {time.perf_counter() - begin:.2f} s, {len(tree):,} nodes")
    begin = time.perf_counter()
    nodes = sum(
        len(micro.tree)
        for i in range(0, len(units), 8)
        for micro in pack(units[i : i + 8], node_budget=4096).micro_batches
    )
    print(f"packed by 8: {time.perf_counter() - begin:.2f} s, {nodes:,} nodes")
    tokens = sum(len(sequence.ids) for unit in units for sequence in unit)
    print(f"separate sequences would have {tokens:,} tokens")


if __name__ == "__main__":
    main()
