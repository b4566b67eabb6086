# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""SQLite files backed up, verified and restored: whole modules on real files."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Restore

from . import conftest, lite
from .backups import aged, backed_up, codes, content, fact, files, kinds, manifest, options, rows, shelf
from .module_runner import run, start, until

HOSTILE = "or'd er\"s; -- %2F\n[x]é.db"


def restored(path: Path, folder: Path, *, fails: bool = False, **more: object) -> dict[str, object]:
    given = {k: v for k, v in options(path, folder).items() if k != "databases"}
    return run("db_restore", {**given, "database": str(path), **more}, fails=fails).result


@pytest.mark.parametrize("wal", [False, True])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_round_trip(tmp_path: Path, wal: bool, compression: str) -> None:
    path = lite.make(
        tmp_path / "shop.db",
        "CREATE TABLE empty (a)",
        "CREATE TABLE odd (id INTEGER PRIMARY KEY, b BLOB, t TEXT, r REAL, g GENERATED ALWAYS AS (id * 2) STORED)",
        "INSERT INTO odd (b, t, r) VALUES (x'00ff', 'snow ☃ 🐘', 1e300), (NULL, '', -0.0)",
        "CREATE VIEW v AS SELECT t FROM odd",
        "CREATE TRIGGER tr AFTER INSERT ON empty BEGIN UPDATE odd SET r = 0; END",
        "CREATE VIRTUAL TABLE words USING fts5(body)",
        "INSERT INTO words VALUES ('to be or not')",
        "CREATE TABLE without_id (k TEXT PRIMARY KEY) WITHOUT ROWID",
        "PRAGMA user_version = 77",
        rows=3000,
        wal=wal,
    )
    folder = tmp_path / "backups"
    ran = backed_up(path, folder, compression=compression)
    assert kinds(ran) == [("dump", "done"), ("verify", "done")]
    assert all(s["proven"] for s in fact(ran)["steps"])
    told = manifest(folder)
    assert told["level"] == "decode"
    assert told["rows"]["t"] == 3000
    restored(path, folder, target=str(tmp_path / "again.db"))
    assert content(tmp_path / "again.db") == content(path)
    with lite.closing(tmp_path / "again.db") as db:
        assert db.execute("PRAGMA user_version").fetchone() == (77,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal" if wal else "delete",)
        assert db.execute("SELECT body FROM words WHERE words MATCH 'not'").fetchone() == ("to be or not",)


def test_check_equals_run_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=100), tmp_path / "backups"
    before = lite.fingerprint(tmp_path)
    check = backed_up(path, folder, check=True)
    assert lite.fingerprint(tmp_path) == before
    ran = backed_up(path, folder)
    for field in ("kind", "object", "reason", "statements"):
        assert [s[field] for s in fact(check)["steps"]] == [s[field] for s in fact(ran)["steps"]]
    assert check.result["changed"]
    assert ran.result["changed"]
    again = backed_up(path, folder)
    assert not again.result["changed"]
    assert not kinds(again)
    aged(folder, timedelta(hours=21))
    assert kinds(backed_up(path, folder, check=True)) == [("dump", "planned"), ("verify", "planned")]
    assert kinds(backed_up(path, folder, min_interval="22h")) == []


def test_only_what_is_missing_is_done(tmp_path: Path) -> None:
    """A verification, or a copy, of a backup that is young enough."""
    path, folder, share = lite.make(tmp_path / "shop.db", rows=100), tmp_path / "backups", tmp_path / "share"
    assert kinds(backed_up(path, folder, verify="checksum")) == [("dump", "done"), ("verify", "done")]
    assert manifest(folder)["level"] == "checksum"
    assert kinds(backed_up(path, folder, verify="decode")) == [("verify", "done")]
    assert kinds(backed_up(path, folder, verify="restore")) == [("verify", "done")]
    assert manifest(folder)["level"] == "restore"
    share.mkdir()
    assert kinds(backed_up(path, folder, copy_to=str(share))) == [("copy", "done")]
    assert kinds(backed_up(path, folder, copy_to=str(share))) == []
    assert files(folder) == files(share)


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=100), tmp_path / "backups"
    old = os.umask(0)
    try:
        backed_up(path, folder)
    finally:
        os.umask(old)
    modes = {stat.S_IMODE(p.stat().st_mode) for p in folder.rglob("*") if p.is_file()}
    assert modes == {0o600}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder, *folder.rglob("*")) if p.is_dir()} == {0o700}


def test_hostile_names(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / HOSTILE, rows=10), tmp_path / "backups"
    backed_up(path, folder)
    backed = fact(backed_up(path, folder, min_interval="0s", check=True))["steps"][0]
    assert backed["database"] == str(path)
    restored(path, folder, target=str(tmp_path / f"new {HOSTILE}"))
    assert content(tmp_path / f"new {HOSTILE}") == content(path)


def test_a_busy_writer_is_in_it_as_of_one_moment(tmp_path: Path) -> None:
    """Two tables that are written together agree in the backup."""
    for wal in (True, False):
        path = lite.make(tmp_path / f"busy{wal}.db", "CREATE TABLE a (n)", "CREATE TABLE b (n)", rows=20000, wal=wal)
        writer = """
            import time
            db = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=60)
            print("ready", flush=True)
            n = 0
            while True:
                n += 1
                db.execute("BEGIN IMMEDIATE")
                db.execute("INSERT INTO a VALUES (?)", (n,))
                db.execute("UPDATE t SET v = 'y' || v WHERE id = ?", (n,))
                db.execute("INSERT INTO b VALUES (?)", (n,))
                db.execute("COMMIT")
                time.sleep(0.003)
        """
        folder = tmp_path / f"backups{wal}"
        with lite.other_process(writer, path) as other:
            ran = backed_up(path, folder, lock_timeout="30s")
            other.kill()
        assert kinds(ran) == [("dump", "done"), ("verify", "done")]
        told = manifest(folder)["rows"]
        assert told["a"] == told["b"] > 0


def test_a_damaged_file_is_no_backup(tmp_path: Path) -> None:
    """Earlier backups stay, and nothing new is called one."""
    path, folder = lite.make(tmp_path / "shop.db", rows=3000), tmp_path / "backups"
    backed_up(path, folder)
    before = files(folder)
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 4096)
    ran = backed_up(path, folder, min_interval="0s", fails=True)
    assert "malformed" in ran.result["msg"]
    assert files(folder) == before


def test_an_index_that_lost_a_row_is_damage(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=300), tmp_path / "backups"
    with lite.closing(path) as db:
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = 'CREATE INDEX ti ON t (v)' WHERE name = 'ti'")
    assert "malformed" in backed_up(path, folder, fails=True).result["msg"]
    assert not files(folder)


def test_a_collation_of_the_application_hinders_nobody(tmp_path: Path) -> None:
    path, folder = tmp_path / "shop.db", tmp_path / "backups"
    with lite.closing(path) as db:
        db.create_collation("theirs", lambda a, b: (a > b) - (a < b))
        db.execute("CREATE TABLE t (a TEXT COLLATE theirs PRIMARY KEY)")
        db.execute("INSERT INTO t VALUES ('x')")
    assert kinds(backed_up(path, folder)) == [("dump", "done"), ("verify", "done")]


def test_flipped_bits_are_found(tmp_path: Path) -> None:
    """Wherever they are; the backup before it is restored still."""
    path, folder = lite.make(tmp_path / "shop.db", rows=300), tmp_path / "backups"
    backed_up(path, folder)
    (stored,) = folder.rglob("*.zst")
    sound = stored.read_bytes()
    for place in range(0, len(sound), max(1, len(sound) // 10)):
        stored.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        said = str(restored(path, folder, target=str(tmp_path / "no.db"), fails=True)["msg"])
        assert not (tmp_path / "no.db").exists(), said
    stored.write_bytes(sound[:-1])
    assert not shelf(folder).backups
    assert shelf(folder).broken
    assert "backup_broken" in codes(backed_up(path, folder, check=True))
    assert [p for p in tmp_path.iterdir() if "tmp" in p.name] == []


def test_never_over_an_existing_file(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30), tmp_path / "backups"
    backed_up(path, folder)
    before = lite.fingerprint(tmp_path)
    assert "is there" in str(restored(path, folder, fails=True)["msg"])
    assert lite.fingerprint(tmp_path) == before


@pytest.mark.parametrize("wal", [False, True])
def test_replaced_in_one_moment(tmp_path: Path, wal: bool) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30, wal=wal), tmp_path / "backups"
    path.chmod(0o640)
    backed_up(path, folder)
    was = content(path)
    with lite.closing(path) as db:
        db.execute("DELETE FROM t")
        said = str(restored(path, folder, replace=True, retries=0, fails=True)["msg"])
        assert f"process {os.getpid()}" in said
    assert rows(path) == 0
    restored(path, folder, replace=True)
    assert content(path) == was
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {p.name for p in tmp_path.iterdir() if p.is_file()} <= {"shop.db", "shop.db-wal", "shop.db-shm"}


def test_the_log_of_another_file_is_not_read_in(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30, wal=True), tmp_path / "backups"
    backed_up(path, folder)
    with lite.closing(path) as db:
        db.execute("UPDATE t SET v = 'new'")
        shutil.copy(f"{path}-wal", tmp_path / "lost.db-wal")
    assert "would be read into" in str(restored(path, folder, target=str(tmp_path / "lost.db"), fails=True)["msg"])
    assert not (tmp_path / "lost.db").exists()


def test_by_time_and_by_id(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=1), tmp_path / "backups"
    backed_up(path, folder)
    aged(folder, timedelta(days=2))
    first = shelf(folder).backups[0]
    with lite.closing(path) as db:
        lite.fill(db, 4)
    backed_up(path, folder)
    moment = (first.began + timedelta(hours=1)).isoformat()
    for n, (which, count) in enumerate([(moment, 1), (first.id, 1), ("latest", 5)]):
        restored(path, folder, which=which, target=str(tmp_path / f"{n}.db"))
        assert rows(tmp_path / f"{n}.db") == count
    assert "no backup" in str(restored(path, folder, which="2020-01-01T00:00:00Z", target="/x.db", fails=True)["msg"])
    assert "not understood" in str(restored(path, folder, which="yesterday", target="/x.db", fails=True)["msg"])


def test_by_the_path_of_its_manifest(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30), tmp_path / "backups"
    backed_up(path, folder)
    (told,) = folder.rglob("*.manifest.json")
    was = content(path)
    path.unlink()
    run("db_restore", {"engine": "sqlite", "journal": "none", "path": str(told)})
    assert content(path) == was


def test_a_drill_proves_a_backup_once(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30), tmp_path / "backups"
    backed_up(path, folder)
    path.unlink()
    none = {"folder": str(tmp_path / "none")}
    assert none["folder"] in str(restored(path, folder, drill=True, drill_on=none, fails=True)["msg"])
    (tmp_path / "none").mkdir()
    assert restored(path, folder, drill=True, drill_on=none)["changed"]
    assert manifest(folder)["level"] == "restore" and not list((tmp_path / "none").iterdir())
    assert not restored(path, folder, drill=True)["changed"]
    assert not path.exists()


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=30), tmp_path / "backups"
    backed_up(path, folder)
    (backup,) = shelf(folder).backups
    huge = backup._replace(files=(backup.files[0]._replace(plain_bytes=1 << 60),))
    with pytest.raises(Refused, match="are free"):
        lite.carried_out(path, Restore(Ref(str(path)), huge, drill=True))
    assert manifest(folder)["level"] == "decode"


def test_a_drill_counts_rows(tmp_path: Path) -> None:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups as filed

    path, folder = lite.make(tmp_path / "shop.db", rows=30), tmp_path / "backups"
    backed_up(path, folder)
    filed.amend(shelf(folder).backups[0], rows={"t": 31})
    assert "other rows than its manifest" in str(restored(path, folder, drill=True, fails=True)["msg"])
    assert manifest(folder)["level"] == "decode"


@pytest.mark.parametrize("moment", [0.0, 0.05, 0.15, 0.3, 0.6])
def test_killed_at_any_moment(tmp_path: Path, moment: float) -> None:
    """The earlier backup is whole, nothing half-written is a backup, and the next run clears it away."""
    path, folder = lite.make(tmp_path / "shop.db", rows=60000), tmp_path / "backups"
    backed_up(path, folder, compression="none")
    running = start("db_backup", options(path, folder, min_interval="0s", rate_limit="8MB", compression="none"))
    until(lambda: any(name.endswith(".partial") for name in files(folder)), what="a partial file")
    time.sleep(moment)
    running.send(signal.SIGKILL)
    until(lambda: running.poll() is not None, what="its end")
    found = shelf(folder)
    assert len(found.backups) in (1, 2)
    assert not found.broken
    assert kinds(backed_up(path, folder, verify="restore", min_interval="0s", compression="none"))[-1] == (
        "verify",
        "done",
    )
    assert not shelf(folder).unfinished
    assert not [name for name in files(folder) if name.endswith((".partial", ".tmp"))]
    assert {b.level for b in shelf(folder).backups[:1]} == {"decode"}


def test_several_files_side_by_side(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    for n in range(6):
        lite.make(tmp_path / f"{n}.db", rows=50)
    ran = backed_up(tmp_path / "*.db", folder, jobs=4)
    assert fact(ran)["summary"]["done"] == 12
    assert len(shelf(folder).backups) == 6
    assert not backed_up(tmp_path / "*.db", folder).result["changed"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backup_dir": "relative"}, "absolute"),
        ({"method": "physical"}, "not for sqlite"),
        ({"exclude_tables": ["t"]}, "not for sqlite"),
        ({"encrypt": {}}, "gpg_recipient or age_recipient"),
        ({"encrypt": {"gpg_recipient": ["--yes"]}}, "no recipient"),
        ({"encrypt": {"age_recipient": ["age1x"]}, "verify": "restore"}, "cannot"),
        ({"compression": "none", "compression_level": 3}, "compression_level"),
        ({"compression_level": 20}, "compression_level"),
        ({"nice": -5}, "nice"),
        ({"rate_limit": "1B"}, "rate_limit"),
        ({"copy_to": "relative"}, "absolute"),
        ({"drill_on": "mars"}, "drill_on"),
        ({"drill_on": {"folder": "x", "login_host": "y"}}, "folder is no option of that server"),
        ({"drill_on": {"folder": "relative"}}, "absolute"),
        ({"drill_on": {"folder": "/x"}, "drill_password": "y"}, "for another server"),
        ({"s3": {"region": "eu"}}, "bucket"),
    ],
)
def test_refused(tmp_path: Path, given: dict[str, object], said: str) -> None:
    path = lite.make(tmp_path / "shop.db", rows=1)
    more = {"backup_dir": str(tmp_path / "backups"), **given}
    ran = run("db_backup", {**options(path, tmp_path / "b"), **more}, fails=True)
    assert said in ran.result["msg"]
    assert not (tmp_path / "backups").exists()


# ---- encrypted -------------------------------------------------------------------------------------------------------


@pytest.fixture
def age_key(tmp_path: Path) -> tuple[str, Path]:
    """A recipient, and the file with its identity."""
    if not shutil.which("age-keygen"):
        conftest.missing("age")
    identity = tmp_path / "identity.txt"
    subprocess.run(["age-keygen", "-o", str(identity)], check=True, capture_output=True)
    (recipient,) = [line.split()[-1] for line in identity.read_text().splitlines() if "public key" in line]
    return recipient, identity


def test_encrypted_while_it_is_written(tmp_path: Path, age_key: tuple[str, Path]) -> None:
    path, folder = lite.make(tmp_path / "shop.db", rows=3000, wal=True), tmp_path / "backups"
    recipient, identity = age_key
    ran = backed_up(path, folder, encrypt={"age_recipient": [recipient]})
    assert kinds(ran) == [("dump", "done"), ("verify", "done")]
    assert manifest(folder)["level"] == "decode"
    assert manifest(folder)["encryption"] == "age"
    assert not any(b"SQLite format 3" in p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert not backed_up(path, folder, encrypt={"age_recipient": [recipient]}).result["changed"]
    target = tmp_path / "again.db"
    assert "Give decrypt" in str(restored(path, folder, target=str(target), fails=True)["msg"])
    restored(path, folder, target=str(target), decrypt={"age_identity": str(identity)})
    assert content(target) == content(path)
    assert restored(path, folder, drill=True, decrypt={"age_identity": str(identity)})["changed"]
    (stored,) = [p for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".json")]
    body = stored.read_bytes()
    stored.write_bytes(body[:2000] + bytes([body[2000] ^ 1]) + body[2001:])
    lost = tmp_path / "lost.db"
    assert restored(path, folder, target=str(lost), decrypt={"age_identity": str(identity)}, fails=True)["msg"]
    assert not lost.exists()


# ---- room ------------------------------------------------------------------------------------------------------------


@lite.needs_root
def test_a_full_file_system(tmp_path: Path) -> None:
    """Whatever does not fit leaves nothing behind, and the backup before it is whole."""
    folder = tmp_path / "small"
    folder.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m,mode=700", "tmpfs", str(folder)], check=True)
    try:
        path = lite.make(tmp_path / "shop.db", rows=3000)
        backed_up(path, folder, compression="none")
        before = files(folder)
        with lite.closing(path) as db:
            db.execute("CREATE TABLE noise AS SELECT randomblob(5000000) AS x")
        check, ran = (
            backed_up(path, folder, min_interval="0s", compression="none", check=mode, fails=True)
            for mode in (True, False)
        )
        assert kinds(check) == kinds(ran) == [("dump", "failed"), ("verify", "skipped")]
        assert "no_room" in codes(ran)
        assert "are free in" in ran.result["msg"]
        assert files(folder) == before
        with lite.closing(path) as db:
            db.execute("DROP TABLE noise")
            db.execute("VACUUM")
            db.execute("CREATE TABLE noise AS SELECT randomblob(2700000) AS x")
        # There is room for what the last one took and for the copy, but this one has grown.
        ran = backed_up(path, folder, min_interval="0s", compression="none", fails=True)
        assert "No space left" in ran.result["msg"]
        assert files(folder) == before
        assert not shelf(folder).broken
    finally:
        subprocess.run(["umount", str(folder)], check=True)
