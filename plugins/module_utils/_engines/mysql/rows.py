# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How InnoDB stores a row: bytes of each column, numbers where they are fixed and SQL where they are not. Pure."""

from __future__ import annotations

import re
import typing as t

from ..._tuples import NamedTuple
from .names import quoted

# https://dev.mysql.com/doc/refman/8.4/en/storage-requirements.html; MariaDB's own types with them.
FIXED = {"tinyint": 1, "smallint": 2, "mediumint": 3, "int": 4, "bigint": 8, "float": 4, "double": 8}
FIXED.update({"date": 3, "year": 1, "inet4": 4, "inet6": 16, "uuid": 16})
TIMES = {"time": 3, "timestamp": 4, "datetime": 5}
_DIGITS = (0, 1, 1, 2, 2, 3, 3, 4, 4)  # bytes for the digits that do not fill a group of nine
_POINTER = 20  # what stays in the row of a value that is stored on pages of its own


class Column(NamedTuple):
    """A column as it is stored: `bytes` where that is fixed, else `sql`, an expression for it that is never NULL."""

    name: str
    bytes: float = 0.0
    sql: str = ""
    nullable: bool = False
    stored: bool = True  # a virtual column is in no row, but may be in an index
    away: bool = False  # long values may leave the row
    length_bytes: int = 0  # for the length before a variable value: at least


def column(row: t.Sequence[t.Any], *, json_size: bool) -> Column:
    """From a row of the query COLUMNS in bloat.py.

    `json_size`: the server knows JSON_STORAGE_SIZE, since LENGTH() of JSON is that of its text.
    """
    name, kind, whole = str(row[0]), str(row[1]).lower(), str(row[2]).lower()
    nullable, stored = str(row[8]) == "YES", "VIRTUAL" not in str(row[9]).upper()
    fixed = _fixed(kind, whole, row)
    if fixed is not None:
        present = f"({quoted(name)} IS NOT NULL) * {fixed}" if nullable else ""
        return Column(name, 0 if nullable else fixed, present, nullable, stored)
    octets, characters = int(row[6] or 0), int(row[7] or 0)
    length = f"COALESCE(LENGTH({quoted(name)}), 0)"
    if kind == "json" and json_size:
        length = f"COALESCE(JSON_STORAGE_SIZE({quoted(name)}), 0)"
    if kind == "char":
        if octets <= characters:
            return Column(name, octets, "", nullable, stored)
        # Padded to as many bytes as characters, more where they need more.
        length = f"GREATEST({characters}, {length})"
    return Column(name, 0, length, nullable, stored, kind != "char", 1 if 0 < octets <= 255 else 2)


def _fixed(kind: str, whole: str, row: t.Sequence[t.Any]) -> float | None:
    precision, scale, fraction, octets = (int(value or 0) for value in row[3:7])
    members = len(re.findall(r"'(?:[^']|'')*'", whole))
    sizes: dict[str, float] = {
        **FIXED,
        **{name: size + (fraction + 1) // 2 for name, size in TIMES.items()},
        "decimal": sum(n // 9 * 4 + _DIGITS[n % 9] for n in (precision - scale, scale)),
        "bit": (precision + 7) // 8,
        "binary": octets,
        "enum": 1 if members < 256 else 2,
        "set": next((size for size in (1, 2, 3, 4) if members <= 8 * size), 8),
    }
    return sizes.get(kind)


class Layout(NamedTuple):
    """The page format that a row lies in."""

    page: int  # bytes of a page in memory
    prefix: int  # bytes of a long value that stay in the row beside its pointer: 0 for DYNAMIC, 768 for COMPACT
    away_page: int  # bytes of a long value that fit a page of its own
    reserve: float | None = None  # share of a segment that is kept for its growth, where that is a setting

    @property
    def usable(self) -> int:
        """Without the page's headers, its two system records and its trailer."""
        return self.page - 128

    @property
    def longest_row(self) -> int:
        return self.usable // 2


def overhead(columns: t.Sequence[Column]) -> float:
    """Of a clustered record: header, NULL bits, lengths, transaction id, roll pointer, its share of the directory."""
    inside = [c for c in columns if c.stored]
    return 5 + (sum(c.nullable for c in inside) + 7) // 8 + sum(c.length_bytes for c in inside) + 13 + 0.5


def row_sql(columns: t.Sequence[Column], layout: Layout) -> tuple[str, str]:
    """Two expressions for a row: its bytes within the clustered index's pages, and pages for values stored away."""
    inside = [c for c in columns if c.stored]
    fixed = overhead(columns) + sum(c.bytes for c in inside)
    variable = [c.sql for c in inside if c.sql]
    total = " + ".join([f"{fixed:.1f}", *variable])
    long = [c.sql for c in inside if c.away]
    if not long:
        return total, "0"
    stays = _POINTER + layout.prefix
    largest = f"GREATEST({', '.join(long)}, 0)" if len(long) > 1 else long[0]
    # The longest value leaves first; where that is not enough this takes all of them to have left.
    least = " + ".join([f"{fixed:.1f}", *(f"LEAST({c.sql}, {stays})" if c.away else c.sql for c in inside if c.sql)])
    pages = " + ".join(f"IF({sql} > {2 * stays}, CEIL({sql} / {layout.away_page}), 0)" for sql in long)
    one = f"({total}) - {largest} + {stays}"
    fits, second = f"({total}) <= {layout.longest_row}", f"({one}) <= {layout.longest_row}"
    return (
        f"IF({fits}, {total}, IF({second}, {one}, {least}))",
        f"IF({fits}, 0, IF({second}, CEIL({largest} / {layout.away_page}), {pages}))",
    )
