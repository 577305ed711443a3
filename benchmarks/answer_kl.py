"""Estimates of answer KL against the truth, in the world of `kilter demo`: its model before and after alignment.

    kilter demo --out runs/demo
    python benchmarks/answer_kl.py --demo runs/demo

Every context of the world's sentences is enumerated under both models. So the KL of answers as far as they keep to the
grammar (up to the first token that leaves it) is exact, both ways, and so is the variance of each estimate from one
answer, in the mean over prompts as often as they are asked:

    exact token KL   summed along the answer (Rao-Blackwellised)
    k1               the log-ratio
    k3               exp(-l) - 1 + l of each token's log-ratio l, summed

Beside that stands what so many answers to each prompt, drawn by kilter's sampler and scored by its Scorer, say: the
estimate, its standard error as estimated, and how many of the exact standard errors it is from the truth.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np

from kilter.train.machine import settle


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="directory of a run of `kilter demo`")
    parser.add_argument("--samples", type=int, default=250, help="answers to each of the 8 prompts")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    settle()
    from kilter.data.records import Demonstration, Origin
    from kilter.demo.answer_kl import Texts
    from kilter.demo.world import restaurant
    from kilter.model.loading import load_scorer, load_tokenizer
    from kilter.model.prepared import PreparedTree
    from kilter.tokens.encoding import Encoder
    from kilter.tokens.tree import TokenTree

    world = restaurant()
    before, after = (args.demo / part / "model" for part in ("sft", "align"))
    tokenizer = load_tokenizer(str(before))
    rows = [
        Demonstration(prompt, sentence, Origin("every sentence", 1))
        for i, prompt in enumerate(world.prompts)
        for sentence in world.sentences(i)
    ]
    sequences = [row.sequence for row in Encoder(tokenizer).encode_demonstrations(rows).rows]
    texts = Texts.of(PreparedTree(TokenTree.build(sequences)))
    sizes = np.cumsum([0, *(len(world.sentences(i)) for i in range(len(world.prompts)))])[:-1]
    prompts = [sequences[start].ids[: sequences[start].first] for start in sizes]
    models = {"policy": load_scorer(str(after)), "reference": load_scorer(str(before))}
    contexts = len(texts.tree.row_N)
    print(f"{len(sequences):,} sentences, {contexts:,} contexts; {args.samples} answers to each prompt\n")
    for of, to in (("policy", "reference"), ("reference", "policy")):
        begin = time.perf_counter()
        print(f"KL({of}, {to}) of answers, drawn from the {of}")
        print(table(models[of], models[to], texts, prompts, tokenizer, world.prompt_probability, args))
        print(f"({time.perf_counter() - begin:.0f} s)\n")


def table(p, q, texts, prompts, tokenizer, share, args) -> str:  # type: ignore[no-untyped-def]
    """One direction, as a table in Markdown."""
    from kilter.demo.answer_kl import exact_answer_kl, sampled_answer_kl
    from kilter.measure.samples import draw_samples
    from kilter.model.sampler import SamplingSettings

    kl_P, spread = exact_answer_kl(p, q, texts)
    asked = [prompt for prompt in prompts for _ in range(args.samples)]
    drawn = draw_samples(p, asked, SamplingSettings(24), tokenizer=tokenizer, seed=args.seed)
    by_prompt = [drawn[i : i + args.samples] for i in range(0, len(drawn), args.samples)]
    found = sampled_answer_kl(p, q, texts, by_prompt)
    lines = [
        f"exact: {share @ kl_P:.4f} nats",
        "",
        "| by | variance of one answer's, exact | times that of exact token KL | estimate | standard errors off |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    names = {"exact token KL": ("kl", "kl"), "k1": ("k1", "log_ratio"), "k3": ("k3", "k3")}
    for name, (exactly, sampled) in names.items():
        variance_P = getattr(spread, exactly)
        estimates = [getattr(one, sampled) for one in found]
        value = share @ [one.value for one in estimates]
        error = math.sqrt(share**2 @ [one.standard_error**2 for one in estimates])
        off = (value - share @ kl_P) / math.sqrt(share**2 @ variance_P / args.samples)
        ratio = (share @ variance_P) / (share @ spread.kl)
        lines.append(f"| {name} | {share @ variance_P:.3f} | {ratio:.1f} | {value:.4f} ± {error:.4f} | {off:+.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
