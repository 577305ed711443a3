"""One process of TRL's DPOTrainer over given token ids: loss, gradient norm and seconds of each step, peak memory.

    python benchmarks/dpo_trl_worker.py --model DIR --pairs pairs.json --dtype float32 --steps 10 --out result.json

Sigmoid DPO with beta 0.1 against a frozen fp32 copy of the start, scored anew each step. Pairs in file order; AdamW at
a constant 5e-5 without weight decay; gradients clipped at norm 1, and the norm reported is the one before clipping.
bfloat16 is autocast over fp32 weights. Threads and allocator (OMP_NUM_THREADS, MALLOC_*) are the caller's to set,
alike for every system compared.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import DPOConfig, DPOTrainer

from shapes import Pair, peak_rss_bytes, token_ids_sha256


class TokenIdTrainer(DPOTrainer):
    """DPOTrainer fed token ids as they are, keeping what its log rounds or averages away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.batched: list[dict[str, torch.Tensor]] = []
        self.losses: list[torch.Tensor] = []
        self.gradient_norms: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def training_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        loss = super().training_step(model, inputs, *args, **kwargs)
        self.batched.append(inputs)
        self.losses.append(loss)
        return loss

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        norm = super()._clip_grad_norm(model)
        self.gradient_norms.append(norm)
        return norm


class StepClock(TrainerCallback):
    """Seconds from the first forward of a step to the end of its optimiser step.

    Covers both models' forwards, TRL's metrics, backward, clipping, AdamW, the schedule and zero_grad; collation
    (2 ms for 8 pairs) comes before. The device is synchronised at both ends.
    """

    def __init__(self, device: str) -> None:
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None
        self.seconds: list[float] = []

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.wait()
        self.began = time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.wait()
        self.seconds.append(time.perf_counter() - self.began)


def batched_pairs(inputs: dict[str, torch.Tensor]) -> list[Pair]:
    """Undo the collation: rows are all chosen, then all rejected, padded on the right."""
    rows = []
    for ids, attended, completion in zip(
        inputs["input_ids"], inputs["attention_mask"], inputs["completion_mask"], strict=True
    ):
        rows.append((ids[(attended - completion).bool()].tolist(), ids[completion.bool()].tolist()))
    half = len(rows) // 2
    return [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for (prompt, chosen), (_, rejected) in zip(rows[:half], rows[half:], strict=True)
    ]


def main() -> None:
    options = parse()
    pairs = json.loads(options.pairs.read_text())[: options.steps * options.batch]
    if len(pairs) < options.steps * options.batch:
        sys.exit(f"{options.pairs}: {len(pairs)} pairs, wanted {options.steps * options.batch}; ask for fewer steps")
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    policy, reference = (
        AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32, attn_implementation=options.attention)
        for _ in range(2)
    )
    clock = StepClock(options.device)
    with tempfile.TemporaryDirectory() as output_dir:
        trainer = TokenIdTrainer(
            model=policy,
            ref_model=reference,
            args=settings(options, output_dir),
            train_dataset=Dataset.from_list(pairs),
            processing_class=tokenizer,
            callbacks=[clock],
        )
        trainer.train()
    passes = options.batch // options.pairs_per_pass
    losses = torch.stack(trainer.losses).view(options.steps, passes).double().sum(1).tolist()
    norms = [float(norm) for norm in trainer.gradient_norms]
    steps = [
        {"loss": loss, "grad_norm": norm, "seconds": seconds}
        for loss, norm, seconds in zip(losses, norms, clock.seconds, strict=True)
    ]
    result = {
        "steps": steps,
        "peak_rss_bytes": peak_rss_bytes(),
        "versions": {name: version(name) for name in ("trl", "transformers", "torch", "accelerate")},
        "token_ids_sha256": token_ids_sha256(p for inputs in trainer.batched for p in batched_pairs(inputs)),
        "settings": vars(options) | {"threads": torch.get_num_threads()},
    }
    if options.device == "cuda":
        result["peak_cuda_bytes"] = torch.cuda.max_memory_allocated()
    options.out.write_text(json.dumps(result, indent=1, default=str))


# Tried on two shared CPU cores (AVX-512, AMX) with batches of 8 from shapes.py: median seconds a step after the first,
# peak GB. 4 or 5 steps for 8m, 3 for 135m; the same setting varied by up to a third between runs.
#   pairs padded together      8             4             2             1
#   8m fp32             3.93 / 3.9    3.37 / 2.7    1.89 / 1.8    1.43 / 1.3
#   8m bf16             3.16 / 3.8                  2.15 / 2.1    1.54 / 1.8
#   135m fp32           22.1 / 16.2                               13.7 / 5.0
#   135m bf16           16.1 / 13.6                               12.3 / 5.2
# Without Triton the fused head scores prompts and padding too, so one pair a pass wins; passes of equal size are
# averaged, so loss and update stay the same.
# padding_free: disabled in TRL 1.16 (warns and pads). precompute_ref_log_probs: off, each step scores the reference.
# attn_implementation eager (8m fp32 1.50) and adamw_torch (1.34): within noise of sdpa and the fused AdamW.
# torch_compile: 8m fp32 1.18, bf16 1.27 after a first step of 100 s; 135m fp32 16.0 after 447 s. Off by default.
# glibc keeping freed memory (MALLOC_MMAP_THRESHOLD_ and MALLOC_TRIM_THRESHOLD_ at some GB, set by the caller): 8m fp32
# 1.10, 135m fp32 10.7, bf16 8.0, with up to 0.5 GB more; in the same hour 135m without it took 12 to 14 and 9.7.
# A GPU takes the batch in one pass, where the head skips prompts. The GPU settings have not been measured.
def settings(options: argparse.Namespace, output_dir: str) -> DPOConfig:
    """TRL's best settings for this work, as far as the flags leave them open."""
    on_gpu = options.device == "cuda"
    return DPOConfig(
        loss_type=["sigmoid"],
        beta=0.1,
        max_length=None,
        precompute_ref_log_probs=False,
        per_device_train_batch_size=options.pairs_per_pass,
        gradient_accumulation_steps=options.batch // options.pairs_per_pass,
        train_sampling_strategy="sequential",
        max_steps=options.steps,
        optim="adamw_torch_fused",
        learning_rate=5e-5,
        adam_beta1=0.9,
        adam_beta2=0.999,
        adam_epsilon=1e-8,
        weight_decay=0.0,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        disable_dropout=True,
        gradient_checkpointing=options.gradient_checkpointing,
        torch_compile=options.compile,
        use_cpu=not on_gpu,
        bf16=options.dtype == "bfloat16",
        tf32=True if on_gpu and options.dtype == "bfloat16" else None,
        use_liger_kernel=on_gpu and importlib.util.find_spec("liger_kernel") is not None,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
        seed=0,
        output_dir=output_dir,
        report_to="none",
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        disable_tqdm=True,
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="directory with weights and tokenizer")
    parser.add_argument("--pairs", type=Path, required=True, help="JSON list of {prompt,chosen,rejected}_ids")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--batch", type=int, default=8, help="pairs in one optimiser step")
    parser.add_argument("--pairs-per-pass", type=int, help="pairs padded together; default 1, on a GPU the batch")
    parser.add_argument("--attention", help="attn_implementation; default sdpa, on a GPU flash where installed")
    parser.add_argument("--compile", action="store_true", help="torch.compile")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if options.pairs_per_pass is None:
        options.pairs_per_pass = options.batch if on_gpu else 1
    if options.batch % options.pairs_per_pass:
        parser.error(f"--pairs-per-pass {options.pairs_per_pass} does not divide --batch {options.batch}")
    if options.attention is None:
        flash = on_gpu and options.dtype == "bfloat16" and importlib.util.find_spec("flash_attn") is not None
        options.attention = "flash_attention_2" if flash else "sdpa"
    return options


if __name__ == "__main__":
    main()
