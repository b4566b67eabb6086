# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive files that are there already: what dead runs left unfinished, and what has reached the end of its time."""

from __future__ import annotations

import os
import typing as t
from contextlib import suppress
from datetime import datetime

from .._errors import Busy, Refused
from .._records import Amount
from .._retention import Files, Pending
from . import durable
from .finish import finish
from .manifest import (
    MANIFEST,
    PARTIAL,
    PENDING,
    Entry,
    Manifest,
    State,
    moment,
    pending_text,
    read_manifest,
    read_pending,
)
from .names import is_of


class Wreck:
    """The files of a step that died."""

    def __init__(self, paths: t.Sequence[str], state: State | None, files: t.Sequence[str]) -> None:
        self._paths, self._state, self._files = paths, state, files  # the note, or strays; its data files
        self.pending: Pending | None = None
        if state and self._doubtful(state):
            self.pending = Pending(state.mark, state.keys)

    def keep(self) -> None:
        """The last bite was committed: all of it is finished; or, without a doubt, what is sure. Raises Refused."""
        self._settle(last=self.pending is not None)

    def cut(self) -> None:
        """The last bite was not committed: the rest is finished. Raises Refused."""
        self._settle(last=False)

    def _doubtful(self, state: State) -> bool:
        """What is shorter than the note says was never flushed, and nothing is committed before put() has returned."""
        changed = [entry for entry in state.entries if entry.sure != entry.maybe]
        return bool(changed) and all(self._size(entry) >= entry.maybe.bytes for entry in changed)

    def _size(self, entry: Entry) -> int:
        path = os.path.join(os.path.dirname(self._paths[0]), entry.name + PARTIAL)
        try:
            return os.stat(path, follow_symlinks=False).st_size
        except FileNotFoundError:
            return -1

    def _settle(self, *, last: bool) -> None:
        with durable.refusing(f"{self._paths[0]} could not be finished"):
            locks = _take(self._files)
            if locks is None:
                raise Busy(f"{self._paths[0]} is being finished by another run")
            try:
                if self._state is None:
                    _clear(self._paths)
                    return
                state = self._state.settled(last=last)
                # From here on it is a matter of finishing: no later run asks, or decides otherwise.
                if state != self._state:
                    durable.replace(self._paths[0], pending_text(state))
                finish(self._paths[0], state, verify=True)
            finally:
                for fd in locks:
                    os.close(fd)


def _clear(paths: t.Sequence[str]) -> None:
    """Removes what died before its first byte: temporary files, and files without any."""
    for path in paths:
        if path.endswith(PARTIAL) and os.path.getsize(path):
            raise Refused(
                f"{path} has no .pending.json any more: nobody knows which of its rows are still in the table",
                cure="Compare them, then move it away",
            )
        durable.unlink(path)
    durable.sync_folder(os.path.dirname(paths[0]))


def wrecks(folder: str, identity: str, rule: str) -> list[Wreck]:
    """What dead runs of the rule left there; files of a run that lives are not among them. Raises Refused."""
    with durable.refusing(f"the archive in {folder} cannot be read"):
        return [Wreck(*left) for left in _left(folder, identity, rule) if not _lives(left[2])]


def _lives(files: t.Sequence[str]) -> bool:
    """Whether somebody has them. They are not kept: whoever asked may never come to use what was found."""
    locks = _take(files)
    for fd in locks or ():
        os.close(fd)
    return locks is None


def _take(files: t.Sequence[str]) -> list[int] | None:
    """Locks all of them; None: somebody has one. Raises OSError."""
    taken: list[int] = []
    free = False
    try:
        for path in files:
            with suppress(FileNotFoundError):
                taken.append(durable.open_again(path))
        free = all(durable.locked(fd) for fd in taken)
    finally:
        if not free:
            for fd in taken:
                os.close(fd)
    return taken if free else None


def _names(folder: str, identity: str, rule: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if is_of(name, rule, identity))
    except FileNotFoundError:
        return []


def _left(folder: str, identity: str, rule: str) -> t.Iterator[tuple[list[str], State | None, list[str]]]:
    """(its note, or strays; what the note says; data files that are there) of each step that died or lives."""
    names = _names(folder, identity, rule)
    known: set[str] = set()
    for name in names:
        if not name.endswith(PENDING):
            continue
        path = os.path.join(folder, name)
        try:
            state = read_pending(path)
        except FileNotFoundError:  # a run that lives has just ended
            continue
        if (state.identity, state.rule) != (identity, rule):
            continue
        ends = [entry.name + tail for entry in state.entries for tail in (PARTIAL, "")]
        known.update(ends, [end + MANIFEST + durable.TEMPORARY for end in ends], [name + durable.TEMPORARY])
        yield [path], state, [os.path.join(folder, end) for end in ends if os.path.lexists(os.path.join(folder, end))]
    # What died, or is, before its first note. Files of two such runs are not told apart: while one lives, both stay.
    strays = [name for name in names if name not in known and name.endswith((PARTIAL, durable.TEMPORARY))]
    if strays:
        paths = [os.path.join(folder, name) for name in strays]
        yield paths, None, [path for path in paths if path.endswith(PARTIAL)]


def look(folder: str, identity: str, rule: str, before: datetime | None) -> Files:
    """The folder as it is; changes nothing. Never raises: what is wrong is in `why_not`."""
    why_not = durable.why_not(folder)
    unsettled: list[str] = []
    try:
        for paths, _state, files in _left(folder, identity, rule):
            unsettled += [] if _lives(files) else files or paths
        outdated = _outdated(folder, identity, rule, before) if before else []
    except (OSError, Refused) as error:
        return Files(tuple(unsettled), why_not=why_not or str(error))
    return Files(
        unsettled=tuple(unsettled),
        outdated=tuple(os.path.join(folder, manifest.file) for manifest in outdated),
        outdated_rows=sum(manifest.rows for manifest in outdated if not manifest.parent),
        outdated_bytes=sum(manifest.bytes for manifest in outdated),
        why_not=why_not,
    )


def _outdated(folder: str, identity: str, rule: str, before: datetime) -> list[Manifest]:
    """Finished files whose newest row is older; children with their parents, and before them."""
    parents: list[Manifest] = []
    children: list[Manifest] = []
    for name in _names(folder, identity, rule):
        manifest = read_manifest(os.path.join(folder, name)) if name.endswith(MANIFEST) else None
        if manifest is None or manifest.file + MANIFEST != name:
            continue
        if (manifest.identity, manifest.rule) != (identity, rule):
            continue
        if manifest.parent:
            children.append(manifest)
        elif manifest.last == "-infinity" or (moment(manifest.last) or before) < before:
            parents.append(manifest)
    gone = {manifest.file for manifest in parents}
    return [manifest for manifest in children if manifest.parent in gone] + parents


def remove(files: t.Sequence[str]) -> Amount:
    """Removes finished files that look() called outdated, in its order: rows (without children's) and bytes.

    Data first: a manifest without data is found again, data without a manifest never would be. Raises Refused.
    """
    freed = rows = 0
    for path in files:
        with durable.refusing(f"{path} could not be removed"):
            if not os.path.exists(path + MANIFEST):
                if os.path.lexists(path):
                    raise Refused(f"{path} has no manifest any more: it is not removed")
                continue
            manifest = read_manifest(path + MANIFEST)
            if manifest is None:
                raise Refused(f"{path}{MANIFEST} is damaged: the file is not removed")
            durable.unlink(path)
            durable.sync_folder(os.path.dirname(path))
            durable.unlink(path + MANIFEST)
            durable.sync_folder(os.path.dirname(path))
            freed, rows = freed + manifest.bytes, rows + (0 if manifest.parent else manifest.rows)
    return Amount(bytes=freed, rows=rows)
