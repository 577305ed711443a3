"""The gradient of one global batch, the same however it is cut into micro-batches.

Axis: C completions of the global batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kilter.model.scorer import Scorer
from kilter.objectives import Objective
from kilter.train.batches import Batch, PreparedMicroBatch

LossOfScores = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class StepScores:
    """The loss of a global batch, and the summed log-probs of its completions before the update (reference: None
    where the objective has none)."""

    loss: float
    log_prob_C: Tensor
    reference_C: Tensor | None

    @property
    def log_ratio_C(self) -> Tensor:
        return self.log_prob_C if self.reference_C is None else self.log_prob_C - self.reference_C


def accumulate_gradient(
    policy: Scorer, reference: Scorer | None, batch: Batch, objective: Objective, options: dict[str, float]
) -> StepScores:
    """Form the gradient of the batch's mean loss in the policy's parameters; return its loss and scores.

    Losses of units are summed per micro-batch and divided by the global denominator. Where items depend on each
    other across the batch, or a unit had to be split, the batch is first scored without gradient; the micro-batches
    then run against d loss / d log-prob. Dropout is in those passes that have a gradient.
    """
    denominator = batch.denominator(objective)
    reference_C = None if reference is None else score_batch(reference, batch)
    if objective.unit == "batch" or not batch.whole:
        log_prob_C = score_batch(policy, batch).requires_grad_()
        loss = batch.loss_sum(objective, options, log_prob_C, reference_C) / denominator
        (slope_C,) = torch.autograd.grad(loss, log_prob_C)
        with policy.dropout():
            for micro in batch.trained:
                surrogate, _ = policy.loss(micro.tree, _linear(slope_C[micro.place_C]), unit_C=None)
                surrogate.backward()
        batch.workers.sum_gradients(policy.parameters())
        return StepScores(float(loss.detach()), log_prob_C.detach(), reference_C)

    total = 0.0
    log_prob_C = torch.zeros_like(batch.weight_C)
    with policy.dropout():
        for micro in batch.trained:

            def loss_of_scores(score: Tensor, present: Tensor, micro: PreparedMicroBatch = micro) -> Tensor:
                everywhere = score.new_zeros(batch.completions).index_copy(0, micro.place_C, score)
                present_C = present.new_zeros(batch.completions).index_copy(0, micro.place_C, present)
                return batch.loss_sum(objective, options, everywhere, reference_C, present_C) / denominator

            loss, score = policy.loss(micro.tree, loss_of_scores, np.unique(micro.unit_C, return_inverse=True)[1])
            loss.backward()
            total += float(loss.detach())
            log_prob_C[micro.place_C] = score.to(log_prob_C.dtype)
    batch.workers.sum_gradients(policy.parameters())
    return StepScores(batch.workers.total(total), batch.workers.sum_(log_prob_C), reference_C)


def mean_loss(
    policy: Scorer, reference: Scorer | None, batch: Batch, objective: Objective, options: dict[str, float]
) -> float:
    """The batch's mean loss, without gradient and without dropout."""
    log_prob_C = score_batch(policy, batch)
    reference_C = None if reference is None else score_batch(reference, batch)
    return float(batch.loss_sum(objective, options, log_prob_C, reference_C)) / batch.denominator(objective)


def _linear(slope: Tensor) -> LossOfScores:
    return lambda score, _: (slope * score).sum()


def score_batch(scorer: Scorer, batch: Batch) -> Tensor:
    """Summed log-probs of a global batch's completions (C,), all workers' shares together, without gradient."""
    return batch.workers.sum_(score_completions(scorer, batch.scored, batch.completions))


@torch.no_grad()
def score_completions(scorer: Scorer, micro_batches: Iterable[PreparedMicroBatch], completions: int) -> Tensor:
    """Summed log-probs of a global batch's completions (C,), without gradient; 0 for those not in the micro-batches."""
    parts, places = [], []
    for micro in micro_batches:
        (log_prob,) = scorer(micro.tree)
        parts.append(micro.tree.sum_edges(log_prob))
        places.append(micro.place_C)
    scores = torch.cat(parts)
    return scores.new_zeros(completions).index_copy(0, torch.cat(places), scores)
