"""Rankings from tables: an ordered list or a text like A > B = C in each row, or a row for each place."""

# E entries, Q rankings

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kilter.errors import DataError
from kilter.ranking.comparisons import Floats, Integers, Item, Rankings
from kilter.ranking.reading.attributes import Attributes, attributes
from kilter.ranking.reading.coding import MISSING, coded, in_order, merged, numbers, to_arrow, to_numpy
from kilter.ranking.reading.columns import Columns
from kilter.ranking.reading.grouping import Mask, Rows, every_row, grouped
from kilter.ranking.reading.sources import Source

ORDER = "expected two items or more from best to worst, each once: a list, or a text as in A > B = C"


def read_rankings(
    source: Source, columns: Columns, asked: Mapping[str, str], *, skip_missing: bool
) -> tuple[Rankings, int]:
    """The rankings of a table, and how many rows were skipped; raises DataError, with the line, for what is none.

    `asked` says which columns hold the judge, the prompt and the weight.
    """
    import narwhals as nw

    names = {**columns.of, **asked}
    if columns.layout == "places":
        rows, read = every_row(source, names), _from_places
    else:
        rows, read = grouped(source, {alias: nw.col(name) for alias, name in names.items()}, names), _from_orders
        _check_kind(rows.table["ranking"].type)
    absent = rows.absent(skip_missing=skip_missing)
    if columns.layout == "places":
        absent |= _left_alone(rows, absent)
    skipped = int(rows.count[absent].sum())
    if absent.all():
        raise DataError(f"{source.name}: all {skipped:,} rows have something missing; expected at least one ranking")
    return read(rows, absent), skipped


def _left_alone(rows: Rows, absent: Mask) -> Mask:
    """Rows that were not alone in their ranking, and are so without those that have something missing."""
    ranking = rows.codes["ranking"].code - MISSING
    of_all, left = np.bincount(ranking), np.bincount(ranking, ~absent)
    return np.asarray(~absent & (of_all[ranking] > 1) & (left[ranking] == 1))


def _from_places(rows: Rows, absent: Mask) -> Rankings:
    values, none = numbers(rows.codes["place"])
    bad = rows.spread("place", none | ~(values >= 1) | (values != np.floor(values)), False) & ~absent
    rows.refuse(bad, ["place"], "{columns} is {values}", "expected a place: 1 for the best, 2, 3, ...")
    keep = np.flatnonzero(~absent)
    items, (item,) = in_order([rows.codes["item"].without(absent)], "items")
    _, (in_order_of_name,) = in_order([rows.codes["ranking"].without(absent)], "rankings")
    ranking = in_order_of_name[keep]
    place = rows.spread("place", values, 1.0)[keep].astype(np.int32)
    alone = np.bincount(ranking)[ranking] < 2
    lonely = np.zeros(len(rows), bool)
    lonely[keep[alone]] = True
    rows.refuse(lonely, ["ranking"], "{columns} {values} ranks a single item", "expected two or more in each ranking")
    _refuse_repeats(rows, keep, ranking, item[keep])
    borne = attributes(rows, absent).at(keep)
    for role, of_entries in borne.columns.items():
        _refuse_changes(rows, keep, ranking, role, of_entries)
    _, first = np.unique(ranking, return_index=True)
    return _counted(items, Entries(item[keep], ranking, place), borne.at(first), np.ones(len(first)))


def _refuse_repeats(rows: Rows, keep: Any, ranking: Any, item: Any) -> None:
    key = ranking.astype(np.int64) * (int(item.max()) + 1) + item
    _, at, times = np.unique(key, return_inverse=True, return_counts=True)
    repeated = np.zeros(len(rows), bool)
    repeated[keep[times[at] > 1]] = True
    rows.refuse(repeated, ["ranking", "item"], "{columns} {values} has more than one place", "expected one for each")


def _refuse_changes(rows: Rows, keep: Any, ranking: Any, role: str, values: Any) -> None:
    """Raise DataError for the first ranking whose rows do not agree on its judge, its prompt or its weight."""
    _, first, of_entry = np.unique(ranking, return_index=True, return_inverse=True)
    changes = np.flatnonzero(values != values[first][of_entry])
    if len(changes):
        changing = np.zeros(len(rows), bool)
        changing[keep[ranking == ranking[changes].min()]] = True
        rows.refuse(changing, ["ranking", role], "{columns} are {values}", f"expected one {role} for each ranking")


def _from_orders(rows: Rows, absent: Mask) -> Rankings:
    import pyarrow.compute as pc

    keep = np.flatnonzero(~absent)
    kept = _as_lists(rows.table["ranking"]).take(to_arrow(keep))
    # Tied items are lists within the list.
    groups = pc.list_flatten(kept)
    ranking_of_group = to_numpy(pc.list_parent_indices(kept))
    group_of_entry = to_numpy(pc.list_parent_indices(groups))
    entries = coded(pc.list_flatten(groups))
    ranking = ranking_of_group[group_of_entry]
    place = _places(ranking, group_of_entry)
    items, (item,) = in_order([entries], "items")
    _refuse_bad_orders(rows, keep, ranking, item)
    return _counted(items, Entries(item, ranking, place), attributes(rows, absent).at(keep), rows.count[keep])


class Entries(NamedTuple):
    """Which item took which place in which ranking."""

    item: NDArray[Any]  # E
    ranking: NDArray[Any]  # E, from 0 to Q - 1
    place: NDArray[Any]  # E


def _counted(items: tuple[Item, ...], entries: Entries, borne: Attributes, count: Floats) -> Rankings:
    """Rankings that are equal in everything as one, in an order that that of the rows does not change."""
    order = np.lexsort((entries.item, entries.place, entries.ranking))
    item, ranking, place = (column[order].astype(np.int32) for column in entries)
    start = np.searchsorted(ranking, np.arange(len(count) + 1))
    first, total = merged([_sequence_codes(item, place, start), *borne.columns.values()], count)
    length = np.diff(start)[first]
    begins = np.cumsum(length) - length
    at = np.arange(length.sum()) + np.repeat(start[first] - begins, length)
    merged_ranking = np.repeat(np.arange(len(first), dtype=np.int32), length)
    return Rankings(items, item[at], merged_ranking, place[at], total, **borne.at(first)._asdict())


def _sequence_codes(item: Integers, place: Integers, start: NDArray[np.intp]) -> NDArray[np.int64]:
    """For each ranking the place of its entries among all rankings' in their order; equal rankings have one code."""
    import pyarrow as pa
    import pyarrow.compute as pc

    # Bytes with the highest first are in the order of the numbers.
    content = np.stack([place, item], axis=1).astype(">i4").tobytes()
    offsets = (start * 8).astype(np.int64)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    distinct = pa.Array.from_buffers(pa.large_binary(), len(start) - 1, buffers).dictionary_encode()
    order = to_numpy(pc.array_sort_indices(distinct.dictionary))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes: NDArray[np.int64] = rank[to_numpy(distinct.indices)]
    return codes


def _check_kind(kind: Any) -> None:
    """Raise DataError for a column of Arrow that holds neither lists nor texts."""
    import pyarrow as pa

    of_values = kind.value_type if pa.types.is_dictionary(kind) else kind
    texts = pa.types.is_string(of_values) or pa.types.is_large_string(of_values) or pa.types.is_string_view(of_values)
    if not (texts or _is_list(kind)):
        raise DataError(f"rankings are {kind}; {ORDER}")


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def _as_lists(column: Any) -> Any:
    """A column of lists of lists of items: one for each place."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.combine_chunks()
    kind = column.type
    if _is_list(kind):
        column = column.cast(pa.list_(kind.value_type))
        if _is_list(kind.value_type):
            return column
        return _wrapped(column)
    text = column.cast(pa.string())
    places = pc.split_pattern(text, ">")
    tied = pc.split_pattern(pc.list_flatten(places), "=")
    trimmed = pa.ListArray.from_arrays(tied.offsets, pc.utf8_trim_whitespace(tied.flatten()))
    return pa.ListArray.from_arrays(places.offsets, trimmed, mask=text.is_null())


def _wrapped(column: Any) -> Any:
    """Each item as a list of its own."""
    import pyarrow as pa

    flat = column.values
    single = pa.ListArray.from_arrays(to_arrow(np.arange(len(flat) + 1, dtype=np.int32)), flat)
    return pa.ListArray.from_arrays(column.offsets, single, mask=column.is_null())


def _places(ranking: Any, group: Any) -> Any:
    """Places of entries: 1, 2, ... within their ranking, equal for those of one group."""
    new_ranking = np.append(True, np.diff(ranking) != 0)
    first_group = group[np.flatnonzero(new_ranking)]
    return group - first_group[np.cumsum(new_ranking) - 1] + 1


def _refuse_bad_orders(rows: Rows, keep: Any, ranking: Any, item: Any) -> None:
    bad: Mask = np.zeros(len(rows), bool)
    length = np.bincount(ranking, minlength=len(keep))
    bad[keep[length < 2]] = True
    bad[keep[ranking[item == MISSING]]] = True
    key = ranking.astype(np.int64) * (int(item.max(initial=0)) + 2) + item
    _, at, times = np.unique(key, return_inverse=True, return_counts=True)
    bad[keep[ranking[times[at] > 1]]] = True
    rows.refuse(bad, ["ranking"], "{columns} is {values}", ORDER)
