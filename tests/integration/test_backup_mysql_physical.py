# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole MariaDB servers by mariadb-backup, against a real one: what is in the stream, and what is found out."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import drilling, hot_copy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Gone, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backup_manifest
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore
from tests.fleet import Server

from .conftest import Pool, missing
from .module_runner import run
from .my import client, small, wait_until
from .my_backup import Shelter, furnish

Make = Callable[[Server], str]
NEEDED = ("RELOAD", "PROCESS", "BINLOG MONITOR")


@pytest.fixture(scope="module")
def maria(pool: Pool) -> Server:
    if shutil.which("mariadb-backup") is None:
        missing("mariadb-backup")
    return pool.get("mariadb")


@pytest.fixture
def shelter(maria: Server, tmp_path: Path) -> Shelter:
    return Shelter(maria, tmp_path / "backups")


def copied(shelter: Shelter, **more: Any) -> Backup:
    shelter.carry_out(Dump(Ref(""), "physical", shelter.manner, **more))
    return shelter.newest("")


@contextmanager
def writing(maria: Server, name: str) -> Iterator[None]:
    """Somebody writes to two tables in each transaction, and changes a third one's definition."""
    maria.script("CREATE TABLE one (a int); CREATE TABLE two (a int); CREATE TABLE moving (a int)", database=name)
    begun, ended = threading.Event(), threading.Event()

    def write() -> None:
        with client(maria, name) as say:
            for number in range(1_000_000):
                if ended.is_set():
                    return
                say("BEGIN")
                say(f"INSERT INTO one VALUES ({number})")
                say(f"INSERT INTO two VALUES ({number})")
                say("COMMIT")
                begun.set()
                if number % 50 == 0:
                    say("RENAME TABLE moving TO moved, moved TO moving")

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        ended.set()
        thread.join()


def test_a_whole_server_is_copied_while_it_is_written_to(
    maria: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what starts from the copy has every table as it was: all of one moment."""
    name = database(maria)
    furnish(maria, name)
    with writing(maria, name):
        backup = copied(shelter, jobs=2)
    (stored,) = backup.files
    assert (backup.method, backup.database, backup.format, stored.what) == ("physical", "", "xbstream", "physical")
    assert backup.about["position"].startswith("binlog.") and backup.about["gtid"] and int(backup.about["lsn"]) > 0
    assert backup.source_bytes > 10 << 20 and backup.level == ""
    assert maria.password not in (Path(backup.folder) / f"{backup.id}.manifest.json").read_text()
    assert shelter.verify("", "decode").level == "decode"
    seen: dict[str, Any] = {}
    checked = drilling.checked

    def looked_at(link: Any, database: str) -> Any:
        if database == name:
            seen["sums"] = sorted(link.rows(f"CHECKSUM TABLE {tables(name)}"))
            seen["pairs"] = link.rows(f"SELECT (SELECT COUNT(*) FROM {name}.one), (SELECT COUNT(*) FROM {name}.two)")
            seen["running"] = link.rows("SHOW ALL SLAVES STATUS"), link.rows("SELECT @@event_scheduler, @@port")
        return checked(link, database)

    monkeypatch.setattr(drilling, "checked", looked_at)
    assert shelter.verify("", "restore").level == "restore"
    with client(maria, name) as say:
        assert seen["sums"] == sorted(say(f"CHECKSUM TABLE {tables(name)}")) and len(seen["sums"]) == 11
    ((one, two),) = seen["pairs"]
    assert one == two > 0
    assert seen["running"][0] == [] and seen["running"][1][0][0] in ("OFF", "DISABLED")


def tables(name: str) -> str:
    """What nobody writes to meanwhile."""
    kept = (
        "plain",
        "empty_one",
        "keyless",
        "parted",
        "made",
        "old_dates",
        "parent",
        "child",
        "aside",
        "versioned",
        "uu",
    )
    return ", ".join(f"{name}.{each}" for each in kept)


def test_nothing_is_copied_that_is_not_this_server(maria: Server, shelter: Shelter, tmp_path: Path) -> None:
    settings = shelter.used.server.settings
    for more, words in (
        ({"hostname": "elsewhere"}, "files are on elsewhere"),
        ({"datadir": str(tmp_path / "none")}, "cannot be read"),
    ):
        shelter.used.server = shelter.used.server._replace(settings={**settings, **more})
        with pytest.raises(Refused, match=words):
            copied(shelter)
    shelter.used.server = shelter.used.server._replace(settings=settings, number=(10, 6, 1))
    with pytest.raises(Refused, match="another series"):
        copied(shelter)
    assert settings["hostname"] == socket.gethostname() and shelter.files() == []


def test_the_login_needs_some_privileges_and_they_are_named(maria: Server, tmp_path: Path) -> None:
    for left_out in NEEDED:
        login = small(maria, *(f"{each} ON *.*" for each in NEEDED if each != left_out))
        with pytest.raises(Refused, match=f"lacks {left_out}") as refused:
            copied(Shelter(maria, tmp_path / left_out.split()[0], **login))
        assert refused.value.cure.startswith(f"GRANT {left_out} ON *.* TO ")
    login = small(maria, *(f"{each} ON *.*" for each in NEEDED))
    # As an encrypted one is read: on its way.
    assert copied(Shelter(maria, tmp_path / "enough", **login), decode=True).level == "decode"


def test_who_is_killed_or_stopped_leaves_nothing_and_the_last_one_stays(maria: Server, shelter: Shelter) -> None:
    first = copied(shelter)
    files, slow = shelter.files(), Dump(Ref(""), "physical", shelter.manner._replace(rate_limit=1 << 20))

    def disturbed(disturb: Callable[[], Any]) -> None:
        engine = shelter.used.engine
        with engine.session("") as session:
            work = engine.carry_out(session, slow, shelter.used.server, None)
            next(work), next(work)
            disturb()
            for _tick in work:
                pass

    def kill() -> None:
        for pid in wait_until(programs):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises((Gone, Refused), match="SIGKILL"):
        disturbed(kill)
    with pytest.raises(Stopped):
        disturbed(shelter.used.engine.cancel)
    wait_until(lambda: not programs())
    assert shelter.files() == files and shelter.newest("") == first


def test_who_holds_a_table_is_waited_for_a_while(
    maria: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch
) -> None:
    maria.script("CREATE TABLE held (a int)", database=(name := database(maria)))
    monkeypatch.setattr(hot_copy, "PATIENCE", 1)
    with client(maria, name) as say:
        say("LOCK TABLES held WRITE")
        with pytest.raises(Busy, match="Lock wait timeout"):
            copied(shelter)
    assert shelter.files() == []


def programs() -> list[int]:
    """Of this process: other tests copy servers, too."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes().split(b"\0")
            parent = (place / "stat").read_text().rpartition(") ")[2].split()[1]
        except OSError:
            continue
        if b"--stream=xbstream" in words and parent == str(os.getpid()):
            found.append(int(place.name))
    return found


def test_a_copy_with_a_hole_in_it_is_found_out(maria: Server, shelter: Shelter, database: Make) -> None:
    """The manifest is made to fit each time: so only the content can tell."""
    maria.script("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", database=(name := database(maria)))
    shelter.manner = shelter.manner._replace(compression="none")
    backup = copied(shelter)
    path = Path(backup.folder) / backup.files[0].name
    whole = path.read_bytes()

    def lies(content: bytes) -> None:
        path.write_bytes(content)
        size = len(content)
        stored = backup.files[0]._replace(bytes=size, plain_bytes=size, sha256=sha256(content).hexdigest())
        backup_manifest.write_manifest(backup._replace(files=(stored,)))

    begin = whole.index(b"XBSTCK01\0P", whole.index(f"{name}/t.frm".encode()) - 16)
    end = whole.index(b"XBSTCK01\0E", begin)
    end = whole.index(b"XBSTCK01", end + 8)
    without = whole[:begin] + whole[end:]
    # Cut between two chunks, mbstream unpacks it and says nothing.
    cut = whole[: whole.rindex(b"XBSTCK01")]
    for content, words, level in (
        (cut, "not whole", "decode"),
        (cut, "not whole", "restore"),
        (without, "files", "decode"),
    ):
        lies(content)
        assert shelter.verify("", "checksum").level == "checksum"
        with pytest.raises(Refused, match=words):
            shelter.verify("", level)


def test_what_is_not_made_consistent_is_no_server(
    shelter: Shelter, maria: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last words count: it has exited 0 with errors."""
    copied(shelter)
    real = shutil.which("mariadb-backup")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)  # for the server's account
        script = Path(folder) / "mariadb-backup"
        script.write_text(f'#!/bin/sh\n[ "$1" = --prepare ] && exit 0\nexec {real} "$@"\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", os.pathsep.join((folder, os.environ["PATH"])))
        with pytest.raises(Refused, match="did not say that all went well"):
            shelter.verify("", "restore")
    with pytest.raises(Refused, match="throwaway"):
        shelter.verify("", "restore", on="same_server")
    with pytest.raises(Refused, match="new data directory"):
        shelter.carry_out(Restore(Ref("copy"), shelter.newest("")))


def test_the_module_copies_once(maria: Server, database: Make, tmp_path: Path) -> None:
    """Check mode says what the run does, the second run does nothing."""
    database(maria)
    options = {**maria.login(), "engine": "mariadb", "backup_dir": str(tmp_path / "b"), "journal": "none"}
    options.update(method="physical")
    planned = run("db_backup", options, check=True).result
    done = run("db_backup", options).result
    facts = [each["ansible_facts"]["db_backup"]["steps"] for each in (planned, done)]
    words = [[(step["kind"], step["database"], step["statements"]) for step in steps] for steps in facts]
    assert words[0] == words[1] and "mariadb-backup" in str(words)
    assert {(step["kind"], step["proven"]) for step in facts[1]} == {("dump", True), ("verify", True)}
    assert not run("db_backup", options).result["changed"]
