"""Losses of classification and regression: cross-entropies and Gaussian likelihoods of what was observed.

What the numbers are is said by keyword, so that prediction and observation cannot change places. A training step wants
one number, so these reduce to the mean where `reduction` says nothing else. C outcomes.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from kilter.divergence.softmax import largest_and_excess, widened
from kilter.errors import DistributionError

Array = Any
Reduction = Literal["none", "mean", "sum"]


def cross_entropy_loss(
    *,
    logits: Array,
    labels: Array,
    class_weights: Array | None = None,
    ignore_index: int | None = -100,
    label_smoothing: float = 0.0,
    axis: int = -1,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Array:
    """Cross-entropy of labels under softmax(logits): -log q(label) for each row, in nats.

    `labels` are whole numbers of the shape of the rows. Rows labelled `ignore_index` count nothing, and their gradient
    is 0 whatever their logits. `label_smoothing` e moves that share of each label evenly onto all C outcomes (Szegedy
    et al. 2016, section 7). `class_weights` (C,) multiply the terms of the outcomes.

    `reduction`: "none" gives the rows' losses, "sum" adds them, and "mean" divides the sum by the rows' weights, sum_c
    p_c w_c with p the label as it was smoothed. So the mean of rows that all lose the same is just that.
    torch.nn.functional.cross_entropy agrees unless there are class weights and besides them smoothing (it
    divides by the weights of the labels as if they were not smoothed) or soft targets (it divides by the number of
    rows).

    Raises DistributionError for labels that name no outcome, for logits with NaN or inf, for a row that rules every
    outcome out, and for a mean over nothing; `validate=False` leaves out the checks that read the arrays.

    >>> logits = np.log([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]])
    >>> print(cross_entropy_loss(logits=logits, labels=np.array([0, 2]), reduction="none"))  # log 2, log 1.25
    [0.69314718 0.22314355]
    """
    xp = array_namespace(logits, labels)
    z = xp.moveaxis(widened(logits), axis, -1)
    labels = _labels_of_rows(labels, z)
    counted = xp.ones_like(labels, dtype=xp.bool) if ignore_index is None else labels != ignore_index
    z = xp.where(counted[..., None], z, xp.zeros_like(z))
    if validate:
        outcomes = z.shape[-1]
        good = ~counted | ((labels >= 0) & (labels < outcomes))
        _check("labels=", labels, good, f"outcomes from 0 to {outcomes - 1}, or ignore_index={ignore_index}")
        _check_logits(z)
    largest, excess = largest_and_excess(z, axis=-1)
    surprise_C = (largest - z) + excess  # -log q
    share = _smoothing(label_smoothing)
    weight_C = _class_weights(class_weights, z, validate=validate)
    label = xp.where(counted, labels, xp.zeros_like(labels))[..., None]
    weight = xp.take(weight_C, xp.reshape(label, (-1,)), axis=0)
    weight = (1 - share) * xp.reshape(weight, label.shape[:-1])
    loss = _product(weight, xp.take_along_axis(surprise_C, label, axis=-1)[..., 0])
    if share:
        loss = loss + share * xp.mean(_product(weight_C, surprise_C), axis=-1)
        weight = weight + share * xp.mean(weight_C)
    weight = xp.where(counted, weight, xp.zeros_like(weight))
    return _reduced(xp.where(counted, loss, xp.zeros_like(loss)), reduction, weight, validate=validate)


def binary_cross_entropy(
    *,
    labels: Array,
    logits: Array | None = None,
    probs: Array | None = None,
    positive_weight: float = 1.0,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Array:
    """-y log p - (1 - y) log(1 - p) for each label y, with p = 1 / (1 + exp(-logit)), in nats.

    Each element is a row of its own. `labels` lie between 0 and 1; exactly one of `logits` and `probs` is given. Logits
    are the safer: log(1 + exp(-logit)) neither overflows nor loses digits, and its gradient p - y never vanishes while
    the prediction is wrong. From `probs`, what was ruled out and happened costs inf (torch's binary_cross_entropy says
    100). `positive_weight` multiplies the first term; the mean is over the number of labels.

    Raises DistributionError for labels or probabilities outside [0, 1] and for NaN.

    >>> print(round(float(binary_cross_entropy(labels=1, logits=2.0)), 6))  # -log(0.880797)
    0.126928
    """
    if (logits is None) == (probs is None):
        found = "neither" if logits is None else "both"
        raise DistributionError(f"binary_cross_entropy found {found} of logits= and probs=; give one of them")
    y, given = _elements(labels, probs if logits is None else logits)
    _check_paired("labels=", y, "probs=" if logits is None else "logits=", given)
    xp = array_namespace(y)
    if validate:
        _check("labels=", y, (y >= 0) & (y <= 1), "numbers from 0 to 1")
    if logits is None:
        if validate:
            _check("probs=", given, (given >= 0) & (given <= 1), "probabilities, from 0 to 1 (or say logits=)")
        # The inner `where` keeps the derivative at log 0 out of terms that are not there.
        with np.errstate(divide="ignore"):
            positive = -xp.log(xp.where(y > 0, given, xp.ones_like(given)))
            negative = -xp.log1p(-xp.where(y < 1, given, xp.zeros_like(given)))
    else:
        if validate:
            _check("logits=", given, ~xp.isnan(given), "numbers")
        zero = xp.zeros_like(given)
        positive, negative = xp.logaddexp(zero, -given), xp.logaddexp(zero, given)
    loss = positive_weight * _product(y, positive) + _product(1 - y, negative)
    return _reduced(loss, reduction, xp.ones_like(loss), validate=validate)


def gaussian_nll(
    *,
    values: Array,
    mean: Array,
    sd: Array | None = None,
    variance: Array | None = None,
    log_variance: Array | None = None,
    reduction: Reduction = "mean",
    validate: bool = True,
) -> Array:
    """-log density of `values` under Normal(mean, sd): ((x - mean)^2 / sd^2 + log sd^2 + log 2 pi) / 2, in nats.

    Each element is a row of its own. Exactly one of `sd`, `variance` and `log_variance` is given (a
    network that predicts its uncertainty should predict the last, which may be any number). Nothing is clamped, and the
    constant log(2 pi) / 2 is counted, so that values compare with those of other densities.

    Raises DistributionError for an sd or variance that is not positive, and for NaN.

    >>> print(round(float(gaussian_nll(values=3.0, mean=1.0, sd=2.0)), 6))  # (1 + log 4 + log 2 pi) / 2
    2.112086
    """
    spreads = {"sd": sd, "variance": variance, "log_variance": log_variance}
    given = [name for name, spread in spreads.items() if spread is not None]
    if len(given) != 1:
        found = " and ".join(f"{name}=" for name in given) or "none"
        raise DistributionError(f"gaussian_nll found {found}; give one of sd=, variance= and log_variance=")
    x, centre, spread = _elements(values, mean, spreads[given[0]])
    _check_paired("values=", x, "mean=", centre)
    xp = array_namespace(x)
    if validate:
        _check("values=", x, ~xp.isnan(x), "numbers")
        _check("mean=", centre, ~xp.isnan(centre), "numbers")
        lowest = -math.inf if given[0] == "log_variance" else 0
        good = (spread > lowest) & (spread < math.inf)
        _check(f"{given[0]}=", spread, good, "finite numbers" if lowest else "finite numbers above 0")
    sd, log_sd = _sd_and_its_log(given[0], spread)
    # The ratio first: squares of the two may overflow where the ratio does not.
    loss = ((x - centre) / sd) ** 2 / 2 + log_sd + math.log(2 * math.pi) / 2
    return _reduced(loss, reduction, xp.ones_like(loss), validate=validate)


def mean_squared_error(*, values: Array, mean: Array, reduction: Reduction = "mean", validate: bool = True) -> Array:
    """(x - mean)^2 for each element: the Gaussian likelihood's loss for a variance that is the same everywhere.

    With variance s: mean_squared_error = 2 s (gaussian_nll - log(2 pi s) / 2). So both have their minimum at
    the same mean, and gradients that differ by the factor 2 s; at s = 1/2 they are equal.

    Raises DistributionError for NaN.

    >>> x, mean = np.array([1.0, 4.0]), np.array([0.0, 2.0])
    >>> print(mean_squared_error(values=x, mean=mean))  # (1 + 4) / 2
    2.5
    >>> print(round(float(gaussian_nll(values=x, mean=mean, variance=0.5) - math.log(math.pi) / 2), 12))
    2.5
    """
    x, centre = _elements(values, mean)
    _check_paired("values=", x, "mean=", centre)
    xp = array_namespace(x)
    if validate:
        _check("values=", x, ~xp.isnan(x), "numbers")
        _check("mean=", centre, ~xp.isnan(centre), "numbers")
    loss = (x - centre) ** 2
    return _reduced(loss, reduction, xp.ones_like(loss), validate=validate)


def _product(weight: Array, value: Array) -> Array:
    """weight * value, and 0 where the weight is 0, also of inf."""
    xp = array_namespace(weight, value)
    weight, value = xp.broadcast_arrays(weight, value)
    return weight * xp.where(weight > 0, value, xp.zeros_like(value))


def _sd_and_its_log(name: str, spread: Array) -> tuple[Array, Array]:
    xp = array_namespace(spread)
    if name == "log_variance":
        return xp.exp(spread / 2), spread / 2
    return (spread, xp.log(spread)) if name == "sd" else (xp.sqrt(spread), xp.log(spread) / 2)


def _reduced(loss: Array, reduction: str, weight: Array, *, validate: bool) -> Array:
    """The losses of rows, which are weighted already, their sum, or that by the sum of their weights."""
    xp = array_namespace(loss)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return xp.sum(loss)
    if reduction != "mean":
        raise DistributionError(f'found reduction={reduction!r}; give one of "none", "mean", "sum"')
    total = xp.sum(weight)
    if validate and not total > 0:
        raise DistributionError(
            "found no row that counts, so there is no mean; leave such a batch out, or ask for a sum"
        )
    return xp.sum(loss) / total


def _elements(*values: Array) -> list[Array]:
    """Arrays and single numbers as arrays of one library, on one device, of one type of real floats."""
    arrays = [value for value in values if is_array_api_obj(value)] or [np.empty(0)]
    xp = array_namespace(*arrays)
    floats = [widened(array) for array in arrays if xp.isdtype(array.dtype, "real floating")]
    dtype = xp.result_type(*floats) if floats else xp.asarray(0.0).dtype
    return [
        xp.astype(value, dtype) if is_array_api_obj(value) else xp.asarray(value, dtype=dtype, device=device(arrays[0]))
        for value in values
    ]


def _smoothing(label_smoothing: float) -> float:
    if not 0 <= label_smoothing <= 1:
        raise DistributionError(f"found label_smoothing={label_smoothing}; give a share from 0 to 1")
    return label_smoothing


def _class_weights(class_weights: Array | None, z: Array, *, validate: bool) -> Array:
    xp = array_namespace(z)
    if class_weights is None:
        return xp.ones(z.shape[-1], dtype=z.dtype, device=device(z))
    if class_weights.shape != z.shape[-1:]:
        found = tuple(class_weights.shape)
        raise DistributionError(f"found class_weights of shape {found}; give one for each of {z.shape[-1]} outcomes")
    if validate:
        good = (class_weights >= 0) & (class_weights < xp.inf)
        _check("class_weights=", class_weights, good, "finite numbers that are not negative")
    return xp.astype(class_weights, z.dtype)


def _labels_of_rows(labels: Array, z: Array) -> Array:
    """Labels as indices, after a look at their type and shape."""
    xp = array_namespace(labels)
    if not xp.isdtype(labels.dtype, "integral"):
        raise DistributionError(f"found labels of {labels.dtype}; give the whole number of each row's outcome")
    if labels.shape != z.shape[:-1]:
        found, wanted = tuple(labels.shape), tuple(z.shape[:-1])
        raise DistributionError(f"found labels of shape {found}; the logits have rows of shape {wanted} (mind axis=)")
    return xp.astype(labels, xp.argmax(z, axis=-1).dtype)


def _check_logits(z: Array) -> None:
    xp = array_namespace(z)
    _check("logits=", z, z < xp.inf, "numbers, or -inf for an outcome that is ruled out")
    highest = xp.max(z, axis=-1)
    _check("the largest of logits=", highest, highest > -xp.inf, "an outcome that is not ruled out in every row")


def _check_paired(name: str, first: Array, other: str, second: Array) -> None:
    """Two shapes agree or one is a single number: (N,) beside (N, 1) would be N x N pairs."""
    if first.ndim and second.ndim and first.shape != second.shape:
        found = f"{name} of shape {tuple(first.shape)} and {other} of shape {tuple(second.shape)}"
        raise DistributionError(f"found {found}; give the two one shape")


def _check(name: str, values: Array, good: Array, wanted: str) -> None:
    """Raise, with the place of the first of `values` that is not good."""
    xp = array_namespace(values)
    if bool(xp.all(good)):
        return
    place = tuple(int(along[0]) for along in xp.nonzero(~good)) if good.ndim else ()
    where = f" at {list(place)}" if place else ""
    raise DistributionError(f"{name} found {float(values[place])}{where}; wanted {wanted}")
