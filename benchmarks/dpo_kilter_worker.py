"""DPO steps of kilter on given token ids, in a process of its own: for dpo_vs_trl.py and ways_to_train.py."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path

from kilter.train.machine import settle
from shapes import peak_rss_bytes, token_ids_sha256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--node-budget", type=int, default=2048)
    parser.add_argument("--lora-rank", type=int)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--optimizer", choices=("adamw", "adafactor"), default="adamw")
    parser.add_argument("--weights", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    settle()
    args = json.loads(given.pairs.read_text())
    result = run(args, given)
    given.out.write_text(json.dumps(result))


def run(rows: list[dict[str, list[int]]], given: argparse.Namespace) -> dict[str, object]:
    import numpy as np
    import torch

    from kilter.data.records import Origin
    from kilter.model.adapter import LoraSettings, reference_of, train_adapter
    from kilter.model.loading import load_scorer
    from kilter.objectives import parse
    from kilter.tokens.encoding import EncodedPair
    from kilter.tokens.sequence import TokenSequence
    from kilter.train.batches import made_ahead, pair_batch
    from kilter.train.optimizer import Updater
    from kilter.train.step import accumulate_gradient

    def sequence(prompt: list[int], answer: list[int]) -> TokenSequence:
        return TokenSequence(np.array(prompt + answer, np.int32), len(prompt))

    pairs = [
        EncodedPair(
            sequence(row["prompt_ids"], row["chosen_ids"]),
            sequence(row["prompt_ids"], row["rejected_ids"]),
            Origin("hh", i + 1),
        )
        for i, row in enumerate(rows)
    ]
    load = partial(
        load_scorer, given.model, precision=given.dtype, weights=given.weights, device=given.device, prove=False
    )
    policy = load()
    if given.lora_rank:
        train_adapter(policy.model, LoraSettings(rank=given.lora_rank))
    reference = reference_of(policy) if given.lora_rank else load().frozen()
    if given.activation_checkpointing:
        policy.recompute_activations()
    updater = Updater(policy, learning_rate=5e-5, weight_decay=0.0, max_grad_norm=1.0, optimizer=given.optimizer)
    mixture = parse("dpo(beta=0.1)")
    cuts = [pairs[i : i + given.batch] for i in range(0, given.batch * given.steps, given.batch)]
    batches = made_ahead(
        iter(cuts),
        lambda cut: pair_batch(
            cut, node_budget=given.node_budget, device=policy.device, node_multiple=policy.node_multiple
        ),
    )
    steps = []
    for _, batch in batches:
        begin = time.perf_counter()
        scores = accumulate_gradient(policy, reference, batch, mixture)
        norm = updater.step()
        if policy.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begin
        rows_given = sum(len(micro.tree.row_N) for micro in batch.trained)
        steps.append(
            {"loss": scores.loss, "grad_norm": norm, "seconds": seconds, "nodes": batch.nodes, "rows": rows_given}
        )
    return {
        "steps": steps,
        "peak_rss_bytes": peak_rss_bytes(),
        "peak_cuda_bytes": torch.cuda.max_memory_allocated() if policy.device.type == "cuda" else None,
        "token_ids_sha256": token_ids_sha256(rows[: given.batch * given.steps]),
    }


if __name__ == "__main__":
    main()
