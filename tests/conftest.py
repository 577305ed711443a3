"""What several directories of tests share. With this file here, `tests/` is on the import path."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

# Before torch is imported: on tensors this small a second thread is only waited for.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# As `kilter` sets it (train/machine.py): the same bits from call to call, on any processor.
os.environ.setdefault("MKL_CBWR", "AUTO")

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
YARN: dict[str, Any] = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
ROUTED: dict[str, Any] = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
WINDOWED: dict[str, Any] = {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
# Without these the hybrid's state space would be longer than its model.
STATE: dict[str, Any] = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 4}

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
    "gemma3": ("gemma3_text", GROUPED | WINDOWED | {"query_pre_attn_scalar": 8, "final_logit_softcapping": 8.0}),
    "phi3": ("phi3", GROUPED | {"sliding_window": 4, "rope_parameters": {"partial_rotary_factor": 0.5}}),
    "opt": ("opt", {**SHAPE, "ffn_dim": 48, "word_embed_proj_dim": 24, "dropout": 0.0}),
    "opt_after": (
        "opt",
        {**SHAPE, "ffn_dim": 48, "do_layer_norm_before": False, "activation_function": "gelu", "dropout": 0.0},
    ),
    "cohere": ("cohere", GROUPED | {"logit_scale": 0.5, "use_qk_norm": True}),
    "cohere2": ("cohere2", GROUPED | WINDOWED | {"logit_scale": 0.25}),
    "granite": (
        "granite",
        GROUPED
        | {
            "embedding_multiplier": 3.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.3,
            "logits_scaling": 4.0,
        },
    ),
    "olmo2": ("olmo2", GROUPED),
    "smollm3": (
        "smollm3",
        GROUPED | {"no_rope_layers": [1, 0], "use_sliding_window": True, "sliding_window": 4},
    ),
    "glm4": ("glm4", GROUPED),
    "mixtral": ("mixtral", GROUPED | ROUTED | {"num_local_experts": 4, "sliding_window": 4}),
    "qwen3_moe": ("qwen3_moe", GROUPED | ROUTED | {"num_experts": 4, "mlp_only_layers": [0]}),
    "gpt_oss": ("gpt_oss", GROUPED | WINDOWED | ROUTED | {"num_local_experts": 4, "rope_parameters": YARN}),
    "deepseek_v3": (
        "deepseek_v3",
        SHAPE
        | ROUTED
        | {
            "num_key_value_heads": 4,
            "n_routed_experts": 4,
            "n_group": 2,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "q_lora_rank": 12,
            "kv_lora_rank": 12,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 6,
            "rope_parameters": YARN | {"mscale_all_dim": 1.0},
        },
    ),
    "gpt2": ("gpt2", SHAPE | {"scale_attn_by_inverse_layer_idx": True}),
    "gpt_neox": ("gpt_neox", SHAPE | {"rotary_pct": 0.5}),
    "stablelm": ("stablelm", GROUPED),
    "falcon": ("falcon", SHAPE | {"alibi": True}),
    "falcon_grouped": ("falcon", SHAPE | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "mpt": ("mpt", {"vocab_size": VOCABULARY, "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 64}),
    "bloom": ("bloom", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "gptj": ("gptj", SHAPE | {"rotary_dim": 4}),
    "mamba": (
        "mamba",
        {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    ),
    "mamba2": (
        "mamba2",
        {
            "vocab_size": VOCABULARY,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "state_size": 4,
            "num_heads": 8,
            "head_dim": 8,
            "n_groups": 2,
            "chunk_size": 4,
        },
    ),
    "granite_hybrid": (
        "granitemoehybrid",
        GROUPED
        | STATE
        | {
            "layer_types": ["linear_attention", "full_attention"],
            "num_local_experts": 4,
            "shared_intermediate_size": 16,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.3,
            "logits_scaling": 4.0,
        },
    ),
}


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names bytes by their number: packed ones hold the time of day, and every worker must collect the same names."""
    return f"{len(val)} bytes" if isinstance(val, bytes) else None


@pytest.fixture(scope="session")
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
                for name, parameter in model.named_parameters():
                    if parameter.ndim > 1 and "norm" not in name:
                        parameter.normal_(0, spread)
                    else:
                        parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is kept of references lies with the other files of the tests."""
    os.environ["KILTER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs whose chosen answer is always the happy one."""
    from train.runs import write_pairs

    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="session")
def start(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that has seen them."""
    from train.runs import make_start

    return make_start(pairs_file, tmp_path_factory.mktemp("runs") / "sft")
