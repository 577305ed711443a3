"""`kilter kl`: how far apart two distributions are, from what is typed on a command line or lies in a file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from kilter.divergence import cross_entropy, entropy, js, total_variation
from kilter.divergence import kl as kl_divergence
from kilter.errors import ConfigError, DistributionError
from kilter.measure.kl_input import Given, Listed, Named, read_distribution

BIT = math.log(2)  # in nats


class Quantity(NamedTuple):
    """A number that is told: its name in JSON, what it is, how it is written, what it says; TV has no unit."""

    name: str
    words: str
    symbol: str
    says: str
    in_nats: bool = True


QUANTITIES = (
    Quantity("entropy_p", "entropy", "H(p)", "length of p by its own code"),
    Quantity("entropy_q", "", "H(q)", "length of q by its own code"),
    Quantity("cross_entropy_pq", "cross-entropy", "H(p, q)", "length of p by the code of q"),
    Quantity("cross_entropy_qp", "", "H(q, p)", "length of q by the code of p"),
    Quantity("kl_pq", "KL divergence", "KL(p, q)", "what the code of q costs p"),
    Quantity("kl_qp", "", "KL(q, p)", "what the code of p costs q"),
    Quantity("js", "Jensen-Shannon", "JS(p, q)", "mean KL to m = (p + q) / 2"),
    Quantity("tv", "total variation", "TV(p, q)", "largest gap of any event", in_nats=False),
)


@dataclass(frozen=True)
class Apart:
    """Two distributions and how far they are apart: a value for each of QUANTITIES, in nats, and remarks on them.

    NaN is what was not computed; a remark says why.
    `errors` bounds those of values that were integrated or summed up.
    """

    p: Given
    q: Given
    values: Mapping[str, float]
    remarks: tuple[str, ...] = ()
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def of_densities(self) -> bool:
        """Whether these are densities, of which no outcome has a code."""
        return isinstance(self.p, Named) and not self.p.family.discrete

    def as_json(self) -> str:
        """The numbers in nats and in bits; "inf" is a text, for JSON has no such number, and null was not computed."""
        nats = {quantity.name: self.values[quantity.name] for quantity in QUANTITIES if quantity.in_nats}
        found: dict[str, Any] = {"p": self.p.text, "q": self.q.text}
        found["nats"] = {name: _finite(value) for name, value in nats.items()}
        found["bits"] = {name: _finite(value / BIT) for name, value in nats.items()}
        found |= {quantity.name: _finite(self.values[quantity.name]) for quantity in QUANTITIES if not quantity.in_nats}
        found |= {"errors": {name: _finite(error) for name, error in self.errors.items()}, "remarks": self.remarks}
        return json.dumps(found, indent=2, allow_nan=False)


def _finite(value: float) -> float | str | None:
    return value if math.isfinite(value) else None if math.isnan(value) else str(value)


def kl(
    distributions: Sequence[str],
    *,
    data: str | None = None,
    outcomes: str | None = None,
    explain: bool = False,
    as_json: bool = False,
    console: Console | None = None,
) -> Apart:
    """Compare two distributions, p and q, as they are written (measure/kl_input.py); prints what was found.

    With `data` they are columns of that file, and `outcomes` the column that names its rows. Raises DistributionError
    for what is no distribution, DataError for what cannot be read, ConfigError for what is not two.
    """
    apart = measure(*read_both(distributions, data, outcomes))
    console = console or Console()
    if as_json:
        print(apart.as_json(), file=console.file)
    else:
        from kilter.measure.kl_table import show

        show(console, apart, explain=explain)
    return apart


def read_both(distributions: Sequence[str], data: str | None, outcomes: str | None) -> tuple[Given, Given]:
    """p and q, of the same kind and with as many outcomes."""
    if len(distributions) != 2:
        found = f"{len(distributions)} ({' '.join(distributions)})" if distributions else "none"
        raise ConfigError(
            f"kilter kl compares two distributions, found {found}; write each without blanks, or in quotes: "
            f"{'kilter kl before after --data table.csv' if data else 'kilter kl 0.2,0.8 0.8,0.2'}"
        )
    names = dict(zip("pq", distributions, strict=True))
    if data is None:
        if outcomes is not None:
            raise ConfigError("--outcomes names a column; give the file that has it: --data table.csv")
        p, q = (read_distribution(text, name) for name, text in names.items())
    else:
        from kilter.measure.kl_columns import read_columns

        p, q = read_columns(data, names, outcomes).values()
    if isinstance(p, Listed) != isinstance(q, Listed):
        listed, family = ("p", "q") if isinstance(p, Listed) else ("q", "p")
        raise DistributionError(
            f"{listed} is a list of numbers and {family} a family; expected two lists or two families; a coin that "
            "shows heads with probability 0.8 is bernoulli:0.8"
        )
    if isinstance(p, Listed) and isinstance(q, Listed) and len(p.outcomes) != len(q.outcomes):
        raise DistributionError(
            f"p has {len(p.outcomes):,} outcomes and q {len(q.outcomes):,}; expected as many, in the same order; "
            "write 0 for an outcome that only the other has"
        )
    return p, q


def measure(p: Given, q: Given) -> Apart:
    """All of QUANTITIES, of two lists or of two families."""
    if isinstance(p, Listed) and isinstance(q, Listed):
        return Apart(p, q, _exact(p, q), tuple(_why_infinite(p, q)))
    assert isinstance(p, Named)
    assert isinstance(q, Named)
    from kilter.measure import kl_families

    kl_families.check_comparable(p.family, q.family)
    values = kl_families.values(p.family, q.family)
    if math.isnan(values.found["kl_pq"]) and math.isnan(values.found["kl_qp"]):
        raise DistributionError(f"KL(p, q) was not computed: {values.failures['kl_pq']}")
    remarks = tuple(kl_families.remarks(p.family, q.family, values))
    return Apart(p, q, values.found, remarks, values.errors)


def _exact(p: Listed, q: Listed) -> dict[str, float]:
    a, b = p.numbers, q.numbers
    found = {
        "entropy_p": entropy(a),
        "entropy_q": entropy(b),
        "cross_entropy_pq": cross_entropy(a, b),
        "cross_entropy_qp": cross_entropy(b, a),
        "kl_pq": kl_divergence(a, b),
        "kl_qp": kl_divergence(b, a),
        "js": js(a, b),
        "tv": total_variation(a, b),
    }
    return {name: float(value) + 0.0 for name, value in found.items()}  # -0.0 becomes 0.0


def _why_infinite(p: Listed, q: Listed) -> Iterator[str]:
    """For each direction that is infinite, the first outcome that makes it so."""
    for name, one, other_name, other in (("p", p, "q", q), ("q", q, "p", p)):
        alone = np.flatnonzero((one.probabilities > 0) & (other.probabilities == 0))
        if len(alone):
            more = f" (and so for {len(alone) - 1:,} more)" if len(alone) > 1 else ""
            yield (
                f"KL({name}, {other_name}) is inf: outcome {p.outcomes[alone[0]]} has probability "
                f"{one.probabilities[alone[0]]:.6g} under {name} and 0 under {other_name}{more}."
            )
