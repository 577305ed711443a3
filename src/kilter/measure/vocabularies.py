"""Whether the token ids of two models mean the same, and where they do not, how they differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kilter.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from kilter.model.scorer import Scorer

LISTED = 3
# What a tokenizer.json says besides its vocabulary.
SPLITTING = ("normalizer", "pre_tokenizer", "post_processor")


@dataclass(frozen=True)
class Sides:
    """Two things and what to call them."""

    a: Any
    b: Any
    called_a: str = "MODEL_A"
    called_b: str = "MODEL_B"


def check_same_tokens(sides: Sides) -> list[str]:
    """Compare two tokenizers; returns what else differs, a line each: neither refused nor to be overlooked.

    Raises ConfigError, naming the difference, where an id stands for different tokens.
    """
    one, other = sides.a.get_vocab(), sides.b.get_vocab()
    if one != other:
        raise ConfigError(
            f"{sides.called_a} and {sides.called_b} have different vocabularies: {vocabulary_difference(one, other)}; "
            "token by token they can be compared only with one vocabulary; choose models that share their tokenizer"
        )
    return [*_differences_of_splitting(sides), *_differences_of_roles(sides)]


def vocabulary_difference(one: Mapping[str, int], other: Mapping[str, int]) -> str:
    """How two vocabularies differ, in a line: tokens that only one has, then tokens with another id."""
    parts = []
    if len(one) != len(other):
        parts.append(f"{len(one):,} tokens against {len(other):,}")
    for which, have, lack in (("first", one, other), ("second", other, one)):
        if alone := sorted(have.keys() - lack.keys(), key=have.__getitem__):
            parts.append(f"only the {which} has {_listed([_quoted(token) for token in alone])}")
    moved = [token for token in sorted(one.keys() & other.keys(), key=one.__getitem__) if one[token] != other[token]]
    if moved:
        shown = _listed([f"{_quoted(token)} ({one[token]} and {other[token]})" for token in moved])
        parts.append(f"{len(moved):,} of {len(one):,} tokens have another id: {shown}")
    return "; ".join(parts)


def check_same_heads(sides: Sides, tokens: int) -> None:
    """Raise ConfigError where two scorers, whose tokenizer has so many tokens, have different numbers of logits."""
    a: Scorer = sides.a
    b: Scorer = sides.b
    one, other = a.head.vocabulary, b.head.vocabulary
    if one == other:
        return
    padding = " (what is beyond the tokenizer is padding)" if min(one, other) >= tokens else ""
    raise ConfigError(
        f"{sides.called_a} has {one:,} logits and {sides.called_b} {other:,}, and their tokenizer {tokens:,} tokens"
        f"{padding}; distributions over different vocabularies cannot be compared; bring one to the size of the other "
        f"with resize_token_embeddings({min(one, other)}), and save it"
    )


def _differences_of_splitting(sides: Sides) -> list[str]:
    one, other = (_written(tokenizer) for tokenizer in (sides.a, sides.b))
    differing = [part for part in SPLITTING if one.get(part) != other.get(part)]
    if one["model"].get("merges") != other["model"].get("merges"):
        differing.append("merges")
    if not differing:
        return []
    return [
        f"the tokenizers share their tokens but not their {', '.join(differing)}: {sides.called_b} was perhaps trained "
        f"on text that was split otherwise; both are given the tokens of {sides.called_a}"
    ]


def _differences_of_roles(sides: Sides) -> list[str]:
    lines = []
    one, other = (tokenizer.special_tokens_map for tokenizer in (sides.a, sides.b))
    roles = [name for name in ("bos_token", "eos_token") if one.get(name) != other.get(name)]
    for role in roles:
        lines.append(
            f"{role} is {one.get(role)} for {sides.called_a} and {other.get(role)} for {sides.called_b}; "
            f"texts have that of {sides.called_a}"
        )
    if sides.a.chat_template != sides.b.chat_template:
        lines.append(f"the chat templates differ; conversations are written by that of {sides.called_a}")
    return lines


def _written(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    written: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return written


def _quoted(token: str) -> str:
    return json.dumps(token, ensure_ascii=True)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
