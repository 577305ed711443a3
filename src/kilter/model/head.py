"""The head operator: any row-wise function of the logits, chunk by chunk. The logits never exist whole.

`head_rows` recomputes a chunk's logits in backward. `head_loss` is for losses that can be formed from one chunk of
rows at a time: its gradient is formed in the same pass, while the chunk's logits are still at hand.

Axes: N rows, M targets (a row may predict several tokens), V vocabulary, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from kilter.model.row_functions import LOG_PROB, RowFunction, Rows, Targets

# Rows of logits worked on at a time: as many as make about this many logits, so that they stay in cache.
CHUNK_LOGITS = 1 << 23

# Logits that a CPU core's own cache holds, with what functions form of them.
CACHED_LOGITS = 1 << 17

# The CPU's bfloat16 products are compiled anew for each number of rows; few sizes keep that compilation rare.
SHAPE_MULTIPLE = 64

# Slopes (nats of loss to a nat of a row's value) below this are taken as 0: AdamW adds 1e-8 to what it divides by.
UNNOTICED = 1e-15


@dataclass(frozen=True)
class LogitsHead:
    """The language-model head as a module, and the model's last function of its output (soft cap, scale).

    `dtype` is the type of its matrix product, None for that of the weights.
    """

    module: nn.Module
    transform: Callable[[Tensor], Tensor] | None = None
    dtype: torch.dtype | None = None

    def __call__(self, hidden_ND: Tensor) -> Tensor:
        """Logits (N, V) in float32 at least."""
        with torch.autocast(hidden_ND.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            logits = self.module(hidden_ND)
        logits = logits if self.transform is None else self.transform(logits)
        return logits if logits.dtype == torch.float64 else logits.float()

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [p for p in self.module.parameters() if p.requires_grad]

    @property
    def vocabulary(self) -> int:
        return int(self.module.get_parameter("weight").shape[0])

    @property
    def linear(self) -> nn.Linear | None:
        """The module, where logits are nothing but hidden @ weight.T."""
        module = self.module
        plain = type(module) is nn.Linear and module._parameters["bias"] is None and self.transform is None
        hooked = bool(module._forward_hooks) or bool(module._forward_pre_hooks)
        return module if isinstance(module, nn.Linear) and plain and not hooked else None


class Beside(NamedTuple):
    """Another model's hidden states for the same rows, and its head: the other distribution of a divergence."""

    head: LogitsHead
    hidden_ND: Tensor


def chunk_rows(vocabulary: int) -> int:
    """Rows in a chunk of about `CHUNK_LOGITS` logits."""
    return max(32, CHUNK_LOGITS // vocabulary)


def head_rows(
    head: LogitsHead,
    hidden_ND: Tensor,
    targets: Targets,
    functions: Sequence[RowFunction] = (LOG_PROB,),
    *,
    beside: Beside | None = None,
    rows_per_chunk: int | None = None,
) -> tuple[Tensor, ...]:
    """Row functions of the logits, each (N,) or (M,), in float32 at least; differentiable.

    Memory holds one chunk of logits (two with `beside`), forward and backward; backward computes them again.
    """
    rows = rows_per_chunk or chunk_rows(head.vocabulary)
    chunks = [slice(i, min(i + rows, len(hidden_ND))) for i in range(0, len(hidden_ND), rows)] or [slice(0, 0)]
    worker = _worker(head, functions, beside)
    result: tuple[Tensor, ...] = _Recompute.apply(  # type: ignore[no-untyped-call]
        hidden_ND, targets, functions, worker, chunks, *head.parameters
    )
    return result


def head_loss(
    head: LogitsHead,
    hidden_ND: Tensor,
    targets: Targets,
    loss: Callable[[slice, Tensor], Tensor],
    chunks: Sequence[slice],
) -> tuple[Tensor, Tensor]:
    """The sum over chunks of `loss(targets of the chunk, their log-probs)`, and all log-probs (M,), detached.

    The gradient of a chunk's loss is formed before its logits are dropped: nothing is recomputed in backward.
    """
    result: tuple[Tensor, Tensor] = _SamePass.apply(  # type: ignore[no-untyped-call]
        hidden_ND, targets, _worker(head, (LOG_PROB,), None), loss, chunks, *head.parameters
    )
    return result


class _Worker(Protocol):
    """Evaluates one chunk at a time, turns gradients of its results into those of the hidden rows, and gathers those
    of the head's parameters."""

    def forward(self, hidden_ND: Tensor, rows: slice, targets: Targets, graph: bool) -> tuple[Tensor, ...]: ...

    def backward(self, gradients: Sequence[Tensor | None]) -> Tensor:
        """The gradient of the hidden rows last given to `forward`."""
        ...

    def finish(self) -> list[Tensor]:
        """The gradients of the head's parameters over all chunks; lets go of everything."""
        ...


def _worker(head: LogitsHead, functions: Sequence[RowFunction], beside: Beside | None) -> _Worker:
    linear = head.linear
    if linear is not None and tuple(functions) == (LOG_PROB,):
        return _LinearLogProb(linear, head.dtype)
    return _AnyFunction(head, functions, beside)


class _AnyFunction:
    """Any head and any functions, by autograd within the chunk."""

    def __init__(self, head: LogitsHead, functions: Sequence[RowFunction], beside: Beside | None) -> None:
        self.head, self.functions, self.beside = head, functions, beside
        self.sums: list[Tensor] = []

    def forward(self, hidden_ND: Tensor, rows: slice, targets: Targets, graph: bool) -> tuple[Tensor, ...]:
        with torch.set_grad_enabled(graph):
            self.hidden = hidden_ND[rows].detach().requires_grad_(graph)
            logits, other = self.head(self.hidden), None
            if self.beside is not None:
                with torch.no_grad():
                    other = self.beside.head(self.beside.hidden_ND[rows])
            if graph or logits.device.type != "cpu":
                self.results = self._values(logits, other, targets)
            else:
                self.results = self._values_in_cache(logits, other, targets)
        return self.results

    def _values(self, logits: Tensor, other: Tensor | None, targets: Targets) -> tuple[Tensor, ...]:
        distributions = Rows(logits.log_softmax(-1), None if other is None else other.log_softmax(-1))
        return tuple(function.value(distributions, targets) for function in self.functions)

    def _values_in_cache(self, logits: Tensor, other: Tensor | None, targets: Targets) -> tuple[Tensor, ...]:
        """The same a few rows at a time: functions take many passes over what they are given."""
        step = max(1, CACHED_LOGITS // logits.shape[-1])
        parts = []
        for part in (slice(i, min(i + step, len(logits))) for i in range(0, len(logits), step)):
            parts.append(self._values(logits[part], None if other is None else other[part], targets.within(part)[1]))
        if not parts:
            return self._values(logits, other, targets)
        return tuple(torch.cat(values) for values in zip(*parts, strict=True))

    def backward(self, gradients: Sequence[Tensor | None]) -> Tensor:
        pairs = [(r, g) for r, g in zip(self.results, gradients, strict=True) if g is not None and r.requires_grad]
        grad_hidden, *parts = torch.autograd.grad(
            [r for r, _ in pairs],
            [self.hidden, *self.head.parameters],
            [g.to(r.dtype) for r, g in pairs],
            allow_unused=True,
            materialize_grads=True,
        )
        self.sums = [total.add_(part) for total, part in zip(self.sums, parts, strict=True)] if self.sums else parts
        return grad_hidden

    def finish(self) -> list[Tensor]:
        sums, self.sums = self.sums, []
        del self.hidden, self.results
        return sums


class _LinearLogProb:
    """Log-probs under a plain linear head, with d log p(i) / d logits = onehot(i) - p written out.

    The softmax is used as it is, without a pass to weight it: weights go onto the hidden rows instead. The gathered
    gradient of the weight is kept in the type of the products; the targets' own rows are added to it at the end.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype | None) -> None:
        self.linear = linear
        self.weight_VD = linear.weight.detach().to(dtype or linear.weight.dtype)
        self.exact = self.weight_VD.dtype != torch.bfloat16
        self.sum_VD: Tensor | None = None
        self.picked: list[tuple[Tensor, Tensor]] = []

    def forward(self, hidden_ND: Tensor, rows: slice, targets: Targets, graph: bool) -> tuple[Tensor, ...]:
        hidden = hidden_ND[rows].detach().to(self.weight_VD.dtype)
        self.rows, self.targets = len(hidden), targets
        # Rows of zeros, with gradients of zero: see SHAPE_MULTIPLE.
        self.hidden = hidden if self.exact else nn.functional.pad(hidden, (0, 0, 0, -len(hidden) % SHAPE_MULTIPLE))
        logits = torch.mm(self.hidden, self.weight_VD.T)
        type_ = torch.float64 if logits.dtype == torch.float64 else torch.float32
        self.log_p = torch.log_softmax(logits, -1, dtype=type_)
        return (self.log_p[targets.row_M, targets.id_M],)

    def backward(self, gradients: Sequence[Tensor | None]) -> Tensor:
        (grad_M,) = gradients
        assert grad_M is not None
        row_M, id_M = self.targets
        weight, hidden = self.weight_VD, self.hidden
        p = self.log_p.exp_().to(weight.dtype)
        grad_N = grad_M.new_zeros(len(hidden)).index_add_(0, row_M, grad_M)
        if self.linear.weight.requires_grad:
            weighted = (hidden * -grad_N[:, None]).to(weight.dtype)
            self.sum_VD = torch.mm(p.T, weighted) if self.sum_VD is None else self.sum_VD.addmm_(p.T, weighted)
            self.picked.append((id_M, hidden[row_M] * grad_M[:, None]))
        grad_hidden = torch.mm(p, weight).to(grad_M.dtype).mul_(-grad_N[:, None])
        return grad_hidden.index_add_(0, row_M, weight[id_M] * grad_M[:, None])[: self.rows]

    def finish(self) -> list[Tensor]:
        sums = []
        if self.sum_VD is not None:
            total = self.sum_VD.to(self.linear.weight.dtype)
            for id_M, rows_MD in self.picked:
                total.index_add_(0, id_M, rows_MD.to(total.dtype))
            sums = [total]
        self.sum_VD, self.picked = None, []
        del self.hidden, self.targets, self.log_p
        return sums


def _noticed(slope: Tensor) -> Tensor:
    """Slopes without those too small for any optimiser to notice, such as those of pairs that are long told apart.

    Their products with small probabilities are denormal numbers, which take a CPU many times as long.
    """
    return slope.masked_fill(slope.abs() < UNNOTICED, 0) if slope.dtype == torch.float32 else slope


def _parts(targets: Targets, chunks: Sequence[slice]) -> Iterator[tuple[slice, slice, Targets]]:
    for rows in chunks:
        yield rows, *targets.within(rows)


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Targets,
        functions: Sequence[RowFunction],
        worker: _Worker,
        chunks: list[slice],
        *parameters: Tensor,
    ) -> tuple[Tensor, ...]:
        results = [worker.forward(hidden, rows, part, graph=False) for rows, _, part in _parts(targets, chunks)]
        worker.finish()
        ctx.save_for_backward(hidden)
        ctx.targets, ctx.functions, ctx.worker, ctx.chunks = targets, functions, worker, chunks
        return tuple(torch.cat(columns) for columns in zip(*results, strict=True))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        (hidden,) = ctx.saved_tensors
        grad_hidden = torch.empty_like(hidden)
        slopes = [None if gradient is None else _noticed(gradient) for gradient in gradients]
        for rows, part, targets in _parts(ctx.targets, ctx.chunks):
            ctx.worker.forward(hidden, rows, targets, graph=True)
            own = [
                None if slope is None else slope[part if function.per_target else rows]
                for function, slope in zip(ctx.functions, slopes, strict=True)
            ]
            grad_hidden[rows] = ctx.worker.backward(own)
        return grad_hidden, None, None, None, None, *ctx.worker.finish()


class _SamePass(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        targets: Targets,
        worker: _Worker,
        loss: Callable[[slice, Tensor], Tensor],
        chunks: Sequence[slice],
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor]:
        grad_hidden = torch.empty_like(hidden)
        total, values = None, []
        for rows, part, own in _parts(targets, chunks):
            (value,) = worker.forward(hidden, rows, own, graph=True)
            leaf = value.detach().requires_grad_()
            with torch.enable_grad():
                chunk_loss = loss(part, leaf)
            (gradient,) = torch.autograd.grad(chunk_loss, leaf)
            grad_hidden[rows] = worker.backward((_noticed(gradient),))
            total = chunk_loss.detach() if total is None else total + chunk_loss.detach()
            values.append(value.detach())
        ctx.gradients = (grad_hidden, *worker.finish())
        log_prob = torch.cat(values)
        ctx.mark_non_differentiable(log_prob)
        assert total is not None
        return total, log_prob

    @staticmethod
    def backward(ctx: Any, grad_loss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.gradients
        del ctx.gradients
        if grad_loss != 1:
            for gradient in gradients:
                gradient.mul_(grad_loss)
        return gradients[0], None, None, None, None, *gradients[1:]
