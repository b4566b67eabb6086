# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite files after crashes, on full disks, damaged, and owned by somebody else."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    Refused,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Amount,
    Ref,
    Step,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import (
    Analyze,
    DropLeftover,
    Rebuild,
)
from tests.integration.lite import (
    ALL,
    carried_out,
    closing,
    engine_of,
    leave_hot_journal,
    make,
    measured,
    named,
    needs_root,
    other_process,
    rate,
)


def test_a_dead_transaction_is_rolled_back(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id > 2000", rows=20000)
    with closing(path) as db:
        truth = db.execute("SELECT count(*), total(k) FROM t").fetchone()
    before = named(measured(path))
    leave_hot_journal(path)
    engine = engine_of(path)
    server = engine.greet()
    assert not server.databases[0].why_not
    found = measured(path)
    left = found.leftovers[0]
    assert (left.what, left.names, left.dead) == ("transaction", ("a.db-journal",), True)
    assert named(found).bloat is None  # this transaction had not come to page 1
    words = engine.spell(DropLeftover(left.ref, left.what, left.names), server)
    assert words == ["BEGIN IMMEDIATE", "ROLLBACK"]
    carried_out(path, DropLeftover(left.ref, left.what, left.names))
    again = measured(path)
    assert not again.leftovers
    assert named(again) == before
    with closing(path) as db:
        assert db.execute("SELECT count(*), total(k) FROM t").fetchone() == truth


VACUUM = """
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    print("ready", flush=True)
    db.execute("VACUUM")
"""


@pytest.mark.parametrize("wal", [False, True])
def test_sigkill_in_the_middle_of_vacuum(tmp_path: Path, wal: bool) -> None:
    path = make(tmp_path / "a.db", rows=400000, wal=wal)
    make(path, "DELETE FROM t WHERE id % 3")
    with closing(path) as db:
        truth = db.execute("SELECT count(*), total(k) FROM t").fetchone()
    before, grown = path.stat().st_size, Path(f"{path}-{'wal' if wal else 'journal'}")
    with other_process(VACUUM, path) as other:
        until = time.monotonic() + 20
        while not (grown.exists() and grown.stat().st_size > 4 << 20) and time.monotonic() < until:
            time.sleep(0.002)
        os.kill(other.pid, signal.SIGKILL)
        other.wait()
    assert grown.stat().st_size > 0, "it was killed too late"
    found = measured(path)
    assert [left.what for left in found.leftovers] == ([] if wal else ["transaction"])
    due = rate(named(found))  # out of the journal, so that the rebuild is due in the same run
    for left in found.leftovers:
        carried_out(path, DropLeftover(left.ref, left.what, left.names))
    assert rate(named(measured(path))).low >= due.low > 30
    carried_out(path, Rebuild(Ref(str(path)), online=False))
    found = measured(path)
    assert path.stat().st_size < before / 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    assert not found.leftovers
    with closing(path) as db:
        assert db.execute("SELECT count(*), total(k) FROM t").fetchone() == truth
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_cancel_from_another_thread_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    import threading

    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=400000)
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    engine = engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        threading.Timer(0.1, session.cancel).start()
        with pytest.raises(Stopped):
            list(engine.carry_out(session, Rebuild(Ref(str(path)), online=False), server, None))
        with pytest.raises(Stopped):
            engine.measure(session, ALL, server)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.db"]
    engine.close()


def test_a_damaged_file_is_urgent_and_never_rebuilt(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db", "DELETE FROM t WHERE id % 2", rows=20000)
    whole = path.read_bytes()
    # A page of the table that only a full check looks into: its cells point outside of the page.
    page = bytearray(whole)
    for at in range(40 * 4096, 60 * 4096, 4096):
        page[at + 8 : at + 40] = b"\xff" * 32
    path.write_bytes(page)
    with pytest.raises(Refused, match="malformed") as caught:
        carried_out(path, Rebuild(Ref(str(path)), online=False))
    assert ".recover" in caught.value.cure
    assert path.read_bytes() == bytes(page)
    # The catalog itself is gone: measuring says so, and nothing is due.
    path.write_bytes(whole[:100] + b"\xff" * 4000 + whole[4100:])
    server = engine_of(path, make(tmp_path / "good.db", rows=10)).greet()
    assert [bool(d.why_not) for d in server.databases] in ([True, False], [False, False])
    found = measured(path)
    assert [(f.priority, f.code) for f in found.findings] == [(1, "database_damaged")]
    assert not found.tables
    assert "write" in found.lacks


@needs_root
def test_a_full_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)], check=True)
    try:
        path = make(disk / "a.db", "DELETE FROM t WHERE id % 2", rows=60000)
        (disk / "ballast").write_bytes(b"x" * (24 * 1024 * 1024 - path.stat().st_size - (1 << 20)))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        task = Rebuild(Ref(str(path)), online=False)
        engine = engine_of(path)
        with engine.session(str(path)) as session:
            missing = engine.gauge(session, "disk_missing", Step(task, "", expected=Amount(bytes=1 << 20)))
            elsewhere = engine.gauge(session, "tmp_missing", Step(task, "", expected=Amount(bytes=1 << 20)))
        assert (missing or 0) > 1 << 20
        assert (elsewhere or 0) < 0
        with pytest.raises(Refused, match="full") as caught:
            carried_out(path, task)
        assert str(disk) in caught.value.cure
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
        assert sorted(p.name for p in disk.iterdir()) == ["a.db", "ballast"]
        (disk / "ballast").unlink()
        carried_out(path, task)
        assert path.stat().st_size < 5 << 20
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@needs_root
def test_a_read_only_file_system(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=True)
    try:
        for name, wal in (("a.db", False), ("w.db", True)):
            make(disk / name, "DELETE FROM t WHERE id % 2", rows=2000, wal=wal)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for name in ("a.db", "w.db"):
            found = measured(disk / name)
            assert named(found, "t").rows == 1000
            assert found.lacks["write"] == "the file system is read-only"
            with engine_of(disk / name).guard([str(disk / name)], 0):
                pass  # keeps nobody from the other databases
            with pytest.raises(Refused, match="read-only"):
                carried_out(disk / name, Analyze(Ref(str(disk / name), ("t",))))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


AS_NOBODY = """
    import os
    os.setgid(65534)
    os.setuid(65534)
    db = sqlite3.connect(sys.argv[1], isolation_level=None)
    db.execute("SELECT * FROM t LIMIT 1").fetchall()
    print("ready", flush=True)
    for line in sys.stdin:
        db.execute("INSERT INTO t (k) VALUES (1)")
        print("done", flush=True)
"""


@needs_root
@pytest.mark.parametrize("wal", [False, True])
def test_root_does_not_lock_the_application_out(tmp_path: Path, wal: bool) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    path = make(home / "a.db", "DELETE FROM t WHERE id % 2", rows=20000, wal=wal)
    path.chmod(0o640)
    for each in (home, path):
        os.chown(each, 65534, 65534)
    engine = engine_of(path)
    server = engine.greet()
    with engine.session(str(path)) as session:
        work = engine.carry_out(session, Rebuild(Ref(str(path)), online=False), server, None)
        next(work)  # vacuumed, and root still has it open
        with other_process(AS_NOBODY, path) as application:
            assert application.stdin
            assert application.stdout
            for each in home.iterdir():
                assert (each.stat().st_uid, each.stat().st_gid, each.stat().st_mode & 0o777) == (65534, 65534, 0o640)
            list(work)
            print("go", file=application.stdin, flush=True)
            assert application.stdout.readline() == "done\n"
    for each in home.iterdir():
        assert (each.stat().st_uid, each.stat().st_gid, each.stat().st_mode & 0o777) == (65534, 65534, 0o640)


FOREIGN = """
    import os
    sys.path[:0] = sys.argv[3:]
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import files
    os.setgid(int(sys.argv[2]))
    os.setuid(int(sys.argv[2]))
    print("ready", flush=True)
    print(files.why_unreadable(sys.argv[1]) or files.why_unwritable(sys.argv[1]), flush=True)
"""


@needs_root
def test_another_user_is_told_to_become_the_owner(tmp_path: Path) -> None:
    for folder in (tmp_path, *tmp_path.parents):
        if not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o777)
    path = make(home / "a.db", rows=10)
    os.chown(path, 65534, 65534)
    for mode, user, words in (
        (0o666, 1234, "another user owns"),
        (0o666, 65534, ""),
        (0o644, 1234, "may not write"),
        (0o600, 1234, "may not read"),
    ):
        path.chmod(mode)
        with other_process(FOREIGN, path, user, *sys.path) as other:
            assert other.stdout
            line = other.stdout.readline().strip()
            assert words in line if words else not line
