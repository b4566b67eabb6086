# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of one database: found and counted for each rule. Only reads; taking them is purge.py and its neighbours."""

from __future__ import annotations

import typing as t

from ..._errors import BadInput
from ..._records import Leftover, Ref, Server, Wants
from ..._retention import Child, Expired, Files, Missing, Part, Piece, Sought
from . import archives, offspring, partitions, stores
from .connection import Link
from .due import Due, Refusal
from .partitions import Range
from .privileges import Grants
from .stores import Field, Store

TRIGGERS = """
    SELECT TRIGGER_NAME FROM information_schema.TRIGGERS
     WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s AND EVENT_MANIPULATION = 'DELETE'
     ORDER BY TRIGGER_NAME"""
FEW = 200_000  # rows that are counted in no time
SHARE = 20  # where more than one in so many is due, an estimate of the whole is too rough to judge by
MOST = 3  # where more than one in so many is due, reading all of them in the order of the key is faster
IDENTITY = {
    "mysql": "SELECT @@server_uuid",
    "mariadb": "SELECT CONCAT_WS(' ', @@hostname, @@port, @@datadir)",
}


def identity(link: Link, table: Ref) -> str:
    """Names server, database and table in archive files that several servers may share a folder for."""
    return f"{link.rows(IDENTITY[link.flavour.name])[0][0]} {table.database} {table.path[0]}"


def read(
    link: Link, wants: Wants, server: Server, grants: Grants
) -> tuple[tuple[Expired, ...], tuple[Missing, ...], dict[Ref, Store]]:
    """What each rule finds in the session's database, and the tables as they were seen."""
    sought = [s for s in wants.expired if s.expiry.database in ("", link.database)]
    known = stores.read(link, link.database, {name for s in sought for name in _names(s, link.database)})
    depots = {(s.expiry.rule, s.archive.table): s for s in sought if s.archive and s.archive.table}
    look = _Look(link, wants, server, grants)
    found, without, seen = [], [], dict.fromkeys(known.values())
    for one in sought:
        source = depots.get((one.expiry.rule, one.expiry.table)) if one.archive is None else None
        store = _own(known, one, link.database)
        if store is None and source and (wants.only or _own(known, source, link.database)):
            store = _elsewhere(link, one)
        if store is None:
            without.append(Missing(one, link.database))
            continue
        seen[store] = None
        found.append(look.expired(one, store))
    made_of = look.definitions
    seen_as = {store.ref: store._replace(definition=made_of.get(store.ref, "")) for store in seen}
    return tuple(found), tuple(without), seen_as


def _own(known: t.Mapping[str, Store], sought: Sought, database: str) -> Store | None:
    return next((known[name] for name in _names(sought, database) if name in known), None)


def _elsewhere(link: Link, sought: Sought) -> Store | None:
    """An archive table in a database of its own is found from where its source is."""
    ref = archives.place(link, link.database, sought.expiry.table)
    return stores.read(link, ref.database, ref.path).get(ref.path[0])


def _names(sought: Sought, database: str) -> list[str]:
    """A dot may belong to the name, or divide it from that of its database."""
    whole = sought.expiry.table
    first, dot, rest = whole.partition(".")
    return [whole, rest] if dot and first == database and rest else [whole]


def _sum(counts: t.Sequence[int | None]) -> int | None:
    """Unknown where one of them is."""
    return None if None in counts else sum(c for c in counts if c is not None)


class _Look:
    """One look at one database; what several rules need of the server is read once."""

    def __init__(self, link: Link, wants: Wants, server: Server, grants: Grants) -> None:
        self.link, self.server, self.grants = link, server, grants
        self.only = frozenset(wants.only)
        self.counting = wants.counting
        self.definitions: dict[Ref, str] = {}
        self._beside: dict[str, list[str]] = {}
        self._edges: list[offspring.Edge] | None = None

    def expired(self, sought: Sought, store: Store) -> Expired:
        found = Expired(sought, store.ref, detaching=self._left(store.ref))
        if self.only and not any(ref._replace(partition="") == store.ref for ref in self.only):
            return found._replace(rows=0, of_rows=store.rows)
        try:
            return self._found(found, store)
        except Refusal as no:
            return found._replace(why_not=no.why, code=no.code, cure=no.cure)
        except BadInput as no:
            return found._replace(why_not=no.cause, code="bad_rule", cure=no.cure)

    def _found(self, found: Expired, store: Store) -> Expired:
        sought = found.sought
        field = self._usable(sought, store)
        sought_date = sought._replace(expiry=sought.expiry._replace(column=field.name))
        due = Due(self.link, sought_date, store, field, self.server.now.timestamp())
        due.check()
        ranges = partitions.read(self.link, store, due.field) if sought.partitions and self._may_drop(store) else []
        sole = self._sole()
        if (self.only or self.counting == "any") and (not sole or any(one.name == sole for one in ranges)):
            # After a purge nothing is left, as a rule, and what runs counts under the guard.
            due.look(sole, counting=self.counting != "any")
        pieces, parts = self._pieces(due, ranges)
        rows = _sum([p.rows for p in parts] + [p.rows for p in pieces if not any(x.ref == p.ref for x in parts)])
        whole = self._whole(due, rows)
        pieces = tuple(self._walked(due, piece, whole) for piece in pieces)
        found = found._replace(rows=rows, of_rows=whole, pieces=pieces, parts=parts)
        return self._surroundings(found, due)

    def _sole(self) -> str:
        """The partition that is looked at, where it is one alone."""
        return next(iter(self.only)).partition if len(self.only) == 1 else ""

    def _surroundings(self, found: Expired, due: Due) -> Expired:
        """What leaves with the rows, fires for them, and takes them."""
        archive, store = found.sought.archive, due.store
        if archive and archive.folder:
            found = found._replace(files=self._files(found.sought, store))
        if self.only:
            return found
        if archive and archive.table:
            to = archives.place(self.link, store.ref.database, archive.table)
            found = found._replace(depot=archives.look(self.link, store, to, self.grants))
        children = self._children(due, bool(archive and archive.table)) if found.rows != 0 else ()
        if (children or archive) and not store.transactional and found.rows != 0:
            what = "rows that hang from others" if children else "an archive"
            why = f"its storage engine {store.engine} knows no transactions, which {what} would need"
            raise Refusal("no_transactions", why, f"ALTER TABLE {store.sql} ENGINE = InnoDB")
        triggers = self.link.rows(TRIGGERS, (store.ref.database, store.ref.path[0]))
        return found._replace(children=children, triggers=tuple(str(row[0]) for row in triggers))

    def _usable(self, sought: Sought, store: Store) -> Field:
        """The date column. Raises Refusal."""
        if store.type not in ("BASE TABLE", "SYSTEM VERSIONED"):
            raise Refusal("no_table", f"it is no table ({store.type.lower()})", "Name the table that holds the rows")
        expiry = sought.expiry
        field = store.field(expiry.column)
        if field is None:
            raise Refusal("no_such_column", f"it has no column {expiry.column}", "Mend date_column of the rule")
        trouble = stores.date_trouble(field, expiry.unit)
        if trouble:
            raise Refusal("not_a_date", f"{field.name}: {trouble}", "Mend date_column or date_unit of the rule")
        table = (store.ref.database, store.ref.path[0])
        lacking = self.grants.missing(["SELECT", "DELETE"], *table)
        if lacking:
            fix = self.grants.statement(lacking, *table)
            raise Refusal(
                "missing_privilege", f"the login may not {' or '.join(x.lower() for x in lacking)} there", fix
            )
        return field

    def _pieces(self, due: Due, ranges: t.Sequence[Range]) -> tuple[tuple[Piece, ...], tuple[Part, ...]]:
        """What is taken row by row, and the partitions that can be dropped: then what is left lies in some others."""
        store, expiry = due.store, due.sought.expiry
        parts = {
            one.name: self._part(due, one)._replace(undated=due.field.name if lowest else "")
            for one, lowest in partitions.due(ranges, due.field, expiry)
            if not lowest or not self._undated(due, one.name)
        }
        names = [one.name for one in partitions.touched(ranges, due.field, expiry) if one.name not in parts]
        refs = [store.ref._replace(partition=name) for name in names] if parts else [store.ref]
        if self.only:
            wanted = {ref for ref in self.only if ref._replace(partition="") == store.ref}
            refs = [ref for ref in (*refs, *(part.ref for part in parts.values())) if ref in wanted]
            parts = {name: part for name, part in parts.items() if part.ref in wanted}
            if store.ref in wanted:
                refs = [store.ref]
        pieces = [Piece(ref, due.count(ref.partition)) for ref in refs if not self._is_part(ref, parts)]
        if due.sought.archive:
            pieces += [Piece(part.ref, part.rows) for part in parts.values()]
        return tuple(pieces), tuple(parts.values())

    def _is_part(self, ref: Ref, parts: t.Mapping[str, Part]) -> bool:
        return bool(ref.partition) and ref.partition in parts

    def _may_drop(self, store: Store) -> bool:
        return not store.versioned and not self.grants.missing(["DROP"], store.ref.database, store.ref.path[0])

    def _part(self, due: Due, one: partitions.Range) -> Part:
        ref = due.store.ref._replace(partition=one.name)
        rows = due.count(one.name) if not self.only or ref in self.only else None
        large = one.bytes >= partitions.LARGE and not self.only
        return Part(ref, rows, one.bytes, concurrently=large and self._exchanged(due.store, ref))

    def _left(self, table: Ref) -> tuple[Leftover, ...]:
        """What dead runs left of its partitions."""
        if table.database not in self._beside:
            self._beside[table.database] = partitions.beside(self.link, table.database)
        names = self._beside[table.database]
        if not names:
            return ()
        from . import exchange

        left = exchange.leftovers(self.link, table, names)
        return tuple(x for x in left if not self.only or x.ref in self.only)

    def _exchanged(self, store: Store, ref: Ref) -> bool:
        """Whether it leaves by way of a table beside it, so that nobody waits until its files are removed."""
        from . import exchange

        if store.ref not in self.definitions:
            self.definitions[store.ref] = exchange.definition(self.link, store, self.grants, self.server)
        return bool(self.definitions[store.ref]) and exchange.free(self.link, ref, self.grants)

    def _undated(self, due: Due, name: str) -> bool:
        found = due.timed(lambda: partitions.undated(self.link, due.store, due.field, name))
        return found is None or bool(found)

    def _whole(self, due: Due, rows: int | None) -> int | None:
        """How many rows the table has; counted where the estimate, often wrong by half, could mislead."""
        estimate = due.store.rows
        if self.only or rows is None:
            return estimate
        share = due.sought.share
        far = max(SHARE, 1000 / share) if share else SHARE  # ten times as many as would still be few enough
        if rows == 0 or (estimate > FEW and rows * far < estimate):
            return max(estimate, rows)
        return due.all()

    def _walked(self, due: Due, piece: Piece, whole: int | None) -> Piece:
        """In which order the rows are taken."""
        store, key = due.store, due.store.key
        by_date = store.by_date(due.field.name)
        size = (piece.rows or 0) * store.row_bytes
        piece = piece._replace(bytes=size, row_bytes=store.row_bytes, indexed=by_date is not None)
        if key is None:
            why = "it has no key of columns that sort exactly, and these servers have no other name for a row"
            return piece._replace(why_not=why, indexed=False)
        most = by_date is not None and piece.rows is not None and whole is not None and piece.rows * MOST > whole
        way = key if by_date is None or most else by_date
        return piece._replace(walk=way.columns)

    # ---- what hangs from the rows, and where they go -----------------------------------------------------------------

    def _children(self, due: Due, to_table: bool) -> tuple[Child, ...]:
        if self._edges is None:
            self._edges = offspring.edges(self.link)
        children = offspring.tree(due.store.ref, self._edges)
        known: dict[Ref, Store] = {}
        for database in {c.table.database for c in children}:
            names = [c.table.path[0] for c in children if c.table.database == database]
            known.update((s.ref, s) for s in stores.read(self.link, database, names).values())
        found = []
        for child in children:
            store = known.get(child.table)
            table = (child.table.database, child.table.path[0])
            lacking = self.grants.missing(["SELECT", "DELETE"], *table)
            if store is None or lacking:
                fix = self.grants.statement(lacking or ["SELECT", "DELETE"], *table)
                why = f"rows of {'.'.join(table)} may hang from it ({child.name}), and the login may not see them"
                raise Refusal("missing_privilege", why, fix)
            query = offspring.count_sql(child, children, due.store.ref, due.where, due.store.sql)
            rows = due.number(query)
            width = len(child.columns)
            indexed = any({c for c, _size in x.columns[:width]} == set(child.columns) for x in store.indexes)
            archive = child.table._replace(path=(f"{child.table.path[0]}_archive",)) if to_table else None
            walk = store.key.columns if store.key else ()
            found.append(child._replace(rows=rows, indexed=indexed, to=archive, walk=walk))
        return tuple(found)

    def _files(self, sought: Sought, store: Store) -> Files:
        from ..._files import shelf

        folder = sought.archive.folder if sought.archive else ""
        return shelf.look(folder, identity(self.link, store.ref), sought.expiry.rule, sought.files_before)
