"""KL of two matrices of logits: time and memory, beside log_softmax and kl_div of PyTorch.

Prints a Markdown table. Conditions: float32, standard normal logits times 3 (policies that differ), or one matrix and
the same with noise of 0.05 (a policy and its reference: KL about 0.001); CPU, two threads; medians of runs that take
turns, their quotient that of the medians. The quotients are what is asked for, not the seconds. "extra memory" is the
growth of the largest resident memory over one call in a process of its own, less the gradients that it returns.
"bandwidth" is the time of a plain pass that reads both matrices once (the sum of each), over that of the call.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from kilter.divergence import Logits, kl
from shapes import peak_rss_bytes


def peer(z_p: Tensor, z_q: Tensor) -> Tensor:
    log_p, log_q = F.log_softmax(z_p, -1), F.log_softmax(z_q, -1)
    return F.kl_div(log_q, log_p, log_target=True, reduction="none").sum(-1)


def ours(z_p: Tensor, z_q: Tensor) -> Tensor:
    value: Tensor = kl(Logits(z_p), Logits(z_q))
    return value


SYSTEMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"kl_div": peer, "kilter": ours}
# What each pass of a row of the table needs gradients of: p's logits, and q's.
PASSES = {"forward": (), "forward and backward": (0, 1), "forward and backward to q": (1,)}
NOISE = {"far": None, "near": 0.05}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--vocabulary", type=int, default=32768)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.memory_of:
        print(extra_bytes(args, *args.memory_of))
        return
    print(
        f"{args.rows} x {args.vocabulary} float32, {args.threads} threads, {torch.backends.cpu.get_cpu_capability()}\n"
    )
    print("| | kl_div, s | kilter, s | faster | bandwidth | kl_div, MB | kilter, MB | of kl_div's |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for case in NOISE:
        logits = made(args, case)
        for name in PASSES:
            print(row(args, case, name, logits), flush=True)


def row(args: argparse.Namespace, case: str, name: str, logits: list[Tensor]) -> str:
    calls: list[Callable[[], object]] = [lambda: [z.sum() for z in logits]]
    calls += [lambda system=system: run(system, name, logits) for system in SYSTEMS.values()]
    read, peer_time, time_ = medians(calls, args.runs)
    share = f"{read / time_:.0%}" if name == "forward" else ""
    line = f"| {case}: {name} | {peer_time:.3f} | {time_:.3f} | {peer_time / time_:.1f}x | {share} "
    if case != "far":
        return line + "| | | |"
    sizes = ["--rows", args.rows, "--vocabulary", args.vocabulary, "--threads", args.threads]
    peer_bytes, bytes_ = (
        int(subprocess.check_output([sys.executable, __file__, *map(str, sizes), "--memory-of", system, name]))
        for system in SYSTEMS
    )
    return line + f"| {peer_bytes / 1e6:,.0f} | {bytes_ / 1e6:,.0f} | {bytes_ / peer_bytes:.1%} |"


def made(args: argparse.Namespace, case: str) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    z, y = (torch.randn(args.rows, args.vocabulary, generator=generator) for _ in range(2))
    noise = NOISE[case]
    z.mul_(3)
    return [z, y.mul_(3) if noise is None else y.mul_(noise).add_(z)]


def run(system: Callable[[Tensor, Tensor], Tensor], name: str, logits: list[Tensor]) -> list[Tensor | None]:
    """The gradients that the pass asks for."""
    for i, z in enumerate(logits):
        z.requires_grad_(i in PASSES[name])
        z.grad = None
    value = system(*logits)
    if PASSES[name]:
        value.sum().backward()
    gradients = [z.grad for z in logits]
    for z in logits:
        z.grad = None
    return gradients


def medians(calls: list[Callable[[], object]], runs: int) -> list[float]:
    """The median seconds of each, after a first run; they take turns, so that what else the machine does hits all."""
    times: list[list[float]] = [[] for _ in calls]
    for i in range(runs + 1):
        for call, seconds in zip(calls, times, strict=True):
            begin = time.perf_counter()
            call()
            if i:
                seconds.append(time.perf_counter() - begin)
    return [statistics.median(seconds) for seconds in times]


def extra_bytes(args: argparse.Namespace, system: str, name: str) -> int:
    logits = made(args, "far")
    few = [z[:2].clone() for z in logits]
    run(SYSTEMS[system], name, few)  # what the libraries take at their first call
    before = peak_rss_bytes()
    gradients = run(SYSTEMS[system], name, logits)
    return peak_rss_bytes() - before - sum(g.nbytes for g in gradients if g is not None)


if __name__ == "__main__":
    main()
