# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a backup of a database: the command line, and the work. Files are filled by _files/."""

from __future__ import annotations

import json
import re
import typing as t
from datetime import datetime, timezone

from ..._backups import Backup
from ..._errors import Busy, DbFault, Refused
from ..._records import Amount, Ref, Server, Tick, Work
from ..._selection import Patterns
from ..._tuples import NamedTuple
from . import clients, faults, loading_settings
from .capabilities import MARIADB
from .names import literal
from .privileges import Grants
from .scanning import Content, Scanner

if t.TYPE_CHECKING:
    from ..._files.store import Part
    from ..._tasks import Dump
    from .clients import Client

TABLES = """
    SELECT TABLE_NAME, TABLE_TYPE, ENGINE, COALESCE(DATA_LENGTH, 0) + COALESCE(INDEX_LENGTH, 0),
           COALESCE(DATA_LENGTH, 0), CREATE_OPTIONS
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED', 'SEQUENCE')
     ORDER BY TABLE_NAME"""
BY_TRANSACTION = """
    SELECT DISTINCT TABLE_NAME FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = %s AND GENERATION_EXPRESSION = 'ROW START' AND DATA_TYPE = 'bigint' ORDER BY TABLE_NAME"""
# Servers write such numbers out with six digits; those with digits after the point (M,D) with all of them.
FLOATS = """
    SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS
     WHERE TABLE_SCHEMA = %s AND DATA_TYPE = 'float' AND NUMERIC_SCALE IS NULL
       AND COALESCE(GENERATION_EXPRESSION, '') = ''
     ORDER BY TABLE_NAME, ORDINAL_POSITION"""
ENCRYPTED = re.compile(r"\bENCRYPT(ED|ION)`?='?(YES|Y)\b", re.IGNORECASE)
SCHEMA = """
    SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME
      FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = %s"""
DEFINERS = """
    SELECT DEFINER FROM information_schema.VIEWS WHERE TABLE_SCHEMA = %s
    UNION SELECT DEFINER FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = %s
    UNION SELECT DEFINER FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = %s
    UNION SELECT DEFINER FROM information_schema.EVENTS WHERE EVENT_SCHEMA = %s"""
# What the database that is restored has to find there, or else says something different.
SETTINGS = (
    "lower_case_table_names",
    "innodb_page_size",
    "character_set_server",
    "collation_server",
    loading_settings.EXPLICIT,
    *loading_settings.AS_THERE,
)
NEEDED = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")  # without one of the last two, nothing is dumped, and nothing said
# Who may run or alter routines sees that they are there: then the programs fail where they may not be read.
ROUTINES = ("EXECUTE", "ALTER ROUTINE")
TRANSACTIONAL = ("InnoDB", "ROCKSDB", "TokuDB")
NUMBER = re.compile(r"(?:[Ee]rror:?|ERROR) (\d{4})\b|\((\d{4})\)")
LEVEL = 1
LOCK_WAIT, NO_SUCH_TABLE = 1205, 1146
CHANGED = "Error in field count for table"  # has no number
ROLE = "--init-command=SET ROLE "  # which only MySQL's program has
SHOW_ROUTINES_SINCE = (8, 0, 20)


class Source(NamedTuple):
    """What is there to be dumped, as the catalog says."""

    tables: tuple[str, ...]
    versioned: bool  # a table has a history of its rows
    loose: tuple[str, ...]  # tables that a transaction does not hold still
    bytes: int
    sequences: bool = False  # which tables of other files may need
    apart: tuple[tuple[str, int], ...] = ()  # tables whose definition needs nothing beside: name, bytes of rows
    by_transaction: tuple[str, ...] = ()  # tables whose history no dump takes along: by transaction, not by time
    encrypted: bool = False  # some table says that it is
    floats: tuple[str, ...] = ()  # columns of tables, of whose numbers a dump has six digits

    def without(self, patterns: t.Sequence[str], database: str) -> tuple[str, ...]:
        """The tables whose rows are left out."""
        if not patterns:
            return ()
        taken = Patterns(patterns, "exclude_tables")
        return tuple(name for name in self.tables if taken.takes(name, f"{database}.{name}"))


def source(link: t.Any, database: str) -> Source:
    """Only reads."""
    rows = link.rows(TABLES, (database,))
    loose = [str(row[0]) for row in rows if row[2] not in TRANSACTIONAL and row[1] != "SEQUENCE"]
    plain = [str(row[0]) for row in rows if row[1] != "SEQUENCE"]
    versioned = any(row[1] == "SYSTEM VERSIONED" for row in rows)
    apart = tuple((str(row[0]), int(row[4])) for row in rows if row[1] == "BASE TABLE" and row[2] == "InnoDB")
    size = sum(int(row[3]) for row in rows)
    odd = tuple(str(row[0]) for row in link.rows(BY_TRANSACTION, (database,))) if versioned else ()
    sequences = any(row[1] == "SEQUENCE" for row in rows)
    encrypted = any(ENCRYPTED.search(str(row[5] or "")) for row in rows)
    floats = tuple(f"{row[0]}.{row[1]}" for row in link.rows(FLOATS, (database,)) if str(row[0]) in plain)
    return Source(tuple(plain), versioned, tuple(loose), size, sequences, apart, odd, encrypted, floats)


def unseen(grants: Grants, server: Server, database: str) -> list[str]:
    """The GRANTs without which a dump would silently lack something, or fail."""
    missing = grants.missing(NEEDED, database)
    found = [grants.statement(missing, database)] if missing else []
    if any(grants.allow(name, database) for name in ROUTINES):
        return found
    if server.engine == MARIADB:
        if not grants.allow("SELECT", "mysql", "proc") and not grants.allow("SHOW CREATE ROUTINE", database):
            found.append(grants.statement(["SELECT"], "mysql", "proc"))
    elif not (grants.allow("SHOW_ROUTINE") or grants.allow("SELECT")):
        name = "SHOW_ROUTINE" if server.number >= SHOW_ROUTINES_SINCE else "SELECT"
        found.append(grants.statement([name]))
    return found


def packed(task: Dump) -> Dump:
    """Where nobody has chosen a level: of such text zstd's lowest makes less than its default, in half the time."""
    manner = task.manner
    if manner.compression != "zstd" or manner.compression_level is not None:
        return task
    return task._replace(manner=manner._replace(compression_level=LEVEL))


# ---- the words -------------------------------------------------------------------------------------------------------


def words(task: Dump, program: str, server: Server, grants: Grants | None, known: Source | None) -> list[list[str]]:
    """The command lines: one, and before it one more where definitions without rows need their own. No secret in them.

    Never --force, which goes on after errors, nor --lock-all-tables or, on MySQL, --source-data: they stop every writer
    of the server (FLUSH TABLES WITH READ LOCK), behind the longest query that is running. MariaDB tells the position in
    its binary log without that; --set-gtid-purged=OFF keeps MySQL's program from it, and a dump from changing what its
    next server says it has executed.
    """
    begin = [program, f"--defaults-file={clients.LOGIN_FILE}"]
    if task.method == "globals":
        return [[*begin, "--system=users", "--insert-ignore", "--default-character-set=utf8mb4"]]
    begin += ["--single-transaction", "--quick", "--skip-lock-tables", "--hex-blob", "--no-tablespaces"]
    begin += ["--default-character-set=utf8mb4", "--max-allowed-packet=1G"]
    more = ["--routines", "--events", "--triggers"]
    database = task.ref.database
    names = known.without(task.exclude, database) if known else ()
    if server.engine == MARIADB:
        if server.settings.get("log_bin") and grants and grants.any_of(LOG_READERS):
            more += ["--master-data=2", "--gtid"]
        if known and known.versioned and not known.by_transaction and server.number >= (10, 11):
            more.append("--dump-history")
        more += [f"--ignore-table-data={database}.{name}" for name in names]
        lines = [[*begin, *more, "--", database]]
        if task.streams:
            from . import streams

            return streams.commands(lines, task)
        return lines
    begin.append("--set-gtid-purged=OFF")
    if server.settings.get("session_role"):
        begin.append(f"{ROLE}{literal(str(server.settings['session_role']))}")
    ignored = [f"--ignore-table={database}.{name}" for name in names]
    last = [*begin, *more, *ignored, "--", database]
    return [[*begin, "--no-data", "--", database, *names], last] if names else [last]


LOG_READERS = ("BINLOG MONITOR", "REPLICATION CLIENT", "SUPER")


def program(server: Server) -> str:
    """For words that are only shown: also where the program is not there."""
    return clients.NAMES["dump"][server.engine][0]


# ---- the work --------------------------------------------------------------------------------------------------------


def dump(link: t.Any, task: Dump, server: Server, grants: Grants) -> Work:
    """Raises Busy, Gone, Refused, MissingMeans, Stopped; what is half-written is removed on the way out."""
    database = task.ref.database
    lacking = unseen(grants, server, database)
    if lacking:
        cure = f"The dump would silently lack something: {'; '.join(lacking)}"
        raise Refused("the login does not see all of the database", database=database, cure=cure)
    clients.role_of(link)
    tool, known = clients.of(server, "dump"), source(link, database)
    about = _about(link, server, database)
    yield Tick()
    apart = {name for name, _size in known.apart} if not known.sequences else set()
    streams = (tuple(ref for ref in refs if ref.path[0] in apart) for refs in task.streams)
    task = task._replace(streams=tuple(refs for refs in streams if refs))
    if task.streams:
        from .streams import NotTogether

        try:
            yield from _written(link, task, server, grants, (tool, known, about))
        except NotTogether:  # so it takes longer
            yield from _written(link, task._replace(streams=()), server, grants, (tool, known, about))
    else:
        yield from _written(link, task, server, grants, (tool, known, about))


def _written(
    link: t.Any, task: Dump, server: Server, grants: Grants, found: tuple[Client, Source, dict[str, str]]
) -> Work:
    from ..._files import store

    tool, known, about = found
    lines = words(task, tool.path, server, grants, known)
    with clients.private_folder() as folder, store.part(packed(task)) as new:
        clients.write_login(folder, link.login, tool, encrypted=bool(link.cipher()))
        if task.streams:
            from . import streams

            content = yield from streams.written(link, new, lines, folder=folder, ref=task.ref)
        else:
            content = yield from _one_after_the_other(link, new, lines, folder, task.ref)
        about = {**about, **_noted(content, known), "position": content.position}
        about.update(
            gtid=content.gtid,
            encrypted="1" if known.encrypted else "",
            excluded=json.dumps(known.without(task.exclude, task.ref.database)),
        )
        backup = backup_of(task, server, tool, lines, new.began)._replace(
            source_bytes=known.bytes,
            rows=content.rows,
            about={key: value for key, value in about.items() if value not in ("", "[]")},
            level="decode" if task.decode else "",
            verified_at=datetime.now(timezone.utc) if task.decode else None,
        )
        sealed = new.seal(backup)
    yield Tick(note=sealed.id)


def _noted(content: Content, known: Source) -> dict[str, str]:
    """What a drill compares with; rows whose transactions have numbers get new ones."""
    sums = {name: value for name, value in content.sums.items() if name not in known.by_transaction}
    found: dict[str, t.Any] = {"checksums": sums, "definitions": content.definitions}
    found.update(counters=content.counters, foreign=content.foreign)
    noted = {name: json.dumps(values, separators=(",", ":")) for name, values in found.items()}
    return {**noted, "longest": str(content.longest)}


def _one_after_the_other(
    link: t.Any, new: Part, lines: t.Sequence[t.Sequence[str]], folder: str, ref: Ref
) -> t.Generator[Tick, t.Any, Content]:
    """What the last one wrote: all rows."""
    scanner = Scanner(ref.database)
    for number, argv in enumerate(lines, start=1):
        last = number == len(lines)
        what, tap = ("dump", scanner) if last else ("definitions", Scanner())
        env = clients.environment(folder)
        work = new.run([argv], env, what=what, ext=f"{what}.sql", stop=link.stopped, taps=[tap], cwd=folder)
        yield from ticks(work, ref)
    return scanner.content


def ticks(work: t.Generator[int, None, None], ref: Ref) -> Work:
    """Of what store.Part writes. Raises as it does, with the meaning of the server's error numbers."""
    from ..._files.pipeline import ProgramFailed

    try:
        for more in work:
            yield Tick(Amount(written=more))
    except ProgramFailed as failed:
        raise judged(failed, ref) from failed


def judged(failed: t.Any, ref: Ref) -> DbFault:
    """What the server's error number means, where the program has told one."""
    found = NUMBER.search(failed.said)
    number = faults.number_said(int(found.group(1) or found.group(2)), failed.said) if found else 0
    number = number or (LOCK_WAIT if "Lock wait timeout exceeded" in failed.said else 0)  # mariadb-backup has none
    if number == NO_SUCH_TABLE or CHANGED in failed.said:  # a view's table that is not there has another number
        said = "a table was dropped, renamed or altered while it was about to be dumped"
        return Busy(f"{failed.program}: {said}: {' '.join(failed.said.split())[-300:]}", database=ref.database)
    if not number:
        return t.cast("DbFault", failed)
    said = " ".join(str(failed.said).split())
    fault = faults.translated(Exception(number, said), database=ref.database, obj=failed.program)
    # What has vanished is not the database, but something that it refers to: a view's table.
    return Refused(said, database=ref.database, obj=failed.program) if number in faults.VANISHED else fault


def _about(link: t.Any, server: Server, database: str) -> dict[str, str]:
    found = {name: str(link.rows(f"SELECT @@GLOBAL.{name}")[0][0]) for name in SETTINGS}
    for charset, collation in link.rows(SCHEMA, (database,)):
        found.update(character_set=str(charset), collation=str(collation))
    found["definers"] = json.dumps(sorted(str(row[0]) for row in link.rows(DEFINERS, (database,) * 4)))
    return found


def backup_of(task: Dump, server: Server, tool: Client, lines: t.Sequence[t.Sequence[str]], began: datetime) -> Backup:
    """What is known of it before it is sealed; `lines`: the last one is what has written it."""
    return Backup(
        id="",
        server=str(server.settings.get("identity", "")),
        address=server.address,
        engine=server.engine,
        version=server.version,
        database=task.ref.database,
        method=task.method,
        tool=tool.title,
        arguments=tuple(lines[-1][1:]),
        began=began,
        ended=datetime.now(timezone.utc),
        files=(),
        format="sql",
    )


def historyless(known: Source) -> str:
    """Why a dump has rows without their history; "" where it has it."""
    if not known.by_transaction:
        return ""
    shown = ", ".join(known.by_transaction[:5])
    return f"the history of rows is not backed up: that of {shown} is kept by transaction, which no dump takes along"


def findings_of(known: Source) -> str:
    """Why a dump of these tables is no snapshot; "" where it is one."""
    if not known.loose:
        return ""
    shown = ", ".join(known.loose[:5]) + (" …" if len(known.loose) > 5 else "")
    return f"{len(known.loose)} tables are in no transactional engine: a dump does not show them at one moment: {shown}"


def rounded(known: Source) -> str:
    """Which numbers a dump does not take along as they are; "" where it takes all."""
    if not known.floats:
        return ""
    shown = ", ".join(known.floats[:5]) + (" …" if len(known.floats) > 5 else "")
    return f"the server writes out six digits of FLOAT numbers: a dump rounds them, and no drill can tell: {shown}"
