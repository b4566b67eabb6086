# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Names in the encoding of a database, which is also what pg_dump speaks with it. Nothing is read here."""

from __future__ import annotations

import codecs
import os
import typing as t

# What the server calls an encoding that Python calls otherwise. Source: the manual, Character Set Support.
CODECS = {
    "EUC_CN": "gb2312",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    **{f"LATIN{n}": f"iso8859-{part}" for n, part in zip(range(1, 11), (1, 2, 3, 4, 9, 10, 13, 14, 15, 16))},
    **{f"ISO_8859_{part}": f"iso8859-{part}" for part in (5, 6, 7, 8)},
    **{f"WIN{page}": f"cp{page}" for page in (866, 874, *range(1250, 1259))},
}
PATTERNS = ("--table=", "--exclude-table-data=")


def codec(encoding: str) -> str | None:
    """Python's name of a server's encoding, where it has that encoding; SQL_ASCII holds whatever clients sent."""
    try:
        return codecs.lookup(CODECS.get(encoding, encoding)).name
    except LookupError:
        return None


def spoken(argv: t.Sequence[str], encoding: str) -> list[str]:
    """The command line as pg_dump has to get it: it sends patterns to the server as the bytes that they are.

    A name that the encoding lacks stays as it is: there is no such table in that database.
    """
    name = codec(encoding) or "utf-8"
    return [_spoken(word, name) if word.startswith(PATTERNS) else word for word in argv]


def _spoken(word: str, name: str) -> str:
    try:
        return os.fsdecode(word.encode(name))
    except UnicodeEncodeError:
        return word
