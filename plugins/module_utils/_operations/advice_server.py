# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server itself is in trouble with: replication, slots, archiving, logs, ages. Pure, as advice.py."""

from __future__ import annotations

import typing as t

from .._health import Health, Slot
from .._records import Finding, Measured, Ref, Table
from .._tasks import DropSlot, Vacuum
from .._units import say_bytes, say_count, say_seconds
from .advice_policy import Policy

BACKLOG = 100  # log files that are ready and not archived
FORCED = 100.0  # percent: from here on the server freezes by force
LATE = 150.0  # and here that is not getting anywhere
HISTORY = 1_000_000  # changes that no purge has cleaned up behind yet


def _health(measured: Measured) -> Health:
    return measured.health or Health()


def replicas(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for replica in _health(measured).replicas or ():
        which = "replication from" if replica.upstream else "the replica"
        if replica.error:
            message = f"{which} {replica.name} is broken ({replica.state}): {replica.error}"
            yield Finding(
                1, "replication_broken", Ref(""), message, fix="Mend what the error names, and start it again"
            )
        elif replica.lag_seconds is not None and replica.lag_seconds >= policy.replica_lag:
            behind = f" ({say_bytes(replica.lag_bytes)})" if replica.lag_bytes else ""
            message = f"{which} {replica.name} is {say_seconds(replica.lag_seconds)}{behind} behind ({replica.state})"
            fix = "Look for long queries, slow disks or a slow network there"
            yield Finding(2, "replica_lag", Ref(""), message, fix=fix)


def slots(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for slot in _health(measured).slots or ():
        lost = slot.status in ("unreserved", "lost")
        full = slot.retained_bytes is not None and slot.retained_bytes >= policy.slot_retained
        idle = not slot.active and slot.inactive_seconds is not None and slot.inactive_seconds >= policy.slot_inactive
        what = f"the {slot.kind} slot {slot.name}"
        kept = f" and keeps {say_bytes(slot.retained_bytes)} of log" if slot.retained_bytes else ""
        if slot.active and (full or lost):
            message = f"{what} is read{kept}{_status(slot)}: its reader does not keep up"
            yield Finding(2, "slot_behind", Ref(slot.database), message, fix="Look at the reader of the slot")
        elif not slot.active and (full or lost or idle):
            since = f" for {say_seconds(slot.inactive_seconds)}" if slot.inactive_seconds is not None else ""
            message = f"nobody reads {what}{since}{kept}{_status(slot)}"
            away = slot.status != "lost" and slot.inactive_seconds is not None and not idle
            if away:  # a standby that starts again needs what is kept for it
                fix = "Bring its reader back; drop the slot only if that is gone for good"
                yield Finding(1 if lost else 2, "slot_stalled", Ref(slot.database), message, fix=fix)
                continue
            cure = DropSlot(Ref(slot.database), slot.name)
            message += "; if its reader is gone for good, drop it"
            yield Finding(1 if lost else 2, "slot_stalled", Ref(slot.database), message, cure)


def _status(slot: Slot) -> str:
    return f" ({slot.status})" if slot.status in ("extended", "unreserved", "lost") else ""


def archiver(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    found = _health(measured).archiver
    if found is None or found.mode == "off":
        return
    waiting = f", {say_count(found.waiting, 'file waits', 'files wait')}" if found.waiting else ""
    if found.failing:
        last = f", last {found.last_failed}" if found.last_failed else ""
        message = f"log files cannot be archived: {say_count(found.failed, 'failure')}{last}{waiting}"
        fix = "Look for what the archive command says in the server's log; until then the log grows"
        yield Finding(1, "archiver_failing", Ref(""), message, fix=fix)
    elif (found.waiting or 0) >= BACKLOG:
        message = f"archiving does not keep up{waiting}"
        yield Finding(2, "archiver_behind", Ref(""), message, fix="Make the archive command faster")


def logs(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    health = _health(measured)
    found = health.logs
    if found is not None and found.enabled and found.expire_seconds == 0:
        size = f" ({say_bytes(found.bytes)})" if found.bytes is not None else ""
        message = f"logs are never removed{size}: they fill the disk in the end"
        yield Finding(2, "logs_never_expire", Ref(""), message, fix="Let them expire after some days")
    if (health.purge_pending or 0) >= HISTORY:
        message = f"{health.purge_pending:,} changes wait for the purge: an old transaction may hold it up"
        yield Finding(2, "purge_behind", Ref(""), message, fix="End old transactions")


def ages(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    """Databases whose transaction ids are older than the server lets them get; by their oldest table where known."""
    tables = {d.name: max(d.tables, key=_age, default=None) for d in measured.databases}
    for info in measured.server.databases:
        worst = tables.get(info.name)
        percent = max(info.freeze_percent or 0.0, _age(worst))
        if percent < FORCED:
            continue
        message = f"transaction ids of {info.name} are at {percent:.0f} % of the age of a forced freeze"
        if worst is not None and worst.pinned_by:
            message += f"; {worst.pinned_by}"
        priority = 1 if percent >= LATE else 2
        if worst is not None and _age(worst) >= FORCED:
            yield Finding(priority, "wraparound", worst.ref, message, Vacuum(worst.ref, freeze=True))
        else:
            yield Finding(priority, "wraparound", Ref(info.name), message, fix="Freeze its tables: db_vacuum does")


def _age(table: Table | None) -> float:
    return (table.freeze_percent if table else None) or 0.0
