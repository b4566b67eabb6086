# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server as tests see it: started, stopped, killed, its statement log read. No product's details."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from .errors import FleetError
from .installations import Installation
from .logs import Logged
from .processes import born, free_port, give_away, kill_family, send, spawn, wait_gone

START_TIMEOUT = 60.0
# Statements of the fleet's own clients carry this application name.
APPLICATION = "fleet"
RECORD = "server.json"


class Server(ABC):
    """A real server on loopback, whose files all lie in one folder."""

    engine: ClassVar[str]
    # Ends the server in good order without waiting for its clients; and fast, when nobody needs its files any more.
    stop_signal: ClassVar[signal.Signals]
    drop_signal: ClassVar[signal.Signals]

    def __init__(self, *, name: str, home: Path, installation: Installation, user: str, password: str) -> None:
        self.name = name
        self.home = home
        self.installation = installation
        self.version = installation.version
        self.bin_dir = installation.bin_dir
        self.user = user
        self.password = password
        self.host = "127.0.0.1"
        self.port = 0
        self.data_dir = home / "data"
        self.log_file = home / "server.log"
        self.run_dir = home / "run"
        self.ca_cert: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = 0
        self._since = 0
        for folder in (home, self.data_dir, self.run_dir):
            folder.mkdir(mode=0o755, exist_ok=True)
            give_away(folder)

    def __repr__(self) -> str:
        return f"<{self.installation.product} {self.version} {self.name} at {self.host}:{self.port}>"

    # What each product answers for itself.

    @property
    @abstractmethod
    def socket(self) -> Path:
        """The unix socket, as clients name it: its folder on PostgreSQL, the file itself on MySQL and MariaDB."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Give the command line of the server in the foreground."""

    @abstractmethod
    def _ready(self, _pid: int) -> bool:
        """Tell whether the server takes connections."""

    @abstractmethod
    def sql(
        self, statement: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        """Execute one statement and give its rows; FleetError with what the server said.

        Values are text as the client program prints it: NULL is "" on PostgreSQL, "NULL" on MySQL and MariaDB.
        """

    @abstractmethod
    def script(
        self, text: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        """Execute many statements, each by itself, up to the first error."""

    @abstractmethod
    def logged(self) -> list[Logged]:
        """Give the statements that the server was asked to execute since `mark_log()`, from its own log."""

    # What all have in common.

    def login(self) -> dict[str, str | int]:
        """Give the connection options of the collection's modules."""
        return {
            "engine": self.engine,
            "login_host": self.host,
            "login_port": self.port,
            "login_user": self.user,
            "login_password": self.password,
        }

    @property
    def running(self) -> bool:
        """Whether the server's main process lives."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The main process; FleetError when it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise FleetError(f"{self!r} is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it takes connections; its port, once chosen, stays."""
        chosen = self.port
        for _attempt in range(20):
            if self.running:
                return
            self.port = chosen or free_port()
            self._since = self.log_file.stat().st_size if self.log_file.exists() else 0
            self._process = spawn(self._command(), log=self.log_file)
            self._record(self._process.pid)
            if self._came_up(self._process):
                return
            said = self._said()
            if not ("ddress already in use" in said or "port already in use" in said):
                raise FleetError(f"{self!r} did not start:\n{said[-4000:]}")
            # Another process was faster; a port that clients know is waited for.
            time.sleep(0.25 if chosen else 0)
        raise FleetError(f"{self!r} found its port taken again and again")

    def _came_up(self, process: subprocess.Popen[bytes]) -> bool:
        end = time.monotonic() + START_TIMEOUT
        while process.poll() is None:
            if self._ready(process.pid):
                return True
            if time.monotonic() > end:
                self.kill()
            time.sleep(0.01)
        return False

    def _record(self, pid: int) -> None:
        """Write down which process this is, for whoever has to clean up after us."""
        # With the folder itself: only a process started for it is ever ended.
        facts = {"pid": pid, "born": born(pid), "folder": str(self.home)}
        (self.home / RECORD).write_text(json.dumps(facts))

    def stop(self) -> None:
        """End the server in good order, disconnecting its clients."""
        if self._process is not None and self.running:
            send(self._process.pid, self.stop_signal)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """SIGKILL all processes of the server, as a crash of the machine would."""
        if self._process is not None and self.running:
            kill_family(self._process.pid)
            self._process.wait(30)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def drop(self) -> None:
        """Begin to end a server whose files are not needed any more, without waiting (`kill()` does that)."""
        if self._process is not None and self.running:
            send(self._process.pid, self.drop_signal)

    def dropped(self) -> None:
        """Wait for the end that `drop()` began."""
        if self._process is not None:
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def mark_log(self) -> None:
        """Let `statements()` and `logged()` begin here."""
        path = self._statement_log()
        self._mark = path.stat().st_size if path.exists() else 0

    def statements(self, *, own: bool = True) -> list[str]:
        """Give the text of `logged()`; `own=False` leaves out what this object's own `sql()` and `script()` sent."""
        return [entry.statement for entry in self.logged() if own or entry.application != APPLICATION]

    def _statement_log(self) -> Path:
        return self.log_file

    def _said(self) -> str:
        """Give what the server has written since its last start."""
        return self._log_text(self._since)

    def _log_text(self, start: int = 0, end: int | None = None, *, path: Path | None = None) -> str:
        with (path or self.log_file).open("rb") as log:
            log.seek(start)
            return log.read(-1 if end is None else end - start).decode(errors="replace")


def end_recorded(home: Path) -> None:
    """End a server that an earlier process left behind, if the process named in its folder is still that server."""
    try:
        facts = json.loads((home / RECORD).read_text())
        pid, since, folder = int(facts["pid"]), str(facts["born"]), str(facts["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    command = Path(f"/proc/{pid}/cmdline")
    try:
        ours = folder == str(home) and f"{home}/".encode() in command.read_bytes()
    except OSError:
        return
    if ours and since and born(pid) == since:
        send(pid, signal.SIGQUIT)
        if not wait_gone(pid, timeout=5):
            kill_family(pid)
