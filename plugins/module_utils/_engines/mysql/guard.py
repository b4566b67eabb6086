# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writing run at a time on a database: locks by name, held by a connection of their own. No other lock is here."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import typing as t

from ..._errors import DbFault, Held
from .activity import who_is

TAKE = "SELECT GET_LOCK(%s, %s)"
HOLDER = "SELECT IS_USED_LOCK(%s)"


def name_of(database: str) -> str:
    """The lock's name: the server allows 64 characters and knows no case."""
    return f"dbfleet:{hashlib.sha256(database.encode()).hexdigest()[:48]}"


def take(link: t.Any, databases: t.Sequence[str], wait: float) -> None:
    """Takes the locks of all databases, always in the same order. Raises Held, naming the holder where it can be seen.

    They end with the connection, however that ends. On a Galera or group cluster they hold on this node.
    """
    until = time.monotonic() + wait
    for database in sorted(set(databases)):
        left = max(0, math.ceil(until - time.monotonic()))
        if link.rows(TAKE, (name_of(database), left))[0][0] != 1:
            raise Held(
                f"another run is at work on this database{_holder(link, database)}",
                database=database,
                cure="Wait for it, or set if_running to skip or wait",
            )


def _holder(link: t.Any, database: str) -> str:
    with contextlib.suppress(DbFault):
        process = link.rows(HOLDER, (name_of(database),))[0][0]
        return f" ({who_is(link, int(process))})" if process else ""
    return ""
