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
    return logits * float(config.logit_scale)


def _divided(config: Any, logits: Tensor) -> Tensor:
    """Granite, after muP (arXiv 2203.03466)."""
    return logits / float(config.logits_scaling)


class Architecture(NamedTuple):
    """How a model type is scored, models of that type, what is peculiar to it (for "separate": why no tree serves it),
    its final function of the logits (None: the head's output is final), and whether its layers are those of
    model/llama.py."""

    path: Path
    families: str
    note: str = ""
    logits: Callable[[Any, Tensor], Tensor] | None = None
    llama_like: bool = False


_NO_INTERFACE = "its own attention code, which takes no other"
_RECURRENT = "a state that runs along each sequence"

ARCHITECTURES: dict[str, Architecture] = {
    "llama": Architecture("tree", "Llama 1 to 3, SmolLM 1 and 2, TinyLlama, Yi", llama_like=True),
    "mistral": Architecture("tree", "Mistral 7B, Ministral, Zephyr", "sliding windows", llama_like=True),
    "qwen2": Architecture("tree", "Qwen 1.5 to 2.5", "sliding windows", llama_like=True),
    "qwen3": Architecture("tree", "Qwen 3", llama_like=True),
    "gemma2": Architecture("tree", "Gemma 2", "sliding windows; soft caps on scores and logits", _soft_capped),
    "gemma3_text": Architecture("tree", "Gemma 3, text only", "sliding windows; two rotary bases", _soft_capped),
    "phi3": Architecture("tree", "Phi 3 and 4", "sliding windows; long RoPE"),
    "opt": Architecture("tree", "OPT, Galactica", "learned positions"),
    "cohere": Architecture("tree", "Command R", "scaled logits", _multiplied),
    "cohere2": Architecture(
        "tree", "Command R7B, Command A", "sliding windows; layers without positions; scaled logits", _multiplied
    ),
    "granite": Architecture("tree", "Granite 3", "scaled embeddings, residuals, scores and logits", _divided),
    "olmo2": Architecture("tree", "OLMo 2"),
    "smollm3": Architecture("tree", "SmolLM 3", "layers without positions"),
    "glm4": Architecture("tree", "GLM 4 (0414)"),
    "mixtral": Architecture("tree", "Mixtral", "routed experts"),
    "qwen3_moe": Architecture("tree", "Qwen 3 MoE", "routed experts"),
    "gpt_oss": Architecture("tree", "gpt-oss", "attention sinks; sliding windows; routed experts"),
    "deepseek_v3": Architecture("tree", "DeepSeek V3 and R1", "latent attention; routed experts"),
    "gpt2": Architecture("tree", "GPT-2, DistilGPT-2", "learned positions"),
    "gpt_neox": Architecture("tree", "Pythia, GPT-NeoX"),
    "stablelm": Architecture("separate", "StableLM", "its layers do not hand the tree on to their attention"),
    "falcon": Architecture("separate", "Falcon 7B to 180B", _NO_INTERFACE),
    "mpt": Architecture("separate", "MPT", _NO_INTERFACE),
    "bloom": Architecture("separate", "BLOOM", _NO_INTERFACE),
    "gptj": Architecture("separate", "GPT-J", _NO_INTERFACE),
    "mamba": Architecture("separate", "Mamba", _RECURRENT),
    "mamba2": Architecture("separate", "Mamba 2, Codestral Mamba", _RECURRENT),
    "granitemoehybrid": Architecture("separate", "Granite 4", _RECURRENT + "; routed experts; scaled logits", _divided),
}


def architecture_of(config: Any) -> Architecture:
    """The row for a model's configuration; unlisted types are scored as separate sequences."""
    return ARCHITECTURES.get(config.model_type, Architecture("separate", "unlisted"))


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


def router_loss(config: Any) -> float:
    """The weight of the auxiliary loss that a model of routed experts is asked to add to its own."""
    return float(getattr(config, "router_aux_loss_coef", 0) or 0) if getattr(config, "output_router_logits", 0) else 0.0


def rotary_settings(config: Any) -> list[dict[str, Any]]:
    """The settings of rotary positions, of which some models have one for each type of layer."""
    rope = getattr(config, "rope_parameters", None) or {}
    nested = [settings for settings in rope.values() if isinstance(settings, dict)]
    return nested or [rope]
