"""Claims about thousands of adversarial rows, drawn once: every library, type and input form against mpmath."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from mpmath import mp, mpf
from numpy.typing import NDArray

from divergence.exact.test_values import DIGITS, FIRST_ORDER, PAIRED, softmax
from kilter.divergence import Counts, Logits, LogProbs, Probs

Floats = NDArray[np.float64]
ROWS, OUTCOMES, WHOLE = 1000, 4, 1024


class Rows(NamedTuple):
    """Two sets of rows [ROWS, OUTCOMES], of numbers that float32 has exactly."""

    p: Floats
    q: Floats


def counts() -> Rows:
    """Rows of whole numbers that add up to a power of two: their shares are exact, too.

    A third are drawn alike, a third differ by one or two, and the others have nothing to do with each other; many have
    outcomes that were not seen.
    """
    random = np.random.default_rng(0)
    p, q = (random.multinomial(WHOLE, random.dirichlet(np.full(OUTCOMES, 0.3), ROWS)) for _ in range(2))
    third = ROWS // 3
    q[:third] = random.multinomial(WHOLE, (p / WHOLE)[:third])
    near = slice(third, 2 * third)
    moved = np.minimum(random.integers(0, 3, third), p[near].max(axis=1))
    q[near] = p[near]
    q[near][np.arange(third), p[near].argmax(axis=1)] -= moved
    q[near][np.arange(third), random.integers(0, OUTCOMES, third)] += moved
    return Rows(p.astype(np.float64), q.astype(np.float64))


def logits() -> Rows:
    """Eighths: small ones, large ones, outcomes that are ruled out, and rows that are nearly the same."""
    random = np.random.default_rng(1)
    scale = random.choice([1.0, 10, 80, 600, 10000], (ROWS, 1))
    p, q = (np.round(8 * scale * random.normal(size=(ROWS, OUTCOMES))) / 8 for _ in range(2))
    near = random.random((ROWS, 1)) < 0.3
    q = np.where(near, p + random.integers(-1, 2, p.shape) / 8, q)
    for z in (p, q):
        out = random.random(z.shape) < 0.1
        out[np.arange(ROWS), z.argmax(axis=1)] = False
        z[out] = -np.inf
    return Rows(p, q)


@cache
def drawn(kind: str) -> Rows:
    return {"counts": counts, "logits": logits}[kind]()


@cache
def exact(kind: str, name: str) -> Floats:
    _, oracle = PAIRED[name]
    with mp.workdps(DIGITS):
        return np.array([float(oracle(p, q)) for p, q in zip(*_as_shares(kind), strict=True)])


@cache
def _as_shares(kind: str) -> tuple[list[list[mpf]], list[list[mpf]]]:
    def shares(row: list[float]) -> list[mpf]:
        return [mpf(x) / WHOLE for x in row] if kind == "counts" else softmax(row)

    with mp.workdps(DIGITS):
        p, q = ([shares(row) for row in rows.tolist()] for rows in drawn(kind))
    return p, q


def jax_array(dtype: str) -> Callable[[Floats], Any]:
    def make(values: Floats) -> Any:
        jax = pytest.importorskip("jax")
        jax.config.update("jax_enable_x64", True)
        return jax.numpy.asarray(values, dtype=dtype)

    return make


# An array of each library, and the rounding of its type.
LIBRARIES: dict[str, tuple[Callable[[Floats], Any], float]] = {
    "numpy": (np.asarray, 2.2e-16),
    "numpy float32": (lambda values: values.astype(np.float32), 1.2e-7),
    "torch": (torch.from_numpy, 2.2e-16),
    "torch float32": (lambda values: torch.from_numpy(values).float(), 1.2e-7),
    "jax": (jax_array("float64"), 2.2e-16),
    "jax float32": (jax_array("float32"), 1.2e-7),
}
libraries = pytest.mark.parametrize(("array", "eps"), LIBRARIES.values(), ids=LIBRARIES)
paired = pytest.mark.parametrize("name", PAIRED)


def check(found: Any, wanted: Floats, uncertain: Floats, name: str, eps: float) -> None:
    """Values to some roundings of themselves; where log-ratios are uncertain, by what they move them."""
    got = np.asarray(found).astype(np.float64)
    largest = float(np.finfo(np.float32 if eps > 1e-10 else np.float64).max)
    slope = 1.0 if name in FIRST_ORDER else np.sqrt(np.minimum(np.abs(wanted), 1.0))
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(got - wanted) - (2000 * eps * np.abs(wanted) + 4 * uncertain * slope + 1e-36)
    wrong = np.where(np.isinf(got) | np.isinf(wanted), (got != wanted) & (np.abs(wanted) < largest / 1e3), off > 0)
    assert not wrong.any(), (int(wrong.sum()), np.flatnonzero(wrong)[:5], got[wrong][:5], wanted[wrong][:5])


@libraries
@paired
def test_counts_and_their_shares_have_the_values_of_80_digits(name: str, array: Any, eps: float) -> None:
    p, q = drawn("counts")
    for wrapped in ([Counts(array(x)) for x in (p, q)], [Probs(array(x / WHOLE)) for x in (p, q)]):
        found = PAIRED[name][0](*wrapped)
        check(found, exact("counts", name), np.zeros(ROWS), name, eps)


@libraries
@paired
def test_logits_and_log_probs_have_the_values_of_80_digits(name: str, array: Any, eps: float) -> None:
    p, q = drawn("logits")
    size = np.abs(np.where(np.isinf(np.stack([p, q])), 0.0, np.stack([p, q]))).max(axis=(0, 2))
    check(PAIRED[name][0](Logits(array(p)), Logits(array(q))), exact("logits", name), eps * size, name, eps)
    p, q = drawn("counts")
    with np.errstate(divide="ignore"):
        logs = [np.log(x / WHOLE) for x in (p, q)]
    for kind in (LogProbs, Logits):
        found = PAIRED[name][0](*(kind(array(x)) for x in logs))
        check(found, exact("counts", name), np.full(ROWS, 10 * eps), name, eps)
