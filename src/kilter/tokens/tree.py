"""The token tree: every shared prefix of a batch stored once, completions as weighted edges over its nodes.

Axes: T nodes, E edges, C completions, S sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilter.tokens.sequence import Ids, TokenSequence, Weights

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TokenTree:
    """Nodes in depth-first pre-order, and the completions that run through them.

    `ids_T` is the token of a node, `parent_T` the node before it on its path (-1 at a root), `depth_T` its distance
    from the root (its position id) and `exit_T` one past the last node of its subtree, so that one rule says who
    may attend to whom: `visible(q, k) := k <= q < exit_T[k]`.

    A completion is its first and last node and a run of edges, `edge_start_C[c]` to `edge_start_C[c + 1]`, each a
    node and a weight. A node is scored from its parent, so the first token of a root cannot be scored: `unscored`
    counts the edges lost that way. Edges of weight zero are not stored.

    Two answers to the prompt 7 8 that begin alike:

    >>> answers = [[7, 8, 1, 2], [7, 8, 1, 3]]
    >>> tree = TokenTree.build([TokenSequence(np.array(ids, np.int32), first=2) for ids in answers])
    >>> tree.ids_T, tree.parent_T
    (array([7, 8, 1, 2, 3], dtype=int32), array([-1,  0,  1,  2,  2]))
    >>> tree.path(4)
    array([0, 1, 2, 4])
    """

    ids_T: Ids
    parent_T: Ints
    depth_T: Ints
    exit_T: Ints
    variant_T: Ints
    first_C: Ints
    last_C: Ints
    edge_start_C: Ints
    edge_node_E: Ints
    edge_weight_E: Weights
    unscored: int

    @classmethod
    def build(cls, sequences: Sequence[TokenSequence], *, sharing_cost: float = 0.0) -> TokenTree:
        """Merge sequences into a tree; completion c is `sequences[c]`.

        At a `sharing_cost` of 0 every common prefix is merged: one node for each distinct prefix and variant.
        Above 0, sequences whose common start is too short to pay for itself become trees of their own
        (see `unprofitable_roots`).
        """
        order, common = sorted_with_common_prefixes(sequences)
        length = np.array([len(sequences[s].ids) for s in order], dtype=np.int64)
        common = np.where(unprofitable_roots(common, length, sharing_cost), 0, common)
        start = np.concatenate([[0], np.cumsum(length - common)])

        count = int(start[-1])
        parent, exit_ = np.arange(-1, count - 1), np.empty(count, dtype=np.int64)
        paths = paths_of_sorted(common, length, start)
        ids = [sequences[s].ids[common[i] :] for i, s in enumerate(order)]
        depth = np.arange(count) - np.repeat(start[:-1] - common, length - common)
        variant = np.repeat([sequences[s].variant for s in order], length - common)
        for i in np.flatnonzero(length > common):
            parent[start[i]] = paths[i][common[i] - 1] if common[i] else -1
        # The subtree of a node ends where the next node of its depth or less begins; walk the runs backwards.
        next_start = np.full(int(length.max(initial=0)), count)
        for i in np.flatnonzero(length > common)[::-1]:
            exit_[start[i] : start[i + 1]] = next_start[common[i] : length[i]]
            next_start[common[i] :] = start[i]

        path_of = dict(zip(order, paths, strict=True))
        return cls(
            ids_T=np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int32, copy=False),
            parent_T=parent,
            depth_T=depth,
            exit_T=exit_,
            variant_T=variant.astype(np.int64, copy=False),
            **_completions(sequences, [path_of[s] for s in range(len(sequences))]),
        )

    def __len__(self) -> int:
        return len(self.ids_T)

    def padded(self, multiple: int) -> TokenTree:
        """This tree with one more root, of unscored tokens, that brings its nodes to a multiple."""
        nodes, extra = len(self), -len(self) % multiple
        chain = np.arange(extra)
        return replace(
            self,
            ids_T=np.concatenate([self.ids_T, np.zeros(extra, np.int32)]),
            parent_T=np.concatenate([self.parent_T, np.where(chain > 0, nodes + chain - 1, -1)]),
            depth_T=np.concatenate([self.depth_T, chain]),
            exit_T=np.concatenate([self.exit_T, np.full(extra, nodes + extra)]),
            variant_T=np.concatenate([self.variant_T, np.zeros(extra, np.int64)]),
        )

    @property
    def completions(self) -> int:
        return len(self.first_C)

    @property
    def weight_C(self) -> Weights:
        """The sum of each completion's edge weights: its length in scored tokens, where all weights are 1."""
        completion_E = np.repeat(np.arange(self.completions), np.diff(self.edge_start_C))
        return np.bincount(completion_E, self.edge_weight_E, self.completions).astype(np.float32)

    def path(self, node: int) -> Ints:
        """The nodes from the root to `node`, in order."""
        nodes = [node]
        while (node := int(self.parent_T[node])) >= 0:
            nodes.append(node)
        return np.array(nodes[::-1], dtype=np.int64)

    def visible(self) -> NDArray[np.bool_]:
        """The attention rule as a dense T x T matrix: row q may attend to column k. For tests and small trees."""
        node = np.arange(len(self))
        return (node[None, :] <= node[:, None]) & (node[:, None] < self.exit_T[None, :])

    def segment_starts(self) -> Ints:
        """The first node of each unbranched run: one whose predecessor is not its parent, or has other children."""
        if not len(self):
            return np.empty(0, np.int64)
        only_child = (self.parent_T[1:] == np.arange(len(self) - 1)) & (self.exit_T[1:] == self.exit_T[:-1])
        return np.concatenate([[0], 1 + np.flatnonzero(~only_child)])


def sorted_with_common_prefixes(sequences: Sequence[TokenSequence]) -> tuple[list[int], Ints]:
    """The lexicographic order of sequences, and how many tokens each shares with the one before it in that order.

    In that order a sequence's new tokens are exactly the nodes that a depth-first walk meets next.
    """
    # Big-endian bytes compare as the numbers do, so one memcmp compares two sequences.
    keys = [s.variant.to_bytes(4, "big") + s.ids.astype(">u4").tobytes() for s in sequences]
    order = sorted(range(len(sequences)), key=keys.__getitem__)
    common = np.zeros(len(order), dtype=np.int64)
    for i in range(1, len(order)):
        before, after = sequences[order[i - 1]], sequences[order[i]]
        if before.variant == after.variant:
            common[i] = common_prefix(before.ids, after.ids)
    return order, common


def common_prefix(left: Ids, right: Ids) -> int:
    """How many leading tokens two sequences share."""
    shorter = min(len(left), len(right))
    differs = left[:shorter] != right[:shorter]
    first = int(differs.argmax()) if shorter else 0
    return first if shorter and differs[first] else shorter


def unprofitable_roots(common: Ints, length: Ints, sharing_cost: float) -> NDArray[np.bool_]:
    """Where, between sorted sequences, a shared start costs more than it saves and should be repeated instead.

    Sharing a root run of n tokens among b branches saves (b - 1) n nodes. It costs one more partial softmax for
    each node below, which is worth `sharing_cost` nodes of work. A start that does not pay is repeated, and the
    groups below it are judged by themselves.
    """
    cut = np.zeros(len(common), dtype=bool)
    if sharing_cost <= 0:
        return cut
    groups = [(0, len(common))]
    while groups:
        begin, end = groups.pop()
        if end - begin < 2:
            continue
        inner = common[begin + 1 : end]
        shortest = int(inner.min())
        branches = np.flatnonzero(inner == shortest) + begin + 1
        below = int(length[begin] + (length[begin + 1 : end] - inner).sum()) - shortest
        if len(branches) * shortest > sharing_cost * below:
            continue
        cut[branches] = True
        edges = [begin, *branches.tolist(), end]
        groups += pairwise(edges)
    return cut


def paths_of_sorted(common: Ints, length: Ints, start: Ints) -> list[Ints]:
    """The nodes of each sorted sequence: those shared with the one before, then its own new ones."""
    paths: list[Ints] = []
    for i in range(len(common)):
        new = np.arange(start[i], start[i + 1])
        paths.append(np.concatenate([paths[-1][: common[i]], new]) if common[i] else new)
    return paths


def _completions(sequences: Sequence[TokenSequence], paths: list[Ints]) -> dict[str, Any]:
    nodes, weights, counts, unscored = [], [], [], 0
    for sequence, path in zip(sequences, paths, strict=True):
        if not 0 <= sequence.first < len(path):
            raise ValueError(f"a completion needs a token: {len(path)} tokens, completion from {sequence.first}")
        edges = path[sequence.first :]
        weight = np.ones(len(edges), np.float32) if sequence.weights is None else sequence.weights
        if len(weight) != len(edges):
            raise ValueError(f"{len(weight)} weights for the {len(edges)} tokens of a completion")
        kept = weight != 0
        if sequence.first == 0:  # a root has no parent to be scored from
            unscored += int(kept[0])
            kept = kept & (np.arange(len(edges)) > 0)
        nodes.append(edges[kept])
        weights.append(weight[kept])
        counts.append(len(nodes[-1]))
    return {
        "first_C": np.array([p[s.first] for s, p in zip(sequences, paths, strict=True)], dtype=np.int64),
        "last_C": np.array([p[-1] for p in paths], dtype=np.int64),
        "edge_start_C": np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]),
        "edge_node_E": np.concatenate([*nodes, np.empty(0, np.int64)]),
        "edge_weight_E": np.concatenate([*weights, np.empty(0, np.float32)]).astype(np.float32, copy=False),
        "unscored": unscored,
    }
