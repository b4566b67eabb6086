# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection options of the modules, as libpq's keywords. Nothing connects here."""

from __future__ import annotations

import os
import typing as t

from ..._errors import BadInput
from ..._tuples import NamedTuple

DEFAULT_DATABASE = "postgres"
VERIFYING = ("verify-ca", "verify-full")
# Given by the engine, so that all sessions are alike; `host` and `port` may be given (several hosts, for example).
RESERVED = ("dbname", "database", "user", "password", "application_name", "client_encoding")


class Login(NamedTuple):
    """libpq's keywords for every session of a run, and what is said about them in messages."""

    keywords: t.Mapping[str, t.Any]
    database: str
    role: str
    options: str  # the user's own libpq `options`, before ours
    address: str
    password: str

    def at(self, address: str) -> Login:
        """The same login on another server: `host`, `host:port` or `[IPv6]:port`."""
        host, colon, port = address.rpartition(":")
        if not colon or not port.isdigit() or (":" in host and not host.startswith("[")):
            host, port = address, ""
        keywords = {k: v for k, v in self.keywords.items() if k != "hostaddr"}
        keywords["host"] = host.strip("[]")
        if port:
            keywords["port"] = int(port)
        return self._replace(keywords=keywords, address=address)


def login(params: t.Mapping[str, t.Any]) -> Login:
    """Raises BadInput for what cannot be meant; passwords from PGPASSWORD and PGPASSFILE are libpq's own business."""
    if params.get("config_file"):
        raise BadInput(
            "config_file is not for postgresql", cure="Use the login_ options, or PGSERVICEFILE in the environment"
        )
    extra = dict(params.get("connect_params") or {})
    for name in RESERVED:
        if name in extra:
            raise BadInput(
                f"connect_params: {name} has an option of its own", cure="Use the login_ options and databases"
            )
    host, socket = params.get("login_host") or "", params.get("login_unix_socket") or ""
    if socket and host not in ("", "localhost", socket):
        raise BadInput(
            f"login_unix_socket {socket} and login_host {host} are two ways to a server",
            cure="Give one of them; login_host: localhost goes with a socket",
        )
    host = socket or host
    user = params.get("login_user") or os.environ.get("PGUSER") or "postgres"
    password = params.get("login_password") or ""
    keywords: dict[str, t.Any] = {
        "host": host,
        "port": params.get("login_port"),
        "user": user,
        "password": password,
        "connect_timeout": params.get("connect_timeout"),
        **_tls(params, extra),
        # A step may be silent for hours while firewalls forget connections.
        "keepalives_idle": 60,
        "keepalives_interval": 10,
        "keepalives_count": 6,
        **{k: v for k, v in extra.items() if k != "options"},
    }
    keywords = {k: v for k, v in keywords.items() if v not in ("", None)}
    options = " ".join(p for p in (os.environ.get("PGOPTIONS", ""), str(extra.get("options") or "")) if p)
    where = str(keywords.get("host") or os.environ.get("PGHOST") or "local socket")
    port = keywords.get("port") or os.environ.get("PGPORT") or 5432
    return Login(
        keywords,
        params.get("login_db") or DEFAULT_DATABASE,
        params.get("session_role") or "",
        options,
        f"[{where}]:{port}" if ":" in where else f"{where}:{port}",
        password,
    )


def _tls(params: t.Mapping[str, t.Any], extra: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    """TLS as asked for or not at all: never silently weaker."""
    mode = str(extra.get("sslmode") or params.get("ssl_mode") or "prefer")
    checks_name = params.get("check_hostname")
    if checks_name is True and mode != "verify-full":
        raise BadInput(f"check_hostname needs ssl_mode verify-full, not {mode}", cure="Set ssl_mode: verify-full")
    if checks_name is False and mode == "verify-full":
        raise BadInput("ssl_mode verify-full checks the host's name", cure="Set ssl_mode: verify-ca to leave that out")
    if params.get("ca_cert") and mode in ("disable", "allow", "prefer"):
        raise BadInput(
            f"ca_cert is given, but ssl_mode {mode} would go on without TLS",
            cure="Set ssl_mode: verify-full or verify-ca",
        )
    for option in ("ca_cert", "ssl_cert", "ssl_key"):
        path = params.get(option)
        if path and not (option == "ca_cert" and path == "system") and not os.path.isfile(path):
            raise BadInput(f"{option}: there is no file {path}", cure="It is read on the host where the module runs")
    return {
        "sslmode": mode,
        "sslrootcert": params.get("ca_cert"),
        "sslcert": params.get("ssl_cert"),
        "sslkey": params.get("ssl_key"),
    }
