"""All that there is to say of two distributions of families at once, in nats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from kilter.divergence.families import closed_forms, quadrature
from kilter.divergence.families.objects import family_of
from kilter.errors import DistributionError

# By name: the closed form, and what integrates it where there is none.
_QUANTITIES: dict[str, tuple[Callable[..., Any] | None, Callable[..., Any]]] = {
    "entropy": (closed_forms.entropy, quadrature.entropy),
    "cross_entropy": (closed_forms.cross_entropy, quadrature.cross_entropy),
    "kl": (closed_forms.kl, quadrature.kl),
    "js": (None, quadrature.js),
    "total_variation": (None, quadrature.total_variation),
    "hellinger": (closed_forms.hellinger, quadrature.hellinger),
}

_BOUNDED = ("js", "total_variation", "hellinger")


class Measured(NamedTuple):
    """A quantity in nats, and a bound on its error where it was integrated or summed up (None: by a closed form)."""

    value: float
    error: float | None


def describe(p: Any, q: Any) -> dict[str, float]:
    """Entropies, cross-entropy and divergences of two distributions of one number, by name, in nats.

    The names are `entropy_p`, `entropy_q`, `cross_entropy`, `kl`, `reverse_cross_entropy`, `reverse_kl`, `js`,
    `total_variation` and `hellinger`; a closed form is taken where there is one, else quadrature to about ten digits.
    `p` and `q` are families, mixtures, densities, or distributions of SciPy or PyTorch.

    >>> from kilter.divergence.families import Normal
    >>> {name: round(value, 4) for name, value in describe(Normal(0, 1), Normal(1, 1)).items()}
    {'entropy_p': 1.4189, 'entropy_q': 1.4189, 'cross_entropy': 1.9189, 'kl': 0.5, 'reverse_cross_entropy': 1.9189, \
'reverse_kl': 0.5, 'js': 0.1114, 'total_variation': 0.3829, 'hellinger': 0.3428}
    """
    p, q = family_of(p), family_of(q)
    return {
        "entropy_p": quantity("entropy", p).value,
        "entropy_q": quantity("entropy", q).value,
        "cross_entropy": quantity("cross_entropy", p, q).value,
        "kl": quantity("kl", p, q).value,
        "reverse_cross_entropy": quantity("cross_entropy", q, p).value,
        "reverse_kl": quantity("kl", q, p).value,
        "js": quantity("js", p, q).value,
        "total_variation": quantity("total_variation", p, q).value,
        "hellinger": quantity("hellinger", p, q).value,
    }


def quantity(name: str, *of: Any) -> Measured:
    """One of them by its name: `entropy` of a distribution, or `kl`, `cross_entropy`, `js`, ... of two.

    By a closed form where there is one, else by quadrature. Raises DistributionError for what comes to no number.
    """
    closed, integrated = _QUANTITIES[name]
    if closed is not None and closed_forms.has_closed_form(name, *of):
        found = Measured(float(closed(*of)) + 0.0, None)  # -0.0 becomes 0.0
    else:
        by_quadrature = integrated(*of)
        found = Measured(float(by_quadrature.value) + 0.0, by_quadrature.error)
    if math.isnan(found.value) or (math.isinf(found.value) and name in _BOUNDED):
        raise DistributionError(
            f"{name.replace('_', ' ')} overflows; measure in a unit that brings the parameters nearer to 1"
        )
    return found
