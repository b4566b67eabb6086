# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How archive files get their final names and manifests, in an order that any later run can take up again."""

from __future__ import annotations

import os

from .._errors import Refused
from . import durable
from .manifest import MANIFEST, PARTIAL, Entry, State, manifest_text


def finish(pending: str, state: State, *, verify: bool) -> None:
    """Names what is sure, writes its manifests, and removes the note last. What never got a row vanishes.

    Each step is durable before the next, and is left out where an earlier run did it. `verify`: what was written by a
    run that died is read once more. Raises OSError; Refused where rows that were archived are not there any more.
    """
    folder = os.path.dirname(pending)
    for entry in state.entries:
        _name(folder, entry)
    durable.sync_folder(folder)
    for entry in state.entries:
        path = os.path.join(folder, entry.name)
        if not entry.sure.rows or os.path.exists(path + MANIFEST):
            continue
        if verify and durable.digest(path) != entry.sure.sha256:
            raise _damaged(path, entry, pending)
        durable.replace(path + MANIFEST, manifest_text(state, entry))
    durable.unlink(pending + durable.TEMPORARY)
    durable.unlink(pending)
    durable.sync_folder(folder)


def _name(folder: str, entry: Entry) -> None:
    """The file ends where it is sure to, and has its name."""
    path = os.path.join(folder, entry.name)
    if not entry.sure.rows:
        durable.unlink(path + PARTIAL)
        return
    try:
        fd = durable.open_again(path + PARTIAL)
    except FileNotFoundError:
        if os.path.exists(path):
            return
        raise _damaged(path, entry, path + PARTIAL) from None
    try:
        size = os.fstat(fd).st_size
        if size < entry.sure.bytes:
            raise _damaged(path + PARTIAL, entry, path)
        os.ftruncate(fd, entry.sure.bytes)
        os.fsync(fd)
    finally:
        os.close(fd)
    os.replace(path + PARTIAL, path)


def _damaged(path: str, entry: Entry, pending: str) -> Refused:
    return Refused(
        f"the archive file {path} is damaged or gone: {entry.sure.rows} rows that left {entry.table} were in it",
        cure="Fetch it from a backup of the host; or, to accept the loss, move it and its .pending.json away",
    )
