"""`kilter compare` against a plain script that materialises logits: tokens a second, and peak memory above the models.

Prints Markdown tables. Compared are a model and copies of it: rounded to bfloat16, rounded to 8 bits (a scale for each
row of a matrix), and with noise of 2% of each matrix's spread. The plain script runs both models on padded batches of
whole texts, takes log-softmax of all logits, and forms KL both ways as sums of p (log p - log q); it is given texts
sorted by length, so that little is padding, and the batch size is the best of those tried. Both measure every token
of HH conversations (no prefix is shared), in float32, each in a process of its own; memory at two numbers of texts.
On a machine that others use too, look at the CPU seconds with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import gzip
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

COPIES = ("bfloat16", "8 bits", "noise")
BATCHES = (1, 4, 16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True, help="directory of the model")
    parser.add_argument("--data", required=True, type=Path, help="HH transcripts, JSONL or .gz")
    parser.add_argument("--texts", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--work", type=Path, default=Path("build/bench/compare"))
    parser.add_argument("--measure", nargs=4, metavar=("HOW", "A", "B", "TEXTS"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measured(*args.measure)))
        return
    args.work.mkdir(parents=True, exist_ok=True)
    copies = {name: str(args.work / name.replace(" ", "-")) for name in COPIES}
    for name, path in copies.items():
        save_copy(args.model, path, name)
    texts = {count: write_texts(args.data, args.work / f"texts-{count}.jsonl", count) for count in args.texts}

    most = max(texts)
    print(f"a copy against the model, {most:,} texts\n")
    print("| copy | KL(A, B), nats a token | the plain script's | smallest of its KL | same likeliest token |")
    print("|---|--:|--:|--:|--:|")
    for name, path in copies.items():
        ours, plain = (run(args.model, how, path, texts[most]) for how in ("kilter", "plain-16"))
        print(f"| {name} | {ours['kl']:.3e} ± {ours['error']:.1e} | {plain['kl']:.3e} | {plain['smallest']:.1e} "
              f"| {ours['same']:.4f} |", flush=True)  # fmt: skip
    print("\n| | texts | tokens | s | CPU s | tokens/s | peak above the models, MiB |\n|---|--:|--:|--:|--:|--:|--:|")
    for how in ("kilter", *(f"plain-{batch}" for batch in BATCHES)):
        for count, path in texts.items():
            got = run(args.model, how, copies["noise"], path)
            called = how if how == "kilter" else f"plain, {how.removeprefix('plain-')} a batch"
            print(f"| {called} | {count:,} | {got['tokens']:,} | {got['seconds']:.1f} | {got['cpu']:.1f} "
                  f"| {got['tokens'] / got['seconds']:,.0f} | {got['peak'] / 2**20:,.0f} |", flush=True)  # fmt: skip


def run(model: str, how: str, copy: str, texts: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--model", "-", "--data", "-", "--measure", how, copy, model, str(texts)]
    ran = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(ran.stdout.splitlines()[-1]))


def save_copy(model: str, path: str, name: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if Path(path).exists():
        return
    copy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in (p for p in copy.parameters() if p.ndim > 1):
            if name == "bfloat16":
                weight.copy_(weight.bfloat16())
            elif name == "8 bits":
                scale = weight.abs().amax(-1, keepdim=True) / 127
                weight.copy_((weight / scale).round() * scale)
            else:
                weight.add_(0.02 * weight.std() * torch.randn(weight.shape, generator=generator))
    copy.save_pretrained(path)
    AutoTokenizer.from_pretrained(model).save_pretrained(path)


def write_texts(source: Path, path: Path, count: int) -> Path:
    """The chosen conversations of so many rows, as plain documents that fit the model."""
    with gzip.open(source, "rt") if source.suffix == ".gz" else source.open() as stream:
        texts = [json.loads(line)["chosen"] for line in stream]
    kept = [text for text in texts if len(text) < 2500][:count]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in kept))
    return path


def measured(how: str, a: str, b: str, texts: str) -> dict[str, Any]:
    from kilter.train.machine import settle

    settle()
    if how == "kilter":
        return by_kilter(a, b, texts)
    return by_plain_script(a, b, texts, int(how.removeprefix("plain-")))


def by_kilter(a: str, b: str, texts: str) -> dict[str, Any]:
    import io

    from rich.console import Console

    from kilter.measure import compare as module
    from kilter.measure.config import CompareConfig

    with Peak() as peak:
        run = module.Comparing.run

        cpu = 0.0

        def watched(*arguments: Any, **settings: Any) -> None:
            nonlocal cpu
            peak.begin()
            begin = time.process_time()
            run(*arguments, **settings)
            cpu = time.process_time() - begin
            peak.end()

        module.Comparing.run = watched  # type: ignore[method-assign]
        found = module.compare(a, b, CompareConfig(data=(texts,), device="cpu"), Console(file=io.StringIO()))
    kl = found.divergences["kl_a_b"].mean
    return {
        "tokens": found.tokens, "seconds": found.seconds, "cpu": cpu, "peak": peak.above,
        "kl": kl.value, "error": kl.standard_error, "same": found.same_top.value,
    }  # fmt: skip


def by_plain_script(a: str, b: str, texts: str, batch: int) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    models = [AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval() for name in (a, b)]
    tokenizer = AutoTokenizer.from_pretrained(a)
    rows = [tokenizer(json.loads(line)["text"])["input_ids"] for line in Path(texts).read_text().splitlines()]
    # As training and kilter end a document.
    rows = sorted(([*row, tokenizer.eos_token_id] for row in rows), key=len)
    parts: list[Any] = []
    with Peak() as peak, torch.no_grad():
        peak.begin()
        begin, cpu_begin = time.perf_counter(), time.process_time()
        for start in range(0, len(rows), batch):
            some = rows[start : start + batch]
            ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in some], batch_first=True)
            mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in some], True)
            log_p, log_q = (
                model(input_ids=ids, attention_mask=mask).logits[:, :-1].log_softmax(-1) for model in models
            )
            p, q = log_p.exp(), log_q.exp()
            columns = [
                (p * (log_p - log_q)).sum(-1),
                (q * (log_q - log_p)).sum(-1),
                log_p.gather(-1, ids[:, 1:, None])[..., 0],
                log_q.gather(-1, ids[:, 1:, None])[..., 0],
                log_p.argmax(-1) == log_q.argmax(-1),
            ]
            parts.append(torch.stack([column[mask[:, 1:]].float() for column in columns]))
        seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu_begin
        peak.end()
    kl = torch.cat(parts, 1)[0]
    return {
        "tokens": kl.numel(), "seconds": seconds, "cpu": cpu, "peak": peak.above,
        "kl": float(kl.double().mean()), "smallest": float(kl.min()),
    }  # fmt: skip


class Peak:
    """The most resident memory between `begin` and `end` above what there was at `begin`, looked at every 2 ms."""

    def __enter__(self) -> Peak:
        import psutil

        self._process, self._on, self._done = psutil.Process(), False, False
        self._before = self._most = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done = True
        self._thread.join()

    def begin(self) -> None:
        self._before = self._most = self._process.memory_info().rss
        self._on = True

    def end(self) -> None:
        self._on = False

    @property
    def above(self) -> int:
        return self._most - self._before

    def _watch(self) -> None:
        while not self._done:
            if self._on:
                self._most = max(self._most, self._process.memory_info().rss)
            time.sleep(0.002)


if __name__ == "__main__":
    main()
