# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH copies are made again, since they are gone, and WHY. Pure; those of new backups: backup.py."""

from __future__ import annotations

import typing as t

from .._backups import Shelf
from .._records import Amount, Finding, Ref, Step
from .._tasks import CopyBackup
from .._units import say_count

if t.TYPE_CHECKING:
    from .backup_options import Policy

LISTED = 5


def again(policy: Policy, shelf: Shelf, mine: t.Container[tuple[str, str]], planned: t.Container[str]) -> list[Step]:
    """A step for each that is gone; `mine`: servers and databases, `planned`: ids that are copied anyway."""
    steps = []
    gone = frozenset(shelf.vanished)
    for backup in shelf.backups:
        if backup.id in gone and (backup.server, backup.database) in mine and backup.id not in planned:
            # A backup is an object of its own: steps of one database's backups must not be taken for each other.
            ref = Ref(backup.database, (backup.id,))
            task = CopyBackup(ref, backup, policy.manner, policy.copy_to, policy.bucket)
            reason = f"its copy in {policy.copy_to} is gone, or not whole"
            steps.append(Step(task, reason, {"id": backup.id}, Amount(), (0, 0.0), size=backup.bytes))
    return steps


def findings(policy: Policy, shelf: Shelf, mine: t.Container[tuple[str, str]]) -> t.Iterator[Finding]:
    gone = frozenset(shelf.vanished)
    lost = [b for b in shelf.backups if b.id in gone and (b.server, b.database) in mine]
    if lost:
        names = ", ".join(b.id for b in lost[:LISTED]) + (", …" if len(lost) > LISTED else "")
        has = "a copy" if len(lost) == 1 else "copies"
        message = f"{say_count(len(lost), 'backup')} had {has} in {policy.copy_to} that is gone, or not whole: {names}"
        fix = "It is made again; find out who removes copies there, such as a lifecycle rule of the bucket"
        yield Finding(2, "copy_vanished", Ref(""), message, fix=fix)
    if shelf.unseen:
        message = f"copies could not be looked at: {shelf.unseen}"
        yield Finding(2, "copies_unseen", Ref(""), message, fix="Look at the service, and at the rights of the key")
