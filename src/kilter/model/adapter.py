"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685) by peft: one copy of the weights serves policy and reference.

A model holds at most two adapters. POLICY is trained. REFERENCE, frozen, is the state that a loaded adapter was found
in; where training began with a fresh adapter the reference is the base model, and there is none.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftType, TaskType, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import Embedding, LoraLayer
from peft.tuners.lora.layer import ParamWrapper
from peft.tuners.tuners_utils import cast_adapter_dtype
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kilter.errors import ConfigError, ModelError
from kilter.model.head import LogitsHead
from kilter.model.prepared import PreparedTree
from kilter.model.scorer import Scorer

POLICY, REFERENCE = "default", "reference"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"

# peft saves an adapter's names as its own wrapper of the model would have them.
_PREFIX = "base_model.model."
# Initialisations that leave the base weights as they are; all others move a part of them into the adapter.
_HARMLESS_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """A fresh adapter. `alpha` is twice the rank where None; the product of the two matrices is scaled by alpha / rank,
    or by alpha / sqrt(rank) if `rank_stabilised` (Kalajdzievski 2023, arXiv 2312.03732).

    `targets` are the ends of modules' names, None for all linear layers of the blocks (`default_targets`).
    `weight_decomposed` trains each row's magnitude by itself (DoRA, Liu et al. 2024, arXiv 2402.09353).
    Raises ConfigError for a rank below 1, an alpha or a dropout that is out of range, and for no targets at all.
    """

    rank: int = 16
    alpha: float | None = None
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None
    rank_stabilised: bool = False
    weight_decomposed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"an adapter's rank is {self.rank}; it must be 1 or more")
        if self.alpha is not None and not self.alpha > 0:
            raise ConfigError(f"an adapter's alpha is {self.alpha}; it must be above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"an adapter's dropout is {self.dropout}; it must be at least 0 and below 1")
        if self.targets is not None and not self.targets:
            raise ConfigError(
                "an adapter has no targets; name some layers, or leave targets out for all of the blocks'"
            )


def has_adapter(model: PreTrainedModel) -> bool:
    return POLICY in getattr(model, "peft_config", {})


def train_adapter(model: PreTrainedModel, settings: LoraSettings | None) -> None:
    """Make an adapter the only thing that is trained: a fresh one, or without settings the one the model has.

    The state of a loaded adapter is kept as the frozen REFERENCE. Raises ConfigError where there are both or neither.
    """
    if settings is not None:
        add_adapter(model, settings)
        return
    if not has_adapter(model):
        raise ConfigError("the model has no adapter to go on with; give settings for a fresh one")
    config = _config(model)
    if not config.inference_mode:
        raise ConfigError("the model's adapter is being trained already; load the model anew to begin from its state")
    config.inference_mode = False
    start = copy.deepcopy(config)
    start.lora_dropout, start.inference_mode = 0.0, True
    _inject(model, start, REFERENCE, seed=0)
    weights = _weights(model, POLICY)
    with torch.no_grad():
        for name, weight in _weights(model, REFERENCE).items():
            weight.copy_(weights[name])
    for layer in _layers(model):
        layer.set_adapter(POLICY)


def add_adapter(model: PreTrainedModel, settings: LoraSettings) -> None:
    """Put a fresh adapter into a model, in place, and freeze all else; its scores are the model's until it is trained.

    The class stays what it is. The adapter's weights are float32 at least, and drawn from `seed` alone. Raises
    ConfigError where the model has an adapter already, or a target names nothing that an adapter fits.
    """
    if has_adapter(model):
        raise ConfigError(
            "the model has an adapter already; go on with it (no settings), or merge it before a fresh one"
        )
    targets = default_targets(model) if settings.targets is None else settings.targets
    adapted = _targeted(model, targets)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank if settings.alpha is None else settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.dropout,
        target_modules=sorted(set(targets)),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in adapted),
        use_rslora=settings.rank_stabilised,
        use_dora=settings.weight_decomposed,
        task_type=TaskType.CAUSAL_LM,
    )
    _inject(model, config, POLICY, settings.seed)


def default_targets(model: PreTrainedModel) -> tuple[str, ...]:
    """The names of all linear layers of the blocks: of attention and of the MLPs, never the head or embeddings.

    Of a mixture of experts, attention alone: the experts are not layers but stacked parameters, and the router's
    choices are not to be trained by accident. Of a state-space mixer, the layer that goes in.
    """
    lists = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    linear = {
        name: module
        for name, module in model.named_modules()
        if name.startswith(lists) and isinstance(module, nn.Linear | Conv1D) and not _read_by_a_kernel(model, name)
    }
    if any(getattr(model.config, count, None) for count in ("num_local_experts", "num_experts", "n_routed_experts")):
        linear = {name: module for name, module in linear.items() if "att" in name.rpartition(".")[0]}
    return tuple(sorted({name.rpartition(".")[2] for name in linear}))


def load_adapter(model: PreTrainedModel, directory: Path) -> None:
    """Put an adapter that peft or kilter saved into its base model, unmerged and frozen until `train_adapter`.

    Raises ModelError where it is no LoRA adapter, is more than one (it replaces or changes weights of the base, so that
    switching it off would not give the base back), or does not fit the model.
    """
    config = adapter_config(directory)
    config.inference_mode, config.init_lora_weights = True, True
    try:
        _inject(model, config, POLICY, seed=0)
    except ValueError as error:
        raise ModelError(f"the adapter in {directory} does not fit its base model: {error}") from error
    if any(isinstance(layer, ParamWrapper) for layer in _layers(model)):
        raise ModelError(f"the adapter in {directory} is on stacked experts, which kilter cannot switch off and on")
    load_adapter_weights(model, directory)


def adapter_config(directory: Path) -> LoraConfig:
    """The configuration in an adapter's directory. Raises ModelError where kilter has no use for such an adapter."""
    try:
        config: Any = PeftConfig.from_pretrained(str(directory))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{directory / CONFIG_FILE} is no configuration that peft reads: {error}") from error
    if config.peft_type != PeftType.LORA:
        kind = getattr(config.peft_type, "value", config.peft_type)
        raise ModelError(f"{directory} holds an adapter of type {kind}; kilter reads those of type LORA")
    if reason := _more_than_an_adapter(config):
        raise ModelError(f"the adapter in {directory} {reason}; merge it with peft, and give the merged model")
    return config  # type: ignore[no-any-return]


def _more_than_an_adapter(config: LoraConfig) -> str | None:
    variants = [field.name for field in dataclasses.fields(config) if field.metadata.get("is_lora_variant")]
    if used := [name for name in variants if name != "use_dora" and getattr(config, name)]:
        return f"is of a kind that kilter does not know ({', '.join(used)})"
    for name in ("modules_to_save", "trainable_token_indices", "layer_replication", "target_parameters"):
        if getattr(config, name, None):
            return f"changes more than the layers it sits on ({name})"
    if config.bias != "none":
        return f"changes biases of its base (bias={config.bias!r})"
    if config.init_lora_weights not in _HARMLESS_STARTS:
        return f"began by changing its base (init_lora_weights={config.init_lora_weights!r})"
    return None


def save_adapter(model: PreTrainedModel, directory: Path, base_name: str) -> None:
    """Write the policy's adapter and nothing else; peft and `load_model` put it on the base that `base_name` names."""
    config = copy.deepcopy(_config(model))
    config.base_model_name_or_path, config.inference_mode = base_name, True
    if not isinstance(config.target_modules, str):
        config.target_modules = sorted(config.target_modules or ())  # peft's set has no order
    directory.mkdir(parents=True, exist_ok=True)
    weights = {_PREFIX + name: weight.contiguous() for name, weight in _weights(model, POLICY).items()}
    save_file(weights, directory / WEIGHTS_FILE, metadata={"format": "pt"})
    config.save_pretrained(str(directory))


def load_adapter_weights(model: PreTrainedModel, directory: Path) -> None:
    """Give the policy's adapter the weights saved in a directory, to the last bit.

    Raises ModelError where there are none, or they are not those of this adapter on this base.
    """
    path = directory / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{directory} has no {WEIGHTS_FILE}; save the adapter as safetensors")
    saved = {name.removeprefix(_PREFIX): weight for name, weight in load_file(path).items()}
    weights, base = _weights(model, POLICY), None
    for name in sorted(saved.keys() - weights.keys()):
        # peft adds the weights of an adapted embedding or head, changed or not.
        base = base or model.state_dict()
        if name not in base or not torch.equal(saved.pop(name).to(base[name]), base[name]):
            raise ModelError(f"{path} holds {name}, which is neither of the adapter nor as it is in its base model")
    if missing := sorted(weights.keys() - saved.keys()):
        raise ModelError(f"{path} lacks {len(missing)} of the adapter's {len(weights)} weights, such as {missing[0]}")
    for name, weight in weights.items():
        if weight.shape != saved[name].shape:
            shapes = f"{tuple(saved[name].shape)}, and the model's adapter {tuple(weight.shape)}"
            raise ModelError(f"{path} has {name} of shape {shapes}; give the rank, targets and base it was made with")
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(saved[name])


def merge(model: PreTrainedModel) -> PreTrainedModel:
    """A plain model, in memory of its own, whose weights contain the policy's adapter; `model` stays as it is.

    Raises ModelError where plain weights cannot say the same: an adapter on an embedding or head whose weight the other
    shares, a base in lower precision than float32 or quantised, or weights that are not finite.
    """
    if not has_adapter(model):
        raise ModelError("the model has no adapter to be merged; save it as it is")
    if shared := _adapted_and_tied(model):
        raise ModelError(
            f"the adapter is on {shared}, whose weight is tied: merged, it would change the other end too; "
            "save the adapter by itself"
        )
    for layer in _layers(model):
        type_ = layer.get_base_layer().weight.dtype
        if type_ not in (torch.float32, torch.float64):
            raise ModelError(f"the base model's weights are {type_}, which would round the adapter away; load float32")
    merged = copy.deepcopy(model)
    for name, layer in [(name, module) for name, module in merged.named_modules() if isinstance(module, LoraLayer)]:
        try:
            layer.merge(safe_merge=True, adapter_names=[POLICY])
        except (ValueError, RuntimeError) as error:
            raise ModelError(f"the adapter on {name} cannot be merged: {error}") from error
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, layer.get_base_layer())
    del merged.peft_config
    merged._hf_peft_config_loaded = False
    return merged.requires_grad_(True)


def reference_of(policy: Scorer) -> Scorer:
    """What an adapted policy began from, by the same path and with the same weights in memory.

    Raises ModelError where there is no adapter, or a loaded one that `train_adapter` was not called for.
    """
    if not has_adapter(policy.model):
        raise ModelError("the model has no adapter to be switched off; its reference is a frozen copy of it")
    if _config(policy.model).inference_mode:
        raise ModelError("the model's adapter was loaded and not kept as a reference; call train_adapter first")
    return _AdapterReference(policy, REFERENCE if REFERENCE in policy.model.peft_config else None)


def base_of(policy: Scorer) -> Scorer:
    """The model that an adapted policy's adapter sits on, by the same path and with the same weights in memory."""
    if not has_adapter(policy.model):
        raise ModelError("the model has no adapter to be switched off; its reference is a frozen copy of it")
    return _AdapterReference(policy, None)


class _AdapterReference(Scorer):
    """The policy's model with another adapter in force, or none, for as long as a call lasts; never differentiable.

    It has no parameters: freezing, moving or training it does nothing to the policy it looks through.
    """

    def __init__(self, policy: Scorer, adapter: str | None) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(policy) | {"_modules": {}, "model": policy.model, "training": False})
        self.adapter = adapter

    def frozen(self) -> Scorer:
        return self

    def state(self) -> dict[str, Tensor]:
        """The base model's weights and those of the adapter in force, not those that are trained, by the names that
        they have where nothing is trained on them."""
        others = {POLICY, REFERENCE} - {self.adapter}
        state = {name: tensor for name, tensor in super().state().items() if others.isdisjoint(name.split("."))}
        if self.adapter is None:
            return {name.replace(".base_layer.", "."): tensor for name, tensor in state.items()}
        renamed = {self.adapter: POLICY}
        return {".".join(renamed.get(part, part) for part in name.split(".")): state[name] for name in state}

    def settings(self) -> dict[str, Any]:
        settings = super().settings()
        return settings | {"adapters": {} if self.adapter is None else {POLICY: settings["adapters"][self.adapter]}}

    @property
    def head(self) -> LogitsHead:
        """Chunks of it are evaluated among those of the policy's, so it is a module by itself and not a switch."""
        head = super().head
        layer = head.module
        if not isinstance(layer, LoraLayer):
            return head
        module: nn.Module = layer.get_base_layer()
        if self.adapter is not None:
            module = copy.copy(layer)  # the same parameters
            module._active_adapter, module._disable_adapters = [self.adapter], False
        return dataclasses.replace(head, module=module)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        with _in_force(self.model, self.adapter):
            yield

    @torch.no_grad()
    def hidden(self, tree: PreparedTree, embeddings_TD: Tensor | None = None) -> Tensor:
        with self.in_force():
            return super().hidden(tree, embeddings_TD)


@contextmanager
def _in_force(model: PreTrainedModel, adapter: str | None) -> Iterator[None]:
    """One adapter or none, and no dropout; afterwards all is as it was. peft's own switches touch requires_grad."""
    layers = list(_layers(model))
    before = [(layer, layer._disable_adapters, layer._active_adapter) for layer in layers]
    training = [module for module in model.modules() if module.training]
    try:
        for module in training:
            module.training = False
        for layer in layers:
            layer._disable_adapters = adapter is None
            if adapter is not None:
                layer._active_adapter = [adapter]
        yield
    finally:
        for layer, disabled, active in before:
            layer._disable_adapters, layer._active_adapter = disabled, active
        for module in training:
            module.training = True


def _inject(model: PreTrainedModel, config: LoraConfig, name: str, seed: int) -> None:
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # Of tied weights (see `merge`), of a second adapter, and of what Conv1D layers are.
        warnings.simplefilter("ignore")
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(config, model, name)
    cast_adapter_dtype(model, name)  # from half precision to float32
    for layer in _layers(model):
        layer.train(layer.get_base_layer().training)
    model._hf_peft_config_loaded = True


def _config(model: PreTrainedModel) -> LoraConfig:
    config: Any = model.peft_config[POLICY]
    return config  # type: ignore[no-any-return]


def _layers(model: PreTrainedModel) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, LoraLayer))


def _weights(model: PreTrainedModel, name: str) -> dict[str, Tensor]:
    """An adapter's weights by the names that peft saves them under, in the memory of the model's."""
    return dict(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))


def _targeted(model: PreTrainedModel, targets: Iterable[str]) -> list[nn.Module]:
    """The modules that targets name, each by the end of its name. Raises ConfigError for one that fits none."""
    modules = dict(model.named_modules())
    fitting = {name: m for name, m in modules.items() if isinstance(m, nn.Linear | Conv1D | nn.Embedding)}
    found = []
    for target in targets:
        names = [name for name in modules if name == target or name.endswith(f".{target}")]
        if not names or not all(name in fitting for name in names):
            there = ", ".join(sorted({name.rpartition(".")[2] for name in fitting}))
            what = "names no layer" if not names else "is no linear layer or embedding"
            raise ConfigError(f"the adapter's target {target!r} {what} of this model; there are {there}")
        if astray := [name for name in names if _read_by_a_kernel(model, name)]:
            raise ConfigError(
                f"an adapter on {astray[0]} would be passed over by its mixer's kernel; leave {target} out"
            )
        found += [modules[name] for name in names]
    return found


def _read_by_a_kernel(model: PreTrainedModel, name: str) -> bool:
    """Whether a layer is in a state-space mixer, whose kernels read the weights of all but the first layer."""
    parent, _, child = name.rpartition(".")
    return hasattr(model.get_submodule(parent), "conv1d") and not child.startswith("in_proj")


def _adapted_and_tied(model: PreTrainedModel) -> str | None:
    """The end of the model (embedding or head) that is adapted and shares its weight with the other, if one is."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    plain = [end.get_base_layer() if isinstance(end, LoraLayer) else end for end in ends]
    if ends[1] is None or plain[0].weight is not plain[1].weight:
        return None
    adapted = [end for end in ends if isinstance(end, LoraLayer)]
    return None if not adapted else "the embedding" if isinstance(adapted[0], Embedding) else "the head"
