# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whom to tell what: alarms that stand, and what each channel was told of them. Pure; its words: _alert_words.py.

The state is a dictionary that JSON knows. Each channel has a memory of its own of what it was told, which changes only
once a call went out: a call that failed is made again, together with what has come since, and a channel that is new is
told what stands. Where the state is lost everything is told again.
"""

from __future__ import annotations

import contextlib
import hashlib
import typing as t
from datetime import date, datetime, timedelta

from ._alarms import CRITICAL, Alarm, Known

State = dict[str, t.Any]
Data = t.Mapping[str, t.Any]

FORMAT = 1
PAGER = "pager"  # is told of critical alarms alone, each of which belongs to the incident that it came with
FORGOTTEN = timedelta(days=7)  # after which alarms of a host that left the inventory are dropped
LONGEST = 500  # characters of a text: errors of servers may be long
REMEMBERED = 14  # days whose sums are kept for the weekly summary
TOLD = ("kind", "host", "subject", "level", "text", "since", "page")  # of an alarm, in the memory of a channel
SUMS = ("runs", "hosts", "bytes_freed", "rows", "failures")


class Call(t.NamedTuple):
    """What one channel is to be told: alarms as they stand in the state."""

    opened: list[Data]
    worse: list[Data]
    ended: list[Data]
    again: list[Data]

    @property
    def empty(self) -> bool:
        return not any(self)


def empty() -> State:
    parts: tuple[str, ...] = ("alarms", "told", "summaries", "hosts", "operations", "days", "pages", "pending")
    return {"format": FORMAT, **{name: {} for name in parts}}


def restored(found: t.Any) -> State:
    """What a file held. Raises ValueError where that is no state of ours."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError("it is no state of alarms")
    state = {**empty(), **found}
    if not all(isinstance(state[name], dict) for name in empty() if name != "format"):
        raise ValueError("parts of it are missing")
    known(state)
    entries = [*state["alarms"].values(), *(one for told in state["told"].values() for one in told.values())]
    for one in entries:
        _moment(one["since"])
        _moment(one["at"] if "at" in one else one["seen"])
        if not all(isinstance(one[name], str) for name in ("kind", "host", "subject", "level", "text", "page")):
            raise ValueError("an alarm in it is damaged")
        tuple(() if "at" in one else (one["fix"], *one["needs"]))
    tuple(one["run"] for one in state["pending"].values())
    if not all(isinstance(day.get(name), int) for day in state["days"].values() for name in SUMS):
        raise ValueError("the sums of a day in it are damaged")
    return state


def _moment(text: t.Any) -> datetime:
    """Raises ValueError or TypeError where it is none, or none with a zone."""
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError(f"{text} has no zone")
    return found


def without(state: State, kinds: t.Collection[str]) -> State:
    """Only alarms of these kinds: the others are asked for no more, which ends none of them."""

    def wanted(alarms: State) -> State:
        return {key: one for key, one in alarms.items() if one["kind"] in kinds}

    told = {name: wanted(one) for name, one in state["told"].items()}
    return {**state, "alarms": wanted(state["alarms"]), "told": told}


def known(state: State) -> Known:
    """What alarms are judged by. Raises ValueError, LookupError or TypeError where the state is damaged."""
    alarms, hosts = state["alarms"], state["hosts"]
    return Known(
        levels={key: one["level"] for key, one in alarms.items()},
        since={key: _moment(one["since"]) for key, one in alarms.items()},
        well={name: _moment(at) for name, at in hosts.items()},
        did={name: {o: _moment(at) for o, at in own.items()} for name, own in state["operations"].items()},
    )


def updated(
    state: State,
    found: t.Mapping[str, Alarm],
    evidence: t.Mapping[str, t.Collection[str]],
    inventory: t.Collection[str],
    now: datetime,
) -> State:
    """With what stands now. Who was told what stays as it is."""
    at, old = now.isoformat(timespec="seconds"), state["alarms"]
    alarms = {key: _standing(alarm, old.get(key) or {}, at) for key, alarm in found.items()}
    fresh = sorted(key for key, one in alarms.items() if one["level"] == CRITICAL and not one["page"])
    page = hashlib.sha256("\n".join([at, *fresh]).encode("utf-8", "surrogatepass")).hexdigest()[:20]
    for key in fresh:
        alarms[key]["page"] = page
    for key, one in old.items():
        if key not in alarms and not _over(one, evidence.get(one["host"]), inventory, now):
            alarms[key] = one
    return {**state, "alarms": alarms, "told": {name: _calmer(told, alarms) for name, told in state["told"].items()}}


def _standing(alarm: Alarm, old: Data, at: str) -> State:
    kept = {name: getattr(alarm, name) for name in ("kind", "host", "subject", "level", "fix")}
    kept["text"] = alarm.text[:LONGEST]
    page = (old.get("page") or "") if alarm.level == CRITICAL else ""
    return {**kept, "needs": list(alarm.needs), "since": old.get("since") or at, "seen": at, "page": page}


def _over(one: Data, evidence: t.Collection[str] | None, inventory: t.Collection[str], now: datetime) -> bool:
    """Only who was looked at again can be well again."""
    if evidence is not None:
        return any(need in evidence for need in one["needs"])
    return one["host"] not in inventory and abs(now - _moment(one["seen"])) > FORGOTTEN


def _calmer(told: State, alarms: t.Mapping[str, Data]) -> State:
    """What is no longer critical is worth a call when it becomes so again."""
    return {
        key: {**one, "level": alarms[key]["level"]} if key in alarms and alarms[key]["level"] != CRITICAL else one
        for key, one in told.items()
    }


def call(state: State, channel: str, now: datetime, reminder: float) -> Call:
    """What this channel does not know yet; with `reminder` seconds, also what it was told so long ago."""
    stands, told = _of(state, channel), state["told"].get(channel, {})
    opened = [one for key, one in stands.items() if key not in told]
    worse = [o for k, o in stands.items() if k in told and o["level"] == CRITICAL and told[k]["level"] != CRITICAL]
    ended = [one for key, one in told.items() if key not in stands]
    again = []
    if reminder and channel != PAGER:
        again = [o for k, o in stands.items() if k in told and o not in worse and _age(told[k], now) >= reminder]
    return Call(opened, worse, ended, again)


def _age(told: Data, now: datetime) -> float:
    """How long ago; also of what a clock has written that was ahead, or nobody is reminded until then."""
    return abs((now - _moment(told["at"])).total_seconds())


def _of(state: State, channel: str) -> State:
    """What a channel is to know of, by the keys of its memory."""
    if channel != PAGER:
        return t.cast(State, state["alarms"])
    return {f"{one['page']} {key}": one for key, one in state["alarms"].items() if one["level"] == CRITICAL}


def memory(state: State, channel: str, now: datetime, fresh: Call | None = None) -> State:
    """What the channel knows once it was told: of what is not in the call the time stays, for reminders."""
    at, before = now.isoformat(timespec="seconds"), state["told"].get(channel, {})
    named = {id(one) for one in [*fresh.opened, *fresh.worse, *fresh.again]} if fresh else set()
    return {
        key: {
            **{name: one[name] for name in TOLD},
            "at": before[key]["at"] if fresh and key in before and id(one) not in named else at,
        }
        for key, one in _of(state, channel).items()
    }


class Page(t.NamedTuple):
    """One incident of a pager: what came at once is one, however many hosts it is."""

    name: str
    over: bool
    alarms: list[Data]  # all of them, or those that ended last
    memory: State  # what of it the pager knows afterwards


def pages(state: State, now: datetime) -> list[Page]:
    """Incidents to be opened, and those to be closed since nothing of them is left."""
    stands, known, told = _of(state, PAGER), memory(state, PAGER, now), state["told"].get(PAGER, {})
    found = []
    for name in dict.fromkeys([*state["pages"], *(one["page"] for one in [*told.values(), *known.values()])]):
        new = {key: one for key, one in known.items() if one["page"] == name}
        old = {key: one for key, one in told.items() if one["page"] == name}
        if not new:
            found.append(Page(name, True, list(old.values()), {}))
        elif new.keys() - old.keys():
            found.append(Page(name, False, [stands[key] for key in new], new))
    return found


def begun(state: State, pending: t.Mapping[str, Data]) -> State:
    """Before anything goes out: incidents that may be open from now on, also where nobody learns what became of it."""
    names = {one["page"]: "" for one in pending.values() if one["channel"] == PAGER}
    return {**state, "pages": {**state["pages"], **names}, "pending": dict(pending)}


def told(state: State, pending: t.Iterable[Data]) -> State:
    """After calls that went out. Each knows what it changes: the memory of its channel, or the day of a summary."""
    after = {**state, **{name: dict(state[name]) for name in ("told", "summaries", "pages")}, "pending": {}}
    for one in pending:
        channel = one["channel"]
        if one["summary"]:
            after["summaries"][f"{one['summary']} {channel}"] = one["period"]
        elif channel == PAGER:
            others = {k: v for k, v in after["told"].get(PAGER, {}).items() if v["page"] != one["page"]}
            after["told"][PAGER] = {**others, **one["memory"]}
            after["pages"].pop(one["page"], None)
        else:
            after["told"][channel] = one["memory"]
    return after


# ---- what is kept beside alarms --------------------------------------------------------------------------------------


def seen(state: State, names: t.Iterable[str], well: t.Iterable[str], now: datetime) -> State:
    """When each host was well last; one that is new gets its time to become so."""
    # What lies ahead was written by a clock that was wrong: it silences nobody until then.
    at, hosts = _text(now), {name: _latest(at, None, now) for name, at in state["hosts"].items()}
    for name in names:
        hosts.setdefault(name, at)
    return {**state, "hosts": {**hosts, **dict.fromkeys(well, at)}}


def did(state: State, hosts: t.Iterable[Data], ran: t.Collection[str], now: datetime) -> State:
    """When each operation came to its end on each host, of those that a run has been asked to carry out there.

    One that is not meant for the host any more is left out; a look that does not know that leaves all as it is.
    """
    known = {name: dict(own) for name, own in state["operations"].items()}
    for host in hosts:
        signs, own = host["signs"], known.get(host["host"], {})
        asked, done = signs.get("asked"), signs.get("done") or {}
        if asked is not None:
            own = {name: at for name, at in own.items() if name in asked or (ran and name not in ran)}
            for name in ran:
                if name in asked:
                    own[name] = _text(now) if _ended(name, host, asked[name]) else own.get(name, _text(now))
        known[host["host"]] = {name: _latest(at, done.get(name), now) for name, at in own.items()}
    return {**state, "operations": known}


def _ended(operation: str, host: Data, due: bool) -> bool:
    """Whether nothing was left to do for it, also where others failed."""
    result = next((one for one in host["operations"] if one["operation"] == operation), None)
    if result is None:
        return not due
    return not result["failed"] and bool(result["done"] or not result["deferred"])


def _latest(known: str, told: t.Any, now: datetime) -> str:
    """By ourselves, or by the journal of the host; what lies ahead is of a clock that was wrong."""
    moments = [_moment(known)]
    with contextlib.suppress(TypeError, ValueError):
        moments += [_moment(told)] if told else []
    return _text(max((one for one in moments if one <= now), default=now))


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")


def counted(state: State, day: date, summary: Data) -> State:
    """With the sums of a run, for the weekly summary."""
    days = dict(state["days"])
    sums = {**dict.fromkeys(SUMS, 0), **days.get(day.isoformat(), {})}
    sums["runs"] += 1
    sums["hosts"] = max(sums["hosts"], summary["hosts"])
    for name in ("bytes_freed", "rows", "failures"):
        sums[name] += summary[name]
    days[day.isoformat()] = sums
    past = [name for name in sorted(days) if name <= day.isoformat()]  # others were counted while the clock was ahead
    return {**state, "days": {name: days[name] for name in past[-REMEMBERED:]}}
