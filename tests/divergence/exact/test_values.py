"""Claims about the exact divergences: their values against 80-digit arithmetic and other libraries, in every library of
arrays, on adversarial inputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.spatial.distance
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

from kilter import divergence as dv
from kilter.divergence import Counts, Logits, LogProbs, Probs

Array = Any
Rows = list[mpf]
INF = math.inf
DIGITS = 80


def tensor(values: Array) -> Array:
    return torch.tensor(values, dtype=torch.float64)


def jax_array(values: Array) -> Array:
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray(values, dtype=jax.numpy.float64)


LIBRARIES: dict[str, Callable[[Array], Array]] = {"numpy": np.asarray, "torch": tensor, "jax": jax_array}
libraries = pytest.mark.parametrize("array", LIBRARIES.values(), ids=LIBRARIES)


# The definitions, term by term, on numbers of 80 digits.


def total(terms: Any) -> mpf:
    return mp.fsum(terms)


def kl_of(p: Rows, q: Rows) -> mpf:
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return mpf("inf")
    return total(a * mp.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def js_of(p: Rows, q: Rows, w: float) -> mpf:
    m = [w * a + (1 - mpf(w)) * b for a, b in zip(p, q, strict=True)]
    return w * kl_of(p, m) + (1 - mpf(w)) * kl_of(q, m)


def integral_of(p: Rows, q: Rows, order: float) -> mpf:
    if order > 1 and kl_of(p, q) == mpf("inf"):
        return mpf("inf")
    if order < 0 and kl_of(q, p) == mpf("inf"):
        return mpf("inf")
    a = mpf(order)
    return total(x**a * y ** (1 - a) for x, y in zip(p, q, strict=True) if x > 0 and y > 0)


def renyi_of(p: Rows, q: Rows, order: float) -> mpf:
    if order == 1:
        return kl_of(p, q)
    if order == INF:
        return mp.log(max(a / b if b else mpf("inf") for a, b in zip(p, q, strict=True) if a > 0))
    integral = integral_of(p, q, order)
    return mpf("inf") if integral == 0 else mp.log(integral) / (mpf(order) - 1)


def alpha_of(p: Rows, q: Rows, order: float) -> mpf:
    if order in (0, 1):
        return kl_of(p, q) if order else kl_of(q, p)
    return (integral_of(p, q, order) - 1) / (mpf(order) * (mpf(order) - 1))


def tsallis_of(p: Rows, q: Rows, order: float) -> mpf:
    return kl_of(p, q) if order == 1 else (integral_of(p, q, order) - 1) / (mpf(order) - 1)


def chi2_of(p: Rows, q: Rows) -> mpf:
    if any(a > 0 and b == 0 for a, b in zip(p, q, strict=True)):
        return mpf("inf")
    return total((a - b) ** 2 / b for a, b in zip(p, q, strict=True) if b > 0)


def wasserstein_of(p: Rows, q: Rows) -> mpf:
    gaps = [total(p[: i + 1]) - total(q[: i + 1]) for i in range(len(p) - 1)]
    return total(map(abs, gaps))


def cross_entropy_of(p: Rows, q: Rows) -> mpf:
    if kl_of(p, q) == mpf("inf"):
        return mpf("inf")
    return -total(a * mp.log(b) for a, b in zip(p, q, strict=True) if a > 0)


def squared_hellinger_of(p: Rows, q: Rows) -> mpf:
    return total((mp.sqrt(a) - mp.sqrt(b)) ** 2 for a, b in zip(p, q, strict=True)) / 2


Exact = Callable[..., Array]
PAIRED: dict[str, tuple[Exact, Callable[[Rows, Rows], mpf]]] = {
    "cross_entropy": (dv.cross_entropy, cross_entropy_of),
    "kl": (dv.kl, kl_of),
    "jeffreys": (dv.jeffreys, lambda p, q: kl_of(p, q) + kl_of(q, p)),
    "js": (dv.js, lambda p, q: js_of(p, q, 0.5)),
    "total_variation": (dv.total_variation, lambda p, q: total(map(abs, map(lambda a, b: a - b, p, q))) / 2),
    "hellinger": (dv.hellinger, lambda p, q: mp.sqrt(squared_hellinger_of(p, q))),
    "chi2": (dv.chi2, chi2_of),
    "bhattacharyya": (dv.bhattacharyya, lambda p, q: renyi_of(p, q, 0.5) / 2),
    "wasserstein1": (dv.wasserstein1, wasserstein_of),
}
for w in (1e-12, 0.1, 0.9):
    PAIRED[f"js({w})"] = (partial(dv.js, weight=w), partial(js_of, w=w))
for w in (0, 1):
    PAIRED[f"generalised_js({w})"] = (
        partial(dv.generalised_js, weight=w),
        lambda p, q, w=w: kl_of(q, p) if w else kl_of(p, q),
    )
for w in (1e-9, 0.3, 0.999999):
    PAIRED[f"generalised_js({w})"] = (
        partial(dv.generalised_js, weight=w),
        lambda p, q, w=w: js_of(p, q, w) / (mpf(w) * (1 - mpf(w))),
    )
for order in (0, 1e-9, 0.5, 0.999999, 1, 1.000001, 2.5, INF):
    PAIRED[f"renyi({order})"] = (partial(dv.renyi, order=order), partial(renyi_of, order=order))
for order in (-1.5, 0, 1e-6, 0.3, 0.5, 0.8, 1, 1.00001, 2, 3):
    PAIRED[f"alpha({order})"] = (partial(dv.alpha, order=order), partial(alpha_of, order=order))
for order in (0, 0.3, 1, 2):
    PAIRED[f"tsallis({order})"] = (partial(dv.tsallis, order=order), partial(tsallis_of, order=order))
paired = pytest.mark.parametrize("name", PAIRED)


# Near p = q these grow with the difference, and the others with its square.
FIRST_ORDER = {"total_variation", "hellinger", "wasserstein1", "renyi(inf)"}


def shares(counts: list[int]) -> Rows:
    return [mpf(c) / sum(counts) for c in counts]


def softmax(logits: list[float]) -> Rows:
    powers = [mp.exp(mpf(z)) if z > -INF else mpf(0) for z in logits]
    return [x / total(powers) for x in powers]


def agree(got: Array, wanted: mpf, relative: float = 1e-9, absolute: float = 0.0) -> None:
    wanted_float = float(wanted)  # beyond the range of float64 it is inf, as the result must be
    assert float(got) == pytest.approx(wanted_float, rel=relative, abs=max(absolute, 1e-300))


counts = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*[st.lists(st.integers(0, 1000), min_size=n, max_size=n).filter(any)] * 2)
)
one_logit = st.one_of(
    st.floats(-3, 3), st.floats(-1e4, 1e4), st.just(-INF), st.sampled_from([0.0, 1e-8, 700.0, -745.0])
)
logits = st.integers(2, 6).flatmap(
    lambda n: st.tuples(*[st.lists(one_logit, min_size=n, max_size=n).filter(lambda z: max(z) > -INF)] * 2)
)


@paired
@given(counts)
@settings(max_examples=15)
def test_values_of_shares_are_those_of_80_digits(name: str, pair: tuple[list[int], list[int]]) -> None:
    function, oracle = PAIRED[name]
    with mp.workdps(DIGITS):
        wanted = oracle(*map(shares, pair))
    agree(function(*map(Counts, pair)), wanted, absolute=1e-15 if name == "cross_entropy" else 1e-24)


@paired
@given(logits)
@settings(max_examples=25)
def test_values_of_logits_are_those_of_80_digits(name: str, pair: tuple[list[float], list[float]]) -> None:
    """Up to +-1e4, with outcomes ruled out; a probability too small for a number still counts by its logarithm."""
    function, oracle = PAIRED[name]
    with mp.workdps(DIGITS):
        wanted = oracle(*map(softmax, pair))
    # A difference of two logits that are not near each other is rounded, and log-ratios are uncertain by that.
    rounding = 1e-15 * max(1.0, *(abs(z) for row in pair for z in row if z > -INF))
    slope = 1 if name in FIRST_ORDER else math.sqrt(abs(wanted)) if wanted < 1 else 0
    agree(function(*map(Logits, pair)), wanted, absolute=rounding * slope + 1e-24)


@given(logits)
def test_entropy_of_logits_is_that_of_350_digits(pair: tuple[list[float], list[float]]) -> None:
    with mp.workdps(350):  # log p of the likelier outcome is 1 less a number as small as float64 has them
        wanted = -total(x * mp.log(x) for x in softmax(pair[0]) if x)
    agree(dv.entropy(Logits(pair[0])), wanted)


@libraries
@paired
def test_every_library_and_every_wrapper_gives_the_same_values(name: str, array: Callable[[Array], Array]) -> None:
    function, oracle = PAIRED[name]
    p, q = [[1, 2, 3, 4], [5, 0, 5, 10]], [[4, 3, 2, 1], [1, 0, 6, 3]]
    with mp.workdps(DIGITS):
        wanted = [float(oracle(shares(a), shares(b))) for a, b in zip(p, q, strict=True)]
    with np.errstate(divide="ignore"):
        probs = [np.array(x) / np.sum(x, axis=-1, keepdims=True) for x in (p, q)]
        forms = [[Counts(array(x)) for x in (p, q)], [Probs(array(x)) for x in probs]]
        forms += [[kind(array(np.log(x) + shift)) for x in probs] for kind, shift in ((LogProbs, 0), (Logits, 7))]
    for first, _ in forms:
        for _, second in forms:
            got = function(first, second)
            assert isinstance(got, type(array([0.0])))
            np.testing.assert_allclose(np.asarray(got), wanted, rtol=1e-12)


@paired
def test_values_go_by_the_order_p_q(name: str) -> None:
    """Only these are symmetric; any other that were called with its arguments swapped would fail here."""
    function, _ = PAIRED[name]
    p, q = Probs([0.1, 0.2, 0.7]), Probs([0.5, 0.3, 0.2])
    symmetric = {"jeffreys", "js", "total_variation", "hellinger", "bhattacharyya", "wasserstein1"}
    symmetric |= {"renyi(0.5)", "alpha(0.5)"}
    forwards, backwards = float(function(p, q)), float(function(q, p))
    if name in ("renyi(0)", "tsallis(0)"):  # both have the whole support
        assert forwards == backwards == 0
    else:
        assert (forwards == pytest.approx(backwards, rel=1e-12, abs=0)) == (name in symmetric)


def test_values_by_hand() -> None:
    p, q = Probs([0.5, 0.5]), Probs([0.25, 0.75])
    assert float(dv.kl(p, q)) == pytest.approx(0.5 * math.log(4 / 3), rel=1e-14)
    assert float(dv.cross_entropy(p, q, unit="bits")) == pytest.approx(0.5 * (2 + math.log2(4 / 3)), rel=1e-14)
    assert float(dv.jeffreys(p, q)) == pytest.approx(0.25 * math.log(3), rel=1e-14)
    assert float(dv.total_variation(p, q)) == 0.25
    assert float(dv.chi2(p, q)) == pytest.approx(0.25 + 0.0625 / 0.75, rel=1e-14)
    assert float(dv.renyi(p, q, order=2)) == pytest.approx(math.log(4 / 3), rel=1e-14)
    assert float(dv.renyi(p, q, order=INF)) == pytest.approx(math.log(2), rel=1e-14)
    assert float(dv.js(Probs([1, 0]), Probs([0, 1]))) == pytest.approx(math.log(2), rel=1e-15)
    assert float(dv.hellinger(Probs([1, 0]), Probs([0.25, 0.75]))) == pytest.approx(math.sqrt(0.5), rel=1e-14)


@given(counts)
def test_scipy_agrees_where_it_is_defined(pair: tuple[list[int], list[int]]) -> None:
    p, q = (np.array(x, float) / sum(x) for x in pair)
    close = partial(pytest.approx, rel=1e-9, abs=1e-14)
    assert float(dv.kl(Probs(p), Probs(q))) == close(float(scipy.special.rel_entr(p, q).sum()))
    assert float(dv.kl(Probs(p), Probs(q), unit="bits")) == close(float(scipy.stats.entropy(p, q, base=2)))
    assert float(dv.entropy(Probs(p))) == close(float(scipy.stats.entropy(p)))
    places = np.arange(len(p))
    moved = scipy.stats.wasserstein_distance(places, places, p, q)
    assert float(dv.wasserstein1(Probs(p), Probs(q))) == close(float(moved))
    if not np.allclose(p, q):
        distance = scipy.spatial.distance.jensenshannon(p, q)
        assert float(dv.js(Probs(p), Probs(q))) == pytest.approx(float(distance) ** 2, rel=1e-6)


def test_torch_distributions_agree_over_thousands_of_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    z, y = (torch.randn(5000, 11, generator=generator, dtype=torch.float64) * 4 for _ in range(2))
    p, q = (torch.distributions.Categorical(logits=x) for x in (z, y))
    torch.testing.assert_close(dv.kl(Logits(z), Logits(y)), torch.distributions.kl_divergence(p, q))
    torch.testing.assert_close(dv.entropy(Logits(z)), p.entropy())


# What rounding must not do.


@paired
@given(logits)
@settings(max_examples=15)
def test_a_distribution_and_itself_are_exactly_0_apart(name: str, pair: tuple[list[float], list[float]]) -> None:
    function, _ = PAIRED[name]
    if name == "cross_entropy":
        return
    for kind in (Logits, lambda z: LogProbs(scipy.special.log_softmax(z)), lambda z: Probs(scipy.special.softmax(z))):
        assert float(function(kind(pair[0]), kind(pair[0]))) == 0.0
    z = torch.tensor(pair[0], dtype=torch.float32)
    assert float(function(Logits(z), Logits(z))) == 0.0


TINY = ["kl", "jeffreys", "js", "generalised_js(0.3)", "renyi(2.5)", "renyi(0.5)", "alpha(0.3)", "tsallis(2)", "chi2"]
TINY += ["hellinger", "bhattacharyya", "total_variation", "wasserstein1", "alpha(-1.5)", "js(0.9)", "renyi(1.000001)"]


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("size", [1e-3, 1e-6, 1e-9, 1e-12])
def test_small_differences_keep_their_digits(name: str, size: float) -> None:
    function, oracle = PAIRED[name]
    direction = np.array([1.0, -2.0, 0.5, 0.5])
    p = np.array([0.1, 0.4, 0.3, 0.2])
    z = np.array([1.0, -30.0, 2.0, 0.25])
    with mp.workdps(DIGITS):
        # What the floats are, not what was written: their differences are exact, their sums 1 but for a rounding.
        q = p + size * direction
        wanted = oracle(*([mpf(float(x)) / total(map(mpf, map(float, row))) for x in row] for row in (p, q)))
        y = z + size * direction
        wanted_logits = oracle(softmax(z.tolist()), softmax(y.tolist()))
    agree(function(Probs(p), Probs(q)), wanted, relative=1e-6 if size > 1e-10 else 1e-3)
    agree(function(Logits(z), Logits(y)), wanted_logits, relative=1e-9 if size > 1e-10 else 1e-7)


@paired
@given(logits, st.sampled_from([1.0, 1e-3, 1e-7]), st.booleans())
@settings(max_examples=15)
def test_no_divergence_is_negative_in_float32(
    name: str, pair: tuple[list[float], list[float]], size: float, near: bool
) -> None:
    function, _ = PAIRED[name]
    z, y = (torch.tensor(x, dtype=torch.float32) for x in pair)
    y = z + size * torch.nan_to_num(y, neginf=0.0).sign() if near else y
    assert float(function(Logits(z), Logits(y))) >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@paired
def test_halves_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    function, _ = PAIRED[name]
    generator = torch.Generator().manual_seed(1)
    z, y = (torch.randn(3, 400, generator=generator).to(dtype) for _ in range(2))
    got = function(Logits(z), Logits(y))
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), function(Logits(z.double()), Logits(y.double())), rtol=2e-4, atol=0)


def test_the_divergences_that_bound_each_other_do() -> None:
    """Pinsker, and the chain TV^2 <= 2 H^2 <= KL <= log(1 + chi2) = Rényi of order 2 <= chi2."""
    rng = np.random.default_rng(0)
    p, q = (Probs(rng.dirichlet(np.full(6, 0.3), 3000)) for _ in range(2))
    h2, chi2, kl = dv.hellinger(p, q) ** 2, dv.chi2(p, q), dv.kl(p, q)
    tv = dv.total_variation(p, q)
    slack = 1 + 1e-12
    assert (h2 <= tv * slack).all()
    assert (tv <= np.sqrt(2 * h2) * slack).all()
    assert (2 * tv**2 <= kl * slack).all()
    assert (2 * h2 <= kl * slack).all()
    assert (kl <= np.log1p(chi2) * slack).all()
    np.testing.assert_allclose(dv.renyi(p, q, order=2), np.log1p(chi2), rtol=1e-12)


def test_renyi_grows_with_its_order_through_kl() -> None:
    rng = np.random.default_rng(1)
    p, q = (Probs(rng.dirichlet(np.ones(5), 200)) for _ in range(2))
    orders = (0, 0.2, 0.5, 0.99, 1, 1.01, 2, 50, INF)
    values = np.stack([dv.renyi(p, q, order=a) for a in orders])
    assert (np.diff(values, axis=0) >= -1e-12).all()
    np.testing.assert_allclose(values[3], values[4], rtol=0.05)


def test_positions_of_a_wasserstein_distance_are_those_of_scipy() -> None:
    rng = np.random.default_rng(2)
    places = np.sort(rng.normal(size=7))
    p, q = rng.dirichlet(np.ones(7)), rng.dirichlet(np.ones(7))
    got = dv.wasserstein1(Probs(p), Probs(q), positions=places)
    assert float(got) == pytest.approx(scipy.stats.wasserstein_distance(places, places, p, q), rel=1e-12)


def test_mpmath_is_an_oracle_of_many_digits() -> None:
    """A slip of precision would make the tests above compare rounding with rounding."""
    with mp.workdps(DIGITS):
        assert abs(kl_of([mpf(1) / 5, mpf(4) / 5], [mpf(4) / 5, mpf(1) / 5]) - mpf("0.6") * mp.log(4)) < mpf(10) ** -55
    assert mpmath.mp.dps == 15
