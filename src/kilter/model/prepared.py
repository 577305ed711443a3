"""A token tree made ready for a model: tensors on its device, and which rows of logits score which nodes.

Axes: T nodes, N rows given to the head (nodes that a scored node hangs from), M scored nodes, E edges, C completions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kilter.model.attention import TensorBlock
from kilter.model.blocks import attention_blocks
from kilter.tokens.tree import Ints, TokenTree


class PreparedTree:
    """Tensors of a `TokenTree`, worked out once and shared by policy, reference and every layer.

    A scored node's log-prob is read from the logits of its parent. `row_N` holds those parents, each once; scored
    node m takes row `target_row_M[m]` and token `target_id_M[m]`. An edge has the log-prob `edge_target_E` of its
    node, so a token shared by two completions is scored once and counted on both edges.
    """

    def __init__(self, tree: TokenTree, device: torch.device | str = "cpu") -> None:
        self.tree = tree
        self.device = torch.device(device)
        scored, edge_target = np.unique(tree.edge_node_E, return_inverse=True)
        parents, target_row = np.unique(tree.parent_T[scored], return_inverse=True)
        # Siblings lie apart in pre-order: put the targets of one row side by side.
        by_row = np.argsort(target_row, kind="stable")
        rank = np.empty_like(by_row)
        rank[by_row] = np.arange(len(by_row))
        counts = np.diff(tree.edge_start_C)

        self.ids_T = self._tensor(tree.ids_T)
        self.depth_T = self._tensor(tree.depth_T)
        self.row_N = self._tensor(parents)
        self.target_row_M = self._tensor(target_row[by_row])
        # The nodes of rows and targets, and each edge's target, for whoever looks at them off the device.
        self.row_node_N, self.target_node_M = parents, scored[by_row]
        self.target_row_of_M, self.target_of_E = target_row[by_row], rank[edge_target]
        self.target_id_M = self._tensor(tree.ids_T[self.target_node_M])
        self.edge_target_E = self._tensor(rank[edge_target])
        self.edge_completion_E = self._tensor(np.repeat(np.arange(tree.completions), counts))
        self.edge_weight_E = torch.from_numpy(tree.edge_weight_E).to(self.device)
        self._blocks: dict[tuple[int | None, torch.dtype], list[TensorBlock]] = {}
        self._block_masks: dict[int | None, Any] = {}

    def _tensor(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(self.device)

    def __len__(self) -> int:
        return len(self.tree)

    @property
    def completions(self) -> int:
        return self.tree.completions

    def sum_edges(self, value_M: Tensor, weight_E: Tensor | None = None) -> Tensor:
        """Edge-weighted sum over each completion of a value of its nodes: (C,), in float32 at least.

        `weight_E` are other weights than the tree's own.
        """
        value_M = value_M if value_M.dtype == torch.float64 else value_M.float()
        weight_E = self.edge_weight_E if weight_E is None else weight_E
        weighted_E = value_M[self.edge_target_E] * weight_E.to(value_M.dtype)
        return value_M.new_zeros(self.completions).index_add(0, self.edge_completion_E, weighted_E)

    def sum_rows(self, value_N: Tensor) -> Tensor:
        """The same for a value of whole rows (entropy, KL): an edge takes that of the row which predicts it."""
        return self.sum_edges(value_N[self.target_row_M])

    @property
    def weight_C(self) -> Tensor:
        """The sum of each completion's edge weights: its length in scored tokens, where all weights are 1."""
        return self.edge_weight_E.new_zeros(self.completions).index_add(0, self.edge_completion_E, self.edge_weight_E)

    def present(self, unit_C: Ints | None, part: slice) -> Tensor:
        """Which completions belong to a unit that is scored in a slice of the targets: (C,), true or false.

        A unit without any scored token belongs to the first slice. Without units each completion is one.
        """
        inside_E = ((self.edge_target_E >= part.start) & (self.edge_target_E < part.stop)).cpu().numpy()
        completion_E = self.edge_completion_E.cpu().numpy()
        unit_C = np.arange(self.completions) if unit_C is None else unit_C
        here = np.isin(unit_C, unit_C[completion_E[inside_E]])
        if part.start == 0:
            here |= ~np.isin(unit_C, unit_C[completion_E])
        return torch.from_numpy(here).to(self.device)

    def chunks(self, unit_C: Ints | None, rows: int) -> list[slice] | None:
        """Slices of the N rows, of about `rows` each, that never part the completions of a unit.

        With those, the loss of a unit can be formed from one chunk. Without units any slices will do. None where
        units are so interleaved that a chunk would exceed four times `rows`.
        """
        if unit_C is None:
            count = len(self.row_N)
            return [slice(i, min(i + rows, count)) for i in range(0, count, rows)] or [slice(0, 0)]
        edge_unit_E = np.repeat(unit_C, np.diff(self.tree.edge_start_C))
        edge_row_E = self.target_row_M.cpu().numpy()[self.edge_target_E.cpu().numpy()]
        units = int(unit_C.max(initial=-1)) + 1
        first, last = np.full(units, len(self.row_N)), np.full(units, -1)
        np.minimum.at(first, edge_unit_E, edge_row_E)
        np.maximum.at(last, edge_unit_E, edge_row_E)
        spans = sorted((f, b + 1) for f, b in zip(first.tolist(), last.tolist(), strict=True) if b >= 0)
        merged: list[list[int]] = []
        for begin, end in spans:
            if merged and (begin < merged[-1][1] or end - merged[-1][0] <= rows):
                merged[-1][1] = max(merged[-1][1], end)
            else:
                merged.append([begin, end])
        if any(end - begin > 4 * rows for begin, end in merged):
            return None
        return [slice(begin, end) for begin, end in merged] or [slice(0, 0)]

    def blocks(self, window: int | None, dtype: torch.dtype) -> list[TensorBlock]:
        """The blocks of CPU attention, with masks of the given type."""
        if (window, dtype) not in self._blocks:
            blocks = []
            for block in attention_blocks(self.tree, window):
                mask = blind = None
                if block.mask is not None:
                    allowed = torch.from_numpy(block.mask)
                    mask = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, -torch.inf)
                    blind = None if bool(allowed.any(-1).all()) else ~allowed.any(-1)
                queries, keys = (
                    slice(block.query_start, block.query_end),
                    slice(block.key_start, block.key_end),
                )
                blocks.append(TensorBlock(queries, keys, mask, blind))
            self._blocks[window, dtype] = blocks
        return self._blocks[window, dtype]

    def block_mask(self, window: int | None) -> Any:
        """The same rule as FlexAttention takes it."""
        if window not in self._block_masks:
            from kilter.model.flex import tree_block_mask

            exit_T = self._tensor(self.tree.exit_T)
            self._block_masks[window] = tree_block_mask(exit_T, self.depth_T, window)
        return self._block_masks[window]
