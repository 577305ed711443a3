"""Loading models and tokenizers, from a directory of safetensors or by hub name."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

from kilter.errors import ConfigError, ModelError
from kilter.model.proof import ensure_proven
from kilter.model.scorer import Scorer
from kilter.model.workers import load_state

Precision = Literal["float32", "bfloat16"]

# The type that autocast gives to matrix products.
AUTOCAST: dict[Precision, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


# The type that weights are kept in.
DTYPE: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(name: str, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A causal language model with dropout off, from a directory or a hub name.

    Raises ModelError where there is none. Code that comes with a model is never run.
    """
    try:
        with no_bar_for_a_directory(name):
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                _existing(name, "config.json"), dtype=dtype, use_safetensors=True, trust_remote_code=False
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{name} could not be loaded as a causal language model: {_first_line(error)}") from error
    model.to(device)  # type: ignore[arg-type]
    model.eval()
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(_existing(name, "tokenizer.json"), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"no tokenizer could be loaded from {name}: {_first_line(error)}") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ModelError(f"{name} has no fast tokenizer; kilter needs one with a tokenizer.json")
    return tokenizer


def load_scorer(
    name: str,
    *,
    precision: Precision = "float32",
    weights: Precision = "float32",
    device: torch.device | str = "cpu",
    prove: bool = True,
    strict: bool = False,
) -> Scorer:
    """A model ready to score trees, by the fast path where its proof holds (model/proof.py).

    `precision` is the type of matrix products, `weights` that of the weights.
    """
    model = load_model(name, device, DTYPE[weights])
    if prove:
        return ensure_proven(model, autocast=AUTOCAST[precision], strict=strict)
    return Scorer(model, autocast=AUTOCAST[precision])


def check_same_vocabulary(policy: Scorer, reference: Scorer) -> None:
    """Raises ConfigError where two models' token ids cannot mean the same."""
    ours, theirs = policy.head.vocabulary, reference.head.vocabulary
    if ours != theirs:
        raise ConfigError(
            f"the model has a vocabulary of {ours:,} and the reference of {theirs:,}; "
            "their token ids must mean the same, so choose a reference with the model's tokenizer"
        )


def longest_sequence(scorer: Scorer, max_length: int | None, node_budget: int) -> int:
    """The longest sequence that the user, the model's positions and the node budget all allow."""
    positions = getattr(scorer.model.config, "max_position_embeddings", None)
    return min(limit for limit in (max_length, positions, node_budget) if limit is not None)


def copy_of(scorer: Scorer) -> Scorer:
    """Another scorer with the same weights, in memory of its own, by the same path."""
    return copy.deepcopy(scorer)


def restore_weights(scorer: Scorer, directory: Path) -> None:
    """Give a scorer's model the weights saved in a directory."""
    saved = load_model(str(directory), scorer.device, scorer.model.dtype)
    load_state(scorer.model, saved.state_dict())


def pick_device(name: str) -> torch.device:
    """`auto` is a GPU where there is one; otherwise the device named. Raises ModelError where it does not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(f"there is no device {name!r}; use cpu, cuda, cuda:N or auto") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError("no GPU is visible to PyTorch; use --device cpu, or install a CUDA build of torch")
    return device


@contextmanager
def no_bar_for_a_directory(name: str) -> Iterator[None]:
    """Reading a local file takes a moment; only a download deserves a progress bar."""
    quiet = Path(name).is_dir() and logging.is_progress_bar_enabled()
    if quiet:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if quiet:
            logging.enable_progress_bar()


def _existing(name: str, needed: str) -> str:
    """A path that exists but is no model directory would otherwise be asked of the hub."""
    path = Path(name)
    if path.exists() and not (path / needed).is_file():
        raise ModelError(f"{name} has no {needed}; give a directory saved by transformers, or a hub name")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise ModelError(f"{name} does not exist; give a directory saved by transformers, or a hub name")
    return name


def _first_line(error: BaseException) -> str:
    lines: list[Any] = str(error).strip().splitlines()
    return str(lines[0]) if lines else type(error).__name__
