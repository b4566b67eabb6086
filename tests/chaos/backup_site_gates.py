# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a restore into a new data directory can be stopped, and a backup by pgBackRest. The others: backup_gates.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import prepared
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import (
    backrest,
    backrest_site,
    data_directory,
    pgbackrest,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, sites

from . import backup_gates
from .backup_gates import Gates, System
from .process import Gate, put

# In the order in which a run comes to them.
SITE = ("empty", "taken", "filled", "checked", "proven", "safe", "moving", "moved")
REPOSITORY = ("asked", "at work", "ended", "unrecorded", "recorded")
PHASES = (*SITE, *REPOSITORY)
KEYSTONE_FIRST, RECORDED_FIRST = "keystone first", "recorded first"
WORK = ("backup", "verify", "restore")  # commands of pgBackRest
MUTANTS = (KEYSTONE_FIRST, RECORDED_FIRST)


def arm(gate: Gate, mutant: str = "") -> None:
    """Only ever in a child."""
    backup_gates.arm(gate)
    gates = Gates(gate)
    _site(gates, mutant)
    _repository(gates, mutant)


# ---- a new data directory --------------------------------------------------------------------------------------------


def _site(gates: Gates, mutant: str) -> None:
    gates.before(sites.Filling, "begin", "empty")
    gates.entered(sites, "founded", "taken")
    gates.underway(data_directory, "_verified", "filled")
    gates.underway(backrest_site, "filled", "filled", ended=True)
    gates.underway(prepared, "filled", "filled", ended=True)
    gates.underway(data_directory, "_verified", "checked", ended=True)
    gates.underway(data_directory, "_proven", "proven", ended=True)
    gates.underway(prepared, "proven", "proven", ended=True)
    gates.underway(sites.Filling, "flush", "safe", ended=True)
    system = System()
    put(sites, os=system)
    gates.before(system, "rename", "moving")
    gates.after(sites.Filling, "raise_up", "moved")
    if mutant == KEYSTONE_FIRST:
        put(sites.Filling, raise_up=_keystone_first(sites.Filling.raise_up))


def _keystone_first(raise_up: Callable[..., None]) -> Callable[..., None]:
    """What makes it a data directory is there before what stands in it."""

    def raised(self: Any, keystone: str = "") -> None:
        if keystone:
            (Path(self.data) / keystone).rename(Path(self.path) / keystone)
        raise_up(self)
        self.placed = bool(keystone)

    return raised


# ---- pgBackRest ------------------------------------------------------------------------------------------------------


def _repository(gates: Gates, mutant: str) -> None:
    gates.before(backups, "record", "unrecorded")
    gates.after(backups, "record", "recorded")
    gates.underway(backrest, "called", "asked")
    put(pgbackrest, Program=_starting(gates, vars(pgbackrest)["Program"]))
    gates.underway(backrest, "called", "ended", ended=True)
    if mutant == RECORDED_FIRST:
        put(backrest, take=_recorded_first(backrest.take))


def _starting(gates: Gates, program: Callable[..., Any]) -> Callable[..., Any]:
    """Not where it is only asked what it keeps."""

    def begun(argv: Sequence[str], **more: Any) -> Any:
        made = program(argv, **more)
        if argv[-1] in WORK:
            gates.passes("at work")
        return made

    return begun


def _recorded_first(take: Callable[..., Any]) -> Callable[..., Any]:
    """A backup is noted before pgBackRest has made it."""

    def taken(session: Any, task: Any, server: Any) -> Any:
        before, _findings = pgbackrest.repository(server, task.stanza)
        made = before.backups[-1]
        soon = made._replace(id=f"{made.id[:-6]}ffffff", about={**made.about, "label": "soon"})
        backups.record(soon, task.manner.folder)
        return (yield from take(session, task, server))

    return taken
