# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer in between is recognised and refused; a tunnel is not taken for one."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Vacuum
from tests.fleet import Fleet, Missing, PostgreSQL, Server, pgbouncer

from .conftest import Pool, missing
from .pg import use

Make = Callable[[Server], str]


@pytest.mark.parametrize("kind", ["transaction", "transaction strict", "session"])
def test_a_pooler_is_recognised(
    fleet: Fleet, pool: Pool, database: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One that swallows our settings, and one that refuses a connection for them (PgBouncer's default)."""
    server = pool.get("postgresql-15")
    if "strict" in kind:
        lines = [line for line in pgbouncer.CONFIGURATION.splitlines() if not line.startswith("ignore_startup")]
        monkeypatch.setattr(pgbouncer, "CONFIGURATION", "\n".join(lines))
    try:
        between = fleet.pgbouncer(cast(PostgreSQL, server), pool_mode=kind.split(maxsplit=1)[0])
    except Missing as why:
        missing(why)
    name = database(server)
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 3000) AS id", database=name)
    with use(between) as pg:
        assert "pooler" in pg.server.lacks["session"]
        assert [f.code for f in pg.server.findings] == ["pooler"]
        assert pg.table(name, "t").missing_statistics == "the table", "reading goes on"
        with pytest.raises(Refused, match="pooler"):
            pg.carry_out(Vacuum(Ref(name, ("public", "t"))))
    between.stop()
    with use(server) as pg:
        assert "session" not in pg.server.lacks


def test_port_forwarding_is_no_pooler(pool: Pool) -> None:
    """Bytes that are only passed on (NAT, a tunnel, kubectl port-forward) keep the handshake whole."""
    server = pool.get("postgresql-16")
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            target.sendall(data)
        target.close()

    def serve() -> None:
        while True:
            try:
                near, _address = listener.accept()
            except OSError:
                return
            far = socket.create_connection((server.host, server.port))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=lambda p: _quietly(pump, *p), args=(pair,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with use(server, login_port=listener.getsockname()[1]) as pg:
        assert "session" not in pg.server.lacks
        assert pg.server.settings["here"] is True, "the process is named after the forwarder's own connection"
    listener.close()


def _quietly(what: Callable[..., None], *args: Any) -> None:
    try:
        what(*args)
    except OSError:
        return
