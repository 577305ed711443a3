"""Estimates of answer KL held against the truth: how they vary, by enumeration.

A language model may say anything, and no one can enumerate that. So answers end here where they leave a tree of texts
(the world's sentences): with their first token that no text of the tree goes on with. Of those there are finitely many,
and no model is changed by it. By the chain rule KL(p, q) between them is the sum over the tree's contexts of the chance
that p comes there, times the exact KL of the next token; and the moments of any sum along an answer follow from the
leaves up.

Axes: N contexts (rows of logits), M tokens that a text of the tree goes on with, P prompts, T tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from kilter.divergence import SequenceKl, expectation, kl_from_sequences
from kilter.divergence.estimates.log_ratios import k3
from kilter.measure.samples import score_samples
from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import KL_POLICY_REFERENCE, LOG_PROB, REFERENCE_LOG_PROB, RowFunction
from kilter.model.sampler import Sample
from kilter.model.scorer import Scorer
from kilter.tokens.sequence import Ids

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

K1_SQUARED = RowFunction("k1 squared", lambda rows, _: expectation(rows.p, rows.log_ratio**2))
K3_SQUARED = RowFunction("k3 squared", lambda rows, _: expectation(rows.p, k3(rows.log_ratio) ** 2))


class Spread(NamedTuple):
    """The variance of one answer's value by each estimate, in nats squared, for each prompt: (P,)."""

    kl: Floats
    k1: Floats
    k3: Floats


@dataclass(frozen=True, eq=False)
class Texts:
    """A tree of texts that answer prompts, read from context to context."""

    tree: PreparedTree
    parent_M: Ints  # the context of each token
    context_M: Ints  # the context that the token makes, or -1 where all texts end with it
    root_P: Ints  # each prompt

    @classmethod
    def of(cls, tree: PreparedTree) -> Texts:
        """The texts of a prepared tree; prompts come in the order of their first text."""
        token_tree = tree.tree
        scored = np.unique(token_tree.edge_node_E)
        row_of_node = np.full(len(token_tree), -1)
        row_of_node[tree.row_N.cpu().numpy()] = np.arange(len(tree.row_N))
        node_M = scored[np.argsort(row_of_node[token_tree.parent_T[scored]], kind="stable")]
        parent_M = tree.target_row_M.cpu().numpy()
        firsts = token_tree.edge_node_E[token_tree.edge_start_C[:-1]]
        root_P = np.array([*dict.fromkeys(row_of_node[token_tree.parent_T[firsts]].tolist())])
        return cls(tree, parent_M, row_of_node[node_M], root_P)

    def reached(self, prompt: int, answer: Ids) -> int:
        """How many tokens of an answer there are until it ends, or leaves the tree, that token included."""
        ids_M = self.tree.target_id_M.cpu().numpy()
        context = int(self.root_P[prompt])
        for place, token in enumerate(answer.tolist(), start=1):
            begin, end = np.searchsorted(self.parent_M, [context, context + 1])
            (found,) = np.nonzero(ids_M[begin:end] == token)
            if not len(found) or self.context_M[begin + found[0]] < 0:
                return place
            context = int(self.context_M[begin + found[0]])
        return len(answer)


@torch.no_grad()
def exact_answer_kl(p: Scorer, q: Scorer, texts: Texts) -> tuple[Floats, Spread]:
    """KL(p, q) of answers to each prompt, in nats, and the variances of its estimates from an answer that p draws: the
    sum of exact token KL, of log-ratios (k1), and of each token's k3."""
    functions = [KL_POLICY_REFERENCE, K1_SQUARED, K3_SQUARED, LOG_PROB, REFERENCE_LOG_PROB]
    found = p(texts.tree, functions, reference=q)
    kl_N, k1_squared_N, k3_squared_N, log_p_M, log_q_M = (values.double().cpu().numpy() for values in found)
    log_ratio_M, p_M = log_p_M - log_q_M, np.exp(log_p_M)
    value_M = {"kl": kl_N[texts.parent_M], "k1": log_ratio_M, "k3": k3(log_ratio_M)}

    mean_N = kl_N.copy()
    square_N = {"kl": kl_N**2, "k1": k1_squared_N, "k3": k3_squared_N}
    depth_N = texts.tree.depth_T.cpu().numpy()[texts.tree.row_N.cpu().numpy()]
    inner_M = texts.context_M >= 0
    for depth in range(int(depth_N.max()), -1, -1):  # a context's own sums are whole before they go to the one above
        at = np.flatnonzero(inner_M & (depth_N[texts.parent_M] == depth))
        above, below, chance = texts.parent_M[at], texts.context_M[at], p_M[at]
        np.add.at(mean_N, above, chance * mean_N[below])
        for name, values in value_M.items():
            np.add.at(square_N[name], above, chance * (2 * values[at] * mean_N[below] + square_N[name][below]))
    kl_P = mean_N[texts.root_P]
    return kl_P, Spread(**{name: square[texts.root_P] - kl_P**2 for name, square in square_N.items()})


def sampled_answer_kl(p: Scorer, q: Scorer, texts: Texts, samples: Sequence[Sequence[Sample]]) -> list[SequenceKl]:
    """The same KL estimated from answers that p drew for each prompt, each counted as far as the tree goes."""
    found = []
    for prompt, drawn in enumerate(samples):
        scored = [(row, slice(texts.reached(prompt, row.sample.answer))) for row in score_samples(p, drawn, q)]
        token_kl = [row.kl[part] for row, part in scored if row.kl is not None]
        found.append(kl_from_sequences(token_kl, [row.log_ratio[part] for row, part in scored]))
    return found
