# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PgBouncer in between is recognised and refused; a tunnel is not taken for one."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref, Refused, Vacuum
from tests.fleet import Fleet, Server
from tests.fleet.processes import free_port, give_away, spawn

from .conftest import Pool, missing
from .pg import client, use

Make = Callable[[Server], str]


@pytest.fixture(params=["strict", "lenient"])
def bouncer(request: pytest.FixtureRequest, fleet: Fleet, pool: Pool) -> Iterator[tuple[Server, int]]:
    """PgBouncer in transaction mode before PostgreSQL 15: one that refuses our settings, and one that swallows them."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        missing("pgbouncer: apt-get install pgbouncer")
    server = pool.get("postgresql-15")
    folder = fleet.folder(f"bouncer-{request.param}")
    give_away(folder)
    port = free_port()
    users = folder / "users.txt"
    users.write_text(f'"{server.user}" "{server.password}"\n')
    config = folder / "pgbouncer.ini"
    ignored = "ignore_startup_parameters = options, extra_float_digits\n" if request.param == "lenient" else ""
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {users}\n"
        f"pool_mode = transaction\ndefault_pool_size = 3\nserver_tls_sslmode = disable\n{ignored}"
    )
    process = spawn([program, str(config)], log=folder / "log")
    try:
        for _turn in range(100):
            try:
                with client(server, "postgres", port=port):
                    break
            except Exception:
                time.sleep(0.05)
        yield server, port
    finally:
        process.terminate()
        process.wait(10)


def test_a_pooler_is_recognised(bouncer: tuple[Server, int], database: Make) -> None:
    server, port = bouncer
    name = database(server)
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 3000) AS id", database=name)
    with use(server, login_port=port) as pg:
        assert "pooler" in pg.server.lacks["session"]
        assert [f.code for f in pg.server.findings] == ["pooler"]
        assert pg.table(name, "t").missing_statistics == "the table", "reading goes on"
        with pytest.raises(Refused, match="pooler"):
            pg.carry_out(Vacuum(Ref(name, ("public", "t"))))
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
