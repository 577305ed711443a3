"""Claims about every objective on pairs against a reference."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from kilter.objectives import OBJECTIVES, PairScores, Scores
from objectives.pairs import CHOSEN, FACTS, NAMES, REJECTED, facts_needed, float64, needed, pairs_of
from objectives.points_with_reference import POINTS_WITH_REFERENCE

# Values of options that are not their defaults.
OTHERS: dict[str, float] = {
    "beta": 0.7,
    "label_smoothing": 0.3,
    "scale": 1.5,
    "tau": 0.4,
    "penalty": 3.0,
    "alpha": 0.2,
}
# Sums of (chosen, rejected) through which a loss sends no gradient although it looks at them.
STOPPED: dict[str, set[tuple[int, str]]] = {
    "tdpo2": {(0, "kl_reference_policy")},
    "wpo": {(side, name) for side in (0, 1) for name in ("log_prob", "log_collision", "tokens")},
    "wpo_clamped": {(side, name) for side in (0, 1) for name in ("log_prob", "log_collision", "tokens")},
}
named = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(
    ("name", "place"), [(name, i) for name in NAMES for i in range(len(POINTS_WITH_REFERENCE[name]))]
)
def test_losses_are_those_worked_out_by_hand(name: str, place: int) -> None:
    pairs, options, losses = POINTS_WITH_REFERENCE[name][place]
    assert OBJECTIVES[name].loss(pairs, **options).tolist() == pytest.approx(losses, rel=1e-12, abs=1e-14)


def options_of(name: str, *, others: bool) -> dict[str, float]:
    defaults = OBJECTIVES[name].defaults
    return {option: OTHERS[option] for option in defaults} if others else defaults


def full(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Sums and facts: those that the row names and no more."""
    sums = needed(name)
    return {s: CHOSEN[s] for s in sums}, {s: REJECTED[s] for s in sums}, {f: FACTS[f] for f in facts_needed(name)}


@named
def test_a_loss_looks_at_the_sums_that_its_row_names_and_at_no_others(name: str) -> None:
    """It can be formed from them, and from none less."""
    loss, sides = OBJECTIVES[name].loss, full(name)
    assert loss(pairs_of(*sides)).shape == (3,)
    for side, names in enumerate(sides):
        for left_out in names:
            less = [dict(one) for one in sides]
            del less[side][left_out]
            with pytest.raises(KeyError, match=rf"{left_out}: this objective needs it"):
                loss(pairs_of(*less))


@pytest.mark.parametrize("others", [False, True])
@named
def test_gradients_in_every_sum_equal_finite_differences(name: str, others: bool) -> None:
    loss, options, (chosen, rejected, facts) = OBJECTIVES[name].loss, options_of(name, others=others), full(name)
    places = [(side, key) for side in (0, 1) for key in needed(name) if (side, key) not in STOPPED.get(name, set())]
    inputs = [float64((chosen, rejected)[side][key]).requires_grad_() for side, key in places]

    def value(*given: Tensor) -> Tensor:
        sides: list[dict[str, Any]] = [dict(chosen), dict(rejected)]
        for (side, key), tensor in zip(places, given, strict=True):
            sides[side][key] = tensor
        return loss(pairs_of(*sides, facts), **options)

    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, atol=1e-9, rtol=1e-6)


def slopes(name: str, chosen: dict[str, Any], rejected: dict[str, Any], facts: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """How the loss changes per nat of log-prob that any shared token of chosen, or of rejected, gains."""
    gained = [torch.zeros(len(chosen["log_prob"]), dtype=torch.float64, requires_grad=True) for _ in range(2)]
    sides = [
        {key: float64(value) + (gain if key in ("log_prob", "shared_log_prob") else 0) for key, value in side.items()}
        for side, gain in zip((chosen, rejected), gained, strict=True)
    ]
    loss = OBJECTIVES[name].loss(pairs_of(*sides, facts))
    return torch.autograd.grad(loss.sum(), gained)  # type: ignore[return-value]


@named
def test_raising_chosen_lowers_the_loss_and_raising_rejected_raises_it(name: str) -> None:
    """But for apo_down, which lowers chosen too. Where other papers' losses turn is in the tests of each."""
    chosen, rejected = slopes(name, *full(name))
    assert (rejected > 0).all()
    # Chosen log-ratios of 2, -3 and -1 are all smaller in size than the gaps 3, -4 and 3.
    assert (chosen > 0 if name == "apo_down" else chosen < 0).all()


@pytest.mark.parametrize("others", [False, True])
@named
def test_where_policy_and_reference_agree_the_mean_loss_is_as_declared(name: str, others: bool) -> None:
    row, options, (chosen, rejected, facts) = OBJECTIVES[name], options_of(name, others=others), full(name)
    agreeing = [
        {key: [0.0] * 3 if key.startswith("kl_") else side[key.replace("reference_", "")] for key in needed(name)}
        for side in (chosen, rejected)
    ]
    pairs = pairs_of(*agreeing, facts)
    assert row.at_zero is not None
    declared = row.at_zero(pairs, **options)
    assert float(row.loss(pairs, **options).mean()) == pytest.approx(declared, rel=1e-14)


def test_declared_values_at_zero_are_those_worked_out_by_hand() -> None:
    """Of one pair with a margin of 1, a preference of 0.9, tails of -5 and -1 nats, and weights of e and e^-3."""
    side = {"log_prob": [-7.0], "reference_log_prob": [-7.0], "tokens": [2.0]}
    chosen = side | {"shared_log_prob": [-2.0], "log_collision": [-9.0]}
    rejected = side | {"shared_log_prob": [-6.0], "log_collision": [-1.0]}
    pairs = pairs_of(chosen, rejected, {"margin": [1.0], "preference": [0.9]})
    by_hand = dict.fromkeys(NAMES, math.log(2)) | {
        "margin_dpo": math.log(1 + math.e),
        "ipo": 25,
        "ipo_mean": 25,
        "hinge": 1,
        "exo": 0.5 * math.log(0.5 / 0.999) + 0.5 * math.log(0.5 / 0.001),
        "discopop": 0.5 * math.log(2) + 0.5,
        "nca": 2 * math.log(2),
        "sppo": 500**2 + 500**2,
        "sppo_soft": 400**2 + 400**2,
        "apo_zero": 1,
        "apo_down": 1,
        # Half of the tails is missed by the policy: 2.5 of chosen, 0.5 of rejected; beta is 0.1.
        "ld_dpo_policy": math.log1p(math.exp(0.1 * (0.5 - 2.5))),
        "wpo": math.exp(-2) * math.log(2),
        "wpo_clamped": math.exp(-2) * math.log(2),
    }
    for name, wanted in by_hand.items():
        row = OBJECTIVES[name]
        assert row.at_zero is not None
        assert row.at_zero(pairs, **row.defaults) == pytest.approx(wanted, rel=1e-14), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@named
def test_losses_of_log_ratios_of_a_thousand_nats_are_finite_and_their_gradients_too(
    name: str, dtype: torch.dtype
) -> None:
    ratios = torch.tensor(list(itertools.product([-1000.0, -90.0, 0.0, 90.0, 1000.0], repeat=2)), dtype=dtype)

    def side(log_ratio_P: Tensor) -> dict[str, Tensor]:
        log_prob = (log_ratio_P.clamp(max=0) - 5).requires_grad_()
        reference = (log_prob - log_ratio_P).detach()
        half = {"shared_log_prob": 0.5 * log_prob, "shared_reference_log_prob": 0.5 * reference}
        rest = {"tokens": 8.0, "kl_policy_reference": 40.0, "kl_reference_policy": 60.0, "log_collision": -3.0}
        constants = {key: torch.full_like(reference, value) for key, value in rest.items()}
        return {"log_prob": log_prob, "reference_log_prob": reference} | half | constants

    chosen, rejected = (side(ratio_P) for ratio_P in ratios.unbind(1))
    ones = torch.ones(len(ratios), dtype=dtype)
    loss = OBJECTIVES[name].loss(PairScores(Scores(**chosen), Scores(**rejected), ones, 0.9 * ones))
    assert loss.dtype == dtype
    assert loss.isfinite().all()
    for gradient in torch.autograd.grad(loss.sum(), [chosen["log_prob"], rejected["log_prob"]]):
        assert gradient.isfinite().all()
