# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What each stage of a rule finds in a database: resolved, judged, counted. Nothing is changed here."""

from __future__ import annotations

import typing as t

from ..._errors import Refused
from ..._records import Ref, Server, Wants
from ..._retention import Expired, Files, Missing, Part, Piece, Sought
from . import archives, foreign_keys, partitions, walks
from .counting import Counter, Counts, Found, reading
from .due import ZONE, alone, why_no_date
from .partitions import Whole
from .retention import Memory, Seen
from .session import Session
from .subject import Column, Subject, called, delete_refused, from_only, subjects
from .versions import has, major_of

IDENTITY = "SELECT s.system_identifier::pg_catalog.text FROM pg_catalog.pg_control_system() s"


def read(
    session: Session, wants: Wants, server: Server, seen: Memory
) -> tuple[tuple[Expired, ...], tuple[Missing, ...]]:
    """All that `wants.expired` asks for in the session's database; what words are made of goes into `seen`."""
    reader = _Reader(session, wants, server, seen)
    found: list[Expired] = []
    missing: list[Missing] = []
    for sought in wants.expired:
        if sought.expiry.database in ("", session.database):
            one = reader.one(sought)
            if one is None:
                missing.append(Missing(sought, session.database))
            else:
                found.append(one)
    return tuple(found), tuple(missing)


def identity(session: Session, server: Server, table: Ref) -> str:
    """Names server, database and table in archive files: several servers may share a folder."""
    try:
        ((number,),) = session.rows(IDENTITY)
    except Refused:  # hosting keeps that to itself
        number = server.address
    return "/".join(("postgresql", number, table.database, *table.path))


class _Reader:
    def __init__(self, session: Session, wants: Wants, server: Server, seen: Memory) -> None:
        self.session, self.wants, self.server, self.seen = session, wants, server, seen
        self.user = str(server.settings["user"])
        self.known: dict[int, Found] = {}
        self.where: dict[tuple[int, str], str] = {}

    def one(self, sought: Sought) -> Expired | None:
        """None where there is no such table."""
        named = called(self.session, sought.expiry.table)
        if not named:
            return None
        if len(named) > 1:
            return Expired(sought, named[0][1], ambiguous=tuple(ref for oid, ref in named))
        oid, ref = named[0]
        if oid not in self.known:
            found = self._found(oid)
            if found is None:
                return None
            self.known[oid] = found
        return self._expired(sought, ref, self.known[oid])

    def _found(self, oid: int) -> Found | None:
        subject = subjects(self.session, [oid]).get(oid)
        if subject is None:
            return None
        leaves, foreign = {oid: subject}, False
        if subject.kind == "p":
            tree = partitions.leaves(self.session, oid)
            foreign = any(kind == "f" for leaf, kind in tree)
            leaves = subjects(self.session, [leaf for leaf, kind in tree if kind == "r"])
        edges = foreign_keys.edges(self.session, oid)
        refs = {edge.table: edge.ref(self.session.database) for edge in edges}
        refs[oid] = subject.ref(self.session.database)
        return Found(subject, leaves, foreign, tuple(edges), tuple(foreign_keys.children(self.session, edges, refs)))

    # ---- judged ----

    def _expired(self, sought: Sought, ref: Ref, found: Found) -> Expired:
        expiry = sought.expiry
        empty = Expired(sought, ref)
        if sought.archive and sought.archive.folder:
            empty = empty._replace(files=self._files(sought, ref))
        why, cure = delete_refused(found.subject, self.user)
        if why:
            return empty._replace(why_not=why, cure=cure)
        column = found.subject.column(expiry.column)
        if column is None:
            names = ", ".join(c.name for c in found.subject.columns[:20])
            why, cure = f"it has no column {expiry.column}", f"There are: {names}"
            return empty._replace(why_not=why, cure=cure, code="no_such_column")
        why, cure = why_no_date(column, expiry)
        if why:
            return empty._replace(why_not=why, cure=cure, code="not_a_date")
        if not self._knows(expiry.zone):
            return empty._replace(why_not=f"the server knows no time zone {expiry.zone}", cure="Mend timezone")
        why = self._where_refused(found.subject, expiry.where)
        if why:
            return empty._replace(why_not=why, cure="Mend the rule's where")
        if sought.archive and sought.archive.table:
            name = sought.archive.table
            empty = empty._replace(depot=archives.depot(self.session, found.subject, name, self.user))
        triggers = dict.fromkeys(name for leaf in found.leaves.values() for name in leaf.triggers)
        triggers.update(dict.fromkeys(found.subject.triggers))
        return self._counted(empty._replace(triggers=tuple(triggers), heirs=tuple(found.subject.heirs)), found, column)

    def _files(self, sought: Sought, ref: Ref) -> Files:
        from ..._files import shelf

        folder = sought.archive.folder if sought.archive else ""
        who = identity(self.session, self.server, ref)
        return shelf.look(folder, who, sought.expiry.rule, sought.files_before)

    def _knows(self, zone: str) -> bool:
        try:
            return zone == "UTC" or bool(self.session.rows(ZONE, (zone,)))
        except Refused:
            return False

    def _where_refused(self, subject: Subject, where: str) -> str:
        """The server's own words where the condition cannot stand by itself."""
        if not where:
            return ""
        key = (subject.oid, where)
        if key not in self.where:
            self.where[key] = ""
            table = from_only(subject.ref(self.session.database), subject.name)
            try:
                with reading(self.session) as connection:
                    connection.rows(alone(table, where))
            except Refused as fault:
                self.where[key] = f"its where is refused: {fault.cause}"
        return self.where[key]

    # ---- counted ----

    def _counted(self, empty: Expired, found: Found, column: Column) -> Expired:
        sought, major = empty.sought, major_of(self.server)
        whole: list[Whole] = []
        if found.subject.kind == "p":
            direct = partitions.ranges(self.session, found.subject.oid, major)
            whole = partitions.whole(self.session, found.subject, column, sought, direct, major=major)
            due_ones = {oid for one in whole for oid in one.tree}
            wrecks = partitions.leftovers(self.session, found.subject, direct, due_ones)
            empty = empty._replace(detaching=wrecks)
        chosen = [oid for oid, leaf in found.leaves.items() if self._chosen(leaf)]
        with reading(self.session) as connection:
            counter = Counter(connection, sought, found, column)
            counts = counter.count(chosen, self.wants.counting, first=bool(self.wants.only))
        whole = [one for one in whole if self._may_go(one, sought, counts, chosen)]
        parts = tuple(self._part(one, counts, bool(found.edges)) for one in whole)
        gone = frozenset() if sought.archive else frozenset(oid for one in whole for oid in one.tree)
        stored = [found.leaves[oid] for oid in chosen if oid not in gone]
        for leaf in stored:
            place = (sought.expiry, leaf.ref(self.session.database))
            if place not in self.seen or not self.wants.only:  # a proof does not change the words of what was done
                self.seen[place] = Seen(leaf, leaf.column(column.name) or column, empty.depot)
        return empty._replace(
            rows=None if counts.rows is None else sum(counts.rows.values()),
            of_rows=counts.of_rows,
            pieces=tuple(piece for leaf in stored for piece in self._pieces(leaf, found, column, counts)),
            parts=parts,
            children=counts.children,
        )

    def _chosen(self, leaf: Subject) -> bool:
        """A proof looks at what was touched, and no further."""
        return not self.wants.only or leaf.ref(self.session.database) in self.wants.only

    def _may_go(self, one: Whole, sought: Sought, counts: Counts, chosen: t.Collection[int]) -> bool:
        """What hangs from rows goes with them, so they go one by one; for an archive so do those of a subtree."""
        if self.wants.only and one.part.ref not in self.wants.only:
            return False
        return (one.leaf or not sought.archive) and all(child.rows == 0 for child in counts.children)

    def _part(self, one: Whole, counts: Counts, referenced: bool) -> Part:
        rows = None if counts.rows is None else sum(n for oid, n in counts.rows.items() if oid in one.tree)
        # A key to the parent is checked while writers of the other table wait: that must not take long.
        return one.part._replace(rows=rows, concurrently=one.part.concurrently and not referenced)

    def _pieces(self, leaf: Subject, found: Found, column: Column, counts: Counts) -> t.Iterator[Piece]:
        rows = None if counts.rows is None else counts.rows.get(leaf.oid, 0)
        if rows == 0 and leaf.partition and found.subject.kind == "p" and not self.wants.only:
            return
        walk = walks.choose(leaf, leaf.column(column.name) or column)
        why, cure = delete_refused(leaf, self.user) if leaf.oid != found.subject.oid else ("", "")
        if not why and walk.by_place and not has("tid range", major_of(self.server)):
            why, cure = "it has no key, and this version cannot read a table page by page", "Add a primary key"
        size = leaf.bytes / max(1.0, leaf.rows or rows or 1.0)
        yield Piece(
            leaf.ref(self.session.database),
            rows=rows,
            bytes=int(size * (rows or 0)),
            walk=() if why else walk.names,
            indexed=walk.date is not None,
            why_not=f"{why}. {cure}" if why else "",
            row_bytes=int(size),
        )
