# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a database of PostgreSQL itself comes back with it, and where it cannot, that is said."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Elsewhere
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Restore
from tests.fleet import Fleet, Server

from .label_provider import PROVIDER, built
from .module_runner import run
from .pg import role
from .pg_backups import shelf, taken, using

Make = Callable[[Server], str]
# Who granted is left out: a superuser grants in the owner's name.
BELONGS = """
SELECT pg_get_userbyid(d.datdba), d.datconnlimit, d.datistemplate, d.datallowconn, pg_encoding_to_char(d.encoding),
       d.datcollate, d.datctype, d.datlocprovider, d.datcollversion, shobj_description(d.oid, 'pg_database'),
       coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale'), to_jsonb(d) ->> 'daticurules',
       d.datacl IS NULL, (SELECT array_agg(x ORDER BY x) FROM (
         SELECT DISTINCT coalesce(g.rolname, 'PUBLIC') || a.privilege_type || a.is_grantable AS x
           FROM aclexplode(d.datacl) a LEFT JOIN pg_roles g ON g.oid = a.grantee) x),
       (SELECT array_agg(coalesce(g.rolname, '') || o.setconfig::text ORDER BY g.rolname)
          FROM pg_db_role_setting o LEFT JOIN pg_roles g ON g.oid = o.setrole WHERE o.setdatabase = d.oid),
       (SELECT array_agg(l.provider || l.label) FROM pg_shseclabel l WHERE l.objoid = d.oid)
  FROM pg_database d WHERE d.datname = '{}'
"""
LABELS = "SELECT objtype, objname, label FROM pg_seclabels WHERE objtype <> 'database' ORDER BY 1, 2"
LIKE_NONE = "SELECT 1 FROM pg_database WHERE datname ~ '^dbfleet_'"


@pytest.fixture
def people(postgresql: Server) -> Iterator[tuple[str, str]]:
    """An owner and a clerk, whose names ask for care."""
    names = f'own"er;{os.getpid()}', f"cle rk{os.getpid()}"
    quoted = [f'"{name}"'.replace('"er', '""er') for name in names]
    for name in quoted:
        postgresql.sql(f"CREATE ROLE {name}")
    yield quoted[0], quoted[1]
    for name in quoted:
        postgresql.sql(f"DROP ROLE {name}")


@contextlib.contextmanager
def founded(server: Server, name: str, options: str) -> Iterator[str]:
    """A database of its own kind, in the place of another."""
    server.sql(f"DROP DATABASE {name}")
    server.sql(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
    try:
        yield name
    finally:
        server.sql(f"ALTER DATABASE {name} IS_TEMPLATE false")
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")


def provider_of(server: Server, kind: str) -> str:
    """Options of CREATE DATABASE; a build without ICU is told apart by its collations."""
    major = int(server.installation.major)
    icu = server.sql("SELECT 1 FROM pg_collation WHERE collname = 'de-x-icu'")
    if kind == "icu" and icu:
        rules = " ICU_RULES '&a < g'" if major >= 16 else ""
        return f"ENCODING UTF8 LOCALE_PROVIDER icu ICU_LOCALE 'de-u-kn' LOCALE 'C'{rules}"
    if kind == "builtin" and major >= 17:
        return "ENCODING UTF8 LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'"
    return "ENCODING LATIN1 LOCALE 'C'"


@pytest.mark.every_server
@pytest.mark.parametrize("kind", ["icu", "builtin"])
def test_a_database_comes_back_as_it_was(
    postgresql: Server, database: Make, people: tuple[str, str], tmp_path: Path, kind: str
) -> None:
    owner, clerk = people
    with founded(postgresql, database(postgresql), provider_of(postgresql, kind)) as shop:
        whole = (
            f"ALTER DATABASE {shop} OWNER TO {owner}",
            f"""ALTER DATABASE {shop} SET search_path TO "$user", 'a b', public""",
            f"SET work_mem = '5MB'; ALTER DATABASE {shop} SET work_mem FROM CURRENT",
            f"ALTER DATABASE {shop} SET our_shop.note TO E'it''s a \\\\ \"note\"'",
            f"ALTER ROLE {clerk} IN DATABASE {shop} SET statement_timeout TO '1min'",
            f"ALTER ROLE {owner} IN DATABASE {shop} SET DateStyle TO 'German'",
            f"REVOKE ALL ON DATABASE {shop} FROM PUBLIC",
            f"REVOKE TEMPORARY ON DATABASE {shop} FROM {owner}",
            f"GRANT CONNECT, TEMPORARY ON DATABASE {shop} TO {clerk}",
            f"GRANT CREATE ON DATABASE {shop} TO {clerk} WITH GRANT OPTION",
            f"ALTER DATABASE {shop} CONNECTION LIMIT 7",
            f"ALTER DATABASE {shop} IS_TEMPLATE true",
            f"COMMENT ON DATABASE {shop} IS E'the shop''s\\n\\\\ own'",
        )
        postgresql.script(";\n".join(whole))
        before = postgresql.sql(BELONGS.format(shop))
        with using(postgresql) as pg:
            backup = taken(pg, shop, tmp_path)
            for where in ("throwaway", "same_server"):
                pg.carry_out(Restore(Ref(shop), backup, drill=True, on=where))
            pg.carry_out(Restore(Ref(shop), backup, replace=True))
        assert postgresql.sql(BELONGS.format(shop)) == before
        assert before[0][1:3] == ["7", "t"]
        assert postgresql.sql(LIKE_NONE) == []


@pytest.mark.parametrize("kept", ["nothing", "all"])
def test_who_may_do_nothing_may_do_nothing_again(
    postgresql: Server, database: Make, people: tuple[str, str], tmp_path: Path, kept: str
) -> None:
    """A list of privileges that is empty is another one than none: with that everybody may connect."""
    shop, owner = database(postgresql), people[0]
    postgresql.sql(f"ALTER DATABASE {shop} OWNER TO {owner}")
    if kept == "nothing":
        postgresql.sql(f"REVOKE ALL ON DATABASE {shop} FROM PUBLIC, {owner}")
    before = postgresql.sql(BELONGS.format(shop))
    with using(postgresql) as pg:
        backup = taken(pg, shop, tmp_path)
        for where in ("throwaway", "same_server"):
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on=where))
        pg.carry_out(Restore(Ref(shop), backup, replace=True))
    assert postgresql.sql(BELONGS.format(shop)) == before
    connects = f"SELECT has_database_privilege('{people[1][1:-1]}', '{shop}', 'CONNECT')"
    assert postgresql.sql(connects) == [["f" if kept == "nothing" else "t"]]
    postgresql.sql(f"DROP DATABASE {shop}")


@pytest.mark.parametrize(
    ("lie", "why"), [({"provider": "x"}, "provider"), ({"limit": "many"}, "limit"), ({"template": "maybe"}, "template")]
)
def test_a_drill_compares_it(postgresql: Server, database: Make, tmp_path: Path, lie: dict[str, str], why: str) -> None:
    """What this server does not know how to make again is not there again."""
    shop = database(postgresql)
    with using(postgresql) as pg:
        backup = taken(pg, shop, tmp_path)
        for where in ("throwaway", "same_server"):
            with pytest.raises(Refused, match=f"says: {why} of the database"):
                pg.carry_out(Restore(Ref(shop), backup._replace(about={**backup.about, **lie}), drill=True, on=where))
    assert postgresql.sql(LIKE_NONE) == []


def asked(server: Server, shop: str, folder: Path, **more: object) -> dict[str, Any]:
    where = {"bin_dir": str(server.installation.bin_dir), "backup_dir": str(folder), "journal": "none"}
    return {"engine": "postgresql", "database": shop, **server.login(), **where, **more}


def told(fact: dict[str, Any], code: str) -> list[tuple[str, str]]:
    return [(f["database"], f"{f['message']} {f['fix']}") for f in fact["findings"] if f["code"] == code]


def test_settings_that_the_server_does_not_take_are_named(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """As one has them that came here by pg_upgrade: the rest is restored."""
    shop, other = database(postgresql), f"{database(postgresql)}_restored"
    postgresql.sql(f"ALTER DATABASE {shop} SET work_mem = '5MB'")
    postgresql.script(
        "SET allow_system_table_mods = on; UPDATE pg_db_role_setting SET setconfig = "
        "'{work_mem=5MB,gone_since=1,random_page_cost=much,enable_seqscan=off}'"
        f" WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = '{shop}')"
    )
    with using(postgresql) as pg:
        taken(pg, shop, tmp_path)
    try:
        done = run("db_restore", asked(postgresql, shop, tmp_path, target=other))
        named = told(done.fact(), "setting_not_restored")
        assert [database for database, _words in named] == [other, other]
        assert '"gone_since"' in named[0][1] and f"""ALTER DATABASE "{other}" SET "gone_since" TO '1'""" in named[0][1]
        assert "random_page_cost" in named[1][1]
        ((_owner, *_more, settings, _labels),) = postgresql.sql(BELONGS.format(other))
        assert settings == '{"{work_mem=5MB,enable_seqscan=off}"}'
        drill = run("db_restore", asked(postgresql, shop, tmp_path, drill=True))
        assert drill.changed
        assert [database for database, _words in told(drill.fact(), "setting_not_restored")] == [shop, shop]
        assert shelf(tmp_path)[0].level == "restore"
    finally:
        postgresql.sql(f"DROP DATABASE IF EXISTS {other}")


def test_a_role_that_is_not_there_is_asked_for(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """By name, and before anything is restored: owner, who was granted something, whose settings they are."""
    shop = database(postgresql)
    with using(postgresql) as pg:
        backup = taken(pg, shop, tmp_path)
        for more in (
            {"owner": "nobody here"},
            {"acl": json.dumps([["nobody here", False, "CREATE", False]])},
            {"role_settings": json.dumps([["nobody here", ["work_mem=5MB"]]])},
        ):
            lacking = backup._replace(about={**backup.about, **more})
            postgresql.mark_log()
            with pytest.raises(Refused, match='role "nobody here" does not exist') as refused:
                pg.carry_out(Restore(Ref(f"{shop}_2"), lacking))
            assert "globals: true" in refused.value.cure
            assert not [said for said in postgresql.logged() if said.statement.startswith("CREATE DATABASE")]
            pg.carry_out(Restore(Ref(shop), lacking, drill=True))
    assert postgresql.sql(LIKE_NONE) == []


def test_an_owner_of_few_privileges_restores_what_is_his(postgresql: Server, database: Make, tmp_path: Path) -> None:
    """A setting that only superusers make is named; all else comes back, what he has revoked from himself, too."""
    shop, name = database(postgresql), f"owner{os.getpid()}"
    with role(postgresql, name, f"ALTER ROLE {name} CREATEDB") as login:
        try:
            for words in (
                f"ALTER DATABASE {shop} OWNER TO {name}",
                f"ALTER DATABASE {shop} SET work_mem = '5MB'",
                f"ALTER DATABASE {shop} SET log_min_messages = 'error'",
                f"REVOKE ALL ON DATABASE {shop} FROM PUBLIC",
                f"REVOKE TEMPORARY ON DATABASE {shop} FROM {name}",
                f"ALTER DATABASE {shop} CONNECTION LIMIT 9",
            ):
                postgresql.sql(words)
            before = postgresql.sql(BELONGS.format(shop))
            verified = {"databases": [shop], "globals": False, "verify": "restore", "drill_on": "same_server"}
            backing = asked(postgresql, shop, tmp_path, **login, **verified)
            del backing["database"]
            backed = run("db_backup", backing)
            restored = run("db_restore", asked(postgresql, shop, tmp_path, replace=True, **login))
            amcheck = postgresql.sql("SELECT 1 FROM pg_available_extensions WHERE name = 'amcheck'")
            assert len(told(backed.fact(), "indexes_not_checked")) == len(amcheck)
            for ran in (backed, restored):
                ((_database, words),) = told(ran.fact(), "setting_not_restored")
                assert "log_min_messages" in words
            postgresql.sql(f"ALTER DATABASE {shop} SET log_min_messages = 'error'")
            assert postgresql.sql(BELONGS.format(shop)) == before
        finally:
            postgresql.sql(f"DROP DATABASE {shop}")
    assert postgresql.sql(LIKE_NONE) == []


# ---- security labels -------------------------------------------------------------------------------------------------


@pytest.fixture
def library(postgresql: Server) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="labels", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield built(folder, postgresql.installation.major)


def label(server: Server, shop: str, clerk: str) -> None:
    said = f'SECURITY LABEL FOR "{PROVIDER}" ON'
    server.script(
        "CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x');"
        f"{said} DATABASE {shop} IS 'secret''s \\ own'; {said} ROLE {clerk} IS 'trusted';"
        f"{said} TABLE t IS 'inner'; {said} COLUMN t.b IS 'masked'",
        database=shop,
    )


def test_security_labels_come_back(fleet: Fleet, postgresql: Server, library: Path, tmp_path: Path) -> None:
    """Of the database, of what is in it, of a role. Where nobody provides them, all else does, and that is said."""
    clerk, shop, major = f"clerk{os.getpid()}", f"shop{os.getpid()}", int(postgresql.installation.major)
    server = fleet.postgresql(major, settings={"shared_preload_libraries": str(library)})
    server.sql(f"CREATE DATABASE {shop}")
    server.sql(f"CREATE ROLE {clerk}")
    server.sql(f"GRANT SET, ALTER SYSTEM ON PARAMETER log_min_messages TO {clerk}")
    label(server, shop, clerk)
    before, inside = server.sql(BELONGS.format(shop)), server.sql(LABELS, database=shop)
    assert PROVIDER in before[0][-1] and [row[2] for row in inside] == ["masked", "trusted", "inner"]
    elsewhere = {"login_host": postgresql.host, "login_port": postgresql.port, "login_user": postgresql.user}
    with using(server) as pg:
        taken(pg, "", tmp_path, method="globals")
        backup = taken(pg, shop, tmp_path)
        for where in ("throwaway", "same_server", Elsewhere(elsewhere, postgresql.password)):
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on=where))
    run("db_restore", asked(server, shop, tmp_path, replace=True))
    assert (server.sql(BELONGS.format(shop)), server.sql(LABELS, database=shop)) == (before, inside)
    server.sql(f"DROP DATABASE {shop}")
    server.script(f'SECURITY LABEL FOR "{PROVIDER}" ON ROLE {clerk} IS NULL; DROP OWNED BY {clerk}; DROP ROLE {clerk}')
    done = run("db_restore", asked(server, shop, tmp_path, globals=True))
    assert told(done.fact(), "labels_not_restored") == []
    assert server.sql(f"SELECT has_parameter_privilege('{clerk}', 'log_min_messages', 'ALTER SYSTEM')") == [["t"]]
    assert (server.sql(BELONGS.format(shop)), server.sql(LABELS, database=shop)) == (before, inside)
    try:
        bare = run("db_restore", asked(postgresql, shop, tmp_path, globals=True))
        assert bare.changed
        named = told(bare.fact(), "labels_not_restored")
        assert [(database, PROVIDER in words) for database, words in named] == [("", True), (shop, True)]
        assert "shared_preload_libraries" in named[1][1] and f"ON ROLE {clerk} IS 'trusted'" in named[0][1]
        assert postgresql.sql("TABLE t", database=shop) == [["1", "x"]]
        assert postgresql.sql(LABELS, database=shop) == [] == postgresql.sql("SELECT * FROM pg_shseclabel")
    finally:
        postgresql.sql(f"DROP DATABASE IF EXISTS {shop}")
        postgresql.script(f"DROP OWNED BY {clerk}; DROP ROLE {clerk}")
        server.stop()


def test_labels_whose_library_the_database_loads_itself(
    postgresql: Server, library: Path, database: Make, tmp_path: Path
) -> None:
    """And once the library is gone: the database is restored, though nobody can enter before it is there again."""
    shop, other, clerk = database(postgresql), database(postgresql), f"clerk{os.getpid()}"
    postgresql.sql(f"ALTER DATABASE {shop} SET session_preload_libraries = '{library}'")
    postgresql.sql(f"CREATE ROLE {clerk}")
    try:
        label(postgresql, shop, clerk)
        before, inside = postgresql.sql(BELONGS.format(shop)), postgresql.sql(LABELS, database=shop)
        with using(postgresql) as pg:
            backup = taken(pg, shop, tmp_path)
            pg.carry_out(Restore(Ref(shop), backup, drill=True, on="same_server"))
            pg.carry_out(Restore(Ref(shop), backup, replace=True))
        assert (postgresql.sql(BELONGS.format(shop)), postgresql.sql(LABELS, database=shop)) == (before, inside)
        library.rename(f"{library}.away")
        bare = run("db_restore", asked(postgresql, shop, tmp_path, target=other, replace=True))
        assert [database for database, _words in told(bare.fact(), "labels_not_restored")] == [other]
        Path(f"{library}.away").rename(library)
        assert postgresql.sql("TABLE t", database=other) == [["1", "x"]]
        assert [row[2] for row in postgresql.sql(LABELS, database=other)] == ["trusted"]
        postgresql.sql(f'SECURITY LABEL FOR "{PROVIDER}" ON ROLE {clerk} IS NULL', database=shop)
    finally:
        postgresql.sql(f"DROP ROLE IF EXISTS {clerk}")
