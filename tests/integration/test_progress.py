# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What real servers say of long steps while these run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import progress
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref, Seen
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Rebuild, Reindex, Task, Vacuum
from tests.fleet import Server

from . import my, pg
from .conftest import Pool
from .module_runner import until

# Wide rows, so that few of them fill the pages that a vacuum with a pause after a few of them takes seconds for.
PAGES = """
CREATE TABLE orders (id int PRIMARY KEY, note text);
ALTER TABLE orders ALTER note SET STORAGE PLAIN;
INSERT INTO orders SELECT i, repeat('x', 6000) FROM generate_series(1, 1500) i;
DELETE FROM orders WHERE id % 2 = 0;
-- An index whose entries take two milliseconds each is built as slowly as the test needs it.
CREATE FUNCTION slow(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i FROM pg_sleep(0.002)';
CREATE INDEX orders_slow ON orders (slow(id))
"""


# Where there is a second index InnoDB says how far it is with it.
COLUMNS = "id int PRIMARY KEY, note varchar(200), key k (note)"

CONSUMER = "UPDATE performance_schema.setup_consumers SET ENABLED = '{}' WHERE NAME = 'events_stages_current'"


@contextmanager
def working(used: Any, task: Task) -> Iterator[Callable[[], Seen | None]]:
    """Carries a task out beside the test, and cancels it at the end; gives a function that asks how far it is."""
    failed: list[BaseException] = []
    with used.engine.session(task.ref.database) as session:

        def carry_out() -> None:
            try:
                for _tick in used.engine.carry_out(session, task, used.server, None):
                    pass
            except DbFault as fault:
                failed.append(fault)

        def ask() -> Seen | None:
            seen: Seen | None = used.engine.progress({7: (session, task)}, used.server).get(7)
            if seen is None and not thread.is_alive():
                raise AssertionError(f"it has ended: {failed}")
            return seen

        thread = threading.Thread(target=carry_out)
        thread.start()
        try:
            yield ask
        finally:
            session.cancel()
            thread.join(60)


def phases(ask: Callable[[], Seen | None], wanted: str) -> Seen:
    """The first that is said of this phase, once it has come beyond its beginning."""
    found: list[Seen] = []

    def there() -> bool:
        seen = ask()
        found.append(seen or Seen())
        return wanted in found[-1].phase and bool(found[-1].percent)

    until(there, what=f"{wanted}, with a percentage")
    return found[-1]


def test_postgresql_tells_of_a_vacuum_and_of_an_index(postgresql: Server, database: Callable[[Server], str]) -> None:
    name = database(postgresql)
    postgresql.script(PAGES, database=name)
    orders = Ref(name, ("public", "orders"))
    with pg.use(postgresql, Execution()) as used:
        with working(used, Vacuum(orders, cost_delay=100)) as ask:
            seen = phases(ask, "scanning heap")
            assert seen.percent is not None and 0 < seen.percent < 100
        index = Reindex(Ref(name, ("public", "orders_slow")), orders)
        with working(used, index) as ask:
            assert phases(ask, "building index").percent
        with working(used, Rebuild(orders, online=False)) as ask:
            until(lambda: "rebuilding index" in getattr(ask(), "phase", ""), what="the table's new indexes")
            seen = ask() or Seen()
        assert seen.rows == 750, seen
        with used.engine.session(name) as session:
            assert progress.streaming(session.worker(lock_timeout=1.0), "nobody") is None, "no backup is under way"


@pytest.mark.parametrize("product", ["mariadb", "mysql"])
def test_mariadb_and_mysql_tell_of_an_alter(product: str, pool: Pool, database: Callable[[Server], str]) -> None:
    server = pool.get(product)
    name = database(server)
    my.fill(server, name, "orders", COLUMNS, "i, repeat('x', 200)", 50_000)
    if product == "mysql":
        server.sql(CONSUMER.format("YES"))
    try:
        with my.use(server) as used, working(used, Rebuild(Ref(name, ("orders",)))) as ask:
            seen = phases(ask, "alter")
    finally:
        if product == "mysql":
            server.sql(CONSUMER.format("NO"))
    assert seen.whole and seen.percent is not None and 0 < seen.percent <= 100
