# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What calls and summaries say, before it takes the form of a channel (_alert_forms.py): subject, parts, lines. Pure.

Short on purpose: it is read on a phone. What is the same on many hosts is one line.
"""

from __future__ import annotations

import typing as t
import unicodedata

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_count, say_seconds

from ._alarms import CRITICAL, KINDS, WARNING
from ._alert_times import DAILY
from ._calls import Call, Data, State

LINES = 15  # of a part
APART = 3  # alarms of a kind up to which each has a line
HOSTS = 8  # names in a line
LONGEST = 280  # characters of a text
SUBJECT = 140
WORST = 2  # priority up to which findings are in the daily summary
TOP = 5
WORDS = {
    "unreachable": "out of reach",
    "missing": "did not report",
    "failed": "failed",
    "overdue": "no run without errors for too long",
    "urgent": "urgent findings",
    "backup": "backups too old",
    "transaction_ids": "transaction ids",
    "connections": "connections",
    "disk": "disk nearly full",
    "statements": "slow statements",
    "growth": "fast growth",
    "bloat": "bloat",
    "table": "large tables",
}


class Line(t.NamedTuple):
    where: str
    text: str
    fix: str = ""


class Part(t.NamedTuple):
    title: str
    tone: str  # critical, warning, good, plain
    lines: list[Line]
    more: int = 0  # lines that are left out


class Letter(t.NamedTuple):
    subject: str
    head: str
    parts: list[Part]
    foot: str = ""
    url: str = ""


def plain(value: t.Any, longest: int = LONGEST) -> str:
    """One line of what can be printed: names come from databases, and errors from servers."""
    signs = [
        sign if unicodedata.category(sign) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") else " " for sign in str(value)
    ]
    words = " ".join("".join(signs).split())
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


# ---- calls -----------------------------------------------------------------------------------------------------------


def of_call(call: Call, state: State, title: str, url: str = "") -> Letter:
    """What is new, what has ended; and how much stands beside it."""
    new = [*call.worse, *call.opened]
    critical, warning = _of_level(new, CRITICAL), _of_level(new, WARNING)
    parts = [
        _part("Critical", CRITICAL, alarms_in_lines(critical)),
        _part("Warning", WARNING, alarms_in_lines(warning)),
        _part("Over", "good", alarms_in_lines(call.ended, over=True)),
        _part("Still so", "plain", alarms_in_lines(call.again)),
    ]
    counts = [
        f"{len(critical):,} critical" if critical else "",
        say_count(len(warning), "warning") if warning else "",
        f"{len(call.ended):,} over" if call.ended else "",
        f"{len(call.again):,} still so" if call.again else "",
    ]
    head = ", ".join(words for words in counts if words)
    return Letter(_subject(title, head, new), head, [part for part in parts if part.lines], standing(state), url)


def standing(state: State) -> str:
    alarms = state["alarms"].values()
    critical = sum(one["level"] == CRITICAL for one in alarms)
    return f"Standing now: {critical:,} critical, {say_count(len(alarms) - critical, 'warning')}."


def _subject(title: str, head: str, new: t.Sequence[Data]) -> str:
    """A single alarm is named; of several what most of them are."""
    kinds = [WORDS[kind] for kind in KINDS if any(one["kind"] == kind for one in new)]
    words = [f"{where(new[0])} {new[0]['text']}"] if len(new) == 1 else kinds[:3]
    return plain(": ".join([title, head, *([", ".join(words)] if words else [])]), SUBJECT)


def _of_level(alarms: t.Iterable[Data], level: str) -> list[Data]:
    return [one for one in alarms if one["level"] == level]


def where(alarm: Data) -> str:
    """Host, and what on it; of a statement the text says enough."""
    subject = "" if alarm["kind"] in ("statements", "failed") else alarm["subject"]
    if alarm["kind"] == "urgent":
        subject = subject.partition(" ")[2]
    return plain(f"{alarm['host']} {subject}")


def alarms_in_lines(alarms: t.Sequence[Data], *, over: bool = False) -> list[Line]:
    """By kind; many of one kind share a line."""
    lines: list[Line] = []
    for kind in KINDS:
        found = sorted((one for one in alarms if one["kind"] == kind), key=lambda one: (one["host"], one["subject"]))
        if len(found) <= APART:
            lines += [Line(where(one), _text(one, over), "" if over else plain(one["fix"] or "")) for one in found]
        else:
            lines.append(_together(kind, found, over))
    return lines


def _text(alarm: Data, over: bool) -> str:
    return f"over: {plain(alarm['text'])}" if over else plain(alarm["text"])


def _together(kind: str, found: t.Sequence[Data], over: bool) -> Line:
    hosts = list(dict.fromkeys(plain(one["host"], 60) for one in found))
    more = f" and {len(hosts) - HOSTS:,} more" if len(hosts) > HOSTS else ""
    count = say_count(len(hosts), "host")
    objects = "" if len(found) == len(hosts) else f", {len(found):,} in all"
    texts = list(dict.fromkeys(plain(one["text"], 120).removeprefix(f"{WORDS[kind]}: ") for one in found))
    sample = texts[0] if len(texts) == 1 else f"as {texts[0]}"
    return Line(f"{count}: {', '.join(hosts[:HOSTS])}{more}", f"{'over: ' * over}{WORDS[kind]}{objects}: {sample}")


def _part(title: str, tone: str, lines: list[Line], most: int = LINES) -> Part:
    return Part(title, tone, lines[:most], max(0, len(lines) - most))


# ---- summaries -------------------------------------------------------------------------------------------------------


def of_summary(summary: str, data: Data, state: State, title: str, url: str = "") -> Letter:
    """A day, or a week: what stands, what was done, what is coming."""
    sums = data["summary"]
    alarms = list(state["alarms"].values())
    parts = [
        _part("Critical", CRITICAL, alarms_in_lines(_of_level(alarms, CRITICAL))),
        _part("Warning", WARNING, alarms_in_lines(_of_level(alarms, WARNING))),
        *(_day(data, alarms) if summary == DAILY else _week(data, state)),
    ]
    head = plain(sums["text"], LONGEST)
    subject = plain(f"{title}: {'day' if summary == DAILY else 'week'}: {head}", SUBJECT)
    return Letter(subject, head, [part for part in parts if part.lines], standing(state), url)


def _day(data: Data, alarms: t.Iterable[Data]) -> list[Part]:
    told = {one["subject"] for one in alarms if one["kind"] == "urgent"}
    findings = [
        one
        for one in data["findings"]
        if one["priority"] <= WORST and f"{one['code']} {one['name']}".rstrip() not in told
    ]
    lines = [
        Line(plain(f"{_hosts(one['hosts'])} {one['name']}"), plain(one["message"]), plain(one["fix"] or ""))
        for one in findings
    ]
    title = "Planned" if data["planned"] else "Done"
    return [_part("To be decided", "plain", lines, TOP), _part(title, "plain", _operations(data))]


def _hosts(names: t.Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names):,} hosts"


def _operations(data: Data) -> list[Line]:
    lines = []
    for one in data["operations"]:
        words = [f"{one['done']:,} of {say_count(one['planned'], 'step')}", f"on {say_count(one['hosts'], 'host')}"]
        words += [f"{one[name]:,} {name}" for name in ("failed", "deferred") if one[name]]
        words += [f"{one['rows']:,} rows"] if one["rows"] else []
        words += [f"{say_bytes(one['bytes_freed'])} freed"] if one["bytes_freed"] else []
        lines.append(Line(one["operation"].replace("_", " "), ", ".join([*words, say_seconds(one["seconds"])])))
    return lines


def _week(data: Data, state: State) -> list[Part]:
    days = [
        Line(
            day,
            f"{say_count(one['runs'], 'run')} on {say_count(one['hosts'], 'host')}, {say_bytes(one['bytes_freed'])}"
            f" freed, {say_count(one['rows'], 'row')} removed, {say_count(one['failures'], 'failure')}",
        )
        for day, one in list(state["days"].items())[-7:]
    ]
    databases = data["databases"]
    growth = [
        Line(plain(f"{one['host']} {one['database']}"), f"{say_bytes(one['bytes_per_day'])} a day")
        for one in databases["growth"]
    ]
    bloat = [
        Line(plain(f"{one['host']} {one['database']}"), say_bytes(one["bloat_bytes"] + one["index_bloat_bytes"]))
        for one in databases["bloat"]
    ]
    return [
        _part("This week", "plain", days),
        _part("Grow fastest", "plain", growth, TOP),
        _part("Most bloat", "plain", bloat, TOP),
    ]
