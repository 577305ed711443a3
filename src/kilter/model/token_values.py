"""Row functions along completions, token by token, from trees of any number of sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import LOG_PROB, RowFunction
from kilter.model.scorer import Reference, Scorer
from kilter.tokens.packing import pack
from kilter.tokens.sequence import TokenSequence

Floats: TypeAlias = NDArray[np.float64]


def token_values(
    scorer: Scorer,
    sequences: Sequence[TokenSequence],
    functions: Sequence[RowFunction] = (LOG_PROB,),
    *,
    reference: Reference | None = None,
    node_budget: int = 2048,
) -> list[tuple[Floats, ...]]:
    """Each sequence's values of the functions, an array for each with a value for each scored token, in nats.

    Raises ConfigError where a sequence is longer than the node budget.
    """
    values: dict[int, tuple[Floats, ...]] = {}
    for micro in pack([[sequence] for sequence in sequences], node_budget=node_budget).micro_batches:
        tree = PreparedTree(micro.tree.padded(scorer.node_multiple), scorer.device)
        with torch.no_grad():
            found = scorer(tree, functions, reference=reference)
        ends = tree.tree.edge_start_C[1:-1]
        columns = []
        for function, value in zip(functions, found, strict=True):
            value_M = value if function.per_target else value[tree.target_row_M]
            columns.append(np.split(value_M[tree.edge_target_E].double().cpu().numpy(), ends))
        values |= zip(micro.completion_C.tolist(), zip(*columns, strict=True), strict=True)
    return [values[place] for place in range(len(sequences))]
