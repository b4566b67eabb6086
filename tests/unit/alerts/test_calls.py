# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is told what and how often: once when it begins, when it gets worse, when it ends; and nothing is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _calls
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import Message

from .watch import GONE, HEALTHY, WANTED, Watch, measured, stats

FULL, NEARLY = (measured(stats(connections=share)) for share in (99.0, 85.0))
FREE = measured(stats())


def test_a_standing_problem_calls_once_and_its_end_once() -> None:
    watch = Watch()
    told = [watch.tell({"db1": host}, hour) for hour, host in enumerate([FREE, NEARLY, NEARLY, NEARLY, FREE, FREE])]
    assert told == [
        [],
        ["Databases: 1 warning: db1 85 % of the connections are taken"],
        [],
        [],
        ["Databases: 1 over"],
        [],
    ]


def test_what_gets_worse_calls_again_each_time() -> None:
    watch = Watch()
    told = [watch.tell({"db1": host}, hour) for hour, host in enumerate([NEARLY, FULL, FULL, NEARLY, FULL])]
    worse = ["Databases: 1 critical: db1 99 % of the connections are taken"]
    assert told == [["Databases: 1 warning: db1 85 % of the connections are taken"], worse, [], [], worse]


def test_what_did_not_go_out_comes_again_with_what_is_new() -> None:
    watch = Watch()
    (first,) = watch.look({"db1": FULL, "db2": FREE})
    (again,) = watch.look({"db1": FULL, "db2": FREE}, 1)
    assert first.subject == again.subject
    (both,) = watch.look({"db1": FULL, "db2": FULL}, 2)
    assert both.subject == "Databases: 2 critical: connections"
    watch.sent([both])
    assert watch.look({"db1": FULL, "db2": FULL}, 3) == []


def test_an_end_that_was_not_told_comes_again() -> None:
    watch = Watch()
    watch.tell({"db1": FULL})
    watch.look({"db1": FREE}, 1)
    assert watch.tell({"db1": FREE}, 2) == ["Databases: 1 over"]


def test_what_begins_and_ends_while_nobody_could_be_called_is_no_news() -> None:
    watch = Watch()
    watch.look({"db1": FULL})
    assert watch.look({"db1": FREE}, 1) == []


def test_each_channel_has_a_memory_of_its_own() -> None:
    watch = Watch(WANTED._replace(calls=["slack", "mail"]))
    watch.sent(one for one in watch.look({"db1": FULL}) if one.channel == "slack")
    assert [one.channel for one in watch.look({"db1": FULL}, 1)] == ["mail"]


def test_a_channel_that_is_new_is_told_what_stands() -> None:
    watch = Watch()
    watch.tell({"db1": FULL})
    watch.wanted = WANTED._replace(calls=["slack", "webhook"])
    assert [one.channel for one in watch.look({"db1": FULL}, 1)] == ["webhook"]


def test_two_hundred_hosts_are_one_message() -> None:
    watch = Watch(WANTED._replace(calls=["slack", "mail", "pager"]))
    found = watch.look({f"db{number:03}": GONE for number in range(200)})
    assert [one.channel for one in found] == ["slack", "mail", "pager"]
    for one in found:
        assert "200 critical" in one.subject
        assert len(one.text) < 1000
    assert "db000, db001" in found[0].text and "and 192 more" in found[0].text


def test_reminders_come_after_their_time_and_only_for_what_is_old() -> None:
    watch = Watch(WANTED._replace(reminder=3600.0 * 24))
    assert len(watch.tell({"db1": FULL, "db2": FREE})) == 1
    assert watch.tell({"db1": FULL, "db2": FREE}, 23) == []
    assert watch.tell({"db1": FULL, "db2": NEARLY}, 23.5) == [
        "Databases: 1 warning: db2 85 % of the connections are taken"
    ]
    assert watch.tell({"db1": FULL, "db2": NEARLY}, 24) == ["Databases: 1 still so"]
    assert watch.tell({"db1": FULL, "db2": NEARLY}, 47) == []


def test_nobody_is_reminded_by_default() -> None:
    watch = Watch()
    watch.tell({"db1": FULL})
    assert watch.tell({"db1": FULL}, 24 * 365) == []


# ---- the pager -------------------------------------------------------------------------------------------------------

PAGED = WANTED._replace(calls=["pager"])


def events(messages: list[Message]) -> list[tuple[str, str]]:
    return [(one.body["event_action"], one.body["dedup_key"]) for one in messages]


def test_a_pager_is_called_for_what_is_critical_alone() -> None:
    watch = Watch(PAGED)
    assert watch.look({"db1": NEARLY}) == []
    ((action, name),) = events(watch.look({"db1": FULL}, 1))
    watch.sent(watch.look({"db1": FULL}, 2))
    assert watch.look({"db1": FULL}, 3) == []
    assert (action, events(watch.look({"db1": NEARLY}, 4))) == ("trigger", [("resolve", name)])


def test_what_comes_later_is_an_incident_of_its_own() -> None:
    watch = Watch(PAGED)
    first = watch.look({"db1": FULL, "db2": FREE})
    watch.sent(first)
    second = watch.look({"db1": FULL, "db2": FULL}, 1)
    assert events(first) != events(second)
    watch.sent(second)
    assert [action for action, _name in events(watch.look({"db1": FREE, "db2": FULL}, 2))] == ["resolve"]


def test_an_incident_ends_with_the_last_of_its_alarms() -> None:
    watch = Watch(PAGED)
    watch.sent(watch.look({"db1": FULL, "db2": FULL}))
    assert watch.look({"db1": FREE, "db2": FULL}, 1) == []
    assert [action for action, _name in events(watch.look({"db1": FREE, "db2": FREE}, 2))] == ["resolve"]


def test_an_event_that_is_sent_again_is_the_same_incident() -> None:
    watch = Watch(PAGED)
    assert events(watch.look({"db1": FULL})) == events(watch.look({"db1": FULL}, 1))


def test_an_incident_of_which_nobody_knows_whether_it_was_opened_is_closed() -> None:
    watch = Watch(PAGED)
    ((_action, name),) = events(watch.look({"db1": FULL}))  # and the run is killed before it can keep that it went out
    closing = watch.look({"db1": FREE}, 1)
    assert events(closing) == [("resolve", name)]
    watch.sent(closing)
    assert watch.look({"db1": FREE}, 2) == []


# ---- laws ------------------------------------------------------------------------------------------------------------

HOSTS = ("db1", "db2", "db3")
FLEETS = st.fixed_dictionaries({name: st.sampled_from([FREE, NEARLY, FULL, GONE]) for name in HOSTS})
NIGHTS = st.lists(st.tuples(FLEETS, st.booleans()), min_size=1, max_size=12)


class Reader:
    """Believes what it is told."""

    def __init__(self) -> None:
        self.believes: dict[tuple[str, str], str] = {}

    def read(self, body: dict[str, Any]) -> None:
        for one in [*body["opened"], *body["worse"], *body["again"]]:
            self.believes[one["kind"], one["host"]] = one["level"]
        for one in body["ended"]:
            del self.believes[one["kind"], one["host"]]


@settings(deadline=None)
@given(NIGHTS)
def test_who_is_reached_knows_what_stands_and_nobody_is_called_for_nothing(nights: list[Any]) -> None:
    watch, reader = Watch(WANTED._replace(calls=["webhook"])), Reader()
    for hour, (hosts, arrives) in enumerate(nights):
        found = watch.look(hosts, hour)
        if arrives:
            for message in found:
                assert any(message.body["counts"].values())
                reader.read(message.body)
            watch.sent(found)
        stands = {(one["kind"], one["host"]): one["level"] for one in watch.state["alarms"].values()}
        if arrives:
            assert reader.believes.keys() == stands.keys()
            assert all(reader.believes[key] == "critical" for key, level in stands.items() if level == "critical")
            assert watch.look(hosts, hour) == []


@settings(deadline=None)
@given(NIGHTS)
def test_an_incident_is_open_exactly_while_something_of_it_is_critical(nights: list[Any]) -> None:
    """Also where an event arrived and the run died before it could say so."""
    watch, opened = Watch(PAGED), set()
    for hour, (hosts, kept) in enumerate(nights):
        found = watch.look(hosts, hour)
        for action, name in events(found):
            opened.add(name) if action == "trigger" else opened.discard(name)
        if kept:
            watch.sent(found)
        critical = {f"dbfleet-{one['page']}" for one in watch.state["alarms"].values() if one["level"] == "critical"}
        assert opened == critical


# ---- the state -------------------------------------------------------------------------------------------------------


def test_a_state_survives_its_file() -> None:
    watch = Watch(WANTED._replace(calls=["slack", "pager"], daily=["mail"]))
    watch.tell({"db1": FULL, "db2": GONE, "db3": HEALTHY})
    watch.look({"db1": FREE, "db2": GONE, "db3": GONE}, 1)
    watch.state["pending"] = {name: {**one, "run": "x"} for name, one in watch.state["pending"].items()}
    again = _calls.restored(json.loads(json.dumps(watch.state)))
    assert again == watch.state
    found, state = watch.look({"db1": FREE, "db2": GONE, "db3": GONE}, 2), watch.state
    watch.state = again
    assert (watch.look({"db1": FREE, "db2": GONE, "db3": GONE}, 2), watch.state) == (found, state)


def damaged() -> list[Any]:
    """A state with one part harmed in every way that a reader would stumble over."""
    watch = Watch()
    watch.tell({"db1": FULL})
    good = json.dumps(watch.state)
    key = next(iter(watch.state["alarms"]))
    harms: list[Any] = [None, [], "text", 1, {}, {"format": 2}]
    parts = ("alarms", "told", "hosts", "operations", "days", "pages", "pending", "summaries")
    harms += [{**json.loads(good), part: []} for part in parts]
    for field in watch.state["alarms"][key]:
        if field != "fix":
            harmed = json.loads(good)
            harmed["alarms"][key][field] = None
            harms.append(harmed)
    without = json.loads(good)
    del without["alarms"][key]["fix"]
    harms.append(without)
    wrong_operations: tuple[Any, ...] = ([], {"vacuum": None}, {"vacuum": "2026-11-22"})
    harms += [{**json.loads(good), "operations": {"db1": wrong}} for wrong in wrong_operations]
    wrong_times = ("yesterday", "2026-11-22T04:30:00", 3)
    harms += [{**json.loads(good), "hosts": {"db1": wrong}} for wrong in wrong_times]
    wrong_days: tuple[Any, ...] = ({}, [], {"runs": "many"})
    harms += [{**json.loads(good), "days": {"2026-11-22": wrong}} for wrong in wrong_days]
    wrong_told: tuple[Any, ...] = ([], {"x": 1}, {key: {"at": "x"}})
    harms += [{**json.loads(good), "told": {"slack": wrong}} for wrong in wrong_told]
    return harms


@pytest.mark.parametrize("found", damaged(), ids=lambda found: "")
def test_a_damaged_state_is_recognised(found: Any) -> None:
    with pytest.raises((ValueError, LookupError, TypeError, AttributeError)):
        _calls.restored(found)
