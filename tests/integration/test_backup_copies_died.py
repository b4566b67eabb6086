# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies whose run died: what is left of them elsewhere is found, finished or removed, and nobody else's ever is."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Bucket
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, DbFault, Gone, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, copies, s3
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import write_manifest
from tests.fleet.bucket import open_uploads, stored
from tests.unit.files.backing import look, make

from .breaking import Breaking
from .module_runner import run

Lost = tuple[Any, str, Bucket]
NOISE = os.urandom(11 << 20)  # of several parts


def killed(backup: Backup, to: str, access: Bucket, seen: Callable[[], bool]) -> None:
    """A copy of it, in a process that is killed as soon as `seen` says so."""
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            s3.PART = 5 << 20
            list(copies.copy(backup, to, bucket=access, rate_limit=6 << 20))
        os._exit(0)
    until = time.monotonic() + 60
    while not seen():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    _pid, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it had ended before it was killed"


def died(here: Path, bucket: Lost, prefix: str = "/fleet") -> Backup:
    """A backup of which a part is in the bucket."""
    client, name, access = bucket
    backup = make(here, data=NOISE, compression="none")
    before = len(open_uploads(client, name))
    killed(backup, f"s3://{name}{prefix}", access, lambda: len(open_uploads(client, name)) > before)
    return backup


def rotated(here: Path, bucket: Lost, to: str) -> dict[str, Any]:
    _client, _name, access = bucket
    keys = {key: getattr(access, key) for key in ("endpoint_url", "region", "access_key", "secret_key")}
    options = {"engine": "postgresql", "backup_dir": str(here), "copy_to": to, "journal": "none", "keep_last": 1}
    options |= {"min_verified": 0, **({"s3": keys} if to.startswith("s3:") else {})}
    return run("db_backup_rotate", options).result


def ours(there: dict[str, int], backup: Backup) -> list[str]:
    return [key for key in there if backup.id in key]


def test_the_next_copy_clears_what_a_killed_one_left_in_the_bucket(bucket: Lost, tmp_path: Path) -> None:
    client, name, access = bucket
    to = f"s3://{name}/fleet"
    # Another server uses the prefix, too: its upload goes on, and its half of a backup is its own.
    stranger = died(tmp_path / "elsewhere", bucket)
    client.put_object(Bucket=name, Key="fleet/shop/20200101T000000Z-abcdef.dump", Body=b"foreign")
    left = died(tmp_path / "here", bucket)
    assert look(tmp_path / "here").backups == (left._replace(copying=(to,)),)
    newer = make(tmp_path / "here")
    list(copies.copy(newer, to, bucket=access))
    assert {backup.id: (backup.copies, backup.copying) for backup in look(tmp_path / "here").backups} == {
        left.id: ((), ()),
        newer.id: ((to,), ()),
    }
    assert [stranger.id in key for key in open_uploads(client, name)] == [True]
    assert sorted(stored(client, name)) == sorted(
        ["fleet/shop/20200101T000000Z-abcdef.dump", *ours(stored(client, name), newer)]
    )


@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_a_whole_copy_that_nobody_noted_is_noted_by_the_next_one(bucket: Lost, tmp_path: Path, where: str) -> None:
    """A run died between the last byte there and its word here."""
    client, name, access = bucket
    there = tmp_path / "there"
    there.mkdir()
    to = f"s3://{name}/fleet" if where == "bucket" else str(there)
    older = make(tmp_path / "here")
    list(copies.copy(older, to, bucket=access))
    backups.amend(backups.amend(older, without=[to]), copying=[to])
    newer = make(tmp_path / "here")
    list(copies.copy(newer, to, bucket=access))
    assert [backup.copies for backup in look(tmp_path / "here").backups] == [(to,), (to,)]
    assert [backup.copying for backup in look(tmp_path / "here").backups] == [(), ()]
    if where == "bucket":
        assert ours(stored(client, name), older)
    else:
        assert len(look(there).backups) == 2 and not look(there).backups[0].copying


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "half"])
@pytest.mark.parametrize("where", ["bucket", "folder"])
def test_rotation_removes_what_died_with_its_backup(bucket: Lost, tmp_path: Path, where: str, whole: bool) -> None:
    client, name, access = bucket
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    to = f"s3://{name}/fleet" if where == "bucket" else str(there)
    if whole:
        older = make(here)
        list(copies.copy(older, to, bucket=access))
        backups.amend(backups.amend(older, without=[to]), copying=[to])
    elif where == "bucket":
        older = died(here, bucket)
    else:
        older = make(here, data=NOISE, compression="none")
        killed(older, to, access, lambda: any(there.rglob("*.dump*")) or any(there.rglob("*.sql*")))
    (older,) = look(here).backups
    write_manifest(older._replace(began=older.began - timedelta(days=1), ended=older.ended - timedelta(days=1)))
    newer = make(here)
    result = rotated(here, bucket, to)
    assert result["changed"]
    assert [backup.id for backup in look(here).backups] == [newer.id]
    assert stored(client, name) == {} and open_uploads(client, name) == []
    assert not [path for path in there.rglob("*") if path.is_file()]
    assert not rotated(here, bucket, to)["changed"]


def test_a_place_that_is_not_there_is_not_waited_for_by_rotation(bucket: Lost, tmp_path: Path) -> None:
    """Nothing was copied to it: nothing has to be removed there."""
    here, gone = tmp_path / "here", tmp_path / "not mounted"
    older = make(here)
    for to in (str(gone), "s3://nobody-has-this/x"):
        with pytest.raises(DbFault):
            list(copies.copy(older, to, bucket=bucket[2]))
    assert look(here).backups == (older,)
    make(here)
    assert rotated(here, bucket, str(gone))["changed"]
    assert len(look(here).backups) == 1


def test_a_copy_that_cannot_be_looked_at_stays(bucket: Lost, tmp_path: Path) -> None:
    """It may be whole: a line that breaks is no reason to remove it."""
    client, name, access = bucket
    to, here = f"s3://{name}/fleet", tmp_path / "here"
    backup = make(here, data=NOISE, compression="none")
    list(copies.copy(backup, to, bucket=access))
    backups.amend(backups.amend(backup, without=[to]), copying=[to])
    before = stored(client, name)
    hidden = b"x-amz-checksum-sha256"  # so that it has to be read
    with Breaking(access.endpoint_url, hide=hidden, after=3_000_000, times=1000, back=True) as line:
        with pytest.raises(Gone):
            list(copies.copy(backup, to, bucket=access._replace(endpoint_url=line.url)))
        assert line.broken
    assert stored(client, name) == before
    assert look(here).backups == (backup._replace(copying=(to,)),)
    assert sum(copies.copy(backup, to, bucket=access)) == 0
    assert look(here).backups == (backup._replace(copies=(to,)),)


def test_a_copy_is_not_made_twice_at_once_nor_removed_meanwhile(bucket: Lost, tmp_path: Path) -> None:
    client, name, access = bucket
    to = f"s3://{name}/fleet"
    backup = make(tmp_path / "here")
    with (Path(backup.folder) / backup.files[0].name).open("rb+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # as whoever copies it has it
        for deed in (lambda: list(copies.copy(backup, to, bucket=access)), lambda: copies.remove(backup, to)):
            with pytest.raises(Busy, match="is being copied by another run"):
                deed()
    assert stored(client, name) == {} and look(tmp_path / "here").backups == (backup,)


def test_the_copy_of_a_backup_that_was_removed_meanwhile_does_not_stay(bucket: Lost, tmp_path: Path) -> None:
    client, name, access = bucket
    backup = make(tmp_path / "here", data=NOISE, compression="none")
    copying = copies.copy(backup, f"s3://{name}/fleet", bucket=access, rate_limit=8 << 20)
    next(copying)
    backups.remove(backup)  # its files are open
    with pytest.raises(Refused):
        list(copying)
    assert stored(client, name) == {} and open_uploads(client, name) == []
