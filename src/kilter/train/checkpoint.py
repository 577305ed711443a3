"""What a checkpoint holds, and how a run is taken up from it, to the last bit.

model/ or adapter/     the weights, as transformers or peft load them
training.safetensors   the optimiser's tensors, and the states of random generators
progress.json          how far the run has come, and the numbers of the optimiser
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kilter.data.checkpoints import Checkpoint, Checkpoints, fault_of
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged
from kilter.errors import RunError
from kilter.train.config import RunConfig
from kilter.train.optimizer import Updater
from kilter.train.writing import system_errors

TRAINING, PROGRESS = "training.safetensors", "progress.json"
_SEPARATOR = "/"


@dataclass
class Progress:
    """How far a run has come: updates made, the last of them to be evaluated, the best evaluation (its step, its
    loss, and how many came after it), and seconds spent in steps."""

    step: int = 0
    evaluated: int = -1
    best_step: int | None = None
    best_loss: float | None = None
    since_best: int = 0
    seconds: float = 0.0

    def note(self, loss: float) -> bool:
        """Take account of an evaluation at this step; returns whether it is the best so far."""
        self.evaluated = self.step
        if self.best_loss is not None and not loss < self.best_loss:
            self.since_best += 1
            return False
        self.best_step, self.best_loss, self.since_best = self.step, loss, 0
        return True


class Keeper:
    """Saves a run's state when that is due, and gives it back.

    `save_weights` writes the weights into a directory, `reference` is the reference's fingerprint (None without one),
    and `weights_size` how many bytes the weights take.
    """

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        method: str,
        *,
        save_weights: Callable[[Path], None],
        weights_size: int,
        reference: str | None,
        begin: Checkpoint | None = None,
    ) -> None:
        self.run, self.config, self.method = run, config, method
        self.save_weights, self.weights_size, self.reference = save_weights, weights_size, reference
        self.begin = begin
        later = [c.step for c in Checkpoints(run.checkpoints) if begin is None or c.step > begin.step]
        self.checkpoints = Checkpoints(run.checkpoints, keep=config.keep, doubtful=later)
        self.saved_step = 0 if begin is None else begin.step
        self.saved_at = time.monotonic()

    @property
    def keeps_best(self) -> bool:
        return self.config.keep_best or self.config.patience is not None

    def due(self, progress: Progress) -> bool:
        """Whether it is time for a checkpoint."""
        if progress.step == self.saved_step:
            return False
        if self.config.save_steps is not None:
            return progress.step % self.config.save_steps == 0
        return self.config.save_seconds is not None and time.monotonic() - self.saved_at >= self.config.save_seconds

    def save(self, progress: Progress, updater: Updater) -> Path:
        """Save a checkpoint, if there is none of this step yet; returns where it is."""
        path = self.checkpoints.at(progress.step)
        if progress.step == self.saved_step and path.is_dir():
            return path
        tensors, numbers = flattened({"optimizer": updater.state(), "random": random_state()})
        size = self.weights_size + sum(t.numel() * t.element_size() for t in tensors.values())
        facts = {
            "progress": asdict(progress),
            "reference_sha256": self.reference,
            "lengths": self.run.lengths(),
            "numbers": numbers,
        }
        with self.checkpoints.save(progress.step, size=size, pinned=self._pinned(progress)) as directory:
            self.save_weights(directory)
            with system_errors():
                save_file(_apart(tensors), directory / TRAINING)
            (directory / PROGRESS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        self.saved_step, self.saved_at = progress.step, time.monotonic()
        return path

    def append_metrics(self, row: Mapping[str, object]) -> None:
        """Add a row to the run's metrics; where that fails, the error says what there is to go on from."""
        try:
            self.run.append_metrics(row)
        except RunError as error:
            raise RunError(self.checkpoints.account(error, f"metrics in {self.run.path}", 0)) from error

    @contextmanager
    def result(self) -> Iterator[Path]:
        """Yield an empty directory that becomes the run's model when the block succeeds."""
        try:
            with staged(self.run.model) as directory:
                yield directory
        except RunError as error:
            account = self.checkpoints.account(error, f"the model in {self.run.model}", self.weights_size)
            raise RunError(account) from error

    def restore(self, updater: Updater) -> Progress:
        """Where the run stands: at its beginning, or at the checkpoint it is taken up from.

        Raises RunError where the reference is not the one that the checkpoint was measured against.
        """
        if self.begin is None:
            self.run.cut_back({})
            return Progress()
        facts = read_facts(self.begin)
        if facts["reference_sha256"] != self.reference:
            raise RunError(
                f"the run was measured against the reference {facts['reference_sha256']}, and this one is "
                f"{self.reference}; restore the model it began with, or begin another run with another --out"
            )
        state = unflattened(load_file(self.begin.path / TRAINING), facts["numbers"])
        updater.load_state(state.get("optimizer", {}))
        set_random_state(state["random"])
        self.run.cut_back(facts["lengths"])
        return Progress(**facts["progress"])

    def best(self, progress: Progress, warn: Callable[[str], None]) -> Checkpoint | None:
        """The checkpoint of the best evaluation, where one is to be kept and that was not the last.

        Where it is not whole, `warn` is told, and it is None.
        """
        if not self.keeps_best or progress.best_step in (None, progress.step):
            return None
        checkpoint = Checkpoint(self.checkpoints.at(progress.best_step), progress.best_step)
        fault = fault_of(checkpoint)
        if fault is None:
            return checkpoint
        warn(f"{checkpoint.path}, of the best evaluation, is not whole: {fault}; the last model is the result")
        return None

    def _pinned(self, progress: Progress) -> set[int]:
        """The best of each checkpoint that will be left: a run taken up from it may end there."""
        older = [c for c in self.checkpoints if c.step < progress.step]
        newest = older[max(0, len(older) - self.config.keep + 1) :]
        best = {progress.best_step} | {read_facts(c)["progress"]["best_step"] for c in newest}
        return {step for step in best if step is not None}


def read_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    try:
        facts: dict[str, Any] = json.loads((checkpoint.path / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {"progress": asdict(Progress())}
    return facts


def random_state() -> dict[str, Tensor]:
    """The states of PyTorch's generators, as tensors of bytes."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def flattened(nested: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Nested dictionaries as two flat ones, of tensors and of plain values, with joined keys."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for key, value in nested.items():
        name = prefix + str(key)
        if isinstance(value, Mapping):
            inner = flattened(value, name + _SEPARATOR)
            tensors |= inner[0]
            plain |= inner[1]
        elif isinstance(value, Tensor):
            tensors[name] = value.detach().cpu().contiguous()
        else:
            plain[name] = value
    return tensors, plain


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with no memory in common, as safetensors wants it: optimisers may share tables."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        known = tensor.data_ptr() in seen and tensor.numel() > 0
        apart[name] = tensor.clone() if known else tensor
        seen.add(tensor.data_ptr())
    return apart


def unflattened(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> dict[str, Any]:
    """What `flattened` was given, with strings for keys."""
    nested: dict[str, Any] = {}
    for name, value in [*tensors.items(), *plain.items()]:
        *path, last = name.split(_SEPARATOR)
        inner = nested
        for key in path:
            inner = inner.setdefault(key, {})
        inner[last] = value
    return nested
