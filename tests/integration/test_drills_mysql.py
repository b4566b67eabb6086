# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Drills of MySQL and MariaDB: what they notice, where they are done, and what has to be mended on the way."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Elsewhere
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import drilling, restoring
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, CannotConnect, Refused
from tests.fleet import Fleet, Server

from .backups import kinds
from .module_runner import run
from .my import client
from .my_backup import Shelter, furnish

Make = Callable[[Server], str]
# What somebody does to the restored copy, and what of it the drill names; OF_MARIADB: the same, of what only that has.
CHANGES = (
    {
        "DROP TRIGGER tr; CREATE TRIGGER tr BEFORE INSERT ON made FOR EACH ROW SET NEW.a = 1": "triggers of made",
        "ALTER EVENT ev DO DO 7": "events",
        "ALTER VIEW b_view AS SELECT id FROM a_view": " view b_view",
        "DROP FUNCTION fn": "routines",
    },
    {
        "ALTER DEFINER = nobody@x VIEW b_view AS SELECT id FROM a_view WHERE name <> 'x'": "definers of view b_view",
        "ALTER TABLE parent MODIFY id int COMMENT 'x'": "table parent",
        "ALTER TABLE empty_one AUTO_INCREMENT = 99": "AUTO_INCREMENT of empty_one, 99 instead of 77",
        "ALTER TABLE parted DROP KEY `at`": "table parted",
    },
    {"UPDATE plain SET d = 7 WHERE id = 1000": "plain: other content"},
)
OF_MARIADB: tuple[dict[str, str], ...] = (
    {},
    {"SELECT NEXTVAL(counter)": "sequence counter"},
    {"DELETE HISTORY FROM versioned": "versioned: 1 rows instead of 3"},
)


@pytest.fixture(autouse=True)
def programs(mysql: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.pathsep.join((str(mysql.installation.bin_dir), os.environ["PATH"])))


@pytest.fixture
def shelter(mysql: Server, tmp_path: Path) -> Shelter:
    return Shelter(mysql, tmp_path / "backups")


@pytest.fixture
def other(mysql: Server, fleet: Fleet) -> Iterator[Server]:
    """One more server of the kind."""
    server = fleet.mysql() if mysql.engine == "mysql" else fleet.mariadb()
    yield server
    server.drop()


def there(server: Server) -> Elsewhere:
    options = {"login_host": server.host, "login_port": server.port, "login_user": server.user}
    return Elsewhere(options, server.password)


def test_a_drill_notices_what_is_not_as_it_was(
    mysql: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, real = database(mysql), drilling.checked
    furnish(mysql, name)
    shelter.dump(name)
    assert shelter.verify(name, "restore", on="same_server").level == "restore"
    for number, together in enumerate(CHANGES):
        changes = {**together, **(OF_MARIADB[number] if mysql.engine == "mariadb" else {})}

        def changed(link: Any, scratch: str, changes: dict[str, str] = changes) -> Any:
            with client(mysql, scratch, sql_mode="") as say:
                for statement in "; ".join(changes).split("; "):
                    say(statement)
            return real(link, scratch)

        monkeypatch.setattr(drilling, "checked", changed)
        with pytest.raises(Refused) as refused:
            shelter.verify(name, "restore", on="same_server")
        assert [words for words in changes.values() if words not in str(refused.value)] == []
    assert mysql.sql("SHOW DATABASES LIKE 'dbfleet%'") == []


ODD = """
CREATE DEFINER = gone@nowhere VIEW whose AS SELECT 1 AS a;
CREATE DEFINER = gone@nowhere FUNCTION runs() RETURNS int DETERMINISTIC RETURN 1;
CREATE DEFINER = gone@nowhere TRIGGER trg BEFORE INSERT ON parent FOR EACH ROW SET NEW.id = NEW.id;
CREATE VIEW far AS SELECT a FROM {other}.base;
CREATE VIEW farther AS SELECT k.a FROM keyless k JOIN far f ON k.a = f.a;
CREATE VIEW near AS SELECT a FROM keyless WHERE b <> 'from `x`.`y`';
CREATE EVENT `at
once` ON SCHEDULE EVERY 1 SECOND DO INSERT INTO {witness}.base VALUES (2);
"""


def test_a_drill_on_another_server(
    mysql: Server, other: Server, database: Make, tmp_path: Path, shelter: Shelter
) -> None:
    """Which has neither the accounts nor the other databases of the source, and on which nothing stays."""
    name, beside = database(mysql), database(mysql)
    furnish(mysql, name)
    mysql.script("CREATE TABLE base (a int)", database=beside)
    other.script("CREATE DATABASE witness; CREATE TABLE witness.base (a int); SET GLOBAL event_scheduler = ON")
    mysql.script(
        "CREATE USER gone@nowhere;" + ODD.replace("{other}", beside).replace("{witness}", "witness"), database=name
    )
    mysql.sql("DROP USER gone@nowhere")
    before = other.sql("SHOW DATABASES"), other.sql("SELECT User, Host FROM mysql.user")
    on = there(other)
    options: dict[str, Any] = {**mysql.login(), "backup_dir": str(tmp_path / "b"), "journal": "none"}
    options.update(engine=mysql.engine, drill_on=dict(on.options), drill_password=on.password)
    backed = run("db_backup", {**options, "databases": [name], "verify": "restore", "globals": False})
    assert kinds(backed) == [("dump", "done"), ("verify", "done")] and on.password not in backed.text
    drill = run("db_restore", {**options, "database": name, "drill": True}, check=True)
    assert kinds(drill) == []  # proven already
    # On its own server the other database is there, and everybody runs as they did.
    shelter.dump(name)
    assert shelter.verify(name, "restore", on=there(mysql)).level == "restore"
    assert (other.sql("SHOW DATABASES"), other.sql("SELECT User, Host FROM mysql.user")) == before
    assert other.sql("SELECT COUNT(*) FROM witness.base") == [["0"]]
    with pytest.raises(CannotConnect, match=f"drill_on, {other.host}:{other.port}: Access denied"):
        shelter.verify(name, "restore", on=on._replace(password="wrong"))


def test_only_what_a_drill_has_left_is_removed(mysql: Server, database: Make, shelter: Shelter) -> None:
    name = database(mysql)
    mysql.script("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", database=name)
    scratch = restoring.scratch(shelter.dump(name))
    with _there(mysql, scratch, "CREATE TABLE precious (a int)"):
        with pytest.raises(Refused, match="no drill has made it"):
            shelter.verify(name, "restore", on="same_server")
        assert mysql.sql(f"SHOW TABLES FROM {scratch}") == [["precious"]]
    with _there(mysql, scratch, f"CREATE TABLE {restoring.MARK} (a int)"):
        with client(mysql, "") as say:
            say(f"SELECT GET_LOCK('{scratch}', 5)")
            with pytest.raises(Busy, match="another drill"):
                shelter.verify(name, "restore", on="same_server")
        assert shelter.verify(name, "restore", on="same_server").level == "restore"
        assert mysql.sql(f"SHOW DATABASES LIKE '{scratch}'") == []


@contextmanager
def _there(mysql: Server, name: str, words: str) -> Iterator[None]:
    mysql.sql(f"CREATE DATABASE {name}")
    try:
        mysql.script(words, database=name)
        yield
    finally:
        mysql.sql(f"DROP DATABASE IF EXISTS {name}")


TRAPS = """
SET sql_mode = 'ALLOW_INVALID_DATES';
CREATE TABLE dates (d date);
INSERT INTO dates VALUES ('2020-02-31'), ('0000-00-00');
CREATE TABLE base (a int);
INSERT INTO base VALUES (1);
CREATE VIEW far AS SELECT a FROM {other}.base;
CREATE VIEW mixed AS SELECT b.a FROM base b LEFT JOIN far f ON b.a = f.a;
CREATE TABLE large (b longblob);
INSERT INTO large VALUES (REPEAT(x'00', 8400000));
"""
TRAPS_OF_MARIADB = """
CREATE SEQUENCE numbers;
CREATE TABLE numbered (id int DEFAULT NEXTVAL(numbers) PRIMARY KEY, a int);
INSERT INTO numbered (a) VALUES (1), (2);
CREATE TABLE by_transaction (a int, s bigint unsigned GENERATED ALWAYS AS ROW START,
  e bigint unsigned GENERATED ALWAYS AS ROW END, PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING ENGINE=InnoDB;
INSERT INTO by_transaction (a) VALUES (1);
"""


def test_what_the_programs_write_becomes_the_same_under_another_name(
    mysql: Server, database: Make, shelter: Shelter
) -> None:
    """Dates are not made zero, the copy does not reach back into its source, and rows of any length go through."""
    name, beside, copy = database(mysql), database(mysql), database(mysql)
    mysql.script("CREATE TABLE base (a int)", database=beside)
    maria = mysql.engine == "mariadb"
    mysql.script(TRAPS.replace("{other}", beside) + (TRAPS_OF_MARIADB if maria else ""), database=name)
    backup = shelter.dump(name)
    assert (backup.rows or {})["large"] == 1
    most = int(mysql.sql("SELECT @@GLOBAL.max_allowed_packet")[0][0])
    if most < 17 << 20:
        with pytest.raises(Refused, match="takes statements of") as refused:
            shelter.restore(backup, f"{copy}_2")
        assert refused.value.cure.startswith("SET GLOBAL max_allowed_packet = ")
        mysql.sql(refused.value.cure.partition(",")[0])
    try:
        shelter.restore(shelter.verify(name, "restore", on="same_server"), copy, replace=True)
    finally:
        mysql.sql(f"SET GLOBAL max_allowed_packet = {most}")
    assert mysql.sql(f"SELECT d FROM {copy}.dates ORDER BY d") == [["0000-00-00"], ["2020-02-31"]]
    mysql.sql(f"DROP DATABASE {name}")  # by now nothing of the copy needs it
    assert mysql.sql(f"SELECT a FROM {copy}.mixed") == [["1"]]
    if maria:
        mysql.sql(f"INSERT INTO {copy}.numbered (a) VALUES (3)")
    mysql.sql(f"CREATE DATABASE {name}")
