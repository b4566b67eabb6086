# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps of MariaDB by several programs at once, against a real server: one moment, one content, or one program."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import streams
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Dump
from tests.fleet import Server

from .conftest import Pool
from .my import client, small
from .my_backup import Shelter, describe, furnish, rows

Make = Callable[[Server], str]


@pytest.fixture(scope="module")
def maria(pool: Pool) -> Server:
    return pool.get("mariadb")


@pytest.fixture
def shelter(maria: Server, tmp_path: Path) -> Shelter:
    return Shelter(maria, tmp_path / "backups")


def apart(name: str, *tables: str) -> tuple[tuple[Ref, ...], ...]:
    return tuple((Ref(name, (table,)),) for table in tables)


@contextmanager
def writing(maria: Server, name: str) -> Iterator[None]:
    """Somebody writes to two tables in each transaction, all the time."""
    maria.script("CREATE TABLE one (a int); CREATE TABLE two (a int)", database=name)
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

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert begun.wait(60)
        yield
    finally:
        ended.set()
        thread.join()


def test_several_programs_see_one_moment(maria: Server, database: Make, shelter: Shelter) -> None:
    name = database(maria)
    with writing(maria, name):
        for _again in range(3):
            backup = shelter.dump(name, streams=apart(name, "one", "two"))
            assert [stored.what for stored in backup.files].count("tables") == 2
            assert backup.rows and backup.rows["one"] == backup.rows["two"] > 0
    assert backup.about["position"] and shelter.verify(name, "decode").level == "decode"


def test_it_is_restored_as_one(maria: Server, database: Make, shelter: Shelter) -> None:
    """Tables with their triggers from files of their own; what is made of them afterwards."""
    name = database(maria)
    furnish(maria, name)
    maria.sql(f"DROP SEQUENCE {name}.counter")
    backup = shelter.dump(name, streams=apart(name, "plain", "made", "child", "we`ird; DROP\n'\"--", "gone"))
    assert sorted(stored.what for stored in backup.files) == ["dump", *["tables"] * 4]
    assert dict(backup.rows or {}) == rows(maria)
    for level, on in (("decode", "throwaway"), ("restore", "same_server")):
        assert shelter.verify(name, level, on=on).level == level
    target = f"{name}_copy"
    try:
        shelter.restore(backup, target)
        assert describe(maria, target) == describe(maria, name)
    finally:
        maria.sql(f"DROP DATABASE IF EXISTS {target}")
    # Each of the files is needed.
    (Path(backup.folder) / next(stored.name for stored in backup.files if stored.what == "tables")).unlink()
    with pytest.raises(Refused):
        shelter.restore(backup, target)


def test_where_no_moment_is_to_be_had_one_program_writes_all(maria: Server, database: Make, shelter: Shelter) -> None:
    name = database(maria)
    maria.script("CREATE TABLE a (a int); CREATE TABLE b (a int)", database=name)
    with client(maria, name) as say:
        say("BACKUP STAGE START")  # of one who copies the files
        backup = shelter.dump(name, streams=apart(name, "a"))
        say("BACKUP STAGE END")
    assert [stored.what for stored in backup.files] == ["dump"] and set(backup.rows or {}) == {"a", "b"}
    with client(maria, name) as say:  # nobody is kept from anything any more
        say("INSERT INTO a VALUES (1)")


def test_programs_of_two_moments_are_no_backup(
    maria: Server, database: Make, shelter: Shelter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the lock is for: without it the positions differ, and that is found out."""
    monkeypatch.setattr(streams, "MOMENT", ())
    name = database(maria)

    def often() -> None:
        for _again in range(20):
            shelter.dump(name, streams=apart(name, "one", "two"))

    with writing(maria, name), pytest.raises(Refused, match="one moment"):
        often()


def test_what_may_be_written_apart(maria: Server, database: Make, tmp_path: Path) -> None:
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Sheltered

    name = database(maria)
    maria.script(
        "CREATE TABLE a (a int); CREATE TABLE m (a int) ENGINE=MyISAM; CREATE VIEW v AS SELECT a FROM a", database=name
    )

    def large(**login: str) -> list[str]:
        shelter = Shelter(maria, tmp_path / "b", **login)
        with shelter.used.engine.session(name) as session:
            found = shelter.used.engine.measure(session, Wants(backups=Sheltered("/b")), shelter.used.server)
        return [table.ref.path[0] for table in found.large]

    assert large() == ["a"]
    assert large(**small(maria, f"ALL ON {name}.*")) == []  # whoever may not keep others from committing
    maria.sql(f"CREATE SEQUENCE {name}.counter")
    assert large() == []


def test_the_words_that_are_shown_are_those_that_run(maria: Server, database: Make, shelter: Shelter) -> None:
    name = database(maria)
    maria.script("CREATE TABLE a (a int); CREATE TABLE b (a int)", database=name)
    shown = shelter.used.engine.spell(
        Dump(Ref(name), "dump", shelter.manner, streams=apart(name, "a")), shelter.used.server
    )
    backup = shelter.dump(name, streams=apart(name, "a"))
    assert len(shown) == 2 and shown[0].endswith(f" -- {name} a")
    assert shown[1].split()[1:] == list(backup.arguments) and f"--ignore-table={name}.a" in backup.arguments
