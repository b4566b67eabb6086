# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new data directory as an engine: nobody logs in. How it is filled stands in the room of its own engine."""

from __future__ import annotations

import os
import socket
import typing as t
from contextlib import contextmanager

from ..._errors import Refused
from ..._records import Execution, Server, Work
from ..._tasks import Cure, Restore, Task
from . import Backups, Session


class DataDirectory(Backups):
    """The directory that the option `target_dir` names."""

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        path = str(params.get("path") or "")
        folder = params.get("backup_dir") or os.path.dirname(os.path.dirname(path))
        # Only MariaDB has backups of whole servers; users may call it either.
        engine = "mariadb" if params["engine"] == "mysql" else params["engine"]
        super().__init__({"engine": engine, "backup_dir": folder}, execution)
        self._bin_dir, self._target = str(params.get("bin_dir") or ""), params["target_dir"]

    def greet(self) -> Server:
        server = super().greet()
        address = f"{self._target} on {socket.gethostname()}"
        return server._replace(address=address, settings={"bin_dir": self._bin_dir})

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        if isinstance(task, Restore):
            return list(self._room().spell(task, server))
        return super().spell(task, server)

    def carry_out(self, session: Session, task: Task, server: Server, cursor: str | None) -> Work:
        if isinstance(task, Restore):
            work: Work = self._room().carry_out(session, task, server)
            return work
        return super().carry_out(session, task, server, cursor)

    def _room(self) -> t.Any:
        if self.engine == "mariadb":
            from ..mysql import data_directory as mysql

            return mysql
        if self.engine == "postgresql":
            from ..postgresql import data_directory as postgresql

            return postgresql
        raise Refused(f"{self.engine} has no data directory")

    @contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        """Whoever fills a directory holds its own lock."""
        yield
