# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free space on the server's file systems, where we provably run on the server's machine, and what a rebuild needs."""

from __future__ import annotations

import os
import time
import typing as t
from pathlib import Path

from ..._records import Space, Step
from ..._tasks import Reindex
from ..._tuples import NamedTuple
from .connection import Connection
from .session import Session

WHO = """
SELECT coalesce(pg_catalog.host(pg_catalog.inet_client_addr()) || '(' || pg_catalog.inet_client_port() || ')',
                '[local]'),
       extract(epoch FROM (SELECT a.backend_start FROM pg_catalog.pg_stat_activity a
                            WHERE a.pid = pg_catalog.pg_backend_pid()))::pg_catalog.float8
"""
# By relpages: the functions that look at files would wait for locks. The step's own size is the newer one.
PARTS = """
SELECT pg_catalog.pg_tablespace_location(s.oid), pg_catalog.sum(p.relpages)::pg_catalog.int8,
       coalesce(pg_catalog.max(p.relpages) FILTER (WHERE p.relkind = 'i'), 0)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_class p ON p.oid IN (c.oid, c.reltoastrelid)
       OR p.oid IN (SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid IN (c.oid, c.reltoastrelid))
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
  JOIN pg_catalog.pg_tablespace s ON s.oid = coalesce(nullif(p.reltablespace, 0), d.dattablespace)
 WHERE n.nspname = %s AND c.relname = %s
 GROUP BY s.oid
"""
TABLESPACES = """
SELECT s.spcname::pg_catalog.text, pg_catalog.pg_tablespace_location(s.oid)
  FROM pg_catalog.pg_tablespace s
 WHERE s.spcname NOT IN ('pg_default', 'pg_global')
"""
# Of an index alone.
PART = """
SELECT pg_catalog.pg_tablespace_location(s.oid), c.relpages::pg_catalog.int8, c.relpages
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
  JOIN pg_catalog.pg_tablespace s ON s.oid = coalesce(nullif(c.reltablespace, 0), d.dattablespace)
 WHERE n.nspname = %s AND c.relname = %s
"""
MARGIN = 1.1
PROC = Path("/proc")
CLOCK_SLACK = 3.0  # seconds between a process's start and what its server says of it


class Disk(NamedTuple):
    device: int
    free: int
    total: int


class Needs(NamedTuple):
    """Bytes that a rebuild needs: by tablespace folder ("" is the data directory), for WAL, and for sorting."""

    folders: dict[str, float]
    wal: float
    sort: float


def is_here(connection: Connection, pid: int, data_directory: str) -> bool:
    """Whether the server process of this connection is a process of this machine, and its files are ours to see.

    A number alone proves nothing (containers number their own processes): the process must be called after this very
    connection, have been started when the server says, and own a data directory that is there.
    """
    ((client, started),) = connection.rows(WHO)
    try:
        title = (PROC / str(pid) / "cmdline").read_bytes().decode(errors="replace")
        owner = (PROC / str(pid)).stat().st_uid
        folder = Path(data_directory).stat().st_uid if data_directory else -1
    except OSError:
        return False
    named = title.startswith("postgres") and client in title
    return named and owner == folder and _same_mounts(pid) and abs(_started(pid) - started) < CLOCK_SLACK


def device(data_directory: str) -> int | None:
    """The number of the file system that the data is on."""
    try:
        return Path(data_directory).stat().st_dev
    except OSError:
        return None


def _same_mounts(pid: int) -> bool:
    try:
        return (PROC / str(pid) / "ns" / "mnt").readlink() == (PROC / "self" / "ns" / "mnt").readlink()
    except OSError:
        return True  # another user's process keeps it secret: the owner of the data directory has to do


def _started(pid: int) -> float:
    """Seconds since the epoch. Source: proc(5)."""
    try:
        ticks = float((PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()[19])
        running = float((PROC / "uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return time.time() - running + ticks / os.sysconf("SC_CLK_TCK")


def disk(folder: str) -> Disk | None:
    """None where we may not look (pg_wal lies in a folder that only the server's user and root may enter)."""
    try:
        found = os.statvfs(folder)
        return Disk(Path(folder).stat().st_dev, found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
    except OSError:
        return None


def spaces(session: Session, settings: t.Mapping[str, t.Any]) -> tuple[Space, ...]:
    """The file systems of data, WAL and tablespaces."""
    folders = {"data": _data(settings), "wal": _wal(settings)}
    folders.update({f"tablespace {name}": folder for name, folder in session.rows(TABLESPACES)})
    found = []
    for name, folder in folders.items():
        there = disk(folder) if settings["here"] else None
        found.append(Space(name, there.free, there.total) if there else Space(name))
    return tuple(found)


def _data(settings: t.Mapping[str, t.Any]) -> str:
    return str(settings.get("data_directory") or "")


def _wal(settings: t.Mapping[str, t.Any]) -> str:
    return f"{_data(settings)}/pg_wal"


def needs(session: Session, step: Step, settings: t.Mapping[str, t.Any]) -> Needs:
    """What is new beside what is old, a sort as large as the largest index, and all of it as WAL."""
    block = int(settings["block_size"])
    parts = session.rows(PART if isinstance(step.task, Reindex) else PARTS, step.task.ref.path)
    known = float(sum(pages for folder, pages, largest in parts))
    total = max(float(step.size), known * block)
    # A table that nobody vacuumed or analyzed yet has no pages in the catalog: all of it counts everywhere.
    folders = {folder: MARGIN * total * (pages / known if known else 1.0) for folder, pages, largest in parts}
    largest_index = float(max((largest for folder, pages, largest in parts), default=0) * block)
    # Recycled within twice max_wal_size, unless somebody must have read it first.
    kept = settings["archive_mode"] != "off" or settings["slots"] or settings["standbys"]
    wal = total if kept else min(total, 2.0 * float(settings["max_wal_size"]) * (1 << 20))
    if not settings["temp_tablespaces"]:
        folders[""] = folders.get("", 0.0) + largest_index
    return Needs(folders or {"": MARGIN * total}, wal, largest_index)


def missing(
    session: Session, name: str, step: Step, settings: t.Mapping[str, t.Any], assumed: int | None
) -> float | None:
    """Bytes missing for the gauges disk_missing, wal_missing and tmp_missing; None: it cannot be known."""
    wanted = needs(session, step, settings)
    found = _missing(session, name, wanted, settings) if settings["here"] else None
    if found is not None or assumed is None:
        return found
    sums = {"disk_missing": sum(wanted.folders.values()), "wal_missing": wanted.wal, "tmp_missing": 0.0}
    return sums[name] - assumed


def _missing(session: Session, name: str, wanted: Needs, settings: t.Mapping[str, t.Any]) -> float | None:
    if name == "tmp_missing":
        return _temporary(session, wanted, settings)
    used: dict[Disk, float] = {}
    for folder, size in wanted.folders.items():
        there = disk(folder or _data(settings))
        if there is None:
            return None
        used[_same(used, there)] = used.get(_same(used, there), 0.0) + size
    if name == "disk_missing":
        return max(size - there.free for there, size in used.items())
    there = disk(_wal(settings))
    return None if there is None else wanted.wal + used.get(_same(used, there), 0.0) - there.free


def _same(known: t.Mapping[Disk, float], found: Disk) -> Disk:
    """The disk as it is already counted: free space moves between two looks."""
    return next((other for other in known if other.device == found.device), found)


def _temporary(session: Session, wanted: Needs, settings: t.Mapping[str, t.Any]) -> float | None:
    """Only where sorts have a tablespace of their own; elsewhere they are counted with the data."""
    names = [name.strip().strip('"') for name in str(settings["temp_tablespaces"]).split(",") if name.strip()]
    if not names:
        return 0.0
    folders = [folder for name, folder in session.rows(TABLESPACES) if name in names]
    found = [there for there in (disk(folder or _data(settings)) for folder in folders) if there]
    return wanted.sort - min(there.free for there in found) if found else None
