# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a whole MariaDB server becomes a new data directory. The directory itself: _files/sites.py. No drill.

The files are unpacked where they stay, so that the space is needed once: neither --copy-back nor --move-back is called,
which would also put files where a setting of the old server, or a table of it, says (outside of the directory).
"""

from __future__ import annotations

import os
import shlex
import typing as t

from ..._errors import Refused
from ..._records import Server, Tick, Work
from . import clients, hot_copy
from .capabilities import MARIADB, flavour_of

if t.TYPE_CHECKING:
    from ..._files.sites import Filling
    from ..._tasks import Restore

KEYSTONE = "mysql"  # the folder of accounts and privileges: without it no server starts
ACCOUNT = "mysql"
# What a server on these files has to be told, as what made the backup was.
NEEDED = ("innodb_page_size", "lower_case_table_names")


def spell(task: Restore, server: Server) -> list[str]:
    """What a shell would be told."""
    from . import restoring

    backup, where = task.backup, shlex.quote(task.site)
    back = (restoring.BACK.get(backup.encryption, ""), restoring.BACK.get(backup.compression, ""))
    way = " | ".join([*(each for each in back if each), f"mbstream -x -C {where}"])
    words = [f"< {shlex.quote(os.path.join(backup.folder, stored.name))} {way}" for stored in backup.files]
    words.append(f"mariadb-backup --prepare --target-dir={where}")
    if task.prove:
        words.append(f"mariadbd --datadir={where} --skip-networking, CHECK TABLE of all tables, SHUTDOWN")
    needed = [f"{name}={backup.about[name]}" for name in NEEDED if backup.about.get(name)]
    return [*words, f"# a server on it needs {', '.join(needed)}"] if needed else words


def carry_out(session: t.Any, task: Restore, server: Server) -> Work:
    """Raises Busy, Refused, MissingMeans, Stopped; what is half-restored is removed, and nothing else touched."""
    from ..._files import sites

    backup, bin_dir = task.backup, str(server.settings.get("bin_dir") or "")
    if backup.method != "physical" or backup.engine != MARIADB:
        raise Refused(f"{backup.id} ({backup.engine}, {backup.method}) is no copy of a whole MariaDB server")
    number = flavour_of(backup.version, backup.engine).number
    tool = clients.client("hot", MARIADB, number, bin_dir)
    hot_copy.same_series(tool, number)
    owner = sites.owner_of(task.owner or (ACCOUNT if os.geteuid() == 0 else ""))
    yield Tick()
    with sites.founded(task.site, owner) as filling:
        yield from _filled(filling, task, tool, bin_dir, session.stopped)
        for _files in filling.flush():
            yield Tick()
        filling.place(KEYSTONE)
    yield Tick(note=backup.id)


def _filled(filling: Filling, task: Restore, tool: clients.Client, bin_dir: str, stop: t.Any) -> Work:
    from . import prepared, throwaway

    account = (str(filling.owner[0]), str(filling.owner[1])) if filling.owner else None
    place = throwaway.Throwaway(task.backup, bin_dir, at=throwaway.At(filling.data, account, task.prove))
    try:
        stream = yield from prepared.filled(place, task.backup, decrypt=task.decrypt, tool=tool, stop=stop)
        if task.prove:
            yield from prepared.proven(place, stream, stop, stays=True)
    finally:
        place.end()
