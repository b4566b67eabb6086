# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH backups are removed, and WHY. Pure: no I/O, no clock. The law of what is kept: rotation_law.py."""

from __future__ import annotations

import typing as t
from datetime import timedelta, timezone, tzinfo

from .._backups import Backup, Broken, Bucket, Shelf, Sheltered
from .._errors import BadInput
from .._records import Amount, Finding, Key, Measured, Plan, Ref, Server, Step, Wants
from .._selection import Patterns
from .._tasks import DropLeftover, RemoveBackup
from .._tuples import NamedTuple
from .._units import duration, say_bytes, say_count, say_seconds
from .backup_options import bucket_of, folder_of, target_of
from .rotation_law import Keep, Verdict, group_of, grouped, is_verified, judged
from .rotation_options import COUNTS, OPTIONS

__all__ = ["ENGINE", "OPTIONS", "doubts", "plan", "policy", "wants"]

ENGINE = "backups"  # of its own: the folder is all that is looked at, and nobody logs in
SKEW = timedelta(hours=1)  # by which the clocks of two hosts may differ without a word
LISTED = 10
PGBACKREST = "pgbackrest"


class Policy(NamedTuple):
    folder: str
    copy_to: str
    bucket: Bucket | None
    keep: Keep
    databases: Patterns
    servers: Patterns


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput, also where nothing says what is to be kept."""
    counts = {name: _count(params, f"keep_{name}") for name in COUNTS}
    within = duration(params["keep_within"], "keep_within") if params.get("keep_within") else 0.0
    if not any(counts.values()) and not within:
        names = ", ".join(f"keep_{name}" for name in (*COUNTS, "within"))
        raise BadInput("nothing says which backups are to be kept", cure=f"Give at least one of {names}")
    folder = folder_of(params["backup_dir"], "backup_dir")
    to = target_of(params.get("copy_to"), folder)
    return Policy(
        folder=folder,
        copy_to=to,
        bucket=bucket_of(params.get("s3"), to),
        keep=Keep(**counts, within=within, min_verified=_count(params, "min_verified"), zone=_zone(params["timezone"])),
        databases=Patterns(params.get("databases") or ["*"], "databases"),
        servers=Patterns(params["servers"] or ["*"], "servers"),
    )


def _count(params: t.Mapping[str, t.Any], name: str) -> int:
    found = params.get(name)
    if found is not None and found < 0:
        raise BadInput(f"{name}: {found} is below 0", cure="Give a number of backups")
    return int(found or 0)


def _zone(name: str) -> tzinfo:
    if not name or name.upper() == "UTC":
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        cure = "Use a name such as Europe/Berlin; install tzdata"
        raise BadInput(f"timezone: {name!r} is not known here", cure=cure) from None


def wants(policy: Policy, server: Server) -> Wants:
    return Wants(backups=Sheltered(policy.folder, policy.copy_to))


def doubts(policy: Policy, measured: Measured) -> Wants:
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """Each backup that no rule keeps is a step; what stays is told with its reasons in `shown`."""
    shelf = measured.shelf or Shelf(policy.folder)
    if shelf.folder != policy.folder:  # an assessment looks into one folder
        message = f"{policy.folder} was not looked into, but {shelf.folder}"
        return Plan(findings=(Finding(2, "not_assessed", Ref(""), message, fix="Give all operations one backup_dir"),))
    mine = [b for b in shelf.backups if _selected(policy, measured.server, b)]
    steps: list[Step] = []
    kept: list[Verdict] = []
    findings: list[Finding] = []
    broken = _hopeless(policy, measured, shelf)
    for backups in grouped(mine).values():
        verdicts = judged(policy.keep, backups, measured.server.now)
        kept += [v for v in verdicts if v.kept]
        gone = [v.backup for v in verdicts if not v.kept]
        steps += _removals(policy, shelf, gone, len(verdicts) - len(gone))
        findings += _of_group(policy, measured, verdicts)
    steps += [_removal(policy, shelf, b.backup, f"{b.why}, and no rule would keep it") for b in broken if b.backup]
    steps += _interrupted(policy, shelf)
    findings += _of_shelf(policy, measured, shelf, mine, frozenset(b.name for b in broken))
    return Plan(tuple(steps), tuple(dict.fromkeys(findings)), {"kept": [_told(v) for v in _oldest_first(kept)]})


def _selected(policy: Policy, server: Server, backup: Backup) -> bool:
    """Of this engine, these servers and databases. What belongs to no database goes along; but a whole server's

    physical backups only where all databases are meant.
    """
    family = ("mysql", "mariadb") if server.engine in ("mysql", "mariadb") else (server.engine,)
    if backup.engine not in family or not policy.servers.takes(backup.server, backup.address):
        return False
    if backup.method == PGBACKREST:  # its repository is its own, and db_backup removes what tells of expired ones
        return False
    if not backup.database:
        return backup.method == "globals" or policy.databases.everything
    return policy.databases.takes(backup.database)


def _oldest_first(verdicts: t.Iterable[Verdict]) -> list[Verdict]:
    return sorted(verdicts, key=lambda v: (v.backup.server, v.backup.database, v.backup.method, v.backup.began))


def _told(verdict: Verdict) -> dict[str, t.Any]:
    backup = verdict.backup
    return {
        "id": backup.id,
        "server": backup.server,
        "database": backup.database,
        "method": backup.method,
        "began": backup.began.isoformat(timespec="seconds"),
        "bytes": backup.bytes,
        "level": backup.level or None,
        "reasons": list(verdict.reasons),
    }


def ref_of(backup: Backup) -> Ref:
    """A backup is an object of its own: steps of one database's backups must not be taken for each other."""
    return Ref(backup.database, (backup.id,))


def _removals(policy: Policy, shelf: Shelf, gone: t.Sequence[Backup], kept: int) -> list[Step]:
    rules = ", ".join(_rules(policy.keep))
    reason = f"no rule keeps it ({rules}); {say_count(kept, 'backup')} of the same kept"
    # What builds on a backup goes before it: at no moment is there one without its parent.
    children: dict[str, list[Key]] = {}
    for backup in gone:
        if backup.parent:
            children.setdefault(backup.parent, []).append(("remove_backup", ref_of(backup)))
    return [_removal(policy, shelf, backup, reason, children.get(backup.id, ())) for backup in gone]


def _removal(policy: Policy, shelf: Shelf, backup: Backup, reason: str, after: t.Sequence[Key] = ()) -> Step:
    # Also where a run died before it had copied all of it, or could say so.
    known = dict.fromkeys((*backup.copies, *backup.copying))
    copies = tuple(c for c in known if policy.copy_to and c.rstrip("/") == policy.copy_to)
    if backup.id in shelf.vanished:  # its removal may have been interrupted there: what is left of it goes now
        copies = (policy.copy_to,)
    size = backup.bytes
    measured = {
        "began": backup.began.isoformat(timespec="seconds"),
        "bytes": size,
        "level": backup.level or None,
        "copies": list(copies),
    }
    return Step(
        RemoveBackup(ref_of(backup), backup, copies, policy.bucket),
        reason,
        measured,
        Amount(bytes=size, seconds=0.05),
        (0, float(size)),
        size=size,
        after=tuple(after),
        skip=shelf.why_not,
    )


def _interrupted(policy: Policy, shelf: Shelf) -> t.Iterator[Step]:
    """Removals that died on the way are brought to their end: nothing of these is a backup any more."""
    for found in shelf.unfinished:
        if found.removed and policy.servers.takes(found.server) and policy.databases.takes(found.database):
            ref = Ref(found.database, (found.files[0],))
            task = DropLeftover(ref, "backup", found.files, folder=shelf.folder)
            reason, size = "its removal was interrupted", found.bytes
            measured = {"leftovers": list(found.files[:LISTED]), "bytes": size}
            yield Step(task, reason, measured, Amount(bytes=size, seconds=0.05), (1, float(size)), size=size)


def _rules(keep: Keep) -> t.Iterator[str]:
    for name in COUNTS:
        if getattr(keep, name):
            yield f"keep_{name} {getattr(keep, name)}"
    if keep.within:
        yield f"keep_within {say_seconds(keep.within)}"


def _hopeless(policy: Policy, measured: Measured, shelf: Shelf) -> list[Broken]:
    """Broken backups that no rule would keep even if they were sound: such as those whose removal was interrupted."""
    readable = [b for b in shelf.broken if b.backup and _selected(policy, measured.server, b.backup)]
    if not readable:
        return []
    sound = grouped(shelf.backups)
    out = []
    for broken in readable:
        backup = t.cast(Backup, broken.backup)
        verdicts = judged(policy.keep, [*sound.get(group_of(backup), ()), backup], measured.server.now)
        if any(v.backup is backup and not v.kept for v in verdicts):
            out.append(broken)
    return out


def _of_group(policy: Policy, measured: Measured, verdicts: t.Sequence[Verdict]) -> t.Iterator[Finding]:
    first = verdicts[0].backup
    ref, name = Ref(first.database), first.database or "the server"
    future = [v.backup for v in verdicts if v.backup.began > measured.server.now + SKEW]
    if future:
        ahead = say_seconds((future[0].began - measured.server.now).total_seconds())
        message = f"{say_count(len(future), f'{first.method} backup')} of {name} lie in the future, by up to {ahead}"
        fix = "Look at the clocks; these are kept until they are past, and count for nothing until then"
        yield Finding(2, "clock_jumped", ref, message, fix=fix)
    orphans = [v for v in verdicts if v.orphan]
    if orphans:
        message = f"{say_count(len(orphans), 'incremental backup')} of {name} without the one that they build on"
        yield Finding(2, "orphans", ref, f"{message}: {orphans[0].orphan}", fix="They restore nothing: look for it")
    verified = sum(is_verified(v.backup) for v in verdicts)
    if verified < policy.keep.min_verified:
        message = f"{verified} of the {first.method} backups of {name} are verified to their end"
        message += f", under min_verified {policy.keep.min_verified}: none of them is removed"
        fix = "Run db_backup with verify: decode or restore, or lower min_verified"
        yield Finding(2, "too_few_verified", ref, message, fix=fix)


def _of_shelf(
    policy: Policy, measured: Measured, shelf: Shelf, mine: t.Sequence[Backup], cured: t.Collection[str]
) -> t.Iterator[Finding]:
    here = Ref("")
    if shelf.why_not:
        yield Finding(2, "backup_dir_unusable", here, shelf.why_not, fix="Mend backup_dir, or its owner and mode")
    for broken in [b for b in shelf.broken if b.name not in cured][:LISTED]:
        message = f"{broken.name} is broken, counts for nothing and is left alone: {broken.why}"
        yield Finding(2, "backup_broken", here, message, fix="Look at it, and remove it by hand")
    if shelf.foreign:
        names = ", ".join(shelf.foreign[:LISTED]) + (", …" if len(shelf.foreign) > LISTED else "")
        message = f"{say_count(len(shelf.foreign), 'file')} that no manifest names are left alone: {names}"
        yield Finding(3, "foreign_files", here, message, fix="Move them out of the backup folder")
    died = [u for u in shelf.unfinished if not u.removed]
    if died:
        size = say_bytes(sum(u.bytes for u in died))
        message = f"{say_count(len(died), 'backup')} that died left {size} behind"
        yield Finding(3, "backup_unfinished", here, message, fix="The next db_backup of that server removes it")
    servers = sorted({b.server for b in mine})
    if len(servers) > 1 and policy.servers.everything and measured.server.engine != "sqlite":
        message = f"the folder has backups of {len(servers)} servers, and these rules are for all of them"
        fix = "Where they differ, name the server in the option servers: " + ", ".join(servers[:LISTED])
        yield Finding(3, "several_servers", here, message, fix=fix)
    its_own = sum(b.method == PGBACKREST for b in shelf.backups)
    if its_own:
        message = f"{say_count(its_own, 'backup')} of pgBackRest are left alone: it expires them itself"
        yield Finding(3, "pgbackrest_expires", here, message, fix="Set repo1-retention-full in its configuration")
    elsewhere = sorted({c for b in mine for c in (*b.copies, *b.copying) if c.rstrip("/") != policy.copy_to})
    if elsewhere:
        message = f"copies in {', '.join(elsewhere[:LISTED])} are not rotated here"
        yield Finding(3, "copies_left", here, message, fix="Give copy_to, or rotate there with that folder's own run")
