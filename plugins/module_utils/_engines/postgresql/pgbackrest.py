# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""pgBackRest: how it is called, what it keeps of a server, and what its errors mean. What is done by it: backrest.py.

It runs as the user of the server, never as root: what root leaves in a repository keeps the archiver of the server out.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import typing as t
from datetime import datetime, timezone

from ..._backups import Backup, Repository, Stanza
from ..._errors import Busy, DbFault, Refused, Stopped
from ..._process import Completed, Program, mortal
from ..._records import Finding, Ref, Server
from .session import Session

PROGRAM = "pgbackrest"
ANSWER = 120.0  # seconds for a repository to say what it holds: it may be a bucket
ARCHIVER = """
SELECT pg_catalog.current_setting('archive_mode'),
       (SELECT s.setting FROM pg_catalog.pg_settings s WHERE s.name = 'archive_command'),
       a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), a.last_failed_wal
  FROM pg_catalog.pg_stat_archiver a
"""
GOOD, EMPTY, MIXED = 0, 2, 4  # status of a stanza. Source: pgBackRest's src/command/info/info.c
ERROR = re.compile(r"ERROR: \[(\d+)\]: (.*?)(?=\n\S+ \S+ P\d|\nERROR:|\nWARN:|\Z)", re.DOTALL)
# Source: pgBackRest's error numbers.
LOCKED, NO_LOGIN, NOT_ITS_COMMAND, NOT_ARCHIVED, ENDED = 50, 56, 68, 82, 63
CURES = {
    LOCKED: "Another pgBackRest is at work on it: wait for its end",
    NO_LOGIN: "Let pgBackRest log in by the socket: pg1-socket-path, pg1-user, and peer or trust in pg_hba.conf",
    NOT_ITS_COMMAND: "Set archive_command to pgbackrest --stanza=… archive-push %p",
    NOT_ARCHIVED: "The server's log says why archive_command fails",
}


# ---- how it is called ------------------------------------------------------------------------------------------------


def account(server: Server) -> tuple[int, int, str] | None:
    """Whom it runs as where we are root: uid, gid, home; None: as we do. Raises Refused."""
    if os.geteuid() != 0:
        return None
    import pwd

    if not server.settings.get("here"):
        raise Refused(
            "pgBackRest as root would leave files in the repository that its own user cannot read",
            cure="Set become_user to the user that owns the repository",
        )
    found = pwd.getpwuid(os.stat(str(server.settings["data_directory"])).st_uid)
    return found.pw_uid, found.pw_gid, found.pw_dir


def words(server: Server, stanza: Stanza, command: str, *options: str) -> list[str]:
    """The command line. Raises Refused."""
    who = account(server)
    become = ["setpriv", f"--reuid={who[0]}", f"--regid={who[1]}", "--init-groups"] if who else []
    told = [f"--config={stanza.config}"] if stanza.config else []
    told += [f"--stanza={stanza.name}"] if stanza.name else []
    told += [f"--repo={stanza.repo}"] if stanza.repo else []
    # Whatever the configuration says: errors are read from one place, and answers from the other.
    heard = [f"--log-level-stderr={'info' if command == 'verify' else 'warn'}", "--log-level-console=off"]
    return [*become, PROGRAM, *told, *heard, *options, command]


def shown(server: Server, stanza: Stanza, command: str, *options: str) -> list[str]:
    """For what is only shown: a step that cannot be carried out is shown, too."""
    try:
        return words(server, stanza, command, *options)
    except DbFault:
        return [PROGRAM, command]


def environment(server: Server) -> dict[str, str]:
    who = account(server)
    env = {**os.environ, "LC_ALL": "C"}
    return {**env, "HOME": who[2]} if who else env


def called(
    session: Session, server: Server, argv: t.Sequence[str], under: t.Sequence[str] = ()
) -> t.Generator[int, None, Completed]:
    """Yields once a second while it runs. Raises MissingMeans, Stopped, and what it says (fault_of)."""
    program = Program([*under, *_mortal(argv)], env=environment(server), package=PROGRAM)
    done = None
    try:
        while done is None:
            done = program.wait(1.0)
            if done is None and session.stopped.is_set():
                raise Stopped("stopped")
            yield 0
    finally:
        if done is None:
            program.stop(30.0)  # it tells the server that no backup goes on any more
    if done.code:
        raise fault_of(done)
    return done


def _mortal(argv: t.Sequence[str]) -> list[str]:
    """It ends with us, however we end: else it would hold its lock for hours, and the next run could do nothing.

    One setpriv does all: the kernel forgets that where the user changes afterwards. Source: prctl(2).
    """
    words = mortal()
    return [*words, *argv[1:]] if words and argv[0] == words[0] else [*words, *argv]


def fault_of(done: Completed) -> DbFault:
    """In its own words; its hints are the cure where there is none of ours."""
    found = ERROR.search(done.err)
    if not found:
        missing = "No such file" in done.err and PROGRAM in done.err
        cure = "Install the package pgbackrest" if missing else ""
        return Refused(f"pgBackRest: {' '.join(done.err.split())[-500:] or f'exit status {done.code}'}", cure=cure)
    number = int(found.group(1))
    said, hints = told(found.group(2))
    kind = Busy if number == LOCKED else Refused
    return Stopped("stopped") if number == ENDED else kind(f"pgBackRest: {said}", cure=CURES.get(number, hints))


def told(text: str) -> tuple[str, str]:
    """What it says, and its hints."""
    said, *hints = re.split(r"\s*\bHINT: ", text.strip())
    return " ".join(said.split())[:500], "; ".join(" ".join(hint.split()) for hint in hints)[:500]


# ---- what it keeps ---------------------------------------------------------------------------------------------------


def repository(server: Server, stanza: Stanza) -> tuple[Repository, tuple[Finding, ...]]:
    """What is kept of this server. Never raises: what is wrong is in `why_not`."""
    try:
        return read(_info(server, stanza), server, stanza)
    except DbFault as fault:
        return Repository(stanza, why_not=fault.cause, cure=fault.cure), ()


def _info(server: Server, stanza: Stanza) -> list[dict[str, t.Any]]:
    """Raises Refused, MissingMeans."""
    import shutil

    from ..._errors import MissingMeans

    if shutil.which(PROGRAM) is None:
        cure = "Install the package pgbackrest on the host where the module runs"
        raise MissingMeans("the program pgbackrest is not there", cure=cure)
    program = Program(words(server, stanza, "info", "--output=json"), env=environment(server), package=PROGRAM)
    done = program.wait(ANSWER)
    if done is None:
        program.stop(0.0)
        raise Refused(f"pgBackRest did not say within {ANSWER:g} s what it keeps", cure="Look at its repository")
    if done.code:
        raise fault_of(done)
    try:
        found = json.loads(done.out)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise Refused("pgBackRest's info cannot be read")
    return found


def read(
    found: t.Sequence[t.Mapping[str, t.Any]], server: Server, stanza: Stanza
) -> tuple[Repository, tuple[Finding, ...]]:
    """What `info` says of this server. Raises Refused."""
    ours = _system(server)
    each = _stanza_of(found, stanza, ours)
    stanza = stanza._replace(name=str(each["name"]))
    whose = {(db["repo-key"], db["id"]): db for db in each["db"]}
    if ours and whose and not any(str(db["system-id"]) == ours for db in whose.values()):
        cure = "Name another one in pgbackrest_stanza, or have it upgraded: pgbackrest stanza-upgrade"
        raise Refused(f"the stanza {stanza.name} of pgBackRest is of another server", cure=cure)
    archives = {(a["database"]["repo-key"], a["database"]["id"]): a["id"] for a in each["archive"]}
    backups, findings = [], []
    for kept in each["backup"]:
        place = (kept["database"]["repo-key"], kept["database"]["id"])
        db = whose.get(place)
        if db is None or (ours and str(db["system-id"]) != ours) or stanza.repo not in (None, place[0]):
            continue
        if kept.get("error"):
            message = (
                f"pgBackRest found pages with a wrong checksum when it made {kept['label']}: it counts for nothing"
            )
            fix = f"Look at them: pgbackrest --stanza={stanza.name} --set={kept['label']} info"
            findings.append(Finding(1, "page_checksums", Ref(""), message, fix=fix))
            continue
        backups.append(_backup(kept, db, server, stanza._replace(repo=place[0]), archives.get(place, "")))
    return Repository(stanza, tuple(sorted(backups, key=lambda b: (b.began, b.id)))), tuple(findings)


def _system(server: Server) -> str:
    """What initdb made up; "" where nobody may know it."""
    last = str(server.settings.get("identity", "")).rpartition(":")[2]
    return last if len(last) > 15 and last.isdigit() else ""


def _stanza_of(found: t.Sequence[t.Mapping[str, t.Any]], stanza: Stanza, ours: str) -> t.Mapping[str, t.Any]:
    """The one that is named, or that is of this server. Raises Refused."""
    named = [s for s in found if s["name"] == stanza.name]
    if not stanza.name:
        if not ours:
            raise Refused("nothing says which stanza of pgBackRest is this server's", cure="Name it: pgbackrest_stanza")
        named = [s for s in found if any(str(db["system-id"]) == ours for db in s["db"])]
    if len(named) > 1:
        names = ", ".join(str(s["name"]) for s in named)
        raise Refused(f"several stanzas of pgBackRest are of this server: {names}", cure="Name one: pgbackrest_stanza")
    if not named:
        why = "; ".join(filter(None, (_unwell(s)[0] for s in found)))
        there = ", ".join(str(s["name"]) for s in found) or "there is none"
        cure = "Make one for it: pgbackrest stanza-create; or run as the user that may read the repository"
        raise Refused(f"no stanza of pgBackRest is of this server ({there}){': ' if why else ''}{why}", cure=cure)
    why, cure = _unwell(named[0])
    if why:
        raise Refused(f"stanza {named[0]['name']} of pgBackRest: {why}", cure=cure or "pgbackrest stanza-create")
    return named[0]


def _unwell(each: t.Mapping[str, t.Any]) -> tuple[str, str]:
    """Why nothing can be kept there, and a cure; "": it can."""
    if each["status"]["code"] in (GOOD, EMPTY, MIXED):
        return "", ""
    return told("; ".join(str(repo["status"]["message"]) for repo in each["repo"]) or str(each["status"]["message"]))


def _backup(
    kept: t.Mapping[str, t.Any], db: t.Mapping[str, t.Any], server: Server, stanza: Stanza, archive: str
) -> Backup:
    """As a manifest of ours would tell of it, without files: they are pgBackRest's."""
    began, ended = (datetime.fromtimestamp(kept["timestamp"][name], timezone.utc) for name in ("start", "stop"))
    label, size = str(kept["label"]), kept["info"]
    about = {
        "stanza": stanza.name,
        "repo": str(stanza.repo),
        "config": stanza.config,
        "label": label,
        "type": str(kept["type"]),
        "prior": str(kept.get("prior") or ""),
        "archive": archive,
        "wal_start": str(kept["archive"]["start"] or ""),
        "wal_stop": str(kept["archive"]["stop"] or ""),
        # The repository's part is not told where pgBackRest bundles files together.
        "bytes": str((size.get("repository") or {}).get("delta") or size["delta"]),
    }
    mark = hashlib.sha256(f"{stanza.name} {stanza.repo} {label}".encode()).hexdigest()[:6]
    return Backup(
        id=f"{began:%Y%m%dT%H%M%SZ}-{mark}",
        server=str(server.settings["identity"]),
        address=server.address,
        engine=server.engine,
        version=str(db["version"]),
        database="",
        method=PROGRAM,
        tool=f"pgBackRest {kept['backrest']['version']}",
        arguments=(),
        began=began,
        ended=ended,
        files=(),
        format=str(kept["type"]),
        source_bytes=int(size["size"]),
        about=about,
    )


def archiver(session: Session) -> t.Iterator[Finding]:
    """Without the log no backup can be completed."""
    for mode, command, failing, segment in session.rows(ARCHIVER):
        if mode == "off":
            fix = "ALTER SYSTEM SET archive_mode = on, set archive_command, and restart the server"
            yield Finding(1, "no_archiving", Ref(""), "archive_mode is off: pgBackRest cannot back up", fix=fix)
        elif command is not None and PROGRAM not in command:
            message = "archive_command does not call pgBackRest: it cannot back up"
            yield Finding(1, "no_archiving", Ref(""), message, fix=CURES[NOT_ITS_COMMAND])
        elif failing:
            message = f"archive_command fails, last for {segment}: no backup can be completed"
            yield Finding(1, "archiving_fails", Ref(""), message, fix=CURES[NOT_ARCHIVED])
