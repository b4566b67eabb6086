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
    words += settings(name, about)
    if about.get("acl"):
        words.append(f"REVOKE ALL ON {database} FROM PUBLIC")
        # Owners may have lost privileges, too. They can always give them back to themselves.
        words += [f"REVOKE ALL ON {database} FROM {quoted(about['owner'])}"] if about.get("owner") else []
        words += [_grant(database, *entry) for entry in _entries(about)]
    if re.fullmatch(r"\d{1,9}", about.get("limit", "")):
        words.append(f"ALTER {database} CONNECTION LIMIT {about['limit']}")
    if about.get("template"):
        words.append(f"ALTER {database} IS_TEMPLATE true")
    return words


def settings(name: str, about: t.Mapping[str, str]) -> list[str]:
    """The database's, and those of roles in it. A server may not know one, or not its value. Raises Refused."""
    database = f"DATABASE {quoted(name)}"
    words = [f"ALTER {database} SET {_setting(each)}" for each in _list(about, "settings")]
    return [*words, *(f"ALTER ROLE {role} IN {database} SET {_setting(each)}" for role, each in _of_roles(about))]


def preloads(name: str, about: t.Mapping[str, str]) -> list[str]:
    """What of the settings loads libraries into each session. Raises Refused."""
    found = (each for each in _list(about, "settings") if str(each).startswith("session_preload_libraries="))
    return [f"ALTER DATABASE {quoted(name)} SET {_setting(each)}" for each in found]


def labellers(about: t.Mapping[str, str]) -> list[str]:
    """Who provides labels of the database, or of anything in it. Raises Refused."""
    return sorted({*(str(each) for each in _list(about, "labellers")), *(who for who, _label in _pairs(about))})


def labels(name: str, about: t.Mapping[str, str], but: t.Collection[str] = ()) -> list[str]:
    """The database's own, without those of some providers. Raises Refused."""
    return [label(name, who, literal(said)) for who, said in _pairs(about) if who not in but]


def label(name: str, provider: str, words: str = "NULL") -> str:
    return f"SECURITY LABEL FOR {quoted(provider)} ON DATABASE {quoted(name)} IS {words}"


def _pairs(about: t.Mapping[str, str]) -> list[tuple[str, str]]:
    try:
        return [(str(provider), str(words)) for provider, words in _list(about, "labels")]
    except (TypeError, ValueError):
        raise Refused("the manifest's labels cannot be read") from None


def _of_roles(about: t.Mapping[str, str]) -> t.Iterator[tuple[str, str]]:
    """Settings that hold for one role in this database. Raises Refused."""
    for role, found in _settings_of_roles(about):
        yield from ((quoted(role), each) for each in found)


def _settings_of_roles(about: t.Mapping[str, str]) -> list[tuple[str, list[str]]]:
    try:
        return [(str(role), [str(each) for each in found]) for role, found in _list(about, "role_settings")]
    except (TypeError, ValueError):
        raise Refused("the manifest's role_settings cannot be read") from None


def roles(about: t.Mapping[str, str]) -> list[str]:
    """Those that the statements name: the dump's, and the database's own. Raises Refused."""
    return list(dict.fromkeys([*(str(each) for each in _list(about, "roles")), *own_roles(about)]))


def own_roles(about: t.Mapping[str, str]) -> list[str]:
    """Those without which the database itself cannot be as it was. Raises Refused."""
    found = [about.get("owner"), *(role for role, _settings in _settings_of_roles(about))]
    found += [str(grantee) for grantee, public, _privilege, _grantable in _entries(about) if not public]
    return list(dict.fromkeys(each for each in found if each))


def same(ours: t.Mapping[str, str], theirs: t.Mapping[str, str], but: t.Collection[str] = ()) -> list[str]:
    """Which of the things differ that belong to a database. Its place may: tablespaces need not be there.

    Who granted a privilege may, too: a superuser grants in the owner's name. Raises Refused.
    """
    plain = ("encoding", "collate", "ctype", "provider", "locale", "rules", "owner", "limit", "template")
    wrong = [key for key in plain if key in ours and key not in but and ours[key] != theirs.get(key)]
    for key, read in (("settings", settings), ("privileges", _granted), ("labels", labels)):
        if key not in but and read("", ours) != read("", theirs):
            wrong.append(key)
    return wrong


def _granted(_name: str, about: t.Mapping[str, str]) -> list[str]:
    given: dict[str, bool] = {}
    for grantee, public, privilege, grantable in _entries(about):
        key = json.dumps([None if public else grantee, privilege])
        given[key] = given.get(key, False) or bool(grantable)
    return sorted(f"{key} {grantable}" for key, grantable in given.items()) if "acl" in about else ["as ever"]


def _entries(about: t.Mapping[str, str]) -> list[tuple[t.Any, t.Any, t.Any, t.Any]]:
    found = [tuple(each) if isinstance(each, list) else () for each in _list(about, "acl")]
    if any(len(each) != 4 for each in found):
        raise Refused("the manifest's acl cannot be read")
    return t.cast("list[tuple[t.Any, t.Any, t.Any, t.Any]]", found)


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


def _grant(database: str, grantee: t.Any, public: t.Any, privilege: t.Any, grantable: t.Any) -> str:
    if privilege not in PRIVILEGES:
        raise Refused(f"the manifest's acl names a privilege that databases do not have: {privilege!r}")
    to = "PUBLIC" if public else quoted(str(grantee))
    return f"GRANT {privilege} ON {database} TO {to}{' WITH GRANT OPTION' if grantable else ''}"
