# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""PostgreSQL servers and standbys: template, settings, start, psql. Finding the programs is installations.py's part."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import io
import secrets
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from . import asking
from .cache import copy_tree, once
from .errors import FleetError, Missing
from .installations import Installation
from .logs import POSTGRESQL_PREFIX, Logged, postgresql_log
from .processes import give_away, run
from .server import APPLICATION, Server
from .tls import Certificates

ADMIN = "postgres"
# Part of the templates' names: raise it when the recipe changes.
RECIPE = 1
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    # Predictable tests: nothing is cleaned that the collection did not clean.
    "autovacuum": "off",
    "wal_level": "replica",
    "max_wal_senders": "10",
    "max_replication_slots": "10",
    "max_wal_size": "512MB",
    "password_encryption": "scram-sha-256",
    # In the data directory: /dev/shm may be tiny, and what is left there after a SIGKILL nobody removes.
    "dynamic_shared_memory_type": "mmap",
    "lc_messages": "C",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_statement": "all",
    "log_line_prefix": POSTGRESQL_PREFIX,
}
HBA = """\
local   all          all                scram-sha-256
host    all          all  127.0.0.1/32  scram-sha-256
local   replication  all                scram-sha-256
host    replication  all  127.0.0.1/32  scram-sha-256
"""


def _verifier(password: str) -> str:
    """What a server keeps of a password, hashed once: 4,096 times take longer than all else of a connection."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, 1)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = (base64.b64encode(part).decode() for part in (salt, stored, hmac.digest(salted, b"Server Key", "sha256")))
    return "SCRAM-SHA-256$1:{}${}:{}".format(*parts)


def template(installation: Installation) -> Path:
    """Give a data directory fresh from initdb, whose administrator's password stands in the file beside it."""

    def build(target: Path) -> None:
        password = target / "password"
        password.write_text(secrets.token_urlsafe(18))
        password.chmod(0o600)
        give_away(password)
        data = target / "data"
        data.mkdir(mode=0o700)
        give_away(data)
        run(
            [
                installation.program("initdb"),
                *("-D", data, "-U", ADMIN, "-E", "UTF8", "--locale=C", "--no-sync"),
                *("--auth=scram-sha-256", f"--pwfile={password}"),
            ],
            as_server=True,
        )
        (data / "pg_hba.conf").write_text(HBA)
        with (data / "postgresql.conf").open("a") as conf:
            conf.write("include_if_exists = 'fleet.conf'\n")

    return once(f"template-postgresql-{installation.version}-{RECIPE}", build)


class PostgreSQL(Server):
    """A PostgreSQL server; all its databases belong to the superuser `postgres`."""

    engine = "postgresql"
    stop_signal = signal.SIGINT
    # Immediate shutdown; SIGKILL would leave a segment of shared memory behind.
    drop_signal = signal.SIGQUIT

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
        self.settings: dict[str, str] = {}
        for key, value in {**SETTINGS, **(settings or {})}.items():
            if value is not None:
                self.settings[key] = value
        if tls:
            if not any(word in run([installation.program("pg_config"), "--configure"]) for word in ("openssl", "ssl=")):
                raise Missing(f"this build of PostgreSQL {self.version} has no TLS: Debian's packages have")
            self.ca_cert = tls.ca
            certificate, key_file = tls.copy_to(home)
            self.settings |= {"ssl": "on", "ssl_cert_file": str(certificate), "ssl_key_file": str(key_file)}
        self.data_dir.chmod(0o700)

    @property
    def socket(self) -> Path:
        return self.run_dir

    def create(self) -> None:
        """Make the data directory from the template, start, and set the fleet's password."""
        source = template(self.installation)
        copy_tree(source / "data", self.data_dir)
        self.start()
        known = (source / "password").read_text()
        # Not logged: a log that holds the password would hide a leak of it elsewhere.
        self._psql(
            f"ALTER ROLE {ADMIN} PASSWORD '{_verifier(self.password)}'",
            password=known,
            options="-c log_statement=none",
            database=ADMIN,
        )
        self.mark_log()

    def configure(self) -> None:
        """Write the settings into the data directory (they hold from the next start)."""
        lines = (key + " = '" + value.replace("'", "''") + "'\n" for key, value in self.settings.items())
        path = self.data_dir / "fleet.conf"
        path.write_text("".join(lines))
        give_away(path)

    def start(self) -> None:
        if not self.running:
            self.configure()
        super().start()

    def _command(self) -> Sequence[str]:
        return [
            str(self.installation.server),
            *("-D", str(self.data_dir), "-p", str(self.port), "-c", f"unix_socket_directories={self.run_dir}"),
        ]

    def _ready(self, _pid: int) -> bool:
        # What pg_ctl reads, too: line 1 is the process, line 8 how far it is. No connection, so no line in the log.
        try:
            lines = (self.data_dir / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[0] == str(_pid) and lines[7].strip() == "ready"

    def sql(
        self, statement: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        if asking.FOR_PSQL.search(statement):
            return self._psql(statement, database=database, user=user, password=password)
        login = {
            "host": str(self.socket),
            "port": str(self.port),
            "user": user or self.user,
            "password": self.password if password is None else password,
            "dbname": database or ADMIN,
            "application_name": APPLICATION,
            "client_encoding": "UTF8",
        }
        return asking.postgresql(statement, login)

    def script(
        self, text: str, *, database: str | None = None, user: str | None = None, password: str | None = None
    ) -> list[list[str]]:
        return self._psql(None, text=text, database=database, user=user, password=password)

    def _psql(
        self,
        statement: str | None,
        *,
        text: str | None = None,
        database: str | None = None,
        user: str | None = None,
        password: str | None = None,
        options: str = "",
    ) -> list[list[str]]:
        # By environment: a name on the command line that holds "=" would be taken for a connection string.
        env = {
            "PGHOST": str(self.socket),
            "PGPORT": str(self.port),
            "PGUSER": user or self.user,
            "PGPASSWORD": self.password if password is None else password,
            "PGDATABASE": database or ADMIN,
            "PGAPPNAME": APPLICATION,
            "PGOPTIONS": options,
            "PGCLIENTENCODING": "UTF8",
            "PSQL_HISTORY": "/dev/null",
        }
        how = ["-f", "-"] if statement is None else ["-c", statement]
        psql = self.installation.program("psql")
        output = run([psql, "-X", "-q", "-t", "--csv", "-v", "ON_ERROR_STOP=1", *how], env=env, text=text)
        return list(csv.reader(io.StringIO(output, newline="")))

    def logged(self) -> list[Logged]:
        return list(postgresql_log(self._log_text(self._mark)))

    def reload(self) -> None:
        """Read the settings again, those in `self.settings` included."""
        self.configure()
        self.sql("SELECT pg_reload_conf()")


class Standby(PostgreSQL):
    """A hot standby that streams from its primary."""

    def __init__(
        self, primary: PostgreSQL, *, name: str, home: Path, settings: Mapping[str, str | None] | None
    ) -> None:
        # A standby must allow at least as many connections, prepared transactions … as its primary.
        merged = {**primary.settings, **(settings or {})}
        super().__init__(
            name=name, home=home, installation=primary.installation, password=primary.password, settings=merged
        )
        self.primary = primary
        self.ca_cert = primary.ca_cert

    def create(self) -> None:
        """Take a base backup of the primary and follow it."""
        env = {"PGPASSWORD": self.primary.password, "PGAPPNAME": APPLICATION}
        run(
            [
                self.installation.program("pg_basebackup"),
                *("-h", self.primary.socket, "-p", str(self.primary.port), "-U", self.primary.user),
                *("-D", self.data_dir, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
            ],
            env=env,
            as_server=True,
        )
        self.start()
        self.catch_up()
        self.mark_log()

    def catch_up(self, timeout: float = 30) -> None:
        """Wait until all that the primary has written is replayed here."""
        [[position]] = self.primary.sql("SELECT pg_catalog.pg_current_wal_lsn()")
        end = time.monotonic() + timeout
        while self.sql(f"SELECT pg_catalog.pg_last_wal_replay_lsn() >= '{position}'") != [["t"]]:
            if time.monotonic() > end:
                raise FleetError(f"{self!r} did not catch up with {self.primary!r} in {timeout:.0f} s")
            time.sleep(0.02)
