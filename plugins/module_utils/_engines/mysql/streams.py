# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A MariaDB database dumped by several programs that see it at one moment, each through a stream of its own.

The first one writes the database without some large tables, each of the others such tables whole. They share no
snapshot; so while they begin theirs, nobody commits: BACKUP STAGE BLOCK_COMMIT, which waits for no query as FLUSH
TABLES WITH READ LOCK does, and ends as soon as all of them have begun. MySQL has nothing of the kind: there one program
writes all.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
import typing as t

from ..._errors import Busy, DbFault, Refused
from ..._records import Ref, Server, Table
from . import clients, dumping
from .capabilities import MARIADB
from .scanning import Content, Scanner

if t.TYPE_CHECKING:
    from ..._files.store import Part
    from ..._tasks import Dump
    from .dumping import Source
    from .privileges import Grants

LISTED = 200  # tables at most that are written apart: their names stand on a command line
MOMENT = ("BACKUP STAGE START", "BACKUP STAGE BLOCK_COMMIT")  # since MariaDB 10.4.1
MOMENT_ENDS = "BACKUP STAGE END"
# What the program writes once it has its snapshot, whatever is in the database.
BEGUN = re.compile(rb"^-- (?:Position|Table structure|Temporary table|Sequence|Dumping|Dump completed)", re.MULTILINE)
HEAD = 64 << 10  # bytes in which that stands


class NotTogether(Busy):
    """They could not begin at one moment in the time that others may be kept waiting."""


def large(known: Source, server: Server, grants: Grants, database: str) -> tuple[Table, ...]:
    """The tables that may be written apart, largest first; () where nothing can be."""
    clustered = str(server.settings.get("wsrep_on", "OFF")).upper() in ("ON", "1")  # a node would leave its cluster
    if server.engine != MARIADB or known.sequences or clustered or not grants.allow("RELOAD"):
        return ()
    found = sorted(known.apart, key=lambda table: (-table[1], table[0]))[:LISTED]
    return tuple(Table(Ref(database, (name,)), bytes=size) for name, size in found)


def commands(lines: t.Sequence[t.Sequence[str]], task: Dump) -> list[list[str]]:
    """The command line of each stream, from the one that would write all: what is restored first comes first."""
    (line,) = lines
    *words, end, database = line
    apart = [ref.path[0] for refs in task.streams for ref in refs]
    ignored = [f"--ignore-table={database}.{name}" for name in apart]
    more = [[*words, end, database, *(ref.path[0] for ref in refs)] for refs in task.streams]
    return [*more, [*words, *ignored, end, database]]


def written(
    link: t.Any, new: Part, lines: t.Sequence[t.Sequence[str]], *, folder: str, ref: Ref
) -> t.Generator[t.Any, t.Any, Content]:
    """What all of them wrote, put together. Raises NotTogether, Refused, and what dumping.ticks() does."""
    from ..._files import pump

    last, environment = len(lines) - 1, clients.environment(folder)
    taps = [_Begun(ref.database) for _line in lines]
    with contextlib.ExitStack() as stack:
        works = []
        with _nobody_commits(link):
            for number, (argv, tap) in enumerate(zip(lines, taps)):
                what, ext = ("dump", "dump.sql") if number == last else ("tables", f"tables{number + 1}.sql")
                work = new.run(
                    [argv], environment, what=what, ext=ext, stop=link.stopped, taps=[tap], cwd=folder, streams=last + 1
                )
                works.append(work)
                stack.callback(work.close)
                next(work, 0)  # until it has begun
            until = time.monotonic() + link.execution.lock_timeout
            if not all(tap.begun.wait(max(0.0, until - time.monotonic())) for tap in taps):
                raise NotTogether("the programs of the dump did not begin in time", database=ref.database)
        yield from dumping.ticks(pump.together(works), ref)
    return _joined([tap.content for tap in taps], ref)


@contextlib.contextmanager
def _nobody_commits(link: t.Any) -> t.Iterator[None]:
    try:
        for statement in MOMENT:
            link.run(statement)
        yield
    except Busy as busy:
        raise NotTogether(busy.cause, database=link.database) from None
    finally:
        with contextlib.suppress(DbFault):
            link.run(MOMENT_ENDS)


def _joined(contents: t.Sequence[Content], ref: Ref) -> Content:
    """Raises Refused where they tell of more than one moment: of the binary log, where there is one."""
    moments = {(content.position, content.gtid) for content in contents}
    if len(moments) > 1:
        raise Refused("the programs of the dump have not seen one moment", database=ref.database)
    definitions: dict[str, int] = {}
    counters: dict[str, int] = {}
    whole = Content({}, {}, contents[-1].position, contents[-1].gtid, definitions, counters)
    for content in contents:
        definitions.update(content.definitions)
        counters.update(content.counters)
        whole.rows.update(content.rows)
        whole.sums.update(content.sums)
    longest, foreign = max(content.longest for content in contents), contents[-1].foreign  # it has all views
    return whole._replace(longest=longest, foreign=foreign)


class _Begun(Scanner):
    """Also tells when its program has its snapshot."""

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self.begun = threading.Event()
        self._head = b""

    def feed(self, data: bytes) -> None:
        """The next piece. Raises Refused."""
        if not self.begun.is_set():
            self._head += data
            if BEGUN.search(self._head) or len(self._head) > HEAD:
                self.begun.set()
                self._head = b""
        super().feed(data)
