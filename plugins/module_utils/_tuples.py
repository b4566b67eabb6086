# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NamedTuple for the bottom shelf, defined faster than typing's. No record lives here: they stand in _records.py.

A module run defines some seventy records. typing compiles every annotation that is a string, as all are here, to an
object that nobody looks at: with the rest of its work 20 ms of every run on every host of a fleet.
"""

from __future__ import annotations

import typing as t

__all__ = ["NamedTuple"]

MADE = (
    "__module__",
    "__qualname__",
    "__annotations__",
    "__annotate_func__",
    "__annotate__",
    "__classcell__",
)  # of the class, not of what it defines

if t.TYPE_CHECKING:
    from typing import NamedTuple
else:

    class _Record(type):
        """Makes of a class with annotated fields what typing.NamedTuple makes of it."""

        def __new__(cls, name: str, bases: tuple[type, ...], given: dict[str, t.Any]) -> type:
            if not bases:
                return super().__new__(cls, name, bases, given)
            fields = given.get("__annotations__")
            if fields is None:  # an interpreter that makes them when they are asked for: 1 is annotationlib's VALUE
                annotate = given.get("__annotate_func__") or given.get("__annotate__")
                fields = annotate(1) if annotate else {}
            # A type that is none of a string is not compiled.
            made = t.NamedTuple(name, [(field, object) for field in fields])
            made.__module__, made.__annotations__ = given["__module__"], fields
            made._field_defaults = {field: given[field] for field in fields if field in given}
            made.__new__.__defaults__ = tuple(made._field_defaults.values())
            for key, value in given.items():
                if key not in fields and key not in MADE:
                    setattr(made, key, value)
            return made

    class NamedTuple(metaclass=_Record):
        """The base of a record; instances are tuples, not of this class."""
