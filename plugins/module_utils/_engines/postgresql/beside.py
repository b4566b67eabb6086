# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two questions to one server at once: one in a thread of its own. No SQL. Whose sessions they are: Session.twin()."""

from __future__ import annotations

import threading
import typing as t

from ..._errors import Gone
from ..._records import Server, Wants
from .session import Session

A = t.TypeVar("A")
B = t.TypeVar("B")


def wanted(wants: Wants, server: Server) -> bool:
    """Not for a look at single objects; nor through a pooler: it may have one connection to the server, and not more.

    Then the second session would wait for the end of the first one, which waits for its answer.
    """
    return not wants.only and "session" not in server.lacks


def both(
    session: Session, twin: Session, here: t.Callable[[Session], A], there: t.Callable[[Session], B]
) -> tuple[A, B]:
    """The answers of both, the second from a thread. Raises the fault of either, when both have ended.

    What the twin loses with its connection is asked again in the first session. The thread is left behind at the end of
    the process: the one that waits for it may have been, too (watch.py).
    """
    found: list[B] = []
    faults: list[BaseException] = []

    def elsewhere() -> None:
        try:
            found.append(there(twin))
        except BaseException as fault:
            faults.append(fault)

    thread = threading.Thread(target=elsewhere, daemon=True)
    thread.start()
    try:
        mine = here(session)
    except BaseException:
        twin.cancel()  # nobody wants its answer any more
        raise
    finally:
        thread.join()
    if faults and not isinstance(faults[0], Gone):
        raise faults[0]
    return mine, found[0] if found else there(session)
