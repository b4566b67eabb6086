# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps restored: into a database of an interim name, compared, and given its name at the end. Drills are elsewhere."""

from __future__ import annotations

import contextlib
import re
import shlex
import time
import typing as t
from pathlib import Path

from ..._backups import Backup, Decryption, Elsewhere, Stored
from ..._errors import DbFault, Gone, Refused, Stopped
from ..._records import Amount, Server, Tick, Work
from ..._tasks import Restore
from ..._tuples import NamedTuple
from . import belongings, founding
from .clients import Client, environment, private_folder, target
from .connection import Connection, Kind
from .decoding import major, restorer
from .dumped_rows import differences, parts
from .dumping import APPLICATION, Room, judge
from .interim import THERE, drop, founded
from .names import literal, quoted
from .quiet import quiet
from .session import Session
from .versions import major_of

# pg_dump loads partitions through their table where it is not sure in which of them a row belongs elsewhere (hashed
# enums), and the rows stand under that one's name.
PARTITIONED = """
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
  FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'p'
"""
# What of the first file comes before the rows that stand in other files, and what after them.
BEFORE, AFTER = ("--section=pre-data", "--section=data"), "--section=post-data"
FULL = "No space left on device|Disk quota exceeded"  # as the operating system says it, whatever speaks the server
KEEP = 1 << 20  # bytes read at once
PATIENCE = 5.0  # seconds for the server to let go of connections that were closed a moment ago, our own among them


class Place(NamedTuple):
    """Where a dump is restored, and how much of what it says can be there."""

    name: str  # of the database, which is there and empty
    jobs: int = 1
    options: tuple[str, ...] = ()


def spell(task: Restore, server: Server, room: Room) -> list[str]:
    if task.drill:
        return [_drilled(task, room)]
    refuse(task.backup, server)
    about, name = task.backup.about, founding.interim(task.ref.database)
    tool = restorer(task.backup, room.bin_dir)
    argv, rest = _argv(tool, room, Place(name, task.jobs)), sum(x.what == "data" for x in task.backup.files)
    passes = [[*BEFORE], *[["--section=data"]] * rest, [AFTER]] if rest else [[]]
    spaces = server.settings.get("tablespaces", ())
    words = [founding.create(name, about, major_of(server), spaces), *(shlex.join([*argv, *more]) for more in passes)]
    words += [*founding.labels(name, about), *founding.furnish(name, about)]
    if task.replace:
        words.append(f"DROP DATABASE IF EXISTS {quoted(task.ref.database)}")
    return [*words, *christened(task, name)]


def _drilled(task: Restore, room: Room) -> str:
    backup = task.backup
    where = "a temporary server" if task.on == "throwaway" else "a scratch database"
    where += f" on {task.on.address}" if isinstance(task.on, Elsewhere) else ""
    if backup.method != "dump":
        return f"unpack {backup.folder}/{backup.id} into a temporary server, each b-tree index checked, removed"
    tool = restorer(backup, room.bin_dir)
    return f"{tool.path} --exit-on-error: {backup.folder}/{backup.id} into {where}, compared, removed"


def _argv(tool: Client, room: Room, place: Place) -> list[str]:
    jobs = [f"--jobs={place.jobs}"] if place.jobs > 1 else []
    return [tool.path, *target(room.connector, place.name), "--exit-on-error", *jobs, *place.options]


def refuse(backup: Backup, server: Server) -> None:
    """What cannot be restored here at all."""
    where = {"database": backup.database}
    if backup.engine != "postgresql":
        raise Refused(f"backup {backup.id} is one of {backup.engine}, not of PostgreSQL", **where)
    if backup.method != "dump":
        cure = "Restore it into a new data directory (target_dir)"
        raise Refused(f"backup {backup.id} ({backup.method}) is not one of a single database", cure=cure, **where)
    if major(backup.version) > major_of(server):
        cure = f"Restore it on version {major(backup.version)} or newer"
        raise Refused(f"backup {backup.id} is of PostgreSQL {backup.version}, newer than this server", cure=cure)


# ---- the work --------------------------------------------------------------------------------------------------------


def carry_out(session: Session, task: Restore, server: Server, room: Room) -> Work:
    """Raises Busy, Gone, Refused, MissingMeans, Stopped; what is half-restored is removed, and nothing else touched."""
    if task.drill:
        from . import drill

        yield from drill.carry_out(session, task, server, room)
        return
    refuse(task.backup, server)
    name, worker = founding.interim(task.ref.database), session.worker(lock_timeout=session.lock_timeout)
    _free(session, worker, task)
    drop(worker, room.connector, f"{name}_old")
    if task.globals:
        from . import roles

        yield from roles.restore(session, task.globals, task.decrypt)
    belongings.assure_roles(worker, task.backup.about)
    room = room._replace(connector=quiet(worker, room.connector))
    with founded(worker, room.connector, name, task.backup, version=major_of(server)):
        yield Tick()
        place, lacking = labelled(worker, room, task.backup, Place(name, task.jobs))
        yield from poured(session, task.backup, task.decrypt, room, place)
        yield from compared(room, task.backup, name)
        if lacking:
            yield Tick(found=belongings.without_labels(task.ref, lacking))
        about = task.backup.about
        try:
            yield from belongings.given(worker, room.connector, name, task.ref, about, labels=not lacking)
        except DbFault as fault:
            raise restorers_fault(fault) from None
        _name(session, worker, task, name, room)
    yield Tick(note=task.backup.id)


def labelled(worker: Connection, room: Room, backup: Backup, place: Place) -> tuple[Place, list[str]]:
    """Without security labels where somebody is not there who provides them, and who that is."""
    lacking = belongings.unlabelled(worker, room.connector, place.name, backup.about)
    return place._replace(options=(*place.options, belongings.NO_LABELS)) if lacking else place, lacking


def _free(session: Session, worker: Connection, task: Restore) -> bool:
    """Whether there is one of this name, that may be replaced. Raises Refused."""
    session.leave(task.ref.database)
    until = time.monotonic() + PATIENCE
    found = worker.rows(THERE, (session.pids, task.ref.database))
    while task.replace and found and found[0][1] and time.monotonic() < until:
        time.sleep(0.1)
        found = worker.rows(THERE, (session.pids, task.ref.database))
    if not found:
        return False
    if not task.replace:
        cure = "Restore it under another name (target), or say replace: true"
        raise Refused("a database of this name is there", database=task.ref.database, cure=cure)
    if found[0][1]:
        cure = "End them, and keep them from coming back, first"
        raise Refused(f"{found[0][1]} sessions use the database", database=task.ref.database, cure=cure)
    return True


def _name(session: Session, worker: Connection, task: Restore, name: str, room: Room) -> None:
    """At one moment the old one is there, at the next the new one."""
    wanted, old = quoted(task.ref.database), f"{name}_old"
    there = _free(session, worker, task)
    swap = [
        f"ALTER DATABASE {wanted} RENAME TO {quoted(old)}",
        f"COMMENT ON DATABASE {quoted(old)} IS {literal(founding.MARK)}",
    ]
    session.leave(name)
    worker.rows("BEGIN")
    try:
        for words in [*(swap if there else []), *christened(task, name)]:
            worker.rows(words)
        worker.rows("COMMIT")
    except DbFault:
        with contextlib.suppress(DbFault):
            worker.rows("ROLLBACK")
        raise
    drop(worker, room.connector, old)


def christened(task: Restore, name: str) -> list[str]:
    """The mark goes as the name comes."""
    renamed = f"ALTER DATABASE {quoted(name)} RENAME TO {quoted(task.ref.database)}"
    return [founding.comment(name, task.backup.about), renamed]


def poured(session: Session, backup: Backup, decrypt: Decryption | None, room: Room, place: Place) -> Work:
    """The dump into an empty database. Raises what the dump's reading raises, and what pg_restore says.

    Rows that stand in files of their own come between what the first file has before indexes, and the indexes.
    """
    from ..._files.pump import together

    tool, (first,) = restorer(backup, room.bin_dir), (x for x in backup.files if x.what == "dump")
    rest = [x for x in backup.files if x.what == "data"]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(private_folder())
        env = environment(room.connector, folder, Kind(False, 0.0), APPLICATION, backup.about)

        def streamed(stored: Stored, *more: str) -> t.Generator[int, None, None]:
            return _by_one(session, [*_argv(tool, room, place._replace(jobs=1)), *more], env, opened(stored), room)

        def opened(stored: Stored) -> t.ContextManager[t.BinaryIO]:
            from ..._files import reader

            return reader.opened(backup, stored, decrypt)

        # Several workers need a file that they can seek in, and no plain text of an encrypted one touches the disk.
        several = place.jobs > 1 and not backup.encryption
        plain = stack.enter_context(private_folder(backup.folder)) / "plain" if several else None
        if plain:
            yield from _ticks(_unpacked(session, opened(first), plain))
        sections: tuple[str, ...]
        for sections in (BEFORE, (AFTER,)) if rest else ((),):
            if plain:
                yield from _by_several(session, [*_argv(tool, room, place), *sections, str(plain)], env, room=room)
            else:
                yield from _ticks(streamed(first, *sections))
            if sections == BEFORE:
                yield from _ticks(together((streamed(x, "--section=data") for x in rest), place.jobs))


def _ticks(work: t.Iterator[int]) -> Work:
    for more in work:
        yield Tick(Amount(written=more))


def _by_one(
    session: Session,
    argv: t.Sequence[str],
    env: t.Mapping[str, str],
    opened: t.ContextManager[t.BinaryIO],
    room: Room,
) -> t.Generator[int, None, None]:
    from ..._files.feeding import Fed, mover, pumped, slices
    from ..._files.pipeline import ProgramFailed

    with opened as source:
        fed = Fed(argv, env=env)
        try:
            done = yield from pumped(fed, slices(source), session.stopped, move=mover(source))
        finally:
            fed.close()
            fed.stop(0.0)
    if done.code:
        raise restorers_fault(judge(ProgramFailed("pg_restore", done.code, done.err), room))


def _unpacked(session: Session, opened: t.ContextManager[t.BinaryIO], plain: Path) -> t.Iterator[int]:
    """Into a file of its own, in a folder that nobody else can look into."""
    from ..._files import durable

    why = f"{plain.parent} cannot be written"
    with opened as source, durable.refusing(why), open(durable.create(str(plain)), "wb") as file:
        for data in iter(lambda: source.read(KEEP), b""):
            file.write(data)
            if session.stopped.is_set():
                raise Stopped("stopped")
            yield len(data)


def _by_several(session: Session, argv: t.Sequence[str], env: t.Mapping[str, str], *, room: Room) -> Work:
    from ..._files.pipeline import ProgramFailed
    from ..._process import Program

    program = Program(argv, env=env)
    done = None
    try:
        while done is None:
            done = program.wait(1.0)
            if session.stopped.is_set():
                raise Stopped("stopped")
            yield Tick()
    finally:
        if done is None:
            program.stop()
    if done.code:
        raise restorers_fault(judge(ProgramFailed("pg_restore", done.code, done.err), room))


def restorers_fault(fault: DbFault) -> DbFault:
    """What is missing on the server is the most frequent reason."""
    if re.search(FULL, fault.cause) and not fault.cure:
        return Refused(fault.cause, cure="The server's disk is full: make room first, and restore again")
    if re.search("tablespace .* does not exist", fault.cause):
        return Refused(fault.cause, cure="Restore the tablespaces with it (globals: true), or create them")
    if "role" in fault.cause and "does not exist" in fault.cause and not isinstance(fault, Gone):
        return Refused(fault.cause, cure=belongings.NO_ROLES)
    if re.search("extension .* is not available|could not (open extension control|access) file", fault.cause):
        cure = "Install the package of that extension or library where the restored server's programs are"
        return Refused(fault.cause, cure=cure)
    return fault


def compared(room: Room, backup: Backup, name: str) -> Work:
    """As many rows as the manifest says. Raises Refused."""
    if backup.rows is None:
        return
    actual: dict[str, int] = {}
    connection = room.connector.open(name, Kind(True, room.patience))
    try:
        whole = {tuple(row) for row in connection.rows(PARTITIONED)}
        for table in backup.rows:
            schema, own = parts(table)
            only = "" if (schema, own) in whole else "ONLY "
            words = f"SELECT pg_catalog.count(*) FROM {only}{quoted(schema)}.{quoted(own)}"
            actual[table] = connection.rows(words)[0][0]
            yield Tick()
    finally:
        room.connector.forget(connection)
    wrong = differences(backup.rows, actual)
    if wrong:
        raise Refused(f"what was restored is not what backup {backup.id} held: {wrong}")
