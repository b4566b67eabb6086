# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer in front of a PostgreSQL server, for tests of what a pooler breaks."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path

from .installations import pgbouncer_program
from .logs import Logged
from .postgresql import PostgreSQL
from .processes import give_away

CONFIGURATION = """\
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
unix_socket_dir = {run_dir}
auth_type = scram-sha-256
auth_file = {users}
admin_users = {user}
pool_mode = {pool_mode}
max_client_conn = 100
default_pool_size = 20
ignore_startup_parameters = extra_float_digits,options
"""


class PgBouncer(PostgreSQL):
    """A pooler: clients see the server behind it (`upstream`), with its user and password."""

    stop_signal = signal.SIGTERM
    drop_signal = signal.SIGKILL

    def __init__(self, upstream: PostgreSQL, *, name: str, home: Path, pool_mode: str) -> None:
        self.program = pgbouncer_program()
        super().__init__(name=name, home=home, installation=upstream.installation, password=upstream.password)
        self.user = upstream.user
        self.upstream = upstream
        self.pool_mode = pool_mode
        self.settings = {}

    def create(self) -> None:
        self.start()

    def configure(self) -> None:
        """Nothing to do before the port is known: see `_command()`."""

    def _command(self) -> Sequence[str]:
        users, options = self.home / "users.txt", self.home / "pgbouncer.ini"
        for path, text in ((users, f'"{self.user}" "{self.password}"\n'), (options, self._options(users))):
            path.touch(mode=0o600)
            path.write_text(text)
            give_away(path)
        return [str(self.program), str(options)]

    def _options(self, users: Path) -> str:
        return CONFIGURATION.format(
            host=self.upstream.host,
            port=self.upstream.port,
            own_port=self.port,
            run_dir=self.run_dir,
            users=users,
            user=self.user,
            pool_mode=self.pool_mode,
        )

    def _ready(self, _pid: int) -> bool:
        said = self._said()
        if "already in use" in said:
            # It would go on with its unix socket alone.
            self.kill()
            return False
        return "process up:" in said

    def logged(self) -> list[Logged]:
        """Give the statements that reached the server behind it."""
        return self.upstream.logged()

    def mark_log(self) -> None:
        self.upstream.mark_log()
