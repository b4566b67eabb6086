# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows of a dump counted: whatever stands in them, wherever the pieces are cut. No server is asked."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql.dumped_rows import (
    Rows,
    differences,
    parts,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused

NAMES = st.text(st.sampled_from("ab;\"' \n\\.$é-"), min_size=1, max_size=6)
VALUES = st.lists(st.text(st.sampled_from("a.;'\"\n\\\t-"), max_size=6), max_size=5)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def copied(value: str) -> str:
    """As the server writes a text for COPY."""
    escaped = value.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return escaped + "\n"


def script(tables: list[tuple[str, str, list[str]]]) -> tuple[bytes, dict[str, int]]:
    """What pg_restore makes of such tables, and how many rows each of them has."""
    text, counts = '\\restrict abc\n\n--\n-- it\'s a dump; "so"\n--\n\nSET x = off;\n', {}
    for schema, table, values in tables:
        name = f"{quoted(schema)}.{quoted(table)}"
        counts[name] = len(values)
        columns = f"({quoted(table)}) " if values else " "
        body = "".join(copied(value) for value in values)
        text += f"--\n-- Data for Name: o'x\n--\n\nCOPY {name} {columns}FROM stdin;\n{body}\\.\n\n\n"
        said = f"{name};\nCOPY a.b FROM stdin;\n".replace("'", "''")
        text += f"SELECT pg_catalog.setval('{said}', 1, true);\n\n"
    return (text + "\\unrestrict abc\n").encode(), counts


TABLES = st.lists(st.tuples(NAMES, NAMES, VALUES), max_size=4, unique_by=lambda table: table[:2])


@given(TABLES, st.integers(1, 40))
def test_every_row_counts_once(tables: list[tuple[str, str, list[str]]], size: int) -> None:
    text, counts = script(tables)
    rows, space = Rows(), bytearray(size + 3)
    for at in range(0, len(text), size):
        piece = text[at : at + size]
        space[: len(piece)] = piece  # as it comes out of a pipe: into the same memory each time
        rows.feed(space, len(piece))
    rows.end()
    assert rows.counts == counts
    assert {parts(name) for name in counts} == {(schema, table) for schema, table, _values in tables}


@given(st.lists(VALUES, min_size=1, max_size=3), st.integers(1, 40), st.randoms())
def test_the_same_rows_in_any_order_have_the_same_sum(lists: list[list[str]], size: int, random: Random) -> None:
    found = []
    for order in (list, lambda values: random.sample(values, len(values))):
        text, counts = script([("s", f"t{n}", order(values)) for n, values in enumerate(lists)])
        rows = Rows(summed=True)
        for at in range(0, len(text), size):
            rows.feed(text[at : at + size])
        rows.end()
        assert rows.counts == counts
        assert rows.sums.keys() == counts.keys()
        found.append(rows.sums)
    assert found[0] == found[1]


@given(VALUES.filter(bool), st.integers(1, 40), st.data())
def test_another_row_has_another_sum(values: list[str], size: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values) - 1))
    other = data.draw(st.text(st.sampled_from("a.;\n\\")).filter(lambda value: value != values[place]))
    found = []
    for rows_of in (values, [*values[:place], other, *values[place + 1 :]]):
        text, _counts = script([("s", "t", rows_of)])
        rows = Rows(summed=True)
        for at in range(0, len(text), size):
            rows.feed(text[at : at + size])
        rows.end()
        found.append(rows.sums)
    assert found[0] != found[1]


def test_an_end_within_rows_is_seen() -> None:
    rows = Rows()
    rows.feed(b"COPY a.b (c) FROM stdin;\n1\n2\n")
    with pytest.raises(Refused, match=r"within the rows of a\.b"):
        rows.end()


@pytest.mark.parametrize("name", ["t", "public.t; DROP TABLE t", 'public."t', "public.t ", "", "a.b.c", "1.2"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(Refused):
        parts(name)


def test_differences_are_told_and_no_more_than_five() -> None:
    assert differences({"a.b": 1}, {"a.b": 1}) == ""
    assert differences({"a.b": 1}, {}) == "a.b: not there instead of 1"
    assert differences({}, {"a.b": 1}) == "a.b: 1 instead of none"
    assert differences({f"a.t{n}": 1 for n in range(8)}, {}).endswith(" and 3 more")


@given(st.integers(1, 60), st.sampled_from([b"", b"00", b"00ff"]), st.integers(0, 4))
def test_what_is_no_row_is_found_wherever_it_is_cut(size: int, content: bytes, cut: int) -> None:
    """However many writes make an object, and whatever a name looks like."""
    name = "public.\"it''s; (1, true)\""
    text = f"--\n-- Name: x\n--\n\nSELECT pg_catalog.setval('{name}', -7, false);\n\nBEGIN;\n\n".encode()

    def written(pieces: list[bytes]) -> bytes:
        opened = b"SELECT pg_catalog.lo_open('4711', 131072);\n"
        writes = b"".join(b"SELECT pg_catalog.lowrite(0, '\\x" + piece + b"');\n" for piece in pieces)
        return text + opened + writes + b"SELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n\n"

    def found(script: bytes) -> dict[str, str]:
        rows = Rows(summed=True)
        for at in range(0, len(script), size):
            rows.feed(script[at : at + size])
        rows.end()
        return rows.values

    whole = found(written([content] if content else []))
    assert whole['sequence public."it\'s; (1, true)"'] == "-7 (not called)"
    assert whole["large objects"].startswith("1:")
    assert found(written([piece for piece in (content[:cut], content[cut:]) if piece])) == whole
    assert found(written([content, b"01"])) != whole
