# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the SQLite engine does, by the words that it announced; lock holders, readers, room."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    Busy,
    Refused,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Pace,
    Ref,
    Step,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Analyze,
    DropLeftover,
    Rebuild,
    Task,
    Vacuum,
)
from tests.integration.lite import (
    ALL,
    HOLD,
    carried_out,
    closing,
    engine_of,
    fingerprint,
    logged,
    make,
    measured,
    named,
    other_process,
    rate,
    writes,
)

# ---- acts: check equals run ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("what", ["analyze", "exclusive", "online"])
def test_what_runs_is_what_was_spelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wal: bool, what: str) -> None:
    log = logged(monkeypatch)
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    make(path, "DELETE FROM t WHERE id > 2000", rows=100000, wal=wal)
    ref = Ref(str(path))
    table = Ref(str(path), ("t",))
    task: Task = Analyze(table) if what == "analyze" else Rebuild(ref, online=what == "online")
    engine = engine_of(path)
    server = engine.greet()
    log.clear()
    with engine.session(str(path)) as session:
        before = named(engine.measure(session, ALL, server))
        words = engine.spell(task, server)
        assert writes(log) == set()
        ticks = list(engine.carry_out(session, task, server, None))
        assert writes(log, words) == set(words)
        found = engine.measure(session, ALL, server)
        after = named(found)
    if what == "analyze":
        assert not named(found, "t").missing_statistics
        return
    assert rate(before).low > 90
    assert not before.lacks
    assert rate(after).low < 10
    assert sum(x.amount.bytes for x in ticks) == before.bytes - after.bytes
    assert after.total_bytes == path.stat().st_size < before.total_bytes / 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    if what == "online":
        assert len(ticks) > 2
        assert all(x.cursor for x in ticks)


def test_an_incremental_vacuum_stops_after_a_slice_and_goes_on_another_night(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with closing(path) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
    make(path, "DELETE FROM t", rows=100000)
    engine, task = engine_of(path), Rebuild(Ref(str(path)))
    before = path.stat().st_size
    server = engine.greet()
    with engine.session(str(path)) as session:
        work = engine.carry_out(session, task, server, None)
        tick = next(work)
        work.close()
    assert 0 < path.stat().st_size < before
    assert tick.amount.bytes == before - path.stat().st_size
    carried_out(path, task, cursor=tick.cursor)
    assert path.stat().st_size < before / 100


def test_why_there_is_no_online_rebuild(tmp_path: Path) -> None:
    plain = make(tmp_path / "plain.db", "DELETE FROM t WHERE id % 2", rows=5000)
    full, inner = tmp_path / "full.db", tmp_path / "inner.db"
    for path, mode in ((full, "FULL"), (inner, "INCREMENTAL")):
        with closing(path) as db:
            db.execute(f"PRAGMA auto_vacuum = {mode}")
        make(path, "DELETE FROM t WHERE id % 2", rows=5000)
    for path, words in ((plain, "auto_vacuum is NONE"), (full, "auto_vacuum is FULL"), (inner, "inside of pages")):
        found = measured(path)
        assert words in named(found).lacks["online rebuild"]
        assert "exclusive rebuild" not in named(found).lacks
        assert "reclaim" in named(found, "t").lacks


def test_tasks_that_are_not_for_sqlite_are_refused(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    for task in (Vacuum(Ref(str(path), ("t",))), Rebuild(Ref(str(path), ("t",)))):
        with pytest.raises(Refused, match="not for SQLite"):
            carried_out(path, task)


# ---- traps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wal", [False, True])
def test_a_lock_holder_makes_it_busy_within_the_lock_timeout(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=2000, wal=wal)
    with other_process(HOLD, path, "BEGIN IMMEDIATE") as other:
        before = fingerprint(tmp_path)
        for task in (Analyze(Ref(str(path), ("t",))), Rebuild(Ref(str(path)), online=False)):
            started = time.monotonic()
            with pytest.raises(Busy, match=f"process {other.pid}"):
                carried_out(path, task)
            assert time.monotonic() - started < 15
        after = fingerprint(tmp_path)
        assert set(after) == set(before)
        assert after[str(path)] == before[str(path)]
    carried_out(path, Rebuild(Ref(str(path)), online=False))


def test_a_live_reader_keeps_the_log_and_the_file_shrinks_when_it_is_gone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 100", rows=20000, wal=True)
    before = path.stat().st_size
    task = Rebuild(Ref(str(path)), online=False)
    with other_process(HOLD, path, "BEGIN", "SELECT count(*) FROM t") as other:
        engine = engine_of(path)
        server = engine.greet()
        with engine.session(str(path)) as session:
            work = engine.carry_out(session, task, server, None)
            tick = next(work)
            with pytest.raises(Busy, match=f"process {other.pid}"):
                work.send(Pace(1, 1))
            found = engine.measure(session, ALL, server)
        assert path.stat().st_size == before
        assert named(found).total_bytes >= before  # what the disk says, not what SQLite hopes
        assert [(left.what, left.dead) for left in found.leftovers] == [("checkpoint", True)]
        assert rate(named(found)).low < 5  # VACUUM itself is not asked for again
    carried_out(path, task, cursor=tick.cursor)
    assert path.stat().st_size < before / 10
    assert not measured(path).leftovers


def test_a_pending_checkpoint_is_wreckage_of_its_own(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 100", rows=20000, wal=True)
    before = path.stat().st_size
    with other_process(HOLD, path, "PRAGMA wal_autocheckpoint = 0", "VACUUM"):
        left = measured(path).leftovers[0]
        assert left.bytes > before / 2
        carried_out(path, DropLeftover(left.ref, left.what, left.names))
        assert path.stat().st_size < before / 10
        assert not measured(path).leftovers


def test_gauges(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", rows=10)
    engine = engine_of(path)
    step = Step(Rebuild(Ref(str(path)), online=False), "")
    with engine.session(str(path)) as session:
        assert engine.gauge(session, "something else", step) is None
        assert engine.gauge(session, "replica_lag", step) == 0.0  # a file has no replicas that could lag
        assert engine.gauge(session, "wal_backlog", step) == 0.0
        assert engine.gauge(session, "wal_missing", step) == engine.gauge(session, "oldest_snapshot", step) == 0.0
        assert (engine.gauge(session, "disk_missing", step) or 0) < 0
        assert (engine.gauge(session, "tmp_missing", step) or 0) < 0
    with closing(make(tmp_path / "b.db", wal=True, rows=10)) as db:
        db.execute("CREATE TABLE more (x)")
        with engine.session(str(tmp_path / "b.db")) as session:
            log = Path(f"{tmp_path / 'b.db'}-wal").stat().st_size
            assert engine.gauge(session, "wal_backlog", step) == log > 0
