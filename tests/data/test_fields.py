"""What stands for a number, for yes or no, and what does not."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kilter.data.fields import RowError, canonical, number, optional_number, parsed, yes_no


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3.0), (-0.5, -0.5), ("1.5", 1.5), (" 2 ", 2.0), (".5", 0.5), ("-1e3", -1000.0), ("7.", 7.0)],
)
def test_numbers_are_read_also_from_text(value: object, expected: float) -> None:
    assert number("f", value) == expected


@pytest.mark.parametrize("value", [None, True, "", " ", "1,5", "1_0", "١", "nan", "0x10", [], {}, "-", "1e", b"1"])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"f: is .*; expected a number"):
        number("f", value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, "1e999", "9" * 5000])
def test_numbers_that_are_not_finite_are_refused(value: object) -> None:
    with pytest.raises(RowError, match="f: is infinite, too large or no number"):
        number("f", value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_text_of_a_number_is_that_number(value: float) -> None:
    assert number("f", repr(value)) == value


def test_an_empty_cell_is_no_number_and_no_mistake() -> None:
    assert optional_number({"f": ""}, "f") is optional_number({"f": None}, "f") is optional_number({}, "f") is None


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", " YES ", "1", "1.0"])
def test_yes(value: object) -> None:
    assert yes_no("f", value) is True


@pytest.mark.parametrize("value", [False, 0, 0.0, "false", "FALSE", "no", "0"])
def test_no(value: object) -> None:
    assert yes_no("f", value) is False


@pytest.mark.parametrize("value", [None, 2, -1, 0.5, "", "maybe", math.nan, [True], {}])
def test_neither_yes_nor_no_is_refused(value: object) -> None:
    with pytest.raises(RowError, match=r"f: is .*; expected true or false"):
        yes_no("f", value)


def test_text_is_parsed_only_where_it_begins_like_a_list_or_an_object() -> None:
    assert parsed("f", ' [1, "a"]') == [1, "a"]
    assert parsed("f", "true") == "true"
    assert parsed("f", 3) == 3


def test_canonical_json_is_sorted_compact_and_keeps_characters() -> None:
    assert canonical("f", {"b": [1, 2.5, None, True], "a": "é 漢"}) == '{"a":"é 漢","b":[1,2.5,null,true]}'
    with pytest.raises(RowError, match="f: holds a set; expected"):
        canonical("f", {"a": {1}})
