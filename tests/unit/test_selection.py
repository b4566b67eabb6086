# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which names a list of patterns takes, hostile names among them."""

from __future__ import annotations

import random

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._selection import Patterns, names_of

HOSTILE = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
# What a pattern may be written with: names of every kind, without the signs that patterns refuse.
PLAIN = HOSTILE.filter(lambda n: not set(n) & set("*?[]{}%^$|\\") and n == n.strip() and n[0] not in "-!")
PATTERN = st.lists(st.one_of(PLAIN, st.sampled_from(["*", "?"])), min_size=1, max_size=4).map("".join)


@given(PLAIN)
def test_a_plain_name_takes_itself_and_nothing_else(name: str) -> None:
    patterns = Patterns([name])
    assert patterns.takes(name)
    assert patterns.literal == (name,)
    assert not patterns.takes(name + "x")
    assert not patterns.takes("x" + name)
    assert not patterns.everything
    assert not Patterns([f"-{name}"]).takes(name)


@given(PLAIN)
def test_case_counts(name: str) -> None:
    assume(name != name.swapcase())
    assert not Patterns([name]).takes(name.swapcase())


@given(HOSTILE, HOSTILE)
def test_everything_takes_every_name(name: str, other: str) -> None:
    patterns = Patterns(["*"])
    assert patterns.takes(name)
    assert patterns.takes(name, other)
    assert patterns.everything


@given(HOSTILE)
def test_every_name_can_be_written_with_question_marks(name: str) -> None:
    written = "".join(c if c.isalnum() else "?" for c in name)
    assert Patterns([written]).takes(name)
    assert not Patterns([written]).takes(name + "a")
    assert not Patterns(["*", f"-{written}"]).takes(name)


@given(st.lists(PATTERN.filter(lambda p: p == p.strip()), min_size=1, max_size=5), PLAIN, st.randoms())
def test_exclusion_wins_whatever_the_order(others: list[str], name: str, shuffle: random.Random) -> None:
    patterns = [*others, "*", name, f"-{name}"]
    shuffle.shuffle(patterns)
    assert not Patterns(patterns).takes(name)
    assert not Patterns(patterns).takes("public." + name, name)


@given(st.lists(st.one_of(PLAIN, PLAIN.map("-{}".format)), min_size=1, max_size=6), PLAIN, st.randoms())
def test_the_order_does_not_matter(patterns: list[str], name: str, shuffle: random.Random) -> None:
    mixed = list(patterns)
    shuffle.shuffle(mixed)
    for probe in (name, *(p.lstrip("-") for p in patterns)):
        assert Patterns(patterns).takes(probe) == Patterns(mixed).takes(probe)


@given(PLAIN)
def test_nothing_but_exclusions_starts_from_everything(name: str) -> None:
    assert Patterns([f"-{name}"]).takes(name + "x")
    assert not Patterns([f"-{name}"]).everything


@pytest.mark.parametrize(
    ("pattern", "takes", "leaves"),
    [
        ("tmp_*", ["tmp_", "tmp_a", "tmp_a.b", "tmp_\n"], ["tmp", "a_tmp_", "TMP_a"]),
        ("o?ders", ["orders", "o.ders", "o\nders"], ["oders", "oorders"]),
        ("*.audit", ["public.audit", ".audit"], ["audit", "public.audit2"]),
        ("a.b", ["a.b"], ["aXb"]),
        ("a(b)+", ["a(b)+"], ["ab", "abb"]),
        ("-*", [], ["a", ""]),
    ],
)
def test_what_a_pattern_takes(pattern: str, takes: list[str], leaves: list[str]) -> None:
    patterns = Patterns([pattern])
    assert [n for n in takes if not patterns.takes(n)] == []
    assert [n for n in leaves if patterns.takes(n)] == []


@pytest.mark.parametrize(
    "pattern",
    ["[a-z]*", "{a,b}*", "a%", "^a", "^a$", "a$*", "a|b", "a\\*", "", " ", "-", "- ", "-[ab]*", "- tmp_*", " a", "a ",
     "!tmp_*", "-a%", "a\n"],
)  # fmt: skip
def test_another_syntax_is_refused_with_the_option_s_name(pattern: str) -> None:
    for patterns in ([pattern], ["*", pattern]):
        with pytest.raises(BadInput, match=r"tables: ") as raised:
            Patterns(patterns, "tables")
        assert raised.value.cure


def test_an_empty_list_is_refused_since_it_could_mean_all_or_none() -> None:
    with pytest.raises(BadInput, match="databases"):
        Patterns([], "databases")


@pytest.mark.parametrize(
    ("patterns", "everything", "named"),
    [
        (["*"], True, False),
        (["*", "*"], True, False),
        (["*", "-a"], False, False),
        (["-a"], False, False),
        (["*.*"], False, False),
        (["?*"], False, False),
        (["a*"], False, True),
        (["*", "a"], False, True),
        (["public.*"], False, True),
    ],
)
def test_what_takes_everything_and_what_names_something(patterns: list[str], everything: bool, named: bool) -> None:
    assert Patterns(patterns).everything is everything
    assert Patterns(patterns).named is named


@pytest.mark.parametrize(
    ("ref", "names"),
    [
        (Ref("shop", ("public", "orders")), ("public.orders", "orders")),
        (Ref("shop", ("orders",)), ("orders", "shop.orders")),
        (Ref("shop", ("orders",), "p2026"), ("orders", "shop.orders")),
        (Ref("/srv/a.sqlite"), ("/srv/a.sqlite",)),
        (Ref("shop", ("we.ird", "na.me")), ("we.ird.na.me", "na.me")),
    ],
)
def test_the_ways_to_write_a_table(ref: Ref, names: tuple[str, ...]) -> None:
    assert names_of(ref) == names
