# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The room for backups: which task is whose. The work stands in the files beside this one."""

from __future__ import annotations

import shlex
import typing as t

from ..._errors import DbFault, Refused
from ..._files import private
from ..._records import Finding, Ref, Server, Work
from ..._tasks import Cure, Dump, Restore, Verify
from .. import filing
from . import dumping
from .clients import client
from .dumping import Room
from .session import Session
from .versions import major_of


def is_backup(task: Cure) -> bool:
    """Whether the task is one of those that stand here."""
    return isinstance(task, (Dump, Verify, Restore)) or filing.is_filing(task)


def spell(task: Cure, server: Server, room: Room) -> t.Sequence[str]:
    """The command lines as a shell would take them. Raises MissingMeans, Refused."""
    if isinstance(task, (Dump, Verify)) and task.stanza is not None:
        from . import backrest

        return backrest.spell(task, server, task.stanza)
    if isinstance(task, Dump):
        _known(task)
        if task.method == "physical":
            from . import basebackup

            return basebackup.spell(task, server, room)
        return dumping.spell(task, server, room)
    if isinstance(task, Verify):
        return _spell_verify(task, server, room)
    if isinstance(task, Restore):
        from . import restoring

        return restoring.spell(task, server, room)
    return filing.spell(task)


def _spell_verify(task: Verify, server: Server, room: Room) -> list[str]:
    backup = task.backup
    where = f"{backup.folder}/{backup.id}" if backup else f"the newest backup below {task.manner.folder}"
    if task.level == "checksum":
        return [f"sha256sum {shlex.quote(where)}.*"]
    if (backup and backup.method != "dump") or not task.ref.database:
        return [f"read {where} to its end"]
    read = shlex.join([room.path("pg_restore", server), "--data-only", "--file=-"])
    return [f"{read}: {where}, its rows counted", *(["restore it as a drill"] if task.level == "restore" else [])]


def carry_out(session: Session, task: Cure, server: Server, room: Room) -> Work:
    """Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    private.sweep()  # a run that was killed may have left a password there
    if isinstance(task, (Dump, Verify)) and task.stanza is not None:
        from . import backrest

        return backrest.carry_out(session, task, server, room)
    if isinstance(task, Dump):
        _known(task)
        if task.method == "physical":
            from . import basebackup

            return basebackup.take(session, task, server, room)
        return (dumping.dump_globals if task.method == "globals" else dumping.dump)(session, task, server, room)
    if isinstance(task, Verify):
        from . import decoding

        if task.level == "restore":
            from . import drill

            return drill.verify(session, task, filing.newest(task), server, room)
        return decoding.verify(session, task, filing.newest(task), room.bin_dir)
    if isinstance(task, Restore):
        from . import restoring

        return restoring.carry_out(session, task, server, room)
    return filing.carry_out(session, task)


def _known(task: Dump) -> None:
    if task.method not in ("dump", "globals", "physical"):
        raise Refused(f"method {task.method} is not known for PostgreSQL", cure="It is one of dump, physical")


def findings(session: Session, server: Server, room: Room) -> tuple[Finding, ...]:
    """What this host cannot do for want of a program, and what the login may not read."""
    found = []
    for name in ("pg_dump", "pg_restore", "pg_dumpall"):
        try:
            client(name, major_of(server), room.bin_dir)
        except DbFault as fault:
            found.append(Finding(1, "no_backup_program", Ref(""), f"no backup: {fault.cause}", fix=fault.cure))
    if not session.rows(dumping.SECRETS)[0][0]:
        message = f"{server.settings['user']} cannot read the roles' passwords: they are not in the backups of globals"
        fix = "GRANT pg_read_all_data, or let a superuser back up"
        found.append(Finding(3, "no_role_passwords", Ref(""), message, fix=fix))
    return tuple(found)
