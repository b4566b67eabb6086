# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that all modules share, and how their words become numbers. No operation's option lives here."""

from __future__ import annotations

import typing as t

from ._errors import BadInput
from ._records import Execution
from ._units import duration, size

Spec = dict[str, dict[str, t.Any]]
LEAST_KEPT = 86400.0  # seconds of the journal: a night has to find the one before

CONNECTION: Spec = {
    "engine": {"type": "str", "required": True, "choices": ["postgresql", "mysql", "mariadb", "sqlite"]},
    "login_host": {"type": "str", "default": ""},
    "login_port": {"type": "int"},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "str", "default": ""},
    "login_db": {"type": "str", "default": ""},
    "ssl_mode": {
        "type": "str",
        "choices": ["allow", "disable", "prefer", "require", "verify-ca", "verify-full"],
        "default": "prefer",
    },
    "ca_cert": {"type": "path", "aliases": ["ssl_rootcert"]},
    "ssl_cert": {"type": "path", "aliases": ["client_cert"]},
    "ssl_key": {"type": "path", "aliases": ["client_key"], "no_log": False},
    "check_hostname": {"type": "bool"},
    "connect_timeout": {"type": "int", "default": 30},
    "connect_params": {"type": "dict", "default": {}},
    "config_file": {"type": "path"},
    "session_role": {"type": "str"},
}

SELECTION: Spec = {
    "databases": {"type": "list", "elements": "str", "default": ["*"]},
    "tables": {"type": "list", "elements": "str", "default": ["*"]},
}

EXECUTION: Spec = {
    "jobs": {"type": "int", "default": 2},
    "time_budget": {"type": "str"},
    "hard_stop": {"type": "bool", "default": True},
    "window": {"type": "str"},
    "window_timezone": {"type": "str"},
    "lock_timeout": {"type": "str", "default": "1s"},
    "retries": {"type": "int", "default": 3},
    "concurrent_wait": {"type": "str", "default": "30m"},
    "if_running": {"type": "str", "choices": ["fail", "skip", "wait"], "default": "fail"},
    "replicas": {"type": "list", "elements": "str", "default": []},
    "max_replica_lag": {"type": "str"},
    "stop_file": {"type": "path"},
    "journal": {"type": "str"},
    "journal_keep": {"type": "str", "default": "400d"},
    "allow_untested": {"type": "bool", "default": False},
    "assume_free_space": {"type": "str"},
    "max_results": {"type": "int", "default": 200},
}


def asked_for(params: t.Mapping[str, t.Any]) -> str:
    """The server as the user names it: for errors that come before the server has said anything."""
    if params["engine"] == "sqlite":
        return ""
    host = params["login_unix_socket"] or params["login_host"] or "localhost"
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{params['login_port']}" if params["login_port"] else host


def execution(params: t.Mapping[str, t.Any]) -> Execution:
    """How to carry out, in seconds and bytes. Raises BadInput."""
    for name, least in (("jobs", 1), ("retries", 0), ("max_results", 1), ("connect_timeout", 1)):
        if params.get(name) is not None and params[name] < least:
            raise BadInput(f"{name}: {params[name]} is below {least}", cure=f"Give at least {least}")
    if params.get("max_replica_lag") and not params.get("replicas"):
        raise BadInput("max_replica_lag has no replicas to read the lag from", cure="Name them in the option replicas")
    if params.get("replicas") and params.get("max_replica_lag") is None:
        raise BadInput("replicas are named, but not how much lag is too much", cure="Give max_replica_lag, such as 10s")
    if params.get("window_timezone") and not params.get("window"):
        raise BadInput("window_timezone is given without a window", cure="Give window as 22:00-06:00")
    journal_keep(params)
    return Execution(
        jobs=params.get("jobs") or 2,
        time_budget=_positive(params, "time_budget", "leave no time for anything"),
        hard_stop=params.get("hard_stop") is not False,
        lock_timeout=_positive(params, "lock_timeout", "never wait") or 1.0,
        concurrent_wait=_positive(params, "concurrent_wait", "never wait") or 1800.0,
        retries=3 if params.get("retries") is None else params["retries"],
        if_running=params.get("if_running") or "fail",
        replicas=tuple(params.get("replicas") or ()),
        max_replica_lag=_seconds(params, "max_replica_lag"),
        stop_file=params.get("stop_file") or "",
        assume_free_space=None
        if params.get("assume_free_space") is None
        else size(params["assume_free_space"], "assume_free_space"),
    )


def journal_keep(params: t.Mapping[str, t.Any]) -> float:
    """How long the journal remembers, in seconds. Raises BadInput."""
    given = params.get("journal_keep") or EXECUTION["journal_keep"]["default"]
    found = duration(given, "journal_keep")
    if found < LEAST_KEPT:
        raise BadInput(f"journal_keep: {given} is less than a day", cure="Give at least 1d; 400d is the default")
    return found


def _seconds(params: t.Mapping[str, t.Any], name: str) -> float | None:
    return None if params.get(name) is None else duration(params[name], name)


def _positive(params: t.Mapping[str, t.Any], name: str, means: str) -> float | None:
    """Servers count in milliseconds, and take 0 for no limit at all."""
    found = _seconds(params, name)
    if found is not None and found < 0.001:
        raise BadInput(f"{name}: {params[name]} would {means}", cure="Give at least 1ms, or leave the option out")
    return found
