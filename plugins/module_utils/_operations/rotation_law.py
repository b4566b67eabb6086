# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHICH backups are kept, and by which rule: a law of manifests and the clock. No I/O; what is asked for: rotation.py.

Everything but `keep_within` counts backups, so no clock can hurt it. Where one has jumped all the same:

- A backup from the future (its clock was wrong, or ours is) is kept, and takes the place of no other.
- `keep_within` counts back from the newest backup, not from now, and leaves the longest pause between two backups
  out: a jump is such a pause. What a right clock sees within it is kept, and the first one before it.
"""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta, timezone, tzinfo

from .._backups import LEVELS, Backup
from .._tuples import NamedTuple
from .._units import say_seconds

READABLE = LEVELS.index("decode")  # from this level on a backup was read to its end

Bucket = t.Callable[[datetime], t.Hashable]
Group = tuple[str, str, str]  # server, database, method


class Keep(NamedTuple):
    """How much is kept of each group; at least one of them is above 0."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: float = 0.0  # seconds
    min_verified: int = 1
    zone: tzinfo = timezone.utc  # whose calendar counts


class Verdict(NamedTuple):
    """Whether a backup stays, and why."""

    backup: Backup
    reasons: tuple[str, ...]  # that keep it; none: it goes
    orphan: str = ""  # id of the parent that is not there: it can restore nothing, and nothing is known of the parent

    @property
    def kept(self) -> bool:
        return bool(self.reasons)


def group_of(backup: Backup) -> Group:
    return (backup.server, backup.database, backup.method)


def is_verified(backup: Backup) -> bool:
    """Read to its end, and needs no other."""
    return backup.whole and level_of(backup) >= READABLE


def level_of(backup: Backup) -> int:
    """A level that we do not know is none."""
    return LEVELS.index(backup.level) if backup.level in LEVELS else 0


def grouped(backups: t.Iterable[Backup]) -> dict[Group, list[Backup]]:
    """Each server's, database's and method's on its own."""
    groups: dict[Group, list[Backup]] = {}
    for backup in backups:
        groups.setdefault(group_of(backup), []).append(backup)
    return groups


def judged(keep: Keep, backups: t.Iterable[Backup], now: datetime) -> list[Verdict]:
    """A verdict on each backup of one group, the newest first. Whatever their order was."""
    ordered = sorted(backups, key=_age, reverse=True)
    roots = _roots(ordered)
    sound = [b for b in ordered if roots[b.id][0]] if roots else ordered
    reasons: dict[str, list[str]] = {}
    for backup in sound:
        if backup.began > now:
            reasons.setdefault(backup.id, []).append("from the future, as this clock sees it")
        if backup.pin:
            reasons.setdefault(backup.id, []).append("pinned")
    counted = [b for b in sound if b.began <= now]
    for chosen, why in (*_ruled(keep, counted), *_verified(keep, counted)):
        reasons.setdefault(chosen.id, []).append(why)
    _whole_chains(sound, roots, reasons)
    missing = {b.id: roots[b.id][1] for b in ordered if not roots[b.id][0]} if roots else {}
    for orphan, parent in missing.items():
        reasons[orphan] = [f"its parent {parent} is not there: nothing is known of it"]
    return [Verdict(b, tuple(reasons.get(b.id, ())), missing.get(b.id, "")) for b in ordered]


def _age(backup: Backup) -> tuple[t.Any, ...]:
    """By the recorded moment; names only part what began and ended in one moment."""
    return (backup.began, backup.ended, backup.id)


def _roots(backups: t.Sequence[Backup]) -> dict[str, tuple[str, str]]:
    """Of each backup the id of the whole one that its chain begins with, or "" and the id that is missing.

    Empty where there are no chains.
    """
    if not any(b.parent for b in backups):
        return {}
    parents = {b.id: b.parent for b in backups}
    out: dict[str, tuple[str, str]] = {}
    for backup in backups:
        path, place, end = [], backup.id, ("", "")
        seen: set[str] = set()
        while True:
            if place in out:
                end = out[place]
            elif place not in parents or place in seen:  # a circle is a lie, and begins nowhere
                end = ("", place)
            elif not parents[place]:
                end = (place, "")
            else:
                path.append(place)
                seen.add(place)
                place = parents[place]
                continue
            break
        out.update(dict.fromkeys([*path, backup.id], end))
    return out


def _ruled(keep: Keep, newest_first: t.Sequence[Backup]) -> t.Iterator[tuple[Backup, str]]:
    for place, backup in enumerate(newest_first[: keep.last], 1):
        yield backup, f"keep_last: {place} of {keep.last}"
    for name, bucket, say in PERIODS:
        most = getattr(keep, name)
        if most > 0:
            chosen = _one_each(newest_first, bucket, keep.zone, most)
            for place, backup in enumerate(chosen, 1):
                when = backup.began.astimezone(keep.zone).strftime(say)
                yield backup, f"keep_{name}: {place} of {most}, {when}"
    if keep.within > 0:
        for backup in _within(newest_first, keep.within):
            yield backup, f"keep_within {say_seconds(keep.within)}"


def _one_each(newest_first: t.Sequence[Backup], bucket: Bucket, zone: tzinfo, most: int) -> t.Sequence[Backup]:
    """The newest of each period, a verified one where there is one; of the newest `most` periods that have any."""
    chosen: dict[t.Hashable, Backup] = {}
    for backup in newest_first:
        key = bucket(backup.began.astimezone(zone))
        if key not in chosen:
            if len(chosen) == most:
                break
            chosen[key] = backup
        elif not is_verified(chosen[key]) and is_verified(backup):
            chosen[key] = backup
    return list(chosen.values())


def _within(newest_first: t.Sequence[Backup], seconds: float) -> t.Iterator[Backup]:
    """From the newest one back, the longest pause not counted."""
    longest, last = timedelta(0), None
    most = _span(seconds)
    for backup in newest_first:
        longest = max(longest, (last - backup.began) if last else longest)
        if newest_first[0].began - backup.began - longest > most:
            return
        last = backup.began
        yield backup


def _span(seconds: float) -> timedelta:
    """Longer than any calendar is for ever."""
    return timedelta(seconds=min(seconds, timedelta.max.total_seconds() - 1))


def _verified(keep: Keep, newest_first: t.Sequence[Backup]) -> t.Iterator[tuple[Backup, str]]:
    """The newest verified ones stay whatever else is asked for. As long as there are too few, all stay."""
    verified = [b for b in newest_first if is_verified(b)]
    if len(verified) < keep.min_verified:
        for backup in newest_first:
            yield backup, f"min_verified: only {len(verified)} of {keep.min_verified} are verified"
        return
    for place, backup in enumerate(verified[: max(1, keep.min_verified)], 1):
        yield backup, "the newest verified one" if place == 1 else f"min_verified: {place} of {keep.min_verified}"
    if not verified and newest_first:
        yield newest_first[0], "the newest one, and none is verified"


def _whole_chains(
    backups: t.Sequence[Backup], roots: t.Mapping[str, tuple[str, str]], reasons: dict[str, list[str]]
) -> None:
    """A chain stays or goes as a whole."""
    kept = {roots[name][0] for name in reasons} if roots else set()
    for backup in backups if roots else ():
        root = roots[backup.id][0]
        if root in kept and backup.id not in reasons:
            reasons[backup.id] = [f"of the chain of {root}"]


def _hour(moment: datetime) -> t.Hashable:
    """An hour that a night repeats is two."""
    return (moment.year, moment.month, moment.day, moment.hour, moment.utcoffset())


def _day(moment: datetime) -> t.Hashable:
    return (moment.year, moment.month, moment.day)


def _week(moment: datetime) -> t.Hashable:
    return tuple(moment.isocalendar())[:2]


def _month(moment: datetime) -> t.Hashable:
    return (moment.year, moment.month)


def _year(moment: datetime) -> t.Hashable:
    return moment.year


PERIODS: tuple[tuple[str, Bucket, str], ...] = (
    ("hourly", _hour, "%Y-%m-%d %H:00"),
    ("daily", _day, "%Y-%m-%d"),
    ("weekly", _week, "%G-W%V"),
    ("monthly", _month, "%Y-%m"),
    ("yearly", _year, "%Y"),
)
