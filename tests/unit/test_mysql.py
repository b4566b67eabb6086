# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the MySQL engine decides without a server: flavours, names, grants, sizes of rows, faults, options."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import (
    capabilities,
    faults,
    greeting,
    keyspace,
    maintenance,
    names,
    natural,
    options,
    privileges,
    replicas,
    rows,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, Busy, Gone, Refused, Stopped
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Server
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild

SERVER = Server("mysql", "9.7.4", (9, 7, 4), "x", "primary", datetime(2026, 11, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("version", "comment", "name", "number"),
    [
        ("9.7.4-2", "(Debian)", "mysql", (9, 7, 4)),
        ("8.0.36-28", "Percona Server", "mysql", (8, 0, 36)),
        ("10.11.19-MariaDB-0+deb12u1-log", "Debian 12", "mariadb", (10, 11, 19)),
        ("5.5.5-10.6.18-MariaDB", "", "mariadb", (10, 6, 18)),
        ("10.6.18", "mariadb.org binary distribution", "mariadb", (10, 6, 18)),
        ("8.4", "", "mysql", (8, 4, 0)),
    ],
)
def test_flavours(version: str, comment: str, name: str, number: tuple[int, ...]) -> None:
    found = capabilities.flavour_of(version, comment)
    assert (found.name, found.number) == (name, number)


def test_old_and_new_versions() -> None:
    def lacks(version: str) -> set[str]:
        found = set(capabilities.flavour_of(version).lacks())
        # mariadb-backup knows MariaDB only.
        assert ("physical" in found) == ("MariaDB" not in version)
        return found - {"physical"} - set(capabilities.ALWAYS_LACKING)

    assert lacks("8.0.11") == lacks("9.9.0") == lacks("10.6.1-MariaDB") == lacks("11.8.2-MariaDB") == set()
    assert lacks("10.0.1") == lacks("12.0.1-MariaDB") == {"rewrite"}
    assert lacks("5.7.44") == lacks("10.5.9-MariaDB") == {"write"}


def test_words_by_version() -> None:
    def has(version: str, what: str) -> bool:
        return capabilities.flavour_of(version).has(what)

    assert not has("8.0.21", "replica words")
    assert has("8.0.22", "replica words")
    assert has("10.6.0-MariaDB", "replica words")
    assert not has("8.0.23", "analyze beside queries")
    assert has("8.0.24", "analyze beside queries")
    assert not has("11.8.2-MariaDB", "statistics expiry")
    assert capabilities.flavour_of("8.0.11").view("TABLES") == "INNODB_TABLES"
    assert capabilities.flavour_of("10.6.11-MariaDB").view("TABLES") == "INNODB_SYS_TABLES"


@given(st.lists(st.text(min_size=1), min_size=1, max_size=3))
def test_quoting_can_be_undone(parts: list[str]) -> None:
    quoted = names.quoted(*parts)
    assert quoted.count("`") == 2 * (len(parts) + sum(part.count("`") for part in parts))
    assert [part.replace("``", "`") for part in re.findall("`((?:[^`]|``)*)`", quoted)] == parts


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("plain", names.Place("plain")),
        ("a#p#b", names.Place("a#p#b")),
        ("parted#P#p1", names.Place("parted", "p1")),
        ("parted#p#p1#sp#s2", names.Place("parted", "p1")),
        ("x#p#y#p#z", names.Place("x#p#y", "z")),
        ("plain#p#p1", None),
        ("other", None),
    ],
)
def test_places(name: str, found: names.Place | None) -> None:
    assert names.place(name, {"plain": False, "a#p#b": False, "parted": True, "x#p#y": True}) == found


GRANTS = [
    "GRANT PROCESS, BACKUP_ADMIN ON *.* TO `u`@`%`",
    "GRANT SELECT (`a`, `b`), INSERT ON `shop`.* TO `u`@`%`",
    "GRANT ALL PRIVILEGES ON `my\\_app`.* TO `u`@`%` IDENTIFIED BY PASSWORD '*6C8989'",
    "GRANT ALTER ON `team%`.* TO `u`@`%`",
    "GRANT ALTER ON `shop`.`odd ``name` TO `u`@`%`",
    "GRANT `role`@`%` TO `u`@`%`",
    "GRANT EXECUTE ON PROCEDURE `shop`.`p` TO `u`@`%`",
    "REVOKE PROCESS ON `secret`.* FROM `u`@`%`",
]


def test_grants() -> None:
    grants = privileges.Grants("'u'@'%'", privileges.parsed(GRANTS))
    assert grants.allow("PROCESS")
    assert not grants.allow("PROCESS", "secret")
    assert grants.allow("INSERT", "shop", "anything")
    assert not grants.allow("INSERT")
    assert not grants.allow("INSERT", "shopping")
    assert grants.allow("DROP", "my_app")
    assert not grants.allow("DROP", "myXapp")
    assert grants.allow("ALTER", "team_7", "t")
    assert grants.allow("ALTER", "shop", "odd `name")
    assert not grants.allow("ALTER", "shop", "other")
    assert grants.missing(privileges.REBUILD, "shop", "other") == ["ALTER", "CREATE"]
    assert grants.statement(["ALTER"], "sh`op") == "GRANT ALTER ON `sh``op`.* TO 'u'@'%'"
    assert privileges.Grants("x", known=False).allow("ANYTHING")


def test_missing_grants_name_their_cure() -> None:
    nothing = privileges.Grants("'u'@'%'")
    for engine in ("mysql", "mariadb"):
        fixes = [f.fix for f in greeting.missing_grants(nothing, engine)]
        assert fixes == [
            "GRANT PROCESS ON *.* TO 'u'@'%'",
            "GRANT SELECT ON `mysql`.`innodb_table_stats` TO 'u'@'%'",
            "GRANT SELECT ON `mysql`.`innodb_index_stats` TO 'u'@'%'",
            f"GRANT {'REPLICATION CLIENT' if engine == 'mysql' else 'SLAVE MONITOR'} ON *.* TO 'u'@'%'",
        ]


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (1205, Busy),
        (1213, Busy),
        (1040, Busy),
        (2006, Gone),
        (2013, Gone),
        (1053, Gone),
        (1142, Refused),
        (1846, Refused),
    ],
)
def test_faults(number: int, kind: type) -> None:
    found = faults.translated(Exception(number, "said so"), database="d", obj="o")
    assert (found).__class__ is kind
    assert "said so" in str(found)


def test_killed_by_whom() -> None:
    assert (faults.translated(Exception(1317, "x"), stopping=True)).__class__ is Stopped
    assert (faults.translated(Exception(2013, "x"), stopping=True)).__class__ is Stopped
    assert (faults.translated(Exception(1317, "x"))).__class__ is Refused
    assert (faults.translated(Exception(1205, "x"), stopping=True)).__class__ is Busy
    assert "innodb_online_alter_log_max_size" in faults.translated(Exception(1799, "x")).cure


def test_rows_of_analyze() -> None:
    ref = Ref("d", ("t",))
    maintenance.check_rows([("d.t", "analyze", "note", "x"), ("d.t", "analyze", "status", "OK")], ref)
    with pytest.raises(Busy):
        maintenance.check_rows([("d.t", "analyze", "error", "Lock wait timeout exceeded")], ref)
    with pytest.raises(Refused):
        maintenance.check_rows([("d.t", "analyze", "Error", "Table 'd.t' doesn't exist")], ref)
    with pytest.raises(Refused):
        maintenance.check_rows([("d.t", "analyze", "status", "Operation failed")], ref)


@given(st.text(min_size=1), st.text(min_size=1), st.booleans())
def test_statements_name_the_table(database: str, table: str, online: bool) -> None:
    ref = Ref(database, (table,))
    for task in (Analyze(ref), Rebuild(ref, online), Rebuild(ref._replace(partition="p"), online)):
        words = maintenance.act_of(task)[0](task, SERVER)
        assert words
        assert all(names.quoted(database, table) in w for w in words)


def column(kind: str, whole: str = "", **more: Any) -> rows.Column:
    defaults = {"precision": None, "scale": None, "fraction": None, "octets": None, "characters": None, "null": "NO"}
    value = {**defaults, **more}
    return rows.column(("c", kind, whole or kind, *value.values(), ""), json_size=True)


@pytest.mark.parametrize(
    ("found", "size"),
    [
        (column("int"), 4),
        (column("decimal", precision=12, scale=2), 6),
        (column("decimal", precision=30, scale=10), 14),
        (column("datetime", fraction=0), 5),
        (column("datetime", fraction=6), 8),
        (column("timestamp", fraction=3), 6),
        (column("bit", precision=9), 2),
        (column("enum", "enum('a','it''s')"), 1),
        (column("enum", "enum(" + ",".join(f"'{i}'" for i in range(300)) + ")"), 2),
        (column("set", "set('a','b','c')"), 1),
        (column("binary", octets=16, characters=16), 16),
        (column("char", octets=10, characters=10), 10),
        (column("uuid"), 16),
    ],
)
def test_fixed_sizes(found: rows.Column, size: int) -> None:
    assert (found.bytes, found.sql) == (size, "")


def test_variable_sizes() -> None:
    assert column("int", null="YES").sql == "(`c` IS NOT NULL) * 4"
    assert column("char", octets=40, characters=10).sql == "GREATEST(10, COALESCE(LENGTH(`c`), 0))"
    assert column("varchar", octets=200, characters=50).length_bytes == 1
    assert column("varchar", octets=800, characters=200).length_bytes == 2
    assert column("json", octets=4 << 30, characters=4 << 30).sql == "COALESCE(JSON_STORAGE_SIZE(`c`), 0)"


@given(st.integers(1, 10**8), st.floats(30, 8000), st.floats(10, 500), st.sampled_from([4096, 16384, 65536]))
def test_a_rebuild_never_packs_tighter_than_the_rows(count: int, row: float, entry: float, page: int) -> None:
    row = min(row, page / 2)
    for reserve in (None, 0.125):
        layout = rows.Layout(page, 0, page - 54, reserve)
        found = natural.rebuilt_bytes(count, [row, 0, entry], layout)
        assert found > count * (row + entry)
        assert found < 2.5 * count * (row + entry) + 600 * 65536
        assert found <= natural.rebuilt_bytes(count + 1000, [row, 0, entry], layout)


@pytest.mark.parametrize(
    ("reserve", "leaves", "trees", "pages"),
    [
        # As counted on MariaDB 10.11 (no setting) and MySQL 9.7 after ALTER TABLE … FORCE.
        (None, [58], [97], 128),
        (None, [575], [673], 704),
        (None, [1150], [1379], 1408),
        (None, [2410, 179, 179], [2724, 225, 225], 3328),
        (0.125, [24], [25], 31),
        (0.125, [59], [97], 448),
        (0.125, [582], [673], 1024),
        (0.125, [1220, 90, 90], [1443, 161, 161], 2304),
        (0.125, [2326], [2724], 3072),
    ],
)
def test_extents(reserve: float | None, leaves: list[int], trees: list[int], pages: int) -> None:
    layout = rows.Layout(16384, 0, 16330, reserve)
    assert [natural.tree(n, layout) for n in leaves] == trees
    assert natural.file_pages(trees, layout) == pages


@given(st.binary(max_size=20), st.binary(max_size=20), st.integers(0, 2**70))
def test_bytes_lie_on_a_line(one: bytes, other: bytes, place: int) -> None:
    first, last = sorted((one, other))
    keys = keyspace.keys_of("binary", "k", first, last)
    assert keys
    assert keys.first <= keys.last
    start = keys.first + place % keys.span

    def value(number: int) -> bytes:
        return bytes.fromhex(keys.literal(number)[2:-1])

    assert value(keys.first) <= first.ljust(40, b"\0")
    assert value(start) < value(start + 1)
    assert value(keys.last + 1) > last


@given(
    st.text("0123456789abcdef-", max_size=36),
    st.text("0123456789abcdef-", max_size=36),
    st.lists(st.integers(0, 2**70), min_size=2, max_size=9),
)
def test_texts_lie_on_a_line(one: str, other: str, places: list[int]) -> None:
    first, last = sorted((one, other))
    keys = keyspace.keys_of("text", "k", first, last)
    assert keys
    found = [keys.first + place % keys.span for place in sorted(places, key=lambda p: p % keys.span)]
    literals = [bytes.fromhex(keys.literal(number).split("'")[1]) for number in found]
    assert literals == sorted(literals)
    assert len(set(literals)) == len(set(found))


def test_moments_lie_on_a_line() -> None:
    first, last = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC)
    keys = keyspace.keys_of("time", "at", first.replace(tzinfo=None), last.replace(tzinfo=None))
    assert keys
    assert keys.span == 86400 * 10**6 + 1
    assert keys.within(0, 5) == (
        "`at` >= TIMESTAMP'1970-01-01 00:00:00' + INTERVAL 0 MICROSECOND"
        " AND `at` < TIMESTAMP'1970-01-01 00:00:00' + INTERVAL 5 MICROSECOND"
    )
    days = keyspace.keys_of("time", "on", first.date(), last.date())
    assert days
    assert days.span == 2
    assert keyspace.keys_of("time", "at", "0000-00-00", "2026-01-01") is None
    assert keyspace.kind_of("point") == ""


def test_replica_addresses() -> None:
    login = options.Login({"host": "h", "port": 3307, "unix_socket": "/s"}, "a", False, "")

    def where(name: str) -> tuple[Any, ...]:
        found = replicas.elsewhere(login, name).arguments
        assert "unix_socket" not in found
        return found["host"], found["port"]

    assert where("db2") == ("db2", 3307)
    assert where("db2:3308") == ("db2", 3308)
    assert where("[::1]:3309") == ("::1", 3309)
    assert where("fe80::1") == ("fe80::1", 3307)
    for wrong in ("", "db2:x", ":3306"):
        with pytest.raises(BadInput):
            replicas.elsewhere(login, wrong)


def test_option_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert options.client_section(None) == {}
    (tmp_path / ".my.cnf").write_text('[client]\nuser=me\npassword="p#%w\'d"\nssl_ca=/ca\nskip-x\n!include /y\n')
    found = options.client_section(None)
    assert (found["user"], found["password"], found["ssl-ca"]) == ("me", "p#%w'd", "/ca")
    login = options.login({"login_password": "", "login_host": "there", "ssl_mode": "disable"})
    assert (login.arguments["user"], login.arguments["password"], login.address) == ("me", "", "there:3306")
    with pytest.raises(BadInput):
        options.client_section(str(tmp_path / "nothing"))
