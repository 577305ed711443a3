"""Fresh models: a Llama-architecture shape and a byte-level BPE tokenizer learnt from the data."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from kilter.errors import ConfigError

END, PAD = "<|endoftext|>", "<|pad|>"

# Turns as Anthropic's HH data writes them; an answer ends with the end token.
CHAT_TEMPLATE = (
    "{% set names = {'user': 'Human', 'assistant': 'Assistant', 'system': 'System'} %}"
    "{% for message in messages %}"
    "{{ '\n\n' + names[message['role']] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}"
)

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "mlp": 352, "vocabulary": 2048, "length": 1024},
    "8m": {"layers": 6, "hidden": 256, "heads": 8, "kv_heads": 4, "mlp": 704, "vocabulary": 8192, "length": 2048},
    "135m": {
        "layers": 30, "hidden": 576, "heads": 9, "kv_heads": 3, "mlp": 1536, "vocabulary": 49152, "length": 2048
    },
}  # fmt: skip


def parse_shape(text: str) -> dict[str, int]:
    """A named shape, or changes to `tiny` such as `layers=4,hidden=256`. Raises ConfigError for anything else."""
    if text in SHAPES:
        return dict(SHAPES[text])
    shape = dict(SHAPES["tiny"])
    for part in text.split(","):
        name, _, value = part.partition("=")
        if name.strip() not in shape or not value.strip().isdigit() or int(value) < 1:
            raise ConfigError(
                f"{text!r} is no shape (at {part!r}); use {', '.join(SHAPES)}, "
                f"or whole numbers for some of {', '.join(shape)}, such as layers=4,hidden=256"
            )
        shape[name.strip()] = int(value)
    if shape["hidden"] % shape["heads"] or shape["heads"] % shape["kv_heads"]:
        raise ConfigError(
            f"{text!r}: hidden ({shape['hidden']}) must be a multiple of heads ({shape['heads']}), "
            f"and heads of kv_heads ({shape['kv_heads']})"
        )
    return shape


def fresh_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of at most `vocabulary` tokens that begins every text with its end token."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    backend.post_processor = processors.TemplateProcessing(single=f"{END} $A", special_tokens=[(END, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=END, eos_token=END, pad_token=PAD, chat_template=CHAT_TEMPLATE
    )


def fresh_model(shape: dict[str, int], tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama-architecture model of a shape with seeded random weights and tied embeddings."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape["hidden"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv_heads"],
        max_position_embeddings=shape["length"],
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: LlamaForCausalLM = LlamaForCausalLM(config).eval()
    return model
