# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of MySQL and MariaDB, engine alone: what was dumped is what is restored, and a drill proves it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Backup,
    Decryption,
    Elsewhere,
    Encryption,
    Sheltered,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import accounts, restoring
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import MissingMeans, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump, Restore, Verify
from tests.fleet import Fleet, Server
from tests.fleet.cache import fleet_base

from .conftest import missing
from .module_runner import run
from .my import small
from .my_backup import Shelter, describe, furnish, rows

Make = Callable[[Server], str]
QUOTES = "we`ird; DROP 'x\" \\"
HOSTILE = ("-dash", QUOTES, "we`ird; $(id)", "ümläut .%", "a.b")


@pytest.fixture(autouse=True)
def programs(mysql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's own client programs are found on PATH, as they are on a host of its own."""
    folder = str(mysql.installation.bin_dir)
    monkeypatch.setenv("PATH", os.pathsep.join((folder, os.environ["PATH"])))


@pytest.fixture
def shelter(mysql: Server, tmp_path: Path) -> Shelter:
    return Shelter(mysql, tmp_path / "backups")


def test_what_is_restored_is_what_was_there(mysql: Server, database: Make, shelter: Shelter) -> None:
    name = database(mysql)
    furnish(mysql, name)
    source = describe(mysql, name)
    backup = shelter.dump(name)
    assert dict(backup.rows or {}) == rows(mysql)
    assert shelter.verify(name, "checksum").level == "checksum"
    assert shelter.verify(name, "decode").level == "decode"
    copy = f"{name}_copy"
    try:
        shelter.restore(backup, copy)
        restored = describe(mysql, copy)
        assert set(restored) == set(source)
        assert {key: (source[key], restored[key]) for key in source if source[key] != restored[key]} == {}
        # Neither did a restored ALTER DATABASE reach its source.
        assert describe(mysql, name) == source
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {copy}")


def test_numbers_that_a_dump_rounds_are_named(mysql: Server, database: Make, shelter: Shelter) -> None:
    """Of all numbers only those are others afterwards of which it was said before."""
    name = database(mysql)
    values = "16777217, 52.520008, 52.520008, 0.1 + 0.2, 3"
    columns = "one float, two float, three float(9, 6), four double, five float AS (id * 1.1)"
    mysql.script(f"CREATE TABLE t (id int PRIMARY KEY, {columns}); CREATE VIEW v AS SELECT one FROM t", database=name)
    mysql.script(f"INSERT INTO t (one, two, three, four, id) VALUES ({values})", database=name)
    exact = "SELECT one * 1e0, two * 1e0, three * 1e0, four * 1e0, five * 1e0 FROM {}.t"
    with shelter.used.engine.session(name) as session:
        wants = Wants(backups=Sheltered(str(shelter.folder)))
        (found,) = shelter.used.engine.measure(session, wants, shelter.used.server).findings
    assert found.code == "floats_rounded" and found.message.endswith(": t.one, t.two")
    copy = f"{name}_copy"
    try:
        shelter.restore(shelter.dump(name), copy)
        before, after = (mysql.sql(exact.format(each))[0] for each in (name, copy))
        assert [one == other for one, other in zip(before, after, strict=True)] == [False, False, True, True, True]
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {copy}")


def test_a_drill_on_a_throwaway_server_proves_and_leaves_nothing(
    mysql: Server, database: Make, shelter: Shelter
) -> None:
    """It lies where it is told to, and has as much of the database as can be there without the others."""
    name, beside = database(mysql), database(mysql)
    furnish(mysql, name)
    mysql.script("CREATE TABLE base (a int)", database=beside)
    mysql.script(f"CREATE VIEW far AS SELECT a FROM {beside}.base", database=name)
    assert shelter.dump(name).about["foreign"] == '["far"]'
    with tempfile.TemporaryDirectory(dir=fleet_base()) as folder, shelter.used.engine.session("") as session:
        Path(folder).chmod(0o755)
        task = Verify(Ref(name), None, shelter.manner, "restore", on=Elsewhere({"folder": folder}))
        work = shelter.used.engine.carry_out(session, task, shelter.used.server, None)
        seen = {path.name[:14] for _tick in work for path in Path(folder).iterdir()}
        assert seen == {"dbfleet-drill-"} and not list(Path(folder).iterdir())
    backup = shelter.newest(name)
    assert backup.level == "restore" and backup.verified_at is not None
    assert mysql.sql("SHOW DATABASES LIKE 'dbfleet%'") == []


def test_a_drill_finds_other_content(
    mysql: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same number of rows, of which one has changed on its way."""
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import mending

    name = database(mysql)
    mysql.script("CREATE TABLE t (a int, b varchar(20)); INSERT INTO t VALUES (1, 'right'), (2, 'x')", database=name)
    shelter.dump(name)

    def other(self: mending.Mended, text: bytes) -> bytes:
        return text.replace(b"'right'", b"'wrong'")

    monkeypatch.setattr(mending.Mended, "_mend", other)
    with pytest.raises(Refused, match="t: other content than in the backup"):
        shelter.verify(name, "restore", on="same_server")
    assert shelter.newest(name).level == ""
    assert mysql.sql("SHOW DATABASES LIKE 'dbfleet%'") == []


def test_no_event_of_a_drill_on_the_same_server_fires_and_nothing_is_logged(
    mysql: Server, database: Make, shelter: Shelter
) -> None:
    name, witness = database(mysql), database(mysql)
    furnish(mysql, name)
    mysql.script(f"CREATE TABLE {witness}.fired (at datetime(6), who text)")
    for number, text in enumerate(("EVERY 1 SECOND ON COMPLETION PRESERVE", "EVERY 1 SECOND COMMENT 'ENABLE; DO'")):
        schedule, _comment, comment = text.partition(" COMMENT")
        mysql.script(
            f"CREATE EVENT `ev{number} ON COMPLETION PRESERVE ENABLE` ON SCHEDULE {schedule}"
            f"{' COMMENT' + comment if comment else ''} DO INSERT INTO {witness}.fired VALUES (NOW(6), DATABASE())",
            database=name,
        )
    mysql.sql("SET GLOBAL event_scheduler = ON")
    log = mysql.sql("SHOW BINARY LOGS")[-1][0]
    try:
        shelter.dump(name)
        backup = shelter.verify(name, "restore", on="same_server")
        time.sleep(1.5)
        who = {row[0] for row in mysql.sql(f"SELECT DISTINCT who FROM {witness}.fired")}
    finally:
        mysql.sql("SET GLOBAL event_scheduler = OFF")
    # The source's own events go on; none of the scratch database's has ever run.
    assert backup.level == "restore" and who == {name}
    assert mysql.sql("SHOW DATABASES LIKE 'dbfleet%'") == []
    logged = [row[5] for row in mysql.sql(f"SHOW BINLOG EVENTS IN '{log}'")]
    assert logged and not [line for line in logged if "dbfleet_drill" in line]


def test_nothing_is_restored_over_a_database_unless_it_is_asked_for(
    mysql: Server, database: Make, shelter: Shelter
) -> None:
    name, other = database(mysql), database(mysql)
    furnish(mysql, name)
    backup = shelter.dump(name)
    mysql.script("CREATE TABLE precious (a int); INSERT INTO precious VALUES (1)", database=other)
    with pytest.raises(Refused, match="there already"):
        shelter.restore(backup, other)
    assert mysql.sql(f"SELECT * FROM {other}.precious") == [["1"]]
    shelter.restore(shelter.verify(name, "restore", on="same_server"), other, replace=True)
    assert describe(mysql, other) == describe(mysql, name)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_names(mysql: Server, shelter: Shelter, name: str) -> None:
    quoted = "`" + name.replace("`", "``") + "`"
    mysql.sql(f"CREATE DATABASE {quoted}")
    try:
        furnish(mysql, name)
        source = describe(mysql, name)
        if name == QUOTES and mysql.engine == "mariadb":
            # mariadb-dump (10.11) looks for the events of such a database by another name: it says so, and fails.
            with pytest.raises(Refused, match="Unknown database"):
                shelter.dump(name)
            mysql.sql(f"DROP EVENT {quoted}.ev")
            mysql.sql(f"DROP EVENT {quoted}.sleeping")
            assert shelter.files() == []
            return
        backup = shelter.dump(name, exclude=("plain",))
        assert "plain" not in (backup.rows or {}) and (backup.rows or {})["keyless"] == 3
        shelter.verify(name, "decode")
        shelter.restore(backup, name, replace=True)
        restored = describe(mysql, name)
        assert restored["count", "plain"] == [["0"]]
        about = [key for key in source if key not in (("count", "plain"), ("sum", "plain"), ("TABLE", "plain"))]
        assert {key: restored[key] for key in about} == {key: source[key] for key in about}
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {quoted}")


def test_accounts_are_backed_up_and_tried_out(mysql: Server, shelter: Shelter, monkeypatch: pytest.MonkeyPatch) -> None:
    mysql.sql("DROP ROLE IF EXISTS readers")
    mysql.sql("CREATE ROLE readers")
    mysql.sql("CREATE USER 'o''dd; \"x'@'10.%' IDENTIFIED BY 'a secret'")
    try:
        mysql.sql("GRANT SELECT ON mysql.* TO readers")
        mysql.sql("GRANT readers TO 'o''dd; \"x'@'10.%'")
        role = "readers FOR" if mysql.engine == "mariadb" else "readers TO"
        mysql.sql(f"SET DEFAULT ROLE {role} 'o''dd; \"x'@'10.%'")
        # Installations give it to root, whom a throwaway server has before.
        mysql.sql("CREATE USER proxied@'10.%' IDENTIFIED BY 'another secret'")
        for user, host in (("proxied", "10.%"), ("root", "localhost")):
            mysql.sql(f"INSERT INTO mysql.proxies_priv VALUES ('{host}', '{user}', '%', 'nobody', 0, '', now())")
        mysql.sql("FLUSH PRIVILEGES")
        backup = shelter.dump("", "globals")
        assert (backup.method, backup.database) == ("globals", "")
        assert shelter.verify("", "decode").level == "decode"
        real = accounts.compared

        def less(link: Any, *more: Any) -> None:
            real(link, *more)
            link.rows("REVOKE SELECT ON mysql.* FROM readers")
            with pytest.raises(Refused, match="this is not so: GRANT SELECT"):
                real(link, *more)
            link.rows("ALTER USER 'o''dd; \"x'@'10.%' IDENTIFIED BY 'another'")
            with pytest.raises(Refused, match="this is not so: CREATE USER") as refused:
                real(link, *more)
            assert "IDENTIFIED" not in str(refused.value)

        monkeypatch.setattr(accounts, "compared", less)
        assert shelter.verify("", "restore").level == "restore"
        with pytest.raises(Refused, match="tried out"):
            shelter.verify("", "restore", on="same_server")
    finally:
        mysql.sql("DELETE FROM mysql.proxies_priv WHERE Proxied_user = 'nobody'")
        mysql.sql("FLUSH PRIVILEGES")
        mysql.sql("DROP USER proxied@'10.%'")
        mysql.sql("DROP ROLE readers")
        mysql.sql("DROP USER 'o''dd; \"x'@'10.%'")


def test_the_words_that_are_shown_are_those_that_run(mysql: Server, database: Make, shelter: Shelter) -> None:
    name = database(mysql)
    furnish(mysql, name)
    task = Dump(Ref(name), "dump", shelter.manner, exclude=("parent",))
    engine = shelter.used.engine
    with engine.session(name) as session:
        found = engine.measure(session, Wants(backups=Sheltered(str(shelter.folder))), shelter.used.server)
    named = {"not_transactional": "aside", "floats_rounded": ": plain.fl"}
    assert [(f.code, named[f.code] in f.message) for f in found.findings] == [(code, True) for code in named]
    shown = engine.spell(task, shelter.used.server)
    backup = shelter.dump(name, exclude=("parent",))
    assert shown[-1].split()[1:] == list(backup.arguments)
    assert "parent" not in (backup.rows or {})
    assert mysql.password not in "".join(path.read_text() for path in shelter.folder.rglob("*.json"))


def test_a_login_that_does_not_see_all_is_told_so(mysql: Server, database: Make, tmp_path: Path) -> None:
    """SHOW TRIGGERS and SHOW PROCEDURE STATUS leave out what one may not see, and a dump would say nothing of it."""
    name = database(mysql)
    furnish(mysql, name)
    every = ["SELECT", "SHOW VIEW", "TRIGGER", "EVENT"]
    routines = "SELECT ON mysql.proc" if mysql.engine == "mariadb" else "SHOW_ROUTINE ON *.*"
    for left_out in [*every, routines]:
        grants = [f"{each} ON {name}.*" for each in every if each != left_out]
        grants += [routines] if left_out != routines else []
        login = small(mysql, *grants)
        shelter = Shelter(mysql, tmp_path / left_out.split()[0], **login)
        with pytest.raises(Refused, match="GRANT"):
            shelter.dump(name)
        assert shelter.files() == []
    login = small(mysql, *(f"{each} ON {name}.*" for each in every), routines)
    shelter = Shelter(mysql, tmp_path / "enough", **login)
    backup = shelter.dump(name)
    assert dict(backup.rows or {}) == rows(mysql) and "position" not in backup.about


def test_the_owner_of_a_database_backs_it_up_unless_routines_are_closed_to_it(
    mysql: Server, database: Make, tmp_path: Path
) -> None:
    """Whoever has all of a database sees that there are routines: what it may not read fails the dump."""
    name = database(mysql)
    login = small(mysql, f"ALL PRIVILEGES ON {name}.*")
    mysql.script("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", database=name)
    shelter = Shelter(mysql, tmp_path / "owner", **login)
    assert dict(shelter.dump(name).rows or {}) == {"t": 1}
    files = shelter.files()
    mysql.sql("CREATE PROCEDURE closed() SELECT 1", database=name)
    if mysql.engine == "mariadb" and tuple(map(int, mysql.version.split(".")[:2])) >= (11, 3):
        # There SHOW CREATE ROUTINE is among all privileges.
        shelter.dump(name)
        return
    with pytest.raises(Refused, match=r"closed|insufficient|privileges"):
        shelter.dump(name)
    assert shelter.files() == files


def test_a_tool_of_the_other_family_or_an_older_one_is_refused(
    mysql: Server, database: Make, shelter: Shelter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import clients

    name = database(mysql)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(clients, "FOLDERS", ())
    monkeypatch.setenv("PATH", str(folder))
    told = {
        "mariadb": "mysqldump  Ver 9.7.4 for Linux on x86_64",
        "mysql": "mysqldump from 12.1.2-MariaDB, client 10.19",
    }
    old = {
        "mariadb": "mysqldump  Ver 10.19 Distrib 10.5.29-MariaDB, for debian-linux-gnu (x86_64)",
        "mysql": "mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)",
    }
    for words, kind in ((told, MissingMeans), (old, Refused)):
        (folder / "mysqldump").write_text(f"#!/bin/sh\necho '{words[mysql.engine]}'\n")
        (folder / "mysqldump").chmod(0o755)
        clients._asked.cache_clear()
        with pytest.raises(kind, match=r"mysqldump|mariadb-dump"):
            shelter.dump(name)
    clients._asked.cache_clear()
    assert shelter.files() == []


def test_a_backup_that_does_not_fit_is_refused_before_anything_is_touched(
    mysql: Server, database: Make, shelter: Shelter
) -> None:
    name = database(mysql)
    furnish(mysql, name)
    backup = shelter.dump(name)
    other = "mysql" if mysql.engine == "mariadb" else "mariadb"
    cases: list[tuple[Backup, str]] = [
        (backup._replace(engine=other), f"is of {other}"),
        (backup._replace(version="99.1.0"), "newer than this server"),
        (backup._replace(method="globals"), "another kind"),
        (backup._replace(about={**backup.about, "lower_case_table_names": "2"}), "lower_case_table_names"),
    ]
    for wrong, words in cases:
        with pytest.raises(Refused, match=words):
            shelter.carry_out(Restore(Ref(f"{name}_copy"), wrong))
    path = Path(backup.folder) / backup.files[0].name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    with pytest.raises(Refused):
        shelter.restore(backup, name, replace=True)
    with pytest.raises(Refused):
        shelter.restore(backup, f"{name}_copy")
    path.unlink()
    with pytest.raises(Refused):
        shelter.restore(backup, f"{name}_copy")
    assert mysql.sql(f"SHOW DATABASES LIKE '{name}_copy'") == []
    assert mysql.sql(f"SELECT COUNT(*) FROM {name}.plain") == [["4"]]


@pytest.mark.parametrize("founded", [False, True])
def test_what_somebody_made_while_the_backup_was_read_stays(
    mysql: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch, founded: bool
) -> None:
    """Also where the name was free before, or a run that died had left it with nothing in it."""
    name, target = database(mysql), database(mysql)
    mysql.script("CREATE TABLE t (a int)", database=name)
    backup = shelter.dump(name)
    if not founded:
        mysql.sql(f"DROP DATABASE {target}")
    real = restoring.intact

    def meanwhile(*words: Any) -> Iterator[Any]:
        yield from real(*words)
        mysql.sql(f"CREATE DATABASE IF NOT EXISTS {target}")
        mysql.script("CREATE TABLE theirs (a int)", database=target)

    monkeypatch.setattr(restoring, "intact", meanwhile)
    with pytest.raises(Refused, match="there already"):
        shelter.restore(backup, target, founded=founded)
    assert mysql.sql(f"SHOW TABLES FROM {target}") == [["theirs"]]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key ring of its own, in a folder whose name is short enough for the agent's socket."""
    if shutil.which("gpg") is None:
        missing("gpg")
    home = tempfile.mkdtemp(prefix="keys-")
    monkeypatch.setenv("GNUPGHOME", home)
    words = ["gpg", "--batch", "--passphrase", "", "--quick-generate-key", "backup@example", "default", "default"]
    try:
        subprocess.run(words, check=True, capture_output=True)
        yield home
    finally:
        subprocess.run(["gpgconf", "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)


def test_an_encrypted_backup_is_parsed_on_its_way_and_restored(
    mysql: Server, database: Make, tmp_path: Path, keys: str
) -> None:
    name = database(mysql)
    furnish(mysql, name)
    shelter = Shelter(mysql, tmp_path / "b", encryption=Encryption("gpg", ("backup@example",)), compression="none")
    backup = shelter.dump(name, decode=True)
    assert (backup.level, backup.encryption) == ("decode", "gpg") and dict(backup.rows or {}) == rows(mysql)
    assert not [path for path in shelter.folder.rglob("*.sql*") if b"INSERT INTO" in path.read_bytes()]
    decrypt = Decryption(home=keys)
    for level in ("decode", "restore"):
        assert shelter.verify(name, level, decrypt=decrypt, on="same_server").level == level
    target = f"{name}_copy"
    try:
        shelter.restore(backup, target, decrypt=decrypt)
        assert describe(mysql, target) == describe(mysql, name)
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {target}")


def test_the_module_backs_up_once_and_restores(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Check mode says what the run does; the second run does nothing; a drill and a restore take what it made."""
    name, beside = database(mysql), database(mysql)
    furnish(mysql, name)
    mysql.script("CREATE TABLE base (a int)", database=beside)
    mysql.script(f"CREATE VIEW far AS SELECT a FROM {beside}.base", database=name)
    options = {**mysql.login(), "engine": mysql.engine, "backup_dir": str(tmp_path / "b"), "journal": "none"}
    backup = {**options, "databases": [name]}
    planned = run("db_backup", backup, check=True).result
    assert planned["changed"] and not (tmp_path / "b").exists()
    done = run("db_backup", backup).result
    facts = [each["ansible_facts"]["db_backup"]["steps"] for each in (planned, done)]
    words = [[(step["kind"], step["database"], step["statements"]) for step in steps] for steps in facts]
    assert words[0] == words[1]
    assert {(step["kind"], step["proven"]) for step in facts[1]} == {("dump", True), ("verify", True)}
    tried = run("db_backup", {**backup, "backup_dir": str(tmp_path / "tried"), "verify": "restore"}).fact()
    assert {(step["kind"], step["proven"]) for step in tried["steps"]} == {("dump", True), ("verify", True)}
    assert [f["message"][-5:] for f in tried["findings"] if f["code"] == "views_not_tried"] == [": far"]
    beside_it = {
        "backup_dir": str(tmp_path / "beside"),
        "verify": "restore",
        "drill_on": "same_server",
        "globals": False,
    }
    assert "views_not_tried" not in str(run("db_backup", {**backup, **beside_it}).fact()["findings"])
    assert not run("db_backup", backup).result["changed"]
    again = run("db_restore", {**options, "database": name, "drill": True}, check=True).fact()["findings"]
    assert [f["message"][-5:] for f in again if f["code"] == "views_not_tried"] == [": far"]
    drill = run("db_restore", {**options, "database": name, "drill": True, "drill_on": "same_server"})
    assert drill.result["changed"] and "views_not_tried" not in str(drill.fact()["findings"])
    target = f"{name}_copy"
    try:
        assert run("db_restore", {**options, "database": name, "target": target}).result["changed"]
        assert describe(mysql, target) == describe(mysql, name)
        refused = run("db_restore", {**options, "database": name, "target": target}, fails=True).result
        assert "is there" in str(refused)
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {target}")


def test_the_programs_are_as_encrypted_as_the_session(
    mysql: Server, fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody's own settings have a say: ~/.my.cnf names another password here."""
    server = fleet.mysql(tls=True) if mysql.engine == "mysql" else fleet.mariadb(tls=True)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".my.cnf").write_text("[client]\npassword=wrong\n[mysqldump]\nno-data\nwhere=1=0\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MYSQL_PWD", "wrong, too")
    server.sql("CREATE DATABASE safe")
    server.script("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", database="safe")
    server.sql("CREATE USER tls@'%' IDENTIFIED BY 'a\"b''c\\\\d#e ;f' REQUIRE SSL")
    server.sql("GRANT ALL ON *.* TO tls@'%'")
    login = {"login_user": "tls", "login_password": "a\"b'c\\d#e ;f"}
    authority = str(server.ca_cert)
    for number, more in enumerate((
        {"ssl_mode": "prefer"},
        {"ssl_mode": "require"},
        {"ssl_mode": "verify-ca", "ca_cert": authority},
        {"ssl_mode": "verify-full", "ca_cert": authority},
    )):  # fmt: skip
        shelter = Shelter(server, tmp_path / str(number), **login, **more)
        assert dict(shelter.dump("safe").rows or {}) == {"t": 1}
    server.drop()


def test_a_role_of_the_session_holds_for_the_programs(mysql: Server, database: Make, tmp_path: Path) -> None:
    """Else what only the role may see would be left out, and nothing said: triggers, events."""
    name = database(mysql)
    furnish(mysql, name)
    target = f"{name}_copy"
    mysql.sql("DROP ROLE IF EXISTS keeper")
    mysql.sql("CREATE ROLE keeper")
    try:
        mysql.sql("GRANT ALL ON *.* TO keeper" if mysql.engine == "mysql" else "GRANT ALL PRIVILEGES ON *.* TO keeper")
        login = small(mysql, "keeper")
        shelter = Shelter(mysql, tmp_path / "b", session_role="keeper", **login)
        if mysql.engine == "mariadb":
            with pytest.raises(Refused, match="take on no role") as refused:
                shelter.dump(name)
            mysql.sql(refused.value.cure.replace("small@%", "small@'%'"))
        backup = shelter.dump(name)
        assert dict(backup.rows or {}) == rows(mysql)
        assert shelter.verify(name, "restore", on="same_server").level == "restore"
        shelter.restore(backup, target)
        assert describe(mysql, target) == describe(mysql, name)
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {target}")
        mysql.sql("DROP ROLE keeper")
