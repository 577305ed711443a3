"""What a run is trained on, by the kind of its rows: how they are encoded, and how some of them make a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from rich.console import Console
from transformers import PreTrainedTokenizerFast

from kilter.data.records import Demonstration, Labelled, Pair, Ranking
from kilter.errors import DataError
from kilter.model.fingerprint import template_fingerprint, tokenizer_fingerprint
from kilter.model.scorer import Scorer
from kilter.model.workers import Workers
from kilter.objectives import Mixture
from kilter.tokens.encoding import (
    Encoded,
    EncodedDemonstration,
    EncodedLabelled,
    EncodedPair,
    EncodedRanking,
    Encoder,
)
from kilter.tokens.sequence import Ids
from kilter.train.batches import Batch, demonstration_batch, labelled_batch, pair_batch, ranking_batch
from kilter.train.config import RunConfig
from kilter.train.setup import Rows, make_encoder

E = TypeVar("E", bound=EncodedPair | EncodedRanking | EncodedLabelled | EncodedDemonstration, covariant=True)


class Kind(NamedTuple):
    """How rows of one kind are encoded, and made a batch of."""

    encode: Callable[..., Encoded[Any]]
    batch: Callable[..., Batch]


KINDS: Mapping[type[Any], Kind] = {
    Pair: Kind(Encoder.encode_pairs, pair_batch),
    Ranking: Kind(Encoder.encode_rankings, ranking_batch),
    Labelled: Kind(Encoder.encode_labelled, labelled_batch),
    Demonstration: Kind(Encoder.encode_demonstrations, demonstration_batch),
}


@dataclass(frozen=True)
class Examples(Generic[E]):
    """Encoded rows of one kind."""

    rows: Sequence[E]
    batch: Callable[[Sequence[Any]], Batch]

    def __len__(self) -> int:
        return len(self.rows)

    def batch_of(self, positions: Sequence[int]) -> Batch:
        return self.batch([self.rows[i] for i in positions])


def prompt_of(row: EncodedPair | EncodedRanking | EncodedLabelled) -> Ids:
    """What a row's answers answer."""
    match row:
        case EncodedPair():
            answer = row.chosen
        case EncodedRanking():
            answer = row.sequences[0]
        case EncodedLabelled():
            answer = row.sequence
    return answer.ids[: answer.first]


@dataclass(frozen=True)
class Encodings:
    """A run's examples to train on and those held out (which may be of another kind), with what the manifest says."""

    train: Examples[Any]
    held_out: Examples[Any]
    facts: dict[str, Any]


def encode(
    rows: Rows[Any],
    tokenizer: PreTrainedTokenizerFast,
    config: RunConfig,
    policy: Scorer,
    mixture: Mixture,
    console: Console,
    workers: Workers,
) -> Encodings:
    """The rows as token ids, with batches as the objective takes them; tells what became of those to train on.

    Raises DataError where none of those is left.
    """
    encoder = make_encoder(tokenizer, config, policy)
    settings: dict[str, Any] = {"mismatched": True} if "mismatched" in mixture.needs else {}
    settings |= {"node_budget": config.node_limit, "node_multiple": policy.node_multiple, "workers": workers}

    def batch_by(kind: Kind) -> Callable[[Sequence[Any]], Batch]:
        return lambda chosen: kind.batch(chosen, device=policy.device, **settings)

    kind = KINDS[type(rows.train[0])]
    train, report = kind.encode(encoder, rows.train)
    console.print(report.describe(), highlight=False, soft_wrap=True)
    if not train:
        raise DataError("no row is left to train on; raise --max-length, or mend the rows that were left out")
    held_kind = KINDS[type(rows.held_out[0])] if rows.held_out else kind
    held_out = held_kind.encode(encoder, rows.held_out).rows
    facts = {
        "tokenizer_sha256": tokenizer_fingerprint(tokenizer),
        "template_sha256": template_fingerprint(tokenizer),
        **rows.facts,
        "examples": len(train),
        "held_out": len(held_out),
        "encoding": asdict(report),
        "scoring_path": policy.path,
    }
    return Encodings(Examples(train, batch_by(kind)), Examples(held_out, batch_by(held_kind)), facts)
