# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The server as a whole: flavour, role, clock, databases, what it lacks, which grants are missing. No table is read."""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone

from ..._errors import DbFault, Refused
from ..._records import DatabaseInfo, Finding, Ref, Server
from . import privileges
from .activity import connected_replicas
from .capabilities import MARIADB, SYSTEM_DATABASES
from .privileges import Grants, read_grants

SETTINGS = (
    "read_only",
    "lower_case_table_names",
    "log_bin",
    "hostname",
    "datadir",
    "tmpdir",
    "innodb_tmpdir",
    "innodb_page_size",
    "innodb_stats_persistent",
    "innodb_stats_auto_recalc",
    "innodb_online_alter_log_max_size",
    "performance_schema",
    "max_connections",
    "init_connect",
    "sql_select_limit",
)
DATABASES = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA"
GROUP_MEMBERS = """
    SELECT MEMBER_HOST, MEMBER_PORT, MEMBER_STATE, MEMBER_ROLE, MEMBER_ID = @@server_uuid
      FROM performance_schema.replication_group_members
     WHERE MEMBER_STATE <> 'OFFLINE'"""
SERVER = Ref("")
ALL_ROWS = (1 << 63) - 1  # of sql_select_limit: the default is twice as many


def greet(link: t.Any) -> tuple[Server, Grants]:
    """Reads version, role, clock, databases and what the server lacks. Raises CannotConnect."""
    settings = read_settings(link)
    grants = read_grants(link)
    findings: list[Finding] = list(missing_grants(grants, link.flavour.name))
    role, source = read_role(link, settings, grants, findings)
    lacks = {**link.flavour.lacks(), **_lacks(link, settings, grants, role)}
    settings.update(source=source, ours=link.id, identity=identity(link))
    settings["rows_hidden"] = _hidden_rows(link, settings)
    settings["may_keep_local"] = grants.any_of(privileges.KEEP_LOCAL[link.flavour.name])
    names = [str(row[0]) for row in link.rows(DATABASES)]
    server = Server(
        engine=link.flavour.name,
        version=link.flavour.version,
        number=link.flavour.number,
        address=link.login.address,
        role=role,
        now=clock(link),
        databases=tuple(DatabaseInfo(n) for n in sorted(names) if n.lower() not in SYSTEM_DATABASES),
        lacks=lacks,
        settings=settings,
        findings=tuple(findings),
    )
    return server, grants


def clock(link: t.Any) -> datetime:
    """The server's clock; the session's time zone is UTC."""
    now: datetime = link.rows("SELECT NOW(6)")[0][0]
    return now.replace(tzinfo=timezone.utc)


def identity(link: t.Any) -> str:
    """What tells this server from every other, wherever it is reached; its address where it has nothing of the kind.

    MariaDB has server_uid since 10.5.26, 10.6.19, 10.11.9 and 11.2.5 (MDEV-33987).
    """
    rows = link.rows("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('server_uuid', 'server_uid')")
    own = next((str(value) for _name, value in rows if value), "")
    return f"{link.flavour.name}:{own or link.login.address}"


def read_settings(link: t.Any) -> dict[str, t.Any]:
    names = list(SETTINGS)
    names += [f"innodb_{n.replace(' ', '_')}" for n in ("segment reserve factor",) if link.flavour.has(n)]
    names += [n for n in ("super_read_only",) if link.flavour.has(n)]
    row = link.rows("SELECT " + ", ".join(f"@@GLOBAL.{name}" for name in names))[0]
    found = dict(zip(names, row))
    if link.flavour.has("galera"):
        found.update((str(k).lower(), v) for k, v in link.rows("SHOW GLOBAL VARIABLES LIKE 'wsrep\\_%'"))
    return found


def missing_grants(grants: Grants, engine: str) -> t.Iterator[Finding]:
    """What this login cannot see, and the GRANT that shows it. What a database lacks is said by its own measurement."""
    if not grants.allow("PROCESS"):
        message = (
            "the login cannot see InnoDB's file sizes and change counters, nor other sessions: sizes are rough,"
            " ANALYZE is never due, and nobody who is in the way is seen"
        )
        yield _missing(message, grants.statement(["PROCESS"]))
    if not grants.allow("SELECT", "mysql", "innodb_table_stats"):
        message = "the login cannot see when tables were analyzed"
        yield _missing(message, grants.statement(["SELECT"], "mysql", "innodb_table_stats"))
    if not grants.allow("SELECT", "mysql", "innodb_index_stats"):
        message = "the login cannot see the sizes of indexes: none is ever found bloated"
        yield _missing(message, grants.statement(["SELECT"], "mysql", "innodb_index_stats"))
    if not grants.any_of(privileges.READ_REPLICATION[engine]):
        message = "the login cannot see whether this server is a replica"
        yield _missing(message, grants.statement(privileges.READ_REPLICATION[engine][:1]))


def _missing(message: str, fix: str) -> Finding:
    return Finding(2, "missing_privilege", SERVER, message, fix=fix)


def read_role(link: t.Any, settings: t.Mapping[str, t.Any], grants: Grants, findings: list[Finding]) -> tuple[str, str]:
    """Primary or replica, and of whom. Where it cannot be seen a read-only server counts as a replica."""
    try:
        rows = replica_status(link)
    except Refused as refused:
        if grants.any_of(privileges.READ_REPLICATION[link.flavour.name]):
            findings.append(Finding(2, "role_unknown", SERVER, f"the role is not known: {refused.cause}"))
        return ("replica", "") if settings["read_only"] else ("primary", "")
    if rows:
        host = rows[0].get("Source_Host") or rows[0].get("Master_Host") or ""
        return "replica", str(host)
    member = next((row for row in group_members(link) if row[4]), None)
    return ("replica" if member and member[3] == "SECONDARY" else "primary"), ""


def replica_status(link: t.Any) -> list[dict[str, t.Any]]:
    """One row a source, none on a primary. Raises Refused without the privilege."""
    words = "REPLICA" if link.flavour.has("replica words") else "SLAVE"
    every = "ALL REPLICAS" if link.flavour.has("all replicas status") else words
    found: list[dict[str, t.Any]] = link.records(f"SHOW {every} STATUS")
    return found


def group_members(link: t.Any) -> list[tuple[t.Any, ...]]:
    """Members of a replication group; none where there is no group, or where it cannot be seen."""
    if not link.flavour.has("group replication"):
        return []
    try:
        found: list[tuple[t.Any, ...]] = link.rows(GROUP_MEMBERS)
    except DbFault:
        return []
    return found


def _lacks(link: t.Any, settings: t.Mapping[str, t.Any], grants: Grants, role: str) -> dict[str, str]:
    found = {}
    if not link.direct:
        found["session"] = "a proxy that shares connections is in between: locks and settings of a session do not hold"
    found.update(_read_only(link, settings, grants))
    if role == "replica":
        if settings["log_bin"] and not grants.any_of(privileges.KEEP_LOCAL[link.flavour.name]):
            needed = grants.statement(privileges.KEEP_LOCAL[link.flavour.name][:1])
            why = f"the login may not keep a rebuild out of this replica's binary log: {needed}"
            found.update({"online rebuild": why, "exclusive rebuild": why})
        return found
    why = _replicated(link, settings)
    if why:
        found["local rebuild"] = why
    return found


def _hidden_rows(link: t.Any, settings: t.Mapping[str, t.Any]) -> tuple[str, str]:
    """Why programs that dump would get only some of the rows, and say nothing of it; and what helps. Ours set it."""
    most = int(settings["sql_select_limit"])
    if most < ALL_ROWS:
        why = f"sql_select_limit is {most}: a dump would have no more rows of any table"
        return why, "SET GLOBAL sql_select_limit = DEFAULT"
    if "sql_select_limit" in str(settings["init_connect"]).lower():
        return "init_connect sets sql_select_limit: a dump might not have all rows", "SET GLOBAL init_connect = ''"
    if link.flavour.name == MARIADB:
        past = str(link.rows("SELECT @@GLOBAL.system_versioning_asof")[0][0])
        if past != "DEFAULT":
            why = f"system_versioning_asof is {past}: a dump would have the rows of that time"
            return why, "SET GLOBAL system_versioning_asof = DEFAULT"
    return "", ""


def _read_only(link: t.Any, settings: t.Mapping[str, t.Any], grants: Grants) -> dict[str, str]:
    """Neither ALTER nor ANALYZE NO_WRITE_TO_BINLOG is let through (tried on MySQL 9.7, MariaDB 10.11 and 11.8)."""
    why = ""
    if settings.get("super_read_only"):
        why = "the server is super_read_only"
    elif settings["read_only"] not in (0, "OFF") and not grants.any_of(privileges.PAST_READ_ONLY[link.flavour.name]):
        needed = grants.statement(privileges.PAST_READ_ONLY[link.flavour.name][:1])
        why = f"the server is read_only, and the login may not write all the same: {needed}"
    return {"write": why} if why else {}


def _replicated(link: t.Any, settings: t.Mapping[str, t.Any]) -> str:
    """Who would have to repeat a rebuild, in words; empty when nobody would."""
    if (
        str(settings.get("wsrep_on", "OFF")).upper() in ("ON", "1")
        and str(settings.get("wsrep_provider", "")) != "none"
    ):
        method, cluster = settings.get("wsrep_osu_method", "TOI"), settings.get("wsrep_cluster_name", "")
        if str(method).upper() == "TOI":
            return f"it is a node of the Galera cluster {cluster} (wsrep_OSU_method TOI), which a rebuild would block"
    members = [f"{row[0]}:{row[1]}" for row in group_members(link) if not row[4]]
    if members:
        return f"it would be repeated by the group's members {', '.join(members)}"
    replicas = connected_replicas(link)
    return f"it would be repeated by the replicas {', '.join(replicas)}" if replicas else ""
