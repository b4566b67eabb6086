# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which server the connection options name, as the journal names it: without a connection, and without a driver."""

from __future__ import annotations

import os
import re
import socket
import typing as t

from .._selection import Patterns

Takes = t.Callable[[str], bool]


def of_sqlite() -> str:
    return f"sqlite on {socket.gethostname()}"


def addresses(params: t.Mapping[str, t.Any]) -> tuple[str, ...]:
    """The server's name, or, where several hosts are given, what it may be. Raises BadInput."""
    if params["engine"] == "sqlite":
        return (of_sqlite(),)
    if params["engine"] == "postgresql":
        from .postgresql.options import login as of_postgresql

        return _several(of_postgresql(params).address)
    from .mysql.options import address as of_mysql

    return (of_mysql(params),)


def _several(address: str) -> tuple[str, ...]:
    """`a,b:5432` is libpq's way to name two hosts: runs stand under the name of the one that was reached."""
    hosts, _colon, ports = address.rpartition(":")
    if "," not in hosts:
        return (address,)
    names, numbers = hosts.split(","), ports.split(",")
    return tuple(f"{name}:{numbers[min(place, len(numbers) - 1)]}" for place, name in enumerate(names))


def databases(params: t.Mapping[str, t.Any]) -> Takes:
    """Whether the option `databases` takes a database of that name, be it there or not. Raises BadInput."""
    given = [str(pattern) for pattern in params["databases"]]
    if params["engine"] != "sqlite" or given == ["*"]:
        return Patterns(given, "databases").takes
    taken = [_file(pattern) for pattern in given if not pattern.startswith("-")]
    away = [pattern for pattern in given if pattern.startswith("-")]
    without = Patterns(away, "databases") if away else None

    def takes(path: str) -> bool:
        kept = without is None or without.takes(path, os.path.basename(path))
        return kept and (not taken or any(pattern.match(path) for pattern in taken))

    return takes


def _file(pattern: str) -> t.Pattern[str]:
    """Paths and globs as the engine reads them; its files are known by their real paths."""
    plain = re.split(r"[*?]", pattern, maxsplit=1)[0]
    folder = plain if plain == pattern else plain.rpartition("/")[0]
    real = os.path.realpath(folder or "/")
    rest = pattern[len(folder) :] if folder else pattern
    words = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", rest)
    return re.compile(
        re.escape(real.rstrip("/")) + "".join(words.get(p, re.escape(p)) for p in parts) + r"\Z", re.DOTALL
    )
