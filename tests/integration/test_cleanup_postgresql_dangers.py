# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of PostgreSQL among those who work with them, and what must keep a rule from being applied."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import purge, witness
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Pending
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum
from tests.fleet import Server

from . import pg
from .conftest import Pool
from .module_runner import Ran, run
from .test_cleanup_postgresql import archived, options, there

OLD = {"name": "old", "table": "t", "date_column": "at", "refuse_over_percent": 100}
PLAIN = """
CREATE TABLE t (id int PRIMARY KEY, at timestamptz, version int NOT NULL DEFAULT 0);
INSERT INTO t (id, at) SELECT n, now() - interval '100 days' + n * interval '1 minute'
  FROM generate_series(1, {rows}) n;
CREATE INDEX ON t (at)
"""


def age(kind: str, tmp_path: Path) -> dict[str, Any]:
    if kind == "files":
        folder = str(tmp_path / "archive")
        return {"archive_after": "10d", "archive_dir": folder, "archive_compression": "gzip"}
    return {"archive_after": "10d"} if kind == "table" else {"delete_after": "10d"}


class Shop:
    """An application that updates, moves and inserts rows while rows leave."""

    def __init__(self, server: Server, name: str, rows: int) -> None:
        self.versions = dict.fromkeys(range(1, rows + 1), 0)
        self.ended = threading.Event()
        self.errors: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._work, args=(server, name, seed), daemon=True) for seed in range(2)
        ]
        for thread in self._threads:
            thread.start()

    def _work(self, server: Server, name: str, seed: int) -> None:
        chance, number = random.Random(seed), 1_000_000 * (seed + 1)
        try:
            with pg.client(server, name) as cursor:
                while not self.ended.is_set():
                    number += 1
                    old = chance.random() < 0.5
                    at = "now() - interval '40 days'" if old else "now()"
                    cursor.execute(f"INSERT INTO t VALUES ({number}, {at}, 0)")
                    self.versions[number] = 0
                    chosen = chance.randrange(2, 20_000) // 2 * 2 + seed  # each thread has rows of its own
                    move = ", at = now()" if chance.random() < 0.2 else ""
                    cursor.execute(f"UPDATE t SET version = version + 1{move} WHERE id = {chosen}")
                    if cursor.rowcount:
                        self.versions[chosen] += 1
        except Exception as error:
            self.errors.append(error)

    def end(self) -> dict[int, int]:
        self.ended.set()
        for thread in self._threads:
            thread.join()
        assert not self.errors, self.errors
        return self.versions


@pytest.mark.parametrize("kind", ["table", "files"])
def test_while_the_application_works(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, kind: str
) -> None:
    """Each row is in one place, as it last was."""
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=30_000), database=name)
    shop = Shop(postgresql, name, 30_000)
    asked = options(postgresql, name, tmp_path, {**OLD, **age(kind, tmp_path)}, batch_seconds=0.02)
    ran = run("db_cleanup", asked)
    versions = shop.end()
    run("db_cleanup", asked)
    kept = there(postgresql, name, "t")
    gone = (
        there(postgresql, name, "t_archive")
        if kind == "table"
        else archived(postgresql, name, tmp_path / "archive", "t")
    )
    assert set(kept.values()) == set(gone.values()) == {1}
    found = {}
    for row in [*kept, *gone]:
        values = json.loads(row)
        assert values["id"] not in found, f"{row} is in two places"
        found[values["id"]] = int(values["version"])
    assert {int(number): version for number, version in found.items()} == versions
    assert sum(gone.values()) > 20_000
    (step,) = [s for s in ran.fact()["steps"] if s["kind"] == "archive"]
    assert step["actual"]["batches"] > 5, step


def test_a_row_that_is_locked_is_waited_for(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=3000), database=name)
    asked = options(postgresql, name, tmp_path, {**OLD, **age("delete", tmp_path)}, lock_timeout="200ms")
    with pg.transaction(postgresql, name, "SELECT FROM t WHERE id = 1500 FOR UPDATE") as cursor:
        timer = pg.later(1.5, lambda: cursor.execute("COMMIT"))
        ran = run("db_cleanup", asked)
        timer.join()
    assert there(postgresql, name, "t") == {}
    assert not run("db_cleanup", asked).changed, ran.text


@pytest.mark.parametrize(("kind", "moment"), [(k, m) for k in ("table", "files") for m in ("before", "after")])
def test_a_session_that_dies_at_its_commit(
    postgresql: Server,
    database: Callable[[Server], str],
    tmp_path: Path,
    *,
    kind: str,
    moment: str,
) -> None:
    """Nobody knows whether it was committed; the server does."""
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=5000), database=name)
    before, commit, killed = there(postgresql, name, "t"), purge.Bites.commit, list[int]()

    def dying(self: purge.Bites) -> None:
        if not killed and self.task.archive:
            killed.append(self.connection.pid)
            if moment == "after":
                commit(self)
            postgresql.sql(f"SELECT pg_terminate_backend({self.connection.pid})")
            self.connection.rows("SELECT 1")
        commit(self)

    asked = options(postgresql, name, tmp_path, {**OLD, **age(kind, tmp_path)})
    with pytest.MonkeyPatch.context() as patch, pg.use(postgresql) as used:
        patch.setattr(purge.Bites, "commit", dying)
        with pytest.raises(Exception, match="connection was lost"):
            _purge(used, name, asked)
    assert killed
    ran = run("db_cleanup", asked)
    gone = (
        there(postgresql, name, "t_archive")
        if kind == "table"
        else archived(postgresql, name, tmp_path / "archive", "t")
    )
    assert gone == before and there(postgresql, name, "t") == {}, ran.text
    assert not run("db_cleanup", asked).changed


def _purge(used: pg.Used, name: str, asked: dict[str, Any]) -> None:
    """The plan's own archive step, in this very process."""
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Measured

    defaults = {
        "partitions": "auto",
        "batch_seconds": 0.2,
        "duty_percent": 100.0,
        "tables": ["*"],
        "rules": asked["rules"],
    }
    filled = {**dict.fromkeys(retention.OPTIONS), **defaults}
    policy = retention.policy(filled)
    found = used.measure(name, retention.wants(policy, used.server))
    steps = retention.plan(policy, Measured(used.server, (found,))).steps
    used.carry_out(next(step.task for step in steps if step.task.kind == "archive"))


# ---- what must not be ------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a view": ("ALTER TABLE t RENAME TO u; CREATE VIEW t AS SELECT * FROM u", {}, "not_applicable", "it is a view"),
    "a rule of the server": (
        "CREATE RULE keep AS ON DELETE TO t DO INSTEAD NOTHING",
        {},
        "not_applicable",
        "CREATE RULE",
    ),
    "published without identity": (
        "ALTER TABLE t DROP CONSTRAINT t_pkey; CREATE PUBLICATION all_of_it FOR TABLE t",
        {},
        "not_applicable",
        "replica identity",
    ),
    "no such column": ("", {"date_column": "gone"}, "no_such_column", "There are: id, at, version"),
    "not a date": ("", {"date_column": "version"}, "not_a_date", "date_unit"),
    "a date with a unit": ("", {"date_unit": "seconds"}, "not_a_date", "Leave date_unit out"),
    "a text": ("ALTER TABLE t ADD word text", {"date_column": "word"}, "not_a_date", "not a date"),
    "no such zone": ("", {"timezone": "Europe/Vaduz"}, "", ""),
    "ambiguous": ("CREATE SCHEMA s; CREATE TABLE s.t (at timestamptz)", {}, "ambiguous_table", "public.t, s.t"),
    "no schema": ("", {"archive_table": "gone.t", "archive_after": "9d"}, "archive_differs", "there is no schema gone"),
    "archive too narrow": (
        "CREATE TABLE a (id smallint, at timestamptz, version int)",
        {"archive_table": "a", "archive_after": "9d"},
        "archive_differs",
        "its column id is smallint",
    ),
    "archive rounds": (
        "CREATE TABLE a (id int, at timestamptz(0), version int)",
        {"archive_table": "a", "archive_after": "9d"},
        "archive_differs",
        "its column at",
    ),
    "archive needs more": (
        "CREATE TABLE a (id int, at timestamptz, version int, why text NOT NULL)",
        {"archive_table": "a", "archive_after": "9d"},
        "archive_differs",
        "its column why must be filled",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_said(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, case: str
) -> None:
    made, more, code, words = REFUSED[case]
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=100) + f";{made}", database=name)
    asked = options(postgresql, name, tmp_path, {**OLD, "delete_after": "10d", **more})
    for check in (True, False):
        ran = run("db_cleanup", asked, check=check)
        assert bool(code) != ran.changed, ran.text
        assert not code or code in ran.codes(), ran.text
        assert words in ran.text


ESCAPES = [
    "true) OR (true",
    "false)\n; DELETE FROM t; SELECT (true",
    "true THEN true END; DELETE FROM t; SELECT CASE WHEN true",
    "true; DELETE FROM t",
    "version = 0 LIMIT 1",
    "true ORDER BY id",
    "version = 'x'",
    "nothing = 1",
    "version",
    "true /* ",
    "count(*) > 0",
    "pg_catalog.set_config('transaction_read_only', 'off', true) = 'off') OR (true",
]


@pytest.mark.parametrize("where", ESCAPES)
def test_a_condition_stands_by_itself(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path, where: str
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    server.script(PLAIN.format(rows=100), database=name)
    before = there(server, name, "t")
    asked = options(server, name, tmp_path, {**OLD, "delete_after": "10d", "where": where})
    ran = run("db_cleanup", asked)
    assert "not_applicable" in ran.codes() and "its where is refused" in ran.text, ran.text
    assert not ran.changed
    assert there(server, name, "t") == before


@pytest.mark.parametrize(
    "where", ["version = 0 -- all of them", "(version) = 0 /* ) */", "t.version = 0 AND id IN (SELECT id FROM t)"]
)
def test_a_condition_with_a_comment(pool: Pool, database: Callable[[Server], str], tmp_path: Path, where: str) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    server.script(PLAIN.format(rows=100) + ";UPDATE t SET version = 1 WHERE id <= 10", database=name)
    run("db_cleanup", options(server, name, tmp_path, {**OLD, "delete_after": "10d", "where": where}))
    assert sum(there(server, name, "t").values()) == 10


def refused(server: Server, name: str, tmp_path: Path, login: dict[str, Any], **more: Any) -> Ran:
    ran = run("db_cleanup", options(server, name, tmp_path, {**OLD, "delete_after": "10d", **more}, **login))
    assert not ran.changed
    return ran


def test_few_privileges(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=100), database=name)
    with pg.role(postgresql, f"few_{name}", database=name) as login:
        assert "GRANT SELECT, DELETE ON" in refused(postgresql, name, tmp_path, login).text
        postgresql.sql(f"GRANT SELECT, DELETE ON t TO few_{name}", database=name)
        more = {"archive_after": "9d", "delete_after": "50d"}
        assert "GRANT USAGE, CREATE ON SCHEMA" in refused(postgresql, name, tmp_path, login, **more).text
        postgresql.sql("ALTER TABLE t ENABLE ROW LEVEL SECURITY", database=name)
        postgresql.sql("CREATE POLICY half ON t USING (id > 50)", database=name)
        assert "row security hides rows" in refused(postgresql, name, tmp_path, login).text
        postgresql.sql("ALTER TABLE t DISABLE ROW LEVEL SECURITY", database=name)
        asked = options(postgresql, name, tmp_path, {**OLD, "delete_after": "10d"}, **login)
        assert run("db_cleanup", asked).changed
    assert there(postgresql, name, "t") == {}


def test_triggers_see_what_the_application_sees(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    """They are named, and find the tables that they know by the database's own search_path."""
    name = database(postgresql)
    postgresql.script(
        f"""CREATE SCHEMA app; CREATE TABLE app.log (id int, at timestamp DEFAULT now());
            ALTER DATABASE {name} SET search_path = app, public; ALTER DATABASE {name} SET timezone = 'Asia/Tokyo';
            CREATE FUNCTION app.remember() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN INSERT INTO log (id) VALUES (OLD.id); RETURN OLD; END $$;
            CREATE FUNCTION app.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1';
            {PLAIN.format(rows=100)};
            CREATE TRIGGER remembers BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION app.remember()""",
        database=name,
    )
    asked = options(postgresql, name, tmp_path, {**OLD, "delete_after": "10d", "where": "twice(id) > 0"})
    ran = run("db_cleanup", asked)
    assert "triggers_fire" in ran.codes() and "remembers" in ran.text
    logged = "SELECT count(*), min(at) > now() AT TIME ZONE 'UTC' + interval '8 hours' FROM app.log"
    assert postgresql.sql(logged, database=name) == [["100", "t"]]


def test_an_archive_that_turns_rows_away(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(postgresql)
    postgresql.script(
        PLAIN.format(rows=100)
        + """; CREATE TABLE a (LIKE t);
        CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS
          $$ BEGIN IF NEW.id = 50 THEN RETURN NULL; END IF; RETURN NEW; END $$;
        CREATE TRIGGER no BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION no()""",
        database=name,
    )
    before = there(postgresql, name, "t")
    asked = options(postgresql, name, tmp_path, {**OLD, "archive_after": "10d", "archive_table": "a"})
    ran = run("db_cleanup", asked, fails=True)
    assert "a trigger turns rows away" in ran.text
    assert there(postgresql, name, "t") == before and there(postgresql, name, "a") == {}


def test_a_column_that_came_later_and_the_way_out_of_the_archive(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(postgresql)
    postgresql.script(
        PLAIN.format(rows=2000) + ";CREATE TABLE t_archive (LIKE t); ALTER TABLE t ADD word varchar(9) DEFAULT 'new'",
        database=name,
    )
    before = there(postgresql, name, "t")
    rule = {**OLD, "archive_after": "2380h", "delete_after": "2390h"}
    asked = options(postgresql, name, tmp_path, rule)
    checked = run("db_cleanup", asked, check=True)
    assert any('ADD COLUMN "word" character varying(9)' in s for s in checked.statements())
    run("db_cleanup", asked)
    kept, gone = there(postgresql, name, "t"), there(postgresql, name, "t_archive")
    assert 0 < sum(gone.values()) < 2000 and gone - before == {} and not kept & gone
    assert not run("db_cleanup", asked).changed
    # A day later, by the archive's own dates, all of it is due to leave.
    postgresql.sql("UPDATE t_archive SET at = at - interval '3 days'", database=name)
    assert run("db_cleanup", asked).changed
    assert there(postgresql, name, "t_archive") == {} and there(postgresql, name, "t") == kept


def test_what_waits_for_a_slot_is_counted(pool: Pool, database: Callable[[Server], str]) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    task = Vacuum(Ref(name, ("public", "t")))
    with pg.use(server) as used:
        before = used.gauge("wal_backlog", task)
        assert before is not None
        server.sql("SELECT pg_create_physical_replication_slot('waits', true)")
        try:
            server.sql("CREATE TABLE t AS SELECT repeat('x', 1000) FROM generate_series(1, 5000)", database=name)
            after = used.gauge("wal_backlog", task)
            assert after is not None and after - before > 4_000_000
        finally:
            server.sql("SELECT pg_drop_replication_slot('waits')")


def test_rows_with_others_hanging_need_a_privilege_more(
    pool: Pool, database: Callable[[Server], str], tmp_path: Path
) -> None:
    server = pool.get("postgresql-16")
    name = database(server)
    server.script(
        PLAIN.format(rows=100)
        + ";CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE, x int); INSERT INTO c VALUES (7, 1)",
        database=name,
    )
    with pg.role(server, f"few_{name}", f"GRANT SELECT, DELETE ON t, c TO few_{name}", database=name) as login:
        rule = {**OLD, "delete_after": "10d", "on_children": "delete"}
        ran = run("db_cleanup", options(server, name, tmp_path, rule, **login), fails=True)
        assert f'GRANT UPDATE ON \\"public\\".\\"t\\" TO \\"few_{name}\\"' in ran.text
        server.sql(f"GRANT UPDATE ON t TO few_{name}", database=name)
        assert run("db_cleanup", options(server, name, tmp_path, rule, **login)).changed
    assert there(server, name, "t") == there(server, name, "c") == {}


def test_what_became_of_a_transaction(postgresql: Server, database: Callable[[Server], str]) -> None:
    """Committed, rolled back, still open, and one that this server has never given out."""
    name = database(postgresql)
    with pg.use(postgresql) as used, used.engine.session(name) as session, pg.client(postgresql, name) as cursor:

        def became(number: object) -> bool:
            return witness.committed(session, Pending(str(number), ()))

        for end in ("COMMIT", "ROLLBACK"):
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()::text")
            (number,) = cursor.fetchone()
            timer = pg.later(1.0, partial(cursor.execute, end))
            assert became(number) == (end == "COMMIT")
            timer.join()
            assert became(number) == (end == "COMMIT")
        assert not became(int(number) + 1_000_000)
        assert became("")


def test_rows_per_run_is_exact(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    """Also where many rows have one date; the rest is held back on purpose, and that is no failure."""
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE t (at date, n int) PARTITION BY LIST (n);
           CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1);
           CREATE TABLE t2 PARTITION OF t FOR VALUES IN (2);
           INSERT INTO t SELECT current_date - 30 - n / 2000, 1 + n % 2 FROM generate_series(1, 9000) n;
           CREATE INDEX ON t1 (at)""",
        database=name,
    )
    rule = {**OLD, "delete_after": "10d", "rows_per_run": 5700}
    asked = options(postgresql, name, tmp_path, rule)
    for left in (3300, 0):
        ran = run("db_cleanup", asked)
        assert sum(there(postgresql, name, "t").values()) == left
        assert all(s["proven"] for s in ran.fact()["steps"] if s["kind"] == "delete"), ran.text
    assert not run("db_cleanup", asked).changed


def test_a_vacuum_waits_for_what_the_run_does_beside_it(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    """Bites and counts of other tables keep the rows that have just left. A trigger sees to it that they last."""
    name = database(postgresql)
    postgresql.script(PLAIN.format(rows=100000), database=name)
    postgresql.script(
        "CREATE TABLE slow AS SELECT id, at FROM t WHERE id <= 600; ALTER TABLE slow ADD PRIMARY KEY (id);"
        "CREATE INDEX ON slow (at); CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_catalog.pg_sleep(0.003); RETURN old; END$$;"
        "CREATE TRIGGER slow BEFORE DELETE ON slow FOR EACH ROW EXECUTE FUNCTION wait(); ANALYZE slow",
        database=name,
    )
    rules = [{**OLD, "delete_after": "10d"}, {**OLD, "name": "slow", "table": "slow", "delete_after": "90d"}]
    ran = run("db_cleanup", options(postgresql, name, tmp_path, *rules, jobs=2))
    assert ran.code == 0, ran.text
    found = {(s["object"], s["kind"]): s["proven"] for s in ran.fact()["steps"]}
    assert found["public.t", "vacuum"] and found["public.slow", "delete"] and found["public.t", "delete"], ran.text
