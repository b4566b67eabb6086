# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup becomes a database again: loaded, counted, compared; or, as a drill, thrown away after that."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import typing as t
from datetime import datetime, timezone

from ..._backups import Elsewhere
from ..._errors import DbFault, Refused, Stopped
from ..._records import Amount, Execution, Server, Tick, Work
from . import clients, faults, full_disk, loading_settings
from .backup import compare
from .capabilities import MARIADB, flavour_of
from .connection import Link
from .mending import Mended
from .names import literal, quoted

if t.TYPE_CHECKING:
    from ..._backups import Backup, Decryption, Stored
    from ..._tasks import Restore
    from .options import Login

EXISTS = "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"
TABLES = """
    SELECT TABLE_NAME FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED')"""
# A database cannot be renamed when it is whole: until then it has this table.
MARK = "dbfleet_restoring"
MARKED = "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
BARE = """
    SELECT NOT EXISTS (SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s)
       AND NOT EXISTS (SELECT 1 FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s)
       AND NOT EXISTS (SELECT 1 FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s)"""
CLIENT_ERROR = re.compile(r"^ERROR (\d+) \(", re.MULTILINE)
ECHO = re.compile(r"^-+\n((?:/\*!\d+ )?[A-Z][^\n(]{0,80})", re.MULTILINE)
ORDER = ("definitions", "tables", "dump", "globals")  # views need their tables
BACK = {"gpg": "gpg --decrypt", "age": "age --decrypt", "zstd": "zstd -dc", "gzip": "gzip -dc"}


# ---- the words -------------------------------------------------------------------------------------------------------


def spell(task: Restore, server: Server) -> list[str]:
    """What a shell and the server would be told."""
    backup, target = task.backup, task.ref.database
    if task.drill:
        where = "a throwaway server"
        if isinstance(task.on, Elsewhere) and task.on.folder:
            where += f" in {task.on.folder}"
        elif task.on != "throwaway":
            where = f"database {quoted(scratch(backup))}, events asleep"
            where += f", on {task.on.address}" if isinstance(task.on, Elsewhere) else ""
        return [f"restore {backup.id} into {where}, compare it with its manifest, and throw it away"]
    words = [f"DROP DATABASE {quoted(target)}"] if task.replace else []
    words += [create(backup, target), marking(target)]
    name = clients.NAMES["client"][server.engine][0]
    files = [shlex.quote(os.path.join(backup.folder, each.name)) for each in ordered(backup)]
    back = BACK.get(backup.encryption, ""), BACK.get(backup.compression, "")
    way = " | ".join([*(each for each in back if each), shlex.join(argv(name, target))])
    return [*words, *(f"< {path} {way}" for path in files), unmarking(target)]


def argv(program: str, database: str, *, init: str = "", login: str = clients.LOGIN_FILE) -> list[str]:
    """Comments of routines go through, and no backslash of the data is taken for a command of the client."""
    words = [program, f"--defaults-file={login}", "--batch", "--binary-mode", "--comments"]
    words += ["--default-character-set=utf8mb4", "--max-allowed-packet=1G"]
    words += [f"--init-command={init}"] if init else []
    return [*words, f"--database={database}"] if database else words


def create(backup: Backup, name: str) -> str:
    charset, collation = backup.about.get("character_set", ""), backup.about.get("collation", "")
    plain = re.fullmatch(r"\w+", charset) and re.fullmatch(r"\w+", collation)
    return f"CREATE DATABASE {quoted(name)}" + (f" CHARACTER SET {charset} COLLATE {collation}" if plain else "")


def ordered(backup: Backup) -> list[Stored]:
    return sorted(backup.files, key=lambda stored: ORDER.index(stored.what) if stored.what in ORDER else len(ORDER))


def scratch(backup: Backup) -> str:
    """The database of a drill on the same server."""
    return f"dbfleet_drill_{backup.id[-6:]}"


# ---- the work --------------------------------------------------------------------------------------------------------


def restore(link: t.Any, task: Restore, server: Server) -> Work:
    """Raises Refused before anything is touched where the backup does not fit or is not whole."""
    from . import drilling

    backup, target = task.backup, task.ref.database
    if task.drill:
        from ..._files import backups

        yield from drilling.drill(link, backup, server, decrypt=task.decrypt, on=task.on)
        backups.amend(backup, level="restore", at=datetime.now(timezone.utc))
        yield Tick(note=backup.id)
        return
    fits(backup, server)
    there = _taken(link, task)
    if there and not task.replace:
        raise _in_the_way(target)
    yield from intact(backup, link.stopped)
    if there and backup.level != "restore":
        # What replaces a database has been restored once before.
        yield from drilling.drill(link, backup, server, decrypt=task.decrypt, on=drilling.where(backup, server))
    if there:
        full_disk.assure(link, server, target, backup.source_bytes)
    if task.globals:
        yield from load(task.globals, link.login, server, "", decrypt=task.decrypt, stop=link.stopped)
    yield Tick(owns="" if there else target)
    if there:
        link.run(f"DROP DATABASE {quoted(target)}")
    elif _taken(link, task):  # by now: it has taken as long as reading the backup
        raise _in_the_way(target)
    elif link.rows(EXISTS, (target,)):
        drop(link, target)
    yield from (_instead if there else _filled)(link, backup, server, target, task.decrypt)
    yield Tick(note=backup.id)


def _taken(link: t.Any, task: Restore) -> bool:
    """Whether a database of that name is there which no restore of ours has left behind."""
    target = task.ref.database
    if not link.rows(EXISTS, (target,)) or wreck(link, target):
        return False
    return not (task.founded and bare(link, target))


def _in_the_way(target: str) -> Refused:
    return Refused("it is there already", database=target, cure="Name another target, or ask for replace: true")


def _instead(link: t.Any, backup: Backup, server: Server, target: str, decrypt: Decryption | None) -> Work:
    """In place of a database that has been dropped a moment ago."""
    try:
        yield from _filled(link, backup, server, target, decrypt)
    except DbFault as fault:
        gone = f"The database {target} that was to be replaced is gone, and {backup.id} is whole"
        fault.cure = f"{fault.cure}. {gone}" if fault.cure else gone
        raise


def _filled(link: t.Any, backup: Backup, server: Server, target: str, decrypt: Decryption | None) -> Work:
    found(link, backup, target)
    try:
        yield from load(backup, link.login, server, target, decrypt=decrypt, stop=link.stopped)
        compare(backup, counts(link, target, backup), None, where=f"database {target}")
        link.run(unmarking(target))
    except BaseException as error:
        left = "" if isinstance(error, full_disk.Waiting) else drop(link, target)
        if isinstance(error, DbFault) and (left or isinstance(error, full_disk.Waiting)):
            said = f"What is half-restored is still there{left and f' ({left})'}: the next restore drops it"
            error.cure = f"{error.cure}. {said}" if error.cure else said
        raise


def found(link: t.Any, backup: Backup, name: str) -> None:
    """A database that says of itself that it is not complete."""
    link.run(create(backup, name))
    mark(link, name)


def mark(link: t.Any, name: str) -> None:
    link.run(marking(name))


def marking(name: str) -> str:
    comment = "a restore is under way, or has died"
    return f"CREATE TABLE {quoted(name, MARK)} (made_by varchar(20) PRIMARY KEY) COMMENT {literal(comment)}"


def unmarking(name: str) -> str:
    return f"DROP TABLE {quoted(name, MARK)}"


def wreck(link: t.Any, name: str) -> bool:
    """Whether a restore that died has left it."""
    return bool(link.rows(MARKED, (name, MARK)))


def bare(link: t.Any, name: str) -> bool:
    """Whether there is nothing in it, as far as the login sees: as one that has just been created."""
    return bool(link.rows(BARE, (name,) * 3)[0][0])


def drop(link: t.Any, name: str) -> str:
    """Why it stays, "" where it does not. Also for a session that has been cancelled; what stays is in the journal."""
    try:
        other = Link(link.login, link.execution)
        with contextlib.closing(other):
            if link.local:
                other.keep_local()
            other.run(f"DROP DATABASE IF EXISTS {quoted(name)}")
    except DbFault as fault:
        return fault.cause.rstrip(". ")
    return ""


def fits(backup: Backup, server: Server) -> None:
    """Raises Refused for another engine's backup, and for one of a newer series than the server's."""
    if backup.method == "physical":
        raise Refused(
            f"{backup.id} holds all of a server's files: it becomes no database of a server that runs",
            cure="Restore it into a new data directory: target_dir",
        )
    if backup.method != "dump":
        raise Refused(f"{backup.id} is a backup of another kind ({backup.method})", cure="Restore one of method dump")
    if backup.engine != server.engine:
        raise Refused(f"{backup.id} is of {backup.engine}, and this server is {server.engine}")
    if flavour_of(backup.version, backup.engine).number[:2] > server.number[:2]:
        raise Refused(
            f"{backup.id} is of version {backup.version}, newer than this server ({server.version})",
            cure="Restore it on a server that is at least as new",
        )
    lower = backup.about.get("lower_case_table_names")
    own = server.settings.get("lower_case_table_names")
    if lower is not None and own is not None and str(own) != lower:
        raise Refused(f"{backup.id} is of a server with lower_case_table_names = {lower}; here it is {own}")


def intact(backup: Backup, stop: t.Any) -> Work:
    """All files are there and as they were written: before anything is touched."""
    from ..._files import reader

    for _more in reader.checksum(backup):
        if stop.is_set():
            raise Stopped("stopped", database=backup.database)
        yield Tick()


def load(
    backup: Backup,
    login: Login,
    server: Server,
    database: str,
    *,
    decrypt: Decryption | None,
    stop: t.Any,
    init: str = "",
    asleep: set[bytes] | None = None,
    own: bool = False,
    without: t.Sequence[str] = (),
) -> Work:
    """Feeds the files to the client program, which stops at the first error; the rest: see Mended."""
    from ..._files import reader
    from ..._files.feeding import Fed, pumped

    tool = clients.of(server, "client")
    link = Link(login, Execution())
    with contextlib.closing(link):
        encrypted = bool(link.cipher())
        _takes_all(link, backup, database)
        manner = loading_settings.statements(link, backup)
        paths = full_disk.folders(link, server)
    with clients.private_folder() as folder:
        clients.write_login(folder, login, tool, encrypted=encrypted)
        path = os.path.join(folder, clients.LOGIN_FILE)
        for stored in ordered(backup):
            # Without its role the login may be let into no database, nor keep anything out of the binary log.
            role = f"SET ROLE {literal(login.role)};\n{f'{init};' if init else ''}\n" if login.role else ""
            # Said once more: init_connect may have gone to another one, and dumps drop tables by their bare names.
            within = f"USE {quoted(database)};\n" if database else ""
            line = argv(tool.path, "" if role else database, init="" if role else init, login=path)
            fed = Fed(line, env=clients.environment(folder))
            with reader.opened(backup, stored, decrypt) as stream:
                mended = Mended(stream.read, old=backup.database, new=database, asleep=asleep, own=own, without=without)
                work = pumped(fed, _after(f"{role}{within}{manner}".encode(), mended.read), stop)
                done = yield from _ticks(full_disk.watched(work, fed, paths, database or backup.database))
            if done.code:
                raise full_disk.explained(judged(done.err, database or backup.database, tool.name), paths)


def _takes_all(link: t.Any, backup: Backup, database: str) -> None:
    """Raises Refused where the server takes no statement as long as the backup has one: bytes are written as two."""
    longest = int(backup.about.get("longest") or 0) + 1024
    ((most,),) = link.rows("SELECT @@GLOBAL.max_allowed_packet")
    if longest > int(most):
        wanted = min(1 << 30, -(-longest // (1 << 20)) << 20)
        raise Refused(
            f"the server takes statements of {int(most):,} bytes, and the backup has one of {longest:,}",
            database=database,
            cure=f"SET GLOBAL max_allowed_packet = {wanted}, as long as the restore takes",
        )


def _after(first: bytes, read: t.Callable[[int], bytes]) -> t.Callable[[int], bytes]:
    before = [first] if first else []
    return lambda most: before.pop() if before else read(most)


def _ticks(work: t.Generator[int, None, t.Any]) -> t.Generator[Tick, t.Any, t.Any]:
    with contextlib.closing(work):
        while True:
            try:
                more = next(work)
            except StopIteration as end:
                return end.value
            yield Tick(Amount(written=more))


def judged(said: str, database: str, program: str) -> DbFault:
    """What the server's error number means, where the program has told one."""
    found = next(reversed([*CLIENT_ERROR.finditer(said)]), None)  # rows before it may look like one
    number = faults.number_said(int(found.group(1)), said[found.start() :]) if found else 0
    text = " ".join(said.split())[-1000:]
    if found:  # and not what the program repeats of the statement: it may be made of rows
        about = ECHO.search(said, 0, found.start())
        text = " ".join(f"{about.group(1) if about else ''} {said[found.start() :]}".split())[:1000]
    if not number or number in faults.VANISHED:
        return Refused(f"{program}: {text or 'it failed, and does not say why'}", database=database)
    return faults.translated(Exception(number, text), database=database, obj=program)


def counts(link: t.Any, database: str, backup: Backup) -> dict[str, int]:
    """Rows of the tables that the manifest tells of; a table that is not there is left out."""
    there = {str(row[0]) for row in link.rows(TABLES, (database,))}
    return {
        name: int(
            link.rows(f"SELECT COUNT(*) FROM {quoted(database, name)}{_history(link, backup, database, name)}")[0][0]
        )
        for name in (backup.rows or {})
        if name in there
    }


def _history(link: t.Any, backup: Backup, database: str, name: str) -> str:
    """Rows that are history have been dumped, too, where the program was told to."""
    if link.flavour.name != MARIADB or "--dump-history" not in backup.arguments:
        return ""
    found = link.rows(
        "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
        " AND TABLE_TYPE = 'SYSTEM VERSIONED'",
        (database, name),
    )
    return " FOR SYSTEM_TIME ALL" if found else ""
