# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of PostgreSQL with what hangs from them, and whole partitions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from . import pg
from .conftest import Pool
from .module_runner import run
from .test_cleanup_postgresql import archived, counts, options, there

FAMILY = """
CREATE TABLE orders (id int PRIMARY KEY, code text UNIQUE, at timestamptz);
CREATE TABLE lines (id int PRIMARY KEY, order_id int REFERENCES orders ON DELETE {action}, note text);
CREATE TABLE moves (line_id int REFERENCES lines ON DELETE SET NULL, from_order text REFERENCES orders (code),
                    to_order text REFERENCES orders (code), n int);
CREATE INDEX ON orders (at);
CREATE INDEX ON lines (order_id);
INSERT INTO orders SELECT n, 'o' || n, now() - interval '100 days' + n * interval '1 hour'
  FROM generate_series(1, 2000) n;
INSERT INTO lines SELECT n, n % 2000 + 1, 'x' FROM generate_series(1, 5000) n;
INSERT INTO moves SELECT CASE WHEN n % 3 > 0 THEN n END, 'o' || n % 50 + 1,
                         CASE WHEN n % 2 = 0 THEN 'o' || n % 60 + 1 END, n
  FROM generate_series(1, 900) n;
INSERT INTO moves SELECT NULL, 'o2000', 'o' || n, n FROM generate_series(1, 40) n
"""
OLD = {"name": "old", "table": "orders", "date_column": "at", "refuse_over_percent": 100}
TABLES = ("orders", "lines", "moves")


@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE"])
def test_children_are_found_first(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, action: str
) -> None:
    name = database(postgresql)
    postgresql.script(FAMILY.format(action=action), database=name)
    before = {table: there(postgresql, name, table) for table in TABLES}
    asked = options(postgresql, name, tmp_path, {**OLD, "delete_after": "60d"})
    ran = run("db_cleanup", asked)
    assert not ran.changed
    assert "children" in ran.codes()
    (said,) = [f["message"] for f in ran.fact()["findings"] if f["code"] == "children"]
    hanging = postgresql.sql(
        "SELECT count(*) FROM lines l JOIN orders o ON o.id = l.order_id WHERE at < now() - interval '60d'",
        database=name,
    )
    assert f"{int(hanging[0][0]):,} rows of public.lines by order_id (on delete {action.lower()})" in said
    assert {table: there(postgresql, name, table) for table in TABLES} == before


@pytest.mark.parametrize("kind", ["delete", "table", "files"])
@pytest.mark.parametrize("action", ["NO ACTION", "CASCADE"])
def test_children_leave_with_their_rows(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, kind: str, action: str
) -> None:
    name = database(postgresql)
    postgresql.script(FAMILY.format(action=action), database=name)
    before = {table: there(postgresql, name, table) for table in TABLES}
    more: dict[str, Any] = {"delete_after": "60d", "on_children": "delete"}
    if kind != "delete":
        more = {"archive_after": "60d", "on_children": "archive"}
    if kind == "files":
        more |= {"archive_dir": str(tmp_path / "archive"), "archive_compression": "gzip"}
    asked = options(postgresql, name, tmp_path, {**OLD, **more})
    checked = run("db_cleanup", asked, check=True)
    ran = run("db_cleanup", asked)
    orphans = """SELECT (SELECT count(*) FROM lines WHERE order_id IS NULL),
                        (SELECT count(*) FROM moves WHERE line_id IS NULL AND n % 3 > 0 AND n <= 900
                            AND NOT from_order = 'o2000')"""
    assert postgresql.sql(orphans, database=name) == [["0", "0"]]
    gone = {table: before[table] - there(postgresql, name, table) for table in TABLES}
    assert all(sum(rows.values()) > 100 for rows in gone.values()), {t: sum(g.values()) for t, g in gone.items()}
    if kind == "table":
        assert {table: there(postgresql, name, f"{table}_archive") for table in TABLES} == gone
    if kind == "files":
        for table in TABLES:
            assert archived(postgresql, name, tmp_path / "archive", table, only=f"public.{table}.") == gone[table]
    assert counts(ran) == counts(checked)
    ((rows, children),) = counts(ran).values()
    assert (rows, children) == (
        sum(gone["orders"].values()),
        sum(map(sum, (gone["lines"].values(), gone["moves"].values()))),
    )
    assert not run("db_cleanup", asked).changed


def test_rows_in_a_circle_are_refused(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE threads (id int PRIMARY KEY, parent int REFERENCES threads, at timestamptz);
           INSERT INTO threads SELECT n, n, now() - interval '9 days' FROM generate_series(1, 300) n;
           CREATE INDEX ON threads (at)""",
        database=name,
    )
    rule = {**OLD, "table": "threads", "delete_after": "1d", "on_children": "delete"}
    asked = options(postgresql, name, tmp_path, rule)
    postgresql.sql("UPDATE threads SET parent = 1 WHERE id > 290", database=name)
    ran = run("db_cleanup", asked)
    assert "circular_children" in ran.codes() and not ran.changed
    # What hangs from itself alone is no obstacle.
    postgresql.sql("UPDATE threads SET parent = id", database=name)
    assert run("db_cleanup", asked).changed
    assert there(postgresql, name, "threads") == {}


def test_a_child_that_comes_meanwhile_is_not_swept_away(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path
) -> None:
    name = database(postgresql)
    postgresql.script(
        """CREATE TABLE orders (id int PRIMARY KEY, at timestamptz);
           CREATE TABLE lines (order_id int REFERENCES orders ON DELETE CASCADE);
           INSERT INTO orders SELECT n, now() - interval '100 days' FROM generate_series(1, 500) n""",
        database=name,
    )
    # Not committed when the rows are counted; the lock on its parent keeps the first bite waiting.
    asked = options(postgresql, name, tmp_path, {**OLD, "delete_after": "60d"}, lock_timeout="5s")
    with pg.transaction(postgresql, name, "INSERT INTO lines VALUES (400)") as cursor:
        timer = pg.later(1.5, lambda: cursor.execute("COMMIT"))
        ran = run("db_cleanup", asked, fails=True)
        timer.join()
    assert postgresql.sql("SELECT count(*) FROM lines", database=name) == [["1"]]
    assert int(postgresql.sql("SELECT count(*) FROM orders", database=name)[0][0]) >= 1
    assert "hang from due ones by now" in ran.text


def test_what_hangs_from_partitions(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    """Then rows go one by one, with what hangs from them; where nothing hangs, partitions go whole."""
    name = database(postgresql)
    postgresql.script(
        EVENTS.format(type="timestamptz")
        + """;ALTER TABLE events ADD PRIMARY KEY (n, at);
        CREATE TABLE notes (n int, at timestamptz, FOREIGN KEY (n, at) REFERENCES events (n, at));
        CREATE INDEX ON notes (n, at);
        INSERT INTO notes SELECT n, at FROM events WHERE n % 5 = 0""",
        database=name,
    )
    before = {table: there(postgresql, name, table) for table in ("events", "notes")}
    rule = {**OLD_EVENTS, "archive_after": "365d", "on_children": "archive"}
    asked = options(postgresql, name, tmp_path, rule)
    checked = run("db_cleanup", asked, check=True)
    assert {step[2] for step in checked.steps()} - {"vacuum", "analyze"} == {"archive"}
    ran = run("db_cleanup", asked)
    for table, rows in before.items():
        assert there(postgresql, name, f"{table}_archive") == rows, ran.text
        assert there(postgresql, name, table) == {}
    # Empty, and nothing hangs: now they go.
    run("db_cleanup", asked)
    assert postgresql.sql("SELECT relname FROM pg_class WHERE relname ~ '^e[0-3]$'", database=name) == [["e3"]]
    assert not run("db_cleanup", asked).changed


EVENTS = """
CREATE TABLE events (at {type} NOT NULL, n int) PARTITION BY RANGE (at);
CREATE TABLE e0 PARTITION OF events FOR VALUES FROM (MINVALUE) TO ('2020-02-01');
CREATE TABLE e1 PARTITION OF events FOR VALUES FROM ('2020-02-01') TO ('2020-03-01');
CREATE TABLE e2 PARTITION OF events FOR VALUES FROM ('2020-03-01') TO ('2020-04-01');
CREATE TABLE e3 PARTITION OF events FOR VALUES FROM ('2020-04-01') TO ('2100-01-01');
INSERT INTO events SELECT '2020-01-01'::timestamp + n * interval '1 hour', n FROM generate_series(1, 3000) n;
COMMENT ON TABLE e1 IS 'somebody''s own words'
"""
OLD_EVENTS = {"name": "old", "table": "events", "date_column": "at", "refuse_over_percent": 100}


@pytest.mark.parametrize("kind", ["delete", "table", "files"])
@pytest.mark.parametrize("type_", ["date", "timestamp", "timestamptz"])
def test_whole_partitions_go(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, kind: str, type_: str
) -> None:
    name = database(postgresql)
    postgresql.script(EVENTS.format(type=type_), database=name)
    before = there(postgresql, name, "events")
    age: dict[str, Any] = {"delete_after": "365d"} if kind == "delete" else {"archive_after": "365d"}
    if kind == "files":
        age |= {"archive_dir": str(tmp_path / "archive"), "archive_compression": "gzip"}
    asked = options(postgresql, name, tmp_path, {**OLD_EVENTS, **age})
    checked = run("db_cleanup", asked, check=True)
    assert there(postgresql, name, "events") == before
    postgresql.mark_log()
    ran = run("db_cleanup", asked)
    dropped = {s["object"]: s["status"] for s in ran.fact()["steps"] if s["kind"] == "drop_partition"}
    assert dropped == {"public.e0": "done", "public.e1": "done", "public.e2": "done"}, ran.text
    assert sorted(ran.steps()) == sorted(checked.steps())
    said = " ".join(pg.writes(postgresql))
    assert said.count("DETACH PARTITION") == said.count(" CONCURRENTLY") == said.count("DROP TABLE") == 3
    # The last one stays, and its rows went.
    left = postgresql.sql("SELECT relid::text FROM pg_partition_tree('events') WHERE isleaf", database=name)
    assert left == [["e3"]]
    assert there(postgresql, name, "events") == {}
    if kind == "table":
        assert there(postgresql, name, "events_archive") == before
    if kind == "files":
        assert archived(postgresql, name, tmp_path / "archive", "events") == before
    assert not run("db_cleanup", asked).changed


@pytest.mark.parametrize("default", [False, True])
def test_an_interrupted_detach_is_finished(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, default: bool
) -> None:
    """The session dies while it detaches, or between that and the drop; the next run ends what it began."""
    name = database(postgresql)
    postgresql.script(EVENTS.format(type="timestamptz"), database=name)
    if default:
        postgresql.sql("CREATE TABLE rest PARTITION OF events DEFAULT", database=name)
    asked = options(
        postgresql, name, tmp_path, {**OLD_EVENTS, "delete_after": "365d"}, jobs=1, concurrent_wait="2s", retries=0
    )
    with pg.transaction(postgresql, name, "SELECT count(*) FROM events"):
        ran = run("db_cleanup", asked, fails=True)
    assert "uses the partitioned table" in ran.text or "lock timeout" in ran.text
    assert int(postgresql.sql("SELECT count(*) FROM pg_class WHERE relname ~ '^e[0-3]$'", database=name)[0][0]) == 4
    assert run("db_cleanup", asked).changed
    assert not run("db_cleanup", asked).changed
    assert [r[0] for r in postgresql.sql("SELECT relname FROM pg_class WHERE relname ~ '^e[0-3]$'", database=name)] == [
        "e3"
    ]


def test_wreckage_of_a_detach(postgresql: Server, database: Callable[[Server], str], tmp_path: Path) -> None:
    """Pending and ours: finalized and dropped. Detached and ours: dropped. Pending and another's: finalized, kept."""
    name = database(postgresql)
    postgresql.script(EVENTS.format(type="timestamptz"), database=name)
    asked = options(postgresql, name, tmp_path, {**OLD_EVENTS, "delete_after": "36500d"})
    assert not run("db_cleanup", asked).changed
    _mark(postgresql, name, "e0")
    postgresql.sql("ALTER TABLE events DETACH PARTITION e0", database=name)
    with pg.transaction(postgresql, name, "SELECT count(*) FROM events"), pg.client(postgresql, name) as other:
        _mark(postgresql, name, "e1")
        other.execute("SET lock_timeout = '500ms'")
        with pytest.raises(Exception, match="lock timeout"):
            other.execute("ALTER TABLE events DETACH PARTITION e1 CONCURRENTLY")
    _mark(postgresql, name, "e2", comment="'its own'")
    checked = run("db_cleanup", asked, check=True)
    kinds = {(object_, kind) for database_, object_, kind in checked.steps()}
    assert kinds == {(f"public.e{n}", "drop_leftover") for n in range(3)}, checked.text
    ran = run("db_cleanup", asked)
    assert ran.changed and not run("db_cleanup", asked).changed
    left = postgresql.sql(
        "SELECT relname, obj_description(oid) FROM pg_class WHERE relname ~ '^e[0-3]$' ORDER BY 1", database=name
    )
    # What was marked and is due no more loses its mark, and nothing else.
    assert left == [["e2", "its own"], ["e3", ""]]
    # Another's: no partition any more, and still there.
    with pg.transaction(postgresql, name, "SELECT count(*) FROM events"), pg.client(postgresql, name) as other:
        other.execute("SET lock_timeout = '500ms'")
        with pytest.raises(Exception, match="lock timeout"):
            other.execute("ALTER TABLE events DETACH PARTITION e2 CONCURRENTLY")
    assert run("db_cleanup", asked).changed
    assert postgresql.sql(
        "SELECT relispartition, obj_description(oid) FROM pg_class WHERE relname = 'e2'", database=name
    ) == [["f", "its own"]]


def _mark(server: Server, name: str, table: str, comment: str = "NULL") -> None:
    server.script(
        f"""COMMENT ON TABLE {table} IS {comment};
        DO $$ DECLARE words text; BEGIN
          SELECT 'dbfleet.maintenance is about to drop this partition: ' || json_build_object('oid', oid, 'parent',
                 json_build_array('public', 'events'), 'bounds', pg_get_expr(relpartbound, oid), 'empty', false,
                 'comment', obj_description(oid)) INTO words FROM pg_class WHERE relname = '{table}';
          EXECUTE format('COMMENT ON TABLE {table} IS %L', words); END $$""",
        database=name,
    )


def test_rows_that_come_after_the_archive_stay(pool: Pool, database: Callable[[Server], str], tmp_path: Path) -> None:
    """A partition with rows that nobody has archived is attached again."""
    server = pool.get("postgresql-16")
    name = database(server)
    server.script(EVENTS.format(type="timestamptz"), database=name)
    server.sql("DELETE FROM e1", database=name)
    with pg.use(server) as used:
        task = pg_drop(name, empty=True)
        server.sql("INSERT INTO events VALUES ('2020-02-10', 1)", database=name)
        with pytest.raises(Exception, match="rows have come"):
            used.carry_out(task)
    assert server.sql("SELECT relispartition FROM pg_class WHERE relname = 'e1'", database=name) == [["t"]]
    # And so does a dead run's: detached, and one row slipped in before.
    _mark(server, name, "e1", comment="'mine'")
    server.sql(
        "UPDATE pg_description SET description = replace(description, '\"empty\" : false', '\"empty\" : true')",
        database=name,
    )
    server.sql("ALTER TABLE events DETACH PARTITION e1", database=name)
    asked = options(server, name, tmp_path, {**OLD_EVENTS, "delete_after": "36500d"})
    assert run("db_cleanup", asked).changed
    assert server.sql(
        "SELECT relispartition, obj_description(oid) FROM pg_class WHERE relname = 'e1'", database=name
    ) == [["t", "mine"]]
    assert not run("db_cleanup", asked).changed


def pg_drop(name: str, *, empty: bool) -> Any:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropPartition

    return DropPartition(Ref(name, ("public", "e1")), Ref(name, ("public", "events")), "old", True, empty)
