# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A line to a server that breaks in the middle: a TCP proxy that drops connections. No test lives here."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from typing import Self
from urllib.parse import urlsplit


class Breaking:
    """Passes bytes on; when `after` bytes went to the server, the connection that carries the next one is reset.

    So it goes `times` times; from the second time on, at once. `back`: counted is what comes from the server instead.
    `hide`: a header that the client never sees.
    """

    def __init__(self, url: str, *, after: int = 0, times: int = 0, hide: bytes = b"", back: bool = False) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._left, self._times, self._back, self.broken = after, times, back, 0
        self._hide, self.hidden = re.compile(re.escape(hide), re.IGNORECASE) if hide else None, 0
        self._lock, self._open = threading.Lock(), True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._open = False
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while self._open:
            try:
                client, _address = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError), socket.create_connection(self._server) as server:
            back = threading.Thread(target=self._pass, args=(server, client, self._back), daemon=True)
            back.start()
            self._pass(client, server, not self._back)
            back.join()

    def _pass(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if counted and self._breaks(len(data)):
                    for end in (source, target):  # a reset: nothing that is under way arrives
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        end.shutdown(socket.SHUT_RD)
                    return
                if self._hide and source.getpeername() == self._server:
                    data, found = self._hide.subn(lambda name: b"x" * len(name.group()), data)
                    self.hidden += found
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def _breaks(self, size: int) -> bool:
        with self._lock:
            self._left -= size
            if self._left >= 0 or self.broken >= self._times:
                return False
            self.broken += 1
            return True
