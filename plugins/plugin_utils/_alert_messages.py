# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The messages of one run, and what each of them changes once it went out. Pure; the file of the state is elsewhere."""

from __future__ import annotations

import typing as t
from datetime import date, datetime

from . import _alert_forms as forms
from . import _calls
from ._alarms import KINDS, Limits, alarms, evidence, went_well
from ._alert_times import Hours, due
from ._alert_words import Letter, of_call, of_summary

Data = t.Mapping[str, t.Any]
State = dict[str, t.Any]

CALL = "call"


class Wanted(t.NamedTuple):
    """What somebody wants to be told, and how."""

    limits: Limits
    hours: Hours
    title: str
    calls: t.Sequence[str] = ()  # channels
    daily: t.Sequence[str] = ()
    weekly: t.Sequence[str] = ()
    reminder: float = 0.0  # seconds
    html: bool = True
    url: str = ""


class Message(t.NamedTuple):
    """What is to be sent, and for the state what changes with it."""

    id: str
    channel: str
    template: str  # call, daily, weekly
    subject: str
    body: t.Any  # text, or a dictionary for JSON
    text: str
    pending: State

    @property
    def shown(self) -> dict[str, t.Any]:
        return {name: getattr(self, name) for name in ("id", "channel", "template", "subject", "body")}


def looked(state: State, data: Data, wanted: Wanted, ran: t.Collection[str], inventory: t.Collection[str]) -> State:
    """The state after a look at the fleet. Nobody has been told of it yet."""
    now = datetime.fromisoformat(data["at"])
    names = [host["host"] for host in data["hosts"]]
    well = [host["host"] for host in data["hosts"] if ran and went_well(host)]
    state = _calls.seen(_calls.without(state, wanted.limits.kinds), names, (), now)
    state = _calls.did(state, data["hosts"], ran, now)
    found = alarms(data, wanted.limits, _calls.known(state), ran, now)
    state = _calls.updated(state, found, evidence(data, ran), inventory, now)
    state = _calls.seen(state, (), well, now)
    kept = {*inventory, *names}
    for part in ("hosts", "operations"):
        state[part] = {name: found for name, found in state[part].items() if name in kept}
    if ran:
        state = _calls.counted(state, now.astimezone(wanted.hours.zone).date(), data["summary"])
    return state


def messages(state: State, data: Data, wanted: Wanted, note: str = "") -> list[Message]:
    """All that is to be sent now. A `note` stands below each."""
    now = datetime.fromisoformat(data["at"])
    found = []
    for channel in wanted.calls:
        found += (
            _pages(state, wanted, now, note) if channel == _calls.PAGER else _call(state, channel, wanted, now, note)
        )
    for summary, channels in (("daily", wanted.daily), ("weekly", wanted.weekly)):
        for channel in channels:
            period = _due(summary, channel, state, wanted, now)
            if period is not None:
                letter = _noted(of_summary(summary, data, state, wanted.title, wanted.url), note)
                found.append(_summary(summary, channel, letter, wanted, data=data, period=period))
    return found


def _call(state: State, channel: str, wanted: Wanted, now: datetime, note: str) -> list[Message]:
    call = _calls.call(state, channel, now, wanted.reminder)
    if call.empty:
        return []
    letter = _noted(of_call(call, state, wanted.title, wanted.url), note)
    at = now.isoformat(timespec="seconds")
    body = (
        forms.webhook_of_call(letter, call, wanted.title, at)
        if channel == "webhook"
        else _form(channel, letter, wanted)
    )
    memory = _calls.memory(state, channel, now, call)
    pending = {"channel": channel, "summary": "", "memory": memory}
    return [Message(f"{CALL}-{channel}", channel, CALL, letter.subject, body, forms.text(letter), pending)]


def _form(channel: str, letter: Letter, wanted: Wanted) -> t.Any:
    if channel == "slack":
        return forms.slack(letter)
    return forms.html(letter) if wanted.html else forms.text(letter)


def _pages(state: State, wanted: Wanted, now: datetime, note: str) -> list[Message]:
    found = []
    for page in _calls.pages(state, now):
        call = _calls.Call([], [], page.alarms, []) if page.over else _calls.Call(page.alarms, [], [], [])
        letter = _noted(of_call(call, state, wanted.title, wanted.url), note)
        body = forms.pager(page, letter, wanted.title, now.isoformat(timespec="seconds"))
        pending = {"channel": _calls.PAGER, "summary": "", "page": page.name, "memory": page.memory}
        name = f"{CALL}-{_calls.PAGER}-{body['event_action']}-{page.name}"
        found.append(Message(name, _calls.PAGER, CALL, letter.subject, body, forms.text(letter), pending))
    return found


def _due(summary: str, channel: str, state: State, wanted: Wanted, now: datetime) -> date | None:
    last = state["summaries"].get(f"{summary} {channel}")
    return due(summary, last if isinstance(last, str) else None, now, wanted.hours)


def _summary(summary: str, channel: str, letter: Letter, wanted: Wanted, *, data: Data, period: date) -> Message:
    body = (
        forms.webhook_of_summary(summary, letter, wanted.title, data["at"], data["summary"])
        if channel == "webhook"
        else _form(channel, letter, wanted)
    )
    pending = {"channel": channel, "summary": summary, "period": period.isoformat()}
    return Message(f"{summary}-{channel}", channel, summary, letter.subject, body, forms.text(letter), pending)


def _noted(letter: Letter, note: str) -> Letter:
    return letter._replace(foot=" ".join(words for words in (letter.foot, note) if words))


def kinds(names: t.Collection[str]) -> tuple[str, ...]:
    """In the order in which they are told."""
    return tuple(kind for kind in KINDS if kind in names)
