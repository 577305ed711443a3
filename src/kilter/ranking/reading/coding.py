"""Columns of Arrow as codes into their values: what is done once for each value, not for each row.

Arrow's own ways from and to NumPy load pandas, where it is installed, which takes longer than most fits; `to_numpy`,
`to_arrow` and `texts` here do without.
"""

# R rows, V values

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kilter.errors import DataError
from kilter.ranking.comparisons import Floats, Integers, Item

MISSING = -1
WHOLE = r"^-?\d{1,18}$"
NUMBER = r"^[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$"
FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}


def to_numpy(array: Any, null: Any = 0) -> NDArray[Any]:
    """An Arrow array of numbers or truths as NumPy's, with another value for null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    truths = pa.types.is_boolean(array.type)
    plain = array.cast(pa.uint8()) if truths else array
    if not len(plain):
        return np.empty(0, bool if truths else FLOATS.get(str(plain.type), str(plain.type)))
    found = np.frombuffer(plain.buffers()[1], FLOATS.get(str(plain.type), str(plain.type)))
    found = found[plain.offset : plain.offset + len(plain)]
    if plain.null_count:
        found = np.where(to_numpy(pc.is_null(plain)), np.asarray(null, found.dtype), found)
    return found.astype(bool) if truths else found


def to_arrow(array: NDArray[Any]) -> Any:
    """Numbers or truths as an Arrow array."""
    import pyarrow as pa

    if array.dtype == bool:
        return to_arrow(array.astype(np.uint8)).cast(pa.bool_())
    data = np.ascontiguousarray(array)
    return pa.Array.from_buffers(pa.from_numpy_dtype(data.dtype), len(data), [None, pa.py_buffer(data)])


def texts(values: Sequence[str]) -> Any:
    """Texts as an Arrow array."""
    import pyarrow as pa

    encoded = [value.encode() for value in values]
    ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(encoded), buffers).cast(pa.string())


@dataclass(frozen=True)
class Coded:
    """A column: its values, each once, in no order, and for each row the place of its value, or MISSING."""

    values: Any  # an Arrow array of V
    code: Integers  # R

    def without(self, absent: NDArray[np.bool_]) -> Coded:
        """The column as if it had no value in some rows."""
        return Coded(self.values, np.where(absent, np.int32(MISSING), self.code)) if absent.any() else self

    def spread(self, of_values: NDArray[Any], missing: Any) -> NDArray[Any]:
        """What is known of the values, for each row."""
        return np.append(of_values, np.asarray(missing, of_values.dtype))[self.code]


def coded(column: Any) -> Coded:
    """Code a column of Arrow; null, NaN and blank text are missing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    values, code = column.dictionary, to_numpy(column.indices, MISSING).astype(np.int32)
    kind = values.type
    if pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        values = values.cast(pa.string())
    absent = to_numpy(pc.is_null(values, nan_is_null=True))
    if pa.types.is_string(values.type):
        absent = absent | (to_numpy(pc.binary_length(pc.utf8_trim_whitespace(values)), 0) == 0)
    if absent.any():
        code = np.append(np.where(absent, MISSING, np.arange(len(values))), MISSING)[code].astype(np.int32)
    return Coded(values, code)


def numbers(column: Coded) -> tuple[Floats, NDArray[np.bool_]]:
    """A column's values as numbers, and which of them are none; yes and no are 1 and 0."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values
    if pa.types.is_string(values.type):
        values = pc.utf8_lower(pc.utf8_trim_whitespace(values))
        for words, number in ("true|yes", "1"), ("false|no", "0"):
            values = pc.replace_substring_regex(values, f"^({words})$", number)
        is_number = pc.match_substring_regex(values, NUMBER)
        values = pc.if_else(is_number, pc.utf8_ltrim(values, "+"), pa.nulls(len(values), pa.string()))
    found = to_numpy(values.cast(pa.float64()), np.nan)
    return found, ~np.isfinite(found)


def in_order(columns: Sequence[Coded], what: str) -> tuple[tuple[Item, ...], list[Integers]]:
    """The values of columns together, in order: numbers by size, as are texts that are all whole numbers, else as text.

    Returns them and each column's codes into them; values that no row has are left out. Raises DataError for numbers
    that are not whole.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    used = [_used(column) for column in columns]
    kinds = [_as_items(values, what) for values, _ in used]
    if len({str(kind.type) for kind in kinds}) > 1:
        kinds = [kind.cast(pa.string()) for kind in kinds]
    both = pa.concat_arrays(kinds).dictionary_encode()
    values, joint = both.dictionary, to_numpy(both.indices)
    by = values
    if pa.types.is_string(values.type) and pc.all(pc.match_substring_regex(values, WHOLE)).as_py():
        by = values.cast(pa.int64())
    order = pc.array_sort_indices(by)
    rank = np.empty(len(order), np.int32)
    rank[to_numpy(order)] = np.arange(len(order), dtype=np.int32)
    ends = np.cumsum([len(kind) for kind in kinds])
    codes = [
        np.append(rank[place], np.int32(MISSING))[code]
        for place, (_, code) in zip(np.split(joint, ends[:-1]), used, strict=True)
    ]
    return tuple(values.take(order).to_pylist()), codes


def _used(column: Coded) -> tuple[Any, Integers]:
    """Only the values that rows have, and the rows' codes into those."""
    seen = np.zeros(len(column.values) + 1, bool)
    seen[column.code] = True
    seen = seen[:-1]
    if seen.all():
        return column.values, column.code
    place = np.where(seen, np.cumsum(seen) - 1, MISSING).astype(np.int32)
    return column.values.filter(to_arrow(seen)), np.append(place, np.int32(MISSING))[column.code]


def _as_items(values: Any, what: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(values.type):
        if not pc.all(pc.equal(values, pc.floor(values))).as_py():
            raise DataError(f"{what} are numbers with decimals; expected names, or whole numbers")
        return values.cast(pa.int64())
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64())
    return values.cast(pa.string())


def merged(columns: Sequence[NDArray[Any]], count: Floats) -> tuple[NDArray[np.intp], Floats]:
    """Rows that are equal in all columns as one: the first row of each, in the order of the columns, and its count."""
    key, size = np.zeros(len(count), np.int64), 1
    for column in columns:
        if not len(column) or np.all(column == column[0]):
            continue
        # A column of codes is its own code.
        if column.dtype.kind == "i" and column.min() >= 0 and column.max() < 4 * len(column) + 1024:
            code, levels = column, int(column.max()) + 1
        else:
            values, code = np.unique(column, return_inverse=True)
            levels = len(values)
        if size * levels >= 2**62:
            values, key = np.unique(key, return_inverse=True)
            size = len(values)
        key, size = key * levels + code, size * levels
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(key[order]) != 0)[: len(order)])
    return order[starts], np.add.reduceat(count[order], starts) if len(starts) else count
