# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One database measured: which rooms are asked for what, and how their answers become one record. No SQL."""

from __future__ import annotations

import time
import typing as t

from ..._errors import Busy
from ..._records import Bloat, Database, Finding, Ref, Server, Table, Wants
from . import activity, beside, catalog, leftovers, means, space, statistics
from .catalog import Row
from .means import Means
from .session import Session

MAINTAINING = ("vacuum", "analyze", "freeze", "reclaim", "online rebuild", "exclusive rebuild")
AGAIN = 3  # a table may be locked between the look at the locks and the look at its size


def database(session: Session, wants: Wants, server: Server, rebuilding: Means) -> Database:
    """What `wants` asks for; `rebuilding` are the means of doing that online, looked for where bloat is wanted."""
    found = Database(session.database)
    if wants.exact and wants.only == wants.exact:
        from . import bloat

        if not bloat.extension(session, "pgstattuple_approx"):
            return found  # a second look without the means for one: the first one stands
    if wants.activity:
        spaces = space.spaces(session, server.settings)
        found = found._replace(activity=activity.activity(session, server), spaces=spaces)
    if wants.leftovers and (wants.tables or not wants.indexes):  # of tables; those of indexes come with them
        found = found._replace(leftovers=leftovers.read(session, wants))
    rows = _patiently(session, wants, server) if wants.tables or wants.bloat or wants.exact else None
    if rows is None:
        return _more(session, wants, server, found, ())
    two = (wants.indexes or wants.index_bloat) and beside.wanted(wants, server)
    with session.twin(wanted=two) as twin:
        if twin is None:
            found = _more(session, wants, server, found, rows)
            tables, findings = _objects(session, wants, server, rebuilding, rows)
        else:
            (tables, findings), found = beside.both(
                session,
                twin,
                lambda asked: _objects(asked, wants, server, rebuilding, rows),
                lambda asked: _more(asked, wants, server, found, rows),
            )
    return found._replace(tables=tables, findings=(*found.findings, *findings))


def _more(session: Session, wants: Wants, server: Server, found: Database, rows: t.Sequence[Row]) -> Database:
    """Indexes, views and structure; `rows` are the tables, where they are known."""
    if wants.indexes or wants.index_bloat:
        from . import indexes

        if wants.leftovers:
            from . import halfbuilt

            found = found._replace(leftovers=(*found.leftovers, *halfbuilt.leftovers(session, wants)))
        found = indexes.read(session, wants, server, found, rows)
    if wants.backups and not wants.only:
        from . import streams

        found = found._replace(large=streams.large(session))
    if wants.views:
        from . import views

        found = found._replace(views=views.read(session, wants, server))
    if wants.structure:
        from . import structure

        found = found._replace(structure=structure.read(session, wants, server))
    return found


def _objects(
    session: Session, wants: Wants, server: Server, rebuilding: Means, rows: list[Row]
) -> tuple[tuple[Table, ...], list[Finding]]:
    findings = list(_temporary(rows, session.database, server))
    rows = [row for row in rows if row.persistence != "t"]
    refs = {row.oid: Ref(session.database, (row.schema, row.name)) for row in rows}
    horizon, running = activity.company(session, server, fresh=not wants.shared)
    busy = activity.busy_tables(running)
    missing = statistics.missing(session, wants, server, rows) if wants.tables else {}
    bloats = _bloats(session, wants, server, rows, refs)
    findings += activity.findings(running, refs)
    findings += (*_may_not(rows, session.database, server), *_uncounted(rows, session.database))
    if not wants.tables:  # their sizes alone: nobody is going to maintain them
        return tuple([catalog.sized(row, refs[row.oid], bloats.get(row.oid)) for row in rows]), findings
    tables = []
    for row in rows:
        table = horizon.apply(catalog.table(row, refs[row.oid], server), row)
        table = table._replace(
            missing_statistics=missing.get(row.oid, ""),
            bloat=bloats.get(row.oid),
            lacks=_lacks(row, busy.get(row.oid, ""), means.why_not(row, rebuilding, server)),
        )
        tables.append(table)
    return tuple(tables), findings


def _bloats(
    session: Session, wants: Wants, server: Server, rows: list[Row], refs: t.Mapping[int, Ref]
) -> dict[int, Bloat]:
    """By oid. Where nothing is large enough to be looked at, what looks is not even imported."""
    large = wants.bloat and any(row.total_bytes >= wants.bloat_min_bytes for row in rows)
    if not large and not wants.exact:
        return {}
    from . import bloat

    estimates = bloat.estimates(session, wants, server, rows) if wants.bloat else {}
    closer = bloat.exact(session, wants, server, {refs[row.oid]: row for row in rows}, estimates)
    found = {oid: parts.whole for oid, parts in estimates.items()}
    return {**found, **{row.oid: closer[refs[row.oid]] for row in rows if refs[row.oid] in closer}}


def _patiently(session: Session, wants: Wants, server: Server) -> list[Row]:
    for left in reversed(range(AGAIN)):
        try:
            return catalog.read(session, wants, server)
        except Busy:
            if not left:
                raise
            time.sleep(0.1)
    return []


def _lacks(row: Row, busy: str, no_repack: str) -> dict[str, str]:
    if not row.may_maintain:
        return dict.fromkeys(MAINTAINING, "the login may not maintain it")
    if not row.may_name:
        return dict.fromkeys(MAINTAINING, "the login may not use its schema")
    if busy:
        return dict.fromkeys(MAINTAINING, busy)
    return {"online rebuild": no_repack} if no_repack else {}


def _may_not(rows: t.Sequence[Row], name: str, server: Server) -> t.Iterator[Finding]:
    """One finding a database, and the GRANT that cures it."""
    refused = [row for row in rows if not row.may_maintain and not row.catalog]
    if refused:
        user = str(server.settings["user"])
        some = ", ".join(f"{row.schema}.{row.name}" for row in refused[:3]) + (" …" if len(refused) > 3 else "")
        message = f"{user} may not maintain {len(refused)} of its tables: {some}"
        yield Finding(2, "may_not_maintain", Ref(name), message, fix=_grant(user, server))
    schemas = sorted({row.schema for row in rows if row.may_maintain and not row.may_name})
    for schema in schemas:
        message = f"{server.settings['user']} may maintain tables in {schema}, but not use the schema that they are in"
        yield Finding(2, "may_not_maintain", Ref(name, (schema,)), message, fix=_usage(schema, server))


def _usage(schema: str, server: Server) -> str:
    from .names import quoted

    return f"GRANT USAGE ON SCHEMA {quoted(schema)} TO {quoted(str(server.settings['user']))}"


def _uncounted(rows: t.Sequence[Row], name: str) -> t.Iterator[Finding]:
    if any(not row.counted for row in rows):
        message = "track_counts is off: how many rows are dead or changed stays unknown, and autovacuum does not run"
        yield Finding(2, "not_counted", Ref(name), message, fix="ALTER SYSTEM SET track_counts = on")


def _grant(user: str, server: Server) -> str:
    from .names import quoted
    from .versions import has, major_of

    if has("maintain", major_of(server)):
        return f"GRANT pg_maintain TO {quoted(user)}"
    return f"GRANT the owner's role TO {quoted(user)}, or give a superuser's login"


def _temporary(rows: t.Sequence[Row], name: str, server: Server) -> t.Iterator[Finding]:
    """Temporary tables of others hold the database's age, and nobody but their session can freeze them."""
    for row in rows:
        percent = (catalog.freeze_percent(row, server) or 0.0) if row.persistence == "t" else 0.0
        if percent >= 50:
            message = (
                f"a temporary table of another session keeps transaction ids at {percent:.0f} % of a forced freeze"
            )
            yield Finding(2, "old_temporary_table", Ref(name, (row.schema, row.name)), message, fix="End that session")
