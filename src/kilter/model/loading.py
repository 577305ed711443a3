"""Loading models and tokenizers, from a directory of safetensors or by hub name."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from kilter.errors import ConfigError, ModelError
from kilter.model.adapter import CONFIG_FILE, adapter_config, has_adapter, load_adapter
from kilter.model.proof import ensure_proven
from kilter.model.scorer import Scorer

Precision = Literal["float32", "bfloat16"]
Quantise = Literal["none", "8bit", "4bit"]

# The type that autocast gives to matrix products.
AUTOCAST: dict[Precision, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}

# The type that weights are kept in.
DTYPE: dict[Precision, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def load_model(
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    quantise: Quantise = "none",
) -> PreTrainedModel:
    """A causal language model with dropout off, from a directory or a hub name.

    A directory with an `adapter_config.json` gives the base model named there with the adapter on it, unmerged.
    `quantise` keeps the base's linear layers in 8 or 4 bits, frozen, to be trained by an adapter alone; it runs on GPUs
    only. Raises ModelError where there is no model. Code that comes with a model is never run.
    """
    adapter = _adapter_directory(name)
    base = name if adapter is None else adapter_base(adapter)
    placing = {} if quantise == "none" else _quantised(quantise, torch.device(device))
    try:
        with no_bar_for_a_directory(base):
            model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                _existing(base, "config.json"),
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                **placing,
            )
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"{base} could not be loaded as a causal language model: {_first_line(error)}") from error
    if has_adapter(model):
        raise ModelError(f"{base} is an adapter on the hub; download it, and give its directory")
    if placing:
        model.requires_grad_(False)
    else:
        model.to(device)  # type: ignore[arg-type]
    if adapter is not None:
        load_adapter(model, adapter)
    model.eval()
    return model


def adapter_base_of(name: str) -> str | None:
    """The base model of an adapter; None for a model that is none."""
    adapter = _adapter_directory(name)
    return None if adapter is None else adapter_base(adapter)


def adapter_base(directory: Path) -> str:
    """The base model of an adapter's directory. Raises ModelError where it names none, or another adapter."""
    base = adapter_config(directory).base_model_name_or_path
    if not base:
        raise ModelError(f"{directory / CONFIG_FILE} does not say which model it is for (base_model_name_or_path)")
    if _adapter_directory(base) is not None:
        raise ModelError(f"{directory} is an adapter on {base}, which is one itself; merge that one first")
    return base


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The tokenizer beside a model; for an adapter that has none beside it, that of its base."""
    adapter = _adapter_directory(name)
    if adapter is not None and not (adapter / "tokenizer.json").is_file():
        name = adapter_base(adapter)
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
    quantise: Quantise = "none",
) -> Scorer:
    """A model ready to score trees, by the fast path where its proof holds (model/proof.py).

    `precision` is the type of matrix products, `weights` that of the weights.
    """
    model = load_model(name, device, DTYPE[weights], quantise=quantise)
    if prove:
        return ensure_proven(model, autocast=AUTOCAST[precision], strict=strict)
    return Scorer(model, autocast=AUTOCAST[precision])


def check_same_vocabulary(policy: Scorer, reference: Scorer) -> None:
    """Raises ConfigError where two models' token ids cannot mean the same."""
    check_vocabularies(policy.head.vocabulary, reference.head.vocabulary)


def check_vocabularies(ours: int, theirs: int) -> None:
    """The same, of the sizes of a model's vocabulary and of its reference's."""
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


def _adapter_directory(name: str) -> Path | None:
    path = Path(name)
    if not (path / CONFIG_FILE).is_file():
        return None
    if (path / "config.json").is_file():
        raise ModelError(f"{name} holds a model and an adapter ({CONFIG_FILE}); give each a directory of its own")
    return path


def _quantised(quantise: Quantise, device: torch.device) -> dict[str, Any]:
    """How transformers is told to quantise with bitsandbytes: QLoRA's NormalFloat (arXiv 2305.14314), or LLM.int8."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("a quantised base needs bitsandbytes; pip install 'kilter[bitsandbytes]'")
    if device.type != "cuda":
        raise ConfigError(
            f"a quantised base runs on a GPU, and the device is {device}; leave quantise out, or use cuda"
        )
    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.bfloat16}
    config = BitsAndBytesConfig(**(four if quantise == "4bit" else {"load_in_8bit": True}))
    return {"quantization_config": config, "device_map": {"": device}}


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
