# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""From the connection options of a module to PyMySQL's arguments. No connection is opened here."""

from __future__ import annotations

import configparser
import functools
import os
import ssl
import typing as t

from ..._errors import BadInput, MissingMeans
from ..._tuples import NamedTuple

# What the sessions of this package rely on.
RESERVED = frozenset(
    (
        *("autocommit", "charset", "conv", "cursorclass", "database", "db", "defer_connect", "init_command"),
        *("passwd", "password", "read_default_file", "read_default_group", "sql_mode", "use_unicode", "user"),
    )
)
VERIFYING = ("verify-ca", "verify-full")
TLS_FILES = {"ca": "ca_cert", "cert": "ssl_cert", "key": "ssl_key"}


class Login(NamedTuple):
    """Everything that `pymysql.connect` needs but the database; `encrypted`: a plain connection must be refused."""

    arguments: dict[str, t.Any]
    address: str
    encrypted: bool
    role: str
    tls: t.Mapping[str, str] = {}  # the same for client programs: mode, ca, cert, key


class Place(NamedTuple):
    """Where a server is reached: by its socket, if there is one."""

    socket: str
    host: str
    port: int

    @property
    def address(self) -> str:
        return self.socket or f"{self.host}:{self.port}"


def driver() -> t.Any:
    """PyMySQL, imported when it is needed. Raises MissingMeans."""
    try:
        import pymysql
    except ImportError as missing:
        raise MissingMeans(
            "the Python library PyMySQL is not installed for the Python that runs this module",
            cure="Install PyMySQL (pip), python3-pymysql (Debian, Ubuntu) or python3-PyMySQL (Fedora, EL)",
        ) from missing
    return pymysql


def connect(**arguments: t.Any) -> t.Any:
    """A connection of PyMySQL, without the 30 ms of computing that it takes to read the system's authorities.

    The driver does that for every connection of which nothing is said about TLS, and verifies nothing then.
    """
    whole = driver().connections.Connection
    made = vars(whole).get("_create_ssl_ctx")
    if made is None:
        return whole(**arguments)

    def context(self: t.Any, asked: t.Any) -> t.Any:
        return made(self, asked) if asked else _unverified()

    return type("Connection", (whole,), {"_create_ssl_ctx": context})(**arguments)


def login(params: t.Mapping[str, t.Any]) -> Login:
    """Explicit options win over the file, as everywhere in MySQL's tools. Raises BadInput."""
    file = client_section(params.get("config_file"))
    place = _place(params, file)
    arguments: dict[str, t.Any] = {
        "user": params.get("login_user") or file.get("user"),
        "password": _first(params.get("login_password"), file.get("password")) or "",
        "connect_timeout": params.get("connect_timeout") or 30,
        "program_name": "dbfleet",
        "charset": "utf8mb4",
        "autocommit": True,
    }
    if place.socket:
        arguments["unix_socket"] = place.socket
    else:
        arguments.update(host=place.host, port=place.port)
    tls, encrypted = _tls(params, file, bool(place.socket))
    arguments.update(tls)
    arguments.update(_extra(params.get("connect_params") or {}))
    role = params.get("session_role") or ""
    return Login(arguments, place.address, encrypted, role, _tls_of_clients(params, file))


def address(params: t.Mapping[str, t.Any]) -> str:
    """That of the login, where nobody logs in: no driver is needed. Raises BadInput."""
    return _place(params, client_section(params.get("config_file"))).address


def _place(params: t.Mapping[str, t.Any], file: t.Mapping[str, str]) -> Place:
    socket = params.get("login_unix_socket") or ("" if params.get("login_host") else file.get("socket") or "")
    host = params.get("login_host") or file.get("host") or "localhost"
    return Place(socket, host, _port(params.get("login_port") or file.get("port") or 3306))


def _tls_of_clients(params: t.Mapping[str, t.Any], file: t.Mapping[str, str]) -> dict[str, str]:
    """What _tls() makes of the same options, in words: disable, prefer, require, verify-ca, verify-full; and files."""
    mode = str(params.get("ssl_mode") or "prefer")
    found = {key: str(params.get(name) or file.get(f"ssl-{key}") or "") for key, name in TLS_FILES.items()}
    if mode not in ("disable", *VERIFYING) and found["ca"]:
        mode = "verify-ca" if params.get("check_hostname") is False else "verify-full"
    elif mode in ("prefer", "allow"):
        mode = "require" if found["cert"] else "prefer"
    elif mode == "verify-ca" and params.get("check_hostname"):
        mode = "verify-full"
    return {"mode": mode, **{key: path for key, path in found.items() if path}}


def client_section(path: str | None) -> dict[str, str]:
    """The group [client] of an option file; that of `~/.my.cnf` where no file is named and that one is there.

    The dialect is MySQL's: keys without values, `-` and `_` alike, quotes around values, `!include` lines (skipped).
    """
    found = os.path.expanduser(path or "~/.my.cnf")
    if not os.path.isfile(found):
        if path and path != "~/.my.cnf":
            raise BadInput(f"config_file: {found} is not there", cure="Mend the path, or leave the option out")
        return {}
    reader = configparser.RawConfigParser(allow_no_value=True, strict=False, comment_prefixes=("#", ";"))
    try:
        with open(found, encoding="utf-8") as lines:
            reader.read_file(line for line in lines if not line.lstrip().startswith("!"))
    except (OSError, UnicodeDecodeError, configparser.Error) as fault:
        # Not the parser's own words: they quote the line, which may be the password.
        raise BadInput(f"config_file: {found} cannot be read: {type(fault).__name__}", cure="Mend the file") from None
    if not reader.has_section("client"):
        return {}
    return {k.replace("_", "-"): _unquoted(v or "") for k, v in reader.items("client")}


def _unquoted(value: str) -> str:
    text = value.strip()
    return text[1:-1] if len(text) >= 2 and text[0] == text[-1] and text[0] in "\"'" else text


def _first(*values: str | None) -> str | None:
    return next((v for v in values if v is not None), None)


def _port(value: t.Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise BadInput(f"login_port: {value!r} is not a port", cure="Give a number") from None


def _extra(asked: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
    for name in asked:
        if name in RESERVED:
            raise BadInput(f"connect_params: {name} is set by this collection", cure="Leave it out")
    return dict(asked)


def _tls(params: t.Mapping[str, t.Any], file: t.Mapping[str, str], over_socket: bool) -> tuple[dict[str, t.Any], bool]:
    """The mode's words are PostgreSQL's; a certificate authority makes every mode but `disable` verify.

    So a playbook written for ansible.mysql, which knows no mode, verifies as it did there.
    """
    mode = params.get("ssl_mode") or "prefer"
    authority = params.get("ca_cert") or file.get("ssl-ca")
    certificate = params.get("ssl_cert") or file.get("ssl-cert")
    key = params.get("ssl_key") or file.get("ssl-key")
    check = params.get("check_hostname")
    if mode == "disable":
        return {"ssl_disabled": True}, False
    if mode == "verify-full" and check is False:
        raise BadInput("check_hostname: false contradicts ssl_mode: verify-full", cure="Use ssl_mode: verify-ca")
    if mode not in VERIFYING and authority:
        mode = "verify-ca" if check is False else "verify-full"
    if mode in ("prefer", "allow") and not certificate:
        return _preferred(over_socket), False
    # Only the server's name is left out of the check by verify-ca, unless it is asked for.
    full = mode == "verify-full" or (mode == "verify-ca" and bool(check))
    return {"ssl": _context(mode in VERIFYING, full, authority, certificate, key)}, True


def _preferred(over_socket: bool) -> dict[str, t.Any]:
    """TLS where the server has it. PyMySQL does that by itself from 1.2 on, and only when nothing is said about it."""
    if over_socket:
        return {"ssl_disabled": True}
    if tuple(driver().VERSION)[:2] >= (1, 2):
        return {}
    return {"ssl": _context(False, False, None, None, None)}


def _context(
    verify: bool, full: bool, authority: str | None, certificate: str | None, key: str | None
) -> ssl.SSLContext:
    if not verify and not certificate:
        return _unverified()
    try:
        context = ssl.create_default_context(cafile=authority)
        # Self-made authorities, such as those the servers write themselves, fail Python 3.13's strict checks.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.check_hostname = full
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        if certificate:
            context.load_cert_chain(certificate, key)
    except (OSError, ValueError) as fault:
        raise BadInput(f"ca_cert, ssl_cert or ssl_key cannot be used: {fault}", cure="Mend the files") from None
    return context


@functools.lru_cache(maxsize=1)
def _unverified() -> ssl.SSLContext:
    """As `ssl.create_default_context` makes it, without the authorities, of which none would be asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
