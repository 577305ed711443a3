"""What a run would take: memory and time, from a model's configuration and this machine's matrix products.

Weights are counted on PyTorch's meta device, where they have shapes and no memory. Nothing is loaded. A parameter
takes part in one multiplication and one addition for each token, forward; backward takes two more of both (Kaplan et
al. 2020, arXiv 2001.08361, section 2.1).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig

from kilter.errors import ModelError
from kilter.measure.token_facts import TokenFacts
from kilter.model.head import CHUNK_LOGITS
from kilter.model.loading import AUTOCAST, Precision, adapter_base_of, pick_device

# How much of what large matrix products reach a training step reaches: 0.5 to 0.6 with models of 135M and more.
SHARE_OF_PEAK = 0.5
# How often a node goes forward through a model, backward counting as two: the policy's three, and the reference's one.
# Labelled answers (KTO) are first scored by both models, beside as many mismatched ones.
FORWARDS = {"pairs": 4, "labelled": 3 + 2 * 2, "demonstrations": 3}
# Numbers kept of a node in each layer for backward, for each hidden unit, unit of keys or values, and inner unit of
# the MLP: weighed by train/memory.py on models of several shapes.
KEPT, KEPT_WRITTEN_OUT = (8, 1, 5), (6, 1, 3)
WRITTEN_OUT = ("llama", "mistral", "qwen2", "qwen3")  # model/llama.py has their backward, on a CPU
# More than is kept: an allocator's holes, and what backward is at work on.
SLACK = 1.6
PROCESS = 500 << 20  # Python and its libraries
MEASURED_SECONDS, MEASURED_SIZE = 0.3, 1024


@dataclass(frozen=True, slots=True)
class Shape:
    """A model's size: `parameters` in all, `active` those a token meets in the blocks, and the head's."""

    parameters: int
    active: int
    head: int
    layers: int
    hidden: int
    key_value: int
    inner: int
    kind: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes at the peak of a step, and seconds of one epoch, with what they are made of."""

    parameters: int
    weights: int
    gradients: int
    moments: int
    reference: int
    activations: int
    logits: int
    memory: int
    steps: int
    method: str  # what the data trains: pairs, labelled or demonstrations
    operations: float
    measured_rate: float  # operations a second
    share_of_rate: float
    seconds: float
    device: str
    free: int  # bytes


def positions_of(name: str) -> int | None:
    """How many positions a model has, by its configuration; None where it has no bound."""
    positions = getattr(config_of(name).get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


def config_of(name: str) -> PretrainedConfig:
    """The configuration of a model, or of an adapter's base. Raises ModelError where there is none."""
    base = adapter_base_of(name) or name
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(base, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{base} has no configuration that can be read: {str(error).splitlines()[0]}") from error
    return config


def shape_of(config: PretrainedConfig) -> Shape:
    """Count a model's weights without making them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    text = config.get_text_config()
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    embeddings = {
        id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings()) if module
    }
    head = model.get_output_embeddings()
    blocks = {n: size for n, size in sizes.items() if id(model.get_parameter(n)) not in embeddings}
    experts = sum(size for name, size in blocks.items() if ".experts." in name)
    number = _first(text, "num_local_experts", "num_experts", "n_routed_experts") or 1
    taken = _first(text, "num_experts_per_tok") or 1
    hidden = int(text.hidden_size)
    heads = _first(text, "num_attention_heads", "n_heads") or 1
    width = _first(text, "head_dim") or hidden // heads
    inner = _first(text, "moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    return Shape(
        parameters=sum(sizes.values()),
        active=sum(blocks.values()) - experts + experts * taken // number,
        head=head.weight.numel() if head is not None else 0,
        layers=_first(text, "num_hidden_layers", "n_layers") or 1,
        hidden=hidden,
        key_value=2 * width * (_first(text, "num_key_value_heads") or heads),
        inner=inner * (taken if experts else 1),
        kind=str(text.model_type),
    )


def _first(config: Any, *names: str) -> int | None:
    return next((int(value) for name in names if (value := getattr(config, name, None))), None)


def measured_rate(device: torch.device, precision: Precision) -> float:
    """Operations a second that this machine's matrix products reach, measured for a fraction of a second."""
    dtype = AUTOCAST[precision] or torch.float32
    one, other = (torch.ones(MEASURED_SIZE, MEASURED_SIZE, dtype=dtype, device=device) for _ in range(2))

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    one @ other
    wait()
    begin, best = time.perf_counter(), 0.0
    while time.perf_counter() - begin < MEASURED_SECONDS:
        start = time.perf_counter()
        one @ other
        wait()
        best = max(best, 2 * MEASURED_SIZE**3 / (time.perf_counter() - start))
    return best


def estimate(
    facts: TokenFacts,
    config: PretrainedConfig,
    *,
    method: str,
    rows: int,
    batch_size: int,
    node_budget: int,
    precision: Precision,
    device_name: str,
    rate: float | None = None,
) -> Estimate:
    """All weights trained by AdamW for one epoch; the node budget full.

    `method` says what the data trains, a key of `FORWARDS`. `rate` is measured where it is not given.
    """
    shape, device = shape_of(config), pick_device(device_name)
    forwards = FORWARDS[method]
    scored = facts.answer_tokens / max(facts.tokens, 1) * facts.nodes
    attention = 2 * shape.layers * shape.hidden * facts.squares * (facts.nodes / max(facts.tokens, 1))
    operations = forwards * (2 * shape.active * facts.nodes + 2 * shape.head * scored + attention)
    rate = rate or measured_rate(device, precision)

    nodes = min(node_budget, facts.nodes)
    kept = KEPT_WRITTEN_OUT if device.type == "cpu" and shape.kind in WRITTEN_OUT else KEPT
    numbers = sum(a * b for a, b in zip(kept, (shape.hidden, shape.key_value, shape.inner), strict=True))
    weights = 4 * shape.parameters
    parts = {
        "weights": weights,
        "gradients": weights,
        "moments": 2 * weights,
        "reference": 0 if method == "demonstrations" else weights,
        "activations": int(SLACK * 4 * numbers * shape.layers * nodes),
        "logits": 4 * 4 * CHUNK_LOGITS,
    }
    return Estimate(
        parameters=shape.parameters,
        **parts,
        memory=sum(parts.values()) + PROCESS,
        steps=-(-rows // batch_size),
        method=method,
        operations=operations,
        measured_rate=rate,
        share_of_rate=SHARE_OF_PEAK,
        seconds=operations / (SHARE_OF_PEAK * rate),
        device=str(device),
        free=_free_memory(device),
    )


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
