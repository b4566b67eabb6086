# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A large partition leaves by way of a table beside it, and what a run that died meanwhile has left. Not which is due.

DROP PARTITION keeps everybody out of the table until the server has removed the file. So the partition is exchanged for
a new, empty table first, which is a matter of names, then dropped, and the file leaves with a table that nobody uses.

Only DROP PARTITION goes into the binary log, as ever: replicas may be filtered by table, or have the table's columns in
another layout, and a statement that fails there would stop them. They drop their own partition whole.

MariaDB 10.7 has CONVERT PARTITION … TO TABLE. Its table could be marked as ours a moment later only.
"""

from __future__ import annotations

import contextlib
import json
import re
import typing as t
import zlib

from ..._errors import DbFault, Refused, Vanished
from ..._records import Amount, Leftover, Ref, Server, Tick, Work
from ..._tasks import DropLeftover, DropPartition
from ..._tuples import NamedTuple
from . import partitions, privileges
from .connection import Link
from .faults import KILLED, number_of
from .greeting import group_members
from .names import literal, quoted, table_of
from .privileges import Grants
from .stores import Store

EXCHANGE = "exchange"  # kind of wreckage
MARK = "dbfleet.maintenance is about to drop this table, once a partition: "
ABOUT = """
    SELECT TABLE_NAME, TABLE_TYPE, TABLE_COMMENT, COALESCE(DATA_LENGTH + INDEX_LENGTH, 0)
      FROM information_schema.TABLES
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME IN ({})"""
PARTITION = """
    SELECT 1 FROM information_schema.PARTITIONS
     WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND PARTITION_NAME = %s"""
NEEDED = ("SELECT", "INSERT", "CREATE", "ALTER", "DROP", "LOCK TABLES")
TRUE = ("1", "ON")
# A line break in a comment or a default is written as \n: what begins a line is the definition's own.
_CLAUSE = re.compile(r"^(?: |/\*!\d+ )PARTITION BY ", re.MULTILINE)
_TEXT = re.compile(r"'(?:[^'\\]|''|\\.)*'|`(?:[^`]|``)*`", re.DOTALL)
_COMMENT = re.compile(r" COMMENT='(?:[^'\\]|''|\\.)*'")
_COUNTER = re.compile(r" AUTO_INCREMENT=\d+")
# A name that MySQL has once in a database; it makes new ones.
_CHECK = re.compile(r"^  CONSTRAINT `(?:[^`]|``)+` CHECK ", re.MULTILINE)
_ELSEWHERE = re.compile(r"\b(?:DIRECTORY|TABLESPACE|SUBPARTITION)\b", re.IGNORECASE)


class Mark(NamedTuple):
    """What stands in the comment of the table from when it is made until it is dropped."""

    database: str
    table: str
    partition: str
    since: str

    def words(self) -> str:
        return MARK + json.dumps(self._asdict())


def marked(comment: str) -> Mark | None:
    try:
        found = json.loads(comment[len(MARK) :]) if comment.startswith(MARK) else None
        return Mark(*(str(found[name]) for name in Mark._fields)) if found else None
    except (ValueError, KeyError, TypeError):
        return None


def name_of(table: str, partition: str) -> str:
    """The same for the same partition, in whichever run; short enough for the names that are made of it."""
    said = [re.sub(r"\W", "_", name.lower(), flags=re.ASCII)[:size] for name, size in ((table, 20), (partition, 16))]
    return f"{partitions.PREFIX}{'_'.join(said)}_{zlib.crc32(json.dumps([table, partition]).encode()):08x}"


# ---- whether it can be, and the words --------------------------------------------------------------------------------


def definition(link: Link, store: Store, grants: Grants, server: Server) -> str:
    """Of the table without its partitions and its comment; "" where a partition cannot be exchanged, or must not be."""
    table = (store.ref.database, store.ref.path[0])
    # Members of a cluster would have to follow in step.
    if str(server.settings.get("wsrep_on", "OFF")).upper() in TRUE or group_members(link):
        return ""
    if server.settings.get("log_bin") and not grants.any_of(privileges.KEEP_LOCAL[server.engine]):
        return ""
    return "" if not store.transactional or grants.missing(NEEDED, *table) else _bare(link, store.ref)


def _bare(link: Link, table: Ref) -> str:
    """Made of the words of SHOW CREATE TABLE: a copy by LIKE would begin with all partitions, and their files."""
    text = str(link.rows(f"SHOW CREATE TABLE {table_of(table)}", obj=str(table))[0][1])
    clause = _CLAUSE.search(text)
    head = f"CREATE TABLE {quoted(table.path[0])} ("
    if clause is None or not text.startswith(head):
        return ""
    columns, _end, options = text[len(head) : clause.start()].rpartition("\n) ")
    # Files elsewhere would have to be elsewhere together; of subpartitions each would need a table.
    if not columns or _ELSEWHERE.search(_TEXT.sub("''", options + text[clause.start() :])):
        return ""
    if link.flavour.name == "mysql":
        columns = _CHECK.sub("  CHECK ", columns)
    return f"({columns}\n) {_COMMENT.sub('', _COUNTER.sub('', options))}"


def free(link: Link, ref: Ref, grants: Grants) -> bool:
    """Whether the table beside a partition may be made: there is none of that name but our own."""
    name = name_of(ref.path[0], ref.partition)
    found = _seen(link, ref.database, [name])
    return not grants.missing(NEEDED, ref.database, name) and all(ours for ours, _size in found.values())


class Words(NamedTuple):
    """One statement each."""

    create: str
    lock: str
    exchange: str
    drop_partition: str
    release: str
    drop: str
    off: tuple[str, ...]  # around what is not for the binary log
    on: tuple[str, ...]

    @classmethod
    def of(cls, task: DropPartition, made_of: str, server: Server) -> Words:
        table, part = table_of(task.table), quoted(task.ref.partition)
        name = name_of(task.table.path[0], task.ref.partition)
        beside = quoted(task.table.database, name)
        since = server.now.replace(microsecond=0).isoformat()
        mark = Mark(task.table.database, task.table.path[0], task.ref.partition, since)
        return cls(
            f"CREATE TABLE {beside} {made_of} COMMENT={literal(mark.words())}",
            f"LOCK TABLES {table} WRITE, {beside} WRITE",
            f"ALTER TABLE {table} EXCHANGE PARTITION {part} WITH TABLE {beside}",
            f"ALTER TABLE {table} DROP PARTITION {part}",
            "UNLOCK TABLES",
            f"DROP TABLE {beside}",
            *_switch(server),
        )

    def all(self) -> list[str]:
        off, on = self.off, self.on
        first = [*off, self.create, *on, self.lock, *off, self.exchange, *on]
        return [*first, self.drop_partition, self.release, *off, self.drop, *on]


def _switch(server: Server) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Keeps statements out of the binary log, and lets them in again; where there is one."""
    if not server.settings.get("log_bin") or not server.settings.get("may_keep_local"):
        return (), ()
    return ("SET SESSION sql_log_bin = 0",), ("SET SESSION sql_log_bin = 1",)


def spell(task: DropPartition | DropLeftover, server: Server, made_of: str = "") -> list[str]:
    if isinstance(task, DropPartition):
        return Words.of(task, made_of, server).all()
    off, on = _switch(server)
    # Replicas have no such table.
    return [*off, *(f"DROP TABLE IF EXISTS {quoted(task.ref.database, name)}" for name in task.names), *on]


# ---- the act ---------------------------------------------------------------------------------------------------------


def leave(link: Link, task: DropPartition | DropLeftover, server: Server) -> Work:
    """Raises Busy, Gone, Refused, Vanished."""
    return drop(link, task, server) if isinstance(task, DropPartition) else mend(link, task, server)


def drop(link: Link, task: DropPartition, server: Server) -> Work:
    """Of an archived one nothing is dropped that came since: with the lock nobody writes any more.

    Where the server will not exchange it after all (columns that MySQL added or dropped at once), it is dropped as it
    stands, under the same lock. Raises Busy, Refused, Vanished.
    """
    name = name_of(task.table.path[0], task.ref.partition)
    made_of = _bare(link, task.table)
    act = _Drop(link, task, Words.of(task, made_of, server))
    before = _seen(link, task.table.database, [name]).get(name)
    if before and before[0]:
        # An attempt before this one may have done all but this.
        act.remove()
        if not link.rows(PARTITION, (task.table.database, task.table.path[0], task.ref.partition)):
            yield Tick(Amount(rows=task.rows or 0))
            return
    taken = before is not None and before[0] is None
    # What was deleted a moment ago is still being removed: that is waited for before anybody else has to wait.
    partitions.assure(link, task)
    if taken or not made_of or not act.make():
        yield from partitions.drop(link, task, server, None)
        return
    act.swap()
    act.remove()
    yield Tick(Amount(rows=task.rows or 0))


class _Drop:
    def __init__(self, link: Link, task: DropPartition, words: Words) -> None:
        self.link, self.task, self.words, self.obj = link, task, words, str(task.ref)

    def _local(self, statement: str) -> None:
        """Raises what the statement raises; whatever comes after it goes into the binary log."""
        with unlogged(self.link, self.words.off, self.words.on):
            self.link.run(statement, obj=self.obj)

    def make(self) -> bool:
        """False where that is refused."""
        return self._granted(self.words.create)

    def remove(self) -> None:
        self._local(self.words.drop)

    def swap(self) -> None:
        """With the table locked: in its stead there is nothing. What did not come that far leaves nothing behind."""
        exchanged = False
        try:
            self.link.run(self.words.lock, obj=self.obj)
            partitions.assure(self.link, self.task)
            exchanged = self._granted(self.words.exchange)
            partitions.drop_now(self.link, self.words.drop_partition, self.task)
        except BaseException:
            if not self.link.stopping:
                self.link.release_tables()
                with contextlib.suppress(DbFault):
                    if not exchanged:
                        self.remove()
            raise
        self.link.run(self.words.release, obj=self.obj)

    def _granted(self, statement: str) -> bool:
        try:
            self._local(statement)
        except Refused as fault:
            if number_of(fault.__cause__ or fault) in KILLED:
                raise
            return False
        return True


@contextlib.contextmanager
def unlogged(link: Link, off: t.Sequence[str], on: t.Sequence[str]) -> t.Iterator[None]:
    """A session that cannot be switched back must not be used any more: its statements would be lost to replicas."""
    for statement in off:
        link.run(statement)
    try:
        yield
    finally:
        try:
            for statement in on:
                link.run(statement)
        except DbFault:
            link.close()
            raise


# ---- wreckage --------------------------------------------------------------------------------------------------------


def _seen(link: Link, database: str, names: t.Sequence[str]) -> dict[str, tuple[Mark | None, int]]:
    """Tables of these names: their mark, where they are ours, and their bytes. Copies of ours are not ours."""
    found = {}
    for name, kind, comment, size in link.rows(ABOUT.format(", ".join(["%s"] * len(names))), [database, *names]):
        mark = marked(str(comment or ""))
        mine = mark is not None and kind == "BASE TABLE" and (mark.database, name_of(*mark[1:3])) == (database, name)
        found[str(name)] = (mark if mine else None, int(size or 0))
    return found


def leftovers(link: Link, table: Ref, names: t.Sequence[str]) -> tuple[Leftover, ...]:
    """What dead runs left of partitions of this table: all rows that are in there were due, or are in the archive."""
    found = _seen(link, table.database, names)
    return tuple(
        Leftover(Ref(table.database, (name,)), EXCHANGE, (name,), bytes=size, table=table)
        for name, (mark, size) in sorted(found.items())
        if mark is not None and mark.table == table.path[0]
    )


def mend(link: Link, task: DropLeftover, server: Server) -> Work:
    """Looked at once more: what is not ours (any more) stays. Raises Busy, Refused, Vanished."""
    found = _seen(link, task.ref.database, task.names)
    about: dict[str, t.Any] = {"database": task.ref.database, "obj": str(task.ref)}
    if not found:
        raise Vanished("it is not there any more", **about)
    if not all(mark for mark, _size in found.values()):
        raise Refused("its comment does not say any more that it may go", **about)
    off, on = _switch(server)
    with unlogged(link, off, on):
        for statement in spell(task, server)[len(off) : len(off) + len(task.names)]:
            link.run(statement, obj=str(task.ref))
    yield Tick(Amount(bytes=sum(size for _mark, size in found.values())))
