"""Which rows of a batch are to blame where a number is not finite.

A tree's sequences meet in its attention, where one that is not finite may spoil others; so rows are looked at again,
each by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from kilter.data.records import Origin
from kilter.errors import NonFiniteError
from kilter.model.scorer import Reference, Scorer
from kilter.model.workers import own_part
from kilter.train.batches import Batch
from kilter.train.step import StepScores, score_batch

SHOWN = 5  # rows named in a message


def check_scores(
    policy: Scorer, reference: Reference | None, scores: StepScores, batch: Batch, alone: Callable[[], Sequence[Batch]]
) -> None:
    """Raise NonFiniteError, naming the rows, where a score or the loss is not finite; `alone` makes a batch of each."""
    for name, scorer, score_C in (("reference", reference, scores.reference_C), ("policy", policy, scores.log_prob_C)):
        if scorer is not None and score_C is not None and not _finite(score_C):
            found = [one for one in alone() if not _finite(score_batch(scorer, one)["log_prob"])]
            worst = float(score_C[~score_C.isfinite()][0])
            raise NonFiniteError(f"the {name}'s score is {worst} for {named(found or [batch])}")
    if not math.isfinite(scores.loss):
        raise NonFiniteError(f"the loss is {scores.loss}, though all scores are finite, for {named([batch])}")


def without_finite_gradient(policy: Scorer, alone: Sequence[Batch]) -> list[Batch]:
    """The rows, each a batch, whose scores have a gradient that is not finite."""
    found = []
    for batch in alone:
        for micro in batch.trained:
            loss, _ = policy.loss(micro.tree, lambda sum_WC, _: sum_WC.sum(), unit_C=None)
            loss.backward()
        fault = not all(_finite(own_part(p.grad)) for p in policy.parameters() if p.grad is not None)
        if batch.workers.largest(fault):
            found.append(batch)
        for parameter in policy.parameters():
            parameter.grad = None
    return found


def named(batches: Sequence[Batch]) -> str:
    """Rows as a message names them: by file and line, the first few."""
    origins: list[Origin] = [origin for batch in batches for origin in batch.origins]
    more = f" and {len(origins) - SHOWN} more" if len(origins) > SHOWN else ""
    return ", ".join(map(str, origins[:SHOWN])) + more


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())
