# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a database file is backed up, and the backup read again. How it is restored: backup_restore.py. No threshold.

By SQLite's backup interface and not by VACUUM INTO, though that leaves free pages out: the copy is the same page for
page. VACUUM INTO gives new rowids to tables without an INTEGER PRIMARY KEY, and needs the application's functions and
collations. What free pages cost, the compressor saves.

The copy is a file without a name in the backup folder, so that nobody's death leaves it behind; it is checked, and then
compressed and hashed into the backup. An encrypted backup must not lie there in plain text: it goes through memory.
"""

from __future__ import annotations

import shlex
import sqlite3

from ..._records import Amount, Server, Tick, Work
from ..._tasks import Cure, Dump, Restore, Task, Verify
from .. import filing
from . import catalog
from .backup_copy import in_memory, nameless, on_file, without_log
from .backup_reading import checked, compared, in_thread, poured, tried_in
from .connection import Session
from .files import on_disk


def spell(task: Cure) -> list[str]:
    """What happens, as the tools of SQLite would be told."""
    if isinstance(task, Dump):
        how = [task.manner.compression] if task.manner.compression != "none" else []
        how += [task.manner.encryption.program] if task.manner.encryption else []
        piped = "".join(f" | {program}" for program in how)
        return [f"sqlite3 {shlex.quote(task.ref.database)} '.backup …'", f"PRAGMA main.integrity_check{piped}"]
    if isinstance(task, Verify):
        which = task.backup.id if task.backup else f"the newest backup in {task.manner.folder}"
        more = {"checksum": [], "decode": ["PRAGMA main.integrity_check"], "restore": ["PRAGMA main.integrity_check"]}
        return [f"verify {which}: {task.level}", *more[task.level]]
    if isinstance(task, Restore):
        from . import backup_restore

        return backup_restore.spell(task)
    return filing.spell(task)


def carry_out(session: Session, task: Task, server: Server) -> Work:
    """Raises Busy, Refused, Stopped, MissingMeans."""
    if isinstance(task, Dump):
        return _dump(session, task, server)
    if isinstance(task, Verify):
        return _verify(session, task)
    if isinstance(task, Restore):
        from . import backup_restore

        return backup_restore.carry_out(session, task)
    return filing.carry_out(session, task)


# ---- written ---------------------------------------------------------------------------------------------------------


def _dump(session: Session, task: Dump, server: Server) -> Work:
    from datetime import datetime, timezone

    from ..._backups import Backup
    from ..._files import store

    path = task.ref.database
    with store.part(task) as part:
        with in_memory(session) if task.manner.encryption else on_file(part.folder) as copy:
            yield from in_thread(session, lambda: copy.take(session))
            seen: list[dict[str, int] | None] = []
            yield from in_thread(session, lambda: seen.append(checked(copy.db, path)), copy.db)
            for more in part.feed(copy.blocks(), what="dump", ext="sqlite3", stop=session.stopped):
                yield Tick(Amount(written=more))
            about = {
                name: str(catalog.pragma(copy.db, name)) for name in ("user_version", "application_id", "page_size")
            }
        backup = part.seal(
            Backup(
                id=part.id,
                server=task.manner.identity,
                address=server.address,
                engine=server.engine,
                version=server.version,
                database=path,
                method="dump",
                tool=f"SQLite {sqlite3.sqlite_version}",
                arguments=("backup",),
                began=part.began,
                ended=datetime.now(timezone.utc),
                files=(),
                format="file",
                source_bytes=on_disk(path),
                rows=seen[0],
                level="decode" if task.decode else "",
                verified_at=datetime.now(timezone.utc) if task.decode else None,
                about=about,
            )
        )
    yield Tick(note=backup.id)


# ---- read again ------------------------------------------------------------------------------------------------------


def _verify(session: Session, task: Verify) -> Work:
    """Raises Refused, Stopped, MissingMeans, also where the backup is not what its manifest says."""
    from ..._files import backups

    backup = filing.newest(task)
    if task.level == "checksum":
        from ..._files import reader

        for _more in reader.checksum(backup):
            session.check()
            yield Tick()
    else:
        with nameless(tried_in(task, backup)) as file:
            yield from poured(session, backup, task, file.descriptor)
            without_log(file.descriptor)
            yield from compared(session, backup, file.reader)
    sealed = backups.amend(backup, level=task.level)
    yield Tick(note=sealed.id)
