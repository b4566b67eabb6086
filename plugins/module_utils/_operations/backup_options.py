# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of backup, what they share with rotation and restore, and how they become a policy. No plan."""

from __future__ import annotations

import typing as t

from .._backups import Bucket, Elsewhere, Encryption, Manner, Stanza
from .._errors import BadInput
from .._tuples import NamedTuple
from .._units import duration, size

if t.TYPE_CHECKING:
    from .._records import Server

S3: dict[str, t.Any] = {
    "endpoint_url": {"type": "str"},
    "region": {"type": "str"},
    "access_key": {"type": "str", "no_log": False},
    "secret_key": {"type": "str", "no_log": True},
    "session_token": {"type": "str", "no_log": True},
    "ca_bundle": {"type": "path"},
}

OPTIONS: dict[str, t.Any] = {
    "backup_dir": {"type": "path", "required": True},
    "method": {"type": "str", "choices": ["auto", "dump", "physical", "pgbackrest"], "default": "auto"},
    "compression": {"type": "str", "choices": ["zstd", "gzip", "none"], "default": "zstd"},
    "compression_level": {"type": "int"},
    "encrypt": {
        "type": "dict",
        "options": {
            "gpg_recipient": {"type": "list", "elements": "str"},
            "age_recipient": {"type": "list", "elements": "str"},
        },
    },
    "min_interval": {"type": "str", "default": "20h"},
    "verify": {"type": "str", "choices": ["checksum", "decode", "restore"], "default": "decode"},
    "drill_on": {"type": "raw", "default": "throwaway"},
    "globals": {"type": "bool", "default": True},
    "exclude_tables": {"type": "list", "elements": "str", "default": []},
    "copy_to": {"type": "str"},
    "s3": {"type": "dict", "options": S3},
    "rate_limit": {"type": "str"},
    "nice": {"type": "int", "default": 0},
    "pin": {"type": "bool", "default": False},
    "bin_dir": {"type": "path"},
    "drill_password": {"type": "str", "no_log": True},
    "full_interval": {"type": "str"},
    "incremental_from": {"type": "str", "choices": ["last", "full"], "default": "last"},
    "pgbackrest_stanza": {"type": "str"},
    "pgbackrest_repo": {"type": "int"},
    "pgbackrest_config": {"type": "path"},
}
# What pgBackRest decides by its own configuration, and how.
ITS_OWN = {
    "encrypt": "Set repo1-cipher-type",
    "copy_to": "Configure a second repository",
    "rate_limit": "Leave it out",
    "pin": "Set repo1-retention-full as high as is needed",
    "exclude_tables": "Leave it out: it copies the files of the whole server",
    "compression_level": "Set compress-level",
}

# How another server is reached for a drill; numbers and booleans may come as text.
THERE = (
    "login_host",
    "login_port",
    "login_user",
    "login_unix_socket",
    "login_db",
    "ssl_mode",
    "ca_cert",
    "ssl_cert",
    "ssl_key",
)
MOST = {"zstd": 19, "gzip": 9}  # levels of compression that make sense for a stream


class Policy(NamedTuple):
    manner: Manner
    method: str  # auto is dump: what every engine has
    min_interval: float  # seconds
    verify: str
    drill_on: str | Elsewhere
    globals: bool
    exclude: tuple[str, ...]
    copy_to: str
    bucket: Bucket | None
    jobs: int = 1
    stanza: Stanza | None = None  # of pgBackRest, where that is the method
    full_interval: float | None = None  # seconds until a full backup is due; None: each of them is full
    differential: bool = False  # what is not full builds on the last full one, not on the last one


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    method = "dump" if params["method"] == "auto" else params["method"]
    stanza = _stanza(params, method)
    encryption = encryption_of(params.get("encrypt"))
    if encryption and params["verify"] == "restore":
        raise BadInput(
            "verify: restore reads the backup back, and who encrypts to a recipient cannot",
            cure="Ask for verify: decode, and prove the backup with db_restore, drill: true and decrypt",
        )
    interval = duration(params["min_interval"], "min_interval")
    manner = Manner(
        folder=folder_of(params["backup_dir"], "backup_dir"),
        compression=params["compression"],
        compression_level=_level(params),
        encryption=encryption,
        rate_limit=_rate(params.get("rate_limit")),
        nice=_nice(params["nice"]),
        pin=bool(params["pin"]),
    )
    to = target_of(params.get("copy_to"), manner.folder)
    return Policy(
        manner=manner,
        method=method,
        min_interval=interval,
        verify=params["verify"],
        drill_on=drill_on(params.get("drill_on"), params.get("drill_password")),
        globals=bool(params["globals"]),
        exclude=tuple(params["exclude_tables"] or ()),
        copy_to=to,
        bucket=bucket_of(params.get("s3"), to),
        jobs=params.get("jobs") or 1,
        stanza=stanza,
        full_interval=_full_interval(params, method),
        differential=params["incremental_from"] == "full",
    )


def _stanza(params: t.Mapping[str, t.Any], method: str) -> Stanza | None:
    """Raises BadInput for what only pgBackRest itself can be told, and for what only it is told."""
    given = {name: params.get(f"pgbackrest_{name}") for name in ("stanza", "repo", "config")}
    if method != "pgbackrest":
        named = next((name for name, value in given.items() if value), None)
        if named:
            raise BadInput(f"pgbackrest_{named} is for method pgbackrest, and the method is {method}")
        return None
    for name, cure in ITS_OWN.items():
        if params.get(name):
            raise BadInput(f"{name}: pgBackRest decides that itself", cure=f"{cure} in pgBackRest's own configuration")
    name, repo = given["stanza"] or "", given["repo"]
    if name.startswith("-") or any(c < "!" or c in "/\\" for c in name):
        raise BadInput(f"pgbackrest_stanza: {name!r} is no name of a stanza")
    if repo is not None and not 1 <= repo <= 256:
        raise BadInput(f"pgbackrest_repo: {repo} is no number of a repository", cure="repo1 is 1")
    return Stanza(name, repo, given["config"] or "")


def _full_interval(params: t.Mapping[str, t.Any], method: str) -> float | None:
    """Raises BadInput where no backup builds on another one."""
    if params.get("full_interval") is None:
        return None
    if method == "dump":
        raise BadInput(
            "full_interval: a dump never builds on another one", cure="Take method physical or pgbackrest, or leave it"
        )
    if method == "physical" and params.get("encrypt"):
        raise BadInput(
            "full_interval: what is backed up next is compared with the last backup, which nobody here can read",
            cure="Leave encrypt out, or make full backups only",
        )
    return duration(params["full_interval"], "full_interval")


def identity_of(server: Server, database: str = "") -> str:
    """Whose backups these are: what the engine says tells its servers apart, else how it is reached."""
    found = server.settings.get("identity")
    if isinstance(found, t.Mapping):
        found = found.get(database)
    return str(found) if found else f"{server.engine}:{server.address}"


def folder_of(path: t.Any, option: str) -> str:
    """An absolute folder without a trailing slash. Raises BadInput."""
    text = str(path or "")
    if not text.startswith("/"):
        raise BadInput(f"{option}: {text!r} is not an absolute path", cure="Write it as /srv/backups")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise BadInput(f"{option}: {text!r} is no folder of its own", cure="Write it as /srv/backups")
    return "/" + "/".join(parts)


def target_of(to: t.Any, folder: str, option: str = "copy_to") -> str:
    """Where copies go, or come from: a folder, or s3://bucket/prefix. Raises BadInput."""
    text = str(to or "")
    if not text:
        return ""
    if text.startswith("s3://"):
        bucket, _slash, prefix = text[5:].partition("/")
        if not bucket or ".." in prefix.split("/"):
            raise BadInput(f"{option}: {text!r} names no bucket", cure="Write it as s3://bucket/prefix")
        return text.rstrip("/")
    found = folder_of(text, option)
    if found == folder or found.startswith(folder + "/") or folder.startswith(found + "/"):
        raise BadInput(f"{option}: {found} and backup_dir {folder} lie in each other", cure="Name another folder")
    return found


def bucket_of(given: t.Mapping[str, t.Any] | None, to: str, option: str = "copy_to") -> Bucket | None:
    """How the bucket's service is reached. Raises BadInput where there is no bucket."""
    if given and not to.startswith("s3://"):
        raise BadInput(f"s3 is given, but {option} names no bucket", cure=f"Write {option} as s3://bucket/prefix")
    if not to.startswith("s3://"):
        return None
    return Bucket(**{name: (given or {}).get(name) or "" for name in S3})


def encryption_of(given: t.Mapping[str, t.Any] | None) -> Encryption | None:
    """To whom. Raises BadInput unless exactly one program has recipients."""
    if given is None:
        return None
    found = [(program, tuple(given.get(f"{program}_recipient") or ())) for program in ("gpg", "age")]
    asked = [(program, names) for program, names in found if names]
    if len(asked) != 1:
        raise BadInput(
            "encrypt takes either gpg_recipient or age_recipient", cure="Name the key that the backups are for"
        )
    program, names = asked[0]
    bad = next((n for n in names if not n.strip() or n.startswith("-") or any(c < " " for c in n)), None)
    if bad is not None:
        raise BadInput(f"encrypt: {bad!r} is no recipient", cure="Name a key's fingerprint or an age1… key")
    return Encryption(program, names)


def drill_on(given: t.Any, password: str | None = None) -> str | Elsewhere:
    """`throwaway`, `same_server`, connection options of another server, or a folder. Raises BadInput."""
    known = f"{', '.join(THERE)}, or folder alone"
    if isinstance(given, t.Mapping):
        if set(given) == {"folder"}:
            return _drill_folder(given["folder"], password)
        if given.get("login_password"):
            raise BadInput("drill_on: a password in it would be logged", cure="Give it as drill_password")
        unknown = next((str(name) for name in given if name not in THERE), None)
        if unknown:
            raise BadInput(f"drill_on: {unknown} is no option of that server", cure=f"There are: {known}")
        if not (given.get("login_host") or given.get("login_unix_socket")):
            raise BadInput("drill_on names no server", cure="Give login_host or login_unix_socket")
        return Elsewhere({str(name): value for name, value in given.items()}, password or "")
    if given not in (None, "", "throwaway", "same_server"):
        cure = f"It is throwaway, same_server, or a dictionary of {known}"
        raise BadInput(f"drill_on: {given!r} is not known", cure=cure)
    if password:
        raise BadInput("drill_password is for another server", cure="Name that in drill_on")
    return str(given or "throwaway")


def _drill_folder(given: t.Any, password: str | None) -> Elsewhere:
    if password:
        raise BadInput("drill_password is for another server", cure="Leave it out, where drill_on names a folder")
    return Elsewhere({"folder": folder_of(given, "drill_on, folder")})


def refuse_place(on: str | Elsewhere, server: Server) -> None:
    """Raises BadInput where no backup of this engine is tried out there."""
    if isinstance(on, Elsewhere):
        name, words = ("drill folder", "a folder") if on.folder else ("drill elsewhere", "another server")
        if name in server.lacks:
            raise BadInput(f"drill_on {words} is not for {server.engine}: {server.lacks[name]}")


def _level(params: t.Mapping[str, t.Any]) -> int | None:
    level, kind = params.get("compression_level"), params["compression"]
    if level is None:
        return None
    most = MOST.get(kind)
    if most is None or not 1 <= level <= most:
        cure = f"For {kind} it is 1 to {most}" if most else "Leave it out where nothing is compressed"
        raise BadInput(f"compression_level: {level} is not for compression {kind}", cure=cure)
    return int(level)


def _rate(given: t.Any) -> int | None:
    if given is None:
        return None
    found = size(given, "rate_limit")
    if found < 1024:
        raise BadInput(f"rate_limit: {given} a second would never end", cure="Write it as 50MB")
    return found


def _nice(given: int) -> int:
    if not 0 <= given <= 19:
        raise BadInput(f"nice: {given} is not from 0 to 19", cure="0 is as everybody, 19 the most modest")
    return given
