# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MySQL engine where things go wrong: locks, cancelling, other runs, dead clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    Busy,
    CannotConnect,
    DbFault,
    Gone,
    Held,
    Refused,
    Stopped,
    Vanished,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild
from tests.fleet import Fleet, Server

from .my import ALL, background, client, fill, running, use, wait_until

Make = Callable[[Server], str]
WIDE = ("id int primary key, v varchar(300), n int, key (n), key (v)", "i, repeat(char(97 + i % 26), 250), i")


def test_lock_holder(mysql: Server, database: Make) -> None:
    """An idle transaction: the rebuild gives up within its lock timeout, and nobody queues longer behind it."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v int", "i, i", 1000)
    fill(mysql, name, "free", "id int primary key, v int", "i, i", 1000)
    used = use(mysql, Execution(lock_timeout=1))
    task = Rebuild(Ref(name, ("t",)))
    waits: list[float] = []
    faults: list[DbFault] = []

    def rebuild() -> None:
        try:
            used.carry_out(task)
        except DbFault as fault:
            faults.append(fault)

    with client(mysql, name) as holder, client(mysql, name) as reader:
        holder("START TRANSACTION")
        holder("SELECT * FROM t WHERE id = 1")
        time.sleep(1.2)
        seen = used.gauge("oldest_snapshot", task)
        assert seen is not None
        assert 1 <= seen < 30
        if mysql.engine == "mysql":  # which sees who holds which table
            assert used.gauge("oldest_snapshot", Rebuild(Ref(name, ("free",)))) == 0
        activity = used.measure(name, Wants(activity=True)).activity
        assert activity is not None
        assert activity.oldest_seconds is not None
        assert activity.oldest_seconds >= 1
        assert mysql.user in activity.oldest_who
        begun = time.monotonic()
        thread = background(rebuild)
        wait_until(lambda: running(mysql, "ALTER TABLE"))
        before = time.monotonic()
        reader("SELECT * FROM t WHERE id = 2")
        waits.append(time.monotonic() - before)
        thread.join()
        took = time.monotonic() - begun
        assert [type(f) for f in faults] == [Busy]
        assert took < 20
        assert waits[0] < 10
        used.carry_out(Rebuild(Ref(name, ("free",))))
        holder("COMMIT")
    assert used.gauge("oldest_snapshot", task) == 0
    used.carry_out(task)


def test_measuring_beside_a_queue(mysql: Server, database: Make) -> None:
    """A table that nobody can read now leaves its bloat unknown; everything else is measured, and in time."""
    name = database(mysql)
    for table in ("locked", "free"):
        fill(mysql, name, table, "id int primary key, v varchar(200)", "i, repeat('x', 150)", 20000)
    with client(mysql, name) as holder, client(mysql, name) as altering:
        holder("START TRANSACTION")
        holder("SELECT * FROM locked WHERE id = 1")
        thread = background(lambda: altering("ALTER TABLE locked ADD COLUMN w int"))
        try:
            wait_until(lambda: running(mysql, "ALTER TABLE"))
            begun = time.monotonic()
            found = use(mysql).measure(name)
            took = time.monotonic() - begun
        finally:
            holder("COMMIT")
            thread.join()
    assert took < 10
    bloat = {t.ref.path[0]: t.bloat for t in found.tables}
    assert bloat["locked"] is None
    assert all(t.total_bytes > 3_000_000 and t.rows for t in found.tables)
    hidden = {f.code for f in found.findings} & {"changes_unknown"}
    assert bool(hidden) == (mysql.engine == "mysql") == (found.tables[0].changed is None)
    assert bloat["free"] is not None
    assert [f.ref.path for f in found.findings if f.code == "bloat_unknown"] == [("locked",)]


def test_analyze_of_a_locked_table_is_no_success(mysql: Server, database: Make) -> None:
    """The server answers such an ANALYZE with rows, not with an error."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v int", "i, i", 100)
    used = use(mysql)
    with client(mysql, name) as holder:
        holder("LOCK TABLES t WRITE")
        with pytest.raises(Busy, match="ock wait timeout"):
            used.carry_out(Analyze(Ref(name, ("t",))))
    with pytest.raises(Refused):
        used.carry_out(Analyze(Ref(name, ("dropped",))))
    with pytest.raises(Refused):
        used.carry_out(Rebuild(Ref(name, ("dropped",))))


def test_cancel(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "t", *WIDE, 90000)
    used = use(mysql)
    task = Rebuild(Ref(name, ("t",)))
    size = used.table(name, "t").total_bytes
    with used.engine.session(name) as session:
        threading.Timer(0.3, session.cancel).start()
        begun = time.monotonic()
        with pytest.raises(Stopped):
            list(used.engine.carry_out(session, task, used.server, None))
        assert time.monotonic() - begun < 10
        session.cancel()  # harmless
        with pytest.raises(Stopped):
            session.rows("SELECT 1")
    deadline = time.monotonic() + 20  # the server may still take back what was begun
    while (found := used.measure(name)).findings and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [t.total_bytes for t in found.tables] == [size]
    assert not found.findings
    with used.engine.session(name) as session:
        session.cancel()
    used.carry_out(task)


def test_lost_connection(mysql: Server, database: Make) -> None:
    used = use(mysql)
    with used.engine.session(database(mysql)) as session:
        mysql.sql(f"KILL {session.id}")
        time.sleep(0.2)
        with pytest.raises(Gone):
            session.rows("SELECT 1")


def test_two_runs_at_once(mysql: Server) -> None:
    one, two = use(mysql), use(mysql)
    with one.engine.guard(["b", "a"], 0):
        begun = time.monotonic()
        with pytest.raises(Held, match="connection") as held, two.engine.guard(["c", "b"], 0):
            pass
        assert held.value.database == "b"
        assert time.monotonic() - begun < 10
        with two.engine.guard(["c"], 0):
            pass
        begun = time.monotonic()
        with pytest.raises(Held), two.engine.guard(["a"], 1):
            pass
        assert 0.9 <= time.monotonic() - begun < 15
    with two.engine.guard(["a", "b"], 0):
        pass


def test_guard_ends_with_its_holder(mysql: Server) -> None:
    used = use(mysql)
    with pytest.raises(ZeroDivisionError), used.engine.guard(["a"], 0):
        raise ZeroDivisionError
    with used.engine.guard(["a"], 0):
        pass


def test_wrong_password(mysql: Server) -> None:
    with pytest.raises(CannotConnect) as fault:
        use(mysql, login_password="Gar-nicht-geheim")
    assert "Gar-nicht-geheim" not in str(fault.value) + repr(fault.value) + repr(fault.value.__cause__)
    assert fault.value.cure
    with pytest.raises(Vanished, match="nosuchdatabase"), use(mysql).engine.session("nosuchdatabase"):
        pass
    with pytest.raises(CannotConnect):
        use(mysql, login_port=1)


CHILD = """
import sys
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import MySQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (Execution, Ref)
login = eval(sys.argv[1])
engine = MySQL(login, Execution())
server = engine.greet()
with engine.session(sys.argv[2]) as session:
    list(engine.carry_out(session, Rebuild(Ref(sys.argv[2], ("t",))), server, None))
"""


def kill_in_the_middle(server: Server, database: str) -> None:
    words = [sys.executable, "-c", CHILD, repr(server.login()), database]
    child = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        wait_until(lambda: running(server, "ALTER TABLE") or child.poll() is not None)
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


def test_killed_in_the_middle_of_a_rebuild(mysql: Server, database: Make) -> None:
    """The server goes on: the next run sees that, keeps away, and can rebuild once it is over."""
    name = database(mysql)
    fill(mysql, name, "t", *WIDE, 80000)
    used = use(mysql)
    for _attempt in range(9):
        kill_in_the_middle(mysql, name)
        found = used.measure(name)
        if running(mysql, "ALTER TABLE"):  # still: all of it was measured meanwhile
            break
    (table,) = found.tables
    assert {f.code for f in found.findings} - {"purge_pending"} == {"rebuild_running"}
    assert {"online rebuild", "exclusive rebuild"} <= set(table.lacks)
    wait_until(lambda: not running(mysql, "ALTER TABLE"), seconds=60)
    found = used.measure(name, ALL._replace(only=(Ref(name, ("t",)),)))
    assert not {f.code for f in found.findings} - {"purge_pending"}
    assert not found.tables[0].lacks
    used.carry_out(Rebuild(Ref(name, ("t",))))
    assert len(mysql.sql("SELECT * FROM t WHERE id <= 3", database=name)) == 3


def test_more_changes_than_the_online_log_holds(fleet: Fleet, mysql: Server, database: Make) -> None:
    """The rebuild fails at its end: refused, with the setting that cures it."""
    name = database(mysql)
    fill(mysql, name, "t", *WIDE, 60000)
    kept = mysql.sql("SELECT @@GLOBAL.innodb_online_alter_log_max_size")[0][0]
    mysql.sql("SET GLOBAL innodb_online_alter_log_max_size = 65536")
    faults: list[DbFault] = []
    used = use(mysql, Execution(lock_timeout=5))

    def rebuild() -> None:
        try:
            used.carry_out(Rebuild(Ref(name, ("t",))))
        except DbFault as fault:
            faults.append(fault)

    try:
        with client(mysql, name) as writer:
            thread = background(rebuild)
            wait_until(lambda: running(mysql, "ALTER TABLE"))
            while thread.is_alive():
                writer("UPDATE t SET v = repeat('z', 200) WHERE id < 3000")
                writer("UPDATE t SET v = repeat('y', 201) WHERE id < 3000")
            thread.join()
    finally:
        mysql.sql(f"SET GLOBAL innodb_online_alter_log_max_size = {kept}")
    assert [type(f) for f in faults] == [Refused]
    assert "innodb_online_alter_log_max_size" in faults[0].cure
