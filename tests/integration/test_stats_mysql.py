# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The health of MySQL and MariaDB servers: sessions, who waits for whom, statements, replication, logs, privileges."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pymysql
import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import MySQL
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.waits import blotted, definition_waits
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Backend, Health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution
from tests.fleet import Fleet, Missing, Server

from .advising import Advice, advise
from .conftest import Pool, missing
from .my import background, client, fill, small, use, wait_until

Make = Callable[[Server], str]
WATCHING = {"performance_schema": "ON", "performance_schema_instrument": "wait/lock/metadata/sql/mdl=ON"}


@pytest.fixture(scope="module")
def watching(fleet: Fleet) -> Server:
    """MariaDB with performance_schema, metadata locks among what it watches."""
    try:
        return fleet.mariadb(settings=WATCHING)
    except Missing as why:
        missing(why)


@pytest.fixture(params=["mysql", "mariadb", "mariadb that watches"])
def each(request: pytest.FixtureRequest, pool: Pool) -> Server:
    if request.param == "mariadb that watches":
        found: Server = request.getfixturevalue("watching")
        return found
    return pool.get(str(request.param))


@pytest.fixture(params=["mysql", "mariadb that watches"])
def seeing(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """Servers that tell who holds metadata locks."""
    found: Server = pool.get("mysql") if request.param == "mysql" else request.getfixturevalue("watching")
    return found


def health(server: Server, **login: Any) -> Health:
    with use(server, **login) as used, used.engine.session("") as session:
        return used.engine.health(session, used.server)


def advice(server: Server, database: str, **options: Any) -> Advice:
    return advise(MySQL(server.login(), Execution()), [database], **options)


class People:
    """Sessions of applications that wait for each other; all are gone at the end."""

    def __init__(self, server: Server, database: str) -> None:
        self.server, self.database = server, database
        self.open: list[Any] = []

    def join(self, *statements: str, waits: bool = False) -> int:
        """Runs these in one transaction; with `waits` the last one is not waited for."""
        login: dict[str, Any] = {"user": self.server.user, "password": self.server.password}
        link = pymysql.connect(
            host=self.server.host, port=self.server.port, database=self.database, autocommit=False, **login
        )
        self.open.append(link)
        cursor: Any = link.cursor()
        cursor.execute("SELECT CONNECTION_ID()")
        thread = int(cursor.fetchone()[0])
        for statement in statements[: -1 if waits else None]:
            cursor.execute(statement)
        if waits:
            background(lambda: self._quietly(cursor, statements[-1]))
            wait_until(lambda: self._at_it(thread))
        return thread

    def _quietly(self, cursor: Any, statement: str) -> None:
        with contextlib.suppress(Exception):  # it is killed in the end
            cursor.execute(statement)

    def _at_it(self, thread: int) -> bool:
        query = f"SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = {thread} AND COMMAND = 'Query'"
        return bool(self.server.sql(query))

    def leave(self) -> None:
        for link in self.open:
            with contextlib.suppress(Exception):
                self.server.sql(f"KILL {link.thread_id()}")
            with contextlib.suppress(Exception):
                link.close()


@pytest.fixture
def people() -> Iterator[Callable[[Server, str], People]]:
    made: list[People] = []

    def make(server: Server, database: str) -> People:
        made.append(People(server, database))
        return made[-1]

    yield make
    for some in made:
        some.leave()


def by_id(found: Health) -> dict[int, Backend]:
    assert found.backends is not None
    return {backend.id: backend for backend in found.backends}


# ---- who waits for whom ----------------------------------------------------------------------------------------------


def test_a_chain_of_row_locks(each: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    """The root is named once, with all that wait for it; ending it as printed lets them go on."""
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 5)
    some = people(each, name)
    root = some.join("UPDATE t SET v = 0 WHERE id = 1")
    first = some.join("UPDATE t SET v = 0 WHERE id = 2", "UPDATE t SET v = 1 WHERE id = 1", waits=True)
    last = some.join("UPDATE t SET v = 2 WHERE id = 2", waits=True)
    found = wait_until(lambda: chained(each, first, last))
    assert found[first].blocked_by == (root,)
    assert found[last].blocked_by == (first,)
    assert found[first].waits_for == f"a row lock on {name}.t"
    assert found[root].state == "idle in transaction"
    assert found[root].blocked_by == ()
    assert (found[root].transaction_seconds or -1) >= (found[last].wait_seconds or 0) >= 0
    assert found[first].statement == "UPDATE t SET v = 1 WHERE id = 1"
    (blocked,) = [r for r in advice(each, name, lock_wait="0s").recommended if r["code"] == "blocked"]
    assert "2 sessions wait" in blocked["message"]
    assert blocked["fix"] == f"KILL {root}"
    each.sql(blocked["fix"])
    wait_until(lambda: first in by_id(health(each)) and not by_id(health(each))[first].blocked_by)
    long = [r for r in advice(each, name, long_transaction="0s").recommended if r["code"] == "long_transaction"]
    assert f"KILL {first}" in {r["fix"] for r in long}


def chained(server: Server, *waiting: int) -> dict[int, Backend] | None:
    found = by_id(health(server))
    return found if all(found.get(x) and found[x].blocked_by for x in waiting) else None


def test_metadata_locks(seeing: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    """An old reader holds up a change of the table, which holds up everybody."""
    name = database(seeing)
    fill(seeing, name, "t", "id int primary key, v int", "i, i", 5)
    some = people(seeing, name)
    reader = some.join("SELECT * FROM t")
    change = some.join("ALTER TABLE t ADD COLUMN w int", waits=True)
    late = some.join("SELECT * FROM t", waits=True)
    found = wait_until(lambda: chained(seeing, change, late))
    assert found[change].blocked_by == (reader,)
    assert found[late].blocked_by == (change,)
    assert found[late].waits_for == f"a metadata lock on {name}.t"
    (blocked,) = [r for r in advice(seeing, name, lock_wait="0s").recommended if r["code"] == "blocked"]
    assert blocked["fix"] == f"KILL {reader}"
    seeing.sql(blocked["fix"])
    wait_until(lambda: late not in by_id(health(seeing)) or not by_id(health(seeing))[late].blocked_by)


def test_everything_locked(seeing: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    """As a backup does with FLUSH TABLES WITH READ LOCK, and applications with GET_LOCK."""
    name = database(seeing)
    fill(seeing, name, "t", "id int primary key, v int", "i, i", 5)
    some = people(seeing, name)
    agreed = some.join("SELECT GET_LOCK('nightly', 1)")
    second = some.join("SELECT GET_LOCK('nightly', 30)", waits=True)
    backup = some.join("FLUSH TABLES WITH READ LOCK")
    writer = some.join("UPDATE t SET v = 9", waits=True)
    found = wait_until(lambda: chained(seeing, second, writer))
    assert found[second].blocked_by == (agreed,)
    assert found[writer].blocked_by == (backup,)
    assert found[backup].state == "idle"


def test_metadata_locks_unseen(pool: Pool, database: Make, people: Callable[[Server, str], People]) -> None:
    """MariaDB as it comes says who waits, and not for whom: with its plugin it does."""
    server = pool.get("mariadb")
    name = database(server)
    fill(server, name, "t", "id int primary key, v int", "i, i", 5)
    some = people(server, name)
    reader = some.join("SELECT * FROM t")
    change = some.join("ALTER TABLE t ADD COLUMN w int", waits=True)
    late = some.join("SELECT * FROM t", waits=True)
    unseen = wait_until(lambda: unwatched(server))
    waiting = {b.id: b for b in unseen.backends or ()}
    assert waiting[change].waits_for == "a metadata lock"
    assert waiting[change].blocked_by == waiting[late].blocked_by == ()
    fix = unseen.unknown["blocking sessions"].partition(": ")[2]
    assert fix.startswith("INSTALL")
    server.sql(fix)
    try:
        found = wait_until(lambda: chained(server, change, late))
        assert found[change].blocked_by == (reader,)
        assert found[late].blocked_by == (change,)
        assert "blocking sessions" not in health(server).unknown
    finally:
        some.leave()
        server.sql("UNINSTALL SONAME 'metadata_lock_info'")


def unwatched(server: Server) -> Health | None:
    found = health(server)
    return found if sum(bool(b.waits_for) for b in found.backends or ()) == 2 else None


def test_matrix_of_definition_locks() -> None:
    """Who waits is not held up by those that it could share the table with."""
    rows = [
        ("TABLE", "d", "t", "SHARED_READ", "GRANTED", 1),
        ("TABLE", "d", "t", "SHARED_UPGRADABLE", "GRANTED", 2),
        ("TABLE", "d", "t", "EXCLUSIVE", "PENDING", 2),
        ("TABLE", "d", "t", "SHARED_WRITE", "PENDING", 3),
        ("TABLE", "d", "other", "EXCLUSIVE", "GRANTED", 4),
    ]
    found = definition_waits(rows)
    assert {thread: wait.blockers for thread, wait in found.items()} == {2: {1}, 3: {2}}


# ---- what sessions say -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE USER x@y IDENTIFIED BY 'hidden'",
        "ALTER USER x IDENTIFIED WITH sha BY \"hidden\" REPLACE 'hidden'",
        "SET PASSWORD = PASSWORD('hid\\'den, hidden')",
        "CHANGE MASTER TO MASTER_HOST='h', MASTER_PASSWORD='hidden",
        "SELECT AES_DECRYPT(c, 'hidden') FROM t",
        "update users set passwd = 0x68696464656e where 'hidden' = 1",
        "CREATE SERVER s FOREIGN DATA WRAPPER mysql OPTIONS (USER 'u', PASSWORD 'hidden')",
    ],
)
def test_no_secret_is_shown(statement: str) -> None:
    shown = blotted(statement)
    assert "hid" not in shown
    assert "68" not in shown
    assert shown.startswith(statement[:6])


def test_statements_are_cut_and_secrets_of_sessions_unseen(
    each: Server, database: Make, people: Callable[[Server, str], People]
) -> None:
    some = people(each, database(each))
    long = some.join(f"SELECT SLEEP(20), '{'x' * 5000}'", waits=True)
    secret = some.join("SELECT SLEEP(20), 'hidden' AS password", waits=True)
    found = by_id(health(each))
    assert len(found[long].statement) == 200
    assert "hidden" not in found[secret].statement
    query = [r for r in advice(each, some.database, long_query="0s").recommended if r["code"] == "long_query"]
    assert {f"KILL {long}", f"KILL {secret}"} <= {r["fix"] for r in query}
    assert "hidden" not in str(query)


# ---- counters --------------------------------------------------------------------------------------------------------


def test_connections_and_counters(each: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    some = people(each, database(each))
    before = health(each).connections
    assert before
    for _person in range(5):
        some.join("SELECT 1")
    found = health(each)
    assert found.connections
    assert found.connections.used - before.used == 5
    assert found.connections.most == 60
    assert (found.connections.idle or 0) - (before.idle or 0) == 5
    assert found.uptime_seconds
    assert found.counted_since
    assert 0 < (found.cache_hit_percent or 0) <= 100
    assert found.deadlocks is not None
    assert found.purge_pending is not None
    assert found.slots == ()
    assert found.prepared == ()
    assert found.archiver is None
    shares = {"connection_warning": 100 * 5 / 60, "connection_critical": 99.0}
    assert "connections" in advice(each, some.database, **shares).codes()


def test_deadlocks_are_counted(each: Server, database: Make, people: Callable[[Server, str], People]) -> None:
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    before = health(each).deadlocks or 0
    some = people(each, name)
    some.join("UPDATE t SET v = 5 WHERE id = 1")
    some.join("UPDATE t SET v = 6 WHERE id = 2", "UPDATE t SET v = 6 WHERE id = 1", waits=True)
    with some.open[0].cursor() as cursor, contextlib.suppress(pymysql.Error):
        cursor.execute("UPDATE t SET v = 5 WHERE id = 2")
    wait_until(lambda: (health(each).deadlocks or 0) == before + 1)


def test_slow_statements(seeing: Server, database: Make) -> None:
    """By their mean time; no value of theirs is shown, and no change of a definition is among them."""
    name = database(seeing)
    with client(seeing, name) as say:
        say("CREATE TABLE slow (id int primary key)")
        say("SELECT SLEEP(0.4), 'value' FROM (SELECT 1) AS one")
        say("SELECT SLEEP(0.4), 'value' FROM (SELECT 1) AS one")
    found = health(seeing)
    assert found.statements
    assert found.statement_calls
    (slow,) = [s for s in found.statements if s.database == name and "SLEEP" in s.text]
    assert slow.calls == 2
    assert 0.4 <= slow.mean_seconds < 2
    assert slow.total_seconds == pytest.approx(2 * slow.mean_seconds, rel=0.01)
    assert "value" not in slow.text
    assert not [s for s in found.statements if s.text.startswith("CREATE")]
    limits = {"slow_statement_warning": "300ms", "slow_statement_critical": "10s"}
    said = [r for r in advice(seeing, name, **limits).recommended if r["code"] == "slow_statement"]
    assert any(r["database"] == name for r in said)


def test_performance_schema_off_is_unknown(pool: Pool) -> None:
    found = health(pool.get("mariadb"))
    assert found.statements is None
    assert found.statement_calls is None
    assert found.unknown["statements"].startswith("performance_schema is off")


def test_binary_logs(each: Server, database: Make) -> None:
    logs = health(each).logs
    assert logs
    assert logs.enabled
    assert (logs.files or 0) >= 1
    assert logs.bytes
    name = "binlog_expire_logs_seconds"
    before = each.sql(f"SELECT @@GLOBAL.{name}")[0][0]
    try:
        each.sql(f"SET GLOBAL {name} = 86400")
        again = health(each).logs
        assert again
        assert again.expire_seconds == 86400
        each.sql(f"SET GLOBAL {name} = 0")
        assert "logs_never_expire" in advice(each, database(each)).codes()
    finally:
        each.sql(f"SET GLOBAL {name} = {before}")


def test_prepared_transactions(each: Server, database: Make) -> None:
    """Whoever prepared it is gone: only then may another session end it. Its name may hold any byte."""
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    for xid in ("'order','7',3", "X'27FF00',X'',1"):
        prepare(each, name, xid)
        try:
            found = wait_until(lambda: health(each).prepared)
            assert len(found) == 1
            assert found[0].seconds is not None
            all_told = advice(each, name, long_transaction="0s").recommended
            told = [r for r in all_told if r["code"] == "prepared_transaction"]
            assert len(told) == 1
            each.sql(told[0]["fix"])
            assert health(each).prepared == ()
        finally:
            forget(each, xid)


def prepare(server: Server, database: str, xid: str) -> None:
    with client(server, database) as say:
        for word in ("START", "END", "PREPARE"):
            say(f"XA {word} {xid}")
            if word == "START":
                say("UPDATE t SET v = 9 WHERE id = 1")


def forget(server: Server, xid: str) -> None:
    """Whatever came of the test: it would keep its database from being dropped."""
    with contextlib.suppress(Exception):
        server.sql(f"XA ROLLBACK {xid}")


def test_waiting_for_a_prepared_transaction(
    each: Server, database: Make, people: Callable[[Server, str], People]
) -> None:
    name = database(each)
    fill(each, name, "t", "id int primary key, v int", "i, i", 2)
    prepare(each, name, "'lost'")
    try:
        waiting = people(each, name).join("UPDATE t SET v = 8 WHERE id = 1", waits=True)
        found = wait_until(lambda: chained(each, waiting))
        assert found[waiting].blocked_by == (0,)
        blocked = [r for r in advice(each, name, lock_wait="0s").recommended if r["code"] == "blocked"]
        assert "prepared transaction" in blocked[0]["message"]
    finally:
        forget(each, "'lost'")


# ---- replication -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("product", ["mysql", "mariadb"])
def test_replication(fleet: Fleet, product: str) -> None:
    """Both ends are seen, a stopped applier and a conflict are told, and facts are read on a replica as well."""
    try:
        if product == "mysql":
            primary = fleet.mysql()
            replica = fleet.mysql_replica(primary)
        else:
            maria = primary = fleet.mariadb()
            replica = fleet.mariadb_replica(maria)
    except Missing as why:
        missing(why)
    try:
        primary.sql("CREATE DATABASE d")
        primary.sql("CREATE TABLE d.t (id int primary key)")
        replica.catch_up(primary)
        (down,) = health(primary).replicas or ()
        assert (down.upstream, down.state, down.error) == (False, "streaming", "")
        (up,) = health(replica).replicas or ()
        assert (up.upstream, up.state, up.error) == (True, "streaming", "")
        assert up.lag_seconds == 0
        assert str(primary.port) in up.name
        assert "replication_broken" not in advice(replica, "d").codes()
        word = "SLAVE" if product == "mariadb" else "REPLICA"
        replica.sql(f"STOP {word}")
        stopped = [r for r in advice(replica, "d").recommended if r["code"] == "replication_broken"]
        assert "does not run" in stopped[0]["message"]
        replica.sql("INSERT INTO d.t VALUES (1)")
        replica.sql(f"START {word}")
        primary.sql("INSERT INTO d.t VALUES (1)")
        wait_until(lambda: (health(replica).replicas or ())[0].error)
        (broken,) = [r for r in advice(replica, "d").recommended if r["code"] == "replication_broken"]
        assert "uplicate" in broken["message"]
        assert broken["priority"] == 1
    finally:
        replica.stop()
        primary.stop()


# ---- privileges ------------------------------------------------------------------------------------------------------


def test_low_privilege(each: Server, database: Make) -> None:
    """Nothing is taken for none; with the GRANTs that are named it is seen."""
    name = database(each)
    login = small(each, f"SELECT ON `{name}`.*")
    found = health(each, **login)
    assert (found.backends, found.replicas, found.logs) == (None, None, None)
    assert found.connections
    assert found.connections.idle is None
    if each.engine == "mysql":
        assert (found.statements, found.prepared, found.purge_pending) == (None, None, None)
    grants = {why.partition(": ")[2] for why in found.unknown.values() if ": GRANT " in why}
    assert grants
    for grant in grants:
        each.sql(grant)
    again = health(each, **login)
    uncounted = {"temporary_bytes", "statements", "statement_calls", "statement_seconds", "index uses"}
    assert set(again.unknown) <= uncounted
    assert not any("GRANT" in why for why in again.unknown.values())
    if each.engine == "mysql":
        assert again.statements is not None
    assert again.backends is not None
    assert again.logs
    assert again.replicas == ()
