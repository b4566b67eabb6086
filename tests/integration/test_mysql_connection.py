# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connecting to MySQL and MariaDB: TLS, sockets, option files, settings of a session, proxies."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, CannotConnect
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Execution, Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._tasks import Analyze
from tests.fleet import Fleet, Missing, MySQL, Server

from .conftest import missing
from .my import fill, use

Secured = dict[str, Any]


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def secured(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[MySQL]:
    """A server with a certificate of the fleet's own authority."""
    try:
        server = fleet.mysql(tls=True) if request.param == "mysql" else fleet.mariadb(tls=True)
    except Missing as why:
        missing(why)
    yield server
    server.stop()


def cipher(server: Server, **params: Any) -> str:
    used = use(server, **params)
    with used.engine.session("") as session:
        return str(session.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")[0][1])


def test_modes(secured: MySQL) -> None:
    authority = str(secured.ca_cert)
    assert cipher(secured, ssl_mode="disable") == ""
    assert cipher(secured)
    assert cipher(secured, ssl_mode="require")
    assert cipher(secured, ssl_mode="verify-ca", ca_cert=authority)
    assert cipher(secured, ssl_mode="verify-full", ca_cert=authority)
    assert cipher(secured, ca_cert=authority, check_hostname=True)


def test_never_weaker_than_asked(secured: MySQL, tmp_path: Path) -> None:
    for mode in ("verify-ca", "verify-full"):  # the system's authorities do not know it
        with pytest.raises(CannotConnect):
            use(secured, ssl_mode=mode)
    stranger = Path("/etc/ssl/certs/ca-certificates.crt")
    if stranger.exists():
        for mode in ("prefer", "require", "verify-ca", "verify-full"):
            with pytest.raises(CannotConnect):
                use(secured, ssl_mode=mode, ca_cert=str(stranger))
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    with pytest.raises(BadInput):
        use(secured, ca_cert=str(broken))
    with pytest.raises(BadInput):
        use(secured, ssl_mode="verify-full", check_hostname=False)


def test_authorities_are_read_by_those_alone_that_ask_them(secured: MySQL, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading them takes longer than all the rest of a connection."""

    def reads(*what: object, **more: object) -> NoReturn:
        raise OSError("the authorities were read")

    monkeypatch.setattr(ssl, "create_default_context", reads)
    assert cipher(secured)
    assert cipher(secured, ssl_mode="require")
    for mode in ("verify-ca", "verify-full"):
        with pytest.raises(BadInput):
            use(secured, ssl_mode=mode, ca_cert=str(secured.ca_cert))


def test_no_tls_on_the_server(fleet: Fleet) -> None:
    try:
        server = fleet.mariadb(settings={"skip_ssl": ""})
    except Missing as why:
        missing(why)
    assert cipher(server) == ""
    with pytest.raises(CannotConnect, match=r"TLS|SSL"):
        use(server, ssl_mode="require")
    server.stop()


def test_socket_and_option_file(mysql: MySQL, tmp_path: Path) -> None:
    by_socket: dict[str, Any] = {"login_host": "", "login_port": None, "login_unix_socket": str(mysql.socket)}
    assert use(mysql, **by_socket).server.address == str(mysql.socket)
    file = tmp_path / "my.cnf"
    file.write_text(
        "!includedir /nowhere\n[mysqld]\nuser=nobody\n[client]\nno-beep\n"
        f"user = {mysql.user}\npassword = '{mysql.password}'\nhost=127.0.0.1\nport={mysql.port}\n"
    )
    nothing: dict[str, Any] = {"login_host": "", "login_port": None, "login_user": None, "login_password": None}
    assert use(mysql, **nothing, config_file=str(file)).server.address == f"127.0.0.1:{mysql.port}"
    with pytest.raises(CannotConnect):  # what is given in options wins
        use(mysql, **{**nothing, "login_password": "wrong"}, config_file=str(file))
    with pytest.raises(BadInput):
        use(mysql, config_file=str(tmp_path / "missing.cnf"))
    file.write_text(f"password={mysql.password}\n[client\n")
    with pytest.raises(BadInput) as fault:
        use(mysql, config_file=str(file))
    assert mysql.password not in str(fault.value)


def test_extra_parameters(mysql: Server) -> None:
    assert use(mysql, connect_params={"read_timeout": 60}).server
    with pytest.raises(BadInput):
        use(mysql, connect_params={"init_command": "DROP DATABASE shop"})


def test_settings_of_a_session(mysql: Server) -> None:
    """Nothing that a login or a server has by default cuts maintenance off."""
    mysql.sql("SET GLOBAL sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'")
    mysql.sql("SET GLOBAL max_join_size = 10")
    mysql.sql("SET GLOBAL wait_timeout = 5")
    mysql.sql("SET GLOBAL time_zone = '+05:00'")
    limit = "max_execution_time" if mysql.engine == "mysql" else "max_statement_time"
    mysql.sql(f"SET GLOBAL {limit} = 1")
    mysql.sql("CREATE DATABASE IF NOT EXISTS strict")
    try:
        mysql.sql("CREATE TABLE strict.t (id int primary key, v varchar(20)) STATS_AUTO_RECALC=0")
        mysql.sql("INSERT INTO strict.t VALUES (1, 'a')")
        used = use(mysql, Execution(lock_timeout=2.5))
        with used.engine.session("strict") as session:
            found = session.rows(
                "SELECT @@sql_mode, @@lock_wait_timeout, @@innodb_lock_wait_timeout, @@wait_timeout,"
                " @@character_set_client"
            )[0]
            assert (found[0], int(found[1]), int(found[2]), found[4]) == ("NO_ENGINE_SUBSTITUTION", 2, 2, "utf8mb4")
            assert found[3] > 86400
            session.rows("SELECT SLEEP(1.5)")
        used.carry_out(Analyze(Ref("strict", ("t",))))
        table = used.table("strict", "t")
        assert table.analyzed is not None
        assert abs((used.server.now - table.analyzed).total_seconds()) < 60
    finally:
        for name in ("sql_mode", "max_join_size", "wait_timeout", limit):
            mysql.sql(f"SET GLOBAL {name} = DEFAULT")
        mysql.sql("SET GLOBAL time_zone = 'SYSTEM'")
        mysql.sql("DROP DATABASE strict")


def test_performance_schema_off(fleet: Fleet) -> None:
    try:
        server = fleet.mysql(settings={"performance_schema": "OFF"})
    except Missing as why:
        missing(why)
    server.sql("CREATE DATABASE shop")
    fill(server, "shop", "t", "id int primary key", "i", 1000)
    used = use(server)
    assert used.measure("shop").tables
    assert used.gauge("oldest_snapshot", Analyze(Ref("shop", ("t",)))) == 0
    assert used.gauge("disk_missing", Analyze(Ref("shop", ("t",))), 1 << 20) is None  # not provably on this machine
    assumed = use(server, Execution(assume_free_space=1 << 30))
    assert assumed.gauge("disk_missing", Analyze(Ref("shop", ("t",))), 2 << 30) == 1 << 30
    server.stop()


@contextmanager
def renumbering(port: int) -> Iterator[int]:
    """A proxy that greets with a thread id of its own, as those do that share connections between clients."""
    listener = socket.create_server(("127.0.0.1", 0))

    def pump(source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                target.sendall(data)
        except OSError:
            pass
        finally:
            target.close()

    def serve() -> None:
        while True:
            try:
                front, _address = listener.accept()
            except OSError:
                return
            back = socket.create_connection(("127.0.0.1", port))
            hello = bytearray(back.recv(65536))
            place = hello.index(0, 5) + 1  # after the header, the protocol and the version
            hello[place : place + 4] = struct.pack("<I", 424242)
            front.sendall(hello)
            for one, other in ((front, back), (back, front)):
                threading.Thread(target=pump, args=(one, other), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()


def test_proxy_that_shares_connections(mysql: Server) -> None:
    with renumbering(mysql.port) as port:
        assert "proxy" in use(mysql, login_port=port).server.lacks["session"]
    assert "session" not in use(mysql).server.lacks


def test_free_space(mysql: Server) -> None:
    """Missing is what is needed less what is free; data and temporary files on one file system need both."""
    used, task = use(mysql), Analyze(Ref("mysql", ("user",)))
    small, large = used.gauge("disk_missing", task, 1 << 20), used.gauge("disk_missing", task, 1 << 50)
    assert small is not None
    assert large is not None
    assert small < 0 < large
    assert used.gauge("wal_missing", task, 1 << 50) == 0
    assert used.gauge("no_such_gauge", task) is None
