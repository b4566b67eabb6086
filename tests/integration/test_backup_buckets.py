# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Copies of backups in a bucket, over a line that breaks, and what is read back from there."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Backup,
    Bucket,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    DbFault,
    Gone,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import copies
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import part
from tests.fleet.bucket import open_uploads, stored
from tests.unit.files.backing import fill, look, names, record, sound, task

from .backups import backed_up, codes, content, fact, kinds
from .breaking import Breaking
from .lite import closing
from .module_runner import Ran, run

NOISE = random.Random(7).randbytes(40 << 20)  # more than two parts of an upload, and nothing that could be compressed


@pytest.fixture
def large(tmp_path: Path) -> Backup:
    """Files of three sizes: of many parts, of one, of none."""
    with part(task(tmp_path / "here", "größe/1", compression="none")) as new:
        fill(new, data=NOISE)
        list(new.feed([b"hello"], what="globals", ext="globals"))
        list(new.feed([b""], what="empty", ext="empty"))
        return new.seal(record(new.id, database="größe/1"))


def test_a_copy_in_a_bucket(bucket: tuple[Any, str, Bucket], large: Backup, tmp_path: Path) -> None:
    client, name, access = bucket
    to = f"s3://{name}/fleet/a"
    assert sum(copies.copy(large, to, bucket=access)) == large.bytes
    there = stored(client, name)
    folder = "fleet/a/gr%C3%B6%C3%9Fe%2F1"
    assert {key: size for key, size in there.items() if "manifest" not in key} == {
        f"{folder}/{file.name}": file.bytes for file in large.files
    }
    data = client.get_object(Bucket=name, Key=f"{folder}/{large.files[0].name}")["Body"].read()
    assert data == NOISE
    (now,) = look(tmp_path / "here").backups
    assert now.copies == (to,)
    assert sum(copies.copy(now, to, bucket=access)) == 0  # it is there
    assert copies.remove(now, to, bucket=access) > large.bytes
    assert stored(client, name) == {} and look(tmp_path / "here").backups[0].copies == ()
    assert copies.remove(now, to, bucket=access) == 0


def test_what_was_changed_in_the_bucket_is_sent_again(bucket: tuple[Any, str, Bucket], large: Backup) -> None:
    client, name, access = bucket
    list(copies.copy(large, f"s3://{name}", bucket=access))
    key = next(key for key, size in stored(client, name).items() if size == len(NOISE))
    client.put_object(Bucket=name, Key=key, Body=NOISE[:-1] + bytes([NOISE[-1] ^ 1]))
    assert sum(copies.copy(large, f"s3://{name}", bucket=access)) == large.bytes
    assert client.get_object(Bucket=name, Key=key)["Body"].read() == NOISE


def test_a_service_without_checksums_is_read_again(bucket: tuple[Any, str, Bucket], large: Backup) -> None:
    client, name, access = bucket
    to = f"s3://{name}/x"
    with Breaking(access.endpoint_url, hide=b"x-amz-checksum-sha256") as line:
        plainer = access._replace(endpoint_url=line.url)
        assert sum(copies.copy(large, to, bucket=plainer)) == large.bytes
        key = next(key for key, size in stored(client, name).items() if size == len(NOISE))
        client.put_object(Bucket=name, Key=key, Body=NOISE[:-1] + bytes([NOISE[-1] ^ 1]))
        assert sum(copies.copy(large, to, bucket=plainer)) == large.bytes  # seen, and sent again
        assert sum(copies.copy(large, to, bucket=plainer)) == 0
        assert line.hidden >= 3


def test_a_copy_that_is_stopped(bucket: tuple[Any, str, Bucket], large: Backup, tmp_path: Path) -> None:
    client, name, access = bucket
    (tmp_path / "there").mkdir()
    for to in (f"s3://{name}/x", str(tmp_path / "there")):
        stop = threading.Event()
        threading.Timer(1.2, stop.set).start()
        with pytest.raises(Stopped):
            list(copies.copy(large, to, bucket=access, stop=stop, rate_limit=8 << 20))
    assert stored(client, name) == {} and open_uploads(client, name) == []
    assert names(tmp_path / "there") == []
    assert look(tmp_path / "here").backups == (large,)


Refusal = Callable[[str, Bucket], tuple[str, Bucket]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, access: ("s3://nobody-has-this", access), "does not exist. Make the bucket"),
        (lambda name, access: ("s3://", access), "names no bucket"),
        (lambda name, access: (f"s3://{name}", access._replace(endpoint_url="http://127.0.0.1:9")), "connect"),
        (lambda name, access: ("somewhere", access), "neither an absolute path"),
    ],
)
def test_buckets_that_are_none(bucket: tuple[Any, str, Bucket], large: Backup, change: Refusal, said: str) -> None:
    _client, name, access = bucket
    to, asked = change(name, access)
    with pytest.raises(DbFault) as refused:
        list(copies.copy(large, to, bucket=asked))
    assert said in str(refused.value) and "s3cr3t" not in str(refused.value) + repr(asked)


@pytest.mark.parametrize(
    "breaks", [(after, times) for after in (1_000, 1_000_000, 20_000_000, 41_000_000) for times in (1, 1000)]
)
def test_a_line_that_breaks(
    bucket: tuple[Any, str, Bucket],
    large: Backup,
    tmp_path: Path,
    breaks: tuple[int, int],
) -> None:
    """Once: the copy is complete and verified all the same. Again and again: there is none, and it is said."""
    client, name, access = bucket
    after, times = breaks
    to = f"s3://{name}/x"
    with Breaking(access.endpoint_url, after=after, times=times) as line:
        broken = access._replace(endpoint_url=line.url)
        if times == 1:
            assert sum(copies.copy(large, to, bucket=broken)) >= large.bytes
            assert look(tmp_path / "here").backups[0].copies == (to,)
        else:
            with pytest.raises(Gone) as gone:
                list(copies.copy(large, to, bucket=broken))
            assert to in str(gone.value) and "s3cr3t" not in str(gone.value)
            assert not [key for key in stored(client, name) if "manifest" in key]
            begun = (to,) if after > 1_000 else ()  # something may be there
            assert look(tmp_path / "here").backups == (large._replace(copying=begun),)
        assert line.broken >= 1
    list(copies.copy(large, to, bucket=access))
    assert sum(stored(client, name).values()) > large.bytes and len(stored(client, name)) == 4
    assert open_uploads(client, name) == []


# ---- read back from a bucket


@pytest.fixture
def shop(lite: Callable[[str], Path], bucket: tuple[Any, str, Bucket], tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A database with a backup that is copied to the bucket, and the options for that."""
    _client, name, access = bucket
    path = lite("shop.sqlite3")
    with closing(path) as db:
        db.executescript("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    keys = {key: getattr(access, key) for key in ("endpoint_url", "region", "access_key", "secret_key")}
    more: dict[str, Any] = {"copy_to": f"s3://{name}/fleet", "s3": keys}
    assert kinds(backed_up(path, tmp_path / "here", **more))[-1] == ("copy", "done")
    return path, more


@pytest.mark.parametrize("gone", ["the manifest", "a file", "half of a file", "all"])
def test_a_copy_that_vanished_is_made_again(
    bucket: tuple[Any, str, Bucket], shop: tuple[Path, dict[str, Any]], tmp_path: Path, gone: str
) -> None:
    (client, name, _access), (path, more) = bucket, shop
    before = stored(client, name)
    assert not backed_up(path, tmp_path / "here", **more).result["changed"]
    for key in before:
        if gone == "all" or ("manifest" in key) == (gone == "the manifest"):
            if gone == "half of a file":
                client.put_object(Bucket=name, Key=key, Body=b"x")
            else:
                client.delete_object(Bucket=name, Key=key)
    foreseen = backed_up(path, tmp_path / "here", check=True, **more)
    assert (kinds(foreseen), codes(foreseen)) == ([("copy", "planned")], {"same_file_system", "copy_vanished"})
    ran = backed_up(path, tmp_path / "here", **more)
    assert kinds(ran) == [("copy", "done")]
    assert fact(ran)["steps"][0]["proven"]
    assert stored(client, name).keys() == before.keys()
    assert not backed_up(path, tmp_path / "here", **more).result["changed"]


def test_an_older_copy_that_vanished_is_made_again(
    bucket: tuple[Any, str, Bucket], shop: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (client, name, _access), (path, more) = bucket, shop
    older = stored(client, name)
    backed_up(path, tmp_path / "here", min_interval="0s", **more)
    for key in older:
        client.delete_object(Bucket=name, Key=key)
    ran = backed_up(path, tmp_path / "here", **more)
    assert kinds(ran) == [("copy", "done")]
    assert older.keys() <= stored(client, name).keys()


def test_a_service_that_does_not_answer_says_nothing_of_copies(
    shop: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """They count as they are: nothing is copied again for a key that may not list."""
    path, more = shop
    more = {**more, "s3": {**more["s3"], "endpoint_url": "http://127.0.0.1:9"}}
    ran = backed_up(path, tmp_path / "here", **more)
    assert not ran.result["changed"]
    assert "copies_unseen" in codes(ran)


def restored(path: Path, folder: Path, more: dict[str, Any], **options: Any) -> Ran:
    told = {"engine": "sqlite", "backup_dir": str(folder), "database": str(path), "journal": "none", "s3": more["s3"]}
    check, fails = options.pop("check", False), options.pop("fails", False)
    return run("db_restore", {**told, "copy_from": more["copy_to"], **options}, check=check, fails=fails)


@pytest.mark.parametrize("left", ["nothing", "the manifest", "a damaged file"])
def test_what_is_lost_here_comes_from_the_bucket(shop: tuple[Path, dict[str, Any]], tmp_path: Path, left: str) -> None:
    path, more = shop
    here, wanted, target = tmp_path / "here", content(shop[0]), tmp_path / "again.sqlite3"
    (dump,) = [p for p in here.rglob("*") if p.is_file() and "manifest" not in p.name]
    if left == "nothing":
        shutil.rmtree(here)
    elif left == "the manifest":
        dump.unlink()
    else:
        dump.write_bytes(dump.read_bytes()[:-1])
    with closing(path) as db:
        db.executescript("DELETE FROM t")
    foreseen = restored(path, here, more, target=str(target), check=True)
    assert kinds(foreseen) == [("fetch", "planned"), ("restore", "planned")]
    assert kinds(restored(path, here, more, target=str(target))) == [("fetch", "done"), ("restore", "done")]
    assert content(target) == wanted
    (backup,) = look(here).backups
    assert sound(backup)
    assert backup.copies == (more["copy_to"],)
    # It is here now: a drill needs no bucket, and proves it.
    assert kinds(restored(path, here, more, drill=True)) == [("restore", "done")]
    assert look(here).backups[0].level == "restore"


def test_what_was_changed_in_the_bucket_is_not_restored(
    bucket: tuple[Any, str, Bucket], shop: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    (client, name, _access), (path, more) = bucket, shop
    (key,) = [key for key in stored(client, name) if "manifest" not in key]
    data = client.get_object(Bucket=name, Key=key)["Body"].read()
    client.put_object(Bucket=name, Key=key, Body=data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    shutil.rmtree(tmp_path / "here")
    ran = restored(path, tmp_path / "here", more, target=str(tmp_path / "again.sqlite3"), fails=True)
    assert [status for _kind, status in kinds(ran)] == ["failed", "skipped"]
    assert "was changed since it was written" in ran.result["msg"]
    assert not (tmp_path / "again.sqlite3").exists()
    assert names(tmp_path / "here") == []


def test_a_line_that_breaks_on_the_way_back(bucket: tuple[Any, str, Bucket], large: Backup, tmp_path: Path) -> None:
    _client, name, access = bucket
    to = f"s3://{name}/x"
    list(copies.copy(large, to, bucket=access))
    back = large._replace(folder=str(tmp_path / "back" / Path(large.folder).name))
    with Breaking(access.endpoint_url, after=20_000_000, times=1000, back=True) as line:
        with pytest.raises(Gone) as gone:
            list(copies.fetch(back, to, bucket=access._replace(endpoint_url=line.url)))
        assert to in str(gone.value) and "s3cr3t" not in str(gone.value)
        assert line.broken >= 1
    assert names(tmp_path / "back") == []
    assert sum(copies.fetch(back, to, bucket=access)) == large.bytes
    (found,) = look(tmp_path / "back").backups
    assert sound(found) and found.copies == (to,)
