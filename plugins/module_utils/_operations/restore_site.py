# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole server's backup as a new data directory, and what every restore tells. Pure. Databases: restore.py."""

from __future__ import annotations

import json
import typing as t

from .._backups import Backup, Shelf
from .._drills import not_tried
from .._errors import BadInput, Refused
from .._records import Amount, Finding, Measured, Plan, Ref, Step
from .._tasks import Restore
from .._units import say_bytes, say_seconds
from .backup_options import folder_of
from .rotation_law import level_of

if t.TYPE_CHECKING:
    from .restore import Policy

METHODS = ("physical", "pgbackrest")  # of backups of whole servers
ROOM = 1.1  # what is made consistent grows: undo and redo logs
SPARE = 64 << 20  # bytes
BESIDE = ".tablespaces"  # is their folder called, behind the name of the data directory


def refuse_options(params: t.Mapping[str, t.Any]) -> None:
    """Raises BadInput for what a data directory has none of, and for what only it has."""
    if not params.get("target_dir"):
        for name in ("target_owner", "tablespace_dir"):
            if params.get(name):
                raise BadInput(f"{name} is for a new data directory", cure="Give target_dir, too")
        return
    for name in ("database", "target", "replace", "globals", "drill"):
        if params.get(name):
            raise BadInput(
                f"{name}: target_dir is for the backup of a whole server",
                cure=f"Leave {name} out, or restore a database without target_dir",
            )


def spaces(params: t.Mapping[str, t.Any]) -> str:
    """The folder of tablespaces; "" where there are no such things. Raises BadInput."""
    given = params.get("tablespace_dir")
    if given and params["engine"] != "postgresql":
        raise BadInput(f"tablespace_dir is not for {params['engine']}", cure="Leave it out")
    if given:
        return folder_of(given, "tablespace_dir")
    beside = params.get("target_dir") and params["engine"] == "postgresql"
    return folder_of(params["target_dir"], "target_dir") + BESIDE if beside else ""


def chosen(policy: Policy, shelf: Shelf, engine: str) -> Backup:
    """The newest that fits. Raises BadInput where there is none, or where it is not clear whose."""
    there = sorted((*shelf.backups, *shelf.elsewhere), key=lambda b: (b.began, b.id))
    whole = [b for b in there if b.method in METHODS and (policy.id or b.engine == engine)]
    if policy.server:
        whole = [b for b in whole if policy.server in (b.server, b.address)]
    found = [b for b in whole if _fits(policy, b)]
    servers = sorted({b.server for b in found})
    if len(servers) > 1:
        cure = f"Name one of them in the option server: {', '.join(servers)}"
        raise BadInput(f"{len(servers)} servers have backups there", cure=cure)
    if not found:
        asked = policy.id or (f"until {policy.moment.isoformat()}" if policy.moment else "")
        names = ", ".join(b.id for b in whole[-5:]) or shelf.why_not or shelf.unseen or "none"
        broken = sum(b.backup is not None and b.backup.method in METHODS for b in shelf.broken)
        message = f"there is no backup of a whole server in {policy.folder}{' ' if asked else ''}{asked}"
        raise BadInput(message, cure=f"There are: {names}" + (f"; {broken} are broken" if broken else ""))
    return found[-1]


def _fits(policy: Policy, backup: Backup) -> bool:
    if policy.id:
        return backup.id == policy.id
    return policy.moment is None or backup.began <= policy.moment


def parents(backup: Backup, shelf: Shelf) -> tuple[Backup, ...]:
    """What it builds on, the full one first. Raises Refused where one is missing."""
    known = {b.id: b for b in (*shelf.backups, *shelf.elsewhere)}
    chain: list[Backup] = []
    wanted = backup.parent
    while wanted and backup.method == "physical":
        if wanted not in known or len(chain) > len(known):
            raise Refused(f"backup {backup.id} builds on {wanted}, which is not there", cure="Restore a full one")
        chain.append(known[wanted])
        wanted = known[wanted].parent
    return tuple(reversed(chain))


def refuse(policy: Policy, measured: Measured, shelf: Shelf, backup: Backup) -> None:
    """Raises Refused, BadInput."""
    if backup.engine != measured.server.engine:
        raise Refused(f"backup {backup.id} is of {backup.engine}, and this is {measured.server.engine}")
    if backup.encryption and policy.decrypt is None:
        raise BadInput(f"backup {backup.id} is encrypted with {backup.encryption}", cure="Give decrypt")
    if shelf.site is None:
        raise Refused(f"{policy.site} was not looked at")
    for site in (shelf.site, shelf.spaces if has_spaces(backup) else None):
        if site and site.why_not:
            cure = "Name a folder that is empty, or not there yet" if site.occupied else ""
            raise Refused(site.why_not, cure=cure)
    if not shelf.site.left:
        _assure_room(policy, shelf, backup)


def _assure_room(policy: Policy, shelf: Shelf, backup: Backup) -> None:
    """On each file system, as far as it is known. Raises Refused."""
    needed = int(backup.source_bytes * (1 + ROOM if backup.parent else ROOM)) + SPARE
    site, spaces = shelf.site, shelf.spaces if has_spaces(backup) else None
    places = [(policy.site, site, needed)]
    if spaces and site and spaces.device != site.device:
        far = _far(backup)
        places = [(policy.site, site, needed - far), (policy.spaces, spaces, far)]
    for path, place, size in places:
        if place and place.free is not None and size > place.free:
            raise Refused(
                f"{path} needs about {say_bytes(size)}, and {say_bytes(place.free)} are free there",
                cure="Make room there, or name a folder on another file system",
            )


def _far(backup: Backup) -> int:
    """Bytes in tablespaces; 0: unknown. Raises Refused."""
    try:
        return sum(int(each[3]) for each in json.loads(backup.about.get("tablespaces") or "[]"))
    except (ValueError, TypeError, IndexError):
        raise Refused("the manifest's tablespaces cannot be read") from None


def has_spaces(backup: Backup) -> bool:
    """Whether something of it may lie outside of the data directory. Of what it keeps pgBackRest does not tell."""
    return bool(backup.about.get("tablespaces")) or backup.method == "pgbackrest"


def plan(policy: Policy, measured: Measured, shelf: Shelf, fetch: t.Callable[[Backup], Step]) -> Plan:
    """One step, and before it what brings what is not here; `fetch`: the step that does. Raises BadInput, Refused."""
    backup = chosen(policy, shelf, measured.server.engine)
    refuse(policy, measured, shelf, backup)
    chain = parents(backup, shelf)
    task = Restore(
        Ref("", (policy.site,)),
        backup,
        jobs=policy.jobs,
        decrypt=policy.decrypt,
        site=policy.site,
        spaces=policy.spaces if has_spaces(backup) else "",
        owner=policy.owner,
        prove=policy.prove,
        parents=chain,
    )
    size = backup.source_bytes or backup.bytes
    fetched = [fetch(each) for each in (*chain, backup) if each in shelf.elsewhere]
    reason = f"asked for: the backup of the whole server of {age(measured, backup)} ago"
    step = Step(task, reason, told(backup), Amount(written=size), size=size, after=tuple(s.key for s in fetched))
    return Plan((*fetched, step), findings=findings(policy, shelf, backup))


def age(measured: Measured, backup: Backup) -> str:
    """In words."""
    return say_seconds(max(0.0, (measured.server.now - backup.began).total_seconds()))


def told(backup: Backup) -> dict[str, t.Any]:
    """What a step tells of it."""
    began = backup.began.isoformat(timespec="seconds")
    return {"id": backup.id, "began": began, "bytes": backup.bytes, "level": backup.level or None}


def findings(policy: Policy, shelf: Shelf, backup: Backup) -> tuple[Finding, ...]:
    """What a dead run left is removed without a step of its own: the restore begins with that."""
    found = []
    if shelf.site and shelf.site.left:
        message = f"a restore has died in {policy.site}: what it left there is removed first"
        found.append(Finding(3, "unfinished_restore", Ref("", (policy.site,)), message))
    if not (level_of(backup) or policy.drill):
        message = f"backup {backup.id} was never verified"
        fix = "Prove it first, with drill: true" if backup.method == "dump" else ""
        found.append(Finding(2, "not_verified", Ref(backup.database), message, fix=fix))
    found += not_tried(backup, policy.on) if policy.drill else []
    return tuple(found)
