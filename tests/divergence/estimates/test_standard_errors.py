"""Claims about estimates in general: means, their errors, clusters, units."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from kilter.divergence import Estimate, mean_estimate
from kilter.errors import DistributionError


def test_a_mean_has_the_error_worked_out_by_hand() -> None:
    """1, 2, 3: standard deviation 1, error 1 / sqrt(3)."""
    assert mean_estimate([1, 2, 3]) == Estimate(2, pytest.approx(1 / math.sqrt(3)), 3, "unbiased")


def test_a_mean_over_clusters_weighs_clusters_alike_and_takes_its_error_over_them() -> None:
    """Clusters with means 2 and 6: mean 4, standard deviation 2 sqrt(2), error 2."""
    found = mean_estimate([1, 3, 6, 2], clusters=["a", "a", "b", "a"])
    assert (found.value, found.standard_error, found.samples) == (4, pytest.approx(2), 4)
    within = mean_estimate([1.0, 3.0], clusters=["a", "a"])
    assert (within.value, within.standard_error) == (2, pytest.approx(1))


def test_what_one_value_or_none_cannot_tell_is_nan() -> None:
    assert math.isnan(mean_estimate([1.0], clusters=["a"]).standard_error)
    assert math.isnan(mean_estimate([]).value)
    assert mean_estimate([]).samples == 0


def test_an_infinite_value_makes_the_mean_infinite_and_its_error_unknown() -> None:
    found = mean_estimate([1.0, math.inf])
    assert found.value == math.inf
    assert math.isnan(found.standard_error)


def test_bits_are_nats_over_log_2() -> None:
    found = Estimate(math.log(2), 2 * math.log(2), 3, "unbiased").in_bits()
    assert found == Estimate(pytest.approx(1), pytest.approx(2), 3, "unbiased")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_tensors_of_any_precision_are_summed_in_float64(dtype: torch.dtype) -> None:
    values = torch.full((4096,), 0.1, dtype=dtype, requires_grad=True)
    assert mean_estimate(values).value == pytest.approx(values[0].item(), rel=1e-14)


def test_importing_the_package_loads_none_of_the_libraries_that_a_few_estimates_need() -> None:
    code = "import kilter.divergence, sys; print(sorted({'torch', 'scipy', 'jax'} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_what_is_no_row_of_values_with_a_cluster_each_is_refused() -> None:
    with pytest.raises(DistributionError, match="found 2 clusters for 3 values"):
        mean_estimate([1, 2, 3], clusters=["a", "b"])
    with pytest.raises(DistributionError, match=r"values of shape \(3, 4\); give one row"):
        mean_estimate(np.zeros((3, 4)))
