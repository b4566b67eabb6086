# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One database file measured: tables, their bloat and statistics, and the file as a whole. Only reads; no threshold."""

from __future__ import annotations

import sqlite3
import typing as t

from ..._errors import Refused
from ..._records import Bloat, Database, Finding, Leftover, Ref, Server, Table, Wants
from ..._units import say_bytes
from . import activity, bloat, catalog
from .catalog import Header, Statistics, TableInfo
from .connection import DAMAGED, Session, Way
from .files import on_disk, why_unwritable

if t.TYPE_CHECKING:
    from ..._structure import Index

_INSIDE = "SQLite rebuilds the whole file, not one table"
_LACKS = {"reclaim": _INSIDE, "online rebuild": _INSIDE, "exclusive rebuild": _INSIDE}
_COLLATION = "ANALYZE and VACUUM need a collation that only the application has"
_FUNCTION = "VACUUM needs a function that only the application has"


def measure(session: Session, wants: Wants, server: Server) -> Database:
    """What `wants` asks for, from one consistent state. Raises Busy, CannotConnect, Stopped, Refused."""
    path = session.database
    try:
        found = session.read(lambda db, way: _Look(db, way, path, wants, server).database())
    except Refused as fault:
        if fault.cause.startswith(DAMAGED):
            return _damaged(path, fault)
        if not activity.is_hot(path, fault.cause):
            raise
        found = _interrupted(path)
    why_not = why_unwritable(path)
    return found._replace(
        lacks={**found.lacks, "write": why_not} if why_not else found.lacks,
        activity=activity.activity(path) if wants.activity else None,
        spaces=activity.spaces(path) if wants.activity else (),
    )


def _damaged(path: str, fault: Refused) -> Database:
    finding = Finding(1, "database_damaged", Ref(path), fault.cause, fix=fault.cure)
    return Database(path, findings=(finding,), lacks={"write": f"the file is damaged: {fault.cause}"})


def _interrupted(path: str) -> Database:
    """A dead process left a rollback journal: SQLite lets nobody read before it is rolled back, which is a step."""
    first = activity.header_before(path)
    head = catalog.header_of(first) if first else Header()
    whole = Table(Ref(path), "file", head.bytes, on_disk(path), lacks=rebuild_lacks(head, bloat.by_freelist(head)))
    if first:
        whole = whole._replace(bloat=bloat.by_freelist(head))
    return Database(path, tables=(whole,), leftovers=(activity.hot_journal(path),))


def rebuild_lacks(head: Header, whole: Bloat | None) -> dict[str, str]:
    """Why the file cannot be made smaller while others write.

    An incremental vacuum gives back the freelist alone. Where most of the space lies inside of pages it would be asked
    for again and again, so it counts as means only while at least half of the gain is on the freelist.
    """
    if head.auto_vacuum == 0:
        return {
            "online rebuild": "auto_vacuum is NONE: only VACUUM gives space back, and writers wait for it. Use"
            " reclaim_method: exclusive, or run PRAGMA auto_vacuum = INCREMENTAL; VACUUM once"
        }
    if head.auto_vacuum == 1:
        return {
            "online rebuild": "auto_vacuum is FULL: free pages go back at each commit, and what is left inside of pages"
            " only VACUUM gives back. Use reclaim_method: exclusive"
        }
    if whole and whole.bytes > 2 * head.free * head.page_size:
        return {
            "online rebuild": "most of the space lies inside of pages, where an incremental vacuum cannot reach it. Use"
            " reclaim_method: exclusive"
        }
    return {}


class _Look:
    """One reading of one file."""

    def __init__(self, db: sqlite3.Connection, way: Way, path: str, wants: Wants, server: Server) -> None:
        self.db, self.way, self.path, self.wants, self.server = db, way, path, wants, server
        self.head = catalog.header(db, way)
        self.file = Ref(path)
        self.only = {ref.path[-1] for ref in wants.only if ref.path and ref.database == path}
        self.whole = not wants.only or self.file in wants.only

    def database(self) -> Database:
        infos = catalog.tables(self.db, () if self.whole else self.only) if self._asked() else []
        chosen = infos if self.whole else [i for i in infos if i.name in self.only or self._has_asked_index(i)]
        trees = self._trees(chosen)
        known = catalog.statistics(self.db, infos) if infos and self._wants_tables() else {}
        tables = [self._table(info, trees, known.get(info.name)) for info in chosen if self._wants_tables()]
        foreign = self._foreign(infos)
        if self.whole and self._wants_tables():
            tables.append(self._file(trees, foreign))
        return Database(
            self.path,
            tables=tuple(x for x in tables if not self.wants.only or x.ref in self.wants.only),
            leftovers=self._leftovers(),
            findings=self._findings(foreign, trees),
            indexes=self._indexes(chosen, trees),
        )

    def _foreign(self, infos: t.Sequence[TableInfo]) -> dict[str, str]:
        """What only the application has, by the code of the finding."""
        collations = sorted({c for info in infos for c in info.foreign})
        functions = catalog.foreign_functions(self.db) if self.wants.bloat and self.whole else []
        said = {"foreign_collation": (_COLLATION, collations), "foreign_function": (_FUNCTION, functions)}
        return {code: f"{words}: {', '.join(names)}" for code, (words, names) in said.items() if names}

    def _wants_tables(self) -> bool:
        return self.wants.tables or self.wants.bloat

    def _wants_indexes(self) -> bool:
        return self.wants.indexes or self.wants.index_bloat

    def _asked(self) -> bool:
        return self._wants_tables() or self._wants_indexes()

    def _has_asked_index(self, info: TableInfo) -> bool:
        return any(i.name in self.only for i in info.indexes)

    def _trees(self, chosen: t.Sequence[TableInfo]) -> dict[str, bloat.Tree] | None:
        """None: sizes cannot be read, or reading the file would cost more than the budget."""
        budget, exact = self.wants.scan_budget, any(ref.database == self.path for ref in self.wants.exact)
        if not self._asked() or not bloat.has_dbstat(self.db):
            return None
        if budget is not None and self.head.bytes > budget and not exact:
            return None
        if self.whole:
            return bloat.trees(self.db)
        return bloat.trees(self.db, [n for i in chosen for n in (*i.parts, *(x.name for x in i.indexes)) if n])

    # ---- tables and indexes ------------------------------------------------------------------------------------------

    def _table(self, info: TableInfo, trees: dict[str, bloat.Tree] | None, known: Statistics | None) -> Table:
        own = [trees[p] for p in info.parts if p in trees] if trees is not None else []
        beside = [trees[i.name] for i in info.indexes if i.name in trees] if trees is not None else []
        size = sum(tree.bytes for tree in own)
        table = Table(
            Ref(self.path, (info.name,)),
            bytes=size,
            total_bytes=size + sum(tree.bytes for tree in beside),
            rows=self._rows(info, own),
            bloat=self._bloat(own[0], self.wants.bloat_min_bytes) if self.wants.bloat and len(own) == 1 else None,
            lacks=_LACKS,
            indexes=len(info.indexes),
        )
        return self._with_statistics(table, info, known)

    def _indexes(self, chosen: t.Sequence[TableInfo], trees: dict[str, bloat.Tree] | None) -> tuple[Index, ...]:
        if not self._wants_indexes():
            return ()
        from . import indexes

        only = self.wants.only
        found = [x for x in indexes.read(self.db, self.path, chosen) if not only or x.ref in only or x.table in only]
        return tuple(self._with_size(index, (trees or {}).get(index.ref.path[-1])) for index in found)

    def _with_size(self, index: Index, tree: bloat.Tree | None) -> Index:
        if tree is None:
            return index
        rate = self._bloat(tree, self.wants.index_bloat_min_bytes) if self.wants.index_bloat else None
        return index._replace(bytes=tree.bytes, rows=tree.entries, bloat=rate)

    def _rows(self, info: TableInfo, own: t.Sequence[bloat.Tree]) -> int:
        if info.virtual:
            return 0
        if own:
            return own[0].entries
        if not self._cheap():
            return catalog.count(self.db, info.name)
        return int(catalog.any_row(self.db, info.name))

    def _cheap(self) -> bool:
        """Whether the file is too large for the budget: then rows are not counted, and nothing counts as changed."""
        return self.wants.scan_budget is not None and self.head.bytes > self.wants.scan_budget

    def _bloat(self, tree: bloat.Tree, least: int) -> Bloat | None:
        return bloat.of_tree(tree, self.head.page_size) if tree.bytes >= least else None

    def _with_statistics(self, table: Table, info: TableInfo, known: Statistics | None) -> Table:
        """Rows more or less than when the table was analyzed: SQLite counts no other change.

        Nor does it store a time. `analyzed` is now wherever there are statistics, so that the share of changed rows
        alone decides: one row more than in sqlite_stat1 would otherwise make the table due every night.
        """
        if info.virtual or info.foreign:
            return table
        missing = catalog.missing_statistics(info, table.rows, known)
        if known is None or known.rows is None or (self._cheap() and not table.bytes):
            return table._replace(missing_statistics=missing)
        changed = abs(table.rows - known.rows)
        return table._replace(missing_statistics=missing, changed=changed, analyzed=self.server.now)

    # ---- the file ----------------------------------------------------------------------------------------------------

    def _file(self, trees: dict[str, bloat.Tree] | None, foreign: t.Mapping[str, str]) -> Table:
        whole = None
        if self.wants.bloat and self.head.pages and self.head.bytes >= self.wants.bloat_min_bytes:
            whole = bloat.by_freelist(self.head) if trees is None else bloat.of_file(trees.values(), self.head)
        lacks = rebuild_lacks(self.head, whole)
        if foreign:
            lacks["exclusive rebuild"] = "; ".join(foreign.values())
        return Table(self.file, "file", self.head.bytes, on_disk(self.path), bloat=whole, lacks=lacks)

    def _leftovers(self) -> tuple[Leftover, ...]:
        if not self.wants.leftovers or not self.whole or self.way.unseen:
            return ()
        return activity.pending_return(self.path, self.head.bytes, self.wants.bloat_min_bytes)

    def _findings(self, foreign: t.Mapping[str, str], trees: dict[str, bloat.Tree] | None) -> tuple[Finding, ...]:
        found = list(activity.large_log(self.path, self.head.page_size))
        found += [
            Finding(3, code, self.file, message, fix="Run that from the application")
            for code, message in foreign.items()
        ]
        if self.wants.index_bloat and trees is None:
            message = "the sizes of single indexes are not known: this SQLite has no dbstat, or the file is too large"
            fix = "Use a Python whose SQLite was built with SQLITE_ENABLE_DBSTAT_VTAB"
            found.append(Finding(3, "index_sizes_unknown", self.file, message, fix=fix))
        if self.way.unseen:
            message = (
                f"a write-ahead log of {say_bytes(self.way.unseen)} without its -shm, left by a crash or a copy:"
                " what is in it cannot be read without writing, so the figures are older than it"
            )
            found.append(Finding(3, "log_unread", self.file, message, fix="Open it once with its application"))
        return tuple(found)
