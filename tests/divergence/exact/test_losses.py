"""Claims about the losses: hand-computed numbers, mpmath, torch where it is right, and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F  # noqa: N812

from kilter.divergence import (
    Logits,
    Probs,
    binary_cross_entropy,
    cross_entropy_loss,
    gaussian_nll,
    log_softmax,
    mean_squared_error,
)
from kilter.errors import DistributionError

Array = Any
INF, NAN = math.inf, math.nan
HALF_LOG_2_PI = 0.9189385332046727


def from_jax(values: Array) -> Array:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray(np.asarray(values))


def from_torch(values: Array) -> Array:
    return torch.from_numpy(np.asarray(values))


libraries = pytest.mark.parametrize("array", [np.asarray, from_torch, from_jax], ids=["numpy", "torch", "jax"])


def t(values: Array) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def logs(*probabilities: float) -> list[float]:
    return [math.log(p) if p else -INF for p in probabilities]


def finite_differences(function: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """The gradient by central differences, independent of any autograd."""
    gradient = np.zeros_like(at)
    for place in np.ndindex(at.shape):
        moved = np.zeros_like(at)
        moved[place] = step
        gradient[place] = (function(at + moved) - function(at - moved)) / (2 * step)
    return gradient


def generators(*seeds: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rng", [np.random.default_rng(seed) for seed in seeds], ids=[str(s) for s in seeds])


# log-softmax.


@libraries
def test_log_softmax_gives_back_the_log_probs_of_any_shift(array: Callable[..., Array]) -> None:
    for shift in (0.0, 1e4, -1e4, 1e15):
        values = log_softmax(array([[shift, shift], [shift, -INF]]))
        np.testing.assert_allclose(np.asarray(values), [logs(0.5, 0.5), logs(1.0, 0.0)], rtol=1e-15)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=5))
def test_log_softmax_keeps_the_digits_of_every_log_prob(logits: list[float]) -> None:
    with mpmath.workdps(900):
        total = mpmath.log(mpmath.fsum(mpmath.exp(z) for z in logits))
        wanted = [float(z - total) for z in logits]
    np.testing.assert_allclose(log_softmax(np.array(logits)), wanted, rtol=1e-12, atol=1e-320)


def test_the_log_prob_of_a_nearly_certain_outcome_is_not_rounded_to_zero() -> None:
    assert float(torch.tensor([0.0, -40.0], dtype=torch.float64).log_softmax(-1)[0]) == 0  # what is avoided
    assert float(log_softmax(t([0.0, -40.0]))[0]) == pytest.approx(-math.exp(-40), rel=1e-15)


@libraries
def test_log_softmax_goes_along_the_axis_it_is_told(array: Callable[..., Array]) -> None:
    z = np.random.default_rng(0).normal(size=(2, 3, 4))
    for axis in (0, 1, 2, -2):
        wanted = z - np.log(np.exp(z).sum(axis=axis, keepdims=True))
        np.testing.assert_allclose(np.asarray(log_softmax(array(z), axis=axis)), wanted, rtol=1e-12)


def test_the_gradient_of_log_softmax_is_one_hot_minus_softmax_at_ties_and_masked_outcomes_too() -> None:
    z = t([3.0, 3.0, -INF, 1.0]).requires_grad_()
    q = np.exp([3.0, 3.0, -INF, 1.0]) / np.exp([3.0, 3.0, -INF, 1.0]).sum()
    for outcome in (0, 1, 3):
        (gradient,) = torch.autograd.grad(log_softmax(z)[outcome], z)
        np.testing.assert_allclose(gradient, np.eye(4)[outcome] - q, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    z = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).to(dtype)
    assert log_softmax(z).dtype == torch.float32
    torch.testing.assert_close(log_softmax(z), z.double().log_softmax(-1).float(), rtol=1e-6, atol=0)
    loss = cross_entropy_loss(logits=z, labels=torch.arange(5))
    torch.testing.assert_close(loss, F.cross_entropy(z.double(), torch.arange(5)).float(), rtol=1e-6, atol=0)


# Cross-entropy.


@libraries
def test_cross_entropy_of_labels_is_minus_their_log_prob(array: Callable[..., Array]) -> None:
    logits, labels = array([logs(0.5, 0.25, 0.25), logs(0.1, 0.1, 0.8)]), array([1, 2])
    losses = cross_entropy_loss(logits=logits, labels=labels, reduction="none")
    np.testing.assert_allclose(np.asarray(losses), [math.log(4), math.log(1.25)], rtol=1e-14)
    assert float(cross_entropy_loss(logits=logits, labels=labels)) == pytest.approx(math.log(5) / 2)
    assert float(cross_entropy_loss(logits=logits, labels=labels, reduction="sum")) == pytest.approx(math.log(5))


@libraries
def test_class_weights_weigh_the_rows_of_their_labels(array: Callable[..., Array]) -> None:
    logits, labels = array([logs(0.5, 0.5), logs(0.25, 0.75)]), array([0, 1])
    options: dict[str, Any] = {"logits": logits, "labels": labels, "class_weights": array([3.0, 1.0])}
    weighted = 3 * math.log(2) + math.log(4 / 3)
    assert float(cross_entropy_loss(**options, reduction="sum")) == pytest.approx(weighted)
    assert float(cross_entropy_loss(**options)) == pytest.approx(weighted / 4)


@libraries
def test_label_smoothing_moves_its_share_evenly_onto_all_outcomes(array: Callable[..., Array]) -> None:
    logits, labels = array([logs(0.5, 0.25, 0.25)]), array([0])
    loss = cross_entropy_loss(logits=logits, labels=labels, label_smoothing=0.3)  # target (0.8, 0.1, 0.1)
    assert float(loss) == pytest.approx(0.8 * math.log(2) + 0.2 * math.log(4))


@libraries
def test_ignored_rows_count_nothing(array: Callable[..., Array]) -> None:
    logits, labels = array([logs(0.5, 0.5), logs(0.25, 0.75), logs(0.125, 0.875)]), array([0, -100, 0])
    losses = cross_entropy_loss(logits=logits, labels=labels, reduction="none")
    np.testing.assert_allclose(np.asarray(losses), [math.log(2), 0, math.log(8)])
    assert float(cross_entropy_loss(logits=logits, labels=labels)) == pytest.approx(math.log(16) / 2)
    other = cross_entropy_loss(logits=logits, labels=array([0, 1, 0]), ignore_index=1)
    assert float(other) == pytest.approx(math.log(16) / 2)


def test_ignored_rows_have_no_gradient_whatever_their_logits() -> None:
    z = t([[1.0, 2.0], [NAN, 1.0], [INF, -INF]]).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy_loss(logits=z, labels=torch.tensor([0, -100, -100])), z)
    q = 1 / (1 + math.e)
    torch.testing.assert_close(gradient, t([[q - 1, 1 - q], [0, 0], [0, 0]]))


@given(
    st.integers(0, 2**32), st.integers(2, 6), st.sampled_from(["none", "mean", "sum"]), st.sampled_from([0.0, 0.1, 1.0])
)
def test_cross_entropy_is_that_of_torch_without_weights(
    seed: int, outcomes: int, reduction: Any, smoothing: float
) -> None:
    rng = np.random.default_rng(seed)
    z, labels = t(rng.normal(scale=5, size=(4, outcomes))), torch.tensor(rng.integers(0, outcomes, 4))
    labels[rng.integers(0, 4)] = -100
    ours = cross_entropy_loss(logits=z, labels=labels, label_smoothing=smoothing, reduction=reduction)
    torchs = F.cross_entropy(z, labels, label_smoothing=smoothing, reduction=reduction)
    torch.testing.assert_close(ours, torchs)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from(["none", "mean", "sum"]))
def test_cross_entropy_is_that_of_torch_with_weights_but_for_the_smoothed_mean(
    seed: int, smoothing: float, reduction: Any
) -> None:
    rng = np.random.default_rng(seed)
    z, labels, weights = t(rng.normal(size=(5, 3))), torch.tensor(rng.integers(0, 3, 5)), t(rng.uniform(0.1, 3, 3))
    ours = cross_entropy_loss(
        logits=z, labels=labels, class_weights=weights, label_smoothing=smoothing, reduction=reduction
    )
    torchs = F.cross_entropy(z, labels, weights, label_smoothing=smoothing, reduction=reduction)
    if reduction == "mean":  # torch divides by the weights of the labels, as if none had been smoothed
        torchs = torchs * weights[labels].sum() / ((1 - smoothing) * weights[labels] + smoothing * weights.mean()).sum()
    torch.testing.assert_close(ours, torchs)


def test_the_mean_of_rows_that_all_lose_the_same_is_that_unlike_torchs() -> None:
    z, labels, weights = torch.zeros(2, 2), torch.tensor([0, 0]), torch.tensor([1.0, 9.0])
    loss = cross_entropy_loss(logits=z, labels=labels, class_weights=weights, label_smoothing=0.5)
    assert float(loss) == pytest.approx(math.log(2))
    assert float(F.cross_entropy(z, labels, weights, label_smoothing=0.5)) == pytest.approx(3 * math.log(2))


@generators(0, 1)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("options", [{}, {"label_smoothing": 0.2}, {"class_weights": [0.5, 2.0, 0.0, 1.0]}], ids=str)
def test_gradients_of_cross_entropy_are_finite_differences(
    options: dict[str, Any], reduction: Any, rng: np.random.Generator
) -> None:
    z, labels = rng.normal(size=(3, 4)), np.array([0, -100, 3])
    options = {name: np.array(value) if isinstance(value, list) else value for name, value in options.items()}
    for_torch = {name: t(value) if isinstance(value, np.ndarray) else value for name, value in options.items()}
    leaf = t(z).requires_grad_()
    loss = cross_entropy_loss(logits=leaf, labels=torch.asarray(labels), reduction=reduction, **for_torch)
    wanted = finite_differences(
        lambda z: float(cross_entropy_loss(logits=z, labels=labels, reduction=reduction, **options)), z
    )
    np.testing.assert_allclose(torch.autograd.grad(loss, leaf)[0], wanted, atol=1e-8)


@pytest.mark.parametrize("largest", [1e4, -1e4, 0.0])
def test_gradients_with_masked_and_huge_logits_are_softmax_minus_one_hot(largest: float) -> None:
    logits = [[largest, largest - 1, -INF, -INF], [-INF, largest, largest - 3e3, largest]]
    z = t(logits).requires_grad_()
    loss = cross_entropy_loss(logits=z, labels=torch.tensor([1, 2]), reduction="sum")
    assert float(loss.detach()) == pytest.approx(1 + math.log1p(math.exp(-1)) + 3e3 + math.log(2), rel=1e-14)
    likely = 1 / (1 + math.exp(-1))
    wanted = [[likely, -likely, 0, 0], [0, 0.5, -1, 0.5]]
    np.testing.assert_allclose(torch.autograd.grad(loss, z)[0], wanted, atol=1e-12)


def test_a_label_that_was_ruled_out_costs_inf_and_no_logit_mends_it() -> None:
    z = t([[0.0, 1.0, -INF], [0.0, 0.0, -INF]]).requires_grad_()
    losses = cross_entropy_loss(logits=z, labels=torch.tensor([2, 0]), reduction="none")
    torch.testing.assert_close(losses.detach(), t([INF, math.log(2)]))
    (gradient,) = torch.autograd.grad(losses.sum(), z)
    torch.testing.assert_close(gradient, t([[0.0, 0.0, 0.0], [-0.5, 0.5, 0.0]]))


def test_a_class_of_weight_zero_counts_nothing_even_at_inf() -> None:
    z, weights = np.array([[0.0, 0.0, -INF]]), np.array([1.0, 1.0, 0.0])
    loss = cross_entropy_loss(logits=z, labels=np.array([0]), class_weights=weights, label_smoothing=0.3)
    assert float(loss) == pytest.approx(math.log(2))


@libraries
def test_the_outcomes_may_lie_along_any_axis(array: Callable[..., Array]) -> None:
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(2, 5, 3)), rng.integers(0, 5, (2, 3))
    loss = cross_entropy_loss(logits=array(z), labels=array(labels), axis=1, reduction="none")
    torchs = F.cross_entropy(torch.asarray(z), torch.asarray(labels), reduction="none")  # its classes lie along axis 1
    np.testing.assert_allclose(np.asarray(loss), torchs, rtol=1e-12)


@libraries
def test_a_label_and_its_one_hot_distribution_lose_the_same(array: Callable[..., Array]) -> None:
    rng = np.random.default_rng(0)
    z, labels, weights = rng.normal(size=(2, 4, 3)), rng.integers(0, 3, (2, 4)), array(np.array([0.5, 2.0, 1.0]))
    one_hot = Probs(array(np.eye(3)[labels]))
    for reduction in ("none", "mean", "sum"):
        for smoothing in (0.0, 0.2):
            options: dict[str, Any] = {"class_weights": weights, "label_smoothing": smoothing, "reduction": reduction}
            hard = cross_entropy_loss(logits=array(z), labels=array(labels), **options)
            soft = cross_entropy_loss(logits=array(z), labels=one_hot, **options)
            np.testing.assert_allclose(np.asarray(hard), np.asarray(soft), rtol=1e-13)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1]), st.sampled_from(["none", "mean", "sum"]), st.booleans())
def test_soft_targets_lose_what_torch_says_but_for_the_weighted_mean(
    seed: int, smoothing: float, reduction: Any, weighted: bool
) -> None:
    rng = np.random.default_rng(seed)
    z, target = t(rng.normal(scale=4, size=(5, 3))), t(rng.dirichlet([0.5] * 3, 5))
    weights = t(rng.uniform(0.1, 3, 3)) if weighted else None
    ours = cross_entropy_loss(
        logits=z, labels=Probs(target), class_weights=weights, label_smoothing=smoothing, reduction=reduction
    )
    torchs = F.cross_entropy(z, target, weights, label_smoothing=smoothing, reduction=reduction)
    if reduction == "mean" and weights is not None:  # torch divides by the number of rows
        torchs = torchs * 5 / (((1 - smoothing) * target + smoothing / 3) @ weights).sum()
    torch.testing.assert_close(ours, torchs)


def test_soft_targets_may_be_logits_and_have_gradients_of_their_own() -> None:
    z_p, z_q = (np.random.default_rng(seed).normal(size=(2, 3)) for seed in (0, 1))
    leaf = t(z_p).requires_grad_()
    loss = cross_entropy_loss(logits=t(z_q), labels=Logits(leaf))
    wanted = finite_differences(lambda z: float(cross_entropy_loss(logits=z_q, labels=Logits(z))), z_p)
    np.testing.assert_allclose(torch.autograd.grad(loss, leaf)[0], wanted, atol=1e-8)


def test_arrays_of_two_libraries_are_refused_but_labels_are_taken_from_any() -> None:
    with pytest.raises(DistributionError, match="for logits and labels; wanted arrays of one library"):
        cross_entropy_loss(logits=torch.zeros(1, 2), labels=Probs([[0.5, 0.5]]))
    with pytest.raises(DistributionError, match="for values and mean; wanted arrays of one library"):
        mean_squared_error(values=torch.zeros(2), mean=np.zeros(2))
    assert float(cross_entropy_loss(logits=torch.zeros(1, 2), labels=np.array([1]))) == pytest.approx(math.log(2))
    assert float(cross_entropy_loss(logits=np.zeros((1, 2)), labels=[1])) == pytest.approx(math.log(2))


def test_soft_targets_are_checked_and_named() -> None:
    with pytest.raises(DistributionError, match=r"probabilities as labels, row 1: sum to 1.1; wanted 1"):
        cross_entropy_loss(logits=np.zeros((2, 2)), labels=Probs([[0.5, 0.5], [0.2, 0.9]]))
    with pytest.raises(DistributionError, match=r"labels of shape \(3, 2\) and logits of shape \(2, 2\)"):
        cross_entropy_loss(logits=np.zeros((2, 2)), labels=Probs([[0.5, 0.5]] * 3))


@libraries
def test_a_mask_and_weights_of_rows_count_as_ignoring_and_repeating_them_would(array: Callable[..., Array]) -> None:
    logits = [logs(0.5, 0.5), logs(0.25, 0.75), [NAN, 1.0], logs(0.125, 0.875)]
    options: dict[str, Any] = {"logits": array(np.array(logits)), "labels": array(np.array([0, 0, 7, -100]))}
    options |= {"mask": array(np.array([True, True, False, True])), "weights": array(np.array([1.0, 2.0, 5.0, 5.0]))}
    assert float(cross_entropy_loss(**options)) == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    assert float(cross_entropy_loss(**options, reduction="sum", unit="bits")) == pytest.approx(5)
    weighted = cross_entropy_loss(**options, class_weights=array(np.array([3.0, 1.0])))
    assert float(weighted) == pytest.approx((math.log(2) + 2 * math.log(4)) / 3)
    losses = cross_entropy_loss(**{name: options[name] for name in ("logits", "labels", "mask")}, reduction="none")
    np.testing.assert_allclose(np.asarray(losses), [math.log(2), math.log(4), 0, 0], rtol=1e-14)


def test_masked_elements_are_not_looked_at_by_any_loss() -> None:
    mask, bad = np.array([True, False]), np.array([0.5, NAN])
    assert float(binary_cross_entropy(labels=bad, logits=bad * 0, mask=mask)) == pytest.approx(math.log(2))
    assert float(binary_cross_entropy(labels=bad, probs=bad, mask=mask)) == pytest.approx(math.log(2))
    assert float(mean_squared_error(values=bad, mean=0.0, mask=mask)) == 0.25
    nll = gaussian_nll(values=bad, mean=bad, sd=np.array([1.0, -1.0]), mask=mask, reduction="none")
    np.testing.assert_allclose(nll, [HALF_LOG_2_PI, 0])


def test_gradients_of_masked_elements_are_zero() -> None:
    mask, z = torch.tensor([True, False]), t([2.0, NAN]).requires_grad_()
    loss = binary_cross_entropy(labels=t([1.0, NAN]), logits=z, mask=mask)
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], t([2.0, 0.0]).sigmoid() * t([1, 0]) - t([1, 0]))
    sd = t([2.0, -1.0]).requires_grad_()
    loss = gaussian_nll(values=t([3.0, NAN]), mean=t([1.0, NAN]), sd=sd, mask=mask)
    torch.testing.assert_close(torch.autograd.grad(loss, sd)[0], t([-4 / 8 + 1 / 2, 0.0]))


def test_a_squared_error_is_in_no_unit_of_information() -> None:
    with pytest.raises(DistributionError, match="unit of its values"):
        mean_squared_error(values=1.0, mean=0.0, unit="bits")
    assert float(binary_cross_entropy(labels=1, logits=0.0, unit="bits")) == pytest.approx(1)
    assert float(gaussian_nll(values=0.0, mean=0.0, sd=1.0, unit="bits")) == pytest.approx(HALF_LOG_2_PI / math.log(2))


def test_labels_of_small_types_are_not_wrapped_around() -> None:
    labels = torch.tensor([156, 0], dtype=torch.uint8)  # -100 modulo 256
    losses = cross_entropy_loss(logits=torch.zeros(2, 200), labels=labels, reduction="none")
    assert losses.tolist() == pytest.approx([math.log(200)] * 2)


@pytest.mark.parametrize(
    ("logits", "options", "message"),
    [
        (
            [[0.0, 0.0]],
            {"labels": [2]},
            r"labels, row 0: found 2; wanted outcomes from 0 to 1, or ignore_index \(-100\)",
        ),
        ([[0.0, 0.0]], {"labels": [-1]}, "labels, row 0: found -1;"),
        ([[0.0, 0.0]], {"labels": [-100], "ignore_index": None}, "found -100; wanted outcomes from 0 to 1$"),
        (
            [[0.0, 0.0]],
            {"labels": [0.0]},
            r"labels of type (torch\.)?float64; wanted the whole number of each row\'s outcome, or soft targets",
        ),
        ([[0.0, 0.0]], {"labels": [True]}, r"labels of type (torch\.)?bool"),
        ([[0.0, 0.0]], {"labels": [0, 1]}, r"labels of shape \(2,\); wanted that of the rows of logits, \(1,\)"),
        ([[0.0, 0.0]], {"labels": [0], "label_smoothing": 1.5}, "label_smoothing=1.5; wanted a share"),
        ([[0.0, 0.0]], {"labels": [0], "class_weights": [1.0]}, "wanted one for each of 2 outcomes"),
        ([[0.0, 0.0]], {"labels": [0], "class_weights": [1.0, -1.0]}, "class_weights, outcome 1: found -1;"),
        ([[0.0, 0.0]], {"labels": [0], "reduction": "batchmean"}, "reduction='batchmean'; wanted one of"),
        ([[0.0, 0.0]], {"labels": [-100]}, "found no row that counts"),
        ([[0.0, 0.0], [0.0, NAN]], {"labels": [0, 0]}, "logits given, row 1: found nan at outcome 1"),
        ([[0.0, INF]], {"labels": [0]}, "logits given, row 0: found inf at outcome 1"),
        ([[-INF, -INF]], {"labels": [0]}, "logits given, row 0: found -inf for every outcome"),
    ],
)
@libraries
def test_what_makes_no_cross_entropy_is_refused_with_its_place(
    logits: Any, options: dict[str, Any], message: str, array: Callable[..., Array]
) -> None:
    options = {name: array(np.array(value)) if isinstance(value, list) else value for name, value in options.items()}
    with pytest.raises(DistributionError, match=message):
        cross_entropy_loss(logits=array(np.array(logits)), **options)


# Binary cross-entropy.


def test_the_logistic_example_is_that_worked_out_by_hand() -> None:
    assert 1 / (1 + math.exp(-2)) == pytest.approx(0.880797, abs=5e-7)
    assert float(binary_cross_entropy(labels=1, logits=2.0)) == pytest.approx(0.126928, abs=5e-7)
    assert float(binary_cross_entropy(labels=0, logits=2.0)) == pytest.approx(2.126928, abs=5e-7)
    assert float(binary_cross_entropy(labels=1, probs=0.880797)) == pytest.approx(0.126928, abs=5e-7)


@libraries
def test_binary_cross_entropy_is_the_cross_entropy_of_two_outcomes(array: Callable[..., Array]) -> None:
    z, labels = np.linspace(-30, 30, 25), np.arange(25) % 2
    binary = binary_cross_entropy(labels=array(labels), logits=array(z), reduction="none")
    two = np.stack([np.zeros(25), z], axis=-1)
    np.testing.assert_allclose(
        np.asarray(binary), cross_entropy_loss(logits=two, labels=labels, reduction="none"), rtol=1e-14
    )


@given(st.integers(0, 2**32), st.sampled_from(["none", "mean", "sum"]), st.sampled_from([1.0, 3.0]))
def test_binary_cross_entropy_is_that_of_torch(seed: int, reduction: Any, weight: float) -> None:
    rng = np.random.default_rng(seed)
    z, labels = t(rng.normal(scale=5, size=(3, 2))), t(rng.uniform(size=(3, 2)).round(1))
    ours = binary_cross_entropy(labels=labels, logits=z, positive_weight=weight, reduction=reduction)
    torchs = F.binary_cross_entropy_with_logits(z, labels, pos_weight=t(weight), reduction=reduction)
    torch.testing.assert_close(ours, torchs)
    from_probs = binary_cross_entropy(labels=labels, probs=z.sigmoid(), positive_weight=weight, reduction=reduction)
    torch.testing.assert_close(from_probs, torchs)


@pytest.mark.parametrize("logit", [-1e4, -40.0, 0.0, 40.0, 1e4])
def test_binary_cross_entropy_keeps_its_digits_and_its_gradient_at_extreme_logits(logit: float) -> None:
    for label in (0.0, 1.0):
        with mpmath.workdps(9000):
            wanted = float(mpmath.log1p(mpmath.exp(-logit if label else logit)))
        z = t(logit).requires_grad_()
        loss = binary_cross_entropy(labels=label, logits=z)
        assert float(loss.detach()) == pytest.approx(wanted, rel=1e-14)
        sigmoid = float(z.detach().sigmoid())
        assert float(torch.autograd.grad(loss, z)[0]) == pytest.approx(sigmoid - label, abs=1e-15)


@libraries
def test_certainty_costs_nothing_when_right_and_inf_when_wrong(array: Callable[..., Array]) -> None:
    labels, probs = array([1.0, 0.0, 1.0, 0.0]), array([1.0, 0.0, 0.0, 1.0])
    assert np.asarray(binary_cross_entropy(labels=labels, probs=probs, reduction="none")).tolist() == [0, 0, INF, INF]
    logits = array([INF, -INF, -INF, INF])
    assert np.asarray(binary_cross_entropy(labels=labels, logits=logits, reduction="none")).tolist() == [0, 0, INF, INF]


def test_gradients_from_probs_are_finite_where_certainty_is_right() -> None:
    p = t([0.0, 1.0, 0.5]).requires_grad_()
    loss = binary_cross_entropy(labels=t([0.0, 1.0, 1.0]), probs=p, reduction="sum")
    torch.testing.assert_close(torch.autograd.grad(loss, p)[0], t([1.0, -1.0, -2.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": 1}, "found neither of logits= and probs="),
        ({"labels": 1, "logits": 0.0, "probs": 0.5}, "found both"),
        ({"labels": [0.0, 2.0], "logits": [0.0, 0.0]}, r"labels, row 1: found 2; wanted numbers from 0 to 1"),
        ({"labels": 1, "probs": 1.5}, r"probs: found 1.5; wanted probabilities, from 0 to 1 \(or say logits=\)"),
        ({"labels": 1, "logits": 0.0, "positive_weight": -1.0}, "found positive_weight=-1.0"),
        ({"labels": 1, "logits": NAN}, "logits: found nan"),
        (
            {"labels": np.zeros(3), "logits": np.zeros((3, 1))},
            r"labels of shape \(3,\) and logits of shape \(3, 1\); wanted one shape",
        ),
    ],
)
def test_what_makes_no_binary_cross_entropy_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        binary_cross_entropy(**options)


# Gaussian likelihood and squared error.


@libraries
def test_gaussian_nll_is_minus_the_log_density_however_the_spread_is_given(array: Callable[..., Array]) -> None:
    x, mean = array([3.0, 0.0]), array([1.0, 0.0])
    wanted = [0.5 + math.log(2) + HALF_LOG_2_PI, math.log(0.5) + HALF_LOG_2_PI]
    for spread in (
        {"sd": array([2.0, 0.5])},
        {"variance": array([4.0, 0.25])},
        {"log_variance": array([math.log(4), math.log(0.25)])},
    ):
        nll = gaussian_nll(values=x, mean=mean, **spread, reduction="none")
        np.testing.assert_allclose(np.asarray(nll), wanted, rtol=1e-14)


@given(st.integers(0, 2**32))
def test_gaussian_nll_and_its_gradients_are_those_of_torch_distributions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, mean, sd = t(rng.normal(size=4)), t(rng.normal(size=4)), t(rng.uniform(0.1, 5, size=4))
    leaves = mean.requires_grad_(), sd.requires_grad_()
    ours, torchs = gaussian_nll(values=x, mean=mean, sd=sd), -torch.distributions.Normal(mean, sd).log_prob(x).mean()
    torch.testing.assert_close(ours, torchs)
    for mine, theirs in zip(torch.autograd.grad(ours, leaves), torch.autograd.grad(torchs, leaves), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_gaussian_nll_clamps_nothing_where_torch_does() -> None:
    nll = gaussian_nll(values=1e-4, mean=0.0, variance=1e-8)
    assert float(nll) == pytest.approx(0.5 + 0.5 * math.log(1e-8) + HALF_LOG_2_PI)
    clamped = F.gaussian_nll_loss(t([0.0]), t([1e-4]), t([1e-8]), full=True)
    assert float(clamped) == pytest.approx(0.005 + 0.5 * math.log(1e-6) + HALF_LOG_2_PI)


def test_gaussian_nll_overflows_only_where_its_value_does() -> None:
    assert float(gaussian_nll(values=1e200, mean=0.0, sd=1e200)) == pytest.approx(
        0.5 + 200 * math.log(10) + HALF_LOG_2_PI
    )


@libraries
@pytest.mark.parametrize("variance", [0.5, 1.0, 7.0])
def test_mean_squared_error_is_gaussian_nll_with_a_fixed_variance(variance: float, array: Callable[..., Array]) -> None:
    rng = np.random.default_rng(0)
    x, mean = array(rng.normal(size=(3, 2))), array(rng.normal(size=(3, 2)))
    for reduction in ("none", "mean"):
        error = mean_squared_error(values=x, mean=mean, reduction=reduction)  # type: ignore[arg-type]
        nll = gaussian_nll(values=x, mean=mean, variance=variance, reduction=reduction)  # type: ignore[arg-type]
        np.testing.assert_allclose(
            np.asarray(error), 2 * variance * (np.asarray(nll) - math.log(2 * math.pi * variance) / 2), atol=1e-13
        )


def test_mean_squared_error_is_that_worked_out_by_hand() -> None:
    assert float(mean_squared_error(values=np.array([1.0, 4.0]), mean=np.array([0.0, 2.0]))) == 2.5
    assert float(mean_squared_error(values=np.array([1.0, 4.0]), mean=2.0, reduction="sum")) == 5.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"values": 0.0, "mean": 0.0}, "found none of sd=, variance= and log_variance="),
        ({"values": 0.0, "mean": 0.0, "sd": 1.0, "variance": 1.0}, "found sd= and variance="),
        ({"values": 0.0, "mean": 0.0, "sd": -1.0}, "sd: found -1; wanted finite numbers above 0"),
        ({"values": 0.0, "mean": 0.0, "variance": 0.0}, "variance: found 0;"),
        ({"values": 0.0, "mean": 0.0, "log_variance": NAN}, "log_variance: found nan"),
        ({"values": NAN, "mean": 0.0, "sd": 1.0}, "values: found nan"),
        ({"values": np.zeros(2), "mean": np.array([0.0, NAN]), "sd": 1.0}, "mean, row 1: found nan"),
        ({"values": np.zeros((2, 1)), "mean": np.zeros(2), "sd": 1.0}, r"values of shape \(2, 1\) and mean of shape"),
    ],
)
def test_what_makes_no_gaussian_likelihood_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        gaussian_nll(**options)


def test_squared_error_does_not_pair_every_value_with_every_mean() -> None:
    with pytest.raises(DistributionError, match="wanted one shape"):
        mean_squared_error(values=np.zeros((3, 1)), mean=np.zeros(3))
