"""What can be asked of rows of logits: log-probs, entropy, the likeliest token, and divergences between two models.

A divergence is the sum over the vocabulary of h G(s), where h is the larger of the two probabilities of a token and
s = |log p - log q|. For an f-divergence sum q f(p / q), with f(1) = f'(1) = 0, G is f(exp(-s)) where q is the larger,
and f's adjoint t f(1 / t) at exp(-s) where p is (Liese and Vajda 2006, IEEE Trans. Inf. Theory 52, 4394). So no term is
negative or overflows, models that agree are at exactly 0, and an error of the normaliser, which moves all log-probs
alike, is felt in second order only: KL of 1e-6 nats is still right to several digits in float32.

Axes: N rows, M targets (a row may predict several tokens), V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from kilter import divergence


class Targets(NamedTuple):
    """The tokens whose log-probs are wanted: `id_M` in row `row_M`, sorted by row."""

    row_M: Tensor
    id_M: Tensor

    def within(self, rows: slice) -> tuple[slice, Targets]:
        """The targets of a slice of rows, counted from its start."""
        bounds = torch.searchsorted(self.row_M, self.row_M.new_tensor([rows.start, rows.stop])).tolist()
        part = slice(*bounds)
        return part, Targets(self.row_M[part] - rows.start, self.id_M[part])


class Rows:
    """Some rows' log-probs (N, V), and those of the model beside; what several functions need is formed once."""

    def __init__(self, log_p_NV: Tensor, log_q_NV: Tensor | None = None) -> None:
        self.log_p, self._log_q = log_p_NV, log_q_NV

    @property
    def log_q(self) -> Tensor:
        assert self._log_q is not None, "this function compares; give it a model beside"
        return self._log_q

    @cached_property
    def p(self) -> Tensor:
        return self.log_p.exp()

    @cached_property
    def q(self) -> Tensor:
        return self.log_q.exp()

    @cached_property
    def larger(self) -> Tensor:
        """The larger of both probabilities."""
        return torch.maximum(self.p, self.q)

    @cached_property
    def log_ratio(self) -> Tensor:
        """log p - log q: 0 where both rule a token out."""
        ratio = self.log_p - self.log_q
        if ratio.numel() and ratio.amax().isnan():
            both_out = self.log_p.isneginf() & self.log_q.isneginf()
            ratio = torch.where(both_out, 0, ratio)
        return ratio

    @cached_property
    def distance(self) -> Tensor:
        """|log p - log q|: inf where one rules a token out."""
        return self.log_ratio.abs()

    @cached_property
    def shrinkage(self) -> Tensor:
        """exp(-distance) - 1: how far the smaller probability falls short of the larger, as a share of it."""
        return torch.expm1(-self.distance)


class RowFunction(NamedTuple):
    """A function of a model's distributions: one value for each row, or for each target."""

    name: str
    value: Callable[[Rows, Targets], Tensor]
    per_target: bool = False


def _gather(log_p_NV: Tensor, targets: Targets) -> Tensor:
    return log_p_NV[targets.row_M, targets.id_M]


def _expectation(p_NV: Tensor, value_NV: Tensor) -> Tensor:
    """`divergence.expectation`, in a third of its passes while no outcome is ruled out."""
    plain = (p_NV * value_NV).sum(-1)
    return divergence.expectation(p_NV, value_NV) if plain.isnan().any() else plain


LOG_PROB = RowFunction("log_prob", lambda rows, targets: _gather(rows.log_p, targets), per_target=True)
# log sum_v p(v)^2: the log of the chance that two draws agree.
LOG_COLLISION = RowFunction("log_collision", lambda rows, _: rows.p.square().sum(-1).log())
ENTROPY = RowFunction("entropy", lambda rows, _: -_expectation(rows.p, rows.log_p))
REFERENCE_LOG_PROB = RowFunction(
    "reference log_prob", lambda rows, targets: _gather(rows.log_q, targets), per_target=True
)
REFERENCE_ENTROPY = RowFunction("reference entropy", lambda rows, _: -_expectation(rows.q, rows.log_q))
# The id of the likeliest token (on a CPU `max` finds it in a third of the time of `argmax`).
TOP = RowFunction("top", lambda rows, _: rows.log_p.max(-1).indices)
REFERENCE_TOP = RowFunction("reference top", lambda rows, _: rows.log_q.max(-1).indices)


# Above this many nats sum p (log p - log q) keeps four digits in float32.
DIFFERENCE_KEEPS = 2e-2

# Where a ratio is exp(60) or more, the smaller probability is nothing to the larger in any type of number.
LARGEST_LOG_RATIO = 60.0


def _kl(log_ratio: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q) from log p - log q: the plain sum for rows far enough apart, for the others `_near_kl`."""
    plain = (p * log_ratio).sum(-1)
    near = ~((plain > DIFFERENCE_KEEPS) & plain.isfinite())
    if not near.any():
        return plain
    if near.all():
        return _near_kl(log_ratio, p, q)
    (rows,) = near.nonzero(as_tuple=True)
    return plain.index_put((rows,), _near_kl(log_ratio[rows], p[rows], q[rows]))


def _near_kl(log_ratio: Tensor, p: Tensor, q: Tensor) -> Tensor:
    """KL(p, q), each term p (exp(d) - 1 - d) with d = log q - log p: never negative.

    The same as h G(s) of this module's docstring, in fewer passes. Beyond `LARGEST_LOG_RATIO` exp(d) is not formed; the
    term is q there.
    """
    if log_ratio.numel() == 0 or log_ratio.amin() >= -LARGEST_LOG_RATIO:
        terms = p * (torch.expm1(-log_ratio) + log_ratio)
    else:
        d = (-log_ratio).clamp(max=LARGEST_LOG_RATIO)
        terms = p * (torch.expm1(d) - d) + (q - math.exp(LARGEST_LOG_RATIO) * p).relu()
    return _total(terms, p, log_ratio.isposinf)


def _total(terms: Tensor, probability: Tensor, ruled_out: Callable[[], Tensor]) -> Tensor:
    """Their sum, at least 0: what a row that agrees has beside it is rounding.

    A probability that is 0 by rounding, not by -inf, times the infinity of a token that the other rules out, is inf.
    """
    total = terms.sum(-1)
    if total.isnan().any():
        total = torch.where((probability == 0) & ruled_out(), torch.inf, terms).sum(-1)
    return total.clamp(min=0)


# G(s) of the module's docstring, of a distance s and its shrinkage exp(-s) - 1.
Generator = Callable[[Tensor, Tensor], Tensor]


def _js(distance: Tensor, shrinkage: Tensor) -> Tensor:
    """(KL(p, m) + KL(q, m)) / 2 with m = (p + q) / 2, for h = 1 and a smaller probability r = exp(-s)."""
    ratio = 1 + shrinkage
    return -0.5 * ((1 + ratio) * torch.log1p(0.5 * shrinkage) + distance.clamp(max=100) * ratio)


def _alpha(order: float) -> Generator:
    return lambda distance, shrinkage: (torch.expm1(-order * distance) - order * shrinkage) / (order * (order - 1))


def _chi2_of_smaller(distance: Tensor, shrinkage: Tensor) -> Tensor:
    """(exp(-s) - 1)^2 exp(s)."""
    return -shrinkage * torch.expm1(distance)


def f_divergence(name: str, where_p_is_larger: Generator, where_q_is_larger: Generator | None = None) -> RowFunction:
    """The row function of an f-divergence by its two generators; one stands for both where it is symmetric."""

    def value(rows: Rows, _: Targets) -> Tensor:
        if where_q_is_larger is None:
            term = where_p_is_larger(rows.distance, rows.shrinkage)
        else:
            # Each side has a distance of 0 where it is the other's turn, which adds 0, and 0 to the gradient.
            above, below = rows.log_ratio.relu(), (-rows.log_ratio).relu()
            term = where_p_is_larger(above, torch.expm1(-above)) + where_q_is_larger(below, torch.expm1(-below))
        return _total(rows.larger * term, rows.larger, term.isposinf)

    return RowFunction(name, value)


def alpha_divergence(alpha: float) -> RowFunction:
    """sum q f(p / q) with f(t) = (t^alpha - alpha t - (1 - alpha)) / (alpha (alpha - 1)).

    At 1 it is KL(p, q), at 0 KL(q, p), at 1/2 four times the squared Hellinger distance, at 2 half of chi2(p, q).
    Raises ValueError where alpha is not finite. (Liese and Vajda 1987; Amari's order is 2 alpha - 1.)
    """
    if not math.isfinite(alpha):
        raise ValueError(f"alpha is {alpha}; expected a finite order")
    if alpha in (0, 1):
        return (KL_REFERENCE_POLICY, KL_POLICY_REFERENCE)[int(alpha)]
    return f_divergence(f"alpha({alpha:g})", _alpha(1 - alpha), _alpha(alpha))


KL_POLICY_REFERENCE = RowFunction("kl(policy, reference)", lambda rows, _: _kl(rows.log_ratio, rows.p, rows.q))
KL_REFERENCE_POLICY = RowFunction("kl(reference, policy)", lambda rows, _: _kl(-rows.log_ratio, rows.q, rows.p))

# The f-divergences by name; p is the policy and q the reference. `alpha_divergence` has those between and beyond.
DIVERGENCES: dict[str, RowFunction] = {
    "kl": KL_POLICY_REFERENCE,
    "reverse_kl": KL_REFERENCE_POLICY,
    # KL(p, q) + KL(q, p).
    "jeffreys": f_divergence("jeffreys", lambda distance, shrinkage: -distance * shrinkage),
    # Of base e: at most log 2.
    "js": f_divergence("js", _js),
    # sum |p - q| / 2.
    "total_variation": f_divergence("total_variation", lambda _, shrinkage: -0.5 * shrinkage),
    # sum (sqrt p - sqrt q)^2 / 2, at most 1.
    "squared_hellinger": f_divergence(
        "squared_hellinger", lambda distance, _: 0.5 * torch.expm1(-0.5 * distance).square()
    ),
    # sum (p - q)^2 / q.
    "chi2": f_divergence("chi2", _chi2_of_smaller, lambda _, shrinkage: shrinkage.square()),
    # sum (p - q)^2 / p.
    "reverse_chi2": f_divergence("reverse_chi2", lambda _, shrinkage: shrinkage.square(), _chi2_of_smaller),
}
