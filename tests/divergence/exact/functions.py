"""The exact functions of two distributions that have gradients, by the names that tests know them by."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from kilter import divergence as dv

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "cross_entropy": dv.cross_entropy,
    "kl": dv.kl,
    "jeffreys": dv.jeffreys,
    "js": dv.js,
    "js(0.1)": partial(dv.js, weight=0.1),
    "generalised_js(0.3)": partial(dv.generalised_js, weight=0.3),
    "renyi(0.5)": partial(dv.renyi, order=0.5),
    "renyi(2.5)": partial(dv.renyi, order=2.5),
    "alpha(-1.5)": partial(dv.alpha, order=-1.5),
    "alpha(0.3)": partial(dv.alpha, order=0.3),
    "alpha(3)": partial(dv.alpha, order=3),
    "tsallis(0.3)": partial(dv.tsallis, order=0.3),
    "total_variation": dv.total_variation,
    "hellinger": dv.hellinger,
    "chi2": dv.chi2,
    "bhattacharyya": dv.bhattacharyya,
    "wasserstein1": dv.wasserstein1,
}
