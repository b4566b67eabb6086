# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where db_backup, db_restore and db_backup_rotate can be stopped: verbs of the product, wrapped in the child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Sheltered
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import (
    drilling,
    prepared,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import restoring as my_restoring
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import streams as my_streams
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql import (
    throwaway as my_throwaway,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.postgresql import (
    drill,
    interim,
    physical,
    restoring,
    streams,
    throwaway,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.sqlite import backup_copy, backup_restore
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import (
    backups,
    copies,
    durable,
    feeding,
    folder,
    pump,
    reader,
    sinks,
    spread,
    store,
    unfinished,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import MANIFEST
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import backup_streams

from .process import Gate, put

# In the order in which a run comes to them.
DUMPED = (
    "scratch file",
    "moment",
    "marker",
    "begun",
    "writing",
    "written",
    "flushed",
    "renamed",
    "manifest half",
    "manifest there",
)
VERIFIED = ("reading", "verifying", "verified")
COPIED = ("copying", "copy renamed", "copy there", "copied")
RESTORED = ("folder", "founded", "made", "loading", "preparing", "started", "comparing", "complete")
ROTATED = ("marked", "deleted", "emptied", "copy gone")
ANY = "any moment"  # also between two phases that somebody has thought of
PHASES = (*DUMPED, *VERIFIED, *COPIED, *RESTORED, *ROTATED, ANY)
MANIFEST_FIRST, PREVIOUS_FIRST, FILES_FIRST = "manifest first", "previous deleted first", "files before the marker"
MUTANTS = (MANIFEST_FIRST, PREVIOUS_FIRST, FILES_FIRST)


def arm(gate: Gate, mutant: str = "") -> None:
    """Only ever in a child."""
    # Small tables are dumped by streams of their own.
    put(backup_streams, LEAST=1 << 20, WORTH=2 << 20)
    gates = Gates(gate)
    _dumped(gates, mutant)
    _verified(gates)
    _copied(gates)
    _restored(gates)
    _rotated(gates, mutant)


class System:
    """The module os as a module of the product sees it, with something before or after some of its functions."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _ever(*_words: Any, **_more: Any) -> bool:
    return True


class Gates:
    """Puts the gate around functions of the product."""

    def __init__(self, gate: Gate) -> None:
        self.passes = gate.passes

    def after(self, place: Any, name: str, phase: str) -> None:
        real = getattr(place, name)

        def called(*args: Any, **more: Any) -> Any:
            result = real(*args, **more)
            self.passes(phase)
            return result

        setattr(place, name, called)

    def before(self, place: Any, name: str, phase: str, when: Callable[..., bool] = _ever) -> None:
        real = getattr(place, name)

        def called(*args: Any, **more: Any) -> Any:
            if when(*args, **more):
                self.passes(phase)
            return real(*args, **more)

        setattr(place, name, called)

    def entered(self, place: Any, name: str, phase: str) -> None:
        """A context manager: once it is entered."""
        real = getattr(place, name)

        @contextmanager
        def called(*args: Any, **more: Any) -> Iterator[Any]:
            with real(*args, **more) as thing:
                self.passes(phase)
                yield thing

        setattr(place, name, called)

    def underway(self, place: Any, name: str, phase: str, *, ended: bool = False) -> None:
        """A generator: before it does anything, or when it has done all of it."""
        real = getattr(place, name)

        def called(*args: Any, **more: Any) -> Any:
            if not ended:
                self.passes(phase)
            result = yield from real(*args, **more)
            if ended:
                self.passes(phase)
            return result

        setattr(place, name, called)

    def each(self, place: Any, name: str, phase: str) -> None:
        """An iterator: whenever it gives something."""
        real = getattr(place, name)
        setattr(place, name, lambda *args: self.passing(phase, real(*args)))

    def passing(self, phase: str, found: Iterable[Any]) -> Iterator[Any]:
        for thing in found:
            self.passes(phase)
            yield thing


# ---- written ---------------------------------------------------------------------------------------------------------


def _dumped(gates: Gates, mutant: str) -> None:
    feed = store.Part.feed

    def fed(self: Any, chunks: Iterable[bytes], **more: Any) -> Any:
        return feed(self, gates.passing("writing", chunks), **more)

    gates.before(backup_copy, "connect", "scratch file")
    gates.entered(streams, "snapshot", "moment")
    gates.entered(my_streams, "_nobody_commits", "moment")
    gates.before(unfinished.Marker, "_write", "marker")
    gates.after(store.Part, "_begin", "begun")
    gates.after(store.Part, "place", "begun")
    put(store.Part, feed=fed)
    gates.each(pump, "blocks", "writing")
    gates.each(sinks.Through, "pull", "writing")
    gates.after(spread.Program, "__init__", "writing")
    for place, name in ((sinks.Disk, "finish"), (spread, "take")):
        gates.before(place, name, "written")
        gates.after(place, name, "flushed")
    system = System()
    gates.before(system, "replace", "manifest half", lambda old, new: new.endswith(MANIFEST))
    put(durable, os=system)
    system = System()
    put(store, os=system)
    gates.after(system, "rename", "renamed")
    gates.after(store, "write_manifest", "manifest there")
    if mutant == MANIFEST_FIRST:
        _swap(store)
    if mutant == PREVIOUS_FIRST:
        put(store, part=_before_it(store.part))


def _swap(place: Any) -> None:
    """The manifest is there before the files have their names."""
    rename, tell, waiting = place.os.rename, place.write_manifest, list[tuple[Any, ...]]()

    def told(backup: Any) -> None:
        tell(backup)
        for words in waiting:
            rename(*words)

    put(place.os, rename=lambda *words: waiting.append(words))
    put(place, write_manifest=told)


def _before_it(part: Callable[..., Any]) -> Callable[..., Any]:
    """What was there is removed to make room, as scripts do."""

    def begun(task: Any) -> Any:
        for backup in backups.look(Sheltered(task.manner.folder)).backups:
            backups.remove(backup)
        return part(task)

    return begun


# ---- verified, copied ------------------------------------------------------------------------------------------------


def _verified(gates: Gates) -> None:
    amend = backups.amend

    def amended(backup: Any, **more: Any) -> Any:
        if more.get("level"):
            gates.passes("verifying")
        result = amend(backup, **more)
        if more.get("level"):
            gates.passes("verified")
        if more.get("copies"):
            gates.passes("copied")
        return result

    put(backups, amend=amended)
    gates.entered(reader, "opened", "reading")
    gates.after(feeding.Fed, "__init__", "reading")


def _copied(gates: Gates) -> None:
    system = System()
    put(folder, os=system)
    gates.after(folder, "copy_file", "copying")
    gates.after(system, "rename", "copy renamed")
    gates.after(folder, "write_manifest", "copy there")


# ---- restored, tried out ---------------------------------------------------------------------------------------------


def _restored(gates: Gates) -> None:
    gates.after(feeding.Fed, "__init__", "loading")
    _restored_by_postgresql(gates)
    gates.before(my_restoring, "mark", "founded")
    gates.underway(my_restoring, "load", "made")
    gates.before(my_restoring, "compare", "comparing")
    gates.after(my_restoring, "compare", "complete")
    gates.underway(drilling, "proven", "comparing")
    gates.underway(drilling, "checked", "comparing")
    gates.underway(prepared, "_made_consistent", "preparing")
    gates.after(my_throwaway.Throwaway, "__init__", "folder")
    gates.underway(my_throwaway.Throwaway, "start", "started", ended=True)
    gates.underway(backup_restore, "compared", "comparing")
    gates.after(backup_restore, "_place", "complete")


def _restored_by_postgresql(gates: Gates) -> None:
    gates.before(interim, "literal", "founded")
    for place in (restoring, drill):
        gates.entered(place, "founded", "made")
    gates.underway(restoring, "compared", "comparing")
    gates.after(restoring, "_name", "complete")
    gates.underway(drill, "matched", "comparing")
    gates.before(throwaway, "initdb", "folder")
    gates.entered(throwaway, "started", "started")
    gates.underway(physical, "filled", "loading", ended=True)
    gates.underway(physical, "amcheck", "comparing")


# ---- rotated ---------------------------------------------------------------------------------------------------------


def _rotated(gates: Gates, mutant: str) -> None:
    system = System()
    put(backups, os=system)
    gates.after(system, "rename", "marked")
    gates.after(unfinished, "_remove_at", "deleted")
    gates.after(unfinished, "empty", "emptied")
    gates.after(copies, "remove", "copy gone")
    if mutant == FILES_FIRST:
        put(backups, remove=_files_first(backups.remove))


def _files_first(remove: Callable[..., Any]) -> Callable[..., Any]:
    def removed(backup: Any) -> Any:
        unfinished.take_away(backup.folder, [file.name for file in backup.files], last="")
        return remove(backup)

    return removed
