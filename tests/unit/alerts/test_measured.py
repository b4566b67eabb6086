# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls for what the assessment really returns, rather than for what a test has made up."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import assess_module
from ansible_collections.dbfleet.maintenance.plugins.module_utils._health import Connections, Health, Statement
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Measured, Server, Table
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _calls
from tests.unit.modules import run
from tests.unit.samples import GB, MB, fleets, table
from tests.unit.test_facts import peopled
from tests.unit.world import World

from .test_words import EVERYTHING
from .watch import Watch, wrong


class Seen(World):
    """With what its server says of itself."""

    def __init__(self, *tables: Table, said: Health) -> None:
        super().__init__(*tables)
        self.said = said

    def health(self, session: Any, server: Server) -> Health:
        return self.said


def assessed(world: World, **options: Any) -> dict[str, Any]:
    """What a host leaves."""
    ran = run(assess_module, world, {"vacuum": {}, "reindex": {}, **options})
    assert ran.code == 0
    return {"maintenance_assessed": ran.result}


def test_figures_of_a_server_are_found_where_the_assessment_puts_them() -> None:
    health = Health(
        connections=Connections(used=97, most=100),
        statements=(Statement("SELECT 1", "shop", 12, 6.0, 72.0), Statement("SELECT 2", "shop", 9, 0.1, 0.9)),
    )
    old = table("orders", total_bytes=3 * GB, bytes=2 * GB, freeze_percent=160.0)
    found = wrong({"db1": assessed(Seen(old, said=health))})
    assert {key: one.level for key, one in found.items()} == {
        ("connections", "db1", ""): "critical",
        ("statements", "db1", "shop SELECT 1"): "critical",
        ("table", "db1", "shop public.orders"): "warning",
        ("transaction_ids", "db1", "shop"): "critical",
    }


def test_what_was_not_measured_ends_nothing() -> None:
    def server(used: int | None) -> World:
        return Seen(table(total_bytes=MB), said=Health(connections=Connections(used, 100) if used else None))

    watch = Watch()
    assert watch.tell({"db1": assessed(server(97))}) == ["Databases: 1 critical: db1 97 % of the connections are taken"]
    assert watch.tell({"db1": assessed(server(7), statistics=False)}, 1) == []
    assert watch.tell({"db1": assessed(server(None))}, 2) == []  # may not see sessions any more
    assert watch.tell({"db1": assessed(server(7))}, 3) == ["Databases: 1 over"]


@settings(max_examples=25, deadline=None)
@given(fleets())
def test_whatever_is_measured_can_be_told_kept_and_read_again(seen: Measured) -> None:
    watch, hosts = Watch(EVERYTHING), {"db1": assessed(peopled(seen))}
    messages = watch.look(hosts)
    for one in messages:
        json.dumps(one.body).encode()
        assert one.subject.isprintable()
    watch.sent(messages)
    watch.state = _calls.restored(json.loads(json.dumps(watch.state)))
    assert watch.look(hosts) == []
