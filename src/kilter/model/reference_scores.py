"""A reference whose scores are kept: it computes a token once, however often, and in whichever run, it is asked for.

Stores lie under the reference's fingerprint, so no other reference's scores are ever taken for its own; within a store
a token is known by all those before it. So scores are shared by whatever agrees in those: runs of other objectives,
batches cut or ordered otherwise, answers cut on the right.

Axes: T nodes, N rows given to the head, M scored nodes, E edges, C completions, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kilter.errors import ModelError
from kilter.model.fingerprint import model_fingerprint
from kilter.model.head import Beside, LogitsHead, head_rows
from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import ENTROPY, LOG_PROB, RowFunction, Targets
from kilter.model.score_store import Found, Index, Keys, MappedStore, ScoreStore, path_keys
from kilter.model.scorer import Reference, Scorer
from kilter.tokens.packing import SHARING_COST
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import TokenTree

# What is kept of a scored token: its log-prob, and the entropy of the row that predicts it, in nats.
KEPT = (LOG_PROB, ENTROPY)

# Hidden states are kept as integers of their bits, for NumPy has no bfloat16: by bytes of a number.
BITS: dict[int, torch.dtype] = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass
class Counts:
    """Tokens asked for whose scores were there (hits) and were not (misses), and tokens that the model was run on: to
    keep their scores, and for whole distributions that are not kept."""

    hits: int = 0
    misses: int = 0
    computed: int = 0
    computed_unkept: int = 0


class ReferenceScores:
    """A reference (see `Reference`) that looks its scores up, and computes those of completions that lack one.

    `load` is called when the model is first needed, which may be never; it may be called again. The `fingerprint` is of
    what it gives, and names the directory within `directory`. With `hidden`, the last hidden states of all rows are
    kept too, in the type that the head takes; whole distributions then come from those and the head alone. `warn` is
    told what a `ScoreStore` tells. Raises ModelError where the model that was loaded is another.
    """

    def __init__(
        self,
        directory: Path,
        fingerprint: str,
        load: Callable[[], Scorer],
        *,
        hidden: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory, self.fingerprint, self.keeps_hidden = directory / fingerprint, fingerprint, hidden
        self.counts = Counts()
        self._load, self._warn = load, warn
        self._scorer: Scorer | None = None
        self._head: LogitsHead | None = None
        self._log_probs = ScoreStore(self.directory / "log-probs", np.float32, len(KEPT), warn)
        self._hidden = _existing_hidden(self.directory, warn) if hidden else None

    def __len__(self) -> int:
        """Tokens whose scores are kept."""
        return len(self._log_probs)

    @property
    def in_memory(self) -> bool:
        """Whether the model is there already."""
        return self._scorer is not None

    @property
    def bytes_on_disk(self) -> int:
        return self._log_probs.bytes_on_disk + (0 if self._hidden is None else self._hidden.store.bytes_on_disk)

    @property
    def scorer(self) -> Scorer:
        """The model itself, for what is asked once and not kept."""
        if self._scorer is None:
            self._scorer = self._loaded()
        return self._scorer

    @property
    def device(self) -> torch.device:
        return self.scorer.device

    @property
    def node_multiple(self) -> int:
        return self.scorer.node_multiple

    def use(self, scorer: Scorer) -> None:
        """Have this model, which is known to be the reference, in place of one that would be loaded."""
        self._scorer = scorer.frozen()

    def use_head_of(self, scorer: Scorer) -> None:
        """The same of a model of which no more than the head is to stay in memory."""
        self._head = scorer.frozen().head

    def __call__(
        self,
        tree: PreparedTree,
        functions: Sequence[RowFunction] = (LOG_PROB,),
        *,
        reference: Reference | None = None,
    ) -> tuple[Tensor, ...]:
        """Of a tree's scored nodes: log-probs (M,), and of its rows: entropies (N,), in float32; no gradient.

        Other functions, and those that compare with another `reference`, are asked of the model.
        """
        if not set(functions) <= set(KEPT):
            self.counts.computed_unkept += len(tree)
            with torch.no_grad():
                found: tuple[Tensor, ...] = self.scorer(tree, functions, reference=reference)
            return found
        log_prob_M, entropy_M = self._values(tree).T
        a_target_N = np.unique(tree.target_row_of_M, return_index=True)[1]
        by_function = {LOG_PROB: log_prob_M, ENTROPY: entropy_M[a_target_N]}
        return tuple(torch.from_numpy(by_function[f].copy()).to(tree.device) for f in functions)

    def beside(self, tree: PreparedTree) -> Beside:
        """The distributions of a tree's rows: from what is kept with `hidden`, else computed each time."""
        if not self.keeps_hidden:
            self.counts.computed_unkept += len(tree)
            return self.scorer.beside(tree)
        keys_N = path_keys(tree.tree)[tree.row_node_N]
        bits_ND, found_N = self._kept_hidden(keys_N)
        missing_M = self._counted(~found_N[tree.target_row_of_M])
        if missing_M.any():
            computed = self._compute(tree, missing_M)
            own_ND = computed.bits_ND[computed.place_of_row.find(keys_N)[0][:, 0]]
            bits_ND = np.where(found_N[:, None], bits_ND, own_ND) if found_N.any() else own_ND
        assert self._hidden is not None
        hidden_ND = torch.from_numpy(bits_ND).view(self._hidden.dtype)
        return Beside(self._head_alone(), hidden_ND.to(tree.device))

    def fill(self, tree: PreparedTree) -> None:
        """See to it that the scores of a tree are kept."""
        self._values(tree)

    def describe(self, counts: Counts) -> str:
        """What was found, what was computed, and what it takes on disk, in a line."""
        kept = f"{len(self):,} tokens"
        if self._hidden is not None:
            kept += f", {len(self._hidden.store):,} hidden states of {self._hidden.width} x {_name(self._hidden.dtype)}"
        unkept = f" and {counts.computed_unkept:,} for what is not kept" if counts.computed_unkept else ""
        return (
            f"reference scores: {counts.hits:,} tokens found, {counts.misses:,} not; the reference computed "
            f"{counts.computed:,} tokens{unkept}; kept: {kept}, {self.bytes_on_disk / 1e6:,.1f} MB in {self.directory}"
        )

    def _values(self, tree: PreparedTree) -> NDArray[Any]:
        """What is kept of a tree's scored nodes: (M, 2)."""
        keys_T = path_keys(tree.tree)
        keys_M = keys_T[tree.target_node_M]
        values, found_M = self._log_probs.find(keys_M)
        known_M = found_M
        if self.keeps_hidden:
            known_M = found_M & self._has_hidden(keys_T[tree.row_node_N])[tree.target_row_of_M]
        missing_M = self._counted(~known_M)
        if missing_M.any():
            computed = self._compute(tree, missing_M)
            values[~found_M] = computed.values.find(keys_M[~found_M])[0]
        return values

    def _counted(self, missing_M: Found) -> Found:
        misses = int(missing_M.sum())
        self.counts.misses += misses
        self.counts.hits += len(missing_M) - misses
        return missing_M

    def _compute(self, tree: PreparedTree, missing_M: Found) -> _Computed:
        """Run the model on those completions that have a token missing, as a tree of their own, and keep the scores."""
        scorer = self.scorer
        lacking = np.unique(tree.edge_completion_E.cpu().numpy()[missing_M[tree.target_of_E]])
        own = tree
        if len(lacking) < tree.completions:
            part = TokenTree.build([_sequence(tree.tree, c) for c in lacking.tolist()], sharing_cost=SHARING_COST)
            own = PreparedTree(part.padded(scorer.node_multiple), tree.device)
        self.counts.computed += len(own)
        keys_T = path_keys(own.tree)
        keys_M, keys_N = keys_T[own.target_node_M], keys_T[own.row_node_N]
        with torch.no_grad():
            head, hidden_ND = scorer.beside(own)
            log_prob_M, entropy_N = head_rows(head, hidden_ND, Targets(own.target_row_M, own.target_id_M), KEPT)
        values = torch.stack([log_prob_M, entropy_N[own.target_row_M]], 1).float().cpu().numpy()
        # What is no number is not kept: whoever looks for its cause must find it again.
        fresh_M = ~self._log_probs.find(keys_M)[1] & ~np.isnan(values).any(1)
        self._log_probs.append(keys_M[fresh_M], values[fresh_M])
        bits_ND = np.empty((len(keys_N), 0), np.int16)
        if self.keeps_hidden:
            hidden_ND = hidden_ND.to(head.dtype or hidden_ND.dtype).cpu()
            bits_ND = hidden_ND.contiguous().view(BITS[hidden_ND.dtype.itemsize]).numpy()
            if self._hidden is None:
                self._hidden = _Hidden.open(self.directory, hidden_ND.dtype, hidden_ND.shape[1], self._warn)
            fresh_N = ~self._has_hidden(keys_N) & hidden_ND.isfinite().all(1).numpy()
            self._hidden.store.append(keys_N[fresh_N], bits_ND[fresh_N])
        return _Computed.of(keys_M, values, keys_N, bits_ND)

    def _kept_hidden(self, keys_N: Keys) -> tuple[NDArray[Any], Found]:
        if self._hidden is None:
            return np.empty((len(keys_N), 0), np.int16), np.zeros(len(keys_N), bool)
        return self._hidden.store.find(keys_N)

    def _has_hidden(self, keys_N: Keys) -> Found:
        return np.zeros(len(keys_N), bool) if self._hidden is None else self._hidden.store.has(keys_N)

    def _head_alone(self) -> LogitsHead:
        """The model's head; what was loaded for it alone is let go."""
        if self._head is None:
            self._head = (self._scorer or self._loaded()).head
        return self._head

    def _loaded(self) -> Scorer:
        with torch.enable_grad():  # whoever asks for scores has none, and the proof on load takes gradients
            scorer = self._load()
        check_fingerprint(scorer, self.fingerprint)
        return scorer.frozen()


def check_fingerprint(scorer: Scorer, fingerprint: str) -> None:
    """Raise ModelError where a model is not the one of a fingerprint."""
    if (found := model_fingerprint(scorer)) != fingerprint:
        raise ModelError(
            f"the scores that are kept are of the reference {fingerprint}, and the model that was loaded is {found}; "
            "restore the reference as it was, or begin another run"
        )


class _Hidden(NamedTuple):
    """The hidden states that are kept, as integers of the bits of their type."""

    store: MappedStore
    dtype: torch.dtype
    width: int

    @classmethod
    def open(cls, directory: Path, dtype: torch.dtype, width: int, warn: Callable[[str], None]) -> _Hidden:
        place = directory / f"hidden-{_name(dtype)}-{width}"
        return cls(MappedStore(place, f"i{dtype.itemsize}", width, warn), dtype, width)


def _existing_hidden(directory: Path, warn: Callable[[str], None]) -> _Hidden | None:
    """The hidden states of a reference, of which there is one type and width; None where there are none yet."""
    for place in sorted(directory.glob("hidden-*-*")):
        _, dtype, width = place.name.split("-")
        return _Hidden.open(directory, getattr(torch, dtype), int(width), warn)
    return None


class _Computed(NamedTuple):
    """What the model said, whether or not it could be kept: values by key, and the places of hidden states by key."""

    values: Index
    place_of_row: Index
    bits_ND: NDArray[Any]

    @classmethod
    def of(cls, keys_M: Keys, values: NDArray[Any], keys_N: Keys, bits_ND: NDArray[Any]) -> _Computed:
        found = cls(Index(np.float32, len(KEPT)), Index(np.int64, 1), bits_ND)
        found.values.add(keys_M, values)
        found.place_of_row.add(keys_N, np.arange(len(keys_N))[:, None])
        return found


def _sequence(tree: TokenTree, completion: int) -> TokenSequence:
    """A completion of a tree, with its prompt."""
    path = tree.path(int(tree.last_C[completion]))
    first = int(tree.depth_T[tree.first_C[completion]])
    edges = slice(tree.edge_start_C[completion], tree.edge_start_C[completion + 1])
    weights = np.zeros(len(path) - first, np.float32)
    weights[tree.depth_T[tree.edge_node_E[edges]] - first] = tree.edge_weight_E[edges]
    return TokenSequence(tree.ids_T[path], first, weights, int(tree.variant_T[path[0]]))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
