"""Model shapes, fresh weights and the token ids that the step benchmarks share.

Nothing here imports kilter or a peer, so every system under test reads the same files.
"""

import gzip
import hashlib
import json
import resource
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

EOS = "<|endoftext|>"  # id 0, also BOS
PAD = "<|pad|>"  # id 1

COMMON = {
    "tie_word_embeddings": True,
    "max_position_embeddings": 2048,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}

SHAPES: dict[str, dict[str, Any]] = {
    "8m": {
        "num_hidden_layers": 6,
        "hidden_size": 256,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "intermediate_size": 704,
        "vocab_size": 16384,
        **COMMON,
    },
    # SmolLM2-135M (arXiv 2502.02737)
    "135m": {
        "num_hidden_layers": 30,
        "hidden_size": 576,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100_000.0},
        **COMMON,
    },
}

Pair = dict[str, list[int]]


def write_model(shape: str, directory: Path, seed: int, texts: Iterable[str]) -> None:
    """Save a freshly initialised fp32 model of `SHAPES[shape]` and a tokenizer trained on `texts`.

    Weights are transformers' default initialisation after `torch.manual_seed(seed)`. The tokenizer is byte-level
    BPE; where `texts` yield fewer merges than the shape's vocabulary, unused added tokens fill it.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(**SHAPES[shape])
    tokenizer = byte_level_bpe(texts, config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def byte_level_bpe(texts: Iterable[str], vocab_size: int) -> Any:
    """Train a `PreTrainedTokenizerFast` of exactly `vocab_size` tokens; encoding adds no special tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    missing = vocab_size - tokenizer.get_vocab_size()
    tokenizer.add_special_tokens([f"<|unused_{i}|>" for i in range(missing)])
    assert tokenizer.get_vocab_size() == vocab_size
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS, pad_token=PAD)


def english_texts(data: Path) -> Iterator[str]:
    """Yield HH transcripts and the other English texts under `data`, in a fixed order."""
    for row in json_lines(data / "hh_harmless_test.jsonl.gz"):
        yield from (row["chosen"], row["rejected"])
    for row in json_lines(data / "c4_demo.jsonl.gz"):
        yield row["text"]
    for name in ("alpaca_en_demo", "dpo_en_demo", "kto_en_demo", "alpaca_eval_annotations_200"):
        yield from strings(json.loads(gzip.decompress((data / f"{name}.json.gz").read_bytes())))


def json_lines(path: Path) -> Iterator[Any]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def strings(value: Any) -> Iterator[str]:
    """Every string inside nested lists and dictionaries, keys aside."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings(inner)


def hh_batches(tokenizer: Any, path: Path, pairs: int = 80, batch: int = 8) -> list[list[Pair]]:
    """Token ids of the first `pairs` usable Anthropic HH rows in file order, cut into batches.

    A row is usable when both transcripts agree up to and including the last "\\n\\nAssistant:", both answers are
    non-empty and different, and prompt plus longer completion is at most 1024 tokens. Prompt and completion
    (a space, the stripped answer, EOS) are tokenised apart. Raises ValueError when the file has too few usable
    rows or `pairs` is no multiple of `batch`.
    """
    if pairs % batch:
        raise ValueError(f"{pairs} pairs do not fill batches of {batch}; ask for a multiple of {batch}")
    usable: list[Pair] = []
    for row in json_lines(path):
        if (pair := token_pair(tokenizer, row["chosen"], row["rejected"])) is not None:
            usable.append(pair)
        if len(usable) == pairs:
            return [usable[i : i + batch] for i in range(0, pairs, batch)]
    raise ValueError(f"{path}: {len(usable)} usable rows, wanted {pairs}; ask for fewer pairs")


def token_pair(tokenizer: Any, chosen: str, rejected: str, longest: int = 1024) -> Pair | None:
    """The id lists of one HH row, or None where it is not usable as `hh_batches` means it."""
    prompt, marker, better = chosen.rpartition("\n\nAssistant:")
    other_prompt, _, worse = rejected.rpartition("\n\nAssistant:")
    better, worse = better.strip(), worse.strip()
    if not marker or prompt != other_prompt or not better or not worse or better == worse:
        return None
    ids = tokenizer([prompt + marker, " " + better, " " + worse], add_special_tokens=False)["input_ids"]
    end = [tokenizer.eos_token_id]
    pair = {"prompt_ids": ids[0], "chosen_ids": ids[1] + end, "rejected_ids": ids[2] + end}
    if len(pair["prompt_ids"]) + max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) > longest:
        return None
    return pair


def write_pairs(batches: Iterable[list[Pair]], path: Path) -> None:
    """Store batches as one flat JSON list of {prompt_ids, chosen_ids, rejected_ids}."""
    path.write_text(json.dumps([pair for batch in batches for pair in batch]))


def token_ids_sha256(pairs: Iterable[Pair]) -> str:
    """Digest of what was batched: for each pair prompt + chosen, then prompt + rejected, as little-endian int32."""
    digest = hashlib.sha256()
    for pair in pairs:
        for side in ("chosen_ids", "rejected_ids"):
            digest.update(np.asarray(pair["prompt_ids"] + pair[side], dtype="<i4").tobytes())
    return digest.hexdigest()


def peak_rss_bytes() -> int:
    """Peak resident memory of this process.

    On Linux ru_maxrss starts from the spawning parent's resident size, VmHWM from nothing.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
