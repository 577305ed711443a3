"""One DPO step, kilter against TRL 1.16: same weights, same token ids, same optimiser, each in a process of its own.

    pip install -c constraints.txt -e '.[bench]'
    python benchmarks/dpo_vs_trl.py --data ../shared/data

The first 80 usable Anthropic HH rows in file order, batches of 8 pairs, beta 0.1, AdamW at 5e-5, clipping at 1. TRL
runs twice: with 8 pairs to a pass, and at the best that was found for it on a CPU, one pair to a pass with gradients
accumulated, which pads nothing, and with glibc told to keep freed memory, as kilter does for itself. Neither uses
gradient checkpointing. Prints a Markdown table: median seconds a step after one warm-up step, peak resident memory, the
largest relative differences of loss and gradient norm from TRL, and the share of the machine's own matrix-multiply
rate that kilter's products reach. The runs of one row follow each other, so a noisy machine is noisy for all.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from shapes import SHAPES, english_texts, hh_batches, token_ids_sha256, write_model, write_pairs

HERE = Path(__file__).parent
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "8589934592", "MALLOC_TRIM_THRESHOLD_": "17179869184"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="directory with hh_harmless_test.jsonl.gz")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="where models and results go")
    parser.add_argument("--shapes", nargs="+", default=["8m", "135m"], choices=list(SHAPES))
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], choices=["float32", "bfloat16"])
    parser.add_argument("--systems", nargs="+", default=["kilter", "trl", "trl-best"], choices=list(SYSTEMS))
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    print("| shape | type | system | s/step | kilter is | peak GB | kilter takes | loss | norm | of matmul rate |")
    print("|---|---|---|--:|--:|--:|--:|--:|--:|--:|")
    for shape in args.shapes:
        model, pairs = prepare(shape, args.data, args.work)
        for dtype in args.dtypes:
            rate = measured_rate(dtype, args.device)
            results = {name: run(name, model, pairs, dtype, args) for name in args.systems}
            check_same_tokens(results, pairs)
            for line in rows(shape, dtype, results, rate):
                print(line, flush=True)


def prepare(shape: str, data: Path, work: Path) -> tuple[Path, Path]:
    """A fresh model of the shape, and the token ids of the batches; made once."""
    model, pairs = work / shape, work / shape / "pairs.json"
    if not pairs.is_file():
        from transformers import AutoTokenizer

        work.mkdir(parents=True, exist_ok=True)
        write_model(shape, model, 0, english_texts(data))
        write_pairs(hh_batches(AutoTokenizer.from_pretrained(model), data / "hh_harmless_test.jsonl.gz"), pairs)
    return model, pairs


SYSTEMS: dict[str, tuple[str, list[str], dict[str, str]]] = {
    "kilter": ("dpo_kilter_worker.py", [], {}),
    "trl": ("dpo_trl_worker.py", ["--pairs-per-pass", "8"], {}),
    "trl-best": ("dpo_trl_worker.py", ["--pairs-per-pass", "1"], KEEP_MEMORY),
}


def run(system: str, model: Path, pairs: Path, dtype: str, args: argparse.Namespace) -> dict[str, Any]:
    script, extra, environment = SYSTEMS[system]
    out = args.work / f"{model.name}-{dtype}-{system}.json"
    command = [sys.executable, str(HERE / script), "--model", str(model), "--pairs", str(pairs), "--dtype", dtype]
    command += ["--steps", str(args.steps), "--device", args.device, "--out", str(out), *extra]
    finished = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    if finished.returncode:
        sys.exit(f"{system} failed:\n{finished.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(out.read_text())
    return result


def check_same_tokens(results: dict[str, dict[str, Any]], pairs: Path) -> None:
    rows = json.loads(pairs.read_text())
    for name, result in results.items():
        expected = token_ids_sha256(rows[: 8 * len(result["steps"])])
        assert result["token_ids_sha256"] == expected, f"{name} was given other tokens"


def measured_rate(dtype: str, device: str) -> float:
    """Multiply-adds x 2 a second of a large square matrix product, the best of ten, in a process of its own."""
    code = (
        "import time, torch\n"
        f"a = torch.randn(4096, 4096, dtype=torch.{dtype}, device='{device}')\n"
        "wait = torch.cuda.synchronize if a.is_cuda else (lambda: None)\n"
        "def once():\n"
        "    begin = time.perf_counter(); a @ a; wait(); return time.perf_counter() - begin\n"
        "print(2 * 4096**3 / min(once() for _ in range(10)))\n"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def product_operations(shape: str, step: dict[str, Any]) -> float:
    """Floating-point operations of a step's weight products: policy forward and backward (6 for each weight and
    node), reference forward (2). The last layer is computed for scored rows alone, its queries, keys and values
    aside. Attention's own products are not counted."""
    config = SHAPES[shape]
    hidden, head_size = config["hidden_size"], config["hidden_size"] // config["num_attention_heads"]
    keys = config["num_key_value_heads"] * head_size
    inward, outward = hidden * hidden + 2 * hidden * keys, hidden * hidden + 3 * hidden * config["intermediate_size"]
    layers = config["num_hidden_layers"]
    by_node = layers * inward + (layers - 1) * outward
    by_row = outward + hidden * config["vocab_size"]
    return 8.0 * (by_node * step["nodes"] + by_row * step["rows"])


def rows(shape: str, dtype: str, results: dict[str, dict[str, Any]], rate: float) -> list[str]:
    ours = results.get("kilter")
    lines = []
    for name, result in results.items():
        steps = result["steps"][1:]
        seconds = statistics.median(step["seconds"] for step in steps)
        peak = result.get("peak_cuda_bytes") or result["peak_rss_bytes"]
        cells = [shape, dtype, name, f"{seconds:.3f}"]
        if ours is None or name == "kilter":
            share = [product_operations(shape, s) / s["seconds"] / rate for s in steps] if name == "kilter" else []
            cells += ["", f"{peak / 1e9:.2f}", "", "", "", f"{statistics.median(share):.0%}" if share else ""]
        else:
            own = statistics.median(step["seconds"] for step in ours["steps"][1:])
            own_peak = ours.get("peak_cuda_bytes") or ours["peak_rss_bytes"]
            worst = [
                max(abs(a[key] / b[key] - 1) for a, b in zip(ours["steps"], result["steps"], strict=True))
                for key in ("loss", "grad_norm")
            ]
            cells += [f"{seconds / own:.1f}x", f"{peak / 1e9:.2f}", f"{own_peak / peak:.2f}x"]
            cells += [f"{worst[0]:.0e}", f"{worst[1]:.0e}", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


if __name__ == "__main__":
    main()
