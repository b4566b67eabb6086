# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups: which task is whose, its words, and how a backup is verified. Writing and restoring stand beside this."""

from __future__ import annotations

import json
import os
import shlex
import time
import typing as t
from datetime import datetime, timezone

from ..._drills import not_tried
from ..._errors import Refused
from ..._files import private
from ..._records import Finding, Ref, Server, Tick, Work
from ..._tasks import Cure, Dump, Restore, Task, Verify
from .. import filing
from . import dumping
from .privileges import Grants
from .scanning import Scanner

if t.TYPE_CHECKING:
    from ..._backups import Backup


ROWS = ("dump", "tables")  # files that hold rows


def spell(task: Cure, server: Server, grants: Grants | None, known: dumping.Source | None) -> list[str]:
    """The command lines as a shell would take them; programs are started in the folder where the login's file lies."""
    if isinstance(task, Dump):
        if task.method == "globals" and server.engine != "mariadb":
            from .accounts import SHOWN

            return [SHOWN]
        if task.method == "physical":
            from . import hot_copy

            return hot_copy.spell(task)
        return [shlex.join(words) for words in dumping.words(task, dumping.program(server), server, grants, known)]
    if isinstance(task, Verify):
        return [_spell_verify(task)]
    if isinstance(task, Restore):
        from . import restoring

        return restoring.spell(task, server)
    return filing.spell(task)


def _spell_verify(task: Verify) -> str:
    what = f"backup {task.backup.id}" if task.backup else f"the newest backup in {task.manner.folder}"
    how = {
        "checksum": "read it again and compare its hashes",
        "decode": "read it again to its end",
    }
    return f"{what}: {how.get(task.level, f'restore it ({task.on}) and compare')}"


def carry_out(session: t.Any, task: Task, server: Server, grants: Grants) -> Work:
    """Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    private.sweep()  # a run that was killed may have left a password there
    if isinstance(task, Dump):
        if task.method in server.lacks:
            raise Refused(server.lacks[task.method], cure="Ask for method: dump")
        if task.method == "physical":
            from . import hot_copy

            return hot_copy.take(session, task, server, grants)
        if task.method == "globals":
            from . import accounts

            return accounts.accounts(session, task, server, grants)
        return dumping.dump(session, task, server, grants)
    if isinstance(task, Verify):
        return _verify(session, task, server)
    if isinstance(task, Restore):
        from . import restoring

        return restoring.restore(session, task, server)
    return filing.carry_out(session, task)


def findings(session: t.Any, grants: Grants, known: dumping.Source, server: Server) -> t.Iterator[Finding]:
    """What keeps a dump of the session's database from being whole, or of one moment."""
    ref = Ref(session.database)
    for grant in dumping.unseen(grants, server, session.database):
        message = "the login does not see all of the database: it cannot be backed up"
        yield Finding(1, "missing_privilege", ref, message, fix=grant)
    lost = dumping.historyless(known) if server.engine == "mariadb" else ""
    if lost:
        yield Finding(2, "no_history", ref, lost, fix="Back up with method: physical, too")
    torn = dumping.findings_of(known)
    if torn:
        yield Finding(2, "not_transactional", ref, torn, fix="ALTER TABLE … ENGINE=InnoDB")
    rounded = dumping.rounded(known)
    if rounded:
        other = ", or back up with method: physical, too" if server.engine == "mariadb" else ""
        yield Finding(2, "floats_rounded", ref, rounded, fix=f"ALTER TABLE … MODIFY … DOUBLE{other}")


# ---- verification ----------------------------------------------------------------------------------------------------


def _verify(session: t.Any, task: Verify, server: Server) -> Work:
    from ..._files import backups, reader

    backup = filing.newest(task)
    yield Tick()
    if task.level == "checksum":
        for _more in reader.checksum(backup):
            if session.stopped.is_set():
                break
            yield Tick()
    elif task.level == "decode":
        yield from decode(backup, task.decrypt, session.stopped)
    else:
        from . import drilling

        yield from drilling.drill(session, backup, server, decrypt=task.decrypt, on=task.on)
        yield from (Tick(found=finding) for finding in not_tried(backup, task.on))
    _go_on(session.stopped, backup)
    backups.amend(backup, level=task.level, at=datetime.now(timezone.utc))
    yield Tick(note=backup.id)


def _go_on(stop: t.Any, backup: Backup) -> None:
    from ..._errors import Stopped

    if stop.is_set():
        raise Stopped("stopped", database=backup.database)


def decode(backup: Backup, decrypt: t.Any, stop: t.Any) -> Work:
    """Every file is decrypted, decompressed and read to the end of its last statement; rows are counted again."""
    from ..._files import reader

    if backup.method == "physical":
        from . import hot_copy

        yield from hot_copy.decode(backup, decrypt, stop)
        return
    rows, sums, known = t.cast("dict[str, int]", {}), t.cast("dict[str, int]", {}), checksums(backup)
    for stored in backup.files:
        scanner, last = Scanner(compared=known), time.monotonic()
        with reader.opened(backup, stored, decrypt) as stream:
            for data in iter(lambda: stream.read(1 << 20), b""):
                scanner.feed(data)
                _go_on(stop, backup)
                if time.monotonic() - last > 0.5:
                    yield Tick()
                    last = time.monotonic()
        scanner.end()
        if stored.what in ROWS:
            rows.update(scanner.content.rows)
            sums.update(scanner.content.sums)
    compare(backup, rows, sums)


def compare(
    backup: Backup, rows: t.Mapping[str, int], sums: t.Mapping[str, int] | None, *, where: str = "file"
) -> None:
    """Raises Refused where a table has other rows than the manifest says."""
    wrong = [
        f"{name}: {rows.get(name)} rows instead of {n}"
        for name, n in (backup.rows or {}).items()
        if rows.get(name) != n
    ]
    known = checksums(backup) if sums is not None else {}
    wrong += [
        f"{name}: other content than in the backup"
        for name, value in known.items()
        if sums is not None and sums.get(name) != value and rows.get(name) == (backup.rows or {}).get(name)
    ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        path = os.path.join(backup.folder, backup.id)
        raise Refused(
            f"the {where} is not what the manifest of {path} says: {shown}",
            database=backup.database,
            cure="Do not count on this backup: take another one",
        )


def noted(backup: Backup, name: str) -> t.Any:
    """A list or a mapping that the dump has noted in its manifest; empty where it has not."""
    try:
        return json.loads(backup.about.get(name) or "[]")
    except ValueError:
        return []


def checksums(backup: Backup) -> dict[str, int]:
    """Of each table's rows as the dump wrote them."""
    return {str(name): int(value) for name, value in dict(noted(backup, "checksums")).items()}
