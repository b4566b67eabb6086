# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fleets and states for the tests of calls. No test lives here."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _alert_messages, _calls
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import Alarm, Limits
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import Message, Wanted
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_times import hours
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet import fleet
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet_host import Asked
from tests.playbook.results import assessed, unreachable

Data = dict[str, Any]
NIGHT = datetime(2026, 11, 22, 4, 30, tzinfo=UTC)
RAN = ("backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups")
WANTED = Wanted(Limits(), hours("UTC", "06:00", "monday"), "Databases", calls=["slack"])
HEALTHY: Data = {"maintenance_assessed": assessed()}
GONE = unreachable()


def at(hour: float = 0.0) -> datetime:
    """So many hours after the first night."""
    return NIGHT + timedelta(hours=hour)


def seen(hosts: Data, when: datetime = NIGHT) -> Data:
    """The data of the report."""
    return fleet(hosts, Asked("Databases", when, RAN))


def stats(*, connections: float | None = 10.0, **more: Any) -> Data:
    """The fact db_stats, as far as anybody is called for it."""
    used = None if connections is None else {"used": 1, "most": 100, "percent": connections}
    facts: Data = {"connections": used, "slow_statements": [], "sizes": {"tables": []}, "transaction_ids": {}}
    return {**facts, "recommendations": [], **more}


def measured(fact: Data, **more: Any) -> Data:
    """A host whose statistics were taken."""
    found = assessed(**more)
    found["ansible_facts"]["db_stats"] = {"engine": "postgresql", "server": {}, "growth": {}, **fact}
    return {"maintenance_assessed": found}


class Watch:
    """One state and whoever is told: looks at fleets, one after the other, and sends what is to be sent."""

    def __init__(self, wanted: Wanted = WANTED, inventory: Iterable[str] = ()) -> None:
        self.wanted, self.inventory = wanted, set(inventory)
        self.state = _calls.empty()

    def look(self, hosts: Data, hour: float = 0.0, ran: Iterable[str] = RAN) -> list[Message]:
        """What is to be sent now."""
        data = seen(hosts, at(hour))
        inventory = self.inventory | set(hosts)
        self.state = _alert_messages.looked(self.state, data, self.wanted, list(ran), inventory)
        found = _alert_messages.messages(self.state, data, self.wanted)
        self.state = _calls.begun(self.state, {one.id: one.pending for one in found})
        return found

    def sent(self, messages: Iterable[Message]) -> None:
        """These went out."""
        self.state = _calls.told(self.state, [one.pending for one in messages])

    def tell(self, hosts: Data, hour: float = 0.0, ran: Iterable[str] = RAN) -> list[str]:
        """The subjects of what was sent, and all of it went out."""
        found = self.look(hosts, hour, ran)
        self.sent(found)
        return [one.subject for one in found]


def wrong(hosts: Data, limits: Limits = WANTED.limits, ran: Iterable[str] = RAN) -> dict[tuple[str, str, str], Alarm]:
    """What is wrong by kind, host and subject, where nothing was known before."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import alarms

    found = alarms(seen(hosts), limits, _calls.known(_calls.empty()), list(ran), NIGHT)
    return {(one.kind, one.host, one.subject): one for one in found.values()}
