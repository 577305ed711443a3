"""Fingerprints: whether two models, or two tokenizers, are the same to the last bit."""

from __future__ import annotations

import hashlib

import torch
from transformers import PreTrainedTokenizerFast

from kilter.model.scorer import Scorer


def model_fingerprint(scorer: Scorer) -> str:
    """SHA-256 of a model's weights (names, types, shapes, bytes) and of the path by which it is scored."""
    digest = hashlib.sha256(scorer.path.encode())
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
