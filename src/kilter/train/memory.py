"""How large a tree the memory has room for: `--node-budget auto`, and what to say when there was too little."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kilter.data.checkpoints import gigabytes
from kilter.errors import OutOfMemoryError
from kilter.model.head import CHUNK_LOGITS
from kilter.model.prepared import PreparedTree
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree
from kilter.train.batches import Batch

# Beyond this many nodes a step is no faster; on a CPU 2,048 come within 2% (benchmarks/ways_to_train.py).
ENOUGH = 8192
MULTIPLE = 64
# Two sizes of tree to weigh; and how much more a node was seen to take than is kept of it, through the allocator's
# holes and backward's own work: 1.3 times at the 8m shape, 1.6 at 135m.
PROBES, SLACK = (128, 384), 1.6

# How PyTorch says that a CPU's memory is used up; GPUs have an exception of their own.
_CPU_WORDS = ("can't allocate memory", "not enough memory")
_CGROUP = Path("/sys/fs/cgroup")


def fitting_node_budget(policy: Scorer, *, updated: bool = False, reserved: int = 0) -> int:
    """The largest node budget that a training step has memory for: a multiple of 64, at most `ENOUGH`.

    What forward keeps for backward is weighed on two small trees; it grows in proportion to the nodes. `updated` says
    that gradients and moments are there already; `reserved` bytes are left for what may come. Raises OutOfMemoryError
    where nothing fits.
    """
    per_node = SLACK * _bytes_per_node(policy)
    trained = [p for p in policy.parameters() if p.requires_grad]
    gradients_and_moments = 0 if updated else sum(p.numel() * (p.element_size() + 8) for p in trained)
    logits = 4 * 4 * CHUNK_LOGITS
    free = free_memory(policy.device)
    room = free - gradients_and_moments - logits - reserved
    nodes = int(room / per_node) // MULTIPLE * MULTIPLE
    if nodes < MULTIPLE:
        raise OutOfMemoryError(
            f"{gigabytes(free)} of memory are free; gradients and moments take {gigabytes(gradients_and_moments)}, and "
            f"{MULTIPLE} nodes {gigabytes(int(MULTIPLE * per_node))}; free some, or try --lora-rank 16, "
            "--weights bfloat16, --optimizer adafactor or --activation-checkpointing"
        )
    return min(nodes, ENOUGH)


def free_memory(device: torch.device) -> int:
    """Bytes that may still be taken: of the GPU, or of the machine and this process's control group."""
    if device.type == "cuda":
        return (
            int(torch.cuda.mem_get_info(device)[0])
            + torch.cuda.memory_reserved(device)
            - torch.cuda.memory_allocated(device)
        )
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        facts = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return free
    # Pages of files are given back when they are needed.
    return free if limit == "max" else min(free, int(limit) - used + int(facts.get("inactive_file", 0)))


@contextmanager
def told_of_memory(policy: Scorer, batch: Batch) -> Iterator[None]:
    """Turn running out of memory into an OutOfMemoryError that says which node budget would fit."""
    try:
        yield
        return
    except (torch.OutOfMemoryError, MemoryError):
        pass
    except RuntimeError as error:
        if not any(words in str(error) for words in _CPU_WORDS):
            raise
    policy.zero_grad()
    largest = max(len(micro.tree) for micro in batch.scored)
    fitting = half = max(MULTIPLE, largest // 2 // MULTIPLE * MULTIPLE)
    # A sharded model runs on all workers together, and the others may have had memory enough.
    with suppress(torch.OutOfMemoryError, MemoryError, RuntimeError):
        fitting = half if batch.workers.sharded else min(fitting_node_budget(policy, updated=True), half)
    raise OutOfMemoryError(
        f"out of memory in a tree of {largest:,} nodes; about {fitting:,} would fit: go on with --resume and "
        f"--node-budget {fitting} (or auto)"
    )


def _bytes_per_node(policy: Scorer) -> float:
    """What forward keeps of a node; with activation checkpointing, also what one layer keeps while it is run again."""

    def kept() -> float:
        small, large = (_kept_for_backward(policy, nodes) for nodes in PROBES)
        return (large - small) / (PROBES[1] - PROBES[0])

    model = policy.model
    if not model.is_activation_checkpointing:
        return kept()
    by_layers = kept()
    model.activation_checkpointing_disable()
    whole = kept()
    policy.recompute_activations()
    return by_layers + whole / int(model.config.num_hidden_layers)


def _kept_for_backward(policy: Scorer, nodes: int) -> int:
    """Bytes of the distinct tensors, other than weights, that a forward of a tree keeps."""
    draw = np.random.default_rng(0)
    ids = draw.integers(0, policy.head.vocabulary, nodes, dtype=np.int32)
    tree = PreparedTree(TokenTree.build([TokenSequence(ids, first=1)]), policy.device)
    weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        policy.hidden(tree)
    return sum(kept.values())
