# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MySQL and MariaDB servers and replicas: template, settings, start, client. Finding the programs is elsewhere."""

from __future__ import annotations

import secrets
import signal
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import asking
from .cache import copy_tree, once
from .errors import FleetError
from .installations import Installation
from .logs import MYSQL_APPLICATION, Logged, Sessions
from .processes import give_away, run
from .server import APPLICATION, Server
from .tls import Certificates

ADMIN = "dbfleet"
# Part of the templates' names: raise it when the recipe changes.
RECIPE = 1
SETTINGS = {
    "bind_address": "127.0.0.1",
    "skip_name_resolve": "ON",
    "max_connections": "60",
    "innodb_buffer_pool_size": "64M",
    # What is committed survives a SIGKILL of the server; a crash of the whole machine need not be survived.
    "innodb_flush_log_at_trx_commit": "2",
    "innodb_flush_method": "nosync",
    "innodb_doublewrite": "OFF",
    "sync_binlog": "0",
    # A machine has few places for native asynchronous I/O, and many servers want some.
    "innodb_use_native_aio": "OFF",
    "innodb_buffer_pool_dump_at_shutdown": "OFF",
    "innodb_buffer_pool_load_at_startup": "OFF",
    # As on any server with replicas or point-in-time recovery; {"skip_log_bin": ""} turns it off.
    "log_bin": "binlog",
    "max_binlog_size": "64M",
    "log_output": "FILE",
    "general_log": "ON",
}
FLAVOUR_SETTINGS = {
    "mariadb": {"innodb_log_file_size": "48M"},
    # A server from Debian's packages may have a folder compiled in that is not there; the X protocol would want a port.
    "mysql": {"innodb_redo_log_capacity": "64M", "secure_file_priv": "NULL", "mysqlx": "OFF"},
}
_ESCAPES = {"\\0": "\0", "\\n": "\n", "\\t": "\t", "\\\\": "\\"}


def initialize(command: list[str | Path], data: Path) -> None:
    """Fill a data directory. Beside it is a folder for temporary files, since /tmp is not everybody's everywhere."""
    with tempfile.TemporaryDirectory(dir=data.parent, ignore_cleanup_errors=True) as temporary:
        give_away(Path(temporary))
        run([*command, f"--datadir={data}", f"--tmpdir={temporary}"], as_server=True)


def template(installation: Installation) -> Path:
    """Give a fresh data directory whose only account, root, has no password yet."""

    def build(target: Path) -> None:
        give_away(target)
        # A small redo log: it is copied for each server.
        if installation.product == "mariadb":
            program = installation.program("mariadb-install-db", "mysql_install_db")
            options = ("--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve")
            initialize([program, "--no-defaults", *options, "--innodb-log-file-size=8M"], target)
        else:
            options = ("--initialize-insecure", "--innodb-redo-log-capacity=8M", "--secure-file-priv=NULL")
            initialize([installation.server, "--no-defaults", *options], target)
            # The server's identity: each copy makes its own.
            (target / "auto.cnf").unlink(missing_ok=True)

    return once(f"template-{installation.product}-{installation.version}-{RECIPE}", build)


class MySQL(Server):
    """A MySQL server; the account `dbfleet` may do everything."""

    engine = "mysql"
    stop_signal = signal.SIGTERM
    drop_signal = signal.SIGKILL
    _clean_accounts = ""

    def __init__(
        self,
        *,
        name: str,
        home: Path,
        installation: Installation,
        password: str,
        settings: Mapping[str, str | None] | None = None,
        tls: Certificates | None = None,
    ) -> None:
        super().__init__(name=name, home=home, installation=installation, user=ADMIN, password=password)
        self.general_log = home / "general.log"
        self.settings: dict[str, str] = {"server_id": str(secrets.randbelow(2**31) + 1)}
        asked = {key.replace("-", "_"): value for key, value in (settings or {}).items()}
        for key, value in {**SETTINGS, **FLAVOUR_SETTINGS[installation.product], **asked}.items():
            if value is not None:
                self.settings[key] = value
        if tls:
            self.ca_cert = tls.ca
            certificate, key_file = tls.copy_to(home)
            self.settings |= {"ssl_ca": str(tls.ca), "ssl_cert": str(certificate), "ssl_key": str(key_file)}
        self._init_file: Path | None = None
        self._options = home / "server.cnf"
        self._temporary = home / "tmp"
        self._temporary.mkdir(mode=0o700)
        give_away(self._temporary)
        self.data_dir.chmod(0o700)

    @property
    def socket(self) -> Path:
        return self.run_dir / "mysql.sock"

    def create(self) -> None:
        """Make the data directory from the template and start with the fleet's account in it."""
        copy_tree(template(self.installation), self.data_dir)
        self.data_dir.chmod(0o700)
        path = self.home / "init.sql"
        path.touch(mode=0o600)
        # One statement a line. Kept out of the binary log: a replica has its own.
        path.write_text(
            f"SET sql_log_bin=0;\n{self._clean_accounts}"
            f"CREATE USER '{ADMIN}'@'%' IDENTIFIED BY '{self.password}';\n"
            f"GRANT ALL PRIVILEGES ON *.* TO '{ADMIN}'@'%' WITH GRANT OPTION;\n"
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self.password}';\n"
        )
        give_away(path)
        self._init_file = path
        self.start()
        self._init_file = None
        path.unlink()
        self._greet()
        self.mark_log()

    def _greet(self) -> None:
        """Log in once over TCP.

        MySQL then knows the password's digest, and drivers without RSA (PyMySQL without `cryptography`) are let in
        until the server is restarted.
        """
        host = (f"--host={self.host}", f"--port={self.port}", "--protocol=tcp")
        self._client("-e", "DO 0", options=host)

    def start(self) -> None:
        if not self.running:
            self.configure()
        super().start()

    def configure(self) -> None:
        """Write the settings into the server's file of options (they hold from the next start)."""
        lines = [f"{key}={value}" if value else key for key, value in self.settings.items()]
        self._options.write_text("\n".join(["[mysqld]", *lines, ""]))
        give_away(self._options)

    def _command(self) -> Sequence[str]:
        return [
            str(self.installation.server),
            f"--defaults-file={self._options}",
            f"--datadir={self.data_dir}",
            f"--port={self.port}",
            f"--socket={self.socket}",
            f"--pid-file={self.run_dir}/mysqld.pid",
            f"--tmpdir={self._temporary}",
            f"--general-log-file={self.general_log}",
            f"--report-port={self.port}",
            *([f"--init-file={self._init_file}"] if self._init_file else []),
        ]

    def _ready(self, _pid: int) -> bool:
        # Not by a connection: it would stand in the general log.
        return "ready for connections" in self._said()

    def sql(
        self, statement: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        if asking.FOR_MYSQL.search(statement):
            return self._rows(self._client("-e", statement, database=database, user=user, password=password))
        login = {
            "unix_socket": str(self.socket),
            "user": user or self.user,
            "password": self.password if password is None else password,
            "database": database or "",
        }
        return asking.mysql(statement, login, MYSQL_APPLICATION.format(APPLICATION))

    def script(
        self, text: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        return self._rows(self._client(text=text, database=database, user=user, password=password))

    def _rows(self, output: str) -> list[list[str]]:
        return [
            [_unescape(cell) for cell in line.split("\t")] for line in output.removesuffix("\n").split("\n") if output
        ]

    def _client(
        self,
        *words: str,
        text: str | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        options: Sequence[str] = (),
    ) -> str:
        login = self.home / f"client-{secrets.token_hex(4)}.cnf"
        login.touch(mode=0o600)
        secret = (self.password if password is None else password).replace("\\", "\\\\").replace('"', '\\"')
        login.write_text(f'[client]\nuser="{user or self.user}"\npassword="{secret}"\nsocket="{self.socket}"\n')
        program = self.installation.program("mariadb" if self.installation.product == "mariadb" else "mysql")
        plain = ("--batch", "--skip-column-names", "--comments", "--default-character-set=utf8mb4")
        named = (f"--init-command={MYSQL_APPLICATION.format(APPLICATION)}", f"--database={database or ''}")
        try:
            return run([program, f"--defaults-file={login}", *plain, *named, *options, *words], text=text)
        finally:
            login.unlink()

    def _statement_log(self) -> Path:
        return self.general_log

    def logged(self) -> list[Logged]:
        sessions = Sessions()
        # What stands before the mark tells which database an open connection is in.
        sessions.read(self._log_text(0, self._mark, path=self.general_log))
        return sessions.read(self._log_text(self._mark, path=self.general_log))

    # Replication: the words differ between the flavours, the steps do not.

    def binlog_position(self) -> tuple[str, int]:
        """Give the file and position up to which the binary log is written."""
        rows = self.sql("SHOW BINARY LOG STATUS")
        return rows[0][0], int(rows[0][1])

    def follow(self, primary: MySQL) -> None:
        """Become the replica of a server whose binary log is complete."""
        logs = primary.sql("SHOW BINARY LOGS")
        if not logs[0][0].endswith(".000001"):
            raise FleetError(f"{primary!r} has purged binary logs that a replica would need")
        self.script(self._follow_statements(primary, logs[0][0]))
        self.catch_up(primary)

    def _follow_statements(self, primary: MySQL, first_log: str) -> str:
        return (
            f"CHANGE REPLICATION SOURCE TO SOURCE_HOST='{primary.host}', SOURCE_PORT={primary.port},"
            f" SOURCE_USER='{primary.user}', SOURCE_PASSWORD='{primary.password}',"
            f" SOURCE_LOG_FILE='{first_log}', SOURCE_LOG_POS=4, SOURCE_CONNECT_RETRY=1, GET_SOURCE_PUBLIC_KEY=1;\n"
            "START REPLICA;\n"
        )

    def catch_up(self, primary: MySQL, timeout: float = 30) -> None:
        """Wait until all that the primary has logged is applied here."""
        file, position = primary.binlog_position()
        answer = self.sql(self._wait_statement(file, position, timeout))
        if answer in ([["-1"]], [["NULL"]]):
            state = self.sql("SHOW ALL SLAVES STATUS" if self.engine == "mariadb" else "SHOW REPLICA STATUS")
            raise FleetError(f"{self!r} did not catch up with {primary!r} in {timeout:.0f} s: {state}")

    def _wait_statement(self, file: str, position: int, timeout: float) -> str:
        return f"SELECT SOURCE_POS_WAIT('{file}', {position}, {timeout:.0f})"


class MariaDB(MySQL):
    """A MariaDB server; the account `dbfleet` may do everything."""

    engine = "mariadb"
    # The template has more roots, without a password.
    _clean_accounts = "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';\nFLUSH PRIVILEGES;\n"

    def binlog_position(self) -> tuple[str, int]:
        rows = self.sql("SHOW MASTER STATUS")
        return rows[0][0], int(rows[0][1])

    def _follow_statements(self, primary: MySQL, first_log: str) -> str:
        return (
            f"CHANGE MASTER TO MASTER_HOST='{primary.host}', MASTER_PORT={primary.port},"
            f" MASTER_USER='{primary.user}', MASTER_PASSWORD='{primary.password}',"
            f" MASTER_LOG_FILE='{first_log}', MASTER_LOG_POS=4, MASTER_CONNECT_RETRY=1;\n"
            "START SLAVE;\n"
        )

    def _wait_statement(self, file: str, position: int, timeout: float) -> str:
        return f"SELECT MASTER_POS_WAIT('{file}', {position}, {timeout:.0f})"


def _unescape(cell: str) -> str:
    """Undo what the client does to a value in batch mode."""
    if "\\" not in cell:
        return cell
    parts = cell.split("\\\\")
    for escaped, plain in _ESCAPES.items():
        if escaped != "\\\\":
            parts = [part.replace(escaped, plain) for part in parts]
    return "\\".join(parts)
