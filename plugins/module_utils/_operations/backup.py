# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH databases need a backup, a verification or a copy, and WHY. Pure: no SQL, no I/O, no clock.

Age is the need: nothing is due while a backup that is verified far enough is younger than `min_interval`.
"""

from __future__ import annotations

import typing as t

from .._backups import LEVELS, Backup, Manner, Shelf, Sheltered, Unfinished
from .._errors import BadInput
from .._records import Amount, Database, Finding, Key, Measured, Plan, Ref, Server, Step, Wants
from .._tasks import CopyBackup, DropLeftover, Dump, Verify
from .._units import say_bytes, say_count, say_seconds
from . import backup_chain, backup_copies
from .backup_options import OPTIONS, Policy, identity_of, policy, refuse_place
from .backup_streams import streams
from .rotation_law import level_of

__all__ = ["OPTIONS", "doubts", "plan", "policy", "wants"]

GLOBALS = "globals"
UNREADABLE = "database_unreadable"
SKEW = 300.0  # seconds by which a backup may seem to come from the future: two clocks
ROOM = 1.2  # a backup may be so much larger than the last one
LISTED = 10
# What an engine may lack, by the option that asks for it.
NEEDS = {
    "physical": "method: physical",
    "pgbackrest": "method: pgbackrest",
    "exclude": "exclude_tables",
    "incremental": "full_interval",
    "encrypted physical": "encrypt with method: physical",
}


def wants(policy: Policy, server: Server) -> Wants:
    """What must be known. Raises BadInput for what this engine can never do though it was asked for."""
    asked = [policy.method, *(["exclude"] if policy.exclude else [])]
    asked += ["incremental"] if policy.full_interval is not None and policy.method == "physical" else []
    asked += ["encrypted physical"] if policy.manner.encryption and policy.method == "physical" else []
    if policy.verify == "restore":
        refuse_place(policy.drill_on, server)
    for name in asked:
        if name in server.lacks:
            raise BadInput(f"{NEEDS.get(name, name)} is not for {server.engine}: {server.lacks[name]}")
    sheltered = Sheltered(policy.manner.folder, policy.copy_to, bucket=policy.bucket, stanza=policy.stanza)
    return Wants(backups=sheltered)


def doubts(policy: Policy, measured: Measured) -> Wants:
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """The steps that are due, and the findings that no step can cure."""
    folder = policy.manner.folder
    if measured.shelf and measured.shelf.folder != folder:  # an assessment looks into one folder
        message = f"{folder} was not looked into, but {measured.shelf.folder}"
        return Plan(findings=(Finding(2, "not_assessed", Ref(""), message, fix="Give all operations one backup_dir"),))
    return _Planner(policy, measured).plan()


class _Planner:
    """Plans all databases of a server; room that one backup takes is not there for the next."""

    def __init__(self, policy: Policy, measured: Measured) -> None:
        self.policy, self.measured, self.server = policy, measured, measured.server
        self.shelf = measured.shelf or Shelf(policy.manner.folder)
        self.findings: list[Finding] = list(measured.server.findings)
        self.free = self.shelf.free
        self.unread = {d.name: why for d in measured.databases for why in _unreadable(d)}
        self.sizes = {info.name: info.bytes for info in measured.server.databases}
        self.sizes.update((d.name, d.bytes) for d in measured.databases if d.bytes is not None)
        self.known: dict[tuple[str, str, str], list[Backup]] = {}
        for backup in self.shelf.backups:
            self.known.setdefault((backup.server, backup.database, backup.method), []).append(backup)
        self.repository = next((d.repository for d in measured.databases if d.repository and policy.stanza), None)
        self.stanza = self.repository.stanza if self.repository else policy.stanza
        if self.repository:
            mine = (identity_of(self.server), "", backup_chain.PGBACKREST)
            self.known[mine] = backup_chain.kept(self.repository, self.shelf)

    def plan(self) -> Plan:
        steps = [*self._wreckage()]
        refs = self._subjects()
        for database in self.measured.databases:
            self.findings += database.findings
            if database.wreck:
                message = "a restore is under way in it, or has died: it is not complete, and is not backed up"
                self._find(2, "restore_unfinished", Ref(database.name), message, "Restore it again, or drop it")
        for ref, method in refs:
            steps += self._steps(ref, method)
        if refs:
            self._of_shelf(refs)
            steps += self._gone_copies(refs, steps)
        shown: dict[str, t.Any] = {}
        if self.repository and not self.repository.why_not:
            identity = identity_of(self.server)
            steps += backup_chain.expired(self.repository, self.shelf, identity)
            shown["repository"] = backup_chain.told(self.known[identity, "", backup_chain.PGBACKREST])
        return Plan(tuple(steps), tuple(dict.fromkeys(self.findings)), shown)

    def _subjects(self) -> list[tuple[Ref, str]]:
        """What is backed up: what belongs to no database first, for a restore begins with it."""
        there = [d.name for d in self.measured.databases if not d.system and not d.wreck]
        if self.policy.method != "dump":
            return [(Ref(""), self.policy.method)] if there else []
        found = [(Ref(name), "dump") for name in there if name]  # "": the proof of what is the server's
        server_wide = self.policy.globals and GLOBALS not in self.server.lacks and bool(there)
        return [(Ref(""), GLOBALS), *found] if server_wide else found

    # ---- one subject -------------------------------------------------------------------------------------------------

    def _steps(self, ref: Ref, method: str) -> list[Step]:
        """A backup with its verification and copy, or what is missing of the last one."""
        manner = self.policy.manner._replace(identity=identity_of(self.server, ref.database))
        known = self.known.get((manner.identity, ref.database, method), [])
        sane = [b for b in known if self._age(b) >= -SKEW]
        young = [b for b in sane if self._age(b) < self.policy.min_interval]
        good = next((b for b in reversed(young) if self._reached(b)), None)
        if good is not None:
            return self._copy(ref, manner, good, ())
        if young and self._may_verify(ref, young[-1]):
            reason = f"the backup of {say_seconds(self._age(young[-1]))} ago is not verified to {self.policy.verify}"
            return self._verify(ref, manner, young[-1], reason, ())
        return self._dump(ref, method, manner, sane)

    def _age(self, backup: Backup) -> float:
        """Seconds since it began: what came later is not in it."""
        return (self.server.now - backup.began).total_seconds()

    def _wanted(self) -> int:
        return LEVELS.index(self.policy.verify)

    def _reached(self, backup: Backup) -> bool:
        return level_of(backup) >= self._wanted()

    def _may_verify(self, ref: Ref, backup: Backup) -> bool:
        """Not what failed once already, nor what nobody here can read: then only a new backup helps."""
        last = self.measured.past.get(("verify", ref))
        failed = last is not None and not last.ok and last.at >= backup.ended
        return not failed and not (backup.encryption and self._wanted() > LEVELS.index("checksum"))

    def _dump(self, ref: Ref, method: str, manner: Manner, known: t.Sequence[Backup]) -> list[Step]:
        good = next((b for b in reversed(known) if self._reached(b)), None)
        last = known[-1] if known else None
        age = self._age(good) if good else None
        least = say_seconds(self.policy.min_interval)
        if age is not None:
            reason = f"the newest backup verified to {self.policy.verify} is {say_seconds(age)} old, over {least}"
        elif last is not None:
            reason = f"none of {say_count(len(known), 'backup')} is verified to {self.policy.verify}"
        else:
            reason = f"there is no {GLOBALS if method == GLOBALS else 'backup'} of it yet"
        size = self._size(ref, method) or (last.source_bytes if last else 0)
        decode = bool(manner.encryption) and self._wanted() >= LEVELS.index("decode")
        last_try = self.measured.past.get(("dump", ref))
        basis = backup_chain.basis(self.policy, known, self.server.now, last_try)
        reason += f"; {basis.why}" if basis.why else ""
        parent = None if self.policy.stanza else basis.parent
        task = Dump(ref, method, manner, self._jobs(), self.policy.exclude, decode, parent)
        if self.stanza:
            task = task._replace(stanza=self.stanza._replace(type=basis.type))
        if method == "dump":
            task = task._replace(streams=streams(self.policy, self.measured.databases, self.sizes, ref.database))
        measured = {
            "backups": len(known),
            "newest": known[-1].began.isoformat(timespec="seconds") if known else None,
            "verified_age": None if age is None else round(age),
            "bytes": size or None,
        }
        # What was never backed up goes first, then by age.
        rank = (3 if good is None else 0, age or 0.0)
        step = Step(task, reason, measured, Amount(written=last.bytes if last else 0), rank, size=size)
        unread = self.unread.get(ref.database, "") if method == "dump" else ""
        step = step._replace(
            skip=unread or self._rows_hidden(ref) or self._unusable() or self._no_room(ref, size, last)
        )
        step = step._replace(fails=bool(step.skip))  # a night without its backup is no good one
        after = (step.key,)
        level = "checksum" if decode else self.policy.verify
        checks = self._verify(ref, manner, None, f"a new backup is verified to {level}", after, level=level)
        return [step, *checks]

    def _size(self, ref: Ref, method: str) -> int:
        """Bytes of what is to be backed up, as far as the server tells: 0 where it does not."""
        return sum(n or 0 for n in self.sizes.values()) if method == "physical" else self.sizes.get(ref.database) or 0

    def _jobs(self) -> int:
        return max(1, self.policy.jobs)

    def _verify(
        self, ref: Ref, manner: Manner, backup: Backup | None, reason: str, after: tuple[Key, ...], *, level: str = ""
    ) -> list[Step]:
        level = level or self.policy.verify
        task = Verify(ref, backup, manner, level, on=self.policy.drill_on, stanza=self.stanza)
        size = backup.bytes if backup else self.sizes.get(ref.database) or 0
        measured = {"id": backup.id if backup else None, "level": (backup.level if backup else "") or None}
        step = Step(task, reason, measured, rank=(2, 0.0), size=size, after=after)
        return [step, *self._copy(ref, manner, backup, (step.key,))]

    def _copy(self, ref: Ref, manner: Manner, backup: Backup | None, after: tuple[Key, ...]) -> list[Step]:
        size = backup.bytes if backup else self.sizes.get(ref.database) or 0
        why = backup_copies.why(self.policy, self.shelf, ref, manner, backup)
        if why is None:
            return []
        task = CopyBackup(ref, backup, manner, self.policy.copy_to, self.policy.bucket)
        return [Step(task, *why, rank=(1, 0.0), size=size, after=after)]

    def _gone_copies(self, refs: t.Sequence[tuple[Ref, str]], steps: t.Sequence[Step]) -> list[Step]:
        if not self.policy.copy_to:
            return []
        mine = {(identity_of(self.server, ref.database), ref.database) for ref, _method in refs}
        planned = {s.task.backup.id for s in steps if isinstance(s.task, CopyBackup) and s.task.backup}
        self.findings += backup_copies.findings(self.policy, self.shelf, mine)
        return backup_copies.again(self.policy, self.shelf, mine, planned)

    # ---- room --------------------------------------------------------------------------------------------------------

    def _rows_hidden(self, ref: Ref) -> str:
        """Why a dump would lack rows and say nothing of it: settings of the server. A copy of its files has all."""
        why, fix = self.server.settings.get("rows_hidden", ("", ""))
        if not why or self.policy.method != "dump":
            return ""
        self._find(1, "rows_hidden", ref, f"no backup: {why}", fix)
        return str(why)

    def _unusable(self) -> str:
        """Why pgBackRest cannot take it."""
        if not self.repository or not self.repository.why_not:
            return ""
        self.findings.append(backup_chain.unusable(self.repository))
        return self.repository.why_not

    def _no_room(self, ref: Ref, size: int, last: Backup | None) -> str:
        """Why it cannot be written: there is no folder, or less room than the last one would need."""
        if self.shelf.why_not:
            self._find(1, "backup_dir_unusable", Ref(""), self.shelf.why_not, "Mend backup_dir, or its owner and mode")
            return self.shelf.why_not
        if self.free is None or self.policy.stanza:  # what pgBackRest writes lies elsewhere
            return ""
        need = int((last.bytes if last else min(size, self._guess(size))) * ROOM)
        need += self.server.settings.get("backup_scratch", {}).get(ref.database, 0)
        if need > self.free:
            said = (
                f"it needs about {say_bytes(need)}, and {say_bytes(max(0, self.free))} are free in {self.shelf.folder}"
            )
            self._find(1, "no_room", ref, f"no backup: {said}", "Make room, rotate backups, or use another folder")
            return said
        self.free -= int((last.bytes if last else self._guess(size)) * ROOM)
        return ""

    def _guess(self, size: int) -> int:
        """Of a database that has no backup yet: most shrink to less than half."""
        return size if self.policy.manner.compression == "none" else size // 2

    def _find(self, priority: int, code: str, ref: Ref, message: str, fix: str = "") -> None:
        self.findings.append(Finding(priority, code, ref, message, fix=fix))

    # ---- the folder --------------------------------------------------------------------------------------------------

    def _of_shelf(self, refs: t.Sequence[tuple[Ref, str]]) -> None:
        device = self.server.settings.get("device")
        devices = list(device.values()) if isinstance(device, t.Mapping) else [device]
        if self.shelf.device is not None and self.shelf.device in devices and not self.policy.stanza:
            message = f"{self.shelf.folder} is on the file system of the data: a disk that dies takes both"
            fix = (
                "Use another disk, or copy_to" if not self.policy.copy_to else "There are copies; another disk is safer"
            )
            self._find(3 if self.policy.copy_to else 2, "same_file_system", Ref(""), message, fix)
        mine = {identity_of(self.server, ref.database) for ref, method in refs}
        for broken in self.shelf.broken[: LISTED * LISTED]:
            if broken.backup is None or broken.backup.server in mine:
                ref = Ref(broken.backup.database if broken.backup else "")
                message = f"{broken.name} is broken and counts for nothing: {broken.why}"
                self._find(2, "backup_broken", ref, message, "Look at it, and remove it by hand")
        for ref, method in refs:
            known = self.known.get((identity_of(self.server, ref.database), ref.database, method), ())
            ahead = max((-self._age(b) for b in known), default=0.0)
            if ahead > SKEW:
                message = f"a backup lies {say_seconds(ahead)} in the future, and counts for nothing until then"
                self._find(2, "clock_jumped", ref, message, "Look at the clocks of this host and of the server")

    def _wreckage(self) -> t.Iterator[Step]:
        """What backups of this server that died left behind."""
        mine = {identity_of(self.server, d.name) for d in self.measured.databases} | {identity_of(self.server)}
        gathered: dict[str, Unfinished] = {}
        for found in self.shelf.unfinished:
            if found.server in mine:
                sofar = gathered.get(found.database, found._replace(files=(), bytes=0))
                files, size = sofar.files + found.files, sofar.bytes + found.bytes
                gathered[found.database] = sofar._replace(files=files, bytes=size)
            elif not found.server:
                message = f"{', '.join(found.files[:LISTED])}: left behind by a backup, and nobody knows whose"
                self._find(3, "backup_unfinished", Ref(found.database), message, "Remove it by hand")
        for found in gathered.values():
            task = DropLeftover(Ref(found.database), "backup", found.files, folder=self.shelf.folder)
            reason = f"left behind by a backup that died: {', '.join(found.files[:LISTED])}"
            measured = {"leftovers": list(found.files[:LISTED]), "bytes": found.bytes}
            expected = Amount(bytes=found.bytes, seconds=0.05)
            yield Step(task, reason, measured, expected, (8, float(found.bytes)), size=found.bytes)


def _unreadable(database: Database) -> t.Iterator[str]:
    """Why nobody could look into it: neither can a client program."""
    yield from (f"it could not be looked into: {f.message}" for f in database.findings if f.code == UNREADABLE)
