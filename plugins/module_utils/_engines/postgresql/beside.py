# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two questions to one server at once: one in a thread of its own. No SQL. Whose sessions they are: Session.twin()."""

from __future__ import annotations

import threading
import typing as t

A = t.TypeVar("A")
B = t.TypeVar("B")


def both(here: t.Callable[[], A], there: t.Callable[[], B]) -> tuple[A, B]:
    """The answers of both, the second from a thread. Raises the fault of either, when both have ended.

    The thread is left behind at the end of the process: the one that waits for it may have been, too (watch.py).
    """
    found: list[B] = []
    faults: list[BaseException] = []

    def elsewhere() -> None:
        try:
            found.append(there())
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    try:
        mine = here()
    finally:
        thread.join()
    if faults:
        raise faults[0]
    return mine, found[0]
