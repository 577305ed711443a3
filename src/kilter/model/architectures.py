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
    "gpt2": Architecture("tree"),
    "gpt_neox": Architecture("tree"),
    "mamba": Architecture("separate"),
}


def architecture_of(config: Any) -> Architecture:
    """The row for a model's configuration; unlisted types are scored as separate sequences."""
    return ARCHITECTURES.get(config.model_type, Architecture("separate"))


def exact_up_to(config: Any) -> int | None:
    """The longest call in which positions mean the same as in any shorter one; None where that is all of them.

    Dynamic and long RoPE take their frequencies from the longest position of the call.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") not in ("dynamic", "longrope"):
        return None
    limit = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
    return int(limit or config.max_position_embeddings)
