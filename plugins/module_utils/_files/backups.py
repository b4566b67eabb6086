# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup folder: what lies there, and what may be taken away. How files are filled stands in store.py.

`<folder>/<database>/<id>.<ending>` and, written last, `<id>.manifest.json`; `<id>.partial` while it is written: whoever
writes holds its lock.
"""

from __future__ import annotations

import typing as t
from datetime import datetime

from .._backups import Backup, Shelf, Sheltered, Unfinished


def look(wanted: Sheltered) -> Shelf:
    """The folder as it is; changes nothing. Never raises: what is wrong is in `why_not`."""
    return Shelf(wanted.folder)


def newest(folder: str, *, server: str, database: str, methods: t.Sequence[str] = ()) -> Backup | None:
    """The youngest complete backup of that database at this moment; `methods`: only these. Raises Refused."""
    raise NotImplementedError


def amend(
    backup: Backup,
    *,
    level: str = "",
    at: datetime | None = None,
    copies: t.Sequence[str] = (),
    rows: t.Mapping[str, int] | None = None,
    pin: bool | None = None,
) -> Backup:
    """Writes into the manifest as it is now: how far it was verified (never less than before), … Raises Refused."""
    raise NotImplementedError


def remove(backup: Backup) -> int:
    """Removes the files that the manifest names, and the manifest last; bytes freed. Raises Refused.

    The manifest is read again: what it names by now is removed, and never anything outside of its folder.
    """
    raise NotImplementedError


def clear(folder: str, unfinished: Unfinished) -> int:
    """Removes what a backup that died left behind, unless somebody works on it; bytes freed. Raises Busy, Refused."""
    raise NotImplementedError
