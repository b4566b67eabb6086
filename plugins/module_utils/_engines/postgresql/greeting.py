# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked first: version, role, clock, privileges, databases, and what the server lacks. No tables."""

from __future__ import annotations

import json
import typing as t

from ..._errors import Refused
from ..._records import DatabaseInfo, Finding, Ref, Server
from ..._tuples import NamedTuple
from . import pooler, space
from .connection import Connection
from .versions import NEWEST_TESTED, OLDEST, has

GREETING = """
SELECT pg_catalog.current_setting('server_version'),
       pg_catalog.current_setting('server_version_num')::pg_catalog.int4,
       pg_catalog.pg_is_in_recovery(),
       pg_catalog.clock_timestamp(),
       pg_catalog.pg_backend_pid(),
       CURRENT_USER::pg_catalog.text,
       (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER),
       ARRAY(SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r
              WHERE pg_catalog.starts_with(r.rolname::pg_catalog.text, 'pg_')
                AND pg_catalog.pg_has_role(r.oid, 'USAGE')),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication s WHERE s.state IS DISTINCT FROM 'backup'),
       (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots),
       pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE'),
       ARRAY(SELECT s.spcname::pg_catalog.text FROM pg_catalog.pg_tablespace s
              WHERE s.spcname NOT IN ('pg_default', 'pg_global')),
       (SELECT pg_catalog.jsonb_object_agg(s.name, s.setting)::pg_catalog.text FROM pg_catalog.pg_settings s
         WHERE s.name = ANY (%s))
"""
SETTINGS = (
    "archive_mode",
    "autovacuum_analyze_scale_factor",
    "autovacuum_freeze_max_age",
    "autovacuum_multixact_freeze_max_age",
    "autovacuum_vacuum_insert_scale_factor",
    "autovacuum_vacuum_insert_threshold",
    "block_size",
    "data_directory",
    "deadlock_timeout",
    "idle_session_timeout",
    "max_connections",
    "max_wal_size",
    "summarize_wal",
    "temp_tablespaces",
    "track_counts",
    "transaction_timeout",
    "wal_segment_size",
)
# Names as bytes: all databases share this catalog, and each of them wrote its name in an encoding of its own.
DATABASES = """
SELECT pg_catalog.namesend(d.datname), d.datistemplate, d.datallowconn, d.datconnlimit,
       pg_catalog.has_database_privilege(d.oid, 'CONNECT'),
       greatest(100.0 * pg_catalog.age(d.datfrozenxid) / %s, 100.0 * pg_catalog.mxid_age(d.datminmxid) / %s)
                ::pg_catalog.float8,
       CASE WHEN %s AND pg_catalog.has_database_privilege(d.oid, 'CONNECT')
            THEN pg_catalog.pg_database_size(d.oid) END
  FROM pg_catalog.pg_database d
 ORDER BY d.datname
"""
# What initdb made up: a standby and a copy of the files have their primary's.
IDENTITY = "SELECT system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system()"
INVALID = -2  # pg_database.datconnlimit after an interrupted DROP DATABASE


class Greeting(NamedTuple):
    version: str
    number: int
    standby: bool
    now: t.Any
    pid: int
    user: str
    superuser: bool
    roles: list[str]
    standbys: int
    slots: int
    tells: bool
    tablespaces: list[str]
    settings: str


def greet(connection: Connection, *, address: str, allow_untested: bool, sizes: bool = False) -> Server:
    """Sizes of databases cost a look at every file of the server. Raises Refused for a server that is too old."""
    (row,) = connection.rows(GREETING, (list(SETTINGS),))
    found = Greeting(*row)
    major = found.number // 10000
    if major < OLDEST:
        raise Refused(f"PostgreSQL {found.version} is too old", cure=f"Version {OLDEST} or newer is needed")
    settings: dict[str, t.Any] = json.loads(found.settings)
    settings.update(
        user=found.user,
        superuser=bool(found.superuser),
        roles=tuple(found.roles),
        slots=found.slots,
        standbys=found.standbys,
        pid=found.pid,
        tablespaces=tuple(found.tablespaces),
        identity=f"postgresql:{connection.rows(IDENTITY)[0][0] if found.tells else address}",
    )
    behind = pooler.recognise(connection, found.pid)
    settings["here"] = not behind and space.is_here(connection, found.pid, str(settings.get("data_directory") or ""))
    if settings["here"]:
        settings["device"] = space.device(str(settings["data_directory"]))
    return Server(
        engine="postgresql",
        version=found.version.split()[0],
        number=(major, found.number % 10000),
        address=address,
        role="standby" if found.standby else "primary",
        now=found.now,
        databases=databases(connection, settings, sizes),
        lacks={**_lacks(found, major, behind, allow_untested), **_lacks_incremental(settings, major)},
        settings=settings,
        findings=tuple(_findings(found, major, behind)),
    )


def databases(connection: Connection, settings: t.Mapping[str, t.Any], sizes: bool) -> tuple[DatabaseInfo, ...]:
    ages = (int(settings["autovacuum_freeze_max_age"]), int(settings["autovacuum_multixact_freeze_max_age"]))
    return tuple(
        DatabaseInfo(
            bytes(name).decode(errors="backslashreplace"),
            system=template,
            why_not=_closed(allows, limit, may_connect) or _misnamed(bytes(name)),
            bytes=None if size is None else int(size),
            freeze_percent=percent,
        )
        for name, template, allows, limit, may_connect, percent, size in connection.rows(DATABASES, (*ages, sizes))
    )


def _misnamed(name: bytes) -> str:
    try:
        name.decode()
    except UnicodeDecodeError:
        return "its name is not valid UTF-8, and nobody can ask for it by that: ALTER DATABASE … RENAME TO"
    return ""


def _closed(allows: bool, limit: int, may_connect: bool) -> str:
    if limit == INVALID:
        return "an interrupted DROP DATABASE left it invalid: drop it"
    if not allows:
        return "it does not allow connections (datallowconn)"
    return "" if may_connect else "the login may not connect to it: GRANT CONNECT ON DATABASE"


def _lacks(found: Greeting, major: int, behind: str, allow_untested: bool) -> dict[str, str]:
    lacks = {"drill folder": "where its temporary server lies is TMPDIR's to say"}
    if found.standby:
        lacks["write"] = "a standby: what is done on its primary arrives here"
    if behind:
        lacks["session"] = behind
    if found.tablespaces:
        lacks["encrypted physical"] = "pg_basebackup writes the files of tablespaces itself, unencrypted"
    if major > NEWEST_TESTED and not allow_untested:
        lacks["rewrite"] = f"PostgreSQL {major} is newer than any that was tested: allow_untested says go"
    if found.standbys:
        lacks["truncate"] = "standbys are attached: giving back empty pages would cancel queries there"
    return lacks


def _lacks_incremental(settings: t.Mapping[str, t.Any], major: int) -> dict[str, str]:
    if not has("incremental backups", major):
        return {"incremental": f"PostgreSQL {major} knows no incremental backups; 17 and newer do"}
    if settings.get("summarize_wal") != "on":
        return {"incremental": "summarize_wal is off: ALTER SYSTEM SET summarize_wal = on, and reload"}
    return {}


def _findings(found: Greeting, major: int, behind: str) -> t.Iterator[Finding]:
    server = Ref("")
    if found.standby:
        yield Finding(3, "standby", server, "a standby: steps are shown and skipped", fix="Maintain the primary")
    if behind:
        yield Finding(2, "pooler", server, behind, fix="Give the address of the server itself")
    if found.superuser:
        return
    if "pg_read_all_stats" not in found.roles:
        message = f"{found.user} cannot see other users' transactions: who keeps dead rows alive stays unknown"
        yield Finding(2, "no_activity", server, message, fix=_grant("pg_monitor", found.user))
    if "pg_read_all_data" not in found.roles and major > OLDEST:
        message = f"{found.user} cannot see statistics of tables that it may not read: missing ones go unnoticed there"
        yield Finding(3, "no_statistics", server, message, fix=_grant("pg_read_all_data", found.user))


def _grant(role: str, user: str) -> str:
    from .names import quoted

    return f"GRANT {role} TO {quoted(user)}"


def may_maintain_all(settings: t.Mapping[str, t.Any], major: int) -> bool:
    return bool(settings["superuser"]) or (has("maintain", major) and "pg_maintain" in settings["roles"])
