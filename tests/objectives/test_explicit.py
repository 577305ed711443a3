"""Claims about losses with the divergence from the reference written out."""

from __future__ import annotations

import pytest
import torch

from kilter.objectives import OBJECTIVES, bt_kl, bt_kl_reference, cpo, kl, kl_reference
from objectives.drawn import drawn, leaves

PAIRS = drawn(OBJECTIVES["bt_kl"])


@pytest.mark.parametrize("explicit", [bt_kl, bt_kl_reference])
def test_at_a_beta_of_zero_it_is_the_likelihood_of_the_comparisons(explicit) -> None:  # type: ignore[no-untyped-def]
    torch.testing.assert_close(explicit(PAIRS, beta=0.0), cpo(PAIRS, beta=1.0, nll_weight=0.0))


@pytest.mark.parametrize(("explicit", "term"), [(bt_kl, kl), (bt_kl_reference, kl_reference)])
def test_the_penalty_is_beta_times_the_mean_of_kl_over_all_answers(explicit, term) -> None:  # type: ignore[no-untyped-def]
    penalty = explicit(PAIRS, beta=0.3).mean() - explicit(PAIRS, beta=0.0).mean()
    torch.testing.assert_close(penalty, 0.3 * term(PAIRS.chosen + PAIRS.rejected).mean())


def test_each_direction_has_slopes_of_its_own_kl_alone() -> None:
    """Half of beta a nat of either answer."""
    for explicit, own, other in (
        (bt_kl, "kl_policy_reference", "kl_reference_policy"),
        (bt_kl_reference, "kl_reference_policy", "kl_policy_reference"),
    ):
        found, scores = leaves(PAIRS, [own])
        for slope in torch.autograd.grad(explicit(scores, beta=0.3).sum(), found):
            torch.testing.assert_close(slope, torch.full((4,), 0.15, dtype=torch.float64))
        found, scores = leaves(PAIRS, [other, "log_prob"])
        slopes = torch.autograd.grad(explicit(scores, beta=0.3).sum(), found, materialize_grads=True)
        assert not slopes[0].any()
        assert not slopes[2].any()
