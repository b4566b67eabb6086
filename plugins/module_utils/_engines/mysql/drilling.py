# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backup is tried out: restored, compared with its manifest, thrown away. Loading itself stands in restoring.py."""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import typing as t
from datetime import datetime, timezone

from ..._backups import Elsewhere
from ..._errors import Busy, CannotConnect, MissingMeans, Refused, Stopped
from ..._records import Execution, Server, Tick, Work
from . import clients, options, restoring
from .backup import compare, noted
from .capabilities import MARIADB, flavour_of
from .connection import Link
from .definitions import RUN_AS
from .dumping import ROLE
from .names import literal, quoted
from .scanning import Content, Scanner

if t.TYPE_CHECKING:
    from ..._backups import Backup, Decryption

HOLDS = """
    SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s
    UNION ALL SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s"""
AWAKE = "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s AND STATUS = 'ENABLED'"
CHECKED_TOGETHER = 50  # tables in one statement
# Not of the restored database's business: they speak of the source's binary log.
LEFT_OUT = ("--master-data=2", "--gtid")
OWN_LOG = "SET SESSION sql_log_bin = 0"


def where(backup: Backup, server: Server) -> str:
    """Where a backup is tried out before it replaces a database: beside it only where there is no other way."""
    from . import throwaway

    try:
        throwaway.program(backup, bin_dir(server))
    except (MissingMeans, Refused):
        return "same_server"
    return "throwaway"


def bin_dir(server: Server) -> str:
    return str(server.settings.get("bin_dir") or "")


def drill(link: t.Any, backup: Backup, server: Server, *, decrypt: Decryption | None, on: str | Elsewhere) -> Work:
    """Restored, compared with its manifest, thrown away. Raises Refused where anything differs."""
    if backup.method == "physical":
        from . import prepared

        return prepared.drill(backup, server, decrypt=decrypt, on=on, stop=link.stopped)
    if on == "same_server":
        return _beside(link, backup, server, decrypt, stop=link.stopped)
    if isinstance(on, Elsewhere) and not on.folder and backup.method != "globals":
        return _there(backup, server, decrypt, on, link.stopped)
    return _throwaway(backup, server, decrypt, link.stopped, where=on.folder if isinstance(on, Elsewhere) else "")


def _throwaway(backup: Backup, server: Server, decrypt: Decryption | None, stop: t.Any, *, where: str) -> Work:
    from . import accounts, throwaway

    place = throwaway.Throwaway(backup, bin_dir(server), where=where)
    try:
        for _second in place.start(stop):
            yield Tick()
        link = Link(place.login, Execution())
        with contextlib.closing(link):
            flavour = link.flavour
            here = Server(
                flavour.name,
                flavour.version,
                flavour.number,
                place.login.address,
                "primary",
                datetime.now(timezone.utc),
                settings={"bin_dir": bin_dir(server)},
            )
            name = "" if backup.method == "globals" else backup.database
            if name:
                restoring.fits(backup, here)
                _admit(link, backup)
                link.run(restoring.create(backup, name))
            foreign, before = tuple(noted(backup, "foreign")), accounts.there(link)
            yield from restoring.load(backup, place.login, here, name, decrypt=decrypt, stop=stop, without=foreign)
            if name:
                yield from proven(link, backup, here, name, stop, without=foreign)
            else:
                accounts.compared(link, backup, decrypt, before)
    finally:
        place.end()


def _admit(link: t.Any, backup: Backup) -> None:
    """Whoever views, routines, triggers and events run as must be there, and may do anything here."""
    for definer in noted(backup, "definers"):
        user, host = (literal(part) for part in definer.rpartition("@")[::2])
        if host == "''":
            link.run(f"CREATE ROLE IF NOT EXISTS {user}")
            continue
        secret = literal(secrets.token_urlsafe(16))
        link.run(f"CREATE USER IF NOT EXISTS {user}@{host} IDENTIFIED BY {secret}")
        link.run(f"GRANT ALL PRIVILEGES ON *.* TO {user}@{host}")


def _there(backup: Backup, server: Server, decrypt: Decryption | None, on: Elsewhere, stop: t.Any) -> Work:
    """In a scratch database of another server that runs, whoever its accounts are. Raises CannotConnect, Refused."""
    from . import greeting

    login = options.login({**on.options, "login_password": on.password})
    try:
        opened = Link(login, Execution())
    except CannotConnect as fault:
        raise CannotConnect(f"drill_on, {login.address}: {fault.cause}", cure=fault.cure) from None
    with contextlib.closing(opened) as link:
        there, _grants = greeting.greet(link)
        why = there.lacks.get("session") or there.lacks.get("write") or ""
        if there.role != "primary":
            why = "it is a replica"
        if why:
            raise Refused(f"no drill is done on {login.address}: {why}", cure="Name another server in drill_on")
        there = there._replace(settings={**there.settings, "bin_dir": bin_dir(server)})
        own = there.settings["identity"] != server.settings["identity"]
        yield from _beside(link, backup, there, decrypt, stop=stop, own=own)


def _beside(
    link: t.Any, backup: Backup, server: Server, decrypt: Decryption | None, *, stop: t.Any, own: bool = False
) -> Work:
    """In a scratch database of the link's server: outside of the binary log, and no event may fire."""
    if backup.method == "globals":
        raise Refused("accounts cannot be tried out on a server that has some", cure="Use drill_on: throwaway")
    restoring.fits(backup, server)
    name = restoring.scratch(backup)
    logged = bool(server.settings.get("log_bin"))
    if logged:
        link.keep_local()
    yield Tick(owns=name)
    with _scratch(link, backup, name):
        asleep, foreign = t.cast("set[bytes]", set()), tuple(noted(backup, "foreign")) if own else ()
        yield from restoring.load(
            backup,
            link.login,
            server,
            name,
            decrypt=decrypt,
            stop=stop,
            init=OWN_LOG if logged else "",
            asleep=asleep,
            own=own,
            without=foreign,
        )
        awake = [str(row[0]) for row in link.rows(AWAKE, (name,))]
        if awake:
            raise Refused(f"events of the drill are awake: {', '.join(awake)}", database=name)
        yield from proven(link, backup, server, name, stop, asleep=frozenset(asleep), own=own, without=foreign)
    yield Tick(disowns=name)


@contextlib.contextmanager
def _scratch(link: t.Any, backup: Backup, name: str) -> t.Iterator[None]:
    """An empty database, gone at the end; one that a dead drill left is taken. Raises Busy, Refused."""
    if not link.rows("SELECT GET_LOCK(%s, 0)", (name,))[0][0]:
        raise Busy("another drill of the same backup is under way there", database=name)
    if link.rows(restoring.EXISTS, (name,)):
        held = {str(row[0]) for row in link.rows(HOLDS, (name, name))}
        if held and restoring.MARK not in held:
            cure = f"DROP DATABASE {quoted(name)}, if nobody uses it"
            raise Refused(f"the database {name} is there, and no drill has made it", cure=cure)
        link.run(f"DROP DATABASE {quoted(name)}")
    try:
        restoring.found(link, backup, name)
        yield
    finally:
        restoring.drop(link, name)


def proven(
    link: t.Any,
    backup: Backup,
    server: Server,
    name: str,
    stop: t.Any,
    *,
    asleep: frozenset[bytes] = frozenset(),
    own: bool = False,
    without: t.Sequence[str] = (),
) -> Work:
    """CHECK TABLE of every table; then all is dumped again, and is what the backup wrote of it."""
    yield from checked(link, name)
    tool = clients.of(server, "dump")
    if tool.title != backup.tool:
        # Another program may write the same rows in other words.
        compare(backup, restoring.counts(link, name, backup), None, where="restored database")
        return
    content = yield from _again(link, backup, server, name, stop, asleep=asleep)
    compare(backup, content.rows, content.sums, where="restored database")
    if server.number[:2] == flavour_of(backup.version, backup.engine).number[:2]:
        alike(backup, content, own=own, without=without)


def alike(backup: Backup, content: Content, *, own: bool = False, without: t.Sequence[str] = ()) -> None:
    """Raises Refused where something else than rows is not what the dump said.

    `own`: nobody runs as they did; `without`: views that could not be there.
    """
    unseen = {f"{head}view {name}" for name in without for head in ("", RUN_AS)}
    known, counters = dict(noted(backup, "definitions")), dict(noted(backup, "counters"))
    wrong = [
        about
        for about, value in known.items()
        if content.definitions.get(about) != value and not (own and about.startswith(RUN_AS)) and about not in unseen
    ]
    wrong += [
        f"the next AUTO_INCREMENT of {table}, {content.counters.get(table)} instead of {value}"
        for table, value in counters.items()
        if content.counters.get(table) != value
    ]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f" and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise Refused(
            f"what was restored of {backup.id} is not what it says: {shown}",
            database=backup.database,
            cure="Compare the restored definitions with the backup's: a server of another patch level may change some",
        )


SOUND = ("OK", "Table is already up to date", "The storage engine for the table doesn't support check")


def checked(link: t.Any, name: str) -> Work:
    """CHECK TABLE of every table of a database. Raises Refused."""
    names = [str(row[0]) for row in link.rows(restoring.TABLES, (name,))]
    for at in range(0, len(names), CHECKED_TOGETHER):
        together = ", ".join(quoted(name, each) for each in names[at : at + CHECKED_TOGETHER])
        for row in link.rows(f"CHECK TABLE {together}"):
            if str(row[2]).lower() == "error" or (str(row[2]).lower() == "status" and str(row[3]) not in SOUND):
                raise Refused(f"CHECK TABLE {row[0]}: {row[3]}", database=name)
        yield Tick()


def _again(
    link: t.Any, backup: Backup, server: Server, name: str, stop: t.Any, *, asleep: frozenset[bytes]
) -> t.Generator[Tick, t.Any, Content]:
    """What the dump's own command line says of the restored database."""
    from ..._process import Stage

    tool = clients.of(server, "dump")
    old, words = f"={backup.database}.", [word for word in backup.arguments if word not in LEFT_OUT]
    words = [word for word in words if not word.startswith(ROLE)]
    words[1:1] = [f"{ROLE}{literal(link.login.role)}"] if link.login.role and server.engine != MARIADB else []
    if server.engine == MARIADB:  # of one of several files: here one program looks at all of them
        words = [word for word in words if not word.startswith("--ignore-table=")]
    moved = [word.replace(old, f"={name}.", 1) if word.startswith("--ignore-table") else word for word in words[:-1]]
    scanner = Scanner(name, asleep=asleep)
    with clients.private_folder() as folder:
        clients.write_login(folder, link.login, tool, encrypted=bool(link.cipher()))
        stage = Stage([tool.path, *moved, name], env=clients.environment(folder), source=-1, cwd=folder)
        done = None
        try:
            while True:
                if stop.is_set():
                    raise Stopped("stopped", database=name)
                if not select.select([stage.output], [], [], 1.0)[0]:
                    yield Tick()
                    continue
                data = os.read(stage.output, 1 << 20)
                if not data:
                    break
                scanner.feed(data)
                yield Tick()
            done = stage.wait(60)
        finally:
            os.close(stage.output)
            if done is None:
                stage.stop(0.0)
    if done is None or done.code:
        raise restoring.judged(done.err if done else "", name, tool.name)
    scanner.end()
    return scanner.content
