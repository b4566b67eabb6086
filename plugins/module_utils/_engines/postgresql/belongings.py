# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What belongs to a database and stands in no dump: given to the restored one, told, compared. Words: founding.py.

A server that lacks a library or a setting is no reason to restore nothing: what it does not take becomes a finding.
"""

from __future__ import annotations

import re
import typing as t

from ..._backups import Backup
from ..._errors import DbFault, Refused
from ..._records import Finding, Pace, Ref, Tick
from . import founding
from .connection import Connection, Connector
from .dumping import about_of
from .names import quoted
from .throwaway import speaking

NO_LABELS = "--no-security-labels"
NO_ROLES = "Restore the roles with it (globals: true), or create them"
ROLES = "SELECT r.rolname::pg_catalog.text FROM pg_catalog.pg_roles r"


def assure_roles(worker: Connection, about: t.Mapping[str, str]) -> None:
    """Before hours of restoring, not after them. Raises Refused."""
    there = {name for (name,) in worker.rows(ROLES)}
    lacking = [name for name in founding.own_roles(about) if name not in there]
    if lacking:
        raise Refused("; ".join(f"role {quoted(name)} does not exist" for name in lacking), cure=NO_ROLES)


def unlabelled(worker: Connection, connector: Connector, name: str, about: t.Mapping[str, str]) -> list[str]:
    """Who provides security labels of the database, or of anything in it, and is not there where they are restored.

    The database's own settings may be what loads them into its sessions.
    """
    wanted = founding.labellers(about)
    lacking = _lacking(connector, name, wanted) if wanted else []
    preloads = founding.preloads(name, about) if lacking else []
    if not preloads:
        return lacking
    try:
        for words in preloads:
            worker.rows(words)
        return _lacking(connector, name, wanted)
    except DbFault:  # no session begins in a database whose library is not there
        worker.rows(f"ALTER DATABASE {quoted(name)} RESET session_preload_libraries")
        return lacking


def _lacking(connector: Connector, name: str, wanted: t.Sequence[str]) -> list[str]:
    """No catalog lists them: a label that is taken away where there is none asks the server."""
    lacking = []
    with speaking(connector, name) as connection:
        for provider in wanted:
            try:
                connection.rows(founding.label(name, provider))
            except Refused as fault:
                if "is not loaded" in fault.cause:
                    lacking.append(provider)
    return lacking


def without_labels(ref: Ref, lacking: t.Sequence[str]) -> Finding:
    """pg_restore leaves out all of them, or none."""
    message = f"no security labels were restored: the server has not loaded their provider {', '.join(lacking)}"
    fix = "Load its library (shared_preload_libraries), and restore once more"
    return Finding(2, "labels_not_restored", ref, message, fix=fix)


def given(
    worker: Connection,
    connector: Connector,
    name: str,
    ref: Ref,
    about: t.Mapping[str, str],
    *,
    labels: bool = True,
) -> t.Generator[Tick, Pace, bool]:
    """Whether all of its settings are as they were. `ref`: what the database will be called. Raises what it lacks."""
    words = founding.labels(name, about) if labels else []
    if words:
        with speaking(connector, name) as connection:
            for each in words:
                connection.rows(each)
    optional, whole = {*founding.settings(name, about)}, True
    for each, said in zip(founding.furnish(name, about), founding.furnish(ref.database, about)):
        try:
            worker.rows(each)
        except Refused as fault:
            if each not in optional or re.search("role .* does not exist", fault.cause):
                raise
            whole = False
            message = f"a setting was not restored, since this server does not take it: {fault.cause}"
            yield Tick(found=Finding(2, "setting_not_restored", ref, message, fix=said))
        yield Tick()
    return whole


def compared(worker: Connection, backup: Backup, name: str, but: t.Collection[str] = ()) -> None:
    """The database is as the manifest says that its like was. Raises Refused."""
    found, _bytes = about_of(worker, name)
    wrong = founding.same(backup.about, found, but)
    if wrong:
        raise Refused(f"what was restored is not as backup {backup.id} says: {', '.join(wrong)} of the database")
