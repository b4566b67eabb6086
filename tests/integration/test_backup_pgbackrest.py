# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups by pgBackRest on a real repository: made, counted, verified by what verify says, tried out, and damaged."""

from __future__ import annotations

import os
import pwd
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup, Repository, Sheltered, Stanza
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import pgbackrest, throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Verify
from tests.fleet.processes import give_away, server_account

from .backups import codes, fact, kinds
from .conftest import Pool
from .module_runner import Ran, run
from .pg_backrest import Kept
from .pg_backups import manner, using

SERVER = Ref("")
ROWS = 20_000


@pytest.fixture(scope="module")
def kept(pool: Pool) -> Kept:
    """Shared by all tests here; a full backup and one on top of it are there."""
    found = Kept(pool.fleet, 15)
    found.server.script(
        f"CREATE TABLE t AS SELECT i, repeat('x', 100) AS v FROM generate_series(1, {ROWS}) i; CREATE INDEX ON t (i)"
    )
    far = found.home / "far"
    far.mkdir(mode=0o700)
    give_away(far)
    found.server.sql(f"CREATE TABLESPACE far LOCATION '{far}'")
    found.server.sql(f"CREATE TABLE far TABLESPACE far AS SELECT generate_series(1, {ROWS}) AS i")
    found.call("backup", "--type=full")
    found.call("backup", "--type=incr")
    return found


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Of manifests; and the only one for temporary files, which is empty again at the end."""
    # pgBackRest flushes each of a thousand files.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="t", dir=memory) as name:
        folder, temporary = Path(name) / "backups", Path(name) / "temporary"
        temporary.mkdir()
        for path in (Path(name), temporary):
            path.chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield folder
        assert list(temporary.iterdir()) == []


def backed_up(kept: Kept, folder: Path, **more: Any) -> Ran:
    check, fails = more.pop("check", False), more.pop("fails", False)
    told = {"method": "pgbackrest", "backup_dir": str(folder), "journal": "none", "pgbackrest_config": str(kept.config)}
    where = {**kept.server.login(), "bin_dir": str(kept.server.bin_dir)}
    return run("db_backup", {**where, **told, **more}, check=check, fails=fails)


def newest(kept: Kept, folder: Path) -> tuple[Backup, Verify]:
    """The last backup, and what verifies it."""
    stanza = Stanza(config=str(kept.config))
    with using(kept.server) as pg:
        found, _findings = pgbackrest.repository(pg.server, stanza)
        how = manner(folder, identity=pg.server.settings["identity"])
    return found.backups[-1], Verify(SERVER, found.backups[-1], how, "decode", stanza=found.stanza)


def asked(kept: Kept, stanza: Stanza) -> Repository:
    with using(kept.server) as pg:
        wanted = Sheltered("/nowhere", stanza=stanza)
        found = pg.measure("postgres", Wants(backups=wanted)).repository
    assert found is not None
    return found


def verified(kept: Kept, task: Verify) -> None:
    with using(kept.server) as pg:
        pg.carry_out(task)


def test_what_somebody_else_made_counts_and_is_verified(kept: Kept, place: Path) -> None:
    """A schedule of one's own keeps its place: the stanza is found, nothing is dumped, the verification is ours."""
    labels = [b["label"] for b in kept.info()]
    seen = backed_up(kept, place, check=True)
    assert kinds(seen) == [("verify", "planned")]
    assert not place.exists()
    first = backed_up(kept, place)
    assert kinds(first) == [("verify", "done")]
    assert fact(first)["steps"][0]["proven"]
    assert [b["label"] for b in fact(first)["repository"]] == labels[::-1]
    second = backed_up(kept, place)
    assert not second.result["changed"]
    assert fact(second)["repository"][0]["level"] == "decode"
    assert [b["label"] for b in kept.info()] == labels


def test_a_drill_restores_and_starts_it(kept: Kept, place: Path) -> None:
    """From the repository, by the user whose it is; the backup on top needs the full one below."""
    ran = backed_up(kept, place, verify="restore")
    assert kinds(ran) == [("verify", "done")]
    ((began, level),) = [(b["began"], b["level"]) for b in fact(backed_up(kept, place))["repository"][:1]]
    assert (began, level) == (fact(ran)["repository"][0]["began"], "restore")
    assert kept.server.sql("SELECT count(*) FROM t") == [[str(ROWS)]]


@pytest.mark.parametrize("prove", [True, False])
def test_a_new_data_directory_of_it(kept: Kept, place: Path, prove: bool) -> None:
    """Recovered, or with all that a server needs to recover as far as the log goes; tablespaces beside it."""
    backed_up(kept, place)
    site, account = place.parent / "new", server_account()
    told: dict[str, Any] = {"engine": "postgresql", "backup_dir": str(place), "target_dir": str(site), "prove": prove}
    told.update(bin_dir=str(kept.server.bin_dir), journal="none")
    if account:
        told["target_owner"] = pwd.getpwuid(account.uid).pw_name
    planned = run("db_restore", told, check=True)
    assert not site.exists()
    ran = run("db_restore", told)
    assert [s["statements"] for s in fact(ran)["steps"]] == [s["statements"] for s in fact(planned)["steps"]]
    assert kinds(ran) == [("restore", "done")]
    (link,) = (site / "pg_tblspc").iterdir()
    assert (str(link.readlink()), link.is_dir()) == (f"{site}.tablespaces/far", True)
    settings = (site / "postgresql.auto.conf").read_text()
    assert ("restore_command" in settings, "dbfleet-restore" in settings) == (not prove, False)
    (site.parent / "hba").write_text("local all all trust\n")
    (site.parent / "hba").chmod(0o644)
    (place.parent / "temporary").chmod(0o777)
    how = {"hba_file": str(site.parent / "hba"), "restore_command": "" if prove else _of(settings, "restore_command")}
    started = throwaway.started(
        site,
        15,
        str(kept.server.bin_dir),
        how,
        user="postgres",
        owner=account and (account.uid, account.gid),
        sockets=place.parent / "temporary",
    )
    with started as there, throwaway.speaking(there, "postgres") as found:
        assert found.rows("SELECT count(*) FROM public.far JOIN public.t USING (i)") == [(ROWS,)]


def _of(settings: str, name: str) -> str:
    """The value of a setting in such a file."""
    (line,) = (line for line in settings.splitlines() if line.startswith(f"{name} = "))
    return line.partition(" = ")[2].strip("'").replace("''", "'")


def test_full_and_incremental_ones_in_turn(kept: Kept, place: Path) -> None:
    """The first on the one before it, since that is verified; the next one full, since that is asked for."""
    verified(kept, newest(kept, place)[1])
    on_top = backed_up(kept, place, min_interval="0s", full_interval="30d")
    assert kinds(on_top) == [("dump", "done"), ("verify", "done")]
    full = backed_up(kept, place, min_interval="0s")
    assert [b["type"] for b in kept.info()][-2:] == ["incr", "full"]
    assert kinds(full)[:2] == [("dump", "done"), ("verify", "done")]
    # repo1-retention-full=2: what pgBackRest expires meanwhile is told, and its manifests go.
    backed_up(kept, place, min_interval="0s")
    ran = backed_up(kept, place)
    assert {kind for kind, _status in kinds(ran)} == {"remove_backup"}
    assert not backed_up(kept, place).result["changed"]
    rotated = run(
        "db_backup_rotate",
        {"engine": "postgresql", "backup_dir": str(place), "keep_last": 1, "journal": "none"},
    )
    assert not rotated.result["changed"]
    assert codes(rotated) == {"pgbackrest_expires"}


@pytest.mark.parametrize("level", ["decode", "restore"])
def test_a_flipped_byte_is_found_though_verify_exits_with_0(kept: Kept, place: Path, level: str) -> None:
    victim = max(kept.repo.glob("backup/shop/2*F/pg_data/base/*/*.lz4"), key=lambda p: (p.parts[-5], p.stat().st_size))
    whole = victim.read_bytes()
    victim.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    try:
        kept.call("verify")  # the trap: exit status 0, and not a word
        with pytest.raises(Refused, match=r"is invalid, \d+ of \d+ files are valid|checksum|decompress|ERROR_"):
            verified(kept, newest(kept, place)[1]._replace(level=level))
    finally:
        victim.write_bytes(whole)
    assert not list(place.rglob("*.json"))
    verified(kept, newest(kept, place)[1])


@pytest.mark.parametrize("how", ["missing", "damaged", "damaged elsewhere"])
def test_the_log_that_a_backup_needs(kept: Kept, place: Path, how: str) -> None:
    """pgBackRest calls a backup valid whose log is not there."""
    backup, task = newest(kept, place)
    needed = backup.about["wal_stop"]
    segments = sorted(kept.repo.glob("archive/shop/*/*/" + ("*.lz4" if "elsewhere" in how else f"{needed}-*")))
    victim = segments[0]
    assert (needed in victim.name) == (how != "damaged elsewhere")
    whole = victim.read_bytes()
    if how == "missing":
        victim.unlink()
    else:
        victim.write_bytes(whole[:-20] + bytes(20))
    try:
        with pytest.raises(Refused) as refused:
            verified(kept, task)
    finally:
        victim.write_bytes(whole)
        victim.chmod(0o644)
    said = {
        "missing": f"the log that {backup.about['label']} needs is missing: {needed}",
        "damaged": f"the log that {backup.about['label']} needs is damaged",
        "damaged elsewhere": f"{backup.about['label']} is sound, but its repository is not",
    }
    assert said[how] in refused.value.cause
    assert bool(list(place.rglob("*.json"))) == (how == "damaged elsewhere")


def test_another_backup_holds_the_lock(kept: Kept, place: Path) -> None:
    account = server_account()
    become = ["setpriv", f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"] if account else []
    argv = [*become, "pgbackrest", f"--config={kept.config}", "--stanza=shop", "--type=full", "backup"]
    with subprocess.Popen(argv, cwd="/") as other:
        lock = kept.home / "lock" / "shop-backup.lock"
        while not lock.exists() and other.poll() is None:
            time.sleep(0.01)
        other_is_at_work = other.poll() is None
        task = Dump(SERVER, "pgbackrest", manner(place), stanza=Stanza(config=str(kept.config)))
        with using(kept.server) as pg, pytest.raises(Busy, match="lock"):
            pg.carry_out(task)
    assert other_is_at_work
    assert not list(place.rglob("*.json"))


def test_a_backup_that_is_stopped(kept: Kept, place: Path) -> None:
    """The server is told that no backup goes on any more, and the next one is made as ever."""
    before = [b["label"] for b in kept.info()]
    task = Dump(SERVER, "pgbackrest", manner(place), stanza=Stanza(config=str(kept.config), type="full"))
    lock = kept.home / "lock" / "shop-backup.lock"
    with using(kept.server) as pg, pg.engine.session("") as session:
        work = pg.engine.carry_out(session, task, pg.server, None)
        stopper = threading.Thread(target=lambda: _once(lock.exists, session.cancel))
        stopper.start()
        with pytest.raises(Stopped):
            list(work)
        stopper.join()
    assert [b["label"] for b in kept.info()] == before
    assert not list(place.rglob("*.json"))
    sender = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pgBackRest%'"
    assert kept.server.sql(sender) == [["0"]]


def _once(there: Callable[[], bool], then: Callable[[], object]) -> None:
    until = time.monotonic() + 60
    while not there() and time.monotonic() < until:
        time.sleep(0.005)
    then()


def test_archiving_that_fails(kept: Kept, place: Path) -> None:
    """The backup cannot be completed, its server is left in order, and before that a finding says so."""
    command = kept.server.settings["archive_command"]
    kept.server.settings["archive_command"] = "false pgbackrest"
    kept.server.reload()
    kept.configure(archive_timeout="0.5")
    try:
        ran = backed_up(kept, place, min_interval="0s", fails=True)
        assert ("dump", "failed") in kinds(ran)
        assert "archive" in ran.result["msg"].lower() or "WAL segment" in ran.result["msg"]
        assert kept.server.sql("SELECT pg_is_in_recovery()") == [["f"]]
        told = backed_up(kept, place, check=True)
        assert "archiving_fails" in codes(told)
    finally:
        kept.server.settings["archive_command"] = command
        kept.server.reload()
        kept.configure()
    kept.server.sql("SELECT pg_switch_wal()")


@pytest.mark.parametrize("what", ["no stanza", "another server's", "unreadable", "gone"])
def test_a_repository_that_cannot_be_used_is_told(kept: Kept, place: Path, what: str) -> None:
    stanza, hidden = Stanza(config=str(kept.config)), kept.repo / "backup"
    aside = kept.home / "aside"
    if what == "no stanza":
        found, said = asked(kept, stanza._replace(name="crm")), "missing stanza path"
    elif what == "another server's":
        with using(kept.server) as pg:
            server = pg.server._replace(settings={**pg.server.settings, "identity": "postgresql:7000000000000000000"})
            found, said = pgbackrest.repository(server, stanza._replace(name="shop"))[0], "is of another server"
            assert "no stanza of pgBackRest is of this server" in pgbackrest.repository(server, stanza)[0].why_not
    else:
        hidden.rename(aside)
        if what == "unreadable":
            hidden.mkdir(mode=0o700)  # root's
        try:
            found = asked(kept, stanza)
            said = "no stanza of pgBackRest is of this server"
            ran = backed_up(kept, place, check=True, fails=True)
            assert "pgbackrest_unusable" in codes(ran)
            assert ("dump", "failed") in kinds(ran)
        finally:
            if what == "unreadable":
                hidden.rmdir()
            aside.rename(hidden)
    assert said in found.why_not
    assert found.cure


def test_what_only_pgbackrest_decides(kept: Kept, place: Path) -> None:
    for option, value in (("copy_to", "/mnt/share"), ("encrypt", {"age_recipient": ["x"]}), ("rate_limit", "5MB")):
        ran = backed_up(kept, place, fails=True, **{option: value})
        assert f"{option}: pgBackRest decides that itself" in ran.result["msg"]
