"""Numbers, lists and names as text."""

from __future__ import annotations

from pydt.reporting import (
    count,
    digits_for,
    listed,
    number,
    p_text,
    percent_range,
    percent_text,
    plus_minus,
    points,
    quoted,
)
from pydt.reporting.text import ends, percent


def test_numbers() -> None:
    assert number(-0.0004, 2, True) == "0.00"
    assert number(-1.5, 1) == "\u22121.5"
    assert number(None, 3) == "–"
    assert (percent(0.125, 1, True), percent(None, 1)) == ("+12.5", "–")
    assert (percent_text(0.126), percent_text(0.1, 1, 0.0242)) == ("13 %", "10.0 \u00b1 2.4 %")
    assert percent_range(0.1, 0.05, 0.2) == "10 % (5 % to 20 %)"
    assert points(0.012, -0.003, 0.027) == "+1.2 points (-0.3 to +2.7)"
    assert [digits_for(error) for error in (None, 0.0, 12.0, 0.5, 0.012)] == [3, 3, 0, 2, 3]
    assert plus_minus(1.234, 0.05) == "+1.234 \u00b1 0.050"
    assert [p_text(p) for p in (None, 0.00001, 0.0004, 0.012, 0.41)] == [
        *("p –", "p < 0.0001", "p = 0.0004"),
        *("p = 0.012", "p = 0.41"),
    ]


def test_lists_and_names() -> None:
    assert (count(1, "class", "classes"), count(2000, "row"), count(None, "row")) == ("1 class", "2,000 rows", "– rows")
    assert listed(["a"]) == "\u201ca\u201d"
    assert listed(["a", "b", "c"], 2) == "\u201ca\u201d, \u201cb\u201d and 1 more"
    assert quoted("שלום") == "\u201c\u2068שלום\u2069\u201d"
    assert list(ends("abcdef", 2)) == ["a", "b", "e", "f"]
    assert list(ends("abcd", 2)) == ["a", "b", "c", "d"]
