"""Divergences of PyTorch logits in blocks of rows that stay in cache, with a backward that computes them again.

Nothing of the size of the logits is made but the gradients that are asked for. `kl` and the others come here by
themselves for large `Logits`; their formulas on whole arrays (forms.py, power.py) are the slow twin, and the word of
appeal: rows whose KL is too small for plain float32 sums, or which hold -inf or huge logits, are computed by them, in
float64.

Axes: N rows, V outcomes.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from typing import Any

import torch
from torch import Tensor

from kilter.divergence.exact.distributions import Logits
from kilter.divergence.exact.forms import Pair, form_of
from kilter.divergence.exact.power import kl_sum

RowSum = Callable[[Pair], Any]

# Logits of a block: a few arrays of this many float32 fit a core's second-level cache.
CPU_BLOCK = 1 << 16
DEVICE_BLOCK = 1 << 24

# Bytes of a tensor for which huge pages are asked.
HUGE_FROM = 1 << 23

# Sums of exp(logit) in which nothing that counts has overflowed or been lost.
SAFE_SUM = (1e-20, 1e30)
# Above this share of the numbers whose difference it is, KL as a difference keeps five digits in float32. Above the
# second bound p (expm1(d) - d) does.
DIFFERENCE_KEEPS = 2e-2
CENTRED_KEEPS = 1e-5


def sum_rows(z_p: Tensor, z_q: Tensor, row_sum: RowSum, keep: Tensor | None) -> Tensor:
    """`row_sum` of each pair of rows of logits, of equal shapes (..., V); rows that are not kept are taken as zeros."""
    shape, kept = z_p.shape[:-1], None if keep is None else keep.reshape(-1)
    flat = [z.reshape(-1, z.shape[-1]) for z in (z_p, z_q)]
    plain_kl = row_sum is kl_sum and z_p.dtype != torch.float64
    values: Tensor = (_KL if plain_kl else _Rows).apply(*flat, row_sum, kept)  # type: ignore[no-untyped-call]
    return values.reshape(shape)


def _blocks(rows: int, like_NV: Tensor) -> Iterator[slice]:
    """Slices of so many rows; an empty one where there are none."""
    size = max(1, (CPU_BLOCK if like_NV.device.type == "cpu" else DEVICE_BLOCK) // like_NV.shape[1])
    return (slice(i, min(i + size, rows)) for i in range(0, max(1, rows), size))


def _shared(work: Callable[[Iterator[slice]], None], rows: int, like_NV: Tensor) -> None:
    """Call `work` on the blocks of so many rows: on a CPU in as many threads as PyTorch has, each taking the next.

    A thread's operations then wait for no other thread. Split each among the threads, operations as short as these
    would wait for the slowest thousands of times, which on a machine that has other work to do takes milliseconds.
    """
    blocks = list(_blocks(rows, like_NV))
    threads = torch.get_num_threads() if like_NV.device.type == "cpu" else 1
    if threads == 1 or len(blocks) <= threads:
        work(iter(blocks))
        return
    queue, inference = iter(blocks), torch.is_inference_mode_enabled()

    def share() -> None:
        with torch.inference_mode(inference), torch.no_grad():  # which are a thread's own
            work(queue)

    for done in [_workers(threads, os.getpid()).submit(share) for _ in range(threads)]:
        done.result()


@cache
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    """Threads whose operations are not split further. `process` is there because threads do not survive a fork."""
    ready = Barrier(threads + 1)

    def settle() -> None:
        torch.get_num_threads()  # a thread takes over the process's number at its first question
        ready.wait()
        torch.set_num_threads(1)  # its own number, but also that of threads to come
        ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="kilter-rows")
    settled = [pool.submit(settle) for _ in range(threads)]
    ready.wait()
    ready.wait()
    torch.set_num_threads(threads)
    for done in settled:
        done.result()
    return pool


def _plain(row_sum: RowSum, inputs: Sequence[Tensor], keep: Tensor | None) -> Tensor:
    """The slow twin."""
    pair = []
    for z in inputs:
        z = z.float() if z.dtype in (torch.float16, torch.bfloat16) else z
        z = z if keep is None else z.masked_fill(~keep[:, None], 0.0)
        pair.append(form_of(Logits(z), z))
    result: Tensor = row_sum(Pair(*pair))
    return result


def _value(row_sum: RowSum, inputs: Sequence[Tensor], keep: Tensor | None) -> Tensor:
    """That of the slow twin, and NaN for rows that are no distribution."""
    value = _plain(row_sum, inputs, keep)
    fine = inputs[0].amax(-1).isfinite() & inputs[1].amax(-1).isfinite()
    return torch.where(fine if keep is None else fine | ~keep, value, torch.nan)


def _gradients(
    row_sum: RowSum, inputs: Sequence[Tensor], wanted: list[bool], keep: Tensor | None, grad_N: Tensor
) -> list[Tensor]:
    """The wanted gradients of the slow twin."""
    with torch.enable_grad():
        parts = [z.detach().requires_grad_(want) for z, want in zip(inputs, wanted, strict=True)]
        value = _plain(row_sum, parts, keep)
        chosen = [part for part, want in zip(parts, wanted, strict=True) if want]
        return list(torch.autograd.grad(value, chosen, grad_N.to(value.dtype)))


def _twice_differentiable(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
    """Gradients that have gradients: by the slow twin, on the whole."""
    wanted = ctx.needs_input_grad[:2]
    inputs = ctx.saved_tensors[:2]
    value = _plain(ctx.row_sum, inputs, ctx.keep)
    chosen = [z for z, want in zip(inputs, wanted, strict=True) if want]
    found = iter(torch.autograd.grad(value, chosen, grad_N, create_graph=True))
    return (*(next(found) if want else None for want in wanted), None, None)


class _Rows(torch.autograd.Function):
    """Any sum over outcomes, by the slow twin block by block."""

    @staticmethod
    def forward(ctx: Any, z_p: Tensor, z_q: Tensor, row_sum: RowSum, keep: Tensor | None) -> Tensor:
        ctx.save_for_backward(z_p, z_q)
        ctx.row_sum, ctx.keep = row_sum, keep
        value = torch.empty(
            len(z_p), dtype=torch.float64 if z_p.dtype == torch.float64 else torch.float32, device=z_p.device
        )

        def work(blocks: Iterator[slice]) -> None:
            for i in blocks:
                value[i] = _value(row_sum, (z_p[i], z_q[i]), None if keep is None else keep[i])

        _shared(work, len(z_p), z_p)
        return value

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _twice_differentiable(ctx, grad_N)
        inputs, wanted = ctx.saved_tensors, ctx.needs_input_grad[:2]
        results = [_empty_like(z) if want else None for z, want in zip(inputs, wanted, strict=True)]
        made = [result for result in results if result is not None]

        def work(blocks: Iterator[slice]) -> None:
            for i in blocks:
                keep = None if ctx.keep is None else ctx.keep[i]
                found = _gradients(ctx.row_sum, [z[i] for z in inputs], wanted, keep, grad_N[i])
                for result, part in zip(made, found, strict=True):
                    result[i] = part

        _shared(work, len(grad_N), inputs[0])
        return *results, None, None


class _KL(torch.autograd.Function):
    """KL(p, q) of logits in float32 or less: d KL / d z_q = q - p, d KL / d z_p = p (mean of d - d), d = z_q - z_p."""

    @staticmethod
    def forward(ctx: Any, z_p: Tensor, z_q: Tensor, row_sum: RowSum, keep: Tensor | None) -> Tensor:
        sum_p, sum_q, moved = _sums(z_p, z_q)
        mean = moved / sum_p
        log_growth = sum_q.log() - sum_p.log()
        value = log_growth - mean
        low, high = SAFE_SUM
        safe = (sum_p > low) & (sum_p < high) & (sum_q > low) & (sum_q < high) & value.isfinite()
        near = safe & (value < DIFFERENCE_KEEPS * (1 + mean.abs() + log_growth.abs()))
        hard = ~safe
        if keep is not None:
            near, hard = near & keep, hard & keep
            value = value.masked_fill(~keep, 0.0)
        _centred(z_p, z_q, sum_p, log_growth, near, value)
        hard |= near & ~(value > CENTRED_KEEPS)  # NaN too
        for rows in _chosen(hard, z_p):
            value[rows] = _value(row_sum, (z_p[rows].double(), z_q[rows].double()), None)
        ctx.save_for_backward(z_p, z_q, sum_p, sum_q, mean)
        ctx.row_sum, ctx.keep, ctx.hard = row_sum, keep, hard
        result: Tensor = value.float()
        return result

    @staticmethod
    def backward(ctx: Any, grad_N: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            return _twice_differentiable(ctx, grad_N)
        z_p, z_q, sum_p, sum_q, mean = ctx.saved_tensors
        wanted, inputs = ctx.needs_input_grad[:2], (z_p, z_q)
        results = [_empty_like(z) if want else None for z, want in zip(inputs, wanted, strict=True)]
        minus_p, scale_q = ((grad_N / s).float()[:, None] for s in (-sum_p, sum_q))
        centre = mean.float()[:, None]

        def work(blocks: Iterator[slice]) -> None:
            work_p, work_other = (_work(z_p) for _ in range(2))
            for i in blocks:
                x, y = z_p[i].float(), z_q[i].float()
                minus = torch.exp(x, out=work_p[: len(x)]).mul_(minus_p[i])
                if wanted[0]:
                    into = _target(results[0], i, work_other)
                    torch.sub(y, x, out=into).sub_(centre[i]).mul_(minus)
                    _store(results[0], i, into)
                if wanted[1]:
                    into = _target(results[1], i, work_other)
                    torch.addcmul(minus, torch.exp(y, out=into), scale_q[i], out=into)
                    _store(results[1], i, into)

        _shared(work, len(z_p), z_p)
        _mend(ctx, inputs, results, grad_N)
        return *results, None, None


def _mend(ctx: Any, inputs: tuple[Tensor, Tensor], results: list[Tensor | None], grad_N: Tensor) -> None:
    """Put in the gradients of the rows that the plain sums do not serve, and zeros where rows do not count."""
    made = [result for result in results if result is not None]
    for rows in _chosen(ctx.hard, inputs[0]):
        chosen = [z[rows].double() for z in inputs]
        found = _gradients(ctx.row_sum, chosen, ctx.needs_input_grad[:2], None, grad_N[rows])
        for result, part in zip(made, found, strict=True):
            result[rows] = part.to(result.dtype)
    if ctx.keep is not None:
        for result in made:
            result[~ctx.keep] = 0.0


def _work(z_NV: Tensor) -> Tensor:
    rows = next(_blocks(len(z_NV), z_NV))
    return torch.empty(rows.stop, z_NV.shape[1], device=z_NV.device)


def _empty_like(z_NV: Tensor) -> Tensor:
    """A tensor for gradients, in huge pages where Linux has them for the asking: touching a tensor of this size for the
    first time costs as much as filling it otherwise."""
    result = torch.empty_like(z_NV)
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if advice is not None and result.device.type == "cpu" and result.nbytes >= HUGE_FROM:
        first = -(-result.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        whole = (result.data_ptr() + result.nbytes - first) // mmap.PAGESIZE * mmap.PAGESIZE
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(whole), advice)
    return result


def _target(result: Tensor | None, rows: slice, work: Tensor) -> Tensor:
    """Where a block's float32 gradient is formed: in the result itself, if that is its type."""
    assert result is not None
    return result[rows] if result.dtype == torch.float32 else work[: rows.stop - rows.start]


def _store(result: Tensor | None, rows: slice, formed: Tensor) -> None:
    if result is not None and result.dtype != formed.dtype:
        result[rows] = formed


def _sums(z_p: Tensor, z_q: Tensor) -> Tensor:
    """(3, N) in float64: sums of exp z_p, of exp z_q, and of exp z_p (z_q - z_p). No largest logit is subtracted:
    where one is needed the sums are not safe, and not used."""
    sums_3N = torch.empty(3, len(z_p), device=z_p.device)

    def work(blocks: Iterator[slice]) -> None:
        work_p, work_q = (_work(z_p) for _ in range(2))
        for i in blocks:
            x, y = z_p[i].float(), z_q[i].float()
            p, q = torch.exp(x, out=work_p[: len(x)]), torch.exp(y, out=work_q[: len(x)])
            torch.sum(p, -1, out=sums_3N[0, i])
            torch.sum(q, -1, out=sums_3N[1, i])
            torch.sum(torch.sub(y, x, out=q).mul_(p), -1, out=sums_3N[2, i])

    _shared(work, len(z_p), z_p)
    return sums_3N.double()


def _centred(z_p: Tensor, z_q: Tensor, sum_p: Tensor, log_growth: Tensor, flag_N: Tensor, value: Tensor) -> None:
    """For flagged rows sum p (expm1(d) - d), where d = z_q - z_p - log_growth: an error e of log_growth adds no more
    than e^2 / 2 to it."""
    shift, rows_near = log_growth.float()[:, None], flag_N.nonzero()[:, 0]

    def work(blocks: Iterator[slice]) -> None:
        works = [_work(z_p) for _ in range(3)]
        for i in blocks:
            rows = rows_near[i]
            p, d, growth = (part[: len(rows)] for part in works)
            d.copy_(z_q[rows]).sub_(p.copy_(z_p[rows])).sub_(shift[rows])
            torch.expm1(d, out=growth).sub_(d).mul_(p.exp_())
            value[rows] = growth.sum(-1).double() / sum_p[rows]

    _shared(work, len(rows_near), z_p)


def _chosen(flag_N: Tensor, z_NV: Tensor) -> Iterator[Tensor]:
    """The rows that are flagged, as many at a time as a block holds."""
    rows = flag_N.nonzero()[:, 0]
    return (rows[i] for i in _blocks(len(rows), z_NV)) if len(rows) else iter(())
