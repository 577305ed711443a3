"""Claims about frames of other engines: they group, only counts come back, and those are DuckDB's own."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pytest

from kilter.errors import DataError
from kilter.ranking.comparisons import Comparisons
from kilter.ranking.reading.tables import read


def battles() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"model_a": rng.choice(["p", "q", "r"], 60), "model_b": rng.choice(["s", "t"], 60)})
    frame["winner"] = rng.choice(["model_a", "model_b", "tie"], 60)
    frame["chars_a"], frame["chars_b"] = rng.integers(1, 4, 60), rng.integers(1, 4, 60)
    frame["style"] = rng.choice(["plain", "list"], 60)
    return frame


OPTIONS: dict[str, Any] = {"covariates": ["chars_a-chars_b", "log(chars_a/chars_b)", "style"], "judge": "style"}


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    pyspark = pytest.importorskip("pyspark", reason="pyspark is not installed: pip install 'kilter[spark]'")
    if shutil.which("java") is None:
        pytest.skip("PySpark needs Java, and there is no java on the PATH")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        session = (
            pyspark.sql.SparkSession.builder.master("local[1]")
            .config("spark.ui.enabled", "false")
            .config("spark.sql.shuffle.partitions", "1")
            .config("spark.driver.bindAddress", "127.0.0.1")
            .config("spark.driver.host", "127.0.0.1")
            .getOrCreate()
        )
        yield session
        session.stop()


def assert_same(frame: Any) -> None:
    found, expected = read(frame, **OPTIONS).data, read(battles(), **OPTIONS).data
    assert isinstance(found, Comparisons)
    assert isinstance(expected, Comparisons)
    assert found.covariate_names == expected.covariate_names == (*OPTIONS["covariates"][:2], "style=plain")
    assert (found.items, found.judges) == (expected.items, expected.judges)
    for name in ("left", "right", "outcome", "count", "judge"):
        assert np.array_equal(getattr(found, name), getattr(expected, name)), name
    assert np.allclose(found.covariates, expected.covariates, rtol=1e-15)


@pytest.mark.parametrize("make", [pl.LazyFrame, duckdb.from_df])
def test_lazy_frames_count_as_eager_ones(make: Callable[[pd.DataFrame], Any]) -> None:
    assert_same(make(battles()))


@pytest.mark.filterwarnings("ignore:Dask support:FutureWarning")
def test_a_dask_frame_counts_as_an_eager_one() -> None:
    dask = pytest.importorskip("dask.dataframe", reason="dask is not installed: pip install 'dask[dataframe]'")
    assert_same(dask.from_pandas(battles(), npartitions=3))


def test_a_spark_frame_counts_as_an_eager_one(spark: Any) -> None:
    frame = spark.createDataFrame(battles()).repartition(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert_same(frame)


def test_of_rows_without_an_order_the_table_is_named() -> None:
    frame = battles().assign(winner="nobody").pipe(pl.LazyFrame)
    with pytest.raises(DataError, match=r"^the table: winner is 'nobody', .* \(in 60 rows\)"):
        read(frame)
