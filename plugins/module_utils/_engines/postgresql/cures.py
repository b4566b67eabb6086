# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The words of cures that nobody carries out: the fixes of findings."""

from __future__ import annotations

from ..._records import Server
from ..._tasks import Cure


def spell(task: Cure, server: Server) -> list[str]:
    raise NotImplementedError
