# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who waits for whom on MySQL and MariaDB, and what is shown of what their sessions say."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.waits import blotted, definition_waits
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Health
from tests.fleet import Server

from .conftest import Pool
from .my import fill, wait_until
from .sessions import People, advice, by_id, chained, gathering, health

Make = Callable[[Server], str]


@pytest.fixture
def people() -> Iterator[Callable[[Server, str], People]]:
    yield from gathering()


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
