# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rotation as a law: what is kept, whatever the folder holds and whatever the clock says."""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Backup,
    Broken,
    Shelf,
    Stored,
    Unfinished,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import rotation
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.rotation_law import (
    Keep,
    grouped,
    is_verified,
    judged,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Database, Measured, Plan, Server
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import DropLeftover, RemoveBackup

from ..samples import NOW, defaults

DAY, HOUR = timedelta(days=1), timedelta(hours=1)
BERLIN = ZoneInfo("Europe/Berlin")
COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def backup(began: datetime, number: int = 0, **fields: Any) -> Backup:
    """A verified dump of the shop, unless told otherwise."""
    whole: dict[str, Any] = {
        "id": f"{began:%Y%m%dT%H%M%SZ}-{number:06x}",
        "server": "postgresql:7",
        "address": "db1:5432",
        "engine": "postgresql",
        "version": "18.4",
        "database": "shop",
        "method": "dump",
        "tool": "pg_dump 18.4",
        "arguments": (),
        "began": began,
        "ended": began + timedelta(minutes=5),
        "files": (Stored(f"{number}.dump.zst", 1000, "0" * 64, "dump"),),
        "level": "decode",
        "folder": "/srv/backups/shop",
        **fields,
    }
    return Backup(**whole)


def daily(days: int, **fields: Any) -> list[Backup]:
    """One for each of the last days, the newest first."""
    return [backup(NOW - n * DAY - HOUR, n, **fields) for n in range(days)]


def kept(keep: Keep, backups: list[Backup], now: datetime = NOW) -> set[str]:
    return {v.backup.id for v in judged(keep, backups, now) if v.kept}


# ---- drawn -----------------------------------------------------------------------------------------------------------

moments = st.one_of(
    st.integers(0, 40 * 24).map(lambda h: NOW - h * HOUR),
    st.integers(0, 900).map(lambda d: NOW - d * DAY),
    st.integers(0, 6 * 365 * 86400).map(lambda s: NOW - s * timedelta(seconds=1)),
)


@st.composite
def shelves(draw: st.DrawFn) -> list[Backup]:
    found: list[Backup] = []
    for number, began in enumerate(draw(st.lists(moments, max_size=25))):
        level = draw(st.sampled_from(["", "checksum", "decode", "restore"]))
        older = [b for b in found if b.began < began]
        parent = draw(st.sampled_from(older)).id if older and draw(st.integers(0, 3)) == 0 else ""
        if draw(st.integers(0, 20)) == 0:
            parent = "20190101T000000Z-ffffff"  # that nobody has
        found.append(backup(began, number, level=level, parent=parent, pin=draw(st.integers(0, 9)) == 0))
    return found


keeps = st.builds(
    Keep,
    **{name: st.integers(0, 6) for name in COUNTS},
    within=st.sampled_from([0.0, 3600.0, 86400.0, 7 * 86400.0, 60 * 86400.0]),
    min_verified=st.integers(0, 4),
    zone=st.sampled_from([UTC, BERLIN, ZoneInfo("Australia/Lord_Howe")]),
)


# ---- laws ------------------------------------------------------------------------------------------------------------


@given(shelves(), keeps)
def test_rotating_what_was_kept_keeps_it(shelf: list[Backup], keep: Keep) -> None:
    first = kept(keep, shelf)
    assert kept(keep, [b for b in shelf if b.id in first]) == first


@given(shelves(), keeps, st.randoms(use_true_random=False))
def test_order_of_listing_does_not_matter(shelf: list[Backup], keep: Keep, dice: random.Random) -> None:
    shuffled = list(shelf)
    dice.shuffle(shuffled)
    assert kept(keep, shuffled) == kept(keep, shelf)


@given(shelves(), keeps)
def test_names_do_not_matter(shelf: list[Backup], keep: Keep) -> None:
    """Ids that sort the other way round and files called otherwise, wherever two backups do not begin at once."""
    single = list({b.began: b for b in shelf}.values())
    names = {b.id: f"20200101T000000Z-{0xFFFFFF - n:06x}" for n, b in enumerate(single)}
    renamed = [
        b._replace(
            id=names[b.id],
            parent=names.get(b.parent, b.parent),
            files=(b.files[0]._replace(name=f"{n}"),),
            folder="/elsewhere",
        )
        for n, b in enumerate(single)
    ]
    assert kept(keep, renamed) == {names[i] for i in kept(keep, single)}


@given(shelves(), keeps, st.data())
def test_more_of_any_option_keeps_no_less(shelf: list[Backup], keep: Keep, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*COUNTS, "within", "min_verified"]))
    more = data.draw(st.sampled_from([1, 2, 7])) * (86400.0 if name == "within" else 1)
    assert kept(keep, shelf) <= kept(keep._replace(**{name: getattr(keep, name) + more}), shelf)


@given(shelves(), keeps, st.integers(-2000, 2000))
def test_no_clock_deletes_what_a_right_one_keeps(shelf: list[Backup], keep: Keep, days: int) -> None:
    assert kept(keep, shelf) <= kept(keep, shelf, NOW + days * DAY)


@given(shelves(), keeps, st.integers(1, 3000))
def test_a_backup_from_the_future_costs_no_other(shelf: list[Backup], keep: Keep, days: int) -> None:
    """Its clock was wrong, and is right again."""
    lost = kept(keep, shelf) - kept(keep, [*shelf, backup(NOW + days * DAY, 9999)])
    # It is one verified backup more: only what was kept for want of any may go.
    assert not lost


@given(st.lists(st.integers(0, 60), min_size=1, max_size=30, unique=True), st.integers(1, 40), st.integers(1, 3000))
def test_within_survives_a_clock_that_jumped_with_its_backup(days: list[int], within: int, jump: int) -> None:
    """Both the newest backup and the clock are far ahead: what a right clock sees within stays."""
    shelf = [backup(NOW - d * DAY - HOUR, d) for d in days]
    keep = Keep(within=within * 86400.0)
    newest = max(b.began for b in shelf)
    right = {b.id for b in shelf if newest - b.began <= within * DAY}
    ahead = backup(NOW + jump * DAY, 9999)
    assert right <= kept(keep, [*shelf, ahead], NOW + jump * DAY + HOUR)


@given(shelves(), keeps)
def test_chains_are_whole(shelf: list[Backup], keep: Keep) -> None:
    stays = kept(keep, shelf)
    there = {b.id: b for b in shelf}
    for b in shelf:
        if b.parent in there:
            assert (b.id in stays) == (b.parent in stays) or b.parent not in stays or b.id in stays
            assert b.id not in stays or b.parent in stays


@given(shelves(), keeps)
def test_verified_ones_are_never_too_few(shelf: list[Backup], keep: Keep) -> None:
    stays = kept(keep, shelf)
    verified = sorted((b for b in shelf if is_verified(b)), key=lambda b: (b.began, b.ended, b.id))
    assert sum(b.id in stays for b in verified) >= min(keep.min_verified, len(verified))
    if verified:
        assert verified[-1].id in stays
    if shelf:
        assert stays


@given(shelves(), keeps)
def test_pins_stay(shelf: list[Backup], keep: Keep) -> None:
    assert {b.id for b in shelf if b.pin} <= kept(keep, shelf)


# ---- examples --------------------------------------------------------------------------------------------------------


def test_grandfather_father_son() -> None:
    shelf = daily(800)
    stays = [v.backup for v in judged(Keep(daily=7, weekly=4, monthly=12, yearly=2), shelf, NOW) if v.kept]
    days = [b.began.date().isoformat() for b in stays]
    assert days[:7] == [(NOW - n * DAY).date().isoformat() for n in range(7)]
    assert "2025-12-31" in days  # the last of a month, and of a year
    assert "2026-02-28" in days
    assert len(days) == len(set(days)) <= 7 + 4 + 12 + 2


def test_a_leap_day_is_a_day() -> None:
    shelf = [backup(datetime(2028, 2, 27, 1, tzinfo=UTC) + n * DAY, n) for n in range(5)]
    now = datetime(2028, 3, 3, tzinfo=UTC)
    assert {b.began.day for b in shelf if b.id in kept(Keep(daily=4), shelf, now)} == {28, 29, 1, 2}
    assert {b.began.day for b in shelf if b.id in kept(Keep(monthly=2), shelf, now)} == {29, 2}


def test_an_hour_that_a_night_repeats_is_two() -> None:
    """2026-10-25: Berlin's clocks show 02:30 twice."""
    shelf = [backup(datetime(2026, 10, 25, hour, 30, tzinfo=UTC), hour) for hour in range(4)]
    now = datetime(2026, 10, 26, tzinfo=UTC)
    assert len(kept(Keep(hourly=4, zone=BERLIN), shelf, now)) == 4


def test_an_hour_that_a_night_skips_is_none() -> None:
    shelf = [backup(datetime(2026, 3, 29, hour, 30, tzinfo=UTC), hour) for hour in range(4)]
    now = datetime(2026, 3, 30, tzinfo=UTC)
    assert len(kept(Keep(hourly=4, zone=BERLIN), shelf, now)) == 4


def test_days_are_those_of_the_time_zone() -> None:
    """23:30 UTC and 00:30 UTC are one day in Berlin."""
    shelf = [backup(datetime(2026, 5, day, hour, 30, tzinfo=UTC), day) for day, hour in ((10, 23), (11, 0))]
    assert len(kept(Keep(daily=2), shelf)) == 2
    assert len(kept(Keep(daily=2, zone=BERLIN), shelf)) == 1


def test_a_week_belongs_to_the_year_of_its_thursday() -> None:
    shelf = [backup(datetime(2025, 12, 31, 1, tzinfo=UTC), 1), backup(datetime(2026, 1, 1, 1, tzinfo=UTC), 2)]
    assert len(kept(Keep(weekly=5), shelf)) == 1


def test_a_verified_one_stands_for_its_day() -> None:
    day = datetime(2026, 5, 20, tzinfo=UTC)
    shelf = [*daily(3), backup(day, 10), backup(day + HOUR, 11, level=""), backup(day + 2 * HOUR, 12, level="checksum")]
    stays = kept(Keep(daily=10), shelf)
    assert shelf[3].id in stays
    assert not {shelf[4].id, shelf[5].id} & stays


def test_while_none_is_verified_none_goes() -> None:
    shelf = daily(20, level="checksum")
    assert kept(Keep(last=2), shelf) == {b.id for b in shelf}
    assert len(kept(Keep(last=2, min_verified=0), shelf)) == 2


def test_groups_do_not_count_for_each_other() -> None:
    plan = planned(
        [*daily(3), *daily(3, database="crm"), *daily(3, server="postgresql:8"), *daily(3, method="physical")]
    )
    assert len(plan.steps) == 8
    assert len(plan.shown["kept"]) == 4


# ---- the planner -----------------------------------------------------------------------------------------------------


def planned(
    backups: list[Backup], *, shelf: dict[str, Any] | None = None, engine: str = "postgresql", **given: Any
) -> Plan:
    options = {"backup_dir": "/srv/backups", "keep_last": 1, **given}
    policy = rotation.policy(defaults(rotation.OPTIONS, **options))
    server = Server(engine, "", (), "here", "primary", NOW)
    found = Shelf("/srv/backups", tuple(backups))._replace(**(shelf or {}))
    return rotation.plan(policy, Measured(server, (Database(""),), shelf=found))


def removed(plan: Plan) -> set[str]:
    return {s.task.backup.id for s in plan.steps if isinstance(s.task, RemoveBackup)}


def codes(plan: Plan) -> set[str]:
    return {f.code for f in plan.findings}


def test_each_keeper_and_each_deletion_has_its_reason() -> None:
    shelf = daily(10)
    plan = planned(shelf, keep_last=2, keep_daily=3)
    assert removed(plan) == {b.id for b in shelf[3:]}
    assert all("keep_last 2, keep_daily 3" in s.reason for s in plan.steps)
    assert [k["reasons"][0] for k in plan.shown["kept"]][-1] == "keep_last: 1 of 2"
    assert len({s.key for s in plan.steps}) == len(plan.steps)


@pytest.mark.parametrize(
    "given",
    [
        {"keep_last": None},
        {"keep_last": 0, "keep_daily": 0},
        {"keep_last": -1},
        {"keep_within": "soon"},
        {"backup_dir": "backups"},
        {"backup_dir": "/"},
        {"backup_dir": "/srv/../etc"},
        {"timezone": "Berlin/Europe"},
        {"copy_to": "/srv/backups/copies"},
        {"copy_to": "s3://"},
        {"s3": {"region": "x"}},
    ],
)
def test_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        planned([], **given)


def test_children_go_before_their_parents() -> None:
    full = backup(NOW - 30 * DAY, 1, method="physical")
    first = backup(NOW - 29 * DAY, 2, method="physical", parent=full.id)
    second = backup(NOW - 28 * DAY, 3, method="physical", parent=first.id)
    plan = planned([full, first, second, backup(NOW - DAY, 4, method="physical")])
    after = {
        s.task.backup.id: [key[1].path[0] for key in s.after] for s in plan.steps if isinstance(s.task, RemoveBackup)
    }
    assert after == {full.id: [first.id], first.id: [second.id], second.id: []}


def test_only_what_is_selected() -> None:
    shelf = [*daily(3), *daily(3, database="crm"), *daily(3, engine="mysql"), *daily(3, database="", method="globals")]
    assert removed(planned(shelf, databases=["crm"])) == {b.id for b in [*shelf[4:6], *shelf[10:]]}
    assert len(removed(planned(shelf, servers=["db2*"]))) == 0
    assert len(removed(planned(shelf, engine="mariadb"))) == 2


def test_broken_ones_neither_count_nor_protect() -> None:
    """What no rule would keep even if it were sound goes: an interrupted removal ends that way."""
    shelf = daily(3)
    newest, oldest = backup(NOW, 50), backup(NOW - 40 * DAY, 51)
    broken = (Broken("shop/new", "a file is missing", newest), Broken("shop/old", "a file is missing", oldest))
    plan = planned(shelf, shelf={"broken": (*broken, Broken("shop/odd", "no JSON"))})
    assert removed(plan) == {shelf[1].id, shelf[2].id, oldest.id}
    assert [f.message.split()[0] for f in plan.findings if f.code == "backup_broken"] == ["shop/new", "shop/odd"]


def test_findings() -> None:
    assert "clock_jumped" in codes(planned([*daily(2), backup(NOW + 2 * DAY, 99)]))
    assert "orphans" in codes(planned([backup(NOW, 1, parent="20200101T000000Z-000000")]))
    assert "too_few_verified" in codes(planned(daily(2, level="")))
    assert "foreign_files" in codes(planned([], shelf={"foreign": ("notes.txt",)}))
    assert "several_servers" in codes(planned([*daily(1), *daily(1, server="postgresql:8")]))
    assert "copies_left" in codes(planned(daily(1, copies=("/mnt/share",))))
    assert not codes(planned(daily(1, copies=("/mnt/share",)), copy_to="/mnt/share/"))


def test_copies_go_along_only_where_they_are_named() -> None:
    shelf = daily(2, copies=("/mnt/share", "s3://b/p"))
    (step,) = planned(shelf, copy_to="/mnt/share").steps
    assert isinstance(step.task, RemoveBackup)
    assert step.task.copies == ("/mnt/share",)


def test_a_removal_that_died_is_brought_to_its_end() -> None:
    shelf = daily(2, copies=("/mnt/share",))
    died = (
        Unfinished("shop", ("shop/x.partial", "shop/x.dump"), 7, "postgresql:7", removed=True),
        Unfinished("shop", ("shop/y.partial",), 7, "postgresql:7"),  # it never was a backup: db_backup's
        Unfinished("crm", ("crm/z.partial",), 7, "postgresql:7", removed=True),
    )
    plan = planned(shelf, shelf={"unfinished": died}, databases=["shop"])
    (task,) = [s.task for s in plan.steps if isinstance(s.task, DropLeftover)]
    assert (task.names, task.folder) == (("shop/x.partial", "shop/x.dump"), "/srv/backups")
    # What is left of a copy whose manifest is gone goes with its backup.
    oldest = shelf[1]._replace(copies=())
    plan = planned([shelf[0], oldest], shelf={"vanished": (oldest.id,)}, copy_to="/mnt/share")
    (step,) = plan.steps
    assert isinstance(step.task, RemoveBackup) and step.task.copies == ("/mnt/share",)


def test_100_000_manifests_are_judged_in_2_seconds() -> None:
    dice = random.Random(4)
    shelf = [
        backup(NOW - dice.randrange(0, 800 * 24 * 60) * timedelta(minutes=1), n, database=f"db{n % 200}")
        for n in range(100_000)
    ]
    keep = Keep(last=3, daily=14, weekly=8, monthly=12, within=14 * 86400.0, zone=BERLIN)
    began = time.process_time()
    verdicts = [judged(keep, group, NOW) for group in grouped(shelf).values()]
    seconds = time.process_time() - began
    assert sum(len(group) for group in verdicts) == 100_000
    assert seconds < 2
