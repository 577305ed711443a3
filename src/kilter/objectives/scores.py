"""What objectives are functions of. Axes: P pairs, A answers."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class PairScores(NamedTuple):
    """One number for the chosen and one for the rejected answer of each pair, such as their log-ratios."""

    chosen_P: Tensor
    rejected_P: Tensor

    @property
    def gap_P(self) -> Tensor:
        """Chosen minus rejected."""
        return self.chosen_P - self.rejected_P


class LabelledScores(NamedTuple):
    """One number for each desirable and each undesirable answer, and for answers to some other prompt.

    `mismatched_A` are scores of answers under prompts they were not given to: a method's estimate of how far the
    policy has moved as a whole.

    >>> import torch
    >>> from kilter.objectives import kto
    >>> one = torch.zeros(1)
    >>> kto(LabelledScores(desirable_A=one, undesirable_A=one, mismatched_A=one))
    tensor([0.5000, 0.5000])
    """

    desirable_A: Tensor
    undesirable_A: Tensor
    mismatched_A: Tensor
