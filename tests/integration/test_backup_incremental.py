# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Incremental backups of a whole PostgreSQL server: made, put together again, compared; and chains with a hole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Backup
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import incremental, throwaway
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import DbFault, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import write_manifest
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Verify
from tests.fleet import Server
from tests.fleet.postgresql import PostgreSQL

from .backups import fact, kinds
from .conftest import Pool
from .module_runner import Ran, run
from .pg_backups import manner, shelf, using

SERVER = Ref("")
CHECKSUM = """
SELECT pg_catalog.count(*)::text, pg_catalog.md5(pg_catalog.string_agg(t::text, ',' ORDER BY i)) FROM public.t AS t
"""


@pytest.fixture(scope="module")
def server(pool: Pool) -> PostgreSQL:
    """One that summarizes its log."""
    found = pool.fleet.postgresql(18, settings={"summarize_wal": "on"}, name="summarizing")
    found.script("CREATE TABLE t AS SELECT i, repeat('x', 200) AS v FROM generate_series(1, 20000) i")
    found.script("CREATE INDEX ON t (i); CREATE DATABASE crm")
    return found


@pytest.fixture(scope="module")
def links(server: PostgreSQL, tmp_path_factory: pytest.TempPathFactory) -> list[Backup]:
    """A full backup and two on top of it, the server changing between them; nobody changes these."""
    folder = tmp_path_factory.mktemp("chain", numbered=True)
    parent: Backup | None = None
    with using(server) as pg:
        how = manner(folder, identity=pg.server.settings["identity"])
        for number in range(3):
            pg.carry_out(Dump(SERVER, "physical", how, parent=parent))
            parent = shelf(folder)[-1]
            server.sql(f"UPDATE t SET v = '{number}' WHERE i % 50 = {number}")
            server.sql(f"CREATE TABLE t{number} AS SELECT {number} AS n", database="crm")
    return shelf(folder)


@pytest.fixture
def copied(links: list[Backup], tmp_path: Path) -> list[Backup]:
    """The same, to be changed."""
    place = tmp_path / "backups" / "_server"
    place.mkdir(parents=True, mode=0o700)
    for path in Path(links[0].folder).iterdir():
        os.link(path, place / path.name)
    return shelf(tmp_path / "backups")


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only place for temporary files; empty again at the end."""
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o711)
        monkeypatch.setattr(tempfile, "tempdir", name)
        yield place
        assert list(place.iterdir()) == []


def drilled(server: Server, backup: Backup) -> None:
    with using(server) as pg:
        pg.carry_out(Verify(SERVER, backup, manner(Path(backup.folder).parent, identity=backup.server), "restore"))


def module(server: Server, folder: Path, **more: Any) -> Ran:
    told = {"method": "physical", "backup_dir": str(folder), "journal": "none", "full_interval": "7d", **more}
    fails = told.pop("fails", False)
    return run("db_backup", {**server.login(), "bin_dir": str(server.bin_dir), **told}, fails=fails)


def test_what_changed_since_is_all_that_is_written(links: list[Backup]) -> None:
    full, first, second = links
    assert (full.parent, first.parent, second.parent) == ("", full.id, first.id)
    assert first.bytes < full.bytes / 4
    assert second.bytes < full.bytes / 4


def test_a_chain_put_together_is_the_server_as_it_was(server: PostgreSQL, links: list[Backup], traces: Path) -> None:
    """Of the second of three: what came later is not in it."""
    chain = incremental.chain(links[1])
    assert chain == links[:2]
    owner = throwaway.unprivileged()
    with using(server) as pg, pg.engine.session("") as session, throwaway.folder_of(owner, 1 << 28) as folder:
        how: dict[str, Any] = {"bin_dir": str(server.bin_dir), "owner": owner}
        for _tick in incremental.combined(session, chain, None, folder, {}, **how):
            pass
        (folder / "hba").write_text("local all all trust\n")
        (folder / "hba").chmod(0o644)
        settings = {"hba_file": str(folder / "hba")}
        with throwaway.started(folder / "data", 18, str(server.bin_dir), settings, user="postgres") as there:
            with throwaway.speaking(there, "postgres") as found:
                assert found.rows("SELECT count(*) FROM public.t WHERE v = '0'")[0][0] == 400
                assert found.rows("SELECT count(*) FROM public.t WHERE v = '1'")[0][0] == 0
                restored = found.rows(CHECKSUM)
            with throwaway.speaking(there, "crm") as found:
                assert found.rows("SELECT array_agg(relname::text) FROM pg_class WHERE relname ~ '^t[0-9]'") == [
                    (["t0"],)
                ]
    # The last two changes taken back, the server has the same rows.
    server.sql("UPDATE t SET v = repeat('x', 200) WHERE v IN ('1', '2')")
    assert [list(row) for row in restored] == server.sql(CHECKSUM)


def test_a_drill_of_a_chain(server: PostgreSQL, copied: list[Backup], traces: Path) -> None:
    drilled(server, copied[2])
    assert [backup.level for backup in shelf(Path(copied[2].folder).parent)] == ["", "", "restore"]


@pytest.mark.parametrize("what", ["the full one", "the one between", "a file", "a byte", "another one"])
def test_a_chain_with_a_hole_is_refused(server: PostgreSQL, copied: list[Backup], traces: Path, what: str) -> None:
    full, first, last = copied
    folder = Path(last.folder)
    archive = folder / next(file.name for file in full.files if file.what == "physical")
    if what in ("the full one", "the one between"):
        (folder / f"{(full if 'full' in what else first).id}.manifest.json").unlink()
        said = "which is not there"
    elif what == "a file":
        archive.unlink()
        said = "which is broken: .* is missing"
    elif what == "a byte":
        whole = archive.read_bytes()
        archive.unlink()  # it has another name elsewhere
        archive.write_bytes(whole[:5000] + bytes([whole[5000] ^ 4]) + whole[5001:])
        said = "was changed since it was written"
    else:
        # The manifest lies about its parent, and is signed: only what lies in the archives themselves can tell.
        (folder / f"{last.id}.manifest.json").unlink()
        last = last._replace(parent=full.id)
        write_manifest(last)
        said = "pg_combinebackup cannot put"
    with pytest.raises(DbFault, match=said):
        drilled(server, last)


def test_rotation_keeps_a_chain_whole(copied: list[Backup]) -> None:
    folder = Path(copied[0].folder).parent
    told = {"engine": "postgresql", "backup_dir": str(folder), "keep_last": 1, "min_verified": 0, "journal": "none"}
    kept = fact(run("db_backup_rotate", told))["kept"]
    assert {each["id"] for each in kept} == {backup.id for backup in copied}
    assert len(shelf(folder)) == 3


def test_full_and_incremental_ones_by_the_module(server: PostgreSQL, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    for options in ({}, {"min_interval": "0s"}, {"min_interval": "0s"}, {"min_interval": "0s", "full_interval": "0s"}):
        assert kinds(module(server, folder, **options)) == [("dump", "done"), ("verify", "done")]
    full, first, second, again = shelf(folder)
    assert [b.parent for b in (full, first, second, again)] == ["", full.id, first.id, ""]
    assert {b.level for b in (full, first, second, again)} == {"decode"}
    assert not module(server, folder).result["changed"]


def test_where_no_summaries_are(server: PostgreSQL, postgresql: Server, tmp_path: Path) -> None:
    """15 and 16 know none, 18 may make none: refused with the reason, before anything is written."""
    ran = module(postgresql, tmp_path / "backups", fails=True)
    major = int(postgresql.version.split(".")[0])
    said = "summarize_wal is off" if major > 16 else f"PostgreSQL {major} knows no incremental backups"
    assert f"full_interval is not for postgresql: {said}" in ran.result["msg"]
    assert not (tmp_path / "backups").exists()


def test_a_server_that_forgot_what_changed(server: PostgreSQL, links: list[Backup], tmp_path: Path) -> None:
    """Its summaries were removed: refused, nothing is left behind, and the last backup stays."""
    for summary in (server.data_dir / "pg_wal" / "summaries").iterdir():
        summary.unlink()
    task = Dump(SERVER, "physical", manner(tmp_path, identity=links[0].server), parent=links[0])
    with using(server) as pg, pytest.raises(Refused, match="it was to build on") as refused:
        pg.carry_out(task)
    assert "full one" in refused.value.cure
    assert shelf(tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
