"""What a run trains, saves and takes up again: all weights of a model, or an adapter on them."""

from __future__ import annotations

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
from kilter.model.loading import (
    adapter_base_of,
    check_same_vocabulary,
    copy_of,
    load_model,
    load_scorer,
    no_bar_for_a_directory,
    pick_device,
)
from kilter.model.scorer import Scorer
from kilter.model.workers import load_state
from kilter.train.config import AlignConfig, RunConfig
from kilter.train.writing import system_errors

MODEL, ADAPTER = "model", "adapter"


def load_policy(name: str, config: RunConfig, checkpoint: Checkpoint | None) -> Scorer:
    """The model to train: the one named, with an adapter if that is what is trained, or where the run left it.

    Raises ConfigError where settings of an adapter and the model do not go together.
    """
    left_at = None if checkpoint is None else checkpoint.path
    source = str(left_at / MODEL) if left_at is not None and (left_at / MODEL).is_dir() else name
    policy = _load(source, config)
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


def load_reference(policy: Scorer, config: AlignConfig, checkpoint: Checkpoint | None) -> Scorer:
    """The reference: another model, or what the policy was before the run: one copy of the weights, for an adapter."""
    if config.reference is None and has_adapter(policy.model):
        return reference_of(policy)
    if config.reference is None and checkpoint is None:
        return copy_of(policy)
    other = _load(config.reference or config.model, config)
    check_same_vocabulary(policy, other)
    return other


def _load(name: str, config: RunConfig) -> Scorer:
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


def save_weights(
    directory: Path,
    policy: Scorer,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    *,
    state: dict[str, Tensor] | None = None,
) -> None:
    """What a checkpoint keeps of the policy: an adapter by itself, or the model as transformers loads it.

    `state` is the whole state of a sharded model.
    """
    if has_adapter(policy.model):
        _save_adapter(directory / ADAPTER, policy.model, name)
    else:
        _save_model(directory / MODEL, policy.model, tokenizer, state)


def restore_weights(policy: Scorer, directory: Path) -> None:
    """Give the policy what `save_weights` wrote."""
    if has_adapter(policy.model):
        load_adapter_weights(policy.model, directory / ADAPTER)
    else:
        saved = load_model(str(directory / MODEL), policy.device, policy.model.dtype)
        load_state(policy.model, saved.state_dict())


def save_result(
    directory: Path,
    policy: Scorer,
    tokenizer: PreTrainedTokenizerFast,
    name: str,
    card: str,
    *,
    merged: bool,
    state: dict[str, Tensor] | None = None,
) -> None:
    """Write model or adapter, tokenizer and model card so that transformers (with peft, for an adapter) loads them.

    `state` is the whole state of a sharded model.
    """
    if not has_adapter(policy.model):
        _save_model(directory, policy.model, tokenizer, state)
    elif merged:
        _save_model(directory, merge(policy.model), tokenizer)
    else:
        _save_adapter(directory, policy.model, name)
        tokenizer.save_pretrained(directory)
    (directory / "README.md").write_text(card, encoding="utf-8")


def weights_size(policy: Scorer) -> int:
    """Bytes that `save_weights` writes."""
    saved = (p for p in policy.model.parameters() if p.requires_grad or not has_adapter(policy.model))
    return sum(p.numel() * p.element_size() for p in saved)


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
