# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the words of a dump mean: in which encoding, with which NULLs in arrays, and in whose money."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Restore, Verify
from tests.fleet import Fleet, Server
from tests.fleet.processes import spawn

from .conftest import Pool, missing
from .pg_backups import manner, shelf, taken, using

NAMES = {"LATIN1": "Käse", "WIN1251": "сыр", "EUC_JP": "日本", "SQL_ASCII": "Käse", "UTF8": "Käse"}


@contextmanager
def database(server: Server, encoding: str) -> Iterator[str]:
    name = f"enc{os.getpid()}"
    server.sql(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    try:
        yield name
    finally:
        server.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("encoding", NAMES)
@pytest.mark.parametrize("apart", [False, True])
def test_names_in_other_encodings(pool: Pool, tmp_path: Path, encoding: str, apart: bool) -> None:
    """Of tables that are dumped with the others, and of one that has a stream of its own."""
    server, name = pool.get("postgresql-16"), NAMES[encoding]
    with database(server, encoding) as shop, using(server) as pg:
        for table in (name, f"{name} 2", f"{name} 3"):
            server.sql(f"CREATE TABLE \"{table}\" AS SELECT '{name}'::text AS x", database=shop)
        streams = ((Ref(shop, ("public", name)),),) if apart else ()
        backup = taken(pg, shop, tmp_path, streams=streams, exclude=(f"public.{name} 3",))
        pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "restore", on="same_server"))
        assert shelf(tmp_path)[-1].rows == {f'public."{name}"': 1, f'public."{name} 2"': 1}
        pg.carry_out(Restore(Ref(shop), shelf(tmp_path)[-1], replace=True))
        assert server.sql(f'SELECT x FROM "{name}"', database=shop) == [[name]]
        assert server.sql(f'SELECT x FROM "{name} 3"', database=shop) == []


@pytest.fixture
def quebec(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Starts a server where "12,34 $" are twelve dollars: in the locale C they are over a thousand."""
    folder = tmp_path_factory.mktemp("locales")
    folder.chmod(0o755)
    for parent in folder.parents[:2]:
        parent.chmod(0o755)
    made = subprocess.run(["localedef", "-i", "fr_CA", "-f", "UTF-8", folder / "fr_CA.UTF-8"], check=False)
    if made.returncode:
        missing("the sources of locales (Debian's package locales)")
    monkeypatch.setenv("LOCPATH", str(folder))
    monkeypatch.setattr("tests.fleet.server.spawn", partial(spawn, env={"LOCPATH": str(folder)}))
    with Fleet() as fleet:
        yield fleet.postgresql(16, settings={"lc_monetary": "fr_CA.UTF-8"})


def test_money_of_another_country(quebec: Server, tmp_path: Path) -> None:
    quebec.sql("CREATE DATABASE shop")
    quebec.script(
        "CREATE TABLE t (m money, a money[]); INSERT INTO t VALUES ('12,34 $', '{\"12,34 $\"}')", database="shop"
    )
    worth = [["12.34", "12.34"]]
    query = "SELECT m::numeric, a[1]::numeric FROM t"
    assert quebec.sql(query, database="shop") == worth
    with using(quebec) as pg:
        backup = taken(pg, "shop", tmp_path)
        assert backup.about["monetary"] == "fr_CA.UTF-8"
        pg.carry_out(Verify(Ref("shop"), backup, manner(tmp_path), "restore"))
    quebec.script("ALTER SYSTEM SET lc_monetary = 'C'; SELECT pg_reload_conf()")
    with using(quebec) as pg:
        pg.carry_out(Verify(Ref("shop"), backup, manner(tmp_path), "restore", on="same_server"))
        pg.carry_out(Restore(Ref("copy"), shelf(tmp_path)[-1]))
    assert quebec.sql(query, database="copy") == worth


def test_nobody_s_limits_end_a_restore(fleet: Fleet, tmp_path: Path) -> None:
    server = fleet.postgresql(18, name="hurried")
    server.sql("CREATE DATABASE shop")
    server.sql(
        "CREATE TABLE t AS SELECT i, repeat(md5(i::text), 9) AS x FROM generate_series(1, 200000) i", database="shop"
    )
    for name in (
        "idle_session_timeout",
        "transaction_timeout",
        "statement_timeout",
        "idle_in_transaction_session_timeout",
    ):
        server.sql(f"ALTER SYSTEM SET {name} = '20ms'")
    server.sql("SELECT pg_reload_conf()")
    with using(server) as pg:
        backup = taken(pg, "shop", tmp_path)
        for where in ("throwaway", "same_server"):
            pg.carry_out(Verify(Ref("shop"), backup, manner(tmp_path), "restore", on=where))
        pg.carry_out(Restore(Ref("copy"), shelf(tmp_path)[-1]))


def test_null_in_an_array(pool: Pool, tmp_path: Path) -> None:
    """With array_nulls off the server takes it for the text "NULL"."""
    server = pool.get("postgresql-16")
    with database(server, "UTF8") as shop:
        server.sql("CREATE TABLE t AS SELECT ARRAY[NULL, 'NULL']::text[] AS x", database=shop)
        server.sql(f"ALTER DATABASE {shop} SET array_nulls = off")
        server.sql("ALTER SYSTEM SET array_nulls = off")
        server.sql("SELECT pg_reload_conf()")
        try:
            with using(server) as pg:
                backup = taken(pg, shop, tmp_path)
                for where in ("throwaway", "same_server"):
                    pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "restore", on=where))
                pg.carry_out(Restore(Ref(shop), shelf(tmp_path)[-1], replace=True))
        finally:
            server.sql("ALTER SYSTEM RESET array_nulls")
            server.sql("SELECT pg_reload_conf()")
        assert server.sql("SELECT x[1] IS NULL, x[2] = 'NULL' FROM t", database=shop) == [["t", "t"]]


@pytest.mark.parametrize("where", ["database", "environment"])
def test_another_encoding_of_clients(pool: Pool, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character that the clients' encoding lacks, in a row and in a name: the dump is in the database's encoding."""
    server = pool.get("postgresql-16")
    with database(server, "UTF8") as shop, using(server) as pg:
        server.sql("CREATE TABLE \"日本\" AS SELECT 'sûr, 日本'::text AS x, now() AS made", database=shop)
        if where == "database":
            server.sql(f"ALTER DATABASE {shop} SET client_encoding = 'LATIN1'")
        else:
            monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
            monkeypatch.setenv("PGTZ", "Asia/Kathmandu")
        backup = taken(pg, shop, tmp_path, streams=((Ref(shop, ("public", "日本")),),))
        pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "restore", on="same_server"))
        pg.carry_out(Restore(Ref(shop), shelf(tmp_path)[-1], replace=True))
        for name in ("PGCLIENTENCODING", "PGTZ"):
            monkeypatch.delenv(name, raising=False)
        pg.carry_out(Verify(Ref(shop), backup, manner(tmp_path), "restore"))
        said = server.sql("SELECT convert_to(x, 'UTF8') = convert_to('sûr, 日本', 'UTF8') FROM \"日本\"", database=shop)
        assert said == [["t"]]
