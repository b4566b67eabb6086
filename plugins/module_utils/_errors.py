# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one hierarchy of errors, caught once in the frame. Beside _records.py on the bottom shelf."""

from __future__ import annotations

LONGEST_CAUSE = 2000  # characters: a server's own functions may say a megabyte


def _brief(cause: str) -> str:
    words = " ".join(cause[: 2 * LONGEST_CAUSE].split())
    return words if len(words) <= LONGEST_CAUSE else f"{words[:LONGEST_CAUSE]} …"


class DbFault(Exception):
    """Every error that we raise on purpose: cause, and what to do about it. The frame adds the server's address."""

    def __init__(self, cause: str, *, database: str = "", obj: str = "", cure: str = "") -> None:
        super().__init__(cause)
        self.cause, self.database, self.obj, self.cure = _brief(cause), database, obj, cure

    def __str__(self) -> str:
        where = ", ".join(p for p in (self.database and f"database {self.database}", self.obj) if p)
        return (f"{where}: " if where else "") + self.cause.rstrip(". ") + (f". {self.cure}" if self.cure else "")


class BadInput(DbFault):
    """The user's options cannot be meant; raised before anything is touched."""


class CannotConnect(DbFault):
    """No session: network, password, TLS, no such database."""


class MissingMeans(DbFault):
    """A driver or client program is not there; the cure names the package."""


class Held(DbFault):
    """Another run holds the guard."""


class Busy(DbFault):
    """Lock timeout, deadlock, too many clients: worth trying again, smaller."""


class Gone(DbFault):
    """The connection was lost under way."""


class Refused(DbFault):
    """Privilege, version or state: trying again will not help."""


class Vanished(Refused):
    """What the step is about was dropped or renamed meanwhile: nothing is left to be done, and nothing has failed."""


class Stopped(DbFault):
    """Cancelled by us: the budget's hard stop, a stop file, a signal."""
