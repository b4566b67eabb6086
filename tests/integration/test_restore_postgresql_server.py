# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole PostgreSQL servers restored into new data directories: tablespaces, chains, deaths on the way, refusals."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.sites import INSIDE
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Verify
from tests.fleet import Server
from tests.fleet.postgresql import PostgreSQL
from tests.fleet.processes import give_away, server_account

from .backups import fact, kinds
from .conftest import Pool, missing
from .module_runner import Ran, run, start, until
from .pg_backups import manner, shelf, using

SERVER = Ref("")
SUMS = """
SELECT pg_catalog.md5(pg_catalog.string_agg(f::text, ',' ORDER BY i)) FROM public.far AS f
UNION ALL SELECT pg_catalog.md5(pg_catalog.string_agg(n::text, ',' ORDER BY i)) FROM public.near AS n
"""
NAME = 'far "away"'


@pytest.fixture(scope="module")
def server(pool: Pool) -> PostgreSQL:
    """One with a tablespace, whose name asks for care, that summarizes its log."""
    found = pool.fleet.postgresql(18, settings={"summarize_wal": "on"}, name="spacious")
    place = found.home / "far"
    place.mkdir(mode=0o700)
    give_away(place)
    found.sql(f"""CREATE TABLESPACE "{NAME.replace('"', '""')}" LOCATION '{place}'""")
    found.script(
        f"""CREATE TABLE far TABLESPACE "{NAME.replace('"', '""')}" AS SELECT i, repeat('x', 99) AS v
              FROM generate_series(1, 9000) i;
            CREATE TABLE near AS SELECT i FROM generate_series(1, 900) i"""
    )
    return found


@pytest.fixture(scope="module")
def links(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> list[Backup]:
    """A full backup and one on top of it; nobody changes these."""
    folder = tmp_path_factory.mktemp("whole")
    parent: Backup | None = None
    with using(server) as pg:
        how = manner(folder, identity=pg.server.settings["identity"])
        for number in (1, 2):
            pg.carry_out(Dump(SERVER, "physical", how, parent=parent))
            parent = shelf(folder)[-1]
            server.sql(f"UPDATE far SET v = '{number}' WHERE i % 50 = {number}")
    server.sql("UPDATE far SET v = repeat('x', 99) WHERE v = '2'")
    return shelf(folder)


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the servers' user may go, in memory."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"
    with tempfile.TemporaryDirectory(prefix="t", dir=memory) as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def options(server: Server, backup: Backup, site: Path, **more: Any) -> dict[str, Any]:
    account = server_account()
    told: dict[str, Any] = {"engine": "postgresql", "bin_dir": str(server.bin_dir), "journal": "none"}
    told.update(backup_dir=str(Path(backup.folder).parent), which=backup.id, target_dir=str(site))
    if account:
        told["target_owner"] = pwd.getpwuid(account.uid).pw_name
    return {**told, **more}


def restored(server: PostgreSQL, backup: Backup, site: Path, *, check: bool = False, fails: bool = False) -> Ran:
    return run("db_restore", options(server, backup, site), check=check, fails=fails)


def content(server: PostgreSQL, site: Path) -> list[list[str]]:
    """Of the tables on both sides, asked of a server that is started there."""
    account = server_account()
    hba = site.parent / "hba"
    hba.write_text("local all all trust\n")
    hba.chmod(0o644)
    settings = {"hba_file": str(hba)}
    with tempfile.TemporaryDirectory(prefix="s", dir="/tmp") as sockets:
        give_away(Path(sockets))
        started = throwaway.started(
            site,
            int(server.installation.major),
            str(server.bin_dir),
            settings,
            user="postgres",
            sockets=Path(sockets),
            owner=account,
        )
        with started as there, throwaway.speaking(there, "postgres") as found:
            return [list(row) for row in found.rows(SUMS)]


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


@pytest.mark.parametrize("which", [0, 1], ids=["full", "incremental"])
def test_a_server_comes_back(server: PostgreSQL, links: list[Backup], place: Path, which: int) -> None:
    """As check mode said, in a directory of its own, whose tablespaces lie beside it; never into one that has it."""
    site, backup = place / "new", links[which]
    planned = restored(server, backup, site, check=True)
    assert names(place) == set()
    ran = restored(server, backup, site)
    assert [s["statements"] for s in fact(planned)["steps"]] == [s["statements"] for s in fact(ran)["steps"]]
    assert (kinds(planned), kinds(ran)) == ([("restore", "planned")], [("restore", "done")])
    assert fact(ran)["steps"][0]["proven"]
    assert names(place) == {"new", "new.tablespaces"}
    assert (stat.S_IMODE(site.stat().st_mode), site.stat().st_uid) == (0o700, server.data_dir.stat().st_uid)
    assert not names(site) & {INSIDE, "postmaster.pid", "postmaster.opts", "tablespace_map"}
    (space,) = (site / "pg_tblspc").iterdir()
    assert space.readlink().parent == place / "new.tablespaces"
    server.sql(f"UPDATE far SET v = CASE WHEN i % 50 = 1 AND {which} = 1 THEN '1' ELSE repeat('x', 99) END")
    assert content(server, site) == server.sql(SUMS)
    again = restored(server, backup, site, fails=True)
    assert "is not empty" in again.result["msg"]


def test_a_drill_of_a_server_with_a_tablespace(server: PostgreSQL, links: list[Backup], tmp_path: Path) -> None:
    folder = tmp_path / "backups" / "_server"
    folder.mkdir(parents=True, mode=0o700)
    for path in Path(links[0].folder).rglob("*"):
        copy = folder / path.relative_to(links[0].folder)
        copy.mkdir(mode=0o700) if path.is_dir() else os.link(path, copy)
    copied = shelf(folder.parent)
    with using(server) as pg:
        pg.carry_out(Verify(SERVER, copied[1], manner(folder.parent), "restore"))
        pg.carry_out(Verify(SERVER, copied[0], manner(folder.parent), "decode"))
    assert [backup.level for backup in shelf(folder.parent)] == ["decode", "restore"]


@pytest.mark.parametrize("moment", ["unpacking", "starting"])
def test_what_a_dead_restore_left_is_removed(server: PostgreSQL, links: list[Backup], place: Path, moment: str) -> None:
    """Nobody takes it for a data directory, its server ends with it, and the next run begins anew."""
    site = place / "new"
    inside = site / INSIDE / "data"
    sign = inside / {"unpacking": "base", "starting": "postmaster.pid"}[moment]
    running = start("db_restore", options(server, links[0], site))
    until(lambda: sign.exists() or running.poll() is not None, 60, "the right moment")
    running.send(signal.SIGKILL)
    until(lambda: running.poll() is not None)
    running.end()
    assert names(site) == {INSIDE}
    until(lambda: not [path for path in Path("/proc").glob("[0-9]*/cwd") if at_work(path, place)], 30, "its end")
    planned = restored(server, links[0], site, check=True)
    assert {f["code"] for f in fact(planned)["findings"]} == {"not_verified", "unfinished_restore"}
    assert names(site) == {INSIDE}
    assert kinds(restored(server, links[0], site)) == [("restore", "done")]
    assert not names(site) & {INSIDE}
    assert not names(place / "new.tablespaces") & {INSIDE}


def at_work(path: Path, place: Path) -> bool:
    """Whether a process works in a folder there."""
    try:
        return path.readlink().is_relative_to(place)
    except OSError:
        return False


@pytest.mark.parametrize("what", ["a byte", "something is there", "tablespaces are there", "no such account", "root"])
def test_what_is_refused_leaves_everything_as_it_was(
    server: PostgreSQL, links: list[Backup], place: Path, what: str
) -> None:
    site, spaces = place / "new", place / "new.tablespaces"
    more: dict[str, Any] = {}
    backup = links[0]
    if what == "a byte":
        folder = place / "backups" / "_server"
        folder.mkdir(parents=True, mode=0o700)
        for path in Path(backup.folder).rglob(f"{backup.id}*/*"):
            (folder / path.parent.name).mkdir(exist_ok=True)
            (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
        (folder / f"{backup.id}.manifest.json").write_bytes(
            (Path(backup.folder) / f"{backup.id}.manifest.json").read_bytes()
        )
        archive = max(folder.rglob("*.tar*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
        whole = archive.read_bytes()
        archive.write_bytes(whole[:9000] + bytes([whole[9000] ^ 8]) + whole[9001:])
        backup, said = backup._replace(folder=str(folder)), "was changed since it was written"
    elif what == "something is there":
        site.mkdir()
        (site / "PG_VERSION").write_text("18")
        said = "is not empty: there is PG_VERSION"
    elif what == "tablespaces are there":
        spaces.mkdir()
        (spaces / "theirs").write_text("x")
        said = "is not empty: there is theirs"
    else:
        more["target_owner"] = "nobody_of_this_name" if "account" in what else "root"
        said = "no account" if "account" in what else "only root gives" if os.geteuid() else "does not run as root"
    before = sorted(str(path) for path in place.rglob("*"))
    ran = run("db_restore", options(server, backup, site, **more), fails=True)
    assert said in ran.result["msg"]
    assert sorted(str(path) for path in place.rglob("*")) == before


def test_without_a_proof_more_of_the_log_can_be_read(server: PostgreSQL, links: list[Backup], place: Path) -> None:
    """Nothing was started: the server that is finds where the backup began, and may fetch what came later."""
    run("db_restore", options(server, links[0], place / "new", prove=False, tablespace_dir=str(place / "spaces")))
    assert {"backup_label", "PG_VERSION", "backup_manifest"} <= names(place / "new")
    assert names(place) == {"new", "spaces"}
    server.sql("UPDATE far SET v = repeat('x', 99)")
    assert content(server, place / "new") == server.sql(SUMS)


def test_tablespaces_are_not_written_in_plain_text(server: PostgreSQL, place: Path) -> None:
    """Where they were to be encrypted; check mode says so, too."""
    told: dict[str, Any] = {**server.login(), "bin_dir": str(server.bin_dir), "journal": "none"}
    told.update(backup_dir=str(place / "backups"), method="physical", encrypt={"age_recipient": ["age1"]})
    for check in (True, False):
        ran = run("db_backup", told, check=check, fails=True)
        assert "encrypt with method: physical is not for postgresql" in ran.result["msg"]
    assert names(place) == set()


def test_an_encrypted_one_is_tried_out_and_restored(pool: Pool, place: Path) -> None:
    """By whoever has the key, and only then; the drill is due once."""
    postgresql = pool.get("postgresql-16")
    key, folder = place / "key", place / "backups"
    try:
        subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    except FileNotFoundError:
        missing("age: apt-get install age")
    public = subprocess.run(["age-keygen", "-y", key], check=True, capture_output=True, text=True).stdout.strip()
    told = {**postgresql.login(), "bin_dir": str(postgresql.installation.bin_dir), "journal": "none"}
    run(
        "db_backup",
        {**told, "backup_dir": str(folder), "method": "physical", "encrypt": {"age_recipient": [public]}},
    )
    (backup,) = shelf(folder)
    named = {**told, "path": f"{backup.folder}/{backup.id}.manifest.json", "drill": True}
    assert "Give decrypt" in run("db_restore", named, fails=True).result["msg"]
    decrypt = {"decrypt": {"age_identity": str(key)}}
    assert kinds(run("db_restore", {**named, **decrypt})) == [("restore", "done")]
    assert not run("db_restore", {**named, **decrypt}).changed
    asked = options(postgresql, backup, place / "new", **decrypt)
    assert kinds(run("db_restore", asked)) == [("restore", "done")]
    assert (place / "new" / "PG_VERSION").read_text().strip() == postgresql.installation.major
