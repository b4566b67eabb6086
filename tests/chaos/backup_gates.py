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
    pump,
    reader,
    sinks,
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
RESTORED = ("folder", "made", "loading", "preparing", "started", "comparing", "complete")
ROTATED = ("marked", "deleted", "emptied", "copy gone")
PHASES = (*DUMPED, *VERIFIED, *COPIED, *RESTORED, *ROTATED)
MANIFEST_FIRST, PREVIOUS_FIRST, FILES_FIRST = "manifest first", "previous deleted first", "files before the marker"
MUTANTS = (MANIFEST_FIRST, PREVIOUS_FIRST, FILES_FIRST)


def arm(gate: Gate, mutant: str = "") -> None:
    """Only ever in a child."""
    # Small tables are dumped by streams of their own.
    put(backup_streams, LEAST=1 << 20, WORTH=2 << 20)
    _dumped(gate, mutant)
    _verified(gate)
    _copied(gate)
    _restored(gate)
    _rotated(gate, mutant)


class _System:
    """The module os as a module of the product sees it, with something before or after some of its functions."""

    def __init__(self, **things: Callable[..., Any]) -> None:
        self.__dict__.update(things)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def _after(gate: Gate, phase: str, real: Callable[..., Any], when: Callable[..., Any] = lambda *a, **k: True) -> Any:
    def called(*args: Any, **more: Any) -> Any:
        result = real(*args, **more)
        if when(*args, **more):
            gate.passes(phase)
        return result

    return called


def _before(gate: Gate, phase: str, real: Callable[..., Any], when: Callable[..., Any] = lambda *a, **k: True) -> Any:
    def called(*args: Any, **more: Any) -> Any:
        if when(*args, **more):
            gate.passes(phase)
        return real(*args, **more)

    return called


def _entered(gate: Gate, phase: str, real: Callable[..., Any]) -> Any:
    """A context manager: once it is entered."""

    @contextmanager
    def called(*args: Any, **more: Any) -> Iterator[Any]:
        with real(*args, **more) as thing:
            gate.passes(phase)
            yield thing

    return called


def _underway(gate: Gate, phase: str, real: Callable[..., Any], *, ended: bool = False) -> Any:
    """A generator: before it does anything, or when it has done all of it."""

    def called(*args: Any, **more: Any) -> Any:
        if not ended:
            gate.passes(phase)
        result = yield from real(*args, **more)
        if ended:
            gate.passes(phase)
        return result

    return called


def _each(gate: Gate, phase: str, found: Iterable[Any]) -> Iterator[Any]:
    for thing in found:
        gate.passes(phase)
        yield thing


# ---- written ---------------------------------------------------------------------------------------------------------


def _dumped(gate: Gate, mutant: str) -> None:
    feed, blocks, pull, finish = store.Part.feed, pump.blocks, sinks.Through.pull, sinks.Disk.finish

    def fed(self: Any, chunks: Iterable[bytes], **more: Any) -> Any:
        return feed(self, _each(gate, "writing", chunks), **more)

    def finished(self: Any) -> None:
        gate.passes("written")
        finish(self)
        gate.passes("flushed")

    put(backup_copy, connect=_before(gate, "scratch file", backup_copy.connect))
    put(streams, snapshot=_entered(gate, "moment", streams.snapshot))
    put(my_streams, _nobody_commits=_entered(gate, "moment", my_streams._nobody_commits))
    put(store.Part, _begin=_after(gate, "begun", store.Part._begin), feed=fed)
    put(pump, blocks=lambda fd: _each(gate, "writing", blocks(fd)))
    put(sinks.Through, pull=lambda self, fd: _each(gate, "writing", pull(self, fd)))
    put(sinks.Disk, finish=finished)
    put(
        durable, os=_System(replace=_before(gate, "manifest half", os.replace, lambda old, new: new.endswith(MANIFEST)))
    )
    renamed, told = _after(gate, "renamed", os.rename), _after(gate, "manifest there", store.write_manifest)
    if mutant == MANIFEST_FIRST:
        renamed, told = _swapped(renamed, told)
    put(store, os=_System(rename=renamed), write_manifest=told)
    if mutant == PREVIOUS_FIRST:
        put(store, part=_before_it(store.part))


def _swapped(rename: Callable[..., Any], tell: Callable[..., Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The manifest is there before the files have their names."""
    waiting: list[tuple[Any, ...]] = []

    def told(backup: Any) -> None:
        tell(backup)
        for words in waiting:
            rename(*words)

    return lambda *words: waiting.append(words), told


def _before_it(part: Callable[..., Any]) -> Callable[..., Any]:
    """What was there is removed to make room, as scripts do."""

    def begun(task: Any) -> Any:
        for backup in backups.look(Sheltered(task.manner.folder)).backups:
            backups.remove(backup)
        return part(task)

    return begun


# ---- verified, copied ------------------------------------------------------------------------------------------------


def _verified(gate: Gate) -> None:
    amend, begin = backups.amend, feeding.Fed.__init__

    def amended(backup: Any, **more: Any) -> Any:
        if more.get("level"):
            gate.passes("verifying")
        result = amend(backup, **more)
        if more.get("level"):
            gate.passes("verified")
        if more.get("copies"):
            gate.passes("copied")
        return result

    def begun(self: Any, *args: Any, **more: Any) -> None:
        begin(self, *args, **more)
        gate.passes("reading")
        gate.passes("loading")

    put(backups, amend=amended)
    put(feeding.Fed, __init__=begun)
    put(reader, opened=_entered(gate, "reading", reader.opened))


def _copied(gate: Gate) -> None:
    put(copies, _copy_file=_after(gate, "copying", copies._copy_file))
    put(copies, os=_System(rename=_after(gate, "copy renamed", os.rename)))
    put(copies, write_manifest=_after(gate, "copy there", copies.write_manifest))


# ---- restored, tried out ---------------------------------------------------------------------------------------------


def _restored(gate: Gate) -> None:
    for place in (restoring, drill):
        put(place, founded=_entered(gate, "made", place.founded))
    put(restoring, compared=_underway(gate, "comparing", restoring.compared))
    put(restoring, _name=_after(gate, "complete", restoring._name))
    put(drill, matched=_underway(gate, "comparing", drill.matched))
    put(throwaway, initdb=_before(gate, "folder", throwaway.initdb))
    put(throwaway, started=_entered(gate, "started", throwaway.started))
    put(physical, filled=_underway(gate, "loading", physical.filled, ended=True))
    put(physical, amcheck=_underway(gate, "comparing", physical.amcheck))

    put(my_restoring, load=_underway(gate, "made", my_restoring.load), compare=_comparing(gate, my_restoring.compare))
    put(drilling, proven=_underway(gate, "comparing", drilling.proven))
    put(drilling, checked=_underway(gate, "comparing", drilling.checked))
    put(prepared, _made_consistent=_underway(gate, "preparing", prepared._made_consistent))
    kind = my_throwaway.Throwaway
    put(kind, __init__=_after(gate, "folder", kind.__init__), start=_underway(gate, "started", kind.start, ended=True))

    put(backup_restore, poured=_underway(gate, "loading", backup_restore.poured, ended=True))
    put(backup_restore, compared=_underway(gate, "comparing", backup_restore.compared))
    put(backup_restore, _place=_after(gate, "complete", backup_restore._place))


def _comparing(gate: Gate, real: Callable[..., Any]) -> Callable[..., Any]:
    return _after(gate, "complete", _before(gate, "comparing", real))


# ---- rotated ---------------------------------------------------------------------------------------------------------


def _rotated(gate: Gate, mutant: str) -> None:
    put(backups, os=_System(rename=_after(gate, "marked", os.rename)))
    put(unfinished, _remove_at=_after(gate, "deleted", unfinished._remove_at))
    put(unfinished, empty=_after(gate, "emptied", unfinished.empty))
    put(copies, remove=_after(gate, "copy gone", copies.remove))
    if mutant == FILES_FIRST:
        put(backups, remove=_files_first(backups.remove))


def _files_first(remove: Callable[..., Any]) -> Callable[..., Any]:
    def removed(backup: Any) -> Any:
        unfinished.take_away(backup.folder, [file.name for file in backup.files], last="")
        return remove(backup)

    return removed
