# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the named replicas lag behind. Each is asked by a session of its own, with the same login."""

from __future__ import annotations

import typing as t

from ..._errors import BadInput, DbFault
from ..._records import Execution
from .connection import Link
from .greeting import replica_status
from .options import Login


class Replicas:
    """Sessions with the replicas, kept open for the run and opened anew where they break. For one thread at a time."""

    def __init__(self, login: Login, execution: Execution) -> None:
        self._login, self._execution = login, execution
        self._open: dict[str, Link] = {}

    def lag(self) -> float | None:
        """Seconds that the slowest lags; None when one cannot be asked, replicates nothing, or does not know."""
        worst = 0.0
        for name in self._execution.replicas:
            seconds = self._lag_of(name)
            if seconds is None:
                return None
            worst = max(worst, seconds)
        return worst if self._execution.replicas else None

    def _lag_of(self, name: str) -> float | None:
        kept = self._open.pop(name, None)
        try:
            if kept is not None:
                try:
                    return self._asked(name, kept)
                except DbFault:
                    pass  # the replica may have been started anew since
            return self._asked(name, Link(_patient(elsewhere(self._login, name)), self._execution))
        except DbFault:
            return None

    def _asked(self, name: str, link: Link) -> float | None:
        try:
            found = [_seconds(row) for row in replica_status(link)]
        except BaseException:
            link.close()
            raise
        self._open[name] = link
        known = [seconds for seconds in found if seconds is not None]
        return max(known) if known and len(known) == len(found) else None

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


def _patient(login: Login) -> Login:
    """A replica that has taken the question and never answers is not waited for without end."""
    return login._replace(arguments={"read_timeout": login.arguments["connect_timeout"], **login.arguments})


def _seconds(row: t.Mapping[str, t.Any]) -> float | None:
    value = row.get("Seconds_Behind_Source", row.get("Seconds_Behind_Master"))
    return None if value is None else float(value)


def elsewhere(login: Login, name: str) -> Login:
    """The same login on `host` or `host:port`; an IPv6 address stands in brackets before its port. Raises BadInput."""
    host, port = name, str(login.arguments.get("port") or 3306)
    if name.startswith("["):
        host, _bracket, rest = name[1:].partition("]")
        port = rest.lstrip(":") or port
    elif name.count(":") == 1:
        host, port = name.split(":")
    if not host or not port.isdigit():
        raise BadInput(f"replicas: {name!r} is not understood", cure="Write host or host:port")
    arguments = {k: v for k, v in login.arguments.items() if k != "unix_socket"}
    return login._replace(arguments={**arguments, "host": host, "port": int(port)}, address=f"{host}:{port}")
