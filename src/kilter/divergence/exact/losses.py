"""Losses of classification and regression: cross-entropies and Gaussian likelihoods of what was observed.

What the numbers are is said by keyword, so that prediction and observation cannot change places. They are plain arrays
of one library (NumPy, PyTorch, JAX), with gradients where the array has them. A training step wants one number, so the
mean is taken where `reduction` says nothing else. C outcomes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, TypedDict, Unpack

import numpy as np
from array_api_compat import device, is_array_api_obj

from kilter.divergence.exact.distributions import Distribution, Logits, computed_in, first, on_host, place
from kilter.divergence.exact.forms import form_of
from kilter.divergence.exact.rows import Reduction, RowOptions, Unit, check_options, common_namespace
from kilter.divergence.namespaces import array_namespace
from kilter.errors import DistributionError

Array = Any


class LossOptions(TypedDict, total=False):
    """What every loss takes by keyword.

    - `mask`: which rows count, boolean. Others are neither looked at nor validated; their loss is 0, and so is its
      gradient, whatever their numbers.
    - `weights`: of the rows, for the reductions "mean" (by the sum of the weights) and "sum"; none negative.
    - `reduction`: "mean" (the default) over the rows that count, never over outcomes; "sum"; or "none", a loss a row.
    - `unit`: "nats" (the default) or "bits".
    - `validate`: False skips the checks that read the arrays (within `jax.jit` they cannot be made).
    """

    mask: Array | None
    weights: Array | None
    reduction: Reduction
    unit: Unit
    validate: bool


def log_softmax(logits: Array, *, axis: int = -1, validate: bool = True) -> Array:
    """The log-probabilities that logits stand for: z - m - log(sum exp(z - m)), with m the largest of them.

    Without m, exp overflows where a logit is above 709 (in float32, 88). The largest itself is left out of the sum, and
    its logarithm is log1p of the others; so the log-prob of a nearly certain outcome keeps its digits, too. A logit of
    -inf is an outcome that is ruled out. bf16 and fp16 are computed, and returned, in float32.

    Raises DistributionError for rows with NaN or inf, and rows that rule out everything.

    >>> z = np.array([1000.0, 990.0])
    >>> with np.errstate(over="ignore", invalid="ignore"):
    ...     print(np.log(np.exp(z) / np.exp(z).sum()))
    [nan nan]
    >>> print(log_softmax(z))
    [-4.53988992e-05 -1.00000454e+01]
    """
    distribution = Logits(logits)
    rows = _rows(distribution, axis)
    if validate:
        distribution.validate(rows, "given")
    return array_namespace(rows).moveaxis(form_of(distribution, rows).log, -1, axis)


def cross_entropy_loss(
    *,
    logits: Array,
    labels: Array | Distribution,
    class_weights: Array | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    axis: int = -1,
    **options: Unpack[LossOptions],
) -> Array:
    """Cross-entropy H(p, q) of labels p under q = softmax(logits); for a label that is one outcome, -log q(label).

    `labels` are whole numbers of the shape of the rows (those that are `ignore_index` do not count, as by `mask`), or
    soft targets: a `Distribution` of the logits' shape. `label_smoothing` moves that share of each label evenly onto
    all C outcomes (Szegedy et al. 2016, section 7). `class_weights` (C,) multiply the terms of the outcomes.

    The mean is that of the rows weighted by sum_c w_c p_c, with p as it was smoothed: the mean of rows that all lose
    the same is just that, and a label and its one-hot distribution lose the same. torch.nn.functional.cross_entropy
    agrees unless it has class weights and either smoothing (it divides as if nothing had been smoothed) or soft targets
    (it divides by the number of rows).

    Raises DistributionError for labels that name no outcome, for logits and targets that are no distributions, and
    for a mean over nothing.

    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> print(cross_entropy_loss(logits=logits, labels=np.array([0, 2]), reduction="none"))  # log 2, log 1.25
    [0.69314718 0.22314355]
    """
    rows, unit = _settings(options)
    prediction = Logits(logits)
    z = _rows(prediction, axis)
    xp = array_namespace(z)
    keep = rows.kept(z)
    if not isinstance(labels, Distribution):
        labels, counted = _indices(labels, z, ignore_index, keep, validate=rows.validate)
        keep = counted if ignore_index is not None else keep
    z = z if keep is None else xp.where(keep[..., None], z, xp.zeros_like(z))
    if rows.validate:
        prediction.validate(z, "given")
    surprise_C = -form_of(prediction, z).log
    weight_C = _class_weights(class_weights, z, validate=rows.validate)
    share = _share(label_smoothing)
    if isinstance(labels, Distribution):
        target_C = _soft(labels, z, axis, keep, validate=rows.validate)
        weight_C = weight_C * ((1 - share) * target_C + share / z.shape[-1])
        loss, weight = xp.sum(_product(weight_C, surprise_C), axis=-1), xp.sum(weight_C, axis=-1)
    else:
        weight = xp.reshape(xp.take(weight_C, xp.reshape(labels, (-1,)), axis=0), labels.shape)
        loss = _product(weight, xp.take_along_axis(surprise_C, labels[..., None], axis=-1)[..., 0])
        if share:
            spread = xp.mean(_product(weight_C, surprise_C), axis=-1)
            loss, weight = (1 - share) * loss + share * spread, (1 - share) * weight + share * xp.mean(weight_C)
    if class_weights is None or rows.reduction != "mean":
        return rows.reduce(loss, keep, unit, _why)
    total = replace(rows, reduction="sum")
    whole = total.reduce(weight, keep, "nats", _why)
    if rows.validate and not bool(whole > 0):
        raise DistributionError("found no row that counts (by labels, mask and weights); wanted some to take a mean of")
    return total.reduce(loss, keep, unit, _why) / whole


def binary_cross_entropy(
    *,
    labels: Array,
    logits: Array | None = None,
    probs: Array | None = None,
    positive_weight: float = 1.0,
    **options: Unpack[LossOptions],
) -> Array:
    """-y log p - (1 - y) log(1 - p) for each label y, with p = 1 / (1 + exp(-logit)).

    Each element is a row of its own. `labels` lie between 0 and 1; exactly one of `logits` and `probs` is given. Logits
    are the safer: log(1 + exp(-logit)) neither overflows nor loses digits, and its gradient p - y never vanishes while
    the prediction is wrong. From `probs`, what was ruled out and happened costs inf (torch's binary_cross_entropy says
    100). `positive_weight` multiplies the first term; the mean is over the number of labels, as in torch.

    Raises DistributionError for labels or probabilities outside [0, 1], for NaN, and for labels of another shape.

    >>> print(round(float(binary_cross_entropy(labels=1, logits=2.0)), 6))  # -log(0.880797)
    0.126928
    """
    if (logits is None) == (probs is None):
        found = "neither" if logits is None else "both"
        raise DistributionError(f"found {found} of logits= and probs=; give one of them")
    if not 0 < positive_weight < math.inf:
        raise DistributionError(f"found positive_weight={positive_weight}; give a finite number above 0")
    name = "probs" if logits is None else "logits"
    rows, unit = _settings(options)
    keep, y, given = _elements({"labels": labels, name: probs if logits is None else logits}, rows)
    xp = array_namespace(y)
    if rows.validate:
        _check("labels", y, (y >= 0) & (y <= 1), "numbers from 0 to 1")
        good = ~xp.isnan(given) if name == "logits" else (given >= 0) & (given <= 1)
        _check(name, given, good, "numbers" if name == "logits" else "probabilities, from 0 to 1 (or say logits=)")
    # An inner `where` keeps what is infinite, and its derivative, out of terms that are not there.
    if name == "logits":
        zero = xp.zeros_like(given)
        positive = xp.logaddexp(zero, -xp.where(y > 0, given, zero))
        negative = xp.logaddexp(zero, xp.where(y < 1, given, zero))
    else:
        with np.errstate(divide="ignore"):  # log 0
            positive = -xp.log(xp.where(y > 0, given, xp.ones_like(given)))
            negative = -xp.log1p(-xp.where(y < 1, given, xp.zeros_like(given)))
    return rows.reduce(positive_weight * y * positive + (1 - y) * negative, keep, unit, _why)


def gaussian_nll(
    *,
    values: Array,
    mean: Array,
    sd: Array | None = None,
    variance: Array | None = None,
    log_variance: Array | None = None,
    **options: Unpack[LossOptions],
) -> Array:
    """-log density of `values` under Normal(mean, sd): ((x - mean)^2 / sd^2 + log sd^2 + log 2 pi) / 2.

    Each element is a row of its own. Exactly one of `sd`, `variance` and `log_variance` is given, for each element or
    as one number for all. (A network that predicts its uncertainty should predict the last, which may be any number.)
    Nothing is clamped, and the constant log(2 pi) / 2 is counted, so that values compare with those of other densities.

    Raises DistributionError for an sd or variance that is not positive, for NaN, and for shapes that differ.

    >>> print(round(float(gaussian_nll(values=3.0, mean=1.0, sd=2.0)), 6))  # (1 + log 4 + log 2 pi) / 2
    2.112086
    """
    spreads = {"sd": sd, "variance": variance, "log_variance": log_variance}
    names = [name for name, spread in spreads.items() if spread is not None]
    if len(names) != 1:
        found = " and ".join(f"{name}=" for name in names) or "none"
        raise DistributionError(f"found {found} of sd=, variance= and log_variance=; give one of them")
    (name,) = names
    rows, unit = _settings(options)
    keep, x, centre, spread = _elements({"values": values, "mean": mean, name: spreads[name]}, rows)
    if rows.validate:
        _check_numbers(values=x, mean=centre)
        good = (spread > (-math.inf if name == "log_variance" else 0)) & (spread < math.inf)
        _check(name, spread, good, "finite numbers" + " above 0" * (name != "log_variance"))
    deviation, log_sd = _deviation(name, spread)
    # The ratio first: the squares of its parts may overflow where its own does not.
    nll = ((x - centre) / deviation) ** 2 / 2 + log_sd + math.log(2 * math.pi) / 2
    return rows.reduce(nll, keep, unit, _why)


def mean_squared_error(*, values: Array, mean: Array, **options: Unpack[LossOptions]) -> Array:
    """(x - mean)^2 for each element: the loss of a Gaussian likelihood whose variance is the same everywhere.

    With variance s it is 2 s (gaussian_nll - log(2 pi s) / 2). So both have their minimum at the same mean, and
    gradients that differ by the factor 2 s: at s = 1/2 they are equal. It is in squares of the values' unit: no `unit`.

    Raises DistributionError for NaN and for shapes that differ.

    >>> x, mean = np.array([1.0, 4.0]), np.array([0.0, 2.0])
    >>> print(mean_squared_error(values=x, mean=mean))  # (1 + 4) / 2
    2.5
    >>> print(round(float(gaussian_nll(values=x, mean=mean, variance=0.5) - math.log(math.pi) / 2), 12))
    2.5
    """
    if "unit" in options:
        raise DistributionError(f"found unit={options['unit']!r}; a squared error has the unit of its values, squared")
    rows, unit = _settings(options)
    keep, x, centre = _elements({"values": values, "mean": mean}, rows)
    if rows.validate:
        _check_numbers(values=x, mean=centre)
    return rows.reduce((x - centre) ** 2, keep, unit, _why)


def _settings(options: LossOptions) -> tuple[RowOptions, Unit]:
    check_options(options, LossOptions)
    known = {name: value for name, value in options.items() if name != "unit"}
    return RowOptions(**{"reduction": "mean", **known}), options.get("unit", "nats")  # type: ignore[arg-type]


def _why(index: tuple[int, ...]) -> str:
    raise AssertionError("a loss is not asked to raise where it is infinite")


def _rows(distribution: Distribution, axis: int) -> Array:
    """The numbers in the type of computation, outcomes along the last axis."""
    values = distribution.along(axis)
    xp = array_namespace(values)
    return xp.astype(values, computed_in(xp, values.dtype), copy=False)


def _product(weight: Array, value: Array) -> Array:
    """weight * value, and 0 where the weight is 0, also of inf."""
    xp = array_namespace(weight, value)
    weight, value = xp.broadcast_arrays(weight, value)
    return weight * xp.where(weight > 0, value, xp.zeros_like(value))


def _deviation(name: str, spread: Array) -> tuple[Array, Array]:
    """Standard deviation and its logarithm, from what was given."""
    xp = array_namespace(spread)
    if name == "log_variance":
        return xp.exp(spread / 2), spread / 2
    return (spread, xp.log(spread)) if name == "sd" else (xp.sqrt(spread), xp.log(spread) / 2)


def _elements(given: dict[str, Array], rows: RowOptions) -> list[Array]:
    """The mask, and the arrays or numbers that were given as arrays of one library, device, type of floats and shape.

    A single number goes with everything. Other shapes must agree: (N,) beside (N, 1) would be N x N pairs.
    """
    arrays = [value for value in given.values() if is_array_api_obj(value)] or [np.empty((), np.float64)]
    xp = common_namespace(arrays, given)
    floats = [array for array in arrays if xp.isdtype(array.dtype, "real floating")]
    dtype = computed_in(xp, xp.result_type(*floats)) if floats else computed_in(xp, xp.int64)
    elements = {
        name: xp.astype(value, dtype)
        if is_array_api_obj(value)
        else xp.asarray(value, dtype=dtype, device=device(arrays[0]))
        for name, value in given.items()
    }
    shapes = {name: tuple(value.shape) for name, value in elements.items() if value.ndim}
    if len(set(shapes.values())) > 1:
        found = " and ".join(f"{name} of shape {shape}" for name, shape in shapes.items())
        raise DistributionError(f"found {found}; wanted one shape")
    together = list(xp.broadcast_arrays(*elements.values()))
    keep = rows.kept(together[0][..., None])
    if keep is not None:
        # 1 is a label, a probability, a logit, a value, a mean and a spread; and it costs nothing that is infinite.
        together = [xp.where(keep, value, xp.ones_like(value)) for value in together]
    return [keep, *together]


def _indices(
    labels: Array, z: Array, ignore_index: int | None, keep: Array | None, *, validate: bool
) -> tuple[Array, Array]:
    """Labels as indices, 0 where a row does not count, and which rows do."""
    xp = array_namespace(z)
    labels = xp.asarray(labels, device=device(z))
    if not xp.isdtype(labels.dtype, "integral"):
        wanted = "the whole number of each row's outcome, or soft targets in a wrapper: Probs(...), Logits(...)"
        raise DistributionError(f"found labels of type {labels.dtype}; wanted {wanted}")
    if labels.shape != z.shape[:-1]:
        found, rows = tuple(labels.shape), tuple(z.shape[:-1])
        raise DistributionError(f"found labels of shape {found}; wanted that of the rows of logits, {rows}")
    labels = xp.astype(labels, xp.argmax(z, axis=-1).dtype)
    counted = xp.ones_like(labels, dtype=xp.bool) if keep is None else keep
    counted = counted if ignore_index is None else counted & (labels != ignore_index)
    if validate:
        good = ~counted | ((labels >= 0) & (labels < z.shape[-1]))
        ignored = "" if ignore_index is None else f", or ignore_index ({ignore_index})"
        _check("labels", labels, good, f"outcomes from 0 to {z.shape[-1] - 1}{ignored}")
    return xp.where(counted, labels, xp.zeros_like(labels)), counted


def _soft(labels: Distribution, z: Array, axis: int, keep: Array | None, *, validate: bool) -> Array:
    """The probabilities of soft targets."""
    target = _rows(labels, axis)
    xp = common_namespace([z, target], {"logits": z, "labels": labels})
    if target.shape != z.shape:
        found = f"labels of shape {tuple(target.shape)} and logits of shape {tuple(z.shape)}"
        raise DistributionError(f"found {found}; wanted one shape")
    if keep is not None:
        target = xp.where(keep[..., None], target, xp.full_like(target, labels.filler(target.shape[-1])))
    if validate:
        labels.validate(target, "as labels")
    return form_of(labels, target).p


def _share(label_smoothing: float) -> float:
    if not 0 <= label_smoothing <= 1:
        raise DistributionError(f"found label_smoothing={label_smoothing}; wanted a share from 0 to 1")
    return label_smoothing


def _class_weights(class_weights: Array | None, z: Array, *, validate: bool) -> Array:
    xp = array_namespace(z)
    if class_weights is None:
        return xp.ones(z.shape[-1], dtype=z.dtype, device=device(z))
    weights = xp.asarray(class_weights, dtype=z.dtype, device=device(z))
    if weights.shape != z.shape[-1:]:
        raise DistributionError(
            f"found class_weights of shape {tuple(weights.shape)}; wanted one for each of {z.shape[-1]} outcomes"
        )
    if validate:
        good = (weights >= 0) & (weights < math.inf)
        _check("class_weights", weights, good, "finite numbers, none negative")
    return weights


def _check_numbers(**arrays: Array) -> None:
    for name, values in arrays.items():
        _check(name, values, values == values, "numbers")


def _check(name: str, values: Array, good: Array, wanted: str) -> None:
    """Raise DistributionError, with the first of `values` that is not good and its place."""
    if bool(array_namespace(good).all(good)):
        return
    index = first(~good)
    where = place(index).replace("row", "outcome") if name == "class_weights" else place(index)
    raise DistributionError(f"{name}{where}: found {on_host(values[index]):.9g}; wanted {wanted}")
