"""All that there is to say of two distributions of families at once, in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kilter.divergence.families import closed_forms, quadrature
from kilter.divergence.families.objects import family_of

# By name: the closed form, and what integrates it where there is none.
_QUANTITIES: dict[str, tuple[Callable[..., Any] | None, Callable[..., Any]]] = {
    "entropy": (closed_forms.entropy, quadrature.entropy),
    "cross_entropy": (closed_forms.cross_entropy, quadrature.cross_entropy),
    "kl": (closed_forms.kl, quadrature.kl),
    "js": (None, quadrature.js),
    "total_variation": (None, quadrature.total_variation),
    "hellinger": (closed_forms.hellinger, quadrature.hellinger),
}


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
        "entropy_p": quantity("entropy", p),
        "entropy_q": quantity("entropy", q),
        "cross_entropy": quantity("cross_entropy", p, q),
        "kl": quantity("kl", p, q),
        "reverse_cross_entropy": quantity("cross_entropy", q, p),
        "reverse_kl": quantity("kl", q, p),
        "js": quantity("js", p, q),
        "total_variation": quantity("total_variation", p, q),
        "hellinger": quantity("hellinger", p, q),
    }


def quantity(name: str, *of: Any) -> float:
    """One of them by its name: `entropy` of a distribution, or `kl`, `cross_entropy`, `js`, ... of two."""
    closed, integrated = _QUANTITIES[name]
    if closed is not None and closed_forms.has_closed_form(name, *of):
        return float(closed(*of))
    return float(integrated(*of).value)
