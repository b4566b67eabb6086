# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of restores into new data directories: which backup, what it builds on, and what is refused."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Shelf, Site
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import restore
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Measured, Plan, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Restore

from ..samples import GB, NOW, defaults, server
from .test_rotation import backup

HERE, SPACES = Site("/srv/new", free=100 * GB, device=1), Site("/srv/new.tablespaces", free=100 * GB, device=1)
FAR = {"tablespaces": json.dumps([["16384", "far", "/mnt/far", 4 * GB]])}


def made(hours: int, **fields: Any) -> Backup:
    whole = {"database": "", "method": "physical", "source_bytes": 10 * GB, **fields}
    return backup(NOW - timedelta(hours=hours), hours, **whole)


def planned(*backups: Backup, site: Site = HERE, spaces: Site = SPACES, **options: Any) -> Plan:
    told = {"backup_dir": "/srv/backups", "target_dir": "/srv/new", "engine": "postgresql", **options}
    shelf = Shelf("/srv/backups", tuple(sorted(backups, key=lambda b: b.began)), site=site, spaces=spaces)
    policy = restore.policy({**defaults(restore.OPTIONS, **told), "engine": told["engine"]})
    return restore.plan(policy, Measured(server(), (), shelf=shelf))


def task(plan: Plan) -> Restore:
    (step,) = plan.steps
    assert isinstance(step.task, Restore)
    assert step.task.ref == Ref("", ("/srv/new",))
    return step.task


def test_the_newest_of_a_whole_server_with_all_that_it_builds_on() -> None:
    full, first, second = made(5), made(4, parent=made(5).id), made(3, parent=made(4).id)
    others = (made(1, database="shop", method="dump"), made(2, engine="mariadb"))
    found = task(planned(full, first, second, *others))
    assert (found.backup, found.parents, found.spaces) == (second, (full, first), "")
    assert task(planned(full, first, second, which=first.id)).parents == (full,)


def test_tablespaces_go_where_they_are_told_to_or_beside_it() -> None:
    assert task(planned(made(1, about=FAR))).spaces == "/srv/new.tablespaces"
    assert task(planned(made(1, about=FAR), tablespace_dir="/mnt/fast")).spaces == "/mnt/fast"
    assert task(planned(made(1, method="pgbackrest"))).spaces == "/srv/new.tablespaces"


@pytest.mark.parametrize(
    ("known", "options", "said"),
    [
        ([], {}, "no backup of a whole server"),
        ([made(1, server="a"), made(2, server="b")], {}, "2 servers"),
        ([made(1, parent="20260601T100000Z-ffffff")], {}, "which is not there"),
        ([made(1, encryption="age")], {}, "Give decrypt"),
        ([made(1)], {"database": "shop"}, "Leave database out"),
        ([made(1)], {"target_dir": None, "database": "x", "tablespace_dir": "/y"}, "Give target_dir, too"),
        ([made(1)], {"engine": "mariadb", "tablespace_dir": "/y"}, "not for mariadb"),
        ([made(1)], {"site": HERE._replace(why_not="/srv/new is not empty", occupied=True)}, "Name a folder"),
        ([made(1, about=FAR)], {"spaces": SPACES._replace(why_not="it is not empty")}, "it is not empty"),
        ([made(1)], {"site": HERE._replace(free=10 * GB)}, "10.0 GB are free"),
        ([made(1, parent=made(2).id), made(2)], {"site": HERE._replace(free=15 * GB)}, "are free"),
        ([made(1, about=FAR)], {"site": HERE._replace(free=10 * GB)}, "are free"),
        (
            [made(1, about=FAR)],
            {"spaces": SPACES._replace(free=3 * GB, device=2)},
            "new.tablespaces needs about 4.0 GB",
        ),
    ],
)
def test_what_is_refused(known: list[Backup], options: dict[str, Any], said: str) -> None:
    with pytest.raises(DbFault) as refused:
        planned(*known, **options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("about", "sites"),
    [
        ({}, {"site": HERE._replace(free=12 * GB), "spaces": SPACES._replace(why_not="it is not empty")}),
        # Two file systems, none of which has room for all of it.
        (FAR, {"site": HERE._replace(free=8 * GB), "spaces": SPACES._replace(free=4 * GB, device=2)}),
        # What a dead run left takes the room, and goes first.
        ({}, {"site": HERE._replace(free=0, left=True)}),
        ({}, {"site": HERE._replace(free=None)}),
    ],
)
def test_where_there_is_room(about: dict[str, str], sites: dict[str, Site]) -> None:
    plan = planned(made(1, about=about), **sites)
    assert task(plan).site == "/srv/new"
    assert ("unfinished_restore" in {f.code for f in plan.findings}) == bool(sites["site"].left)


def test_a_drill_elsewhere_names_the_views_that_it_does_not_try() -> None:
    """They need databases that are not in the backup; also where the drill was done before, and nothing is due."""
    there: dict[str, Any] = {"target_dir": None, "database": "shop", "drill": True}
    for level in ("decode", "restore"):
        held = made(1, database="shop", method="dump", about={"foreign": '["far", "wide"]'}, level=level)
        (found,) = planned(held, **there).findings
        assert (found.code, found.ref) == ("views_not_tried", Ref("shop")) and found.message.endswith(": far, wide")
        assert planned(held, **there, drill_on="same_server").findings == ()
    for about in ({"foreign": "[]"}, {"foreign": "nonsense"}, {}):
        assert planned(made(1, database="shop", method="dump", about=about, level="decode"), **there).findings == ()
