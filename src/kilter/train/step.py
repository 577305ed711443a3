"""The gradient of one global batch, the same however it is cut into micro-batches.

What an objective sees of a completion are sums over its tokens, by name (`objectives.Scores`). Where all that it needs
are log-probs, their gradient is formed while a chunk's logits are at hand; what is of whole rows (KL, collision) is
asked of the Scorer as row functions, and its backward computes the logits again.

Axes: C completions of the global batch, c those of a micro-batch, W weightings of edges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kilter.model.row_functions import (
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_COLLISION,
    LOG_PROB,
    REFERENCE_LOG_PROB,
    RowFunction,
)
from kilter.model.scorer import Reference, Scorer
from kilter.objectives import Mixture
from kilter.train.batches import Batch, PreparedMicroBatch

Sums = dict[str, Tensor]


class Sum(NamedTuple):
    """What is summed along a completion: a row function, over all its tokens or those of the `shared` length."""

    function: RowFunction
    shared: bool = False
    trained: bool = True

    def of(self, micro: PreparedMicroBatch, value: Tensor) -> Tensor:
        tree = micro.tree
        value_M = value if self.function.per_target else value[tree.target_row_M]
        return tree.sum_edges(value_M, self.weight_E(micro))

    def weight_E(self, micro: PreparedMicroBatch) -> Tensor:
        return micro.shared_weight_E if self.shared else micro.tree.edge_weight_E


SUMS: Mapping[str, Sum] = {
    "log_prob": Sum(LOG_PROB),
    "shared_log_prob": Sum(LOG_PROB, shared=True),
    "reference_log_prob": Sum(REFERENCE_LOG_PROB, trained=False),
    "shared_reference_log_prob": Sum(REFERENCE_LOG_PROB, shared=True, trained=False),
    "kl_policy_reference": Sum(KL_POLICY_REFERENCE),
    "kl_reference_policy": Sum(KL_REFERENCE_POLICY),
    "log_collision": Sum(LOG_COLLISION, trained=False),
}
# Those of rows in which both models' whole distributions stand.
OF_BOTH = frozenset(name for name, sum_ in SUMS.items() if sum_.function in (KL_POLICY_REFERENCE, KL_REFERENCE_POLICY))


@dataclass(frozen=True)
class StepScores:
    """The loss of a global batch, in all and by term; its completions' sums before the update; and what the objective
    remembers."""

    loss: float
    losses: dict[str, float]
    sums_C: Sums
    state: dict[str, float] = field(default_factory=dict)

    @property
    def log_prob_C(self) -> Tensor:
        return self.sums_C["log_prob"]

    @property
    def reference_C(self) -> Tensor | None:
        return self.sums_C.get("reference_log_prob")

    @property
    def log_ratio_C(self) -> Tensor:
        return self.log_prob_C if self.reference_C is None else self.log_prob_C - self.reference_C


class TrustRegion(NamedTuple):
    """A policy of some steps before, and the weighted penalty on going away from it."""

    previous: Scorer
    penalty: Mixture


def accumulate_gradient(
    policy: Scorer,
    reference: Reference | None,
    batch: Batch,
    mixture: Mixture,
    state: Mapping[str, float] | None = None,
    trust: TrustRegion | None = None,
) -> StepScores:
    """Form the gradient of the batch's mean loss in the policy's parameters; return its loss and scores.

    A trust region's penalty is added in a pass of its own, for it is to another model than the reference.

    Losses of units are summed per micro-batch and divided by the global denominator. Where items that depend on each
    other, or the completions of a unit, lie in several micro-batches, the batch is first scored without gradient; the
    micro-batches then run against d loss / d sums. Dropout is in those passes that have a gradient.
    """
    at_once = batch.all_in_one if mixture.coupled else batch.whole
    form = _gradient_at_once if at_once else _gradient_by_slopes
    losses, sums_C, state = form(policy, reference, batch, mixture, mixture.state | dict(state or {}))
    by_term = {name: float(loss.detach()) for name, loss in losses.items()}
    total = mixture.total(by_term)
    if trust is not None:
        form = _gradient_at_once if batch.whole else _gradient_by_slopes
        penalties, _, _ = form(policy, trust.previous, batch, trust.penalty, {})
        held = {name: float(loss.detach()) for name, loss in penalties.items()}
        total += trust.penalty.total(held)
        by_term |= {"trust_region": sum(held.values())}
    batch.workers.sum_gradients(policy.parameters())
    return StepScores(total, by_term, sums_C, state)


def _gradient_at_once(
    policy: Scorer, reference: Reference | None, batch: Batch, mixture: Mixture, state: dict[str, float]
) -> tuple[Sums, Sums, dict[str, float]]:
    """Losses by term, sums and state, where no loss reaches beyond a micro-batch."""
    sums_C = _fixed(reference, batch, mixture)
    own = [name for name in needed_sums(mixture) if name not in sums_C]
    sums_C |= {name: torch.zeros_like(batch.weight_C) for name in own}
    losses = dict.fromkeys(mixture.names, batch.weight_C.new_zeros(()))
    after = state
    with policy.dropout():
        for micro in batch.trained:

            def loss_of_sums(sums_c: Sums, present_c: Tensor, micro: PreparedMicroBatch = micro) -> Tensor:
                nonlocal after
                here_C = sums_C | {name: batch.in_place(sum_c, micro) for name, sum_c in sums_c.items()}
                if mixture.coupled:
                    after = batch.state_after(mixture, here_C, state)
                found = batch.losses(mixture, here_C, after, batch.in_place(present_c, micro))
                for name, loss in found.items():
                    losses[name] = losses[name] + loss.detach()
                return mixture.total(found)

            unit_c = np.unique(micro.unit_C, return_inverse=True)[1]
            unit_c = np.zeros_like(unit_c) if mixture.coupled else unit_c
            for name, sum_c in _backward(policy, reference, micro, own, loss_of_sums, unit_c=unit_c).items():
                sums_C[name][micro.place_C] = sum_c.to(sums_C[name].dtype)
    for tensor in (*(sums_C[name] for name in own), *losses.values()):
        batch.workers.sum_(tensor)
    return losses, sums_C, after


def _gradient_by_slopes(
    policy: Scorer, reference: Reference | None, batch: Batch, mixture: Mixture, state: dict[str, float]
) -> tuple[Sums, Sums, dict[str, float]]:
    """The same from sums that were formed beforehand: each micro-batch has its part of d loss / d sums."""
    sums_C = score(policy, reference, batch, mixture)
    after = batch.state_after(mixture, sums_C, state)
    trained = {name: sums_C[name].requires_grad_() for name in needed_sums(mixture) if SUMS[name].trained}
    losses = batch.losses(mixture, sums_C, after)
    slopes = torch.autograd.grad(mixture.total(losses), list(trained.values()), materialize_grads=True)
    with policy.dropout():
        for micro in batch.trained:
            slopes_c = {name: slope[micro.place_C] for name, slope in zip(trained, slopes, strict=True)}

            def linear(sums_c: Sums, _: Tensor, slopes_c: Sums = slopes_c) -> Tensor:
                return torch.stack([(slopes_c[name] * sums_c[name]).sum() for name in slopes_c]).sum()

            _backward(policy, reference, micro, list(trained), linear, unit_c=None)
    return losses, {name: sum_C.detach() for name, sum_C in sums_C.items()}, after


def mean_losses(
    policy: Scorer,
    reference: Reference | None,
    batch: Batch,
    mixture: Mixture,
    state: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """The batch's mean loss by term, without gradient and without dropout."""
    sums_C = score(policy, reference, batch, mixture)
    losses = batch.losses(mixture, sums_C, mixture.state | dict(state or {}))
    return {name: float(loss) for name, loss in losses.items()}


def needed_sums(mixture: Mixture) -> list[str]:
    """The sums that the mixture's terms look at, the policy's log-probs first."""
    return ["log_prob", *(name for name in SUMS if name in mixture.needs)]


def score(policy: Scorer, reference: Reference | None, batch: Batch, mixture: Mixture) -> Sums:
    """All sums that the mixture needs of a global batch's completions, each (C,), without gradient."""
    sums_C = _fixed(reference, batch, mixture)
    own = [name for name in needed_sums(mixture) if name not in sums_C]
    return sums_C | score_batch(policy, batch, own, reference=reference)


def score_batch(
    scorer: Reference, batch: Batch, names: Collection[str] = ("log_prob",), *, reference: Reference | None = None
) -> Sums:
    """Sums of a global batch's completions, each (C,), all workers' shares together, without gradient."""
    sums_C = score_completions(scorer, batch.scored, batch.completions, names, reference=reference)
    return {name: batch.workers.sum_(sum_C) for name, sum_C in sums_C.items()}


@torch.no_grad()
def score_completions(
    scorer: Reference,
    micro_batches: Iterable[PreparedMicroBatch],
    completions: int,
    names: Collection[str] = ("log_prob",),
    *,
    reference: Reference | None = None,
) -> Sums:
    """Sums of a global batch's completions, each (C,), without gradient; 0 for those not in the micro-batches."""
    parts = [(micro.place_C, _sums(scorer, reference, micro, names)) for micro in micro_batches]
    places = torch.cat([place_C for place_C, _ in parts])
    sums_C = {}
    for name in names:
        scores = torch.cat([sums_c[name] for _, sums_c in parts])
        sums_C[name] = scores.new_zeros(completions).index_copy(0, places, scores)
    return sums_C


def _fixed(reference: Reference | None, batch: Batch, mixture: Mixture) -> Sums:
    """Sums that are there before the policy is asked: tokens, and the reference's log-probs, unless they come along
    with the rows of both models."""
    sums_C = {"tokens": batch.weight_C}
    needed = needed_sums(mixture)
    if reference is not None and OF_BOTH.isdisjoint(needed):
        by_reference = {name: name.replace("reference_", "") for name in needed if "reference" in name}
        found = score_batch(reference, batch, list(by_reference.values()))
        sums_C |= {name: found[own] for name, own in by_reference.items()}
    return sums_C


def _sums(policy: Reference, reference: Reference | None, micro: PreparedMicroBatch, names: Collection[str]) -> Sums:
    """Sums of a micro-batch's completions, each (c,), differentiable."""
    functions = list(dict.fromkeys(SUMS[name].function for name in names))
    beside = reference if any("reference" in name for name in names) else None
    values = dict(zip(functions, policy(micro.tree, functions, reference=beside), strict=True))
    return {name: SUMS[name].of(micro, values[SUMS[name].function]) for name in names}


def _backward(
    policy: Scorer,
    reference: Reference | None,
    micro: PreparedMicroBatch,
    names: Collection[str],
    loss_of_sums: Callable[[Sums, Tensor], Tensor],
    *,
    unit_c: np.ndarray | None,
) -> Sums:
    """Add the gradient of a micro-batch's loss to that of the parameters; returns its sums, each (c,)."""
    if all(SUMS[name].function is LOG_PROB for name in names):
        weight_WE = [SUMS[name].weight_E(micro) for name in names]
        loss, sum_WC = policy.loss(
            micro.tree,
            lambda sum_WC, present_c: loss_of_sums(dict(zip(names, sum_WC, strict=True)), present_c),
            unit_c,
            weight_WE,
        )
        sums_c = dict(zip(names, sum_WC, strict=True))
    else:
        sums_c = _sums(policy, reference, micro, names)
        sums_c = {name: sum_c if SUMS[name].trained else sum_c.detach() for name, sum_c in sums_c.items()}
        loss = loss_of_sums(sums_c, torch.ones_like(micro.place_C, dtype=torch.bool))
    loss.backward()
    return {name: sum_c.detach() for name, sum_c in sums_c.items()}
