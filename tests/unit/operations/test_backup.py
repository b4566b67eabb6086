# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The planner of backups: what is due by age, what of it is missing, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Broken, Shelf, Unfinished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import backup as planner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import restore
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.backup_known import last_verified
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.backup_options import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Attempt,
    Database,
    DatabaseInfo,
    Finding,
    Measured,
    Plan,
    Ref,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import CopyBackup, Dump, Restore, Verify

from ..samples import GB, MB, NOW, defaults, server
from .test_rotation import backup

HOUR = timedelta(hours=1)
SETTINGS = {"identity": "postgresql:7"}
OURS = server(databases=(DatabaseInfo("shop", GB), DatabaseInfo("crm", MB)), settings=SETTINGS)


def asked(**given_options: Any) -> Policy:
    return planner.policy(
        defaults(planner.OPTIONS, **{"backup_dir": "/srv/backups", "globals": False, **given_options})
    )


def planned(
    *backups: Backup, names: tuple[str, ...] = ("shop",), found: dict[str, Any] | None = None, **options: Any
) -> Plan:
    more = dict(found or {})
    shelf = Shelf("/srv/backups", backups)._replace(**more.pop("shelf", {}))
    measured = Measured(more.pop("server", OURS), tuple(Database(n) for n in names), shelf=shelf)._replace(**more)
    return planner.plan(asked(**options), measured)


def kinds(plan: Plan) -> list[str]:
    return [s.task.kind for s in plan.steps]


def codes(plan: Plan) -> set[str]:
    return {f.code for f in plan.findings}


def test_what_nobody_could_look_into_fails_alone() -> None:
    why = Finding(2, "database_unreadable", Ref("crm"), "too many connections")
    closed = Database("crm", findings=(why,))
    plan = planned(found={"databases": (Database("shop"), closed)}, verify="checksum")
    dumps = {s.task.ref.database: s for s in plan.steps if s.task.kind == "dump"}
    assert (dumps["shop"].skip, dumps["shop"].fails) == ("", False)
    assert "too many connections" in dumps["crm"].skip and dumps["crm"].fails
    # A young backup of it is still one.
    again = planned(backup(NOW, database="crm", level="checksum"), found={"databases": (closed,)}, verify="checksum")
    assert kinds(again) == []


def made(hours: float, **fields: Any) -> Backup:
    return backup(NOW - hours * HOUR, int(hours), **fields)


@pytest.mark.parametrize(
    ("known", "options", "due"),
    [
        ([], {}, ["dump", "verify"]),
        ([made(19)], {}, []),
        ([made(21)], {}, ["dump", "verify"]),
        ([made(19, level="checksum")], {}, ["verify"]),
        ([made(19, level="")], {"verify": "checksum"}, ["verify"]),
        ([made(19)], {"verify": "restore"}, ["verify"]),
        ([made(19)], {"copy_to": "/mnt/share"}, ["copy"]),
        ([made(19, copies=("/mnt/share",))], {"copy_to": "/mnt/share/"}, []),
        ([made(19, copies=("s3://other/x",))], {"copy_to": "s3://mine/x"}, ["copy"]),
        ([], {"copy_to": "/mnt/share"}, ["dump", "verify", "copy"]),
        ([made(19, server="postgresql:8")], {}, ["dump", "verify"]),
        ([made(19, database="crm")], {}, ["dump", "verify"]),
        ([made(19, method="physical")], {}, ["dump", "verify"]),
        ([made(-1)], {}, ["dump", "verify"]),
        ([made(-0.05)], {}, []),
        ([made(19, encryption="gpg", level="checksum")], {}, ["dump", "verify"]),
        ([made(25), made(19, level="checksum")], {}, ["verify"]),
    ],
)
def test_due(known: list[Backup], options: dict[str, Any], due: list[str]) -> None:
    plan = planned(*known, **options)
    assert kinds(plan) == due
    for before, after in zip(plan.steps, plan.steps[1:], strict=False):
        assert after.after == (before.key,)


def test_what_failed_its_verification_is_made_anew() -> None:
    past = {("verify", Ref("shop")): Attempt(NOW - HOUR, 1.0, 0, 0, 0, ok=False)}
    assert kinds(planned(made(2, level="checksum"), found={"past": past})) == ["dump", "verify"]
    assert kinds(planned(made(0.5, level="checksum"), found={"past": past})) == ["verify"]


@given(st.lists(st.tuples(st.integers(-3, 50), st.sampled_from(["", "checksum", "decode", "restore"])), max_size=8))
def test_when_all_was_done_nothing_is_due(ages: list[tuple[int, str]]) -> None:
    """What the steps of a plan promise is enough for the next one."""
    known = [backup(NOW - age * HOUR, n, level=level) for n, (age, level) in enumerate(ages)]
    plan = planned(*known)
    dumped = [backup(NOW, 99, level="") for s in plan.steps if isinstance(s.task, Dump)]
    verified = {s.task.backup.id if s.task.backup else dumped[0].id for s in plan.steps if isinstance(s.task, Verify)}
    after = [
        b._replace(level="decode") if b.id in verified else b for b in sorted([*known, *dumped], key=lambda b: b.began)
    ]
    assert not planned(*after).steps


def test_globals_come_first_and_on_their_own() -> None:
    plan = planned(names=("shop", "crm"), globals=True)
    dumps = [s.task for s in plan.steps if isinstance(s.task, Dump)]
    assert [(t.method, t.ref.database) for t in dumps] == [("globals", ""), ("dump", "shop"), ("dump", "crm")]
    assert {t.manner.identity for t in dumps} == {"postgresql:7"}


def test_physical_is_of_the_server() -> None:
    plan = planned(names=("shop", "crm"), method="physical")
    assert [(s.task.kind, s.task.ref) for s in plan.steps] == [("dump", Ref("")), ("verify", Ref(""))]


def test_encrypted_ones_are_read_while_they_are_written() -> None:
    dump, verify = planned(encrypt={"age_recipient": ["age1x"]}).steps
    assert isinstance(dump.task, Dump)
    assert dump.task.decode
    assert isinstance(verify.task, Verify)
    assert verify.task.level == "checksum"


@pytest.mark.parametrize("method", ["dump", "physical"])
def test_sizes_that_only_a_look_into_the_databases_tells_count_as_well(method: str) -> None:
    """MySQL lists its databases without their sizes."""
    unsized = OURS._replace(databases=(DatabaseInfo("shop"), DatabaseInfo("crm")))
    looked_at = (Database("shop", bytes=GB), Database("crm", bytes=MB))
    for free, fits in ((GB // 4, False), (4 * GB, True)):
        plan = planned(found={"server": unsized, "databases": looked_at, "shelf": {"free": free}}, method=method)
        first = next(s for s in plan.steps if s.task.ref.database in ("shop", ""))
        assert first.measured["bytes"] == (GB + MB if method == "physical" else GB)
        assert bool(first.skip) is not fits


def test_without_room_nothing_is_begun() -> None:
    """The last backup says how much is needed; what one takes is not there for the next."""
    last = made(21)._replace(files=(made(21).files[0]._replace(bytes=100 * MB),))
    plan = planned(last, found={"shelf": {"free": 110 * MB}})
    assert plan.steps[0].skip
    assert plan.steps[0].fails
    assert "no_room" in codes(plan)
    assert not planned(last, found={"shelf": {"free": 130 * MB}}).steps[0].skip
    other = last._replace(database="crm", id="20260531T000000Z-00ffff")
    both = planned(last, other, names=("shop", "crm"), found={"shelf": {"free": 200 * MB}})
    assert [bool(s.skip) for s in both.steps if isinstance(s.task, Dump)] == [False, True]


def test_a_folder_that_cannot_be_written_is_told_once() -> None:
    plan = planned(names=("shop", "crm"), found={"shelf": {"why_not": "it is a file"}})
    assert all(s.skip and s.fails for s in plan.steps if isinstance(s.task, Dump))
    assert [f.priority for f in plan.findings if f.code == "backup_dir_unusable"] == [1]


def test_findings() -> None:
    here = OURS._replace(settings={**SETTINGS, "device": 7})
    assert "same_file_system" in codes(planned(found={"server": here, "shelf": {"device": 7}}))
    assert "same_file_system" not in codes(planned(found={"server": here, "shelf": {"device": 8}}))
    assert "clock_jumped" in codes(planned(made(-2)))
    broken = (
        Broken("shop/x", "its file is missing", made(1)),
        Broken("crm/y", "it is empty", made(1, server="mysql:1")),
    )
    plan = planned(found={"shelf": {"broken": broken}})
    assert [f.message.split()[0] for f in plan.findings if f.code == "backup_broken"] == ["shop/x"]


def test_what_died_is_cleared_away_by_its_own_server() -> None:
    dead = [
        Unfinished("shop", (f"shop/{n}.partial",), 10, server=whose)
        for n, whose in enumerate(["postgresql:7", "x", ""])
    ]
    plan = planned(made(1), found={"shelf": {"unfinished": tuple(dead)}})
    (step,) = plan.steps
    assert (step.task.kind, getattr(step.task, "names", ())) == ("drop_leftover", ("shop/0.partial",))
    assert [f.message.split(":")[0] for f in plan.findings] == ["shop/2.partial"]


def test_what_a_restore_has_not_completed_is_not_backed_up() -> None:
    plan = planned(found={"databases": (Database("shop"), Database("half", wreck=True))})
    assert {s.task.ref.database for s in plan.steps} == {"shop"}
    assert [(f.code, f.ref.database) for f in plan.findings] == [("restore_unfinished", "half")]


def test_what_an_engine_cannot_do_is_refused() -> None:
    lacking = OURS._replace(engine="sqlite", lacks={"physical": "it is a file", "exclude": "it is a file"})
    for options in ({"method": "physical"}, {"exclude_tables": ["log*"]}):
        with pytest.raises(BadInput, match="it is a file"):
            planner.wants(asked(**options), lacking)


def test_copies_say_how_the_bucket_is_reached_and_no_secret() -> None:
    secret = {"access_key": "a", "secret_key": "not to be told"}
    plan = planned(copy_to="s3://b/p", s3=secret)
    (copy,) = [s.task for s in plan.steps if isinstance(s.task, CopyBackup)]
    assert copy.bucket
    assert copy.bucket.secret_key == "not to be told"
    assert "not to be told" not in repr(plan.steps)


@pytest.mark.parametrize(
    ("known", "reason", "left"),
    [
        ((made(1, copying=("/mnt/x",)),), "the run that copied it to /mnt/x has died", 0),
        ((made(50, copying=("/mnt/x",)), made(1)), "what runs that died left there of 1 other backup is", 1),
        ((made(50, copying=("/mnt/y",)), made(1)), "it is not in /mnt/x yet", 0),
        ((made(50, copying=("/mnt/x",), server="x"), made(1)), "it is not in /mnt/x yet", 0),
    ],
)
def test_a_copy_tells_what_it_cleans_up(known: tuple[Backup, ...], reason: str, left: int) -> None:
    plan = planned(*known, copy_to="/mnt/x", min_interval="20h")
    (step,) = [s for s in plan.steps if isinstance(s.task, CopyBackup)]
    assert reason in step.reason
    assert len(step.measured.get("left", ())) == left
    assert step.measured["id"] == known[-1].id


# ---- what others ask -------------------------------------------------------------------------------------------------


def test_the_last_verified_backup() -> None:
    known = (
        made(50),
        made(30, method="physical", database=""),
        made(5, level="checksum"),
        made(-3),
        made(2, server="x"),
    )
    measured = Measured(OURS, (Database("shop"),), shelf=Shelf("/srv/backups", known))
    assert last_verified(measured, "/srv/backups", "shop") == NOW - 30 * HOUR
    assert last_verified(measured, "/srv/others", "shop") is None
    assert last_verified(measured._replace(shelf=None), "/srv/backups", "shop") is None


# ---- restore ---------------------------------------------------------------------------------------------------------


def restored(*backups: Backup, on: Any = OURS, **options: Any) -> Plan:
    given_options = {"backup_dir": "/srv/backups", "database": "shop", "target": "new", **options}
    if given_options.get("drill"):
        given_options.pop("target")
    measured = Measured(on, (), shelf=Shelf("/srv/backups", backups))
    return restore.plan(restore.policy(defaults(restore.OPTIONS, **given_options)), measured)


@pytest.mark.parametrize(
    ("options", "hours"),
    [
        ({}, 1),
        ({"which": (NOW - 2 * HOUR).isoformat()}, 2),
        ({"which": "2026-06-01T09:59:59Z"}, 3),
        ({"which": made(3).id}, 3),
    ],
)
def test_which_backup(options: dict[str, Any], hours: int) -> None:
    (step,) = restored(made(3), made(2), made(1), **options).steps
    assert isinstance(step.task, Restore)
    assert step.task.backup == made(hours)
    assert step.task.ref == Ref("new")


@pytest.mark.parametrize(
    ("backups", "options", "said"),
    [
        ([], {}, "there is no backup"),
        ([made(1)], {"which": "2020-01-01T00:00:00Z"}, "there is no backup"),
        ([made(1)], {"which": "soon"}, "not understood"),
        ([made(1)], {"target": "crm"}, "is there"),
        ([made(1)], {"drill": True, "replace": True}, "no target"),
        ([made(1, encryption="age")], {}, "encrypted"),
        ([made(1, server="a"), made(2, server="b")], {}, "2 servers"),
        ([made(1, engine="mysql")], {}, "is of mysql"),
        ([made(1)], {"globals": True}, "belongs to no database"),
    ],
)
def test_what_is_not_restored(backups: list[Backup], options: dict[str, Any], said: str) -> None:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault

    with pytest.raises(DbFault, match=said):
        restored(*backups, **options)


@pytest.mark.parametrize(
    ("fields", "cure"),
    [
        ({"method": "physical"}, "new data directory (target_dir)"),
        ({"method": "pgbackrest", "about": {"label": "20261122-100722F"}}, "pgbackrest restore --set=20261122-100722F"),
    ],
)
def test_a_backup_of_the_whole_server_is_no_databases(fields: dict[str, Any], cure: str) -> None:
    known = made(2, database="", **fields)
    with pytest.raises(Refused, match="is of the whole server") as refused:
        restored(known, path=f"/srv/backups/_server/{known.id}.manifest.json", backup_dir=None, database=None)
    assert cure in refused.value.cure


def test_a_whole_servers_backup_is_tried_out_where_it_is_named() -> None:
    known = made(2, database="", method="physical")
    named: dict[str, Any] = {"path": f"/srv/backups/_server/{known.id}.manifest.json"}
    (step,) = restored(known, drill=True, backup_dir=None, database=None, **named).steps
    assert isinstance(step.task, Restore)
    assert (step.task.ref, step.task.drill) == (Ref(""), True)
    assert "of the whole server of" in step.reason


def test_another_servers_backup_where_it_is_named() -> None:
    (step,) = restored(made(1, server="a"), made(2, server="b"), server="b").steps
    assert isinstance(step.task, Restore)
    assert step.task.backup.server == "b"


def test_by_the_path_of_a_file() -> None:
    known = (made(2), made(1))
    path = f"/srv/backups/shop/{known[0].id}.manifest.json"
    given_options = {"path": path, "target": "new"}
    asked_for = restore.policy(defaults(restore.OPTIONS, **given_options))
    (step,) = restore.plan(asked_for, Measured(OURS, (), shelf=Shelf("/srv/backups", known))).steps
    assert isinstance(step.task, Restore)
    assert (step.task.backup, step.task.ref) == (known[0], Ref("new"))
    for bad in ({}, {"backup_dir": "/srv/backups"}, {"path": path, "database": "shop"}, {"path": "/x.json"}):
        with pytest.raises(BadInput):
            restore.policy(defaults(restore.OPTIONS, **bad))


def test_a_drill_is_due_once() -> None:
    assert len(restored(made(1), drill=True).steps) == 1
    assert not restored(made(1, level="restore"), drill=True).steps
