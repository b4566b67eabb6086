# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a backup builds on, and what pgBackRest's own backups are to the planner."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Backup,
    Repository,
    Shelf,
    Sheltered,
    Stanza,
    Stored,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import backup as planner
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import rotation
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.backup_known import last_verified
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Attempt,
    Database,
    Measured,
    Plan,
    Ref,
    Wants,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, RemoveBackup, Verify

from ..samples import NOW, defaults
from .test_backup import HOUR, OURS, asked, codes, kinds, made

LIST = Stored("x.backup_manifest.zst", 1, "0" * 64, "manifest")
FULL = made(100, method="physical", database="", files=(LIST,))
ON_FULL = made(75, method="physical", database="", files=(LIST,), parent=FULL.id)
ON_THAT = made(50, method="physical", database="", files=(LIST,), parent=ON_FULL.id)
PLAIN = made(50, method="physical", database="", files=(LIST,))
WEEK: dict[str, Any] = {"method": "physical", "full_interval": "7d"}
LABELS = {"stanza": "shop", "repo": "1", "type": "full", "prior": "", "bytes": "7", "wal_start": "", "wal_stop": ""}


def planned(*backups: Backup, repository: Repository | None = None, **options: Any) -> Plan:
    past = options.pop("past", {})
    databases = (Database("shop", repository=repository), Database("crm", repository=repository))
    return planner.plan(asked(**options), Measured(OURS, databases, shelf=Shelf("/srv/backups", backups), past=past))


def dump_of(plan: Plan) -> Dump:
    (task,) = [s.task for s in plan.steps if isinstance(s.task, Dump)]
    return task


@pytest.mark.parametrize(
    ("known", "options", "parent"),
    [
        ([], {}, None),
        ([FULL], {}, FULL),
        ([FULL, ON_FULL], {}, ON_FULL),
        ([FULL, ON_FULL, ON_THAT], {}, ON_THAT),
        ([FULL, ON_FULL], {"incremental_from": "full"}, FULL),
        ([FULL, ON_FULL], {"full_interval": "100h"}, None),
        ([FULL, ON_FULL], {"full_interval": None}, None),
        ([FULL, ON_FULL._replace(level="checksum")], {}, None),
        ([FULL, ON_FULL._replace(level="checksum")], {"incremental_from": "full"}, FULL),
        ([FULL, ON_FULL._replace(files=())], {}, None),
        ([ON_FULL, ON_THAT], {}, None),
        ([FULL, ON_THAT], {}, None),
        ([FULL, ON_FULL, PLAIN], {}, PLAIN),
    ],
)
def test_what_it_builds_on(known: list[Backup], options: dict[str, Any], parent: Backup | None) -> None:
    """The last one, or the last full one; on nothing unverified, without its list, or without its own parent."""
    assert dump_of(planned(*known, **{**WEEK, **options})).parent == parent


def test_after_an_attempt_that_failed_it_is_full() -> None:
    """The server may have forgotten what changed since: it would fail night after night."""
    attempt = Attempt(NOW - HOUR, 1.0, 0, 0, 0, ok=False)
    assert dump_of(planned(FULL, past={("dump", Ref("")): attempt}, **WEEK)).parent is None
    assert dump_of(planned(FULL, past={("dump", Ref("")): attempt._replace(ok=True)}, **WEEK)).parent == FULL
    earlier = attempt._replace(at=FULL.began - HOUR)
    assert dump_of(planned(FULL, past={("dump", Ref("")): earlier}, **WEEK)).parent == FULL


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "dump", "full_interval": "7d"}, "never builds on another"),
        ({**WEEK, "encrypt": {"age_recipient": ["age1x"]}}, "nobody here can read"),
        ({"pgbackrest_stanza": "shop"}, "is for method pgbackrest"),
        ({"method": "pgbackrest", "pgbackrest_stanza": "../x"}, "no name of a stanza"),
        ({"method": "pgbackrest", "pgbackrest_repo": 0}, "no number of a repository"),
        ({"method": "pgbackrest", "pin": True}, "pgBackRest decides that itself"),
        ({"method": "pgbackrest", "exclude_tables": ["t"]}, "pgBackRest decides that itself"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        asked(**options)


def test_a_server_that_knows_none_is_refused() -> None:
    server = OURS._replace(lacks={"incremental": "summarize_wal is off"})
    with pytest.raises(BadInput, match="full_interval is not for postgresql: summarize_wal is off"):
        planner.wants(asked(**WEEK), server)
    planner.wants(asked(method="pgbackrest", full_interval="7d"), server)  # its own are of another kind


def test_a_chain_counts_as_its_weakest_link() -> None:
    def last(*backups: Backup) -> Any:
        return last_verified(Measured(OURS, (), shelf=Shelf("/srv/backups", backups)), "/srv/backups", "shop")

    assert last(FULL, ON_FULL, ON_THAT) == ON_THAT.began
    assert last(FULL, ON_FULL._replace(level="checksum"), ON_THAT) == FULL.began
    assert last(FULL, ON_THAT) == FULL.began
    assert last(ON_FULL._replace(parent=ON_THAT.id), ON_THAT) is None


# ---- pgBackRest


def kept(hours: float, **fields: Any) -> Backup:
    found = made(hours, method="pgbackrest", database="", files=(), level="", format="full")
    return found._replace(about={**LABELS, "label": found.id})._replace(**fields)


def test_what_pgbackrest_keeps_counts_whoever_made_it() -> None:
    young, old = kept(3), kept(30)
    stanza = Stanza("shop", 1)
    plan = planned(repository=Repository(stanza, (old, young)), method="pgbackrest")
    assert kinds(plan) == ["verify"]
    task = plan.steps[0].task
    assert isinstance(task, Verify)
    assert (task.backup, task.stanza) == (young, stanza)
    assert [told["label"] for told in plan.shown["repository"]] == [young.id, old.id]
    proven = young._replace(level="decode")
    assert kinds(planned(proven, repository=Repository(stanza, (old, young)), method="pgbackrest")) == []
    assert kinds(planned(repository=Repository(stanza, (old,)), method="pgbackrest")) == ["dump", "verify"]


@pytest.mark.parametrize(
    ("known", "options", "kind"),
    [
        ([], {}, "full"),
        ([30.0], {}, "full"),
        ([30.0], {"full_interval": "7d"}, "incr"),
        ([30.0], {"full_interval": "7d", "incremental_from": "full"}, "diff"),
        ([200.0], {"full_interval": "7d"}, "full"),
    ],
)
def test_the_type_that_pgbackrest_is_told(known: list[float], options: dict[str, Any], kind: str) -> None:
    there = tuple(kept(hours) for hours in known)
    manifests = [backup._replace(level="decode") for backup in there]
    plan = planned(*manifests, repository=Repository(Stanza("shop"), there), method="pgbackrest", **options)
    task = dump_of(plan)
    assert task.stanza is not None
    assert (task.stanza.type, task.parent) == (kind, None)


def test_manifests_of_what_pgbackrest_expired_go() -> None:
    gone, there = kept(300, level="decode"), kept(3, level="decode")
    plan = planned(gone, there, repository=Repository(Stanza("shop"), (there,)), method="pgbackrest")
    (step,) = plan.steps
    assert isinstance(step.task, RemoveBackup)
    assert step.task.backup == gone
    unknown = Repository(Stanza("shop"), why_not="it cannot be read", cure="Look at it")
    plan = planned(gone, there, repository=unknown, method="pgbackrest")
    assert kinds(plan) == ["dump", "verify"]
    assert plan.steps[0].skip == "it cannot be read"
    assert "pgbackrest_unusable" in codes(plan)


def test_rotation_leaves_pgbackrest_alone() -> None:
    policy = rotation.policy(defaults(rotation.OPTIONS, backup_dir="/srv/backups", keep_last=1, databases=["*"]))
    shelf = Shelf("/srv/backups", (kept(30, level="decode"), kept(3, level="decode")))
    plan = rotation.plan(policy, Measured(OURS, (), shelf=shelf))
    assert kinds(plan) == []
    assert codes(plan) == {"pgbackrest_expires"}


def test_what_several_operations_want_of_the_folder_is_one_look() -> None:
    first, other = Sheltered("/a"), Sheltered("/a", "/copies", stanza=Stanza("shop"))
    assert Wants(backups=first).merge(Wants(backups=other)).backups == other
    assert Wants(backups=other).merge(Wants(backups=first)).backups == other
    assert Wants(backups=first).merge(Wants(backups=other._replace(folder="/b"))).backups == first
    assert Wants().merge(Wants(backups=other)).backups == other
