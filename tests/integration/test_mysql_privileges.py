# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The MySQL engine with logins that may do little: findings with the GRANT that cures them, and no crash."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import CannotConnect, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze, Rebuild
from tests.fleet import Server

from .my import Used, fill, small, use

Make = Callable[[Server], str]


def cures(server: Server, used: Used, database: str) -> list[str]:
    """The GRANTs that the findings name, carried out."""
    found = used.measure(database)
    fixes = [f.fix for f in (*used.server.findings, *found.findings) if f.code == "missing_privilege"]
    for fix in fixes:
        assert fix.startswith("GRANT ")
        server.sql(fix)
    return fixes


def test_low_privileges(mysql: Server, database: Make) -> None:
    """Findings that name the GRANT, and no crash; with those GRANTs everything works, and no finding is left."""
    name = database(mysql)
    fill(mysql, name, "t", "id int primary key, v varchar(200), key (v)", "i, repeat('x', 150)", 30000)
    login = small(mysql, f"SELECT ON `{name}`.*")
    used = use(mysql, **login)
    (table,) = used.measure(name).tables
    assert table.total_bytes > 4_000_000
    assert table.changed is None
    assert {"analyze", "online rebuild", "exclusive rebuild"} <= set(table.lacks)
    assert used.gauge("oldest_snapshot", Rebuild(table.ref)) is None
    for task in (Analyze(table.ref), Rebuild(table.ref)):
        with pytest.raises(Refused) as fault:
            used.carry_out(task)
        assert fault.value.cure
    fixes = cures(mysql, used, name)
    assert len(fixes) >= 4
    again = use(mysql, **login)
    assert not again.server.findings
    found = again.measure(name)
    assert not found.findings
    assert not found.tables[0].lacks
    assert found.tables[0].changed is not None
    again.carry_out(Analyze(table.ref))
    again.carry_out(Rebuild(table.ref))
    assert again.gauge("oldest_snapshot", Rebuild(table.ref)) == 0


def test_login_without_anything(mysql: Server, database: Make) -> None:
    name = database(mysql)
    used = use(mysql, **small(mysql))
    assert name not in {d.name for d in used.server.databases}
    assert used.server.findings
    with pytest.raises(CannotConnect), used.engine.session(name):
        pass


def test_privileges_by_role_and_by_table(mysql: Server, database: Make) -> None:
    name = database(mysql)
    fill(mysql, name, "mine", "id int primary key", "i", 10)
    fill(mysql, name, "theirs", "id int primary key", "i", 10)
    login = small(mysql, "PROCESS ON *.*", f"SELECT, INSERT, ALTER, CREATE ON `{name}`.`mine`", f"SELECT ON `{name}`.*")
    mysql.script("DROP ROLE IF EXISTS keeper; CREATE ROLE keeper; GRANT keeper TO small@'%';")
    mysql.sql(f"GRANT INSERT, ALTER, CREATE ON `{name}`.`theirs` TO keeper")
    lacks = {t.ref.path[0]: set(t.lacks) for t in use(mysql, **login).measure(name).tables}
    assert lacks == {"mine": set(), "theirs": {"analyze", "online rebuild", "exclusive rebuild"}}
    used = use(mysql, **login, session_role="keeper")
    assert not any(t.lacks for t in used.measure(name).tables)
    used.carry_out(Analyze(Ref(name, ("theirs",))))
