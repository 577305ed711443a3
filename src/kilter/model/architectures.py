"""Which architectures a token tree serves, and what each does to the head's logits.

This is an allow-list that tests prove (tests/model/test_architectures.py): some models accept a foreign attention
function and never call it, or drop the keyword that carries the tree, and then score wrongly without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Path = Literal["tree", "separate"]


def _soft_capped(config: Any, logits: Tensor) -> Tensor:
    """Gemma 2 (arXiv 2408.00118, section 2): cap * tanh(logits / cap)."""
    cap = config.final_logit_softcapping
    return logits if cap is None else cap * torch.tanh(logits / cap)


def _multiplied(config: Any, logits: Tensor) -> Tensor:
    """Command R."""
    return logits * config.logit_scale


def _divided(config: Any, logits: Tensor) -> Tensor:
    """Granite, after muP (arXiv 2203.03466)."""
    return logits / config.logits_scaling


class Architecture(NamedTuple):
    """How a model type is scored, its final function of the logits (None: the head's output is final), and whether
    its layers are those of model/llama.py."""

    path: Path
    logits: Callable[[Any, Tensor], Tensor] | None = None
    llama_like: bool = False


ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("tree", llama_like=True),
    "mistral": Architecture("tree", llama_like=True),
    "qwen2": Architecture("tree", llama_like=True),
    "qwen3": Architecture("tree", llama_like=True),
    "gemma2": Architecture("tree", _soft_capped),
    "gemma3_text": Architecture("tree", _soft_capped),
    "phi3": Architecture("tree"),
    "opt": Architecture("tree"),
    "cohere": Architecture("tree", _multiplied),
    "cohere2": Architecture("tree", _multiplied),
    "granite": Architecture("tree", _divided),
    "olmo2": Architecture("tree"),
    "smollm3": Architecture("tree"),
    "glm4": Architecture("tree"),
    "mixtral": Architecture("tree"),
    "qwen3_moe": Architecture("tree"),
    "gpt_oss": Architecture("tree"),
    "deepseek_v3": Architecture("tree"),
    "gpt2": Architecture("tree"),
    "gpt_neox": Architecture("tree"),
    "stablelm": Architecture("separate"),
    "falcon": Architecture("separate"),
    "mpt": Architecture("separate"),
    "bloom": Architecture("separate"),
    "gptj": Architecture("separate"),
    "mamba": Architecture("separate"),
    "mamba2": Architecture("separate"),
    "granitemoehybrid": Architecture("separate", _divided),
}


def architecture_of(config: Any) -> Architecture:
    """The row for a model's configuration; unlisted types are scored as separate sequences."""
    return ARCHITECTURES.get(config.model_type, Architecture("separate"))


def exact_up_to(config: Any) -> int | None:
    """The longest call in which positions mean the same as in any shorter one; None where that is all of them.

    Dynamic and long RoPE take their frequencies from the longest position of the call.
    """
    limits = [
        rope.get("original_max_position_embeddings")
        or getattr(config, "original_max_position_embeddings", None)
        or config.max_position_embeddings
        for rope in rotary_settings(config)
        if rope.get("rope_type") in ("dynamic", "longrope")
    ]
    return min(limits, default=None)


def rotary_settings(config: Any) -> list[dict[str, Any]]:
    """The settings of rotary positions, of which some models have one for each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [settings for settings in rope.values() if isinstance(settings, dict)]
    return nested or [rope]
