# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The backup folder as an engine: for what needs no server at all, such as rotation. Neither SQL nor a login."""

from __future__ import annotations

import os
import socket
import threading
import time
import typing as t
from contextlib import contextmanager
from datetime import datetime

from ..._errors import Held, Refused
from ..._records import Database, DatabaseInfo, Execution, Server, Step, Wants, Work
from ..._tasks import Cure, Task
from .. import filing

if t.TYPE_CHECKING:
    from ..._health import Health

_POLL = 0.1  # seconds between two tries for the lock
_PATIENCE = 30.0  # seconds, however little a run wants to wait for others


class Session:
    """Nothing is open; it can be stopped."""

    def __init__(self, database: str) -> None:
        self.database = database
        self.stopped = threading.Event()

    def cancel(self) -> None:
        self.stopped.set()


class Backups:
    """The folder that the option `backup_dir` names."""

    selects = True
    one_writer = False

    def __init__(self, params: t.Mapping[str, t.Any], execution: Execution) -> None:
        self.engine, self.folder = params["engine"], params["backup_dir"]
        self._sessions: set[Session] = set()
        self._stopped = False

    def greet(self) -> Server:
        return Server(
            engine=self.engine,
            version="",
            number=(),
            address=f"{self.folder} on {socket.gethostname()}",
            role="primary",
            now=datetime.now().astimezone(),
            databases=(DatabaseInfo(""),),
        )

    @contextmanager
    def session(self, database: str) -> t.Iterator[Session]:
        session = Session(database)
        self._sessions.add(session)
        if self._stopped:
            session.cancel()
        try:
            yield session
        finally:
            self._sessions.discard(session)

    def measure(self, session: Session, wants: Wants, server: Server) -> Database:
        """The frame looks into the folder itself."""
        return Database(session.database)

    def health(self, session: Session, server: Server) -> Health:
        raise Refused("a folder has no health of its own")

    def gauge(self, session: Session, name: str, step: Step) -> float | None:
        return None

    def spell(self, task: Cure, server: Server) -> t.Sequence[str]:
        return filing.spell(task)

    def carry_out(self, session: Session, task: Task, server: Server, cursor: str | None) -> Work:
        return filing.carry_out(session, task)

    @contextmanager
    def guard(self, databases: t.Sequence[str], wait: float) -> t.Iterator[None]:
        """One rotation at a time: a lock on the folder itself, so that nothing is made. Raises Held.

        Several hosts of a fleet may share the folder: rotation is short, and so it is waited for. A backup that is
        written meanwhile needs none: rotation knows nothing of it until it has a manifest.
        """
        import fcntl

        try:
            descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # nothing can be removed there either, and each step will say why
            yield
            return
        until = time.monotonic() + max(wait, _PATIENCE)
        try:
            while not _locked(fcntl, descriptor):
                if time.monotonic() >= until or self._stopped:
                    raise Held(f"another run is at work in {self.folder}")
                time.sleep(_POLL)
            yield
        finally:
            os.close(descriptor)

    def silence(self) -> float:
        return 0.0

    def answers(self) -> bool:
        return True

    def cancel(self) -> None:
        self._stopped = True
        for session in list(self._sessions):
            session.cancel()

    def close(self) -> None:
        self.cancel()


def _locked(fcntl: t.Any, descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks keeps nobody out
        return True
    return True
