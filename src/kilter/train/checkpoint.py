"""What a checkpoint holds, and how a run is taken up from it, to the last bit.

model/ or adapter/     the weights, as transformers or peft load them
reference.safetensors  the weights of a reference that moves
training.safetensors   the optimiser's tensors, and the states of random generators
progress.json          how far the run has come, and the numbers of the optimiser
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor

from kilter.data.checkpoints import Checkpoint, Checkpoints, fault_of
from kilter.data.run_directory import RunDirectory
from kilter.data.staging import staged
from kilter.errors import RunError
from kilter.model.workers import Workers
from kilter.train.config import RunConfig
from kilter.train.moving_reference import MovingReference
from kilter.train.optimizer import Updater
from kilter.train.weights import Weights
from kilter.train.writing import system_errors

TRAINING, PROGRESS = "training.safetensors", "progress.json"
REFERENCE, PREVIOUS = "reference.safetensors", "previous.safetensors"  # models that follow the policy
_SEPARATOR = "/"


@dataclass
class Progress:
    """How far a run has come: updates made, the last of them to be evaluated, the best evaluation (its step, its
    loss, and how many came after it), seconds spent in steps, what the objective remembers, the last measurement of
    answer KL (its step, value and standard error), the last step that was within a limit on that, and what moves the
    weight of a penalty on KL."""

    step: int = 0
    evaluated: int = -1
    best_step: int | None = None
    best_loss: float | None = None
    since_best: int = 0
    seconds: float = 0.0
    objective: dict[str, float] = field(default_factory=dict)
    measured_step: int = -1
    answer_kl: float | None = None
    answer_kl_se: float | None = None
    within_step: int | None = None
    controller: dict[str, float] = field(default_factory=dict)

    def note(self, loss: float) -> bool:
        """Take account of an evaluation at this step; returns whether it is the best so far."""
        self.evaluated = self.step
        if self.best_loss is not None and not loss < self.best_loss:
            self.since_best += 1
            return False
        self.best_step, self.best_loss, self.since_best = self.step, loss, 0
        return True


class Keeper:
    """Saves a run's state when that is due, and gives it back; `reference` is the fingerprint of the reference that the
    run began with, `followers` are models that follow the policy, by the files that their weights go to."""

    def __init__(
        self,
        run: RunDirectory,
        config: RunConfig,
        method: str,
        weights: Weights,
        *,
        reference: str | None = None,
        followers: Mapping[str, MovingReference] | None = None,
        begin: Checkpoint | None = None,
    ) -> None:
        self.run, self.config, self.method = run, config, method
        self.weights, self.workers = weights, weights.workers
        self.reference, self.followers, self.begin = reference, followers or {}, begin
        later = [c.step for c in Checkpoints(run.checkpoints) if begin is None or c.step > begin.step]
        self.checkpoints = Checkpoints(run.checkpoints, keep=config.keep, doubtful=later)
        self.saved_step = 0 if begin is None else begin.step
        self.saved_at = time.monotonic()

    @property
    def keeps_best(self) -> bool:
        return self.config.keep_best or self.config.patience is not None

    def due(self, progress: Progress) -> bool:
        """Together: whether it is time for a checkpoint."""
        if progress.step == self.saved_step:
            return False
        if self.config.save_steps is not None:
            return progress.step % self.config.save_steps == 0
        if self.config.save_seconds is None:
            return False
        return bool(self.workers.of_main(time.monotonic() - self.saved_at >= self.config.save_seconds))

    def save(self, progress: Progress, updater: Updater) -> Path:
        """Together: save a checkpoint, if there is none of this step yet; returns where it is."""
        path = self.checkpoints.at(progress.step)
        if progress.step == self.saved_step and self.workers.of_main(path.is_dir()):
            return path
        random = {kind: dict(enumerate(self.workers.gather(state))) for kind, state in random_state().items()}
        flat = flattened({"optimizer": updater.state(), "random": random})
        self.workers.on_main(self._write, progress, *flat, self.weights.state())
        self.saved_step, self.saved_at = progress.step, time.monotonic()
        return path

    def _write(
        self,
        progress: Progress,
        tensors: dict[str, Tensor],
        numbers: dict[str, Any],
        weights: dict[str, Tensor] | None,
    ) -> None:
        files = {TRAINING: _apart(tensors)} | {name: model.state() for name, model in self.followers.items()}
        written = (tensor for file in files.values() for tensor in file.values())
        size = self.weights.size + sum(tensor.numel() * tensor.element_size() for tensor in written)
        facts = {
            "progress": asdict(progress),
            "reference_sha256": self.reference,
            "lengths": self.run.lengths(),
            "numbers": numbers,
        }
        with self.checkpoints.save(progress.step, size=size, pinned=self._pinned(progress)) as directory:
            self.weights.save(directory, weights)
            with system_errors():
                for name, file in files.items():
                    save_file(file, directory / name)
            (directory / PROGRESS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")

    def append_metrics(self, row: Mapping[str, object]) -> None:
        """Add a row to the run's metrics; where that fails, the error says what there is to go on from."""
        try:
            self.run.append_metrics(row)
        except RunError as error:
            raise RunError(self.checkpoints.account(error, f"metrics in {self.run.path}", 0)) from error

    def finish(self, card: str) -> None:
        """Together: write the run's result, with its model card; there whole or not at all."""
        self.workers.on_main(self._write_result, self.weights.state(), card)

    def _write_result(self, state: dict[str, Tensor] | None, card: str) -> None:
        try:
            with staged(self.run.model) as directory:
                self.weights.save_result(directory, state, card, merged=self.config.merge)
        except RunError as error:
            account = self.checkpoints.account(error, f"the model in {self.run.model}", self.weights.size)
            raise RunError(account) from error

    def restore(self, updater: Updater) -> Progress:
        """Where the run stands: at its beginning, or at the checkpoint it is taken up from.

        Raises RunError where the reference is not the one that the checkpoint was measured against.
        """
        if self.begin is None:
            self.run.cut_back({})
            set_random_state({}, self.workers, self.config.seed)
            return Progress()
        facts = read_facts(self.begin)
        if facts["reference_sha256"] != self.reference:
            raise RunError(
                f"the run was measured against the reference {facts['reference_sha256']}, and this one is "
                f"{self.reference}; restore the model it began with, or begin another run with another --out"
            )
        state = unflattened(load_file(self.begin.path / TRAINING), facts["numbers"])
        updater.load_state(state.get("optimizer", {}))
        set_random_state(state["random"], self.workers, self.config.seed, self.begin.step)
        for name, model in self.followers.items():
            model.load_state(load_file(self.begin.path / name))
        self.run.cut_back(facts["lengths"])
        return Progress(**facts["progress"])

    def take_best(self, progress: Progress, console: Console) -> int:
        """Together: give the policy the weights of the best evaluation, if they are wanted; returns the step of those
        it has now. A checkpoint that is not whole is told of, and left."""
        best = progress.best_step
        if not self.keeps_best or best is None or best == progress.step:
            return progress.step
        checkpoint = Checkpoint(self.checkpoints.at(best), best)
        fault = fault_of(checkpoint)
        if not self.workers.of_main(fault is None):
            console.print(
                f"warning: {checkpoint.path}, of the best evaluation, is not whole: {fault}; the last model is the "
                "result",
                soft_wrap=True,
            )
            return progress.step
        self.weights.restore(checkpoint.path)
        console.print(f"the best evaluation was that of step {best}: its model is the result", highlight=False)
        return best

    def roll_back(self, progress: Progress, console: Console) -> Progress:
        """Together: give the policy the weights of the last checkpoint within a limit on KL; returns how far the run
        had come there. Raises RunError where that is not whole."""
        within = progress.within_step
        assert within is not None
        checkpoint = Checkpoint(self.checkpoints.at(within), within)
        fault = fault_of(checkpoint)
        if not self.workers.of_main(fault is None):
            raise RunError(f"{checkpoint.path}, the last one within the limit on KL, is not whole: {fault}")
        self.weights.restore(checkpoint.path)
        console.print(
            f"after step {progress.step} the KL of answers was {progress.answer_kl:.3f} nats: the model of step "
            f"{within} is the result",
            highlight=False,
        )
        return Progress(**read_facts(checkpoint)["progress"])

    def _pinned(self, progress: Progress) -> set[int]:
        """What each checkpoint that will be left has for its best, and for the last within a limit: a run taken up from
        it may end there."""
        older = [c for c in self.checkpoints if c.step < progress.step]
        newest = older[max(0, len(older) - self.config.keep + 1) :]
        left = [asdict(progress), *(read_facts(c)["progress"] for c in newest)]
        return {of[name] for of in left for name in ("best_step", "within_step") if of.get(name) is not None}


def read_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    try:
        facts: dict[str, Any] = json.loads((checkpoint.path / PROGRESS).read_bytes())
    except (OSError, ValueError):
        return {"progress": asdict(Progress())}
    return facts


def random_state() -> dict[str, Tensor]:
    """The states of PyTorch's generators on this worker, as tensors of bytes."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: Mapping[str, Mapping[str, Tensor]], workers: Workers, seed: int, step: int = 0) -> None:
    """Take up this worker's states; a worker beyond those that were saved begins a stream of its own."""
    name = str(workers.rank)
    if name not in state.get("cpu", {}):
        if not workers.is_main:
            torch.manual_seed(int(np.random.SeedSequence([seed, workers.rank, step]).generate_state(1)[0]))
        return
    torch.set_rng_state(state["cpu"][name])
    if name in state.get("cuda", {}) and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"][name])


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
