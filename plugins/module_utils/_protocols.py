# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an engine and a planner look like to the others. Beside _records.py on the bottom shelf."""

from __future__ import annotations

import typing as t

from ._records import Database, Measured, Plan, Server, Step, Wants, Work
from ._tasks import Cure, Task

if t.TYPE_CHECKING:
    from ._health import Health


class Session(t.Protocol):
    """One connection to one database, used by one step."""

    database: str

    def cancel(self) -> None:
        """Ends what the session is doing; from any thread, and harmless when it does nothing."""


class Engine(t.Protocol):
    """What every engine package offers. Engines know all SQL and every client tool, and no threshold."""

    selects: bool  # greet() lists only what the option `databases` asks for (files), so nobody selects again
    one_writer: bool  # a database takes one writer at a time: one lane a database instead of one a table

    def greet(self) -> Server:
        """Reads version, role, clock, databases and what the server lacks. Raises CannotConnect."""

    def session(self, database: str) -> t.ContextManager[Session]:
        """Opens a session that cannot be cut off by the login's own timeouts. Raises CannotConnect."""

    def measure(self, session: t.Any, wants: Wants, server: Server) -> Database:
        """Reads what `wants` asks for of the session's database, and no more. Only reads."""

    def health(self, session: t.Any, server: Server) -> Health:
        """Reads what concerns the whole server: once, in whichever session there is. Only reads."""

    def gauge(self, session: t.Any, name: str, step: Step) -> float | None:
        """A reading for a Limit, or None when it cannot be known."""

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        """The words of a task: what check mode shows."""

    def carry_out(self, session: t.Any, task: Task, server: Server, cursor: str | None) -> Work:
        """And what runs, by the same words. Raises Busy, Gone, Refused; closing the generator cleans up."""

    def guard(self, databases: t.Sequence[str], wait: float) -> t.ContextManager[None]:
        """Holds the lock of the one writing run for these databases. Raises Held after `wait` seconds."""

    def silence(self) -> float:
        """Seconds for which the question that has waited longest has had no answer; from any thread."""

    def answers(self) -> bool:
        """Whether the server answers a new connection at all, be it with a refusal."""

    def cancel(self) -> None:
        """Ends what every session is doing, and lets nobody begin anything more; from any thread."""

    def close(self) -> None:
        """Ends every session that is still open."""


class Operation(t.Protocol):
    """A planner: a pure module with these functions. OPTIONS is its argument spec."""

    OPTIONS: dict[str, t.Any]

    def policy(self, params: t.Mapping[str, t.Any]) -> t.Any:
        """The user's options, checked and typed. Raises BadInput."""

    def wants(self, policy: t.Any, server: Server) -> Wants: ...

    def doubts(self, policy: t.Any, measured: Measured) -> Wants: ...

    def plan(self, policy: t.Any, measured: Measured) -> Plan: ...
