# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a table can be rebuilt while it is used, and by what: pg_repack, its extension and its client. No work."""

from __future__ import annotations

import contextlib
import functools
import glob
import re
import shutil
import typing as t

from ..._errors import MissingMeans
from ..._records import Server
from ..._tuples import NamedTuple
from .catalog import Row
from .session import Session
from .versions import has, major_of

PACKAGE = "pg_repack (Debian: postgresql-VERSION-repack)"
# Where Debian and the RPMs of the PostgreSQL project put it: outside PATH.
FOLDERS = ("/usr/lib/postgresql/*/bin/pg_repack", "/usr/pgsql-*/bin/pg_repack")
EXTENSION = """
SELECT e.extversion, pg_catalog.has_schema_privilege('repack', 'USAGE')
                     AND pg_catalog.has_schema_privilege('repack', 'CREATE')
  FROM pg_catalog.pg_extension e WHERE e.extname = 'pg_repack'
"""


@functools.lru_cache(maxsize=1)
def clients() -> t.Mapping[str, str]:
    """The programs on this machine, version to path."""
    from ..._process import Program

    found: dict[str, str] = {}
    on_path = shutil.which("pg_repack")
    for path in [*([on_path] if on_path else []), *sorted((p for f in FOLDERS for p in glob.glob(f)), reverse=True)]:
        with contextlib.suppress(MissingMeans, OSError):
            said = Program([path, "--version"], env={"LC_ALL": "C"}, package=PACKAGE).wait(10)
            version = re.search(r"pg_repack (\S+)", said.out) if said else None
            if version:
                found.setdefault(version.group(1), path)
    return found


class Means(NamedTuple):
    """How tables of one database can be rebuilt online; `why_not` when they cannot."""

    why_not: str = ""
    client: str = ""
    superuser: bool = True
    version: str = ""  # of pg_repack


def of_database(session: Session, server: Server) -> Means:
    if has("repack", major_of(server)):
        return Means()
    found = session.rows(EXTENSION)
    if not found:
        return Means(f"the extension pg_repack is not in database {session.database}: CREATE EXTENSION pg_repack")
    version, granted = found[0]
    client = clients().get(version)
    if client is None:
        others = ", ".join(clients()) or "none"
        return Means(
            f"no client pg_repack {version}, as the extension, on the host where the module runs (there: {others})"
        )
    superuser = bool(server.settings["superuser"])
    if not superuser and not granted:
        return Means("pg_repack needs a superuser, or a login with USAGE and CREATE on the schema repack")
    return Means("", client, superuser, version)


def why_not(row: Row, found: Means, server: Server) -> str:
    """Why this table cannot be rebuilt online. Source: the views repack.tables and repack.primary_keys."""
    if row.catalog:
        return "a catalog of the server"
    if row.relkind == "m":
        return "a materialized view: REFRESH MATERIALIZED VIEW writes it anew"
    if row.relkind == "p":
        return "a partitioned table stores nothing: its partitions do"
    if row.persistence != "p":
        return "an unlogged table"
    if found.why_not:
        return found.why_not
    if row.keyed:
        return ""
    if has("repack", major_of(server)):
        return "its replica identity is no index: add a primary key, or ALTER TABLE … REPLICA IDENTITY USING INDEX"
    return "it has no primary key and no unique index on columns that are NOT NULL: add one"
