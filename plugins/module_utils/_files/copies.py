# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of a backup elsewhere: in a folder (a mounted share), or in a bucket (s3.py). Verified there, or not there."""

from __future__ import annotations

import threading
import typing as t

from .._backups import Backup, Bucket


def copy(
    backup: Backup,
    to: str,
    *,
    bucket: Bucket | None = None,
    stop: threading.Event | None = None,
    rate_limit: int | None = None,
) -> t.Generator[int, None, None]:
    """Copies, reads it again there and compares; then the manifest there, then `copies` of the manifest here.

    Yields bytes since the last time, at least once a second. What is there already, and whole, is verified only.
    Raises BadInput, Refused, MissingMeans, Gone, Stopped: then no manifest is there.
    """
    yield 0
    raise NotImplementedError


def remove(backup: Backup, to: str, *, bucket: Bucket | None = None) -> int:
    """Removes the copy there, the manifest last; bytes freed. Not there: 0. Raises Refused, MissingMeans, Gone."""
    raise NotImplementedError
