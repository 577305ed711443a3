"""Claims about statistics of streams, against the same numbers kept whole."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.measure.streams import Correlation, DocumentMeans, Percentiles

DRAW = np.random.default_rng(0)
LENGTHS = [3, 1, 40, 7, 12, 100, 5]
# Documents that differ in level, as those of a corpus do.
DOCUMENTS = [DRAW.gamma(0.3, DRAW.gamma(2.0), length) for length in LENGTHS]


def means_of(documents: list[np.ndarray]) -> DocumentMeans:
    means = DocumentMeans(["x", "twice"])
    for document in documents:
        means.add({"x": document, "twice": 2 * document})
    return means


def test_a_mean_and_its_error_are_those_worked_out_by_hand() -> None:
    """Documents (1, 3) and (8): mean 4; residuals 4 - 8 and 8 - 4; root of 2 (16 + 16) by 3 tokens."""
    mean = means_of([np.array([1.0, 3.0]), np.array([8.0])]).mean("x")
    assert mean.value == 4
    assert mean.standard_error == pytest.approx(math.sqrt(64) / 3)


def test_documents_of_one_token_have_the_standard_error_of_a_mean() -> None:
    values = DRAW.normal(size=50)
    mean = means_of([np.array([value]) for value in values]).mean("twice")
    assert mean.value == pytest.approx(2 * values.mean())
    assert mean.standard_error == pytest.approx(2 * values.std(ddof=1) / math.sqrt(50))


def test_the_error_of_a_mean_is_that_of_a_jackknife_over_documents() -> None:
    """An oracle of another make; it agrees to first order, so on many documents that are alike in size."""
    documents = [DRAW.gamma(0.3, DRAW.gamma(2.0), DRAW.integers(20, 40)) for _ in range(400)]
    sums, tokens = np.array([d.sum() for d in documents]), np.array([len(d) for d in documents])
    without = (sums.sum() - sums) / (tokens.sum() - tokens)
    jackknife = math.sqrt(399 / 400 * ((without - without.mean()) ** 2).sum())
    error = means_of(documents).mean("x").standard_error
    assert error == pytest.approx(jackknife, rel=0.01)
    together = np.concatenate(documents)
    assert error > 1.5 * together.std() / math.sqrt(len(together))


def test_one_document_has_no_error_and_none_no_mean() -> None:
    assert math.isnan(means_of(DOCUMENTS[:1]).mean("x").standard_error)
    assert math.isnan(means_of([np.array([])]).mean("x").value)


def test_an_infinite_value_makes_the_mean_infinite_and_leaves_the_others() -> None:
    means = DocumentMeans(["x", "y"])
    means.add({"x": np.array([1.0, math.inf]), "y": np.array([1.0, 3.0])})
    means.add({"x": np.array([1.0]), "y": np.array([2.0])})
    assert means.mean("x").value == math.inf
    assert math.isnan(means.mean("x").standard_error)
    assert (means.mean("y").value, means.mean("y").standard_error) == (2, 0)


PERCENTS = [50, 90, 99, 99.9, 100]


@given(
    st.lists(st.floats(0, 2.0**100, width=32), min_size=1, max_size=300), st.sampled_from(PERCENTS), st.integers(1, 40)
)
def test_percentiles_are_those_of_all_numbers_up_to_a_bin(numbers: list[float], percent: float, cut: int) -> None:
    values = np.array(numbers)
    percentiles = Percentiles()
    for start in range(0, len(values), cut):
        percentiles.add(values[start : start + cut])
    wanted = float(np.percentile(values, percent, method="inverted_cdf"))
    assert percentiles.at(percent) == pytest.approx(wanted, rel=2**-13, abs=1e-41)
    assert percentiles.largest == values.max()


def test_percentiles_of_few_numbers_are_by_nearest_rank() -> None:
    percentiles = Percentiles()
    percentiles.add(np.arange(1, 11, dtype=np.float64))
    assert [round(percentiles.at(percent)) for percent in PERCENTS] == [5, 9, 10, 10, 10]


def test_infinity_is_a_percentile_and_negative_numbers_are_refused() -> None:
    percentiles = Percentiles()
    percentiles.add(np.array([0.0, 0.0, math.inf]))
    assert (percentiles.at(50), percentiles.at(99), percentiles.largest) == (0, math.inf, math.inf)
    for wrong in (-1.0, math.nan):
        with pytest.raises(ValueError, match="from 0 on"):
            percentiles.add(np.array([wrong]))


@pytest.mark.parametrize("cut", [1, 17, 500])
def test_correlation_is_that_of_all_numbers_however_they_come(cut: int) -> None:
    one = DRAW.normal(-1000, 1, 500)
    other = one + DRAW.normal(size=500)
    found = Correlation()
    for start in range(0, 500, cut):
        found.add(one[start : start + cut], other[start : start + cut])
    assert found.value == pytest.approx(np.corrcoef(one, other)[0, 1], rel=1e-9)


def test_numbers_that_never_vary_have_no_correlation() -> None:
    found = Correlation()
    found.add(np.ones(5), np.arange(5.0))
    assert math.isnan(found.value)
    assert math.isnan(Correlation().value)
