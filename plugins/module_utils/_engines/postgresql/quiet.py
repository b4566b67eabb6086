# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections that wake no trigger of events: a dump brings some along, and is not restored to its end by then.

pg_dump has materialized views refreshed, and privileges granted, after event triggers are there: one that refuses such
commands keeps the dump from being restored, and one that acts acts on another database than it was meant for.
"""

from __future__ import annotations

from .connection import Connection, Connector
from .versions import has

# By whoever logs in: the setting is made before any other role is taken.
MAY = """
SELECT r.rolsuper, pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000
  FROM pg_catalog.pg_roles r WHERE r.rolname = SESSION_USER
"""


def asleep(version: int) -> dict[str, str]:
    """The setting that a superuser makes. Keys are checked all the same when they are made, and rows copied as ever."""
    if has("event triggers off", version):
        return {"event_triggers": "off"}
    return {"session_replication_role": "replica"}


def quiet(worker: Connection, connector: Connector) -> Connector:
    """To the same server; the very same where only superusers may, who alone could make such triggers."""
    ((superuser, version),) = worker.rows(MAY)
    if not superuser:
        return connector
    said = " ".join(f"-c {name}={value}" for name, value in asleep(version).items())
    login = connector.login
    made = Connector(login._replace(options=f"{login.options} {said}".strip()))
    made.major = version  # or programs would be given none of the settings that not every version knows
    return made
