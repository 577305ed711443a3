"""The examples that people learn divergences from, each against the number worked out by hand."""

from __future__ import annotations

import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kilter.divergence import Logits, Probs, cross_entropy, entropy, js, kl, total_variation
from kilter.divergence.families import Bernoulli, Normal
from kilter.divergence.families.closed_forms import cross_entropy as cross_entropy_of_families
from kilter.divergence.families.closed_forms import entropy as entropy_of_family
from kilter.divergence.families.closed_forms import kl as kl_of_families

CONCEPTS = Path(__file__).parents[2] / "docs" / "concepts"
FAIR, BENT, TWO_HEADED = Probs([0.5, 0.5]), Probs([0.7, 0.3]), Probs([1.0, 0.0])


def test_kl_of_exchanged_outcomes_is_six_tenths_of_ln_4_either_way() -> None:
    p, q = Probs([0.2, 0.8]), Probs([0.8, 0.2])
    assert float(kl(p, q)) == pytest.approx(0.6 * math.log(4), rel=1e-14)
    assert float(kl(q, p)) == pytest.approx(0.831777, abs=5e-7)
    assert float(kl(p, q, unit="bits")) == pytest.approx(1.2, rel=1e-14)
    assert float(total_variation(p, q)) == pytest.approx(0.6, rel=1e-14)
    # The middle is (1/2, 1/2): JS is one bit less the entropy of either.
    assert float(js(p, q)) == pytest.approx(math.log(2) + 0.2 * math.log(0.2) + 0.8 * math.log(0.8), rel=1e-14)


def test_kl_between_a_fair_and_a_bent_coin_depends_on_the_direction() -> None:
    assert float(kl(FAIR, BENT)) == pytest.approx(0.0871767, abs=5e-8)
    assert float(kl(BENT, FAIR)) == pytest.approx(0.0822829, abs=5e-8)
    assert float(kl(FAIR, BENT)) == pytest.approx(-0.5 * math.log(4 * 0.7 * 0.3), rel=1e-13)
    assert float(kl_of_families(Bernoulli(0.5), Bernoulli(0.7))) == pytest.approx(float(kl(FAIR, BENT)), rel=1e-12)


def test_kl_between_normals_a_standard_deviation_apart_is_a_half() -> None:
    assert float(kl_of_families(Normal(0, 1), Normal(1, 1))) == 0.5
    # ln(2/1) + (1 + 1) / (2 * 4) - 1/2, and with both exchanged ln(1/2) + (4 + 1) / 2 - 1/2.
    assert float(kl_of_families(Normal(0, 1), Normal(1, 2))) == pytest.approx(math.log(2) - 0.25, rel=1e-14)
    assert float(kl_of_families(Normal(1, 2), Normal(0, 1))) == pytest.approx(2 - math.log(2), rel=1e-14)
    gap = cross_entropy_of_families(Normal(0, 1), Normal(1, 1)) - entropy_of_family(Normal(0, 1))
    assert float(gap) == pytest.approx(0.5, rel=1e-14)


def test_a_fair_coin_has_one_bit_and_a_two_headed_one_none() -> None:
    assert float(entropy(FAIR, unit="bits")) == 1
    assert float(entropy(TWO_HEADED, unit="bits")) == 0


def test_the_two_headed_coin_takes_a_bit_by_the_fair_code_and_the_fair_one_cannot_be_written_by_its() -> None:
    assert float(cross_entropy(TWO_HEADED, FAIR, unit="bits")) == 1
    assert float(cross_entropy(FAIR, TWO_HEADED, unit="bits")) == math.inf


def test_codes_made_for_p_have_its_entropy_as_length_and_those_for_q_the_cross_entropy() -> None:
    drawn = runpy.run_path(str(CONCEPTS / "draw_divergence.py"))
    p, q = drawn["LETTERS_P"], drawn["LETTERS_Q"]
    own, other = (
        sum(a * len(code) for a, code in zip(p, drawn[codes], strict=True)) for codes in ("CODES_P", "CODES_Q")
    )
    assert (own, other) == (1.75, 2.625)
    assert float(entropy(Probs(p), unit="bits")) == pytest.approx(own, rel=1e-14)
    assert float(cross_entropy(Probs(p), Probs(q), unit="bits")) == pytest.approx(other, rel=1e-14)
    assert float(kl(Probs(p), Probs(q), unit="bits")) == pytest.approx(0.875, rel=1e-14)


def test_logistic_loss_at_a_score_of_2_with_and_without_a_tenth_of_a_half() -> None:
    believed = 1 / (1 + math.exp(-2))
    loss = float(cross_entropy(Probs([0.0, 1.0]), Probs([1 - believed, believed])))
    penalty = 0.1 * float(kl_of_families(Normal(0, 1), Normal(1, 1)))
    assert believed == pytest.approx(0.880797, abs=5e-7)
    assert loss == pytest.approx(0.126928, abs=5e-7)
    assert loss == pytest.approx(math.log1p(math.exp(-2)), rel=1e-12)
    assert float(cross_entropy(Probs([0.0, 1.0]), Logits([0.0, 2.0]))) == pytest.approx(loss, rel=1e-12)
    assert (loss + penalty, loss - penalty) == pytest.approx((0.176928, 0.076928), abs=5e-7)


# What the page and its pictures say.


def drawing() -> dict[str, Any]:
    return runpy.run_path(str(CONCEPTS / "draw_divergence.py"))


def test_the_pictures_are_those_that_their_script_draws() -> None:
    for name, draw in drawing()["PICTURES"].items():
        lies_there = (CONCEPTS / name).read_text(encoding="utf-8")
        assert lies_there == draw(), "run: python docs/concepts/draw_divergence.py"


def test_no_normal_is_nearer_than_the_two_that_are_drawn() -> None:
    drawn = drawing()
    target, normal, grid_kl = drawn["two_hills"](), drawn["normal"], drawn["grid_kl"]
    forward, reverse = drawn["forward_fit"](), drawn["reverse_fit"]()
    others = [(mean, sd) for mean in np.linspace(-4, 4, 33) for sd in np.linspace(0.2, 4, 39)]
    assert grid_kl(target, normal(*forward)) <= min(grid_kl(target, normal(*other)) for other in others)
    assert grid_kl(normal(*reverse), target) <= min(grid_kl(normal(*other), target) for other in others)


def test_the_reverse_fit_sits_on_the_larger_hill_and_pays_for_its_share() -> None:
    drawn = drawing()
    (share, mean, sd), _ = drawn["HILLS"]
    fit = drawn["reverse_fit"]()
    assert fit == pytest.approx((mean, sd), abs=0.01)
    assert drawn["grid_kl"](drawn["normal"](*fit), drawn["two_hills"]()) == pytest.approx(-math.log(share), abs=0.005)


def test_pinskers_bound_holds_where_it_is_tightest() -> None:
    for gap in (1e-3, 0.1, 0.4):
        p, q = Probs([0.5 + gap / 2, 0.5 - gap / 2]), Probs([0.5 - gap / 2, 0.5 + gap / 2])
        assert float(total_variation(p, q)) <= math.sqrt(float(kl(p, q)) / 2)
