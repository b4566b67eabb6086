# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH backups are copied elsewhere, or copied again, and WHY. Pure."""

from __future__ import annotations

import typing as t

from .._backups import Backup, Manner, Shelf
from .._records import Amount, Finding, Ref, Step
from .._tasks import CopyBackup
from .._units import say_count

if t.TYPE_CHECKING:
    from .backup_options import Policy

LISTED = 5


def why(
    policy: Policy, shelf: Shelf, ref: Ref, manner: Manner, backup: Backup | None
) -> tuple[str, dict[str, t.Any]] | None:
    """Why that backup, None: the one that is made before, is copied, and what was measured; None: it is there."""
    to = policy.copy_to
    if not to or (backup and any(c.rstrip("/") == to for c in backup.copies)):
        return None
    begun = backup and to in backup.copying
    reason = f"the run that copied it to {to} has died" if begun else f"it is not in {to} yet"
    measured: dict[str, t.Any] = {"id": backup.id if backup else None}
    whose = (manner.identity, ref.database)
    left = [b.id for b in shelf.backups if b is not backup and to in b.copying and (b.server, b.database) == whose]
    if left:
        reason += f"; what runs that died left there of {say_count(len(left), 'other backup')} is finished or removed"
        measured["left"] = left[:LISTED]
    return reason, measured


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
