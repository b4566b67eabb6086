# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Identifiers: quoting them, and reading them back from the names that InnoDB's dictionary uses. Nothing else."""

from __future__ import annotations

import re
import typing as t

from ..._records import Ref
from ..._tuples import NamedTuple

# `#P#` and `#SP#` stand before the names of partitions and subpartitions; MySQL writes them small since 8.0.18.
_PARTITION = re.compile(r"#p#", re.IGNORECASE)
_SUBPARTITION = re.compile(r"#sp#", re.IGNORECASE)


def quoted(*parts: str) -> str:
    """Identifiers in backticks, joined by dots: the one place where names become SQL."""
    return ".".join("`" + part.replace("`", "``") + "`" for part in parts)


def literal(text: str) -> str:
    """A text as it stands in SQL, for statements that take no bound values (sessions have backslash escapes on)."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def table_of(ref: Ref) -> str:
    """The table of a Ref, its partition left out."""
    return quoted(ref.database, *ref.path)


class Place(NamedTuple):
    """Where a piece of InnoDB's storage belongs."""

    table: str
    partition: str = ""


def place(name: str, tables: t.Mapping[str, bool]) -> Place | None:
    """The table and partition that a plain dictionary name stands for; `tables`: whether each table has partitions.

    A table may itself be called `a#p#b`, so whoever is known by the whole name comes first.
    """
    if name in tables and not tables[name]:
        return Place(name)
    for mark in _PARTITION.finditer(name):
        table = name[: mark.start()]
        if tables.get(table):
            return Place(table, _SUBPARTITION.split(name[mark.end() :])[0])
    return Place(name) if name in tables else None


def pieces(name: str) -> tuple[str, list[str]]:
    """The database of a file name such as `db/t#P#p@002d1`, and the parts between its `#`, all still encoded."""
    database, rest = name.partition("/")[::2]
    return database, rest.split("#")


def odd(parts: t.Iterable[str]) -> list[str]:
    """The parts that the server has to decode: whatever holds an `@`."""
    return sorted({part for part in parts if "@" in part})
