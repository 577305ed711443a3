"""What each of two workers does for test_workers.py: gradients, then whole runs.

torchrun --nproc-per-node 2 tests/train/two_workers.py DIRECTORY
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from kilter.model.loading import load_model
from kilter.model.scorer import Scorer
from kilter.model.workers import ALONE, Workers, leave, load_state, open_workers, own_part
from kilter.objectives import OBJECTIVES, parse
from kilter.tokens.encoding import EncodedDemonstration
from kilter.train.align import align
from kilter.train.batches import Batch, demonstration_batch, labelled_batch, pair_batch, ranking_batch
from kilter.train.config import AlignConfig, SftConfig
from kilter.train.optimizer import Updater
from kilter.train.sft import sft
from kilter.train.step import accumulate_gradient
from model.plain import in_float64
from train.runs import SHAPE, quiet
from train.test_step import LABELLED_BATCHES, RANKINGS, ROWS

OBJECTIVES_TRIED = ("dpo", "kto", "ipo_mean", "sft", "plackett_luce")
ON_LABELLED = "kto on labelled"
# How many rows, and the node budget: one micro-batch each; several, not as many on each; units split; none for one.
CUTS = {"whole": (8, 10_000), "several": (8, 25), "split": (8, 14), "one row": (1, 10_000)}
RUNS: dict[str, dict[str, Any]] = {
    "replicated": {"objective": "dpo"},
    "sharded": {"objective": "dpo", "shard": True},
    "kto sharded": {"objective": "kto", "shard": True, "node_budget": 64},
    "recomputed": {"objective": "ipo_mean", "shard": True, "activation_checkpointing": True, "keep_best": True},
    "moving": {"objective": "dpo", "reference_mix": 0.3, "reference_every": 2},
    "adapter": {"objective": "dpo", "lora_rank": 4, "node_budget": 64},
    "sampled": {"objective": "dpo", "shard": True, "sample_eval": 4, "sample_tokens": 8},
    "budget": {"objective": "dpo", "shard": True, "kl_budget": 0.05, "kl_every": 2, "kl_samples": 8, "kl_tokens": 8},
    "noise": {"objective": "dpo", "gradient_noise": 0.01},
    "bfloat16": {"objective": "dpo", "weights": "bfloat16", "precision": "bfloat16", "shard": True},
}
FRESH: dict[str, Any] = {"from_scratch": SHAPE, "max_steps": 6, "holdout": 8, "batch_size": 8, "device": "cpu"}


def batch_of(name: str, rows: int, node_budget: int, workers: Workers = ALONE) -> Batch:
    if name == ON_LABELLED:
        answers = LABELLED_BATCHES["in turn"][: 2 * rows - 1]
        return labelled_batch(answers, node_budget=node_budget, mismatched=True, workers=workers)
    chosen = ROWS[:rows]
    if OBJECTIVES[name].takes == "rankings":
        return ranking_batch(RANKINGS[:rows], node_budget=node_budget, workers=workers)
    if OBJECTIVES[name].takes == "answers":
        examples = [EncodedDemonstration(pair.chosen, pair.origin) for pair in chosen]
        return demonstration_batch(examples, node_budget=node_budget, workers=workers)
    mismatched = "mismatched" in OBJECTIVES[name].needs
    return pair_batch(chosen, node_budget=node_budget, mismatched=mismatched, workers=workers)


def cases() -> list[tuple[str, str]]:
    pairs = [(name, cut) for name in OBJECTIVES_TRIED for cut in CUTS if name != "kto" or cut != "one row"]
    return pairs + [(ON_LABELLED, cut) for cut in CUTS]


def scorers(directory: Path) -> list[Scorer]:
    policy, reference = (Scorer(in_float64(load_model(str(directory / name)))) for name in ("policy", "reference"))
    return [policy, reference.frozen()]


def gradient_of(policy: Scorer, reference: Scorer, name: str, batch: Batch) -> tuple[dict[str, torch.Tensor], float]:
    """The whole gradient by name of parameter, on the first worker, and the loss."""
    mixture = parse(name.split()[0])
    scores = accumulate_gradient(policy, reference if mixture.needs_reference else None, batch, mixture)
    named = [(name, p.grad) for name, p in policy.named_parameters()]
    gradient = {name: batch.workers.whole(grad) for name, grad in named if grad is not None}
    policy.zero_grad()
    return gradient, scores.loss


def gradients(directory: Path) -> None:
    facts = {}
    for shard in (False, True):
        with open_workers(device="cpu", shard=shard, batch_size=2) as workers:
            policy, reference = scorers(directory)
            workers.spread(policy, reference)
            for name, cut in cases():
                batch = batch_of(name, *CUTS[cut], workers)
                gradient, loss = gradient_of(policy, reference, name, batch)
                own = sum(bool(len(micro.place_C)) for micro in batch.trained)
                filled = [int(n) for n in workers.gather(torch.tensor(own))]
                facts[f"{name} {cut} {shard}"] = {"loss": loss, "filled": filled, "all": len(batch.trained)}
                if workers.is_main:
                    save_file(gradient, directory / f"{name} {cut} {shard}.safetensors")
            updater = Updater(policy, learning_rate=1e-3, weight_decay=0.0, max_grad_norm=1.0, workers=workers)
            accumulate_gradient(policy, reference, batch_of("dpo", *CUTS["several"], workers), parse("dpo"))
            kept = sum(own_part(p).nbytes + own_part(p.grad).nbytes for p in policy.parameters())
            norm = updater.step()
            kept += sum(t.nbytes for s in updater.optimizer.state.values() for t in s.values() if t.ndim)
            state = workers.whole_state(policy.model) or policy.model.state_dict()
            if workers.is_main:
                save_file({n: t.clone() for n, t in state.items()}, directory / f"updated {shard}.safetensors")
            facts[f"updated {shard}"] = {"norm": norm, "bytes": workers.gather(torch.tensor(kept))[-1].item()}
            load_state(policy.model, load_model(str(directory / "policy")).state_dict())
            gradient, loss = gradient_of(policy, reference, "dpo", batch_of("dpo", *CUTS["several"], workers))
            facts[f"restored {shard}"] = {"loss": loss}
            if workers.is_main:
                (directory / "facts.json").write_text(json.dumps(facts))


def runs(directory: Path) -> None:
    given = json.loads((directory / "settings.json").read_text())
    for name, settings in RUNS.items():
        align(AlignConfig(**given, out=directory / name, **settings), quiet())
    sft(SftConfig(**FRESH, data=given["data"], out=directory / "fresh", shard=True), quiet())
    dropping = {"objective": "dpo", "lora_rank": 4, "lora_dropout": 0.2}
    align(AlignConfig(**given, out=directory / "dropout", **dropping), quiet())
    with open_workers(device="cpu", batch_size=2) as workers:
        workers.on_main(shutil.copytree, directory / "dropout", directory / "dropout again")
        workers.on_main(shutil.rmtree, directory / "dropout again" / "model")
    align(AlignConfig.model_validate({"resume": directory / "dropout again"}), quiet())
    # Begun by one worker.
    align(AlignConfig.model_validate({"resume": directory / "one to two", "shard": True}), quiet())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    dist.init_process_group("gloo")  # several runs in one process share it
    gradients(Path(sys.argv[1]))
    runs(Path(sys.argv[1]))
    leave()
