# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our NamedTuple against typing's."""

from __future__ import annotations

import copy
import pickle
import typing as t

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._tuples import NamedTuple


class Ours(NamedTuple):
    """A record."""

    name: str
    size: int = 0
    parts: tuple[str, ...] = ()

    @property
    def large(self) -> bool:
        return self.size > 1

    def __str__(self) -> str:
        return self.name


class Theirs(t.NamedTuple):
    """A record."""

    name: str
    size: int = 0
    parts: tuple[str, ...] = ()

    @property
    def large(self) -> bool:
        return self.size > 1

    def __str__(self) -> str:
        return self.name


def test_a_record_is_what_typing_makes() -> None:
    ours, theirs = Ours("a", parts=("b",)), Theirs("a", parts=("b",))
    assert tuple(ours) == tuple(theirs) == ("a", 0, ("b",))
    assert (str(ours), ours.large, ours._replace(size=2).large) == ("a", False, True)
    assert ours._asdict() == theirs._asdict()
    assert (Ours._fields, Ours._field_defaults) == (Theirs._fields, Theirs._field_defaults)
    assert (Ours.__doc__, Ours.__module__, Ours.__name__) == (Theirs.__doc__, Theirs.__module__, "Ours")
    assert repr(ours) == repr(theirs).replace("Theirs", "Ours")
    assert Ours.__annotations__.keys() == Theirs.__annotations__.keys()


def test_a_record_is_copied_and_pickled() -> None:
    ours = Ours("a", 1)
    assert copy.deepcopy(ours) == pickle.loads(pickle.dumps(ours)) == ours
    assert copy.copy(ours).__class__ is Ours


@pytest.mark.parametrize("wrong", [{}, {"name": "a", "length": 1}])
def test_a_record_takes_its_fields_and_no_others(wrong: dict[str, t.Any]) -> None:
    with pytest.raises(TypeError):
        Ours(**wrong)
    with pytest.raises(AttributeError):
        delattr(Ours("a"), Ours._fields[0])
