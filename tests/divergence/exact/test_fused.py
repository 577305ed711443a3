"""Claims about logits worked on in blocks: values and gradients are those of the formulas on the whole, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from kilter import divergence as dv
from kilter.divergence import Logits
from kilter.divergence.exact import divergences, fused
from kilter.errors import DistributionError

INF = math.inf
ROWS, OUTCOMES = 40, 2100
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "kl": dv.kl,
    "cross_entropy": dv.cross_entropy,
    "js": dv.js,
    "jeffreys": dv.jeffreys,
    "renyi(2)": partial(dv.renyi, order=2),
    "total_variation": dv.total_variation,
    "hellinger": dv.hellinger,
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, the last of them not full."""
    monkeypatch.setattr(fused, "CPU_BLOCK", 7 * OUTCOMES)


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """A function's value and gradients in float64, by the formulas on the whole."""

    def compute(function: Callable[..., Any], z: Tensor, y: Tensor, grad: Tensor, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            patch.setattr(divergences, "LARGE", math.inf)
            return value_and_gradients(function, z.double(), y.double(), grad.double(), **options)

    return compute


def value_and_gradients(
    function: Callable[..., Any], z: Tensor, y: Tensor, grad: Tensor, **options: Any
) -> tuple[Tensor, Tensor, Tensor]:
    z, y = (x.detach().clone().requires_grad_() for x in (z, y))
    value = function(Logits(z), Logits(y), **options)
    return value.detach(), *torch.autograd.grad(value, (z, y), grad.to(value.dtype))


def made(dtype: torch.dtype, noise: float | None) -> tuple[Tensor, Tensor, Tensor]:
    """Rows that lie far from each other or near, some with outcomes ruled out, huge logits, or no difference."""
    generator = torch.Generator().manual_seed(0)
    z, y, other = (torch.randn(ROWS, OUTCOMES, generator=generator) * 3 for _ in range(3))
    y = y if noise is None else z + noise * other
    z, y = z.to(dtype), y.to(dtype)
    y[1] = z[1]
    z[2, 5] = z[3, 7] = y[3, 7] = -INF
    z[4, 9] = 1e4
    y[5] -= 300
    z[6] += 500
    y[7] = z[7] - 50
    return z, y, torch.rand(ROWS, generator=generator)


@pytest.mark.parametrize("noise", [None, 0.3, 1e-2, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_kl_and_its_gradients_are_those_of_float64(dtype: torch.dtype, noise: float | None, whole: Any) -> None:
    z, y, grad = made(dtype, noise)
    value, *gradients = value_and_gradients(dv.kl, z, y, grad)
    wanted, *wanted_gradients = whole(dv.kl, z, y, grad)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert value[1] == 0
    assert (value >= 0).all()
    torch.testing.assert_close(value.double(), wanted, rtol=3e-5, atol=0)
    precision = max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
    for got, want in zip(gradients, wanted_gradients, strict=True):
        assert got.dtype == dtype
        size = want.abs().amax(-1, keepdim=True)
        # Logits of 300 and more lie 3e-5 apart in float32: what a difference of two such is uncertain by.
        assert ((got.double() - want).abs() <= 300 * precision * size + 6e-8).all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_family_in_blocks_is_the_family_on_the_whole(name: str, whole: Any) -> None:
    function = FUNCTIONS[name]
    z, y, grad = (x.double() for x in made(torch.float64, 0.3))
    assert z.numel() >= divergences.LARGE
    value, *gradients = value_and_gradients(function, z, y, grad)
    wanted, *wanted_gradients = whole(function, z, y, grad)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    for got, want in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", ["kl", "js"])
def test_rows_that_do_not_count_are_not_looked_at(name: str, whole: Any) -> None:
    z, y, grad = made(torch.float32, 0.3)
    z[10], y[11, 3], z[12] = math.nan, INF, -INF
    y[7] = z[8]
    mask = torch.ones(ROWS, dtype=torch.bool)
    mask[10:13] = False
    value, *gradients = value_and_gradients(FUNCTIONS[name], z, y, grad, mask=mask)
    wanted, *wanted_gradients = whole(FUNCTIONS[name], z, y, grad, mask=mask)
    torch.testing.assert_close(value.double(), wanted, rtol=1e-4, atol=0)
    for got, want in zip(gradients, wanted_gradients, strict=True):
        assert (got[10:13] == 0).all()
        assert ((got - want).abs() <= 1e-4 * want.abs().amax(-1, keepdim=True) + 1e-8).all()


@pytest.mark.parametrize("name", ["kl", "js"])
@pytest.mark.parametrize(("bad", "said"), [(math.nan, "row 21: found nan at outcome 4"), (INF, "row 21: found inf")])
def test_logits_that_are_no_distribution_are_refused_with_their_row(name: str, bad: float, said: str) -> None:
    z, y, _ = made(torch.float32, 0.3)
    y[21, 4] = bad
    with pytest.raises(DistributionError, match=f"logits q, {said}"):
        FUNCTIONS[name](Logits(z), Logits(y))
    y[21] = -INF
    with pytest.raises(DistributionError, match="row 21: found -inf for every outcome"):
        FUNCTIONS[name](Logits(z), Logits(y))
    with pytest.raises(DistributionError, match="logits p, row 21: found -inf for every outcome"):
        FUNCTIONS[name](Logits(y), Logits(z))


def test_an_outcome_that_only_q_rules_out_makes_its_row_infinite() -> None:
    z, y, _ = made(torch.float32, 0.3)
    y[20, 4] = -INF
    value = dv.kl(Logits(z), Logits(y))
    assert value.isinf().nonzero().tolist() == [[20]]
    with pytest.raises(DistributionError, match=r"row 20: p gives probability \S+ to outcome 4, and q gives it 0"):
        dv.kl(Logits(z), Logits(y), support="raise")


def test_only_gradients_that_are_asked_for_are_made() -> None:
    z, y, grad = made(torch.float32, None)
    _, _, wanted = value_and_gradients(dv.kl, z, y, grad)
    y.requires_grad_()
    value = dv.kl(Logits(z), Logits(y))
    torch.testing.assert_close(torch.autograd.grad(value, y, grad)[0], wanted)


@pytest.mark.parametrize("name", ["kl", "js"])
def test_gradients_have_gradients(name: str, whole: Any) -> None:
    """The Hessian of KL(p, q) in the logits of q is diag q - q q^T, times any vector."""
    z, y, _ = (x.double() for x in made(torch.float64, 0.3))
    y[5] += 300  # as it was
    y = y.float().requires_grad_()
    vector = torch.randn(ROWS, OUTCOMES, generator=torch.Generator().manual_seed(3))
    value = FUNCTIONS[name](Logits(z.float()), Logits(y)).sum()
    (first,) = torch.autograd.grad(value, y, create_graph=True)
    (second,) = torch.autograd.grad((first * vector).sum(), y)
    assert second.isfinite().all()
    if name == "kl":
        q = y.detach().softmax(-1)
        torch.testing.assert_close(second, q * vector - q * (q * vector).sum(-1, keepdim=True), rtol=1e-3, atol=1e-6)


def test_leading_axes_and_any_axis_go_through_blocks_as_they_are() -> None:
    z, y, _ = made(torch.float32, None)
    wanted = dv.kl(Logits(z), Logits(y))
    split = [x.reshape(5, 8, OUTCOMES) for x in (z, y)]
    torch.testing.assert_close(dv.kl(*map(Logits, split)), wanted.reshape(5, 8))
    torch.testing.assert_close(dv.kl(Logits(z.T), Logits(y.T), axis=0), wanted)
    assert dv.kl(Logits(z[:0]), Logits(y[:0])).shape == (0,)


@pytest.fixture
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("name", ["kl", "js"])
@pytest.mark.parametrize("noise", [None, 1e-2])
def test_threads_change_nothing_and_are_left_as_they_were(name: str, noise: float | None) -> None:
    z, y, grad = made(torch.float32, noise)
    results = value_and_gradients(FUNCTIONS[name], z, y, grad)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(1)
    for got, want in zip(results, value_and_gradients(FUNCTIONS[name], z, y, grad), strict=True):
        assert torch.equal(got, want)


@pytest.mark.usefixtures("three_threads")
def test_threads_to_come_have_as_many_as_before() -> None:
    z, y, _ = made(torch.float32, None)
    dv.kl(Logits(z), Logits(y))
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3


@pytest.mark.usefixtures("three_threads")
def test_blocks_go_through_in_inference_mode_and_where_something_fails_it_is_said() -> None:
    z, y, _ = made(torch.float32, None)
    with torch.inference_mode():
        assert torch.equal(dv.kl(Logits(z), Logits(y)), dv.kl(Logits(z.clone()), Logits(y.clone())))

    def fails(pair: Any) -> Tensor:
        raise RuntimeError("a sum that fails")

    with pytest.raises(RuntimeError, match="a sum that fails"):
        fused.sum_rows(z, y, fails, None)
