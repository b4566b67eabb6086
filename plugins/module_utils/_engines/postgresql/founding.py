# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A database made for what a dump holds: its words, from what the manifest says of the old one. No dump is read."""

from __future__ import annotations

import hashlib
import json
import re
import typing as t

from ..._errors import Refused
from .names import literal, quoted

MARK = "dbfleet: being restored"  # the comment of a database that is not complete
INTERIM = re.compile("dbfleet_restoring_[0-9a-f]{12}")
# Settings whose value is a list of names. Source: variable_is_guc_list_quote()
LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)
NAMES = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^",\s]+))\s*(?:,|\Z)')
PRIVILEGES = ("CONNECT", "CREATE", "TEMPORARY")
PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def interim(name: str) -> str:
    """What a database is called until it is complete."""
    return f"dbfleet_restoring_{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def create(name: str, about: t.Mapping[str, str], major: int, tablespaces: t.Collection[str] = ()) -> str:
    """From template0, since a template1 may hold what the dump holds. Source: the manual, CREATE DATABASE.

    `tablespaces` that are there: where its own one is, that stays the default for all that is in it.
    """
    words = [f"CREATE DATABASE {quoted(name)} TEMPLATE template0"]
    for option, key in (("ENCODING", "encoding"), ("LC_COLLATE", "collate"), ("LC_CTYPE", "ctype")):
        words += [f"{option} {literal(about[key])}"] if about.get(key) else []
    provider = PROVIDERS.get(about.get("provider", "c"), "libc")
    if provider != "libc":
        words.append(f"LOCALE_PROVIDER {provider}")
        option = "BUILTIN_LOCALE" if provider == "builtin" else "ICU_LOCALE"
        words += [f"{option} {literal(about['locale'])}"] if about.get("locale") else []
        words += [f"ICU_RULES {literal(about['rules'])}"] if about.get("rules") and major >= 16 else []
    words += [f"TABLESPACE {quoted(about['tablespace'])}"] if about.get("tablespace") in tablespaces else []
    return " ".join(words)


def comment(name: str, about: t.Mapping[str, str]) -> str:
    return f"COMMENT ON DATABASE {quoted(name)} IS {literal(about['comment']) if about.get('comment') else 'NULL'}"


def furnish(name: str, about: t.Mapping[str, str]) -> list[str]:
    """What pg_dump keeps for a database of the same name only: owner, settings, privileges, limit. Raises Refused."""
    database, words = f"DATABASE {quoted(name)}", []
    if about.get("owner"):
        words.append(f"ALTER {database} OWNER TO {quoted(about['owner'])}")
    words += [f"ALTER {database} SET {_setting(each)}" for each in _list(about, "settings")]
    words += [f"ALTER ROLE {role} IN {database} SET {_setting(each)}" for role, each in _of_roles(about)]
    if about.get("acl"):
        words.append(f"REVOKE ALL ON {database} FROM PUBLIC")
        words += [_grant(database, entry) for entry in _list(about, "acl")]
    if re.fullmatch(r"\d{1,9}", about.get("limit", "")):
        words.append(f"ALTER {database} CONNECTION LIMIT {about['limit']}")
    if about.get("template"):
        words.append(f"ALTER {database} IS_TEMPLATE true")
    return words


def _of_roles(about: t.Mapping[str, str]) -> t.Iterator[tuple[str, str]]:
    """Settings that hold for one role in this database. Raises Refused."""
    try:
        for role, settings in _list(about, "role_settings"):
            yield from ((quoted(str(role)), str(each)) for each in settings)
    except (TypeError, ValueError):
        raise Refused("the manifest's role_settings cannot be read") from None


def roles(about: t.Mapping[str, str]) -> list[str]:
    """Those that the dump's statements name."""
    return [str(each) for each in _list(about, "roles")]


def _list(about: t.Mapping[str, str], key: str) -> list[t.Any]:
    try:
        found = json.loads(about.get(key) or "[]")
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise Refused(f"the manifest's {key} cannot be read")
    return found


def _setting(text: str) -> str:
    name, _sign, value = str(text).partition("=")
    words = literal(value)
    if name in LISTS:
        words = ", ".join(literal((a.replace('""', '"') if a else b) or "") for a, b in NAMES.findall(value)) or "''"
    return f"{'.'.join(quoted(part) for part in name.split('.'))} TO {words}"


def _grant(database: str, entry: t.Any) -> str:
    try:
        grantee, public, privilege, grantable = entry
    except (TypeError, ValueError):
        raise Refused("the manifest's acl cannot be read") from None
    if privilege not in PRIVILEGES:
        raise Refused(f"the manifest's acl names a privilege that databases do not have: {privilege!r}")
    to = "PUBLIC" if public else quoted(str(grantee))
    return f"GRANT {privilege} ON {database} TO {to}{' WITH GRANT OPTION' if grantable else ''}"
