# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Free space on the server's file systems, where this machine provably is the server's. No SQL but to find that out."""

from __future__ import annotations

import os
import socket
import typing as t

from ..._errors import DbFault
from ..._records import Space

THREAD = {
    True: "SELECT THREAD_OS_ID FROM performance_schema.threads WHERE PROCESSLIST_ID = CONNECTION_ID()",
    False: "SELECT TID FROM information_schema.PROCESSLIST WHERE ID = CONNECTION_ID()",
}
SERVERS = (b"mysqld", b"mariadbd")
OTHER_INDEXES = """
    SELECT SUM(sum_of_other_index_sizes) FROM mysql.innodb_table_stats
     WHERE database_name = %s AND (table_name = %s OR LOWER(table_name) LIKE %s)"""


def local(link: t.Any, settings: t.Mapping[str, t.Any]) -> bool:
    """Whether the server runs where we run: its thread for our own connection is a thread of a server here.

    The host's name and the data directory must be this machine's, too: a container has its own numbers.
    """
    if str(settings.get("hostname") or "") != socket.gethostname() or not os.path.isdir(str(settings.get("datadir"))):
        return False
    try:
        thread = int(link.rows(THREAD[link.flavour.has("thread os id")])[0][0])
        with open(f"/proc/{thread}/cmdline", "rb") as words:
            # Any word: a server unpacked beside the system runs as an argument of its own loader.
            programs = {os.path.basename(word) for word in words.read().split(b"\0")}
    except (DbFault, OSError, IndexError, TypeError, ValueError):
        return False
    return not programs.isdisjoint(SERVERS)


def paths(settings: t.Mapping[str, t.Any]) -> dict[str, str]:
    """Where data lies, and where a rebuild sorts and logs (the first folder of a list is as full as the others)."""
    folders = str(settings.get("innodb_tmpdir") or settings.get("tmpdir") or "/tmp")
    temporary = folders.split(os.pathsep, maxsplit=1)[0]
    return {"data": str(settings.get("datadir")), "tmp": temporary}


def spaces(link: t.Any, settings: t.Mapping[str, t.Any]) -> tuple[Space, ...]:
    """Free and total bytes of the file systems for data and temporary files; None when out of reach."""
    here = local(link, settings)
    return tuple(Space(name, *(_room(path) if here else (None, None))) for name, path in paths(settings).items())


def _room(path: str) -> tuple[int | None, int | None]:
    try:
        found = os.statvfs(path)
    except OSError:
        return None, None
    return found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize


def missing(
    link: t.Any, settings: t.Mapping[str, t.Any], name: str, needs: t.Mapping[str, int], assumed: int | None
) -> float | None:
    """Bytes that `data` or `tmp` has too few for a rebuild; where both lie on one file system it needs both.

    None where free space cannot be read and none is assumed.
    """
    where = paths(settings)
    if not local(link, settings):
        return None if assumed is None else float(needs[name] - assumed)
    free = _room(where[name])[0]
    if free is None:
        return None if assumed is None else float(needs[name] - assumed)
    need = sum(needs.values()) if _same(where["data"], where["tmp"]) else needs[name]
    return float(need - free)


def _same(one: str, other: str) -> bool:
    try:
        return os.stat(one).st_dev == os.stat(other).st_dev
    except OSError:
        return False


def needs(link: t.Any, settings: t.Mapping[str, t.Any], database: str, table: str, size: int) -> dict[str, int]:
    """What a rebuild of `size` bytes may take: a second copy of the data; and in the temporary folder sort files of the
    secondary indexes and the log of changes made meanwhile."""
    log = int(settings.get("innodb_online_alter_log_max_size") or 0)
    page = int(settings.get("innodb_page_size") or 16384)
    try:
        pattern = table.lower().replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") + "#p#%"
        pages = link.rows(OTHER_INDEXES, (database, table, pattern))[0][0]
        sort = min(size, int(pages or 0) * page)
    except DbFault:
        sort = size
    return {"data": size, "tmp": sort + log}
