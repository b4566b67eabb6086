# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup of a whole server becomes a new data directory. The directory itself: _files/sites.py. No drill."""

from __future__ import annotations

import contextlib
import os
import shlex
import typing as t
from pathlib import Path

from ..._backups import Backup
from ..._errors import DbFault, Refused, Stopped
from ..._files import durable, sites
from ..._records import Server, Tick, Work
from ..._tasks import Restore
from . import backrest_site, incremental, physical, tarballs, throwaway
from .clients import client
from .decoding import major

ACCOUNT = "postgres"  # whose it is where we are root, as the server's packages make it
KEYSTONE = "PG_VERSION"  # without it no server starts on a directory
# What the server of a proof does not take from throwaway.SETTINGS: this directory is kept.
KEPT = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
SHUTDOWN = 3600.0  # seconds for it to write what the log had
LEFT = ("postmaster.opts",)  # that the proof leaves: our own words


# ---- the words -------------------------------------------------------------------------------------------------------


def spell(task: Restore, server: Server) -> list[str]:
    """What a shell would be told. Raises Refused, MissingMeans."""
    _refuse(task)
    bin_dir, version = str(server.settings.get("bin_dir") or ""), major(task.backup.version)
    words = [backrest_site.spell(task, server)] if backrest_site.is_its(task.backup) else _unpacking(task, bin_dir)
    if task.prove:
        program = throwaway.server_program(version, bin_dir, same=True)
        words.append(f"{program} -D {shlex.quote(task.site)}: each database opened, and stopped again")
    return words


def _unpacking(task: Restore, bin_dir: str) -> list[str]:
    site, version = shlex.quote(task.site), major(task.backup.version)
    words = [f"unpack {each.folder}/{each.id} into {site}" for each in (*task.parents, task.backup)]
    words += [f"tablespace {s.name}: {shlex.quote(str(_place(task, s)))}" for s in tarballs.spaces(task.backup)]
    if task.parents:
        tool = client("pg_combinebackup", version, bin_dir)
        words.append(shlex.join([tool.path, f"--output={task.site}", *(b.id for b in (*task.parents, task.backup))]))
    verifier = _verifier(version, bin_dir)
    return [*words, *([shlex.join([*verifier, task.site])] if verifier else [])]


def _verifier(version: int, bin_dir: str) -> list[str]:
    """pg_verifybackup, where there is one: every file was compared with the manifest as it was unpacked."""
    try:
        tool = client("pg_verifybackup", version, bin_dir).path
    except DbFault:
        return []
    parsed = os.access(os.path.join(os.path.dirname(tool), "pg_waldump"), os.X_OK)
    # The links to tablespaces are made anew, and what says where they were is removed.
    return [tool, f"--ignore={tarballs.MAP}", *([] if parsed else ["--no-parse-wal"])]


def _refuse(task: Restore) -> None:
    """What cannot be restored so. Raises Refused."""
    backup = task.backup
    if backup.engine != "postgresql" or not (backup.method == "physical" or backrest_site.is_its(backup)):
        cure = "Restore it without target_dir"
        raise Refused(f"backup {backup.id} ({backup.engine}, {backup.method}) becomes no data directory", cure=cure)


def _place(task: Restore, space: tarballs.Space) -> Path:
    return Path(task.spaces) / durable.safe_name(space.name, 100)


# ---- the work --------------------------------------------------------------------------------------------------------


def carry_out(session: t.Any, task: Restore, server: Server) -> Work:
    """Raises Busy, Refused, MissingMeans, Stopped; what is half-restored is removed."""
    _refuse(task)
    backup, bin_dir = task.backup, str(server.settings.get("bin_dir") or "")
    version = major(backup.version)
    if task.prove:  # before hours of unpacking
        throwaway.server_program(version, bin_dir, same=True)
    owner = sites.owner_of(task.owner or (ACCOUNT if os.geteuid() == 0 else ""))
    if owner is None and os.geteuid() == 0:
        raise Refused("PostgreSQL does not run as root", cure="Name another account in target_owner")
    with contextlib.ExitStack() as stack:
        before = sites.look(task.site)
        beside = stack.enter_context(sites.founded(task.spaces, owner, of=before)) if task.spaces else None
        site = stack.enter_context(sites.founded(task.site, owner))
        yield Tick()
        data, staged = Path(site.data), Path(beside.data) if beside else Path()
        if backrest_site.is_its(backup):
            spaces = yield from _by_backrest(session, task, server, data, staged=staged, owner=owner)
        else:
            spaces = yield from _by_us(session, task, data, staged, bin_dir=bin_dir, owner=owner)
        for oid, place in spaces:  # to where they are going to be
            tarballs.link(data, oid, place)
        tarballs.given(data / tarballs.SPACES, owner)
        beside = beside if spaces else None
        for each in (beside, site):
            for _files in each.flush() if each else ():
                _assure(session)
                yield Tick()
        if beside:
            beside.raise_up()
            beside.placed = True  # from here on they may belong to a directory that is whole
        site.place(KEYSTONE)
        if beside:
            beside.finish()
    yield Tick(note=backup.id)


Spaces = list[tuple[str, Path]]  # tablespaces: oid, and where it is going to be


def _by_us(
    session: t.Any, task: Restore, data: Path, staged: Path, *, bin_dir: str, owner: tuple[int, int] | None
) -> t.Generator[Tick, t.Any, Spaces]:
    backup, spaces = task.backup, tarballs.spaces(task.backup)
    where = {s.oid: staged / _place(task, s).name for s in spaces}
    yield from physical.filled(
        session, incremental.chain(backup), task.decrypt, data.parent, where, bin_dir=bin_dir, owner=owner
    )
    yield from _verified(session, backup, data, bin_dir, owner)
    physical.alone(data)
    if task.prove:
        yield from _proven(session, backup, data, bin_dir, owner=owner)
    return [(s.oid, _place(task, s)) for s in spaces]


def _by_backrest(
    session: t.Any, task: Restore, server: Server, data: Path, *, staged: Path, owner: tuple[int, int] | None
) -> t.Generator[Tick, t.Any, Spaces]:
    yield from backrest_site.filled(session, task, server, data, staged)
    if task.prove:
        more = backrest_site.while_proven(task, server, data)
        bin_dir = str(server.settings.get("bin_dir") or "")
        yield from _proven(session, task.backup, data, bin_dir, owner=owner, more=more)
    return backrest_site.settled(task, data, staged)


def _assure(session: t.Any) -> None:
    if session.stopped.is_set():
        raise Stopped("stopped")


def _verified(session: t.Any, backup: Backup, data: Path, bin_dir: str, owner: tuple[int, int] | None) -> Work:
    """What lies on the disk is what the manifest says, whatever was unpacked. Raises Refused, Stopped."""
    from ..._process import Program

    tool = _verifier(major(backup.version), bin_dir)
    if not tool:
        return
    argv = [*throwaway.prefix(owner), *tool, "--quiet", str(data)]
    program, done = Program(argv, env={**os.environ, "LC_ALL": "C"}), None
    try:
        while done is None:
            done = program.wait(1.0)
            if done is None:
                _assure(session)
            yield Tick()
    finally:
        if done is None:
            program.stop()
    if done.code:
        said = " ".join(done.err.split())[-500:]
        raise Refused(f"pg_verifybackup refuses what {backup.id} became: {said}", cure="Look at the disk")


def _proven(
    session: t.Any,
    backup: Backup,
    data: Path,
    bin_dir: str,
    *,
    owner: tuple[int, int] | None,
    more: t.Mapping[str, str] | None = None,
) -> Work:
    """A server reads the log to the end of the backup, opens each database, and is shut down. Raises Refused."""
    yield from physical.looked_through(
        session, backup, data, bin_dir, owner=owner, more={**KEPT, **(more or {})}, checked=False, patience=SHUTDOWN
    )
    if (data / "postmaster.pid").exists():
        raise Refused("the server of the proof was not shut down cleanly", cure="Look into the system's log")
    for name in LEFT:
        (data / name).unlink(missing_ok=True)
