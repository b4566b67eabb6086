# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings under which a dump's statements mean what they meant where they were written. Nothing is restored here."""

from __future__ import annotations

import typing as t

from ..._errors import DbFault, Refused
from .names import literal

if t.TYPE_CHECKING:
    from ..._backups import Backup

EXPLICIT, INVISIBLE = "explicit_defaults_for_timestamp", "sql_generate_invisible_primary_key"
# A server writes out all that a definition means. With other values `timestamp NOT NULL` becomes one that each UPDATE
# sets, and a table without a primary key gets one that it did not have, or is not made at all.
ALWAYS = {EXPLICIT: "1", INVISIBLE: "0", "sql_require_primary_key": "0"}
# What columns are generated from, of rows that are written anew.
AS_THERE = ("default_week_format", "div_precision_increment", "lc_time_names")
SHOWN = "SHOW SESSION VARIABLES WHERE Variable_name IN ({})"
SAME = {"ON": "1", "OFF": "0"}


def statements(link: t.Any, backup: Backup) -> str:
    """What the client program has to say first, "" where all is as it should be. Raises Refused where it may not."""
    wanted = {**ALWAYS, **{name: backup.about[name] for name in AS_THERE if name in backup.about}}
    rows = link.rows(SHOWN.format(", ".join(literal(name) for name in wanted)))
    here = {str(name): SAME.get(str(value), str(value)) for name, value in rows}
    words = []
    for name in sorted(here):
        if here[name] == wanted[name]:
            continue
        value = wanted[name] if wanted[name].isdigit() else literal(wanted[name])
        statement = f"SET SESSION {name} = {value}"
        try:
            link.rows(statement)
        except DbFault as fault:
            _assure(name, backup, fault)
        else:
            words.append(f"{statement};\n")
    return "".join(words)


def _assure(name: str, backup: Backup, fault: DbFault) -> None:
    """Raises Refused where the server would say nothing: for want of a primary key it refuses tables by itself."""
    explicit = name == EXPLICIT and SAME.get(backup.about.get(name, ""), backup.about.get(name)) == "1"
    if not explicit and name != INVISIBLE:
        return
    what = "give columns of type timestamp other defaults" if explicit else "add primary keys that are not there"
    value = "ON" if explicit else "OFF"
    raise Refused(
        f"the server would {what} ({name}), and it may not be set for the restore: {fault.cause}",
        database=backup.database,
        cure=f"GRANT SESSION_VARIABLES_ADMIN to the login, or set {name} = {value} for as long as the restore takes",
    ) from fault
