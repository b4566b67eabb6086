# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is done by pgBackRest: a backup, a verification whose output is read, a drill. How it is called: pgbackrest.py.

Its verify exits with 0 whatever it finds, and does not miss a segment of the log that is not there. Source: measured
on 2.45, and pgbackrest#2502.
"""

from __future__ import annotations

import os
import re
import shlex
import typing as t
from datetime import datetime, timezone
from pathlib import Path

from ..._backups import Backup, Stanza
from ..._errors import Refused
from ..._process import Completed
from ..._records import Amount, Server, Tick, Work
from ..._tasks import Dump, Verify
from . import pgbackrest, throwaway
from .dumping import Room
from .pgbackrest import called, words
from .session import Session

TOLD = ("--output=text", "--verbose")  # without these it says nothing at all
OF_BACKUP = re.compile(r"^\s+backup: (\S+), status: ([^,]+), .*checked: (\d+), total valid files: (\d+)$", re.MULTILINE)
OF_LOG = re.compile(r"^\s+archiveId: (\S+), total WAL checked: (\d+), total valid WAL: (\d+)$", re.MULTILINE)
STATUS = re.compile(r"^status: (\w+)$", re.MULTILINE)
NAMED = re.compile(r"INFO: (invalid [^\n]+)")  # a file, and what is wrong with it
SEGMENT = re.compile(r"/([0-9A-F]{24})-")
SUPERUSER = "SELECT pg_catalog.pg_get_userbyid(10)::pg_catalog.text"
MOST_SEGMENTS = 100_000
SHOWN = 3


def stanza_of(backup: Backup) -> Stanza:
    """Where it lies, as its manifest says."""
    repo = backup.about.get("repo", "")
    return Stanza(backup.about.get("stanza", ""), int(repo) if repo.isdigit() else None, backup.about.get("config", ""))


def spell(task: Dump | Verify, server: Server, stanza: Stanza) -> list[str]:
    if isinstance(task, Dump):
        return [shlex.join(pgbackrest.shown(server, stanza, "backup", f"--type={stanza.type}"))]
    if task.level == "restore":
        tried = pgbackrest.shown(server, stanza, "restore")
        return [f"{shlex.join(tried)}: into a temporary server, each b-tree index checked, removed"]
    return [shlex.join(pgbackrest.shown(server, stanza, "verify", *TOLD))]


def carry_out(session: Session, task: Dump | Verify, server: Server, room: Room) -> Work:
    """Raises Busy, Refused, MissingMeans, Stopped."""
    if isinstance(task, Dump):
        return take(session, task, server)
    from ..._files import backups

    manner = task.manner
    backup = task.backup or backups.newest(
        manner.folder, server=manner.identity, database="", methods=(pgbackrest.PROGRAM,)
    )
    if backup is None:
        raise Refused("there is no backup of pgBackRest", cure="Look at the step before this one")
    return verify(session, task, backup, server, room)


def take(session: Session, task: Dump, server: Server) -> Work:
    """A backup, and a manifest that says where it is. Raises Busy, Refused, MissingMeans, Stopped."""
    from ..._files import backups
    from ..._files.sinks import under_of

    yield Tick()
    before, _findings = pgbackrest.repository(server, task.stanza or Stanza())
    if before.why_not:
        raise Refused(before.why_not, cure=before.cure)
    kind = before.stanza.type
    for _second in called(
        session, server, words(server, before.stanza, "backup", f"--type={kind}"), under_of(task.manner)
    ):
        yield Tick()
    after, _findings = pgbackrest.repository(server, before.stanza)
    known = {backup.id for backup in before.backups}
    made = [backup for backup in after.backups if backup.id not in known]
    if not made:
        raise Refused(after.why_not or "pgBackRest says that it has ended well, and its info names no new backup")
    written = sum(int(backup.about["bytes"]) for backup in made)
    backups.record(made[-1], task.manner.folder)
    yield Tick(Amount(written=written), note=made[-1].id)


# ---- verified --------------------------------------------------------------------------------------------------------


def verify(session: Session, task: Verify, backup: Backup, server: Server, room: Room) -> Work:
    """Its manifest then says so. Raises Refused, MissingMeans, Stopped, what a drill's server says."""
    from ..._files import backups

    beside = ""
    if task.level == "restore":
        yield from _drill(session, backup, server, room)
    else:
        argv = words(server, stanza_of(backup), "verify", *TOLD)
        done = yield from _ticking(called(session, server, argv))
        beside = judge(done, backup)
        yield from _log_is_there(session, backup, server)
    recorded = backups.record(backup, task.manner.folder)
    level = "restore" if task.level == "restore" else "decode"  # all files were decompressed and hashed
    backups.amend(recorded, level=level, at=datetime.now(timezone.utc))
    if beside:
        cure = "Let pgBackRest expire what is damaged (pgbackrest expire --set=…), and look at the disk"
        raise Refused(f"{backup.about['label']} is sound, but its repository is not: {beside}", cure=cure)
    yield Tick(note=backup.id)


def _ticking(work: t.Generator[int, None, Completed]) -> t.Generator[Tick, t.Any, Completed]:
    while True:
        try:
            next(work)
        except StopIteration as end:
            done: Completed = end.value
            return done
        yield Tick()


def judge(done: Completed, backup: Backup) -> str:
    """What is wrong beside the backup; "": nothing. Raises Refused where it is the backup itself."""
    label, named = backup.about["label"], NAMED.findall(done.err)
    cure = "Let pgBackRest make a full backup, then expire this one (pgbackrest expire --set=…); look at the disk"
    status = STATUS.search(done.out)
    of_backups = {each[0]: each for each in OF_BACKUP.findall(done.out)}
    if label not in of_backups or status is None:
        said = " ".join(done.out.split())[:500]
        raise Refused(f"pgBackRest's verify does not speak of {label}: {said or 'it says nothing'}", cure=cure)
    _label, state, checked, valid = of_backups[label]
    if state != "valid" or checked != valid or int(checked) == 0:
        said = f"{label} is {state}, {valid} of {checked} files are valid"
        raise Refused(f"pgBackRest: {said}{_some(n for n in named if not SEGMENT.search(n))}", cure=cure)
    damaged = {found: line for line in named for found in SEGMENT.findall(line)}
    needed = [line for segment, line in damaged.items() if _within(segment, backup)]
    unnamed = sum(int(all_) - int(ok) for _log, all_, ok in OF_LOG.findall(done.out)) > len(damaged)
    if needed or unnamed:
        raise Refused(f"pgBackRest: the log that {label} needs is damaged{_some(needed or named)}", cure=cure)
    wrong = [f"{each[0]} is {each[1]}" for each in of_backups.values() if each[1] not in ("valid", "in-progress")]
    wrong += [f"{log}: {ok} of {all_} segments are valid" for log, all_, ok in OF_LOG.findall(done.out) if ok != all_]
    return "; ".join(wrong[:SHOWN]) or ("" if status.group(1) == "ok" else f"status {status.group(1)}")


def _some(named: t.Iterable[str]) -> str:
    found = list(dict.fromkeys(named))
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f": {', '.join(found[:SHOWN])}{more}" if found else ""


def _within(segment: str, backup: Backup) -> bool:
    """Names of one timeline are ordered as the log is."""
    return backup.about["wal_start"] <= segment <= backup.about["wal_stop"]


def segments(first: str, last: str, size: int) -> list[str]:
    """Names of the log's files from one to the other. Raises Refused for what are no names."""
    each = re.fullmatch(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})", first)
    end = re.fullmatch(r"([0-9A-F]{8})([0-9A-F]{8})([0-9A-F]{8})", last)
    if not each or not end:
        raise Refused(f"pgBackRest does not say which part of the log is needed: {first!r} to {last!r}")
    a_file = (1 << 32) // size
    numbers = [int(found.group(2), 16) * a_file + int(found.group(3), 16) for found in (each, end)]
    timeline = end.group(1)
    found = range(numbers[0], min(numbers[1] + 1, numbers[0] + MOST_SEGMENTS))
    return [f"{timeline}{n // a_file:08X}{n % a_file:08X}" for n in found]


def _log_is_there(session: Session, backup: Backup, server: Server) -> Work:
    """Verify sees a damaged segment, and not one that is not there. Raises Refused."""
    about = backup.about
    wanted = segments(about["wal_start"], about["wal_stop"], int(server.settings["wal_segment_size"]))
    stanza, there = stanza_of(backup), set[str]()
    for folder in dict.fromkeys(name[:16] for name in wanted):
        path = f"archive/{stanza.name}/{about['archive']}/{folder}"
        argv = [*words(server, stanza._replace(name=""), "repo-ls"), path]
        done = yield from _ticking(called(session, server, argv))
        there |= {line[:24] for line in done.out.split() if line[24:25] == "-"}  # not the note of where a backup began
    missing = [name for name in wanted if name not in there]
    if missing:
        cure = "Let pgBackRest make a full backup, and find out who removed it"
        raise Refused(f"pgBackRest: the log that {about['label']} needs is missing{_some(missing)}", cure=cure)


# ---- tried out -------------------------------------------------------------------------------------------------------


def _drill(session: Session, backup: Backup, server: Server, room: Room) -> Work:
    """Restored into a private folder by the user whose repository it is, started, and looked into."""
    from .physical import looked_through

    who, stanza = pgbackrest.account(server), stanza_of(backup)
    owner = (who[0], who[1]) if who else None
    with throwaway.folder_of(owner, backup.source_bytes + (512 << 20)) as folder:
        data, spaces = folder / "data", folder / "tablespaces"
        for each in (data, spaces):
            each.mkdir(mode=0o700)
            if owner:
                os.chown(each, *owner)
        argv = words(
            server,
            stanza,
            "restore",
            *(f"--pg1-path={data}", f"--set={backup.about['label']}", "--type=immediate"),
            *("--target-action=promote", "--archive-mode=off", f"--tablespace-map-all={spaces}"),
        )
        yield from _ticking(called(session, server, argv))
        more = {"restore_command": fetching(server, stanza, data), "hot_standby": "off"}
        backup = backup._replace(about={**backup.about, "superuser": session.rows(SUPERUSER)[0][0]})
        yield from looked_through(session, backup, data, room.bin_dir, owner=owner, more=more)


def fetching(server: Server, stanza: Stanza, data: Path) -> str:
    """The server runs as that user already."""
    argv = words(server, stanza, "archive-get", f"--pg1-path={data}")
    argv = argv[argv.index(pgbackrest.PROGRAM) :]
    return f'{shlex.join(argv)} %f "%p"'
