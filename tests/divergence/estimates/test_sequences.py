"""Claims about the KL of sequences, by enumeration of all that a small model can write."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from divergence.estimates.enumerable import VOCABULARY, Policy, exact_kl, gradient, policy
from kilter.divergence import kl_from_sequences, sequence_kl_loss
from kilter.errors import DistributionError

P, Q = policy(2, trained=True), policy(3)
EXACT = exact_kl(P.log_prob(), Q.log_prob())


def token_kl(p: Policy, q: Policy) -> torch.Tensor:
    """The exact KL of the distribution that each token of every sequence was drawn from: [9, 2]."""
    first = exact_kl(p.first.log_softmax(-1), q.first.log_softmax(-1)).expand(VOCABULARY**2)
    second = exact_kl(p.second.log_softmax(-1), q.second.log_softmax(-1)).repeat_interleave(VOCABULARY)
    return torch.stack([first, second], dim=-1)


def weight() -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return P.log_prob().exp().detach().numpy()


def test_token_kl_summed_along_every_sequence_is_the_kl_of_sequences() -> None:
    sums = token_kl(P, Q).sum(-1).detach().numpy()
    assert weight() @ sums == pytest.approx(EXACT.item(), rel=1e-12)
    assert weight() @ token_kl(Q, P).sum(-1).detach().numpy() != pytest.approx(EXACT.item(), rel=0.05)


def test_both_estimates_are_within_their_errors_and_the_exact_token_kl_has_the_smaller() -> None:
    drawn = np.random.default_rng(0).choice(VOCABULARY**2, 4000, p=weight() / weight().sum())
    log_ratio = (P.tokens() - Q.tokens()).detach().numpy()[drawn]
    found = kl_from_sequences(token_kl(P, Q).detach().numpy()[drawn], log_ratio)
    for estimate in found[:3]:
        assert abs(estimate.value - EXACT.item()) < 3 * estimate.standard_error
        assert abs(estimate.value + EXACT.item()) > 10 * estimate.standard_error
    assert found.kl.standard_error < 0.7 * found.log_ratio.standard_error
    assert found.kl.samples == found.log_ratio.samples == 4000


def test_rows_of_several_lengths_padded_rows_and_tensors_say_the_same() -> None:
    ragged_kl, ragged_ratio = [[0.5, 0.25], [1.0]], [[0.3, -0.1], [2.0]]
    padded_kl, padded_ratio = [[0.5, 0.25], [1.0, math.nan]], [[0.3, -0.1], [2.0, math.nan]]
    mask = np.array([[True, True], [True, False]])
    ragged = kl_from_sequences(ragged_kl, ragged_ratio)
    assert (ragged.kl.value, ragged.log_ratio.value) == (0.875, pytest.approx(1.1))
    assert kl_from_sequences(np.array(padded_kl), np.array(padded_ratio), mask_NT=mask) == ragged
    tensors = (torch.tensor(values, dtype=torch.float64) for values in (padded_kl, padded_ratio))
    assert kl_from_sequences(*tensors, mask_NT=torch.tensor(mask)) == ragged


def test_samples_of_one_prompt_count_as_one() -> None:
    found = kl_from_sequences([[1.0], [3.0], [6.0]], [[1.0], [3.0], [6.0]], clusters=["a", "a", "b"])
    assert (found.kl.value, found.kl.standard_error) == (4, pytest.approx(2))


def test_token_kl_of_other_sequences_is_refused() -> None:
    with pytest.raises(DistributionError, match="differ in shape"):
        kl_from_sequences([[1.0, 2.0]], [[1.0]])
    with pytest.raises(DistributionError, match="differ in shape"):
        kl_from_sequences([[1.0]], [[1.0], [2.0]])


@pytest.mark.parametrize(
    ("token_kl", "log_ratio", "mask", "message"),
    [
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 4)), None, "no rows of tokens"),
        (np.zeros((2, 3)), np.zeros((2, 3)), np.ones(2, bool), r"mask of shape \(2,\); wanted one shape"),
        (np.zeros((2, 3)), np.zeros((2, 2)), np.ones((2, 3), bool), r"token_log_ratio of shape \(2, 2\)"),
        ([[0.1], [math.nan]], [[0.1], [0.2]], None, "sequence 1 has a token KL of nan"),
        ([[0.1], [-0.5]], [[0.1], [0.2]], None, "sequence 1 has a token KL of -0.5; a KL is a number and not negative"),
        ([[0.1], [0.5]], [[-math.inf], [0.2]], None, "sequence 0 has a log-ratio of -inf"),
    ],
)
def test_what_are_no_rows_of_numbers_is_refused(token_kl: Any, log_ratio: Any, mask: Any, message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        kl_from_sequences(token_kl, log_ratio, mask_NT=mask)


def test_an_infinite_token_kl_makes_the_loss_infinite_and_spoils_no_gradient() -> None:
    kl = torch.tensor([[0.2, math.inf, 0.1], [0.3, 0.2, 0.1]], dtype=torch.float64, requires_grad=True)
    log_prob = torch.full((2, 3), -1.0, dtype=torch.float64, requires_grad=True)
    loss = sequence_kl_loss(kl, log_prob)
    towards_kl, towards_log_prob = torch.autograd.grad(loss.sum(), [kl, log_prob])
    assert loss.tolist() == [math.inf, pytest.approx(0.6)]
    assert towards_kl.tolist() == [[1, 1, 1]] * 2
    torch.testing.assert_close(towards_log_prob, torch.tensor([[0, 0.1, 0], [0.3, 0.1, 0]], dtype=torch.float64))


def test_the_loss_takes_one_shape_only() -> None:
    with pytest.raises(DistributionError, match=r"token_kl of shape \(2, 3\) and log_prob of shape \(3,\); wanted one"):
        sequence_kl_loss(np.zeros((2, 3)), np.zeros(3))


def test_the_loss_has_the_value_and_the_whole_gradient_of_the_kl_of_sequences() -> None:
    """The gradient of summed token KL alone lacks what the first token does to the KL of the second."""
    share = P.log_prob().exp().detach()
    loss = sequence_kl_loss(token_kl(P, Q), P.tokens())
    assert (share * loss).sum().item() == pytest.approx(EXACT.item(), rel=1e-12)
    wanted = gradient(EXACT, P)
    torch.testing.assert_close(gradient((share * loss).sum(), P), wanted)
    alone = gradient((share * token_kl(P, Q).sum(-1)).sum(), P)
    assert (alone - wanted).norm() > 0.1 * wanted.norm()
    torch.testing.assert_close(alone[VOCABULARY:], wanted[VOCABULARY:])  # of the last token nothing is missing


def test_the_loss_of_padded_tokens_is_nothing() -> None:
    kl = torch.tensor([[0.5, 0.25, 9.0]], dtype=torch.float64, requires_grad=True)
    log_prob = torch.tensor([[-1.0, -2.0, math.nan]], dtype=torch.float64, requires_grad=True)
    loss = sequence_kl_loss(kl, log_prob, mask_NT=torch.tensor([[True, True, False]]))
    towards_kl, towards_log_prob = torch.autograd.grad(loss.sum(), [kl, log_prob])
    assert loss.item() == 0.75
    assert towards_kl.tolist() == [[1, 1, 0]]
    assert towards_log_prob.tolist() == [[0.25, 0, 0]]


def test_there_are_models_whose_log_ratios_vary_less_than_exact_token_kl() -> None:
    """Each term varies less, but not the sum: every sequence has the log-ratio log 5/2, and KL is paid after b alone.

    p draws a or b, each with 1/2, then is certain. q has a with 1/5, and gives what p says after b a chance of 1/4.
    """
    log_ratio = [[math.log(0.5 / 0.2), 0.0], [math.log(0.5 / 0.8), math.log(1 / 0.25)]]
    first = 0.5 * log_ratio[0][0] + 0.5 * log_ratio[1][0]
    found = kl_from_sequences([[first, 0.0], [first, math.log(4)]], log_ratio)
    assert [found.log_ratio.value, found.kl.value] == pytest.approx([math.log(2.5)] * 2)
    assert found.variance.log_ratio == pytest.approx(0, abs=1e-30)
    assert found.variance.kl == pytest.approx(math.log(4) ** 2 / 2)


def test_k3_of_each_token_is_summed_along_a_sequence() -> None:
    """Log-ratios log 2 and -log 2: 1/2 - 1 + log 2, and 2 - 1 - log 2."""
    found = kl_from_sequences([[0.1, 0.1], [0.1, 0.1]], [[math.log(2), 0.0], [math.log(2), -math.log(2)]])
    assert found.k3.value == pytest.approx(((math.log(2) - 0.5) + 0.5) / 2)
    assert found.variance.k3 == pytest.approx((1 - math.log(2)) ** 2 / 2)
