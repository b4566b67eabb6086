# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of PostgreSQL, engine alone: what was dumped is what is restored, and a dump that fails leaves nothing."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore, Verify
from tests.fleet import Server
from tests.fleet.processes import give_away

from .pg_backups import WHOLE, content, manner, shelf, taken, using

Make = Callable[[Server], str]


@pytest.fixture
def somebody(postgresql: Server) -> Iterator[str]:
    """A role that a dump's statements name."""
    name = f"some;body{os.getpid()}"
    postgresql.sql(f'CREATE ROLE "{name}"')
    yield name
    postgresql.sql(f'DROP ROLE "{name}"')


@pytest.fixture
def whole(postgresql: Server, somebody: str, database: Make) -> str:
    """A database with something of everything."""
    name = database(postgresql)
    postgresql.script(WHOLE.replace("{role}", f'"{somebody}"'), database=name)
    for words in (
        f"COMMENT ON DATABASE {name} IS 'the shop''s'",
        f"""ALTER DATABASE {name} SET search_path TO "$user", public, "o""dd" """,
        f"ALTER DATABASE {name} SET work_mem TO '5MB'",
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
        f'GRANT CREATE ON DATABASE {name} TO "{somebody}" WITH GRANT OPTION',
    ):
        postgresql.sql(words)
    return name


# Of three streams: a table, and one of two partitions that are loaded through their table; a partition, and what
# inherits; what has a hostile name.
STREAMS = (
    (("public", "t"), ("public", "h_1")),
    (("public", "p_1"), ("public", "child")),
    (('o"dd', "O'hara; DROP -- \n x"),),
)


@pytest.mark.every_server
@pytest.mark.parametrize(("jobs", "streams"), [(1, ()), (2, STREAMS)])
def test_what_is_restored_is_what_was_dumped(
    postgresql: Server, whole: str, tmp_path: Path, jobs: int, streams: tuple[tuple[tuple[str, str], ...], ...]
) -> None:
    before = content(postgresql, whole)
    with using(postgresql) as pg:
        apart = tuple(tuple(Ref(whole, path) for path in paths) for paths in streams)
        backup = taken(pg, whole, tmp_path, streams=apart)
        shown = pg.engine.spell(Dump(Ref(whole), "dump", manner(tmp_path), streams=apart), pg.server)
        assert [" --data-only " in line for line in shown] == [False] + [True] * len(streams)
        assert shlex.split(shown[0])[1:] == list(backup.arguments[:-1])
        assert sorted(file.what for file in backup.files) == ["data"] * len(streams) + ["dump"]
        assert (backup.method, backup.format, backup.database, backup.level) == ("dump", "custom", whole, "")
        assert backup.tool == f"pg_dump {postgresql.version}"
        assert backup.source_bytes > 7_000_000
        assert postgresql.password not in json.dumps(backup.arguments)
        pg.carry_out(Verify(Ref(whole), None, manner(tmp_path, identity=backup.server), "decode"))
        (backup,) = shelf(tmp_path)
        assert backup.level == "decode"
        assert backup.rows is not None
        assert (backup.rows["public.t"], backup.rows["public.p_1"], backup.rows["public.empty"]) == (500, 30, 0)
        assert sum(backup.rows.values()) == 500 + 60 + 4 + 10 + 1
    postgresql.sql(f"ALTER DATABASE {whole} RENAME TO {whole}_before")
    try:
        with using(postgresql) as pg:
            words = pg.engine.spell(Restore(Ref(whole), backup, jobs=jobs), pg.server)
            assert sum(line.endswith("--section=data") for line in words) == (1 + len(streams) if streams else 0)
            pg.carry_out(Restore(Ref(whole), backup, jobs=jobs))
        assert content(postgresql, whole) == before
    finally:
        postgresql.sql(f"DROP DATABASE {whole}_before")
    assert not [x for (x,) in postgresql.sql("SELECT datname FROM pg_database") if x.startswith("dbfleet_")]


KEPT = """
SELECT d.datistemplate, s.spcname, (SELECT pg_catalog.array_agg(r.rolname || o.setconfig::text)
                                      FROM pg_db_role_setting o JOIN pg_roles r ON r.oid = o.setrole
                                     WHERE o.setdatabase = d.oid)
  FROM pg_database d JOIN pg_tablespace s ON s.oid = d.dattablespace WHERE d.datname = '{}'
"""


def test_what_no_dump_holds_comes_back(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """A template, in another tablespace, with a role's own settings there; what check mode says is what is done."""
    shop, place = database(postgresql), postgresql.home / "elsewhere"
    place.mkdir(mode=0o700)
    give_away(place)
    postgresql.sql(f"CREATE TABLESPACE s{shop} LOCATION '{place}'")
    postgresql.sql(f"CREATE ROLE r{shop}")
    try:
        postgresql.sql(f"ALTER DATABASE {shop} SET TABLESPACE s{shop}")
        postgresql.sql(f"ALTER ROLE r{shop} IN DATABASE {shop} SET search_path = 'a b', public")
        postgresql.sql(f"ALTER DATABASE {shop} IS_TEMPLATE true")
        before = postgresql.sql(KEPT.format(shop))
        with using(postgresql) as pg:
            backup = taken(pg, shop, tmp_path)
            postgresql.mark_log()
            words = pg.carry_out(Restore(Ref(shop), backup, replace=True))
        said = {logged.statement for logged in postgresql.logged()}
        assert [word for word in words if word.startswith(("CREATE", "ALTER")) and word not in said] == []
        assert postgresql.sql(KEPT.format(shop)) == before
        assert before[0][:2] == ["t", f"s{shop}"]
        assert "a b" in before[0][2]
        assert postgresql.sql("SELECT 1 FROM pg_database WHERE datname ~ 'dbfleet'") == []
    finally:
        postgresql.sql(f"ALTER DATABASE {shop} IS_TEMPLATE false")
        postgresql.sql(f"DROP DATABASE {shop}")
        postgresql.sql(f"DROP TABLESPACE s{shop}")
        postgresql.sql(f"DROP ROLE r{shop}")
