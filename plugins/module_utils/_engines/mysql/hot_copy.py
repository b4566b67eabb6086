# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole servers by mariadb-backup: the command line, and the work. What is in the stream is read in xbstream.py.

MySQL's files would need Percona's xtrabackup, of the very version of the server: that is not driven from here.
"""

from __future__ import annotations

import os
import shlex
import socket
import time
import typing as t
from datetime import datetime

from ..._backups import Backup
from ..._errors import Refused, Stopped
from ..._records import Server, Tick, Work
from . import clients, dumping
from .capabilities import SYSTEM_DATABASES
from .privileges import Grants
from .xbstream import Stream

if t.TYPE_CHECKING:
    from ..._backups import Decryption
    from ..._tasks import Dump

NEEDED = ("RELOAD", "PROCESS")
WELL = "completed OK!"  # its last words: with some errors it has exited 0
SCRATCH = "copy"  # a folder of its own, for what it has to write beside the stream
PATIENCE = 60  # seconds that it waits for queries that keep it from its locks; then the backup fails, and nobody waits
# In the manifest beside what a dump keeps: what the drill's server has to be like is in backup-my.cnf, in the stream.
TABLES = """
    SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES
     WHERE TABLE_TYPE NOT IN ('TEMPORARY', 'SYSTEM VIEW')"""


def tool_of(server: Server) -> clients.Client:
    """Of the server's own series. Raises MissingMeans, Refused."""
    found = clients.of(server, "hot")
    same_series(found, server.number)
    return found


def same_series(tool: clients.Client, number: tuple[int, ...]) -> None:
    """Raises Refused for an older or a newer program: it does not know the log of the other one."""
    if tool.number[:2] != number[:2]:
        raise Refused(
            f"{tool.path} ({tool.title}) is of another series than the server's, {'.'.join(map(str, number[:2]))}",
            cure="Install mariadb-backup of the server's series, or name its folder in bin_dir",
        )


def well(said: str) -> bool:
    """Whether its last line says so."""
    return WELL in said.rstrip().rpartition("\n")[2]


def words(task: Dump, program: str) -> list[str]:
    """The command line; no secret in it."""
    parallel = [f"--parallel={task.jobs}"] if task.jobs > 1 else []
    begin = [program, f"--defaults-file={clients.LOGIN_FILE}", "--backup", "--stream=xbstream"]
    return [*begin, f"--target-dir={SCRATCH}", f"--ftwrl-wait-timeout={PATIENCE}", *parallel]


def spell(task: Dump) -> list[str]:
    return [shlex.join(words(task, clients.NAMES["hot"]["mariadb"][0]))]


def refuse(server: Server, grants: Grants) -> None:
    """Raises Refused where the server's files are not here, or the login may not have them copied."""
    lacking = grants.missing(NEEDED, "*")
    if not grants.any_of(dumping.LOG_READERS):
        lacking.append(dumping.LOG_READERS[0])
    if lacking:
        raise Refused(f"the login lacks {', '.join(lacking)}", cure=grants.statement(lacking))
    folder, host = str(server.settings.get("datadir") or ""), str(server.settings.get("hostname") or "")
    cure = "Run the module on the server's own host, as root or as the server's account; or use method: dump"
    # Another server may have its files at the same place here: its files would be copied, and nobody would notice.
    if host and host != socket.gethostname():
        raise Refused(f"the server's files are on {host}, and this is {socket.gethostname()}", cure=cure)
    if not os.access(folder, os.R_OK | os.X_OK):
        raise Refused(f"the server's files in {folder} cannot be read here", cure=cure)


def take(link: t.Any, task: Dump, server: Server, grants: Grants) -> Work:
    """All of the server, as one stream. Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    from ..._files import store

    refuse(server, grants)
    clients.role_of(link)
    tool = tool_of(server)
    argv, stream = words(task, tool.path), Stream()
    about = {name: str(link.rows(f"SELECT @@GLOBAL.{name}")[0][0]) for name in dumping.SETTINGS}
    before = there(link)
    yield Tick()
    with clients.private_folder() as folder, store.part(task) as new:
        clients.write_login(folder, link.login, tool, encrypted=bool(link.cipher()))
        os.mkdir(os.path.join(folder, SCRATCH), 0o700)
        work = new.run(
            [argv],
            clients.environment(folder),
            what="physical",
            ext="xbstream",
            stop=link.stopped,
            taps=[stream],
            cwd=folder,
        )
        yield from dumping.ticks(work, task.ref)
        said = new.said.get(tool.name, "")
        if not well(said):
            raise Refused(f"{tool.name} did not say that all went well: {' '.join(said.split())[-600:]}")
        complete(before & there(link), tables(link, stream), "in the stream")
        made = _made(task, server, tool, argv, new.began)._replace(
            source_bytes=sum(stream.files.values()), about={**about, **told(stream)}
        )
        if task.decode:
            made = made._replace(level="decode", verified_at=made.ended)
        sealed = new.seal(made)
    yield Tick(note=sealed.id)


def _made(task: Dump, server: Server, tool: clients.Client, argv: t.Sequence[str], began: datetime) -> Backup:
    return dumping.backup_of(task, server, tool, [argv], began)._replace(database="", format="xbstream")


def told(stream: Stream) -> dict[str, str]:
    """What the stream says of itself: where in the log it is, and what is in it."""
    log = stream.told("binlog").split("\t") if stream.told("binlog") else []
    found = dict(line.split(" = ", 1) for line in stream.told("checkpoints").splitlines() if " = " in line)
    about = {
        "files": str(len(stream.files)),
        "lsn": found.get("last_lsn", "").strip(),
        "position": " ".join(part.strip() for part in log[:2]),
        "gtid": log[2].strip() if len(log) > 2 else "",
    }
    return {name: value for name, value in about.items() if value}


# ---- is everything in it? --------------------------------------------------------------------------------------------


def there(link: t.Any) -> set[tuple[str, str]]:
    """Tables and views of the server, by database and name."""
    rows = link.rows(TABLES)
    return {(str(d), str(n)) for d, n in rows if str(d).lower() not in SYSTEM_DATABASES}


def tables(link: t.Any, stream: Stream) -> set[tuple[str, str]]:
    """Tables and views in the stream, by their plain names; the system's left out. The server decodes file names."""
    from . import dictionary, names

    pairs = [path.split("/", 1) for path in stream.tables()]
    plain = dictionary.decoded(link, names.odd(part for pair in pairs for part in pair))
    found = {(plain.get(d, d), plain.get(n, n)) for d, n in pairs}
    return {(d, n) for d, n in found if d.lower() not in SYSTEM_DATABASES}


def complete(wanted: set[tuple[str, str]], found: set[tuple[str, str]], where: str) -> None:
    """Raises Refused where something is missing."""
    missing = sorted(wanted - found)
    if missing:
        shown = ", ".join(".".join(name) for name in missing[:5]) + (" …" if len(missing) > 5 else "")
        raise Refused(f"{len(missing)} tables are not {where}: {shown}", cure="Take another backup")


# ---- read to its end -------------------------------------------------------------------------------------------------


def decode(backup: Backup, decrypt: Decryption | None, stop: t.Any) -> Work:
    """Decrypted, decompressed, every chunk's checksum compared, every file's end seen. Raises Refused, Stopped."""
    from ..._files import reader

    for stored in backup.files:
        stream, last = Stream(), time.monotonic()
        with reader.opened(backup, stored, decrypt) as source:
            for data in iter(lambda: source.read(1 << 20), b""):
                stream.feed(data)
                if stop.is_set():
                    raise Stopped("stopped")
                if time.monotonic() - last > 0.5:
                    yield Tick()
                    last = time.monotonic()
        finish(backup, stream)


def finish(backup: Backup, stream: Stream) -> None:
    """Raises Refused unless the stream is whole, and what the manifest says."""
    stream.end()
    differing = [name for name, value in told(stream).items() if backup.about.get(name, value) != value]
    if differing:
        raise Refused(f"the stream is not what the manifest of {backup.id} says: {', '.join(differing)}")
