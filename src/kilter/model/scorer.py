"""The Scorer: the only place that calls a model. A prepared tree goes in; rows come out.

Axes: T nodes, N rows given to the head, M scored nodes, C completions, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from kilter.errors import ModelError
from kilter.model import llama
from kilter.model.architectures import Path, architecture_of, exact_up_to, router_loss
from kilter.model.attention import use_tree_attention
from kilter.model.autocast import keep_weights_cast, share_casts
from kilter.model.head import SHAPE_MULTIPLE, Beside, LogitsHead, chunk_rows, head_loss, head_rows
from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import LOG_PROB, RowFunction, Targets
from kilter.tokens.tree import Ints

# What an adapter's scores depend on besides its weights, as peft calls it.
ADAPTER_SCALES = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora")


class Reference(Protocol):
    """What a policy is held against: a Scorer, or what is kept of one's scores (model/reference_scores.py)."""

    def __call__(
        self, tree: PreparedTree, functions: Sequence[RowFunction] = ..., *, reference: Reference | None = ...
    ) -> tuple[Tensor, ...]:
        """Row functions of the logits, as `Scorer.forward` gives them."""
        ...

    def beside(self, tree: PreparedTree) -> Beside:
        """The whole distributions, to stand beside the policy's."""
        ...

    @property
    def scorer(self) -> Scorer:
        """The model itself, for what is asked once and not kept."""
        ...

    @property
    def device(self) -> torch.device: ...

    @property
    def node_multiple(self) -> int: ...


class Scorer(nn.Module):
    """A causal language model that scores token trees.

    `path` is "tree" (every node computed once, by tree attention) or "separate" (each leaf's path run through the
    model's own attention, unpadded, for architectures that a tree cannot serve); None takes the architecture's.
    `autocast` is the type of matrix products, None for that of the weights.
    """

    def __init__(
        self, model: PreTrainedModel, *, path: Path | None = None, autocast: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.architecture = architecture_of(model.config)
        self.path: Path = path or self.architecture.path
        self.autocast = autocast
        self.exact_up_to = exact_up_to(model.config)
        if self.path == "tree":
            if self.architecture.path != "tree":
                raise ModelError(f"{model.config.model_type} models cannot be scored as a tree; use path='separate'")
            use_tree_attention(model)
        if autocast is not None and not (self.architecture.llama_like and llama.serves(model)):
            share_casts(model.base_model, autocast)

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def scorer(self) -> Scorer:
        """Itself: see `Reference`."""
        return self

    def state(self) -> dict[str, Tensor]:
        """The weights that its scores come from, by name."""
        return dict(self.model.state_dict())

    def settings(self) -> dict[str, Any]:
        """What else they come from: the model's configuration, its adapters', the path, the type of products."""
        adapters: dict[str, Any] = getattr(self.model, "peft_config", {})
        return {
            "config": self.model.config.to_dict(),
            "adapters": {n: {key: getattr(a, key) for key in ADAPTER_SCALES} for n, a in adapters.items()},
            "path": self.path,
            "products": str(self.autocast),
        }

    @property
    def node_multiple(self) -> int:
        """Trees whose nodes are a multiple of this run faster: products and kernels are compiled for each size."""
        if self.path == "separate":
            return 1
        return SHAPE_MULTIPLE if self.autocast is not None or self.device.type != "cpu" else 1

    def recompute_activations(self) -> None:
        """Keep one activation a layer for backward, and compute the rest again (Chen et al. 2016, arXiv 1604.06174).

        Raises ModelError for a model that has no such layers.
        """
        try:
            self.model.activation_checkpointing_enable({"use_reentrant": False})
        except ValueError as error:
            raise ModelError(f"{type(self.model).__name__} has no activation checkpointing; leave it out") from error
        self.model.disable_input_require_grads()
        for module in self.model.modules():
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True  # it recomputes in training alone; its own layers stay without dropout

    @property
    def drops_out(self) -> bool:
        """Whether an adapter has dropout."""
        return bool(self._dropouts())

    @contextmanager
    def dropout(self) -> Iterator[None]:
        """Where a training pass, forward and backward, has the dropout that its adapter asks for."""
        modules = self._dropouts()
        for module in modules:
            module.train()
        try:
            yield
        finally:
            for module in modules:
                module.eval()

    def _dropouts(self) -> list[nn.Dropout]:
        named = ((name, m) for name, m in self.model.named_modules() if isinstance(m, nn.Dropout) and m.p)
        return [module for name, module in named if "lora_dropout" in name]

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Where the model, called by itself, is the one that this scorer scores."""
        yield

    def frozen(self) -> Scorer:
        """This scorer with its parameters out of reach of gradients: a reference.

        Under autocast its linear weights are then kept in the type of the products: the same numbers in less memory.
        """
        self.requires_grad_(False)
        if self.autocast is not None:
            keep_weights_cast(self.model, self.autocast, self.model.get_output_embeddings())
        return self

    @property
    def head(self) -> LogitsHead:
        module = self.model.get_output_embeddings()
        if module is None:
            raise ModelError(f"{type(self.model).__name__} has no language-model head")
        logits = self.architecture.logits
        transform = None if logits is None else partial(logits, self.model.config)
        return LogitsHead(module, transform, self.autocast)

    def hidden(self, tree: PreparedTree, embeddings_TD: Tensor | None = None) -> Tensor:
        """The last hidden state of the rows that score the tree: (N, D).

        `embeddings_TD` replaces the nodes' token embeddings, for methods that perturb them.
        """
        if torch.is_grad_enabled() and (weight := router_loss(self.model.config)):
            raise ModelError(
                f"the model's configuration asks for a router loss of weight {weight:g} (output_router_logits), which "
                "is no part of kilter's losses; set output_router_logits to false in its config.json to train without"
            )
        longest = int(tree.tree.depth_T.max(initial=-1)) + 1
        if self.exact_up_to is not None and longest > self.exact_up_to:
            raise ModelError(
                f"a sequence has {longest:,} tokens; beyond {self.exact_up_to:,} this model's positions depend on the "
                "longest sequence of the call, so a shared prefix has no one score; "
                f"leave longer rows out with --max-length {self.exact_up_to}"
            )
        with torch.autocast(tree.device.type, dtype=self.autocast, enabled=self.autocast is not None):
            if self.path == "tree":
                if self.architecture.llama_like and llama.serves(self.model):
                    with torch.autocast(tree.device.type, enabled=False):
                        return llama.last_hidden(self.model, tree, embeddings_TD, self.autocast)
                given = {"input_ids": tree.ids_T[None]} if embeddings_TD is None else {}
                given |= {} if embeddings_TD is None else {"inputs_embeds": embeddings_TD[None]}
                backbone: nn.Module = self.model.base_model
                hidden_TD = backbone(**given, position_ids=tree.depth_T[None], use_cache=False, tree=tree)[0][0]
            else:
                hidden_TD = self._hidden_separately(tree, embeddings_TD)
        rows: Tensor = hidden_TD[tree.row_N]
        return rows

    def _hidden_separately(self, tree: PreparedTree, embeddings_TD: Tensor | None) -> Tensor:
        """One forward for each leaf's path; a node is taken from the first path that runs through it."""
        parts, done = [], 0
        for leaf in (tree.tree.exit_T == range(1, len(tree) + 1)).nonzero()[0].tolist():
            path = torch.from_numpy(tree.tree.path(leaf)).to(tree.device)
            given = {"input_ids": tree.ids_T[path][None]}
            if embeddings_TD is not None:
                given = {"inputs_embeds": embeddings_TD[path][None]}
            hidden = self.model.base_model(**given, use_cache=False)[0][0]
            parts.append(hidden[len(path) - (leaf + 1 - done) :])
            done = leaf + 1
        return torch.cat(parts)

    def forward(
        self,
        tree: PreparedTree,
        functions: Sequence[RowFunction] = (LOG_PROB,),
        *,
        reference: Reference | None = None,
        embeddings_TD: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Row functions of the logits, (M,) per scored node or (N,) per row, in nats.

        `reference` is the model whose distributions stand beside the policy's, for those functions that compare.
        """
        beside = None if reference is None else reference.beside(tree)
        return head_rows(self.head, self.hidden(tree, embeddings_TD), _targets(tree), functions, beside=beside)

    @torch.no_grad()
    def beside(self, tree: PreparedTree) -> Beside:
        """This model's distributions, to stand beside another's."""
        return Beside(self.head, self.hidden(tree))

    def loss(
        self,
        tree: PreparedTree,
        loss_of_sums: Callable[[Tensor, Tensor], Tensor],
        unit_C: Ints | None,
        weight_WE: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """A loss whose gradient is formed in the same pass as the log-probs, where that is possible.

        `unit_C` numbers the unit of each completion, and `loss_of_sums(sum_WC, present_C)` is the summed loss of the
        units present in a part of the tree: their completions' log-probs, summed by each of the weightings of edges
        (none given: by the tree's own), and which completions those are. A loss that is linear in the sums needs no
        units (None): it may be given any part of them. Returns the loss, and the detached sums of all completions,
        (W, C).
        """

        def summed(log_prob_M: Tensor) -> Tensor:
            return torch.stack([tree.sum_edges(log_prob_M, weight_E) for weight_E in weight_WE or [tree.edge_weight_E]])

        head, targets, hidden = self.head, _targets(tree), self.hidden(tree)
        chunks = tree.chunks(unit_C, chunk_rows(head.vocabulary))
        if chunks is None:
            (log_prob,) = head_rows(head, hidden, targets)
            sum_WC = summed(log_prob)
            return loss_of_sums(sum_WC, torch.ones_like(sum_WC[0], dtype=torch.bool)), sum_WC.detach()

        def chunk_loss(part: slice, log_prob: Tensor) -> Tensor:
            padded = nn.functional.pad(log_prob, (part.start, len(targets.id_M) - part.stop))
            return loss_of_sums(summed(padded), tree.present(unit_C, part))

        loss, log_prob = head_loss(head, hidden, targets, chunk_loss, chunks)
        return loss, summed(log_prob)


def _targets(tree: PreparedTree) -> Targets:
    return Targets(tree.target_row_M, tree.target_id_M)
