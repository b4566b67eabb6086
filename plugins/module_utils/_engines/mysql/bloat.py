# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of a table's file a rebuild would give back, without reading the table. No threshold."""

from __future__ import annotations

import typing as t

from ..._records import Bloat, Finding, Ref, Server, Wants
from .catalog import Contents


def estimates(link: t.Any, wants: Wants, contents: Contents, server: Server) -> tuple[dict[Ref, Bloat], list[Finding]]:
    return {}, []
