# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Old rows of PostgreSQL leave: each row is in exactly one place afterwards, whatever the table looks like."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fleet import Server

from . import pg
from .module_runner import Ran, run

ROWS = 5000
AGE = "now() - interval '200 days' + n * interval '1 hour'"
# name -> (how it is made and filled, the rule's table and date column, more of the rule). Every n-th row of 5000 is an
# hour younger: about 96 % of them are due after a day, so that a bite is one of several.
SHAPES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "by date": (
        f"""CREATE TABLE t (id bigint PRIMARY KEY, at timestamptz, note text, ok bool, raw bytea, v numeric);
            INSERT INTO t SELECT n, {AGE}, repeat('ü"\\\n', n % 5), n % 2 = 0, decode(md5(n::text), 'hex'), n / 7.0
              FROM generate_series(1, {ROWS}) n;
            INSERT INTO t VALUES (-1, NULL), (-2, 'infinity'), (-3, '-infinity');
            CREATE INDEX ON t (at)""",
        "t",
        "at",
        {},
    ),
    "by days, many of one day": (
        f"""CREATE TABLE t (day date, id uuid PRIMARY KEY DEFAULT gen_random_uuid(), n int);
            INSERT INTO t (day, n) SELECT current_date - 100 + n % 200, n % 3 FROM generate_series(1, {ROWS}) n;
            INSERT INTO t (day, n) SELECT current_date - 300, n FROM generate_series(1, 3000) n;
            CREATE INDEX ON t (day)""",
        "public.t",
        "day",
        {"delete_after": "20d", "refuse_over_percent": 100},
    ),
    "by date without a key": (
        f"""CREATE TABLE t (at timestamp(0) NOT NULL, note text);
            INSERT INTO t SELECT now() - (n % 50) * interval '1 day', 'same' FROM generate_series(1, {ROWS}) n;
            CREATE INDEX ON t (at DESC)""",
        "t",
        "at",
        {"timezone": "Europe/Berlin"},
    ),
    "by a composite key": (
        f"""DO $$ BEGIN CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
            EXCEPTION WHEN feature_not_supported THEN CREATE COLLATION nocase FROM "POSIX"; END $$;
            CREATE TABLE t (a text COLLATE nocase, b inet, c numeric, at bigint, PRIMARY KEY (a, b, c));
            INSERT INTO t SELECT chr(97 + n % 7) || 'É', ('10.0.0.' || n % 200)::inet, n / 3.0,
                   extract(epoch FROM now() - interval '150 days' + n * interval '1 hour') * 1000
              FROM generate_series(1, {ROWS}) n""",
        "t",
        "at",
        {"date_unit": "milliseconds"},
    ),
    "by place": (
        f"""CREATE DOMAIN moment AS timestamptz;
            CREATE TABLE t (at moment, n int, tags text[], twice int GENERATED ALWAYS AS (n * 2) STORED);
            INSERT INTO t SELECT {AGE}, n, ARRAY['a b', NULL, '"'] FROM generate_series(1, {ROWS}) n""",
        "t",
        "at",
        {},
    ),
    "hostile names": (
        f"""CREATE SCHEMA "sch.ema%s";
            CREATE TABLE "sch.ema%s"."we""ird %s {{name}}; --"
                   ("i%d" bigint PRIMARY KEY, "at %s '" timestamptz, "{{a}}" text);
            INSERT INTO "sch.ema%s"."we""ird %s {{name}}; --" SELECT n, {AGE}, '%' FROM generate_series(1, {ROWS}) n;
            CREATE INDEX ON "sch.ema%s"."we""ird %s {{name}}; --" ("at %s '")""",
        'sch.ema%s.we"ird %s {name}; --',
        "at %s '",
        {"where": "\"{a}\" LIKE '%%' -- it's mine"},
    ),
    "partitions": (
        f"""CREATE TABLE t (id bigint, at timestamptz NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY LIST (id);
            CREATE TABLE t1 (note text, gone int, at timestamptz NOT NULL, id bigint NOT NULL);
            ALTER TABLE t1 DROP COLUMN gone;
            ALTER TABLE t ATTACH PARTITION t1 FOR VALUES IN (1);
            CREATE TABLE t2 PARTITION OF t DEFAULT;
            INSERT INTO t SELECT n % 2, {AGE}, 'x' FROM generate_series(1, {ROWS}) n;
            CREATE INDEX ON t2 (at)""",
        "t",
        "at",
        {},
    ),
}
KINDS = ["delete", "table", "files"]


def options(server: Server, name: str, tmp_path: Path, *rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    journal = str(tmp_path / "journal" / "journal.sqlite")
    return {**server.login(), "databases": [name], "rules": list(rules), "journal": journal, **more}


def quoted(table: str) -> str:
    """A test's name of a table as SQL: the schema may have a dot in it."""
    for schema in ("sch.ema%s", "public"):
        if table.startswith(schema + "."):
            name = table[len(schema) + 1 :]
            return '"' + schema + '"."' + name.replace('"', '""') + '"'
    return '"' + table.replace('"', '""') + '"'


def there(server: Server, name: str, table: str) -> Counter[str]:
    """The rows of a table as text, column by column; none where there is no such table."""
    if server.sql(f"SELECT to_regclass({literal(quoted(table))}) IS NULL", database=name) == [["t"]]:
        return Counter()
    # To text first: JSON would write numbers and times in its own way.
    words = f"""SELECT (SELECT jsonb_object_agg(p.key, p.value #>> '{{}}') FROM jsonb_each(to_jsonb(x)) p)::text
                  FROM {quoted(table)} x"""
    return Counter(row[0] for row in server.sql(words, database=name))


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def archived(server: Server, name: str, folder: Path, table: str, only: str = "") -> Counter[str]:
    """The rows of the archive files, read back by the server itself into the type of the table's rows."""
    rows: list[str] = []
    for path in sorted(folder.glob(f"{only}*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            mine = list(lines)
        assert json.loads((folder / (path.name + ".manifest.json")).read_text())["rows"] == len(mine)
        rows += mine
    assert [p for p in folder.iterdir() if not p.name.endswith((".gz", ".manifest.json"))] == []
    words = f"""SELECT (SELECT jsonb_object_agg(p.key, p.value #>> '{{}}') FROM jsonb_each(to_jsonb(x)) p)::text
                  FROM json_populate_recordset(NULL::{quoted(table)}, """
    with pg.client(server, name) as cursor:
        cursor.execute(words.replace("%", "%%") + "%s::json) x", ("[" + ",".join(rows) + "]",))
        return Counter(row[0] for row in cursor.fetchall())


def rule(kind: str, table: str, column: str, tmp_path: Path, more: dict[str, Any]) -> dict[str, Any]:
    age = more.get("delete_after", "1d")
    made = {"name": "old", "table": table, "date_column": column, "refuse_over_percent": 100, **more}
    made.pop("delete_after", None)
    if kind == "delete":
        return {**made, "delete_after": age}
    if kind == "table":
        return {**made, "archive_after": age}
    return {**made, "archive_after": age, "archive_dir": str(tmp_path / "archive"), "archive_compression": "gzip"}


def counts(ran: Ran) -> dict[tuple[str, str], tuple[int, int]]:
    """Rows and children, by object and kind: expected in check mode, actual in a run."""
    which = "expected" if any(s["status"] == "planned" for s in ran.fact()["steps"]) else "actual"
    return {
        (s["object"], s["kind"]): (s[which].get("rows") or 0, s[which].get("children") or 0)
        for s in ran.fact()["steps"]
        if s["kind"] in ("delete", "archive")
    }


@pytest.mark.every_server
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_row_is_in_one_place(
    postgresql: Server, database: Callable[[Server], str], tmp_path: Path, shape: str, kind: str
) -> None:
    made, table, column, more = SHAPES[shape]
    name = database(postgresql)
    postgresql.script(made, database=name)
    before = there(postgresql, name, table)
    asked = options(postgresql, name, tmp_path, rule(kind, table, column, tmp_path, more))
    due = postgresql.sql(f"SELECT count(*) FROM {quoted(table)} x WHERE {age_of(column, more)}", database=name)
    checked = run("db_cleanup", asked, check=True)
    assert there(postgresql, name, table) == before
    ran = run("db_cleanup", asked)
    kept, archive = there(postgresql, name, table), Counter[str]()
    if kind == "table":
        archive = there(postgresql, name, table + "_archive")
    elif kind == "files":
        archive = archived(postgresql, name, tmp_path / "archive", table)
    gone = before - kept
    assert kept - before == Counter()
    assert sum(gone.values()) == int(due[0][0]) > 1000
    assert kind == "delete" or archive == gone
    assert counts(ran) == counts(checked), (counts(ran), counts(checked))
    assert sum(rows for rows, children in counts(ran).values()) == sum(gone.values())
    assert all(s["proven"] for s in ran.fact()["steps"] if s["kind"] in ("delete", "archive")), ran.fact()
    again = run("db_cleanup", asked)
    assert not again.changed, again.fact()["steps"]


def age_of(column: str, more: dict[str, Any]) -> str:
    """The same condition in the test's own words."""
    name = '"' + column.replace('"', '""') + '"'
    if more.get("date_unit"):
        return f"{name} < extract(epoch FROM now() - interval '1 day') * 1000"
    if column == "day":
        return f"{name} < (now() AT TIME ZONE 'UTC' - interval '20 days')::date"
    if more.get("timezone"):
        return f"{name} < (now() - interval '1 day') AT TIME ZONE '{more['timezone']}'"
    return f"{name} < now() - interval '1 day'"
