# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A statement that runs while its step ticks on and can be stopped. What the statement does is of no concern here."""

from __future__ import annotations

import threading
import time
import typing as t

from .connection import Connection

CANCEL_AGAIN = 1.0  # seconds: a cancel that comes before the server has begun is lost
GIVE_UP = 60.0  # seconds until a server that does not end it is left alone


class Underway:
    """One statement in a thread of its own, on a connection that nobody else uses meanwhile."""

    def __init__(self, connection: Connection, statement: str) -> None:
        self._connection = connection
        self._said: list[str] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(statement,), daemon=True)
        self._thread.start()

    def _run(self, statement: str) -> None:
        try:
            self._said = self._connection.run(statement)
        except BaseException as error:
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Whether it has come to its end, waited for that long. Raises what the statement raised."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    @property
    def said(self) -> t.Sequence[str]:
        """What the server said beside the result."""
        return self._said

    def end(self) -> bool:
        """Cancels it where it still runs; whether it has ended. Raises nothing."""
        until = time.monotonic() + GIVE_UP
        while self._thread.is_alive() and time.monotonic() < until:
            self._connection.cancel()
            self._thread.join(CANCEL_AGAIN)
        return not self._thread.is_alive()
