# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What messages say, and that names which mean harm are nothing but names in every form."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import Message
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_words import plain
from tests.playbook.results import assessed, finding, mixed

from .watch import GONE, WANTED, Watch, measured, stats

EVERYTHING = WANTED._replace(
    calls=["mail", "slack", "webhook", "pager"],
    daily=["mail", "slack", "webhook"],
    weekly=["mail", "slack", "webhook"],
    url="https://example.com/r?a=1&b=2",
)
HARM = (
    "x\r\nBcc: everyone@example.com\r\n\r\n<script>alert(1)</script> <!channel> <@U123> @everyone @here "
    "[click](https://evil.example.com) `code` *bold* ~no~ \u202eturned\x00 caf\udce9 <https://evil.example.com|bank>"
)


def told(hosts: dict[str, Any], **wanted: Any) -> dict[str, Message]:
    """All messages by their names."""
    return {one.id: one for one in Watch(EVERYTHING._replace(**wanted)).look(hosts)}


def hostile() -> dict[str, Any]:
    """A fleet in which everything that can have a name has a bad one."""
    urgent = finding(1, "horizon_pinned", HARM, HARM, fix=HARM, database=HARM)
    slow = {"text": HARM, "database": HARM, "calls": 1, "mean_seconds": 9.0}
    table = {"database": HARM, "object": HARM, "total_bytes": 1 << 40}
    figures = stats(slow_statements=[slow], sizes={"tables": [table]})
    return {HARM: measured(figures, findings=[urgent]), "gone": {"maintenance_error": HARM}}


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("name", ["call", "daily", "weekly"])
def test_no_name_is_a_tag_of_a_mail(name: str) -> None:
    tags = Tags()
    tags.feed(told(hostile())[f"{name}-mail"].body)
    names = {tag for tag, _attributes in tags.found}
    assert names <= {"html", "head", "meta", "title", "body", "div", "h1", "h2", "p", "b", "br", "code", "a"}
    assert [attributes for tag, attributes in tags.found if tag == "a"] == [{"href": EVERYTHING.url}]


def test_no_name_ends_a_subject_or_a_line() -> None:
    messages = [*told(hostile()).values(), *told(hostile(), html=False).values()]
    assert len(messages) == 2 * 10
    for one in messages:
        assert one.subject.isprintable(), one.id
        assert len(one.subject) <= 140
        assert not re.search("^(bcc|x$)", one.text, re.IGNORECASE | re.MULTILINE)
        assert "\x00" not in one.text and "\u202e" not in one.text


@pytest.mark.parametrize("name", ["call", "daily", "weekly"])
def test_no_name_calls_everybody_in_a_chat(name: str) -> None:
    text = told(hostile())[f"{name}-slack"].body["text"]
    # All that is between angle brackets is ours.
    assert re.findall("<[^>]*>", text) == ["<https://example.com/r?a=1&amp;b=2|Report>"]
    assert not re.search("@(everyone|here|channel|U123)", text)
    assert "evil.example.com" in text and "://evil" not in text
    assert "](" not in text and "`" not in text
    # Stars are at the ends of lines that we made bold, and nowhere else.
    assert all(line.count("*") in (0, 2) for line in text.splitlines())
    assert len(text) <= 4000


def test_everything_can_be_sent_as_json_in_utf_8() -> None:
    for one in told(hostile()).values():
        body = one.body if isinstance(one.body, dict) else {"text": one.body}
        assert json.loads(json.dumps(body, ensure_ascii=False).encode()) == body


def test_an_address_that_is_none_is_no_link() -> None:
    messages = told(hostile(), url="javascript:alert(1)")
    assert "<a " not in messages["call-mail"].body
    assert "javascript" not in messages["call-slack"].body["text"]
    (page,) = (one for name, one in messages.items() if "trigger" in name)
    assert "links" not in page.body


@pytest.mark.parametrize("size", [1000])
def test_messages_stay_short_however_large_the_fleet(size: int) -> None:
    hosts = {f"db{number:04}": hostile()[HARM] if number % 2 else GONE for number in range(size)}
    messages = told({**hosts, **mixed(30)})
    assert len(messages) == 10
    for one in messages.values():
        assert len(json.dumps(one.body)) < 50_000, one.id
        assert len(one.text) < 12_000, one.id
    (page,) = (one for name, one in messages.items() if "trigger" in name)
    assert len(page.body["payload"]["summary"]) <= 1024


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_a_call_says_what_where_and_what_helps() -> None:
    message = told(mixed(12), html=False)["call-mail"]
    assert message.subject == "Databases: 4 critical, 6 warnings: out of reach, did not report, failed"
    assert message.body == message.text
    assert "- billing: was expected and did not report\n" in message.text
    assert (
        "- shop-eu-primary shop public.orders: 812,113 dead rows cannot be removed: a transaction of app@10.0.3.7 is "
        "open for 3 d 4 h\n  > SELECT pg_catalog.pg_terminate_backend(41873)\n"
    ) in message.text
    assert message.text.endswith(f"Standing now: 4 critical, 6 warnings.\n{EVERYTHING.url}\n")


def test_a_day_says_what_stands_and_what_was_done() -> None:
    message = told(mixed(12))["daily-mail"]
    assert message.subject.startswith("Databases: day: 1 of 12 failed, 1 of 12 out of reach, 1 of 12 did not report")
    for words in (
        "CRITICAL",
        "WARNING",
        "TO BE DECIDED",
        "DONE",
        "- vacuum: 3 of 4 steps, on 2 hosts",
        "1,292,113 rows",
    ):
        assert words in message.text
    # What somebody is called for is not told twice.
    assert message.text.count("812,113 dead rows cannot be removed") == 1
    assert "CREATE INDEX CONCURRENTLY" in message.text


def test_many_hosts_with_one_trouble_are_one_line() -> None:
    text = told({f"db{number}": GONE for number in range(9)})["call-webhook"].text
    said = "out of reach: Failed to connect to the host via ssh: no route to host"
    assert f"- 9 hosts: db0, db1, db2, db3, db4, db5, db6, db7 and 1 more: {said}\n" in text


def test_a_week_says_what_every_day_did() -> None:
    watch = Watch(EVERYTHING._replace(calls=[], daily=[], weekly=["mail"]))
    told_on = []
    for day in range(10):
        found = watch.look(mixed(12), 24 * day)
        watch.sent(found)
        told_on += [day] * len(found)
    assert told_on == [0, 2, 9]  # at first, and on Tuesdays: Monday's run comes before the hour
    days = re.findall(r"- (2026-\d\d-\d\d): (\d+) runs? on 12 hosts, 3.0 GB freed", found[0].text)
    assert [day for day, _runs in days] == [*(f"2026-11-{number}" for number in range(25, 31)), "2026-12-01"]
    assert "GROW FASTEST" in found[0].text and "MOST BLOAT" in found[0].text


def test_a_summary_of_a_fleet_that_is_well_says_so() -> None:
    message = told({"db1": {"maintenance_assessed": assessed()}})["daily-mail"]
    assert message.subject == "Databases: day: 1 of 1 without errors"
    assert "Standing now: 0 critical, 0 warnings." in message.text


def test_what_cannot_be_printed_is_left_out() -> None:
    assert plain("a\r\n\tb\x00\u202ec\udce9\u2028d") == "a b c d"
    assert plain("x" * 300) == "x" * 279 + "…"
