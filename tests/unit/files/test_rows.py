# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Rows that go into an archive file come out of it as they were: every value, every encoding, both formats."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.reading import decode
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.rows import encode, number
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Column

FORMATS = ("jsonl", "csv")
# With lone surrogates, NUL, quotes, separators and line ends more often than chance would have them.
TEXTS = st.text(st.one_of(st.characters(), st.sampled_from('\x00\ud800\udc80\udce9\udfff"\\,\r\n\t \u2028\x85x')))
ESCAPED = st.binary().map(lambda raw: raw.decode("utf-8", "surrogateescape"))
FLOATS = st.floats()
DIGITS = st.decimals(allow_nan=False, allow_infinity=False, places=15).map(str)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "number": st.one_of(st.integers(), FLOATS, DIGITS, st.sampled_from(["NaN", "Infinity", "-Infinity", "1E+400"])),
    "boolean": st.booleans(),
    "text": st.one_of(TEXTS, ESCAPED),
    "hex": st.binary(),
    "any": st.one_of(st.integers(), FLOATS, TEXTS, ESCAPED, st.binary(), st.booleans()),
}


@st.composite
def frames(draw: st.DrawFn) -> tuple[list[Column], list[list[Any]]]:
    encodings = draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=5))
    columns = [Column(f"{draw(TEXTS)}{place}", "its type", encoding) for place, encoding in enumerate(encodings)]
    row = st.tuples(*(st.none() | VALUES[encoding] for encoding in encodings)).map(list)
    return columns, draw(st.lists(row, max_size=5))


def expected(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
    """Numbers come back as their digits, so that none is lost."""
    return [
        tuple(
            number(value) if column.encoding == "number" and value is not None else value
            for column, value in zip(columns, row, strict=True)
        )
        for row in rows
    ]


def comparable(rows: Sequence[Sequence[Any]]) -> list[list[tuple[str, str]]]:
    """1 is not 1.0 is not True, NaN is NaN, -0.0 is not 0.0."""
    return [[(type(value).__name__, repr(value)) for value in row] for row in rows]


@pytest.mark.parametrize("form", FORMATS)
@given(frame=frames(), cut=st.integers(0, 5))
def test_every_value_comes_back(form: str, frame: tuple[list[Column], list[list[Any]]], cut: int) -> None:
    columns, rows = frame
    data = encode(form, columns, rows[:cut], header=True) + encode(form, columns, rows[cut:], header=False)
    found = list(decode(form, columns, io.BytesIO(data)))
    assert comparable(found) == comparable(expected(columns, rows))


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    "value", ["", "NULL", "\\N", "\\x00", "0x00", "true", "null", "1", "NaN", '"', '""', " ", "\n"]
)
@pytest.mark.parametrize("encoding", ["text", "any"])
def test_text_that_looks_like_something_else(form: str, value: str, encoding: str) -> None:
    columns = [Column("a", "text", encoding), Column("b", "text", encoding)]
    data = encode(form, columns, [[value, None]], header=True)
    assert list(decode(form, columns, io.BytesIO(data))) == [(value, None)]


@given(digits=DIGITS)
@example(digits="123456789012345678901234567890.123456789012345678901234567890")
def test_decimals_keep_every_digit(digits: str) -> None:
    columns = [Column("n", "numeric", "number")]
    line = encode("jsonl", columns, [[digits]], header=True)
    if "E" not in digits:
        assert digits in line.decode()
    assert json.loads(line, parse_float=Decimal, parse_int=Decimal)["n"] == Decimal(digits)


def test_each_row_is_json_that_others_read() -> None:
    """No NaN, no Infinity, no lone surrogate: jq, PostgreSQL and MySQL refuse those."""
    columns = [Column(name, "", "any") for name in "abcde"]
    line = encode("jsonl", columns, [[math.nan, math.inf, "\ud800", b"\x00", "é\u2028"]], header=True)
    plain = json.loads(line.decode("utf-8"), parse_constant=pytest.fail)
    assert plain["b"] == {"$number": "Infinity"} and plain["d"] == {"$hex": "00"} and plain["e"] == "é\u2028"
    assert "\\ud800" not in line.decode()


def test_csv_is_what_rfc_4180_says() -> None:
    columns = [Column('i"d', "int", "number"), Column("b", "text", "text"), Column("c", "text", "text")]
    data = encode("csv", columns, [[1, "", None], [2, 'say "x", \r\n', "plain"]], header=True)
    assert data == b'"i""d","b","c"\r\n1,"",\r\n2,"say ""x"", \r\n",plain\r\n'


@pytest.mark.parametrize("form", FORMATS)
def test_a_file_without_rows(form: str) -> None:
    columns = [Column("a", "text", "text")]
    assert list(decode(form, columns, io.BytesIO(encode(form, columns, [], header=True)))) == []


@pytest.mark.parametrize("form", FORMATS)
def test_what_ends_in_the_middle_of_a_row_is_an_error(form: str) -> None:
    columns = [Column("a", "text", "text"), Column("b", "text", "text")]
    data = encode(form, columns, [["one", "two\nthree"]], header=True)
    with pytest.raises(ValueError, match=r"middle|Unterminated|delimiter|values"):
        list(decode(form, columns, io.BytesIO(data[:-6])))
