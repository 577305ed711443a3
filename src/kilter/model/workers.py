"""The processes that torchrun started for one run: what they add up, agree on, and leave to the first of them.

Replicated, each holds all weights, and gradients are added up once a step. Sharded (FSDP2, arXiv 2304.11277), each
holds a part of every weight, gradient and moment, and gathers a layer's weights while that layer runs.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from rich.console import Console
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from kilter.errors import ConfigError, WorkerError
from kilter.model.scorer import Scorer

T = TypeVar("T")
CPU = torch.device("cpu")

# The longest that one worker may keep the others waiting: a checkpoint or the proof of a large model takes minutes.
PATIENCE = timedelta(minutes=30)


@dataclass(frozen=True)
class Workers:
    """This worker's number and how many there are. One alone does nothing here: all sums are its own.

    What says "together" must be called by all workers, in the same order.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = CPU  # where what is told to each other lies
    sharded: bool = False

    @property
    def is_main(self) -> bool:
        """Whether this worker writes the run directory and tells what is going on."""
        return self.rank == 0

    def console(self, console: Console) -> Console:
        """Where this worker may print: only the first is heard."""
        return console if self.is_main else Console(file=io.StringIO(), quiet=True)

    def sum_(self, tensor: Tensor) -> Tensor:
        """Together: the sum over workers, in place."""
        if self.count > 1:
            dist.all_reduce(tensor)
        return tensor

    def total(self, value: float) -> float:
        """Together: the sum over workers of a number."""
        return float(self.sum_(self._tensor(value))) if self.count > 1 else value

    def largest(self, value: int) -> int:
        """Together: the largest of the workers' numbers."""
        if self.count == 1:
            return value
        tensor = self._tensor(value)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def of_main(self, value: float) -> float:
        """Together: the first worker's number."""
        if self.count == 1:
            return value
        tensor = self._tensor(value)
        dist.broadcast(tensor, 0)
        return float(tensor)

    def on_main(self, work: Callable[..., T], *given: Any, **named: Any) -> T | None:
        """Together: the first worker does the work, the others wait for it.

        Raises what it raises, and on the others a WorkerError.
        """
        if self.count == 1:
            return work(*given, **named)
        result, failed = None, 1
        try:
            if self.is_main:
                result = work(*given, **named)
            failed = 0
        finally:
            if self.largest(failed) and not self.is_main:
                raise WorkerError("the first worker stopped, and has said why")
        return result

    def meet(self) -> None:
        """Together: wait until all are here."""
        self.largest(0)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Together: the workers' tensors, which are alike in type and shape, on the CPU."""
        if self.count == 1:
            return [tensor]
        mine = tensor.to(self.device)
        everyone = [torch.empty_like(mine) for _ in range(self.count)]
        dist.all_gather(everyone, mine)
        return [one.cpu() for one in everyone]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Together: add up the workers' gradients. Sharded ones have been, in backward."""
        if self.count == 1 or self.sharded:
            return
        under_way = []
        for parameter in parameters:
            if parameter.requires_grad:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                under_way.append(dist.all_reduce(parameter.grad, async_op=True))
        for work in under_way:
            work.wait()

    def spread(self, *scorers: Scorer | None) -> None:
        """Together: give all workers the first one's weights, then shard them if that was asked for."""
        for scorer in (scorer for scorer in scorers if scorer is not None and self.count > 1):
            for tensor in scorer.state_dict().values():
                dist.broadcast(tensor, 0)
            if self.sharded:
                _shard(scorer)

    @contextmanager
    def gathered(self, scorer: Scorer) -> Iterator[None]:
        """Together: where a sharded scorer's model may be called by itself, as to generate; all workers do the same."""
        if not isinstance(scorer, FSDPModule):
            yield
            return
        scorer.unshard()
        try:
            yield
        finally:
            scorer.reshard()

    def whole_state(self, module: nn.Module) -> dict[str, Tensor] | None:
        """Together: a sharded module's whole state on the first worker's CPU (elsewhere empty); None if not sharded."""
        if not self.sharded:
            return None
        state: dict[str, Tensor] = {}
        gathered: dict[int, Tensor] = {}  # a tied weight is one tensor under two names
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in gathered:
                gathered[id(tensor)] = self.whole(tensor)
            state[name] = gathered[id(tensor)]
        return state if self.is_main else {}

    def whole(self, tensor: Tensor, like: Tensor | None = None) -> Tensor:
        """Together: a tensor put together from its shards, on the first worker's CPU (elsewhere empty).

        `like` is the sharded tensor whose part a plain one is.
        """
        tensor = tensor.detach()
        if isinstance(like, DTensor) and tensor.shape == own_part(like).shape:
            mesh, placements = like.device_mesh, like.placements
            tensor = DTensor.from_local(tensor, mesh, placements, shape=like.shape, stride=like.stride())
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        return full.cpu() if self.is_main else torch.empty(0)

    def _tensor(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.device)


ALONE = Workers()


@contextmanager
def open_workers(*, device: str = "auto", shard: bool = False, batch_size: int) -> Iterator[Workers]:
    """The workers that torchrun started, as its environment says; without it, one alone.

    On GPUs each takes the one of its local rank. A process group that is there already is used, and left. Raises
    ConfigError where the settings do not go with that, and WorkerError where another worker has gone.
    """
    if shard and "WORLD_SIZE" not in os.environ:
        raise ConfigError(
            "--shard splits weights over workers, and there is one; leave it out, or start several with "
            "torchrun --nproc-per-node N -m kilter ..."
        )
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield ALONE
        return
    if batch_size < count:
        raise ConfigError(
            f"a batch has {batch_size} examples for {count} workers; use --batch-size {count} or more, or fewer workers"
        )
    place = _place(device, int(os.environ["LOCAL_RANK"]))
    gpu = place.type == "cuda"
    begun_here = not dist.is_initialized()
    if begun_here:
        dist.init_process_group("nccl" if gpu else "gloo", timeout=PATIENCE, device_id=place if gpu else None)
    try:
        yield Workers(int(os.environ["RANK"]), count, place, shard)
    except RuntimeError as error:
        if not any(words in str(error) for words in _LOST):
            raise
        raise WorkerError(f"another worker has gone, and may have said why: {str(error).splitlines()[0]}") from None
    finally:
        if begun_here:
            leave()


def leave() -> None:
    """Close the process group, so that the process can end.

    Gloo's threads let go of the last tensors a moment after their results are there. They need Python's lock for that,
    and where the interpreter is closing already, asking for it aborts the process (pytorch pull request 179291).
    """
    dist.destroy_process_group()
    time.sleep(0.2)


# How gloo and NCCL say that nobody is there.
_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "NCCL communicator was aborted")


def own_part(tensor: Tensor) -> Tensor:
    """What this worker holds of a tensor, in the same memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def part_for(full: Tensor, like: Tensor) -> Tensor:
    """What a worker holds of a whole tensor that is sharded as `like` is; all of it, where that is not."""
    if not isinstance(like, DTensor) or full.shape != like.shape:
        return full
    return own_part(distribute_tensor(full.to(like.device), like.device_mesh, like.placements, src_data_rank=None))


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module, sharded or not, the weights of a whole state."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            own_part(tensor).copy_(part_for(state[name], tensor))


def _place(device: str, local: int) -> torch.device:
    wants_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if not wants_gpu:
        if device not in ("auto", "cpu"):
            raise ConfigError(f"under torchrun each worker takes a GPU of its own; give --device auto, not {device}")
        return CPU
    if local >= torch.cuda.device_count():
        raise ConfigError(
            f"worker {local} of this machine needs a GPU of its own, and there are {torch.cuda.device_count()}; "
            "give torchrun at most as many --nproc-per-node"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)


def _shard(scorer: Scorer) -> None:
    """FSDP2: a group for each layer, and the Scorer as the root, within whose methods the head's weight is read."""
    model = scorer.model
    names = set(model._no_split_modules or ())
    trained = any(p.requires_grad for p in model.parameters())
    for layer in reversed([m for m in model.modules() if type(m).__name__ in names]):
        fully_shard(layer)
    # The head of a reference is read after its own forward, beside the policy's: it stays gathered.
    fully_shard(scorer, reshard_after_forward=trained)
    for method in ("loss", "beside"):
        register_fsdp_forward_method(scorer, method)
    for module in scorer.modules():
        if isinstance(module, FSDPModule):
            # Losses are divided by the denominator of the global batch: gradients are added, not averaged.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
