# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of MySQL and MariaDB that go wrong: they fail, leave nothing half-done, and the one before stays good."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault, Gone, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backup_manifest
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore, Verify
from tests.fleet import Server

from .my import background, fill, wait_until
from .my_backup import Shelter

Make = Callable[[Server], str]
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def programs(mysql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = str(mysql.installation.bin_dir)
    monkeypatch.setenv("PATH", os.pathsep.join((folder, os.environ["PATH"])))


@pytest.fixture
def name(mysql: Server, database: Make) -> str:
    """A database whose dump takes a while at 1 MB a second."""
    made = database(mysql)
    fill(mysql, made, "t", "id int, note varchar(200), key (id)", "i, CONCAT(REPEAT('x', 190), i)", 60000)
    return made


@pytest.fixture
def shelter(mysql: Server, tmp_path: Path, name: str) -> Iterator[Shelter]:
    """With one good backup, which is good at the end of the test, too; and nothing else is there then."""
    it = Shelter(mysql, tmp_path / "backups")
    good, files = it.dump(name), it.files()
    yield it
    assert it.files() == files
    assert it.verify(name, "decode").id == good.id
    assert clients_of(name) == []


def clients_of(name: str) -> list[int]:
    """Client programs that work on this database."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            if b"--defaults-file=login.cnf" in words and name.encode() in words:
                found.append(int(place.name))
    return found


def slowly(shelter: Shelter, name: str) -> Dump:
    return Dump(Ref(name), "dump", shelter.manner._replace(rate_limit=1 << 20))


def test_a_broken_view_fails_the_backup(mysql: Server, name: str, shelter: Shelter) -> None:
    mysql.script("CREATE TABLE gone (a int); CREATE VIEW broken AS SELECT a FROM gone; DROP TABLE gone", database=name)
    with pytest.raises(Refused, match=r"broken"):
        shelter.dump(name)


def test_a_killed_client_fails_the_backup(name: str, shelter: Shelter) -> None:
    def kill(_ours: int) -> None:
        for pid in wait_until(lambda: clients_of(name)):
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(DbFault):
        disturbed(shelter, slowly(shelter, name), kill)


def test_a_killed_session_fails_the_backup(mysql: Server, name: str, shelter: Shelter) -> None:
    def kill(ours: int) -> None:
        query = f"SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{name}' AND ID <> {ours}"
        for (session,) in wait_until(lambda: mysql.sql(query)):
            mysql.sql(f"KILL {session}")

    # A client that waits for whoever reads it notices only when it goes on.
    with pytest.raises((Gone, Refused), match=r"[Ll]ost connection|connection was lost|2013|gone away"):
        disturbed(shelter, slowly(shelter, name), kill)


def test_a_stop_ends_it(name: str, shelter: Shelter) -> None:
    with pytest.raises(Stopped):
        disturbed(shelter, slowly(shelter, name), lambda _ours: shelter.used.engine.cancel())
    # Whoever was told to stop opens no more sessions.
    shelter.used = Shelter(shelter.server, shelter.folder).used


def test_leaving_early_ends_it(name: str, shelter: Shelter) -> None:
    engine = shelter.used.engine
    with engine.session(name) as session:
        work = engine.carry_out(session, slowly(shelter, name), shelter.used.server, None)
        next(work), next(work)
        assert wait_until(lambda: clients_of(name))
        work.close()


def disturbed(shelter: Shelter, task: Any, disturb: Callable[[int], None]) -> None:
    """Carries a task out; after its second tick something happens."""
    engine = shelter.used.engine
    with engine.session(engine.home(task)) as session:
        work = engine.carry_out(session, task, shelter.used.server, None)
        next(work), next(work)
        disturb(int(session.id))
        for _tick in work:
            pass


def lying(shelter: Shelter, name: str, change: Callable[[bytes], bytes]) -> Backup:
    """A backup whose file was changed, and whose manifest was made to fit."""
    plain = shelter.manner._replace(compression="none")
    shelter.carry_out(Dump(Ref(name), "dump", plain))
    backup = shelter.newest(name)
    path = Path(backup.folder) / backup.files[0].name
    content = change(path.read_bytes())
    path.write_bytes(content)
    stored = backup.files[0]._replace(
        bytes=len(content), plain_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )
    changed = backup._replace(files=(stored,))
    backup_manifest.write_manifest(changed)
    return changed


def cut(content: bytes, *, trailer: bool) -> bytes:
    """Ends after the first statement with rows: it would load without an error."""
    end = content.index(b");\n", content.index(b"INSERT INTO")) + 3
    rest = content[content.rindex(b"UNLOCK TABLES;\n") :] if trailer else b""
    return content[:end] + rest


@pytest.mark.parametrize("trailer", [False, True])
def test_a_dump_cut_at_a_statement_is_found_out(mysql: Server, tmp_path: Path, name: str, trailer: bool) -> None:
    shelter = Shelter(mysql, tmp_path / "lies")
    backup = lying(shelter, name, lambda content: cut(content, trailer=trailer))
    # Nothing is wrong with the file itself.
    shelter.verify(name, "checksum")
    with pytest.raises(Refused, match=r"rows instead of 60000" if trailer else "not whole"):
        shelter.verify(name, "decode")
    for level in ("throwaway", "same_server"):
        with pytest.raises(Refused, match=r"t: \d+ rows instead of 60000"):
            shelter.carry_out(Verify(Ref(name), backup, shelter.manner, "restore", on=level))
    copy = f"{name}_copy"
    with pytest.raises(Refused, match=r"t: \d+ rows instead of 60000"):
        shelter.restore(backup, copy)
    assert mysql.sql(f"SHOW DATABASES LIKE '{copy}'") == mysql.sql("SHOW DATABASES LIKE 'dbfleet%'") == []
    # And what it was to replace is still there, since it was tried out first.
    with pytest.raises(Refused, match=r"t: \d+ rows instead of 60000"):
        shelter.restore(backup, name, replace=True)
    assert mysql.sql(f"SELECT COUNT(*) FROM {name}.t") == [["60000"]]


def test_a_restore_whose_session_is_killed_leaves_nothing(mysql: Server, name: str, shelter: Shelter) -> None:
    copy, backup = f"{name}_copy", shelter.newest(name)
    engine, query = shelter.used.engine, f"SELECT ID FROM information_schema.PROCESSLIST WHERE DB = '{copy}'"

    def restore() -> None:
        with engine.session("") as session:
            for _tick in engine.carry_out(session, Restore(Ref(copy), backup), shelter.used.server, None):
                pass

    def kill() -> None:
        for (found,) in wait_until(lambda: mysql.sql(query)):
            with contextlib.suppress(Exception):  # it may be gone by itself
                mysql.sql(f"KILL {found}")

    killer = background(kill)
    with pytest.raises(DbFault, match=r"\b(2006|2013|1927)\b|[Ll]ost|ended it|killed"):
        restore()
    killer.join(20)
    assert mysql.sql(f"SHOW DATABASES LIKE '{copy}'") == []


CHILD = """
import sys
from pathlib import Path
from tests.integration.my_backup import Shelter
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Verify
import types
login = dict(zip(("login_host", "login_port", "login_user", "login_password"), sys.argv[2:6]))
server = types.SimpleNamespace(login=lambda: login)
shelter = Shelter(server, Path(sys.argv[1]))
shelter.carry_out(Verify(Ref(sys.argv[6]), None, shelter.manner, "restore"))
"""


def test_the_throwaway_server_dies_with_us(mysql: Server, name: str, shelter: Shelter) -> None:
    """Also by SIGKILL."""
    login = mysql.login()
    words = [str(login[key]) for key in ("login_host", "login_port", "login_user", "login_password")]
    path = os.pathsep.join((str(ROOT), str(ROOT / ".dev" / "collections")))
    argv = [sys.executable, "-c", CHILD, str(shelter.folder), *words, name]
    before = set(Path(tempfile.gettempdir()).glob("dbfleet-drill-*"))
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}) as child:

        def sockets() -> list[Path]:
            assert child.poll() is None, "it ended before its server was there"
            return [p for p in Path(tempfile.gettempdir()).glob("dbfleet-drill-*/s") if p.parent not in before]

        (socket,) = wait_until(sockets, seconds=60)
        servers = working_in(str(socket.parent))
        assert servers
        child.kill()
    wait_until(lambda: not working_in(str(socket.parent)))
    # What it leaves in the way of files the next drill takes away; and nothing of a drill that is under way.
    assert socket.parent.exists()
    shelter.verify(name, "restore")
    assert not socket.parent.exists()


def working_in(folder: str) -> list[int]:
    """Processes with the folder on their command lines."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if re.search(re.escape(folder).encode(), (place / "cmdline").read_bytes()):
                found.append(int(place.name))
    return found


def test_time_passes_while_it_is_slow(name: str, shelter: Shelter) -> None:
    """A tick at least each second: limits, stops and progress depend on it."""
    engine = shelter.used.engine
    last, longest = time.monotonic(), 0.0
    with engine.session(name) as session:
        work = engine.carry_out(session, slowly(shelter, name), shelter.used.server, None)
        for number, _tick in enumerate(work):
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
            if number == 3:
                work.close()
    assert longest < 5.0
