"""Scoring answers: log-probs, log-ratios, and exact token KL along them. Axis: A answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from kilter.model.prepared import PreparedTree
from kilter.model.row_functions import (
    KL_POLICY_REFERENCE,
    KL_REFERENCE_POLICY,
    LOG_PROB,
    REFERENCE_LOG_PROB,
    RowFunction,
)
from kilter.model.scorer import Reference
from kilter.model.workers import ALONE, Workers
from kilter.tokens.packing import deal, pack_dealt
from kilter.tokens.sequence import TokenSequence
from kilter.tokens.tree import Ints

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class AnswerScores:
    """Numbers for each answer: scored tokens, summed log-probs, and sums over its tokens of the exact token KL both
    ways; all in nats, None where there was no reference or no KL was asked for."""

    tokens_A: Floats
    log_prob_A: Floats
    reference_log_prob_A: Floats | None = None
    kl_policy_reference_A: Floats | None = None
    kl_reference_policy_A: Floats | None = None

    def __len__(self) -> int:
        return len(self.tokens_A)

    def __getitem__(self, chosen: slice | NDArray[Any]) -> Self:
        """The numbers of some of the answers."""
        return type(self)(**{name: values[chosen] for name, values in self.arrays().items()})

    def arrays(self, prefix: str = "") -> dict[str, Floats]:
        """All numbers by name behind a prefix; `from_arrays` takes them back."""
        there_are = {name: values for name, values in vars(self).items() if values is not None}
        return {prefix + name: np.ascontiguousarray(values) for name, values in there_are.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats], prefix: str = "") -> Self:
        return cls(**{key.removeprefix(prefix): values for key, values in arrays.items() if key.startswith(prefix)})

    @property
    def log_ratio_A(self) -> Floats:
        """log pi(y given x) - log pi_ref(y given x); without a reference, the log-prob itself."""
        return self.log_prob_A if self.reference_log_prob_A is None else self.log_prob_A - self.reference_log_prob_A

    @property
    def kl_sums(self) -> dict[str, Floats]:
        """The sums of token KL that there are, by direction."""
        both = {
            "kl_policy_reference": self.kl_policy_reference_A,
            "kl_reference_policy": self.kl_reference_policy_A,
        }
        return {direction: sums for direction, sums in both.items() if sums is not None}

    @property
    def sums(self) -> dict[str, Floats]:
        """Tokens and sums over them, by their names in an objective's scores."""
        return {name.removesuffix("_A"): values for name, values in self.arrays().items()}

    def summary(self, called: str) -> dict[str, float]:
        """Means over answers that are `called` so, and KL in nats per token along them; empty without answers."""
        if not len(self):
            return {}
        row = {f"{called}_log_prob": float(self.log_prob_A.mean())}
        if self.reference_log_prob_A is not None:
            row[f"{called}_log_ratio"] = float(self.log_ratio_A.mean())
        for direction, sums in self.kl_sums.items():
            row[f"{direction}_along_{called}"] = float(sums.sum() / self.tokens_A.sum())
        return row


def score_answers(
    policy: Reference,
    units: Sequence[Sequence[TokenSequence]],
    *,
    reference: Reference | None = None,
    exact_kl: bool = False,
    node_budget: int = 2048,
    on_progress: Callable[[Ints], None] = lambda places: None,
    workers: Workers = ALONE,
) -> AnswerScores:
    """Score the answers of units, one after the other, under the policy, and under the reference where there is one.

    Units are kept in one tree where they fit; several workers share them. `exact_kl` adds full-vocabulary token KL both
    ways. `on_progress` is told the places of answers as they are scored, as often on each worker.
    """
    functions: list[RowFunction] = [LOG_PROB]
    if reference is not None:
        functions.append(REFERENCE_LOG_PROB)
        functions += [KL_POLICY_REFERENCE, KL_REFERENCE_POLICY] if exact_kl else []
    answers = sum(map(len, units))
    sums, tokens = np.zeros((len(functions), answers)), np.zeros(answers)
    packings = pack_dealt(units, deal(units, workers.count), workers.count, node_budget=node_budget)
    for micro in packings[workers.rank].micro_batches:
        tree = PreparedTree(micro.tree.padded(policy.node_multiple), policy.device)
        with torch.no_grad():
            values = policy(tree, functions, reference=reference)
        for row, function, value in zip(sums, functions, values, strict=True):
            summed = tree.sum_edges(value) if function.per_target else tree.sum_rows(value)
            row[micro.completion_C] = summed.double().cpu().numpy()
        tokens[micro.completion_C] = micro.tree.weight_C
        on_progress(micro.completion_C)
    for array in (sums, tokens):
        array[...] = workers.sum_(torch.from_numpy(array).to(workers.device)).cpu().numpy()
    return AnswerScores(tokens, *sums)
