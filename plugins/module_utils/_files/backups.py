# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup folder: manifests read and written, and what lies beside them. How files are filled stands in store.py."""

from __future__ import annotations

from .._backups import Shelf, Sheltered


def look(wanted: Sheltered) -> Shelf:
    """The folder as it is; changes nothing. Never raises: what is wrong is in `why_not`."""
    return Shelf(wanted.folder)
