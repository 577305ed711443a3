"""H(p, q) = H(p) + KL(p, q), and what follows for training: when cross-entropy and KL are one loss, and when not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np
from array_api_compat import device

from kilter.divergence.exact.distributions import Distribution, Logits, detached, first, on_host, place, required
from kilter.divergence.exact.divergences import cross_entropy, entropy, kl
from kilter.divergence.exact.forms import Form, Pair, form_of
from kilter.divergence.exact.rows import Options, RowOptions, Unit
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any
Source = Literal["label", "teacher", "parameters"]


# Of so many outcomes a report shows the gradients.
SHOWN = 8
# Differences of gradients up to so many times the rounding of 1 are none.
ROUNDINGS = 8


class Verdict(NamedTuple):
    """Whether cross-entropy and KL train alike, and why."""

    interchangeable: bool
    why: str


VERDICTS: dict[str, Verdict] = {
    "label": Verdict(True, "p is a fixed label, so H(p) = 0: cross-entropy and KL are the same number"),
    "teacher": Verdict(True, "p is fixed, so H(p) is a constant: it moves the value of the loss and no gradient"),
    "parameters": Verdict(
        False,
        "p has parameters, and so has H(p): without its gradient, as in cross-entropy, p may collapse onto q's "
        "likeliest outcome",
    ),
}


@dataclass(frozen=True, eq=False)
class Decomposition:
    """cross_entropy = entropy + kl: what coding draws from p by a code for q costs, what it must cost, and the rest."""

    cross_entropy: Array
    entropy: Array
    kl: Array


def decompose(p: Distribution, q: Distribution, *, unit: Unit = "nats", **options: Unpack[Options]) -> Decomposition:
    """The parts of cross-entropy, H(p, q) = H(p) + KL(p, q), each computed by itself, for each row.

    Takes what `kl` takes, and raises what it raises.

    >>> from kilter.divergence import Probs
    >>> parts = decompose(Probs([0.5, 0.5]), Probs([0.25, 0.75]), unit="bits")
    >>> print(*(round(float(part), 4) for part in (parts.cross_entropy, parts.entropy, parts.kl)))
    1.2075 1.0 0.2075
    """
    p, q = _broadcast(required(p, "p"), required(q, "q"), options.get("axis", -1))
    return Decomposition(
        cross_entropy(p, q, unit=unit, **options), entropy(p, unit=unit, **options), kl(p, q, unit=unit, **options)
    )


@dataclass(frozen=True, eq=False)
class GradientComparison:
    """Cross-entropy and KL as losses, on the numbers given: values, what lies between them, and gradients, in nats.

    - `p_from`: where p comes from, a name in `VERDICTS`.
    - `interchangeable`, `why`: whether it matters which of the two is the loss; it follows from `p_from` alone.
    - `values`: of each row; `values.entropy` is the constant between the two where they are interchangeable.
    - `cross_entropy_by_q`, `kl_by_q`, `cross_entropy_by_p`, `kl_by_p`: gradients of each row's value by the logits of
      q and of p, in the shape of the rows of both; those by p matter only where p has parameters.
    - `measured_error`: the largest difference between these gradients and slopes of `cross_entropy` and `kl` measured
      on the numbers given, by central differences along one direction; NaN where all values are infinite.

    Printed, it is a report.
    """

    p_from: Source
    interchangeable: bool
    why: str
    values: Decomposition
    cross_entropy_by_q: Array
    kl_by_q: Array
    cross_entropy_by_p: Array
    kl_by_p: Array
    measured_error: float

    def __str__(self) -> str:
        verdict = "interchangeable" if self.interchangeable else "not interchangeable"
        parts = (self.values.cross_entropy, self.values.entropy, self.values.kl)
        cross, between, divergence = (float(on_host(part).mean()) for part in parts)
        constant = "constant" if self.interchangeable else "no constant"
        rows = "" if self.values.kl.ndim == 0 else f", mean of {on_host(self.values.kl).size} rows"
        return "\n".join(
            [
                f"{verdict}: {self.why}",
                f"cross-entropy {cross:.6f} = H(p) {between:.6f} ({constant}) + KL {divergence:.6f}{rows}",
                *_told("q", self.cross_entropy_by_q, self.kl_by_q, counts=True),
                *_told("p", self.cross_entropy_by_p, self.kl_by_p, counts=not self.interchangeable),
                "no slope is finite to measure"
                if np.isnan(self.measured_error)
                else f"measured slopes agree within {self.measured_error:.0e}",
            ]
        )


def compare_gradients(
    p: Distribution, q: Distribution, *, p_from: Source, axis: int = -1, validate: bool = True
) -> GradientComparison:
    """Whether cross-entropy H(p, q) and KL(p, q) are interchangeable as training losses, shown on the given numbers.

    p_from says where p comes from, which its numbers do not: a fixed one-hot "label", a fixed soft "teacher", or
    "parameters" that are trained (also when they are q's own). With z the logits, dH(p, q)/dz_q = dKL/dz_q = q - p,
    whatever p is. By p's logits the two differ by dH(p)/dz_p: dH(p, q)/dz_p = -p (log q + H(p, q)), and dKL/dz_p =
    p (log p - log q - KL). Where p > 0 = q these are not finite.

    Raises DistributionError for what `kl` refuses, and for a label that is not one-hot.

    >>> from kilter.divergence import Probs
    >>> print(compare_gradients(Probs([0.75, 0.25]), Logits([0.0, 0.0]), p_from="teacher"))
    ... # doctest: +ELLIPSIS
    interchangeable: p is fixed, so H(p) is a constant: it moves the value of the loss and no gradient
    cross-entropy 0.693147 = H(p) 0.562335 (constant) + KL 0.130812
    by q's logits: cross-entropy [-0.25  0.25], KL [-0.25  0.25]; equal up to rounding
    by p's logits: cross-entropy [0. 0.], KL [ 0.206 -0.206]; largest difference 0.206, and p does not move
    measured slopes agree within ...
    """
    if p_from not in VERDICTS:
        raise DistributionError(f"found p_from={p_from!r}; wanted one of {', '.join(VERDICTS)}")
    p, q = (_fixed(required(d, name)) for d, name in ((p, "p"), (q, "q")))
    p, q = _broadcast(p, q, axis)
    rows_p, rows_q = RowOptions(axis=axis, validate=validate).read({"p": p, "q": q})
    pair = Pair(form_of(p, rows_p), form_of(q, rows_q))
    if p_from == "label":
        _check_one_hot(pair.p)
    values = decompose(p, q, axis=axis, validate=False)
    by_q, by_p = _gradients_by_q(pair), _gradients_by_p(pair, values)
    error = max(
        _measured_error(pair, loss, *slopes) for loss, *slopes in zip((cross_entropy, kl), by_p, by_q, strict=True)
    )
    cross_entropy_by_p, kl_by_p, cross_entropy_by_q, kl_by_q = (
        array_namespace(rows_p).moveaxis(gradient, -1, axis) for gradient in (*by_p, *by_q)
    )
    return GradientComparison(
        p_from=p_from,
        interchangeable=VERDICTS[p_from].interchangeable,
        why=VERDICTS[p_from].why,
        values=values,
        cross_entropy_by_q=cross_entropy_by_q,
        kl_by_q=kl_by_q,
        cross_entropy_by_p=cross_entropy_by_p,
        kl_by_p=kl_by_p,
        measured_error=error,
    )


def _gradients_by_q(pair: Pair) -> tuple[Array, Array]:
    """Of cross-entropy, through the softmax from its slope -p by log q; and of KL, q - p without cancellation."""
    xp, p, q = array_namespace(pair.p.p), pair.p.p, pair.q.p
    finite = _has_finite_kl(pair)
    through_softmax = q * xp.sum(p, axis=-1, keepdims=True) - p
    return _where_finite(finite, through_softmax), _where_finite(finite, pair.difference)


def _gradients_by_p(pair: Pair, values: Decomposition) -> tuple[Array, Array]:
    """Through the softmax, from the slopes by p: -log q of cross-entropy, log p - log q + 1 of KL."""
    finite = _has_finite_kl(pair)
    gradients = [
        pair.p.p * (slope - value[..., None])
        for slope, value in ((-pair.q.log_p, values.cross_entropy), (-pair.log_ratio, values.kl))
    ]
    return _where_finite(finite, gradients[0]), _where_finite(finite, gradients[1])


def _has_finite_kl(pair: Pair) -> Array:
    return ~array_namespace(pair.p.p).any(pair.p.possible & ~pair.q.possible, axis=-1, keepdims=True)


def _where_finite(finite: Array, gradient: Array) -> Array:
    xp = array_namespace(gradient)
    return xp.where(finite, gradient, xp.full_like(gradient, xp.nan))


def _measured_error(pair: Pair, loss: Callable[..., Array], by_p: Array, by_q: Array) -> float:
    """How far slopes of `loss` along a direction, by central differences, lie from those that gradients give."""
    xp = array_namespace(by_p)
    direction = xp.cos(xp.astype(xp.arange(by_p.shape[-1], device=device(by_p)), by_p.dtype))
    step = xp.finfo(by_p.dtype).eps ** (1 / 3)
    errors = []
    for move_p, move_q, gradient in ((step, 0.0, by_p), (0.0, step, by_q)):
        ahead, behind = (
            loss(
                Logits(pair.p.log + sign * move_p * direction),
                Logits(pair.q.log + sign * move_q * direction),
                validate=False,
            )
            for sign in (1, -1)
        )
        with np.errstate(invalid="ignore"):  # inf - inf
            error = on_host(abs((ahead - behind) / (2 * step) - xp.sum(gradient * direction, axis=-1)))
        errors += error[np.isfinite(error)].ravel().tolist()
    return float(max(errors, default=np.nan))


def _told(name: str, of_cross_entropy: Array, of_kl: Array, *, counts: bool) -> list[str]:
    """A line of the report about the gradients by one distribution's logits."""
    gradients = on_host(of_cross_entropy), on_host(of_kl)
    if np.isnan(gradients).any():
        return [
            f"by {name}'s logits: not finite: q rules out outcomes of p" + ("" if counts else ", and p does not move")
        ]
    largest = np.max(np.abs(gradients[0] - gradients[1]))
    equal = largest <= ROUNDINGS * np.finfo(gradients[0].dtype).eps
    shown = ""
    if gradients[0].ndim == 1 and gradients[0].size <= SHOWN:
        shown = "cross-entropy {}, KL {}; ".format(*map(_numbers, gradients))
    difference = "equal up to rounding" if equal else f"largest difference {largest:.3g}"
    return [f"by {name}'s logits: {shown}{difference}" + ("" if counts else ", and p does not move")]


def _numbers(gradient: Any) -> str:
    return np.array2string(np.round(gradient, 3) + 0.0, max_line_width=200)  # + 0.0: no negative zero


def _check_one_hot(form: Form) -> None:
    xp = array_namespace(form.p)
    soft = xp.sum(xp.astype(form.possible, xp.int32), axis=-1) > 1
    if bool(xp.any(soft)):
        index = first(soft)
        raise DistributionError(
            f'p{place(index)}: found a label with more than one possible outcome; wanted one-hot, or p_from="teacher"'
        )


def _fixed(distribution: Distribution) -> Distribution:
    return replace(distribution, values=detached(distribution.values))


def _broadcast(p: Distribution, q: Distribution, axis: int) -> tuple[Distribution, Distribution]:
    """Both with the rows of both, so that means of all parts are over the same rows; what does not fit is left."""
    if p.values.shape == q.values.shape:
        return p, q
    try:
        xp = array_namespace(p.values, q.values)
        both = xp.broadcast_arrays(*(xp.moveaxis(d.values, axis, -1) for d in (p, q)))
        if {d.values.shape[axis] for d in (p, q)} != {both[0].shape[-1]}:
            return p, q
    except (TypeError, ValueError, RuntimeError, IndexError):  # kl says better what is wrong
        return p, q
    values_p, values_q = (xp.moveaxis(values, -1, axis) for values in both)
    return replace(p, values=values_p), replace(q, values=values_q)
