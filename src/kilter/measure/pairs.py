"""Scoring preference pairs: log-probs, log-ratios, accuracy, and exact token KL along the answers.

Axes: P pairs, C completions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kilter.measure.statistics import Interval, wilson
from kilter.model.head import KL_POLICY_REFERENCE, KL_REFERENCE_POLICY, LOG_PROB, REFERENCE_LOG_PROB, RowFunction
from kilter.model.prepared import PreparedTree
from kilter.model.scorer import Scorer
from kilter.model.workers import ALONE, Workers
from kilter.tokens.encoding import EncodedPair
from kilter.tokens.packing import deal, pack_dealt

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Numbers for one answer of each pair: scored tokens, summed log-probs, and sums over its tokens of the exact
    token KL both ways; all in nats, None where there was no reference or no KL was asked for."""

    tokens_P: Floats
    log_prob_P: Floats
    reference_log_prob_P: Floats | None = None
    kl_policy_reference_P: Floats | None = None
    kl_reference_policy_P: Floats | None = None

    @property
    def log_ratio_P(self) -> Floats:
        """log pi(y given x) - log pi_ref(y given x); without a reference, the log-prob itself."""
        return self.log_prob_P if self.reference_log_prob_P is None else self.log_prob_P - self.reference_log_prob_P


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Both answers of each pair, scored."""

    chosen: AnswerScores
    rejected: AnswerScores

    def __len__(self) -> int:
        return len(self.chosen.tokens_P)

    def arrays(self) -> dict[str, Floats]:
        """All numbers by name, such as chosen.log_prob_P; `from_arrays` takes them back."""
        sides = {"chosen": self.chosen, "rejected": self.rejected}
        return {
            f"{side}.{name}": np.ascontiguousarray(values)
            for side, answer in sides.items()
            for name, values in vars(answer).items()
            if values is not None
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> ScoredPairs:
        def side(name: str) -> AnswerScores:
            return AnswerScores(**{key.removeprefix(name): v for key, v in arrays.items() if key.startswith(name)})

        return cls(side("chosen."), side("rejected."))

    @property
    def gap_P(self) -> Floats:
        """Chosen log-ratio minus rejected log-ratio."""
        return self.chosen.log_ratio_P - self.rejected.log_ratio_P

    @property
    def correct_P(self) -> Floats:
        """1 where the chosen answer has the larger log-ratio, 0 where the rejected has, 1/2 where they tie."""
        return 0.5 * (1 + np.sign(self.gap_P))

    @property
    def likelier_P(self) -> Floats:
        """The same for the policy's own log-probs, without a reference."""
        return 0.5 * (1 + np.sign(self.chosen.log_prob_P - self.rejected.log_prob_P))

    @property
    def accuracy(self) -> Interval:
        return wilson(float(self.correct_P.sum()), len(self))


def score_pairs(
    policy: Scorer,
    pairs: Sequence[EncodedPair],
    *,
    reference: Scorer | None = None,
    exact_kl: bool = False,
    node_budget: int = 2048,
    on_progress: Callable[[int], None] = lambda pairs: None,
    workers: Workers = ALONE,
) -> ScoredPairs:
    """Score pairs under the policy, and under the reference where there is one; several workers share the pairs.

    `exact_kl` adds full-vocabulary token KL both ways. `on_progress` is told of pairs as they are scored, as often on
    each worker.
    """
    functions: list[RowFunction] = [LOG_PROB]
    if reference is not None:
        functions.append(REFERENCE_LOG_PROB)
        functions += [KL_POLICY_REFERENCE, KL_REFERENCE_POLICY] if exact_kl else []
    sums = np.zeros((len(functions), 2 * len(pairs)))
    tokens = np.zeros(2 * len(pairs))
    units = [(pair.chosen, pair.rejected) for pair in pairs]
    packings = pack_dealt(units, deal(units, workers.count), workers.count, node_budget=node_budget)
    for micro in packings[workers.rank].micro_batches:
        tree = PreparedTree(micro.tree.padded(policy.node_multiple), policy.device)
        with torch.no_grad():
            values = policy(tree, functions, reference=reference)
        for row, function, value in zip(sums, functions, values, strict=True):
            summed = tree.sum_edges(value) if function.per_target else tree.sum_rows(value)
            row[micro.completion_C] = summed.double().cpu().numpy()
        tokens[micro.completion_C] = micro.tree.weight_C
        on_progress(int(np.count_nonzero(micro.completion_C % 2)))
    for array in (sums, tokens):
        array[...] = workers.sum_(torch.from_numpy(array).to(workers.device)).cpu().numpy()
    return ScoredPairs(*(AnswerScores(tokens[side::2], *(row[side::2] for row in sums)) for side in (0, 1)))


def summary(scored: ScoredPairs) -> dict[str, Any]:
    """What a metrics row or a table shows of scored pairs: means over pairs, and KL in nats per token."""
    accuracy = scored.accuracy
    row: dict[str, Any] = {
        "pairs": len(scored),
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "likelier": float(scored.likelier_P.mean()),
        "gap": float(scored.gap_P.mean()),
    }
    for name, answer in (("chosen", scored.chosen), ("rejected", scored.rejected)):
        row[f"{name}_log_prob"] = float(answer.log_prob_P.mean())
        if answer.reference_log_prob_P is not None:
            row[f"{name}_log_ratio"] = float(answer.log_ratio_P.mean())
        for direction, sums in (
            ("kl_policy_reference", answer.kl_policy_reference_P),
            ("kl_reference_policy", answer.kl_reference_policy_P),
        ):
            if sums is not None:
                row[f"{direction}_along_{name}"] = float(sums.sum() / answer.tokens_P.sum())
    return row
