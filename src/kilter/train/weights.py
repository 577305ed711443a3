"""What a run trains, saves and takes up again: all weights of a model, or an adapter on them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from kilter.data.checkpoints import Checkpoint
from kilter.errors import ConfigError
from kilter.model.adapter import (
    LoraSettings,
    has_adapter,
    load_adapter_weights,
    merge,
    reference_of,
    save_adapter,
    train_adapter,
)
from kilter.model.fingerprint import model_fingerprint
from kilter.model.loading import (
    adapter_base_of,
    load_model,
    load_scorer,
    no_bar_for_a_directory,
    pick_device,
)
from kilter.model.scorer import Scorer
from kilter.model.workers import ALONE, Workers, load_state
from kilter.train.config import RunConfig
from kilter.train.writing import system_errors

MODEL, ADAPTER = "model", "adapter"


def load_policy(name: str, config: RunConfig, checkpoint: Checkpoint | None) -> Scorer:
    """The model to train: the one named, with an adapter if that is what is trained, or where the run left it.

    Raises ConfigError where settings of an adapter and the model do not go together.
    """
    left_at = None if checkpoint is None else checkpoint.path
    source = str(left_at / MODEL) if left_at is not None and (left_at / MODEL).is_dir() else name
    policy = load_named(source, config)
    if config.lora_rank is not None or has_adapter(policy.model):
        train_adapter(policy.model, lora_settings(config))
        if left_at is not None:
            load_adapter_weights(policy.model, left_at / ADAPTER)
    if config.shard and has_adapter(policy.model):
        raise ConfigError("shard splits the weights that are trained, and an adapter has few; leave it out")
    if config.quantise != "none" and not has_adapter(policy.model):
        raise ConfigError("a quantised model cannot be trained, only an adapter on it; give lora_rank")
    if config.merge and not has_adapter(policy.model):
        raise ConfigError("merge is for adapters, and all weights are trained here; leave it out or give lora_rank")
    if config.activation_checkpointing:
        policy.recompute_activations()
    return policy


def start_fingerprint(policy: Scorer, checkpoint: Checkpoint | None) -> dict[str, str]:
    """What the manifest says of the model that the policy began from, as far as a resumed run still needs it: the base
    of an adapter always, all weights only until there is a checkpoint of them."""
    if has_adapter(policy.model):
        return {"model_sha256": model_fingerprint(reference_of(policy))}
    return {"model_sha256": model_fingerprint(policy)} if checkpoint is None else {}


def load_named(name: str, config: RunConfig) -> Scorer:
    """A model as the settings say. Raises ConfigError where it cannot be sharded as they say."""
    scorer = load_scorer(
        name,
        precision=config.precision,
        weights=config.weights,
        device=pick_device(config.device),
        strict=config.strict,
        quantise=config.quantise,
    )
    if config.shard and scorer.path == "separate":
        raise ConfigError(
            f"{type(scorer.model).__name__} is scored one sequence at a time, as many times as a worker has sequences; "
            "sharding needs all workers to run alike; leave shard out"
        )
    return scorer


def lora_settings(config: RunConfig) -> LoraSettings | None:
    """The adapter that is asked for, if one is."""
    if config.lora_rank is None:
        return None
    return LoraSettings(
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        dropout=config.lora_dropout or 0.0,
        targets=config.lora_targets,
        rank_stabilised=config.lora_variant == "rslora",
        weight_decomposed=config.lora_variant == "dora",
        seed=config.seed,
    )


@dataclass(frozen=True)
class Weights:
    """The weights that a run trains, as they are saved and taken up; `name` is the model that they began from.

    A `state` is that of a sharded model, put together on the first worker.
    """

    policy: Scorer
    tokenizer: PreTrainedTokenizerFast
    name: str
    workers: Workers = ALONE

    @property
    def size(self) -> int:
        """Bytes that `save` writes."""
        model = self.policy.model
        saved = (p for p in model.parameters() if p.requires_grad or not has_adapter(model))
        return sum(p.numel() * p.element_size() for p in saved)

    def state(self) -> dict[str, Tensor] | None:
        """Together: what the other methods take."""
        return self.workers.whole_state(self.policy.model)

    def save(self, directory: Path, state: dict[str, Tensor] | None) -> None:
        """What a checkpoint keeps: an adapter by itself, or the model as transformers loads it."""
        if has_adapter(self.policy.model):
            _save_adapter(directory / ADAPTER, self.policy.model, self.name)
        else:
            _save_model(directory / MODEL, self.policy.model, self.tokenizer, state)

    def restore(self, directory: Path) -> None:
        """Together: give the policy what `save` wrote."""
        model = self.policy.model
        if has_adapter(model):
            load_adapter_weights(model, directory / ADAPTER)
        else:
            saved = load_model(str(directory / MODEL), self.policy.device, model.dtype)
            load_state(model, saved.state_dict())

    def save_result(self, directory: Path, state: dict[str, Tensor] | None, card: str, *, merged: bool) -> None:
        """Model or adapter, tokenizer and model card, so that transformers (with peft, for an adapter) loads them."""
        model = self.policy.model
        if not has_adapter(model):
            _save_model(directory, model, self.tokenizer, state)
        elif merged:
            _save_model(directory, merge(model), self.tokenizer)
        else:
            _save_adapter(directory, model, self.name)
            with system_errors():
                self.tokenizer.save_pretrained(directory)
        (directory / "README.md").write_text(card, encoding="utf-8")


def _save_adapter(directory: Path, model: PreTrainedModel, name: str) -> None:
    with system_errors():
        save_adapter(model, directory, adapter_base_of(name) or name)


def _save_model(
    directory: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    state: dict[str, Tensor] | None = None,
) -> None:
    with no_bar_for_a_directory(str(directory.parent)), system_errors():
        model.save_pretrained(directory, state_dict=state)
        tokenizer.save_pretrained(directory)
