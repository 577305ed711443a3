"""What all exact functions do with rows alike: which axis, which rows count, what a mean is, and infinite results."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from array_api_compat import device

from kilter.divergence.exact.distributions import Distribution, Smooth, computed_in, detached, first, on_host, place
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any
Unit = Literal["nats", "bits"]
Reduction = Literal["none", "mean", "sum"]
Support = Literal["exact", "raise"] | Smooth

NATS: dict[str, float] = {"nats": 1.0, "bits": math.log(2)}
REDUCTIONS = ("none", "mean", "sum")


class Options(TypedDict, total=False):
    """What every exact function takes by keyword.

    - `axis`: the axis of p and of q along which the outcomes lie; the last by default.
    - `mask`: which rows count, boolean, of the rows' shape. Others are neither looked at nor validated; their result
      is 0.
    - `weights`: of the rows, for `reduction="mean"` and `"sum"`; none negative.
    - `reduction`: over rows, never over outcomes. "none" (the default) gives one value for each row, "mean" their
      weighted mean over the rows that count, "sum" their weighted sum.
    - `support`: "exact" (the default) is mathematics: 0 log 0 = 0, and inf where that is the value. "raise" raises
      DistributionError where a row's value is infinite. `Smooth(amount)` mixes p and q with the uniform distribution.
    - `validate`: False skips the check that the numbers are distributions (within `jax.jit` it cannot be made).
    """

    axis: int
    mask: Array | None
    weights: Array | None
    reduction: Reduction
    support: Support
    validate: bool


@dataclass(frozen=True)
class RowOptions:
    """`Options`, checked and with their defaults."""

    axis: int = -1
    mask: Array | None = None
    weights: Array | None = None
    reduction: Reduction = "none"
    support: Support = "exact"
    validate: bool = True

    def __post_init__(self) -> None:
        if self.reduction not in REDUCTIONS:
            raise DistributionError(f"found reduction={self.reduction!r}; wanted one of {', '.join(REDUCTIONS)}")
        if self.support not in ("exact", "raise") and not isinstance(self.support, Smooth):
            raise DistributionError(f"found support={self.support!r}; wanted 'exact', 'raise' or Smooth(amount)")
        if self.weights is not None and self.reduction == "none":
            raise DistributionError(
                "found weights with reduction='none', where they do nothing; wanted 'mean' or 'sum'"
            )

    @classmethod
    def of(cls, options: Options) -> RowOptions:
        """Raises DistributionError for a name that is no option."""
        check_options(options, Options)
        return cls(**options)

    @property
    def smoothing(self) -> float:
        return self.support.amount if isinstance(self.support, Smooth) else 0.0

    def read(self, distributions: dict[str, Distribution], *, as_they_are: bool = False) -> list[Array]:
        """Validated rows of numbers of one library, shape and type; rows that do not count are replaced.

        as_they_are: neither looked at nor replaced, and in their own type.
        """
        raw = [distribution.along(self.axis) for distribution in distributions.values()]
        xp = common_namespace(raw, distributions)
        counts = {name: rows.shape[-1] for name, rows in zip(distributions, raw, strict=True)}
        if len(set(counts.values())) > 1:
            found = " and ".join(f"{n} outcomes in {name}" for name, n in counts.items())
            raise DistributionError(f"found {found}; wanted the same outcomes, in the same order")
        try:
            raw = list(xp.broadcast_arrays(*raw)) if len({rows.shape for rows in raw}) > 1 else raw
        except (RuntimeError, ValueError) as error:
            shapes = " and ".join(
                f"{name} of shape {tuple(rows.shape)}" for name, rows in zip(counts, raw, strict=True)
            )
            raise DistributionError(f"found {shapes}; wanted rows that go together") from error
        if as_they_are:
            return raw
        dtype = xp.result_type(*(computed_in(xp, rows.dtype) for rows in raw))
        raw = [xp.astype(rows, dtype, copy=False) for rows in raw]
        keep = self.kept(raw[0])
        result = []
        for (name, distribution), rows in zip(distributions.items(), raw, strict=True):
            if keep is not None:
                rows = xp.where(keep[..., None], rows, xp.full_like(rows, distribution.filler(rows.shape[-1])))
            if self.validate:
                distribution.validate(rows, name)
            result.append(rows)
        return result

    def kept(self, rows: Array) -> Array | None:
        """The mask, as an array of the library and shape of the rows."""
        if self.mask is None:
            return None
        xp = array_namespace(rows)
        mask = xp.asarray(self.mask, device=device(rows))
        if not xp.isdtype(mask.dtype, "bool") or tuple(mask.shape) != tuple(rows.shape[:-1]):
            found = f"a mask of type {mask.dtype} and shape {tuple(mask.shape)}"
            raise DistributionError(f"found {found}; wanted booleans of the rows' shape, {tuple(rows.shape[:-1])}")
        return mask

    def reduce(self, values: Array, keep: Array | None, unit: str, explain: Callable[[tuple[int, ...]], str]) -> Array:
        """Values of rows in nats, as they were asked for; `explain` says why a row is infinite."""
        if unit not in NATS:
            raise DistributionError(f"found unit={unit!r}; wanted one of {', '.join(NATS)}")
        xp = array_namespace(values)
        values = values / NATS[unit] if unit != "nats" else values
        values = values if keep is None else xp.where(keep, values, xp.zeros_like(values))
        if self.support == "raise" and bool(xp.any(xp.isinf(detached(values)))):
            index = first(xp.isinf(detached(values)))
            wanted = "take support=Smooth(amount), or support='exact' for inf"
            raise DistributionError(f"found an infinite value{place(index)}: {explain(index)}; {wanted}")
        return values if self.reduction == "none" else self._total(values, keep)

    def _total(self, values: Array, keep: Array | None) -> Array:
        xp = array_namespace(values)
        if self.weights is None and keep is None:
            if self.reduction == "mean" and 0 in values.shape:
                raise DistributionError("found no rows; wanted some to take a mean of")
            return xp.mean(values) if self.reduction == "mean" else xp.sum(values)
        weights = xp.ones_like(detached(values)) if self.weights is None else self._row_weights(values)
        weights = weights if keep is None else xp.where(keep, weights, xp.zeros_like(weights))
        # A row of weight 0 counts nothing, also where its value is infinite.
        total = xp.sum(weights * xp.where(weights != 0, values, xp.zeros_like(values)))
        if self.reduction == "sum":
            return total
        whole = xp.sum(weights)
        if self.validate and not bool(detached(whole) > 0):
            raise DistributionError("found no row that counts (by mask and weights); wanted some to take a mean of")
        return total / whole

    def _row_weights(self, values: Array) -> Array:
        xp = array_namespace(values)
        weights = xp.asarray(self.weights, device=device(values))
        if tuple(weights.shape) != tuple(values.shape):
            found = f"weights of shape {tuple(weights.shape)}"
            raise DistributionError(f"found {found}; wanted one for each row, {tuple(values.shape)}")
        weights = xp.astype(weights, values.dtype, copy=False)
        bad = ~(xp.isfinite(detached(weights)) & (detached(weights) >= 0))
        if self.validate and bool(xp.any(bad)):
            index = first(bad)
            raise DistributionError(
                f"found weight {on_host(weights[index])}{place(index)}; wanted finite ones, none negative"
            )
        return weights


def check_options(options: Mapping[str, Any], known: type) -> None:
    """Raise DistributionError for a name that the TypedDict `known` has not."""
    unknown = [name for name in options if name not in known.__annotations__]
    if unknown:
        instead = "; a unit is for entropies and divergences in nats" if unknown[0] == "unit" else ""
        raise DistributionError(
            f"found the option {unknown[0]!r}; wanted one of {', '.join(known.__annotations__)}{instead}"
        )


def common_namespace(rows: list[Array], names: dict[str, Distribution]) -> Any:
    """The library that all arrays are of."""
    try:
        return array_namespace(*rows)
    except TypeError as error:
        kinds = " and ".join(f"{type(x).__module__}.{type(x).__name__}" for x in rows)
        raise DistributionError(f"found {kinds} for {' and '.join(names)}; wanted arrays of one library") from error
