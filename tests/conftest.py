"""What several directories of tests share. With this file here, `tests/` is on the import path."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# Before torch is imported: on tensors this small a second thread is only waited for.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# How long an example takes says more about the machine's other work than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VOCABULARY = 48
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
GROUPED: dict[str, Any] = SHAPE | {"num_key_value_heads": 2, "head_dim": 8}

# A name for each shape, then the model type and its configuration. Windows of 4 are shorter than the answers.
TINY: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", GROUPED),
    "llama_tied": ("llama", GROUPED | {"tie_word_embeddings": True}),
    "llama_biased": ("llama", GROUPED | {"attention_bias": True, "mlp_bias": True}),
    "qwen2": (
        "qwen2",
        GROUPED | {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", GROUPED),
    "mistral": ("mistral", GROUPED | {"sliding_window": 4}),
    "gemma2": (
        "gemma2",
        GROUPED
        | {
            "sliding_window": 4,
            "query_pre_attn_scalar": 8,
            "attn_logit_softcapping": 5.0,
            "final_logit_softcapping": 8.0,
        },
    ),
    "gpt2": ("gpt2", SHAPE | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("gpt_neox", SHAPE | {"rotary_pct": 0.5}),
    "mamba": (
        "mamba",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    ),
}


@pytest.fixture
def tiny_model() -> Callable[..., PreTrainedModel]:
    """Makes a seeded two-layer model of a shape in `TINY`, with weights so large that attention is far from even.

    `spread` is their standard deviation; rounding errors grow with it.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def make(shape: str, *, seed: int = 0, spread: float = 0.3, **changes: Any) -> PreTrainedModel:
        kind, settings = TINY[shape]
        special = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None}
        config = AutoConfig.for_model(kind, **settings | special | changes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.ndim > 1:
                        parameter.normal_(0, spread)
                    else:
                        parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make
