# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_reindex on MySQL and MariaDB: bloat of secondary indexes, and one rebuild of the table for all of them."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import Index
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Reindex
from tests.fleet import Server

from .module_runner import run, start, until
from .my import Used, client, fill, fingerprint, mould, use
from .test_check_equals_run import shown, writes

Make = Callable[[Server], str]
INDEXED = (
    "id int primary key, a int not null, b varchar(60), c datetime, u int unique, key ka (a), key kb (b(20)), key (c)",
    "i, floor(rand(i) * 1e9), sha2(i, 224), '2026-01-01' - interval i second, i * 7",
)
LOOK = Wants(tables=True, indexes=True, index_bloat=True)


def filled(server: Server, database: str, table: str, *, keep: int = 5, rows: int = 60000) -> None:
    """Every `keep`-th row is left, by chance."""
    fill(server, database, table, *INDEXED, rows, "STATS_AUTO_RECALC=0")
    if keep > 1:
        server.sql(f"DELETE FROM {table} WHERE crc32(id) % {keep} > 0", database=database)
    server.sql(f"ANALYZE TABLE {table}", database=database)


def options(server: Server, database: str, tmp_path: Path, **more: Any) -> dict[str, Any]:
    return {
        **server.login(),
        "databases": [database],
        "min_size": "1MB",
        "assume_free_space": "100GB",
        "journal": str(tmp_path / "journal" / "journal.sqlite"),
        **more,
    }


def indexes(used: Used, database: str, table: str) -> dict[str, Index]:
    ref = Ref(database, (table,))
    found = used.measure(database, LOOK._replace(only=(ref,))).indexes
    assert all(index.table == ref for index in found)
    return {index.ref.path[1]: index for index in found}


def rebuilding(server: Server) -> list[str]:
    """The sessions that rebuild. What is sampled before says FORCE INDEX, and is not meant."""
    rows = server.sql("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE 'ALTER TABLE%FORCE%'")
    return [row[0] for row in rows]


def half_made(server: Server) -> list[list[str]]:
    view = "INNODB_TABLES" if server.engine == "mysql" else "INNODB_SYS_TABLES"
    return server.sql(f"SELECT NAME FROM information_schema.{view} WHERE NAME LIKE '%#sql%'")


def test_foretells_what_a_rebuild_makes_of_the_indexes(mysql: Server, database: Make) -> None:
    """The truth is the indexes' own size after the rebuild. The seed varies which rows go."""
    name, seed = database(mysql), random.randrange(10**6)
    fill(mysql, name, "t", *INDEXED, 100000, "STATS_AUTO_RECALC=0")
    patient = Execution(lock_timeout=60)  # purge may hold the table for a while; a module would come again
    with use(mysql, patient) as used, mould(mysql, name, "t") as again:
        for keep in (1, 2, 4, 50):
            if keep > 1:
                again()
                mysql.sql(f"DELETE FROM t WHERE crc32(concat(id, '{seed}')) % {keep} > 0", database=name)
            mysql.sql("ANALYZE TABLE t", database=name)
            indexes(used, name, "t")  # the first query opens the table, after which its counters are known
            before = indexes(used, name, "t")
            used.carry_out(Reindex(Ref(name, ("t",)), Ref(name, ("t",))))
            after = indexes(used, name, "t")
            assert before["PRIMARY"].bloat is None
            for key in ("u", "ka", "kb", "c"):
                foretold_well(before[key], after[key], f"{key} kept 1 of {keep}, seed {seed}")
                if keep == 1 and key in ("u", "c"):
                    fresh = before[key].bloat
                    assert fresh
                    assert fresh.low < 10, f"a fresh index in order of its keys is called bloated: {key}, {fresh}"


def foretold_well(before: Index, after: Index, said: str) -> None:
    truth = 100 * max(0.0, 1 - after.bytes / before.bytes)
    extent = 100 * (1 << 20) / before.bytes
    bloat = before.bloat
    assert bloat, said
    said = f"{said}: {before.bytes >> 10} kB, truth {truth:.1f} %, {bloat}"
    print(said)
    assert bloat.low - 0.5 <= truth <= bloat.high + 0.5 or abs(truth - bloat.percent) <= extent, said
    assert abs(truth - bloat.percent) <= max(10.0, extent), said
    left = after.bloat
    assert left is None or left.low < 10, said


def test_statistics_of_another_time_make_nothing_due(mysql: Server, database: Make) -> None:
    """Sizes of indexes come from InnoDB's statistics: what a delete has freed since, they do not show."""
    name = database(mysql)
    filled(mysql, name, "t", keep=1)
    with use(mysql) as used:
        indexes(used, name, "t")
        mysql.sql("DELETE FROM t WHERE crc32(id) % 5 > 0", database=name)
        bloat = indexes(used, name, "t")["ka"].bloat
        assert bloat
        assert bloat.low == 0
        assert bloat.high > 50
        mysql.sql("ANALYZE TABLE t", database=name)
        indexes(used, name, "t")  # opens it anew
        bloat = indexes(used, name, "t")["ka"].bloat
        assert bloat
        assert bloat.low > 50


def test_check_shows_what_runs(mysql: Server, database: Make, tmp_path: Path) -> None:
    """One rebuild of each table, whatever the number of its bloated indexes; a second run does nothing."""
    name = database(mysql)
    filled(mysql, name, "orders")
    filled(mysql, name, "fresh", keep=1, rows=2000)
    asked = options(mysql, name, tmp_path)
    before = fingerprint(mysql, name)
    mysql.mark_log()
    check = run("db_reindex", asked, check=True)
    assert writes(mysql) == []
    assert fingerprint(mysql, name) == before
    assert check.steps() == [(name, "orders", "reindex")]
    assert shown(check) == [f"ALTER TABLE `{name}`.`orders` FORCE, ALGORITHM=INPLACE, LOCK=NONE"]
    (step,) = check.fact()["steps"]
    assert {"ka", "kb"} <= set(step["measured"]["indexes"])

    mysql.mark_log()
    real = run("db_reindex", asked)
    assert real.changed
    assert real.steps() == check.steps()
    assert writes(mysql) == shown(check) == shown(real)
    (step,) = real.fact()["steps"]
    assert step["status"] == "done", real.text
    assert step["proven"], real.text
    assert step["actual"]["bytes_freed"] > 0

    for forget in (False, True):
        if forget:
            (tmp_path / "journal" / "journal.sqlite").unlink()
        mysql.mark_log()
        second = run("db_reindex", asked)
        assert not second.changed, second.text
        assert second.steps() == []
        assert writes(mysql) == []
    with use(mysql) as used:
        grown = "INSERT INTO orders SELECT id + 1000000, a, b, c, u + 1000000 FROM fresh"
        mysql.sql(grown, database=name)
        fill(mysql, name, "more", *INDEXED, 60000)
        mysql.sql("INSERT INTO orders SELECT id + 2000000, a, b, c, u + 2000000 FROM more", database=name)
        mysql.sql("DELETE FROM orders WHERE crc32(id) % 5 > 0", database=name)
        mysql.sql("ANALYZE TABLE orders", database=name)
        indexes(used, name, "orders")
    third = run("db_reindex", {**asked, "tables": ["orders"]}, check=True)
    assert third.steps() == check.steps(), third.text


def test_one_rebuild_serves_both_operations(mysql: Server, database: Make, tmp_path: Path) -> None:
    """After db_vacuum's rebuild nothing is left for db_reindex, and the other way round."""
    name = database(mysql)
    filled(mysql, name, "one")
    filled(mysql, name, "two")
    shared = options(mysql, name, tmp_path)
    vacuum = {k: v for k, v in shared.items() if k != "min_size"} | {"reclaim_min_size": "1MB", "actions": ["reclaim"]}
    for first, second in (("db_vacuum", "db_reindex"), ("db_reindex", "db_vacuum")):
        table = "one" if first == "db_vacuum" else "two"
        asked = {"db_vacuum": {**vacuum, "tables": [table]}, "db_reindex": {**shared, "tables": [table]}}
        assert run(second, asked[second], check=True).changed, "nothing to show"
        assert run(first, asked[first]).changed
        later = run(second, asked[second])
        assert not later.changed, later.text


def test_a_lock_holder_is_not_waited_for(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Fails within its lock timeout and retries; nothing is left behind; the next run does it."""
    name = database(mysql)
    filled(mysql, name, "t")
    asked = options(mysql, name, tmp_path, lock_timeout="1s", retries=1)
    before = fingerprint(mysql, name)
    with client(mysql, name) as holder:
        holder("START TRANSACTION")
        holder("SELECT COUNT(*) FROM t WHERE id < 9")
        begun = time.monotonic()
        ran = run("db_reindex", asked, fails=True)
        assert time.monotonic() - begun < 30
        (step,) = ran.fact()["steps"]
        assert step["status"] == "failed"
        assert "lock wait timeout" in step["error"].lower(), step
        assert not ran.changed
        assert half_made(mysql) == []
        assert fingerprint(mysql, name) == before
        holder("ROLLBACK")
    assert run("db_reindex", asked).fact()["steps"][0]["status"] == "done"


def test_nothing_is_lost_that_is_written_meanwhile(mysql: Server, database: Make, tmp_path: Path) -> None:
    name = database(mysql)
    filled(mysql, name, "t", keep=1, rows=30000)
    ended, written, worst = threading.Event(), [0], [0.0]

    def write() -> None:
        with client(mysql, name) as say:
            while not ended.is_set():
                number, began = 10**7 + written[0], time.monotonic()
                say(f"INSERT INTO t VALUES ({number}, {number}, 'new', '2026-01-01', {2 * 10**8 + number})")
                say(f"UPDATE t SET a = a + 1, b = concat('z', b) WHERE id = {number}")
                worst[0] = max(worst[0], time.monotonic() - began)
                written[0] += 1

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    asked = options(mysql, name, tmp_path, force=True, tables=["t"], lock_timeout="200ms")
    for _time in range(2):
        (step,) = run("db_reindex", asked).fact()["steps"]
        assert step["status"] == "done"
    ended.set()
    writer.join(30)
    print(f"{written[0]} rows written meanwhile, the slowest in {worst[0]:.3f} s")
    assert written[0] > 0
    for key in ("PRIMARY", "u", "ka", "kb", "c"):
        found = mysql.sql(f"SELECT count(*) FROM t FORCE INDEX (`{key}`) WHERE a <> -1", database=name)
        assert found == [[str(30000 + written[0])]], key
    assert mysql.sql("CHECK TABLE t", database=name)[-1][-1] == "OK"


def test_a_killed_run_leaves_nothing(mysql: Server, database: Make, tmp_path: Path) -> None:
    """SIGKILL of the module in the middle; the server ends or undoes the rebuild, the next run goes by what it sees."""
    name = database(mysql)
    filled(mysql, name, "t")
    asked = options(mysql, name, tmp_path, lock_timeout="30s")
    with client(mysql, name) as holder:
        holder("START TRANSACTION")
        holder("SELECT COUNT(*) FROM t WHERE id < 9")
        child = start("db_reindex", asked)
        until(lambda: bool(rebuilding(mysql)), 30, "the rebuild")
        child.send(signal.SIGKILL)
        child.wait()
    until(lambda: not rebuilding(mysql), 60, "the server's end of it")
    assert half_made(mysql) == []
    ran = run("db_reindex", asked)
    assert {s["status"] for s in ran.fact()["steps"]} <= {"done"}
    assert not run("db_reindex", asked).changed


def test_a_killed_session_is_a_failure_without_remains(mysql: Server, database: Make, tmp_path: Path) -> None:
    """An administrator ends the rebuild."""
    name = database(mysql)
    filled(mysql, name, "t")
    asked = options(mysql, name, tmp_path, lock_timeout="30s")
    with client(mysql, name) as holder:
        holder("START TRANSACTION")
        holder("SELECT COUNT(*) FROM t WHERE id < 9")
        child = start("db_reindex", asked)
        until(lambda: bool(rebuilding(mysql)), 30, "the rebuild")
        (session,) = rebuilding(mysql)
        mysql.sql(f"KILL QUERY {session}")
        ran = child.wait()
    assert ran.result["failed"]
    assert "somebody ended it" in ran.fact()["steps"][0]["error"]
    assert half_made(mysql) == []
    assert run("db_reindex", asked).changed


def test_what_cannot_be_rebuilt_online(mysql: Server, database: Make, tmp_path: Path) -> None:
    """A full-text index: a finding, and `exclusive` does it. A partitioned table: online only."""
    name = database(mysql)
    filled(mysql, name, "texts", keep=1)
    mysql.sql("ALTER TABLE texts ADD FULLTEXT KEY ft (b)", database=name)
    mysql.sql("DELETE FROM texts WHERE crc32(id) % 5 > 0", database=name)
    mysql.sql("ANALYZE TABLE texts", database=name)
    fill(mysql, name, "p", "id int primary key, a int, key ka (a)", "i, floor(rand(i) * 1e9)", 120000, PARTITIONS)
    mysql.sql("DELETE FROM p WHERE crc32(id) % 5 > 0", database=name)
    mysql.sql("ANALYZE TABLE p", database=name)
    asked = options(mysql, name, tmp_path)
    check = run("db_reindex", asked, check=True)
    assert check.steps() == [(name, "p", "reindex")]
    found = [f for f in check.fact()["findings"] if f["code"] == "no_online_rebuild"]
    assert [f["object"] for f in found] == ["texts"]
    assert "FULLTEXT" in found[0]["message"]
    assert found[0]["fix"] == f"ALTER TABLE `{name}`.`texts` FORCE, LOCK=SHARED"
    exclusive = {**asked, "method": "exclusive"}
    ran = run("db_reindex", exclusive)
    assert ran.steps() == [(name, "texts", "reindex")]
    assert ran.fact()["steps"][0]["proven"], ran.text
    assert "no_exclusive_rebuild" in ran.codes()
    assert run("db_reindex", asked).fact()["steps"][0]["proven"]
    assert not run("db_reindex", asked).changed
    assert not run("db_reindex", exclusive).changed


PARTITIONS = "PARTITION BY RANGE (id) (PARTITION old VALUES LESS THAN (60001), PARTITION new VALUES LESS THAN MAXVALUE)"


def test_force_by_name(mysql: Server, database: Make, tmp_path: Path) -> None:
    name = database(mysql)
    filled(mysql, name, "a", keep=1, rows=500)
    filled(mysql, name, "b", keep=1, rows=500)
    ran = run("db_reindex", options(mysql, name, tmp_path, force=True, indexes=["a.ka", "a.kb"]))
    assert ran.steps() == [(name, "a", "reindex")]
    assert ran.fact()["steps"][0]["status"] == "done"
