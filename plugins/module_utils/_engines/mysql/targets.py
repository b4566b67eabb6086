# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes where when old rows are archived: columns, how they are read for files, what tells rows apart. Pure."""

from __future__ import annotations

import typing as t
import zlib

from ..._retention import Column, Frame
from ..._tuples import NamedTuple
from . import old_rows
from .names import quoted
from .stores import Field, Store


class Target(NamedTuple):
    """Where the rows of a table go: into which table, or through memory into a file."""

    store: Store
    fields: tuple[Field, ...]
    to: Store | None = None

    @property
    def columns(self) -> tuple[Column, ...]:
        return tuple(Column(f.name, f.type, encoding(f)) for f in self.fields)


def encoding(field: Field) -> str:
    """Of a column's values in files. See `written`."""
    if field.kind == old_rows.NUMBER or field.data_type in ("float", "double"):
        return "number"
    return "hex" if is_binary(field) else "text"


def is_binary(field: Field) -> bool:
    spatial = "geom" in field.data_type or field.data_type.endswith(("point", "string", "polygon", "vector"))
    return field.data_type == "bit" or "binary" in field.data_type or "blob" in field.data_type or spatial


def written(field: Field, of: str = "") -> str:
    """A column as it is read for a file: a FLOAT would be rounded to six digits."""
    name = f"{quoted(of)}.{quoted(field.name)}" if of else quoted(field.name)
    if field.data_type == "float":
        return f"{name} + 0e0"
    return name


def fingerprint(row: t.Sequence[t.Any]) -> int:
    """Of a row's content, as the server writes it."""
    return zlib.crc32(repr(tuple(row)).encode("utf-8", "surrogatepass"))


def plain(value: t.Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def merged(frames: t.Sequence[Frame]) -> list[Frame]:
    """One frame a table."""
    found: dict[t.Any, Frame] = {}
    for frame in frames:
        known = found.get(frame.table)
        if known is None:
            found[frame.table] = frame
            continue
        ends = [e for e in (known.first, frame.first) if e], [e for e in (known.last, frame.last) if e]
        found[frame.table] = known._replace(
            rows=[*known.rows, *frame.rows],
            keys=[*known.keys, *frame.keys],
            first=min(ends[0], default=""),
            last=max(ends[1], default=""),
        )
    return list(found.values())
