# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database dumped: by one pg_dump, or by several of one snapshot, each through a stream of its own. None is read.

The first one writes what describes the database and the rows of most tables, each of the others the rows of some large
ones. pg_dump's own `--jobs` would write files itself: unhashed, and in plain text where they are to be encrypted.
"""

from __future__ import annotations

import shlex

from ..._records import Amount, Ref, Server, Table, Tick, Work
from ..._tasks import Dump
from .clients import environment, private_folder
from .connection import Kind
from .dumping import APPLICATION, Room, about_of, judge, made, packed, snapshot, words
from .encodings import spoken
from .names import quoted
from .session import Session

# Sizes as the last VACUUM or ANALYZE saw them: asking the file system takes longer than what it would help. What
# belongs to an extension is dumped as far as the extension says, with the rest.
LARGEST = """
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
       (c.relpages::pg_catalog.int8 + coalesce(o.relpages, 0))
       * pg_catalog.current_setting('block_size')::pg_catalog.int8
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  LEFT JOIN pg_catalog.pg_class o ON o.oid = c.reltoastrelid
 WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384
   AND n.nspname NOT IN ('pg_catalog', 'information_schema')
   AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d
                    WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid
                      AND d.objsubid = 0 AND d.deptype = 'e')
 ORDER BY 3 DESC, 1, 2
 LIMIT 200
"""
THERE = """
SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text
  FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))
       AS w (schema, name)
  JOIN pg_catalog.pg_namespace n ON n.nspname = w.schema
  JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
 WHERE c.relkind = 'r'
"""
# Where there are amounts of money: "12,34" is a hundred times as much in another country.
MONETARY = """
SELECT CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute WHERE atttypid IN (790, 791) AND attrelid >= 16384)
              OR EXISTS (SELECT FROM pg_catalog.pg_type WHERE typbasetype IN (790, 791))
              OR EXISTS (SELECT FROM pg_catalog.pg_range WHERE rngsubtype = 790)
            THEN pg_catalog.current_setting('lc_monetary') ELSE '' END
"""


def large(session: Session) -> tuple[Table, ...]:
    """Tables whose rows may be dumped apart from the others, largest first; their bytes without indexes."""
    database = session.database
    return tuple(Table(Ref(database, (schema, name)), bytes=size) for schema, name, size in session.rows(LARGEST))


def spell(task: Dump, server: Server, room: Room) -> list[str]:
    return [shlex.join(argv) for argv in commands(task, server, room)]


def commands(task: Dump, server: Server, room: Room) -> list[list[str]]:
    """The command line of each stream; no secret in them."""
    argv = words(task, server, room)
    apart = [ref for refs in task.streams for ref in refs]
    first = [*argv, *(f"--exclude-table-data={_pattern(ref)}" for ref in apart)]
    more = (["--data-only", "--strict-names", *(f"--table={_pattern(ref)}" for ref in refs)] for refs in task.streams)
    return [first, *([*argv, *words_of] for words_of in more)]


def _pattern(ref: Ref) -> str:
    """That fits this table only. Source: the manual, psql, Patterns."""
    return ".".join(quoted(part) for part in ref.path)


def dump(session: Session, task: Dump, server: Server, room: Room) -> Work:
    """One database, as its own snapshot shows it. Raises Busy, Gone, Refused, MissingMeans, Stopped."""
    from ..._files.pipeline import ProgramFailed
    from ..._files.pump import together
    from ..._files.store import part
    from .decoding import Reading, gathered

    tool = room.client("pg_dump", server)
    task = _still_there(session, task)
    argvs = commands(task, server, room)
    lock = _lock(task)
    with part(packed(task)) as new, private_folder() as folder, snapshot(session, lock, room.patience) as name:
        about, size = about_of(session, session.database)
        ((monetary,),) = session.rows(MONETARY)
        about["monetary"] = monetary
        env = environment(room.connector, folder, Kind(True, room.patience), APPLICATION, about)
        readings = [Reading(room.client("pg_restore", server)) for _argv in argvs] if task.decode else []
        yield Tick()
        try:
            streams = [
                new.run(
                    [[*spoken(argv, about["encoding"]), f"--snapshot={name}"]],
                    env,
                    what="data" if number else "dump",
                    ext=f"data{number}.dump" if number else "dump",
                    stop=session.stopped,
                    taps=readings[number : number + 1],
                    streams=len(argvs),
                )
                for number, argv in enumerate(argvs)
            ]
            for more in together(streams):
                yield Tick(Amount(written=more))
        except ProgramFailed as error:
            raise judge(error, room, task.ref.database) from None
        finally:
            for reading in readings:
                reading.stop()
        backup = made(new, task, server, tool, [*argvs[0], f"--snapshot={name}"])
        backup = backup._replace(format="custom", about=about, source_bytes=size)
        if readings:
            rows = gathered(reading.rows for reading in readings)
            backup = backup._replace(level="decode", verified_at=backup.ended, rows=rows)
        sealed = new.seal(backup)
    yield Tick(note=sealed.id)


def _still_there(session: Session, task: Dump) -> Dump:
    """Without the tables that have gone since they were measured."""
    wanted = [ref.path for refs in task.streams for ref in refs]
    if not wanted:
        return task
    there = {tuple(row) for row in session.rows(THERE, ([s for s, _n in wanted], [n for _s, n in wanted]))}
    left = (tuple(ref for ref in refs if ref.path in there) for refs in task.streams)
    return task._replace(streams=tuple(refs for refs in left if refs))


def _lock(task: Dump) -> str:
    """Before the snapshot is taken: all the programs are to find the same tables, and each sees only some of them."""
    tables = ", ".join(f"ONLY {_pattern(ref)}" for refs in task.streams for ref in refs)
    return f"LOCK TABLE {tables} IN ACCESS SHARE MODE" if tables else ""
