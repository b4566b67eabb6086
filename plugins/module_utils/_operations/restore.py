# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH backup is restored, where to, and what is refused. Pure: no SQL, no I/O, no clock."""

from __future__ import annotations

import posixpath
import typing as t
from datetime import datetime, timezone
from functools import partial

from .._backups import Backup, Bucket, Decryption, Elsewhere, Manner, Shelf, Sheltered
from .._errors import BadInput, Refused
from .._records import Amount, Measured, Plan, Ref, Server, Step, Wants
from .._tasks import CopyBackup, Restore
from .._tuples import NamedTuple
from .._units import say_bytes
from . import restore_site
from .backup_options import S3, bucket_of, drill_on, folder_of, identity_of, refuse_place, target_of
from .rotation_law import level_of

__all__ = ["OPTIONS", "doubts", "engine_for", "plan", "policy", "wants"]

OPTIONS: dict[str, t.Any] = {
    "backup_dir": {"type": "path"},
    "database": {"type": "str"},
    "which": {"type": "str", "default": "latest"},
    "path": {"type": "path"},
    "server": {"type": "str"},
    "decrypt": {
        "type": "dict",
        "options": {
            "age_identity": {"type": "path"},
            "gpg_home": {"type": "path"},
            "gpg_passphrase": {"type": "str", "no_log": True},
        },
    },
    "target": {"type": "str"},
    "replace": {"type": "bool", "default": False},
    "globals": {"type": "bool", "default": False},
    "drill": {"type": "bool", "default": False},
    "drill_on": {"type": "raw", "default": "throwaway"},
    "drill_password": {"type": "str", "no_log": True},
    "bin_dir": {"type": "path"},
    "target_dir": {"type": "path"},
    "tablespace_dir": {"type": "path"},
    "target_owner": {"type": "str"},
    "prove": {"type": "bool", "default": True},
    "copy_from": {"type": "str"},
    "s3": {"type": "dict", "options": S3},
}

PROVEN = 3  # of LEVELS: restored and compared
TRIED = ("physical",)  # methods of backups of whole servers that a drill tries out, where `path` names one


class Policy(NamedTuple):
    folder: str
    database: str
    moment: datetime | None  # None: the latest
    id: str
    server: str  # identity or address, where several share the folder
    decrypt: Decryption | None
    target: str
    replace: bool
    globals: bool
    drill: bool
    on: str | Elsewhere
    jobs: int = 1
    source: str = ""  # copies: a folder or s3://bucket/prefix, where it is fetched from when it is not here
    bucket: Bucket | None = None
    force: bool = False  # asked for, and so due whatever is there
    site: str = ""  # a data directory, where a whole server is restored
    spaces: str = ""  # the folder of its tablespaces
    owner: str = ""  # of it
    prove: bool = True


def engine_for(params: t.Mapping[str, t.Any]) -> str:
    """A data directory needs no server: where it is restored, there may be none any more."""
    return "data_directory" if params.get("target_dir") else ""


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    restore_site.refuse_options(params)
    drill = bool(params["drill"])
    if drill and (params.get("target") or params["replace"]):
        raise BadInput("a drill throws away what it restores: it has no target", cure="Leave target and replace out")
    folder, database, which = _place(params)
    moment, id_ = _which(which)
    source = target_of(params.get("copy_from"), folder, "copy_from")
    if source and params.get("path"):
        raise BadInput(
            "copy_from has copies of whole folders, and path names a file that is here", cure="Leave path out"
        )
    return Policy(
        folder=folder,
        database=database,
        moment=moment,
        id=id_,
        server=params.get("server") or "",
        decrypt=_decryption(params.get("decrypt")),
        target=params.get("target") or database,
        replace=bool(params["replace"]),
        globals=bool(params["globals"]),
        drill=drill,
        on=drill_on(params.get("drill_on"), params.get("drill_password")),
        jobs=params.get("jobs") or 1,
        source=source,
        bucket=bucket_of(params.get("s3"), source, "copy_from"),
        force=not drill,
        site=folder_of(params["target_dir"], "target_dir") if params.get("target_dir") else "",
        spaces=restore_site.spaces(params),
        owner=params.get("target_owner") or "",
        prove=params.get("prove") is not False,
    )


def _place(params: t.Mapping[str, t.Any]) -> tuple[str, str, str]:
    """Folder, database and which; of a path, whose database its manifest says. Raises BadInput."""
    path, folder, database = (params.get(name) or "" for name in ("path", "backup_dir", "database"))
    if path:
        if folder or database or params["which"] != "latest":
            raise BadInput("path names a backup, and so do backup_dir, database and which", cure="Give one of both")
        parts = folder_of(path, "path").split("/")
        if len(parts) < 4:
            raise BadInput(f"path: {path} is no file of a backup", cure="Write it as /srv/backups/shop/….manifest.json")
        return "/".join(parts[:-2]), "", parts[-1].partition(".")[0]
    if not folder or not (database or params.get("target_dir")):
        raise BadInput("nothing says which backup is to be restored", cure="Give backup_dir and database, or path")
    return folder_of(folder, "backup_dir"), database, str(params["which"])


def _which(text: str) -> tuple[datetime | None, str]:
    """`latest`, a moment as 2026-11-22T06:30:00Z, or the id of a backup. Raises BadInput."""
    if text == "latest":
        return None, ""
    if len(text) == 23 and text[16:17] == "-":  # 20261122T063000Z-0a1b2c
        return None, text
    try:
        found = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        cure = "It is latest, a moment as 2026-11-22T06:30:00Z, or the id of a backup"
        raise BadInput(f"which: {text!r} is not understood", cure=cure) from None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)), ""


def _decryption(given: t.Mapping[str, t.Any] | None) -> Decryption | None:
    if given is None:
        return None
    return Decryption(given.get("age_identity") or "", given.get("gpg_home") or "", given.get("gpg_passphrase") or "")


def wants(policy: Policy, server: Server) -> Wants:
    if policy.drill:
        refuse_place(policy.on, server)
    if policy.site and server.engine == "sqlite":
        raise BadInput("target_dir: SQLite has no data directory", cure="Name the file in target")
    site = policy.site
    if server.engine == "sqlite" and not policy.drill:  # how much is free where the file comes to be
        site = posixpath.dirname(policy.target)
    sheltered = Sheltered(policy.folder, source=policy.source, bucket=policy.bucket, site=site, spaces=policy.spaces)
    names = (policy.database, *([""] if policy.globals else []))
    return Wants(backups=sheltered._replace(databases=names if policy.source else ()))


def doubts(policy: Policy, measured: Measured) -> Wants:
    return Wants()


def plan(policy: Policy, measured: Measured) -> Plan:
    """One step, or none for a drill of what is proven already. Raises BadInput, Refused for what cannot be."""
    if not policy.drill and not policy.force:
        return Plan()  # asked again after it was done
    shelf = measured.shelf or Shelf(policy.folder)
    if policy.site:
        return restore_site.plan(policy, measured, shelf, partial(_fetch, policy, shelf))
    backup = _chosen(policy, measured, shelf)
    policy = policy._replace(database=backup.database, target=policy.target or backup.database)
    _refuse(policy, measured, backup)
    if backup.engine == "sqlite":
        _assure_room(policy, shelf, backup)
    if policy.drill and level_of(backup) >= PROVEN:
        return Plan(findings=restore_site.findings(policy, shelf, backup))
    age = restore_site.age(measured, backup)
    ref = Ref(backup.database if policy.drill else policy.target)
    task = Restore(
        ref,
        backup,
        drill=policy.drill,
        replace=policy.replace,
        globals=_globals(policy, backup, shelf),
        jobs=policy.jobs,
        decrypt=policy.decrypt,
        on=policy.on,
        founded=not policy.drill and _founded(measured, policy.target),
    )
    deed = "a drill of" if policy.drill else "asked for:"
    reason = f"{deed} the backup of {backup.database or 'the whole server'} of {age} ago"
    size = backup.source_bytes or backup.bytes
    fetched = [_fetch(policy, shelf, each) for each in (backup, task.globals) if each and each in shelf.elsewhere]
    after = tuple(s.key for s in fetched)
    step = Step(task, reason, restore_site.told(backup), Amount(written=size), size=size, after=after)
    return Plan((*fetched, step), findings=restore_site.findings(policy, shelf, backup))


def _fetch(policy: Policy, shelf: Shelf, backup: Backup) -> Step:
    """Into the backup folder first: from then on it is a backup like others."""
    ref = Ref("", (backup.id,))
    task = CopyBackup(ref, backup, Manner(policy.folder), policy.folder, policy.bucket, source=policy.source)
    room = backup.bytes * 1.1 if shelf.free is not None else 0
    lacking = room > (shelf.free or 0)
    skip = f"it takes {say_bytes(backup.bytes)}, and {say_bytes(shelf.free or 0)} are free here" if lacking else ""
    told = {"id": backup.id, "bytes": backup.bytes}
    reason = f"backup {backup.id} is in {policy.source} only"
    return Step(task, reason, told, Amount(written=backup.bytes), size=backup.bytes, skip=skip, fails=True)


def _chosen(policy: Policy, measured: Measured, shelf: Shelf) -> Backup:
    """Raises BadInput where there is none, or where it is not clear whose."""
    there = sorted((*shelf.backups, *shelf.elsewhere), key=lambda b: (b.began, b.id))
    whole = [b for b in there if b.method == "dump" or (b.method in TRIED and policy.drill and not policy.database)]
    named = [b for b in whole if b.database == policy.database or (not policy.database and b.id == policy.id)]
    _whole_server(policy, there)
    mine = identity_of(measured.server, policy.database)
    if policy.server:
        named = [b for b in named if policy.server in (b.server, b.address)]
    elif any(b.server == mine for b in named):
        named = [b for b in named if b.server == mine]
    servers = sorted({b.server for b in named})
    if len(servers) > 1:
        cure = f"Name one of them in the option server: {', '.join(servers)}"
        raise BadInput(f"{len(servers)} servers have backups of {policy.database} there", cure=cure)
    found = [b for b in named if _fits(policy, b, measured)]
    if not found:
        asked = policy.id or (f"until {policy.moment.isoformat()}" if policy.moment else "")
        names = ", ".join(b.id for b in named[-5:]) or shelf.why_not or shelf.unseen or "none"
        message = f"there is no backup of {policy.database} in {policy.folder}{' ' if asked else ''}{asked}"
        broken = sum(b.backup is not None and b.backup.database == policy.database for b in shelf.broken)
        cure = f"There are: {names}" + (f"; {broken} are broken" if broken else "")
        raise BadInput(message, cure=cure)
    return found[-1]


def _whole_server(policy: Policy, there: t.Sequence[Backup]) -> None:
    """Raises Refused for a backup that is of no single database, whose name was given."""
    for backup in there:
        tried = policy.drill and backup.method in TRIED
        if policy.id == backup.id and backup.method != "dump" and not policy.database and not tried:
            cure = "Restore it into a new data directory (target_dir); db_backup with verify: restore tries it out"
            if backup.method == "pgbackrest":
                cure += f"; or by hand: pgbackrest restore --set={backup.about.get('label', '')}"
            raise Refused(f"backup {backup.id} ({backup.method}) is of the whole server, not of a database", cure=cure)


def _fits(policy: Policy, backup: Backup, measured: Measured) -> bool:
    if policy.id:
        return backup.id == policy.id
    return policy.moment is None or backup.began <= policy.moment


def _refuse(policy: Policy, measured: Measured, backup: Backup) -> None:
    """Raises Refused, BadInput."""
    server = measured.server
    if backup.engine != server.engine:
        raise Refused(f"backup {backup.id} is of {backup.engine}, and this is {server.engine}")
    if backup.encryption and policy.decrypt is None:
        raise BadInput(f"backup {backup.id} is encrypted with {backup.encryption}", cure="Give decrypt")
    free = {d.name for d in measured.databases if d.wreck or (d.bare and _founded(measured, d.name))}
    there = {info.name for info in server.databases} - free
    if not policy.drill and policy.target in there and not policy.replace:
        raise Refused(
            "a database of this name is there",
            database=policy.target,
            cure="Restore it under another name (target), or say replace: true",
        )


def _assure_room(policy: Policy, shelf: Shelf, backup: Backup) -> None:
    """For a whole file, whose size is known, beside the one that it may replace. Raises Refused."""
    free, needed = shelf.site.free if shelf.site else None, sum(file.plain_bytes for file in backup.files)
    if not policy.drill and free is not None and free < needed:
        raise Refused(
            f"{needed:,} bytes are to be written where {free:,} are free",
            database=policy.target,
            cure="Make room there, or name another folder",
        )


def _founded(measured: Measured, name: str) -> bool:
    """Whether a run that died was about to create it, as the journal says. It may have had no time to mark it."""
    return name in measured.owned.get(("restore", Ref(name)), ())


def _globals(policy: Policy, backup: Backup, shelf: Shelf) -> Backup | None:
    """What belongs to no database, as it was then. Raises BadInput."""
    if not policy.globals:
        return None
    there = sorted((*shelf.backups, *shelf.elsewhere), key=lambda b: (b.began, b.id))
    found = [b for b in there if b.method == "globals" and b.server == backup.server and b.began <= backup.ended]
    if not found:
        raise BadInput("there is no backup of what belongs to no database", cure="Leave globals out")
    return found[-1]
