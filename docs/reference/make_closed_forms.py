"""Writes closed-forms.md beside this file, from the registry of pairs of families."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from kilter.divergence.families import FAMILIES, Family
from kilter.divergence.families.closed_forms import (
    BHATTACHARYYA_PAIRS,
    WASSERSTEIN2_PAIRS,
    entropy_formula,
    way_of_kl,
    within_family,
)
from kilter.divergence.families.multivariate import VECTOR_FAMILIES
from kilter.divergence.families.notation import signature
from kilter.divergence.families.objects import SCIPY, SCIPY_VECTORS, TORCH
from kilter.divergence.families.same_family import Pair

PAGE = Path(__file__).with_name("closed-forms.md")

TOP = """\
# Closed forms

<!-- Written by docs/reference/make_closed_forms.py from src/kilter/divergence/families/closed_forms.py. -->

`kilter.divergence.closed_forms` has `entropy(p)`, `cross_entropy(p, q)`, `kl(p, q)`, `bhattacharyya(p, q)`,
`hellinger(p, q)` and `wasserstein2(p, q)` of distributions of the families below, in nats. Parameters are numbers, or
arrays of NumPy, PyTorch or JAX, which broadcast; gradients are those of the array library. The first family listed is
written `normal(0,1)` on the command line and `Normal(0, 1)` in Python.

Every pair of densities of one number that has no closed form is integrated by `kilter.divergence.quadrature`, with the
error stated, and sums of probabilities are summed. A pair is never integrated unless asked for: the error of
`closed_forms` says that there is no closed form.
"""

KL = """\
## KL between different families

A row is p, and the columns say which q have KL(p, q) in closed form; for which q it is always inf, since q rules out
outcomes that p has; and which q are left to quadrature or summation. Other families of numbers cannot be compared: one
has a density and the other probabilities.
"""

VECTORS = """\
## Vectors

All pairs of normals have KL, Hellinger and W2, whatever the form of their covariances. None of them inverts a
covariance; KL takes no matrix larger than those that are given.
"""

MIXTURES = """\
## Mixtures

KL between mixtures of normals has no closed form. `kilter.divergence.kl_bounds(p, q)` gives a lower and an upper bound,
`kl_by_sampling(p, q, samples=..., random=...)` a Monte Carlo estimate with its standard error, and `entropy_bounds(p)`
bounds of the entropy. Of one dimension, quadrature takes mixtures too.
"""

OTHERS = """\
## Distributions of SciPy and PyTorch

Every function takes these as they are:

- `torch.distributions`: {torch};
- `scipy.stats`, frozen: {scipy}. Families without a place of their own need `loc=0`; `geom` needs `loc=-1`, since
  failures are counted here. Any other frozen continuous distribution is taken by quadrature.
"""


HEADS = ("family", "what it is", "entropy", "KL", "Hellinger", "W2")
PAIR_HEADS = ("p", "closed form", "always inf", "quadrature or summation")


def page() -> str:
    """The whole page."""
    numbers = list(FAMILIES.values())
    families = [_family(family, signature(family)) for family in numbers]
    sections = [
        TOP,
        "## Families of numbers\n\nThe last four columns say what has a closed form within the family.\n",
        _table(HEADS, families),
        KL,
        _table(PAIR_HEADS, [_row(family, numbers) for family in numbers]),
        VECTORS,
        _table(HEADS, [_family(family, _call(family)) for family in VECTOR_FAMILIES]),
        MIXTURES,
        OTHERS.format(
            torch=", ".join(f"`{name}`" for name in sorted(TORCH)),
            scipy=", ".join(f"`{name.removesuffix('_frozen')}`" for name in sorted([*SCIPY, "geom", *SCIPY_VECTORS])),
        ),
    ]
    return "\n".join(sections)


def _family(family: type[Family], written: str) -> tuple[str, ...]:
    what = " ".join((family.__doc__ or "").split("\n\n")[0].split()).replace("|", "\\|")
    way, equal = way_of_kl(family, family)
    return (
        f"`{written}`",
        what,
        "yes" if entropy_formula(family) else "",
        _same(equal) if way else "",
        _pair(within_family(BHATTACHARYYA_PAIRS, family)),
        _pair(within_family(WASSERSTEIN2_PAIRS, family)),
    )


def _pair(pair: Pair | None) -> str:
    return _same(pair.equal) if pair else ""


def _same(equal: tuple[str, ...]) -> str:
    return f"if `{'`, `'.join(equal)}` is equal" if equal else "yes"


def _row(p: type[Family], families: Iterable[type[Family]]) -> tuple[str, ...]:
    columns: dict[str, list[str]] = {"closed": [], "inf": [], "": []}
    for q in families:
        if q is p or (p.kind in ("finite", "counts")) != (q.kind in ("finite", "counts")):
            continue
        way, equal = way_of_kl(p, q)
        columns[way if way in columns else "closed"].append(q.family_name() + (f" ({_same(equal)})" if equal else ""))
    return (p.family_name(), *(", ".join(names) for names in columns.values()))


def _call(family: type[Family]) -> str:
    return f"{family.__name__}({', '.join(family.parameter_names())})"


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |").replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
