"""Rankings from tables: an ordered list or a text like A > B = C in each row, or a row for each place."""

# E entries, Q rankings

from __future__ import annotations

from typing import Any

import numpy as np

from kilter.errors import DataError
from kilter.ranking.comparisons import Rankings
from kilter.ranking.reading.coding import MISSING, coded, in_order, numbers, to_arrow, to_numpy
from kilter.ranking.reading.columns import Columns
from kilter.ranking.reading.grouping import SKIP, Mask, Rows, every_row, grouped
from kilter.ranking.reading.sources import Source

ORDER = "expected two items or more from best to worst, each once: a list, or a text as in A > B = C"


def read_rankings(source: Source, columns: Columns, *, skip_missing: bool) -> tuple[Rankings, int]:
    """The rankings of a table, and how many rows were skipped; raises DataError, with the line, for what is none."""
    if columns.layout == "places":
        return _from_places(every_row(source, columns.of), skip_missing=skip_missing)
    import narwhals as nw

    name = columns.of["ranking"]
    return _from_orders(grouped(source, {"ranking": nw.col(name)}, columns.of), skip_missing=skip_missing)


def _from_places(rows: Rows, *, skip_missing: bool) -> tuple[Rankings, int]:
    absent = np.zeros(len(rows), bool)
    for alias in rows.names:
        if not skip_missing:
            rows.refuse(rows.missing(alias), [alias], "{columns} has no value", SKIP)
        absent |= rows.missing(alias)
    values, none = numbers(rows.codes["place"])
    bad = rows.spread("place", none | ~(values >= 1) | (values != np.floor(values)), False) & ~absent
    rows.refuse(bad, ["place"], "{columns} is {values}", "expected a place: 1 for the best, 2, 3, ...")
    keep = np.flatnonzero(~absent)
    items, (item,) = in_order([rows.codes["item"].without(absent)], "items")
    _, (in_order_of_name,) = in_order([rows.codes["ranking"].without(absent)], "rankings")
    ranking = in_order_of_name[keep]
    place = rows.spread("place", values, 1.0)[keep].astype(np.int32)
    order = np.lexsort((item[keep], place, ranking))
    alone = np.bincount(ranking)[ranking] < 2
    lonely = np.zeros(len(rows), bool)
    lonely[keep[alone]] = True
    rows.refuse(lonely, ["ranking"], "{columns} {values} ranks a single item", "expected two or more in each ranking")
    _refuse_repeats(rows, keep, ranking, item[keep])
    rankings = Rankings(
        items, item[keep][order], ranking[order].astype(np.int32), place[order], np.ones(int(ranking.max()) + 1)
    )
    return rankings, int(absent.sum())


def _refuse_repeats(rows: Rows, keep: Any, ranking: Any, item: Any) -> None:
    key = ranking.astype(np.int64) * (int(item.max()) + 1) + item
    _, at, times = np.unique(key, return_inverse=True, return_counts=True)
    repeated = np.zeros(len(rows), bool)
    repeated[keep[times[at] > 1]] = True
    rows.refuse(repeated, ["ranking", "item"], "{columns} {values} has more than one place", "expected one for each")


def _from_orders(rows: Rows, *, skip_missing: bool) -> tuple[Rankings, int]:
    import pyarrow.compute as pc

    column = rows.table["ranking"].combine_chunks()
    lists = _as_lists(column)
    absent = to_numpy(pc.list_value_length(lists), 0) == 0
    if not skip_missing:
        rows.refuse(absent, ["ranking"], "{columns} has no value", SKIP)
    keep = np.flatnonzero(~absent)
    # In an order that that of the rows does not change.
    keep = keep[_sorting(lists.take(to_arrow(keep)))]
    kept = lists.take(to_arrow(keep))
    # Tied items are lists within the list.
    groups = pc.list_flatten(kept)
    ranking_of_group = to_numpy(pc.list_parent_indices(kept))
    group_of_entry = to_numpy(pc.list_parent_indices(groups))
    entries = coded(pc.list_flatten(groups))
    ranking = ranking_of_group[group_of_entry]
    place = _places(ranking, group_of_entry)
    items, (item,) = in_order([entries], "items")
    _refuse_bad_orders(rows, keep, ranking, item)
    order = np.lexsort((item, place, ranking))
    rankings = Rankings(
        items, item[order], ranking[order].astype(np.int32), place[order].astype(np.int32), rows.count[keep]
    )
    return rankings, int(rows.count[absent].sum())


def _as_lists(column: Any) -> Any:
    """A column of lists of lists of items: one for each place."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        column = column.cast(pa.list_(kind.value_type))
        if pa.types.is_list(kind.value_type) or pa.types.is_large_list(kind.value_type):
            return column
        return _wrapped(column)
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        raise DataError(f"rankings are {kind}; {ORDER}")
    text = column.cast(pa.string())
    places = pc.split_pattern(text, ">")
    tied = pc.split_pattern(pc.list_flatten(places), "=")
    trimmed = pa.ListArray.from_arrays(tied.offsets, pc.utf8_trim_whitespace(tied.flatten()))
    return pa.ListArray.from_arrays(places.offsets, trimmed, mask=text.is_null())


def _sorting(lists: Any) -> Any:
    """The order of lists of lists as texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    groups = pc.list_flatten(lists)
    tied = pa.ListArray.from_arrays(groups.offsets, groups.flatten().cast(pa.string()))
    places = pa.ListArray.from_arrays(lists.offsets, pc.binary_join(tied, "\x1f"))
    return to_numpy(pc.array_sort_indices(pc.binary_join(places, "\x1e")))


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
