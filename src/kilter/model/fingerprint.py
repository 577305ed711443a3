"""Fingerprints: whether two models, or two tokenizers, are the same to the last bit."""

from __future__ import annotations

import hashlib
import json

import torch
from transformers import PreTrainedTokenizerFast

from kilter.model.scorer import Scorer

# Raised when the same weights would be scored otherwise, beyond rounding.
SCORING_VERSION = 1

# Of a configuration, what says where a model lies, who wrote it, or how it is called and begun: no score depends on it.
NOT_SCORED = frozenset({
    "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache", "return_dict",
    "output_hidden_states", "output_attentions", "id2label", "label2id", "problem_type", "initializer_range",
    "pad_token_id", "bos_token_id", "eos_token_id",
})  # fmt: skip


def model_fingerprint(scorer: Scorer) -> str:
    """SHA-256 of all that a model's scores come from, but for rounding: its weights (names, types, shapes, bytes), an
    adapter among them with its scale, its configuration, the path by which it is scored, the type of its products."""
    settings = scorer.settings()
    config = {name: value for name, value in settings["config"].items() if name not in NOT_SCORED}
    said = json.dumps([SCORING_VERSION, settings | {"config": config}], sort_keys=True, default=str)
    digest = hashlib.sha256(said.encode())
    for name, tensor in sorted(scorer.state().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """SHA-256 of what turns text into tokens, and of which tokens are special."""
    special = repr(sorted((name, str(token)) for name, token in tokenizer.special_tokens_map.items()))
    return hashlib.sha256((tokenizer.backend_tokenizer.to_str() + special).encode()).hexdigest()


def template_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str | None:
    """SHA-256 of the chat template; None where there is none."""
    template = tokenizer.chat_template
    return None if template is None else hashlib.sha256(str(template).encode()).hexdigest()
