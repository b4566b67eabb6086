# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who takes what the role alert sends: a mail host and a web server on loopback, which keep it. No test lives here."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from aiosmtpd.controller import Controller

from tests.fleet.processes import free_port


class Mail(NamedTuple):
    """What came to the mail host."""

    recipients: set[str]
    message: EmailMessage

    @property
    def text(self) -> str:
        """Its only part."""
        (part,) = self.message.iter_parts()
        assert isinstance(part, EmailMessage)
        return str(part.get_content())


class Receivers:
    """A mail host, and a web server where `/500/…` fails, `/hang/…` never answers and everything else is taken."""

    def __init__(self) -> None:
        self.mails: list[Mail] = []
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.ending = threading.Event()
        self.url, self.mail_port = "", 0

    def posted(self, path: str) -> list[dict[str, Any]]:
        """All that came to a path."""
        return [body for where, body in self.posts if where == path]

    def answer(self, environ: dict[str, Any], start: Callable[..., Any]) -> list[bytes]:
        """Of the web server."""
        path, body = environ["PATH_INFO"], environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
        if path.startswith("/hang/"):
            self.ending.wait(60)
        if path.startswith(("/hang/", "/500/")):
            start("500 Internal Server Error", [("Content-Length", "0")])
        else:
            self.posts.append((path, json.loads(body)))
            start("202 Accepted", [("Content-Length", "0")])
        return [b""]

    async def take(self, _server: object, _session: object, envelope: Any) -> str:
        """Of the mail host."""
        found = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(found, EmailMessage)
        self.mails.append(Mail(set(envelope.rcpt_tos), found))
        return "250 taken"


class _Threading(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, *_words: object) -> None:
        """Nothing."""


@contextmanager
def receivers() -> Iterator[Receivers]:
    """Both, until the end of the block."""
    found = Receivers()
    # The name of its method is aiosmtpd's.
    handler = type("Handler", (), {"handle_DATA": found.take})
    mail_host = Controller(handler(), hostname="127.0.0.1", port=free_port())
    web = make_server("127.0.0.1", 0, found.answer, server_class=_Threading, handler_class=_Silent)
    found.url, found.mail_port = f"http://127.0.0.1:{web.server_port}", mail_host.port
    mail_host.start()
    thread = threading.Thread(target=web.serve_forever)
    thread.start()
    try:
        yield found
    finally:
        found.ending.set()
        web.shutdown()
        thread.join()
        web.server_close()
        mail_host.stop()
