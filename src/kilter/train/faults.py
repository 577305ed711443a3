"""Which rows of a batch are to blame where a number is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from kilter.data.records import Origin
from kilter.errors import NonFiniteError
from kilter.model.scorer import Scorer
from kilter.train.batches import Batch
from kilter.train.step import StepScores

SHOWN = 5  # rows named in a message


def check_scores(scores: StepScores, batch: Batch) -> None:
    """Raise NonFiniteError, naming the rows, where a score or the loss is not finite."""
    for whose, score_C in (("reference", scores.reference_C), ("policy", scores.log_prob_C)):
        if score_C is not None and not bool(score_C.isfinite().all()):
            worst = float(score_C[~score_C.isfinite()][0])
            raise NonFiniteError(f"the {whose}'s score is {worst} for {named(origins_of_scores(score_C, batch))}")
    if not math.isfinite(scores.loss):
        raise NonFiniteError(f"the loss is {scores.loss}, though all scores are finite, for {named(batch.origins)}")


def origins_of_scores(score_C: Tensor, batch: Batch) -> list[Origin]:
    """The rows that have a completion whose score is not finite."""
    bad_C = ~score_C.isfinite()
    bad_P = bad_C[batch.chosen]
    if len(batch.rejected):
        bad_P = bad_P | bad_C[batch.rejected]
    found = [origin for origin, bad in zip(batch.origins, bad_P.tolist(), strict=True) if bad]
    return found or list(batch.origins)  # a mismatched answer belongs to two rows


def origins_of_gradient(policy: Scorer, batches: Iterable[Batch]) -> list[Origin]:
    """The rows whose scores, each row by itself, have a gradient that is not finite."""
    found: list[Origin] = []
    for batch in batches:
        for micro in batch.trained:
            score, _ = policy.loss(micro.tree, lambda score, _: score.sum(), unit_C=None)
            score.backward()
        gradients = [p.grad for p in policy.parameters() if p.grad is not None]
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):
            found += batch.origins
        for parameter in policy.parameters():
            parameter.grad = None
    return found


def named(origins: Sequence[Origin]) -> str:
    """Rows as a message names them: by file and line, the first few."""
    more = f" and {len(origins) - SHOWN} more" if len(origins) > SHOWN else ""
    return ", ".join(map(str, origins[:SHOWN])) + more
