# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How names and values are written in SQL: the one place where anything is quoted. No statement."""

from __future__ import annotations

from ..._records import Ref


def quoted(name: str) -> str:
    """An identifier, whatever is in it. Source: the manual, 4.1.1."""
    return '"' + name.replace('"', '""') + '"'


def table_name(ref: Ref) -> str:
    """`"schema"."table"`."""
    return ".".join(quoted(part) for part in ref.path)


def option_value(value: str) -> str:
    """A value within libpq's `options`: blanks and backslashes need a backslash. Source: pg_split_opts()."""
    return "".join("\\" + c if c in "\\ \t\n\r\f\v" else c for c in value)


def conninfo_value(value: str) -> str:
    """A value within a connection string. Source: the manual, 34.1.1.1."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def literal(text: str) -> str:
    """A string in a statement that somebody copies: right whatever standard_conforming_strings says there."""
    if "\\" in text:
        return "E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
    return "'" + text.replace("'", "''") + "'"
