# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writing a backup of the accounts: users, roles and what they may do. Databases are written in dumping.py."""

from __future__ import annotations

import re
import typing as t

from ..._errors import Refused
from ..._records import Server, Tick, Work
from . import clients, dumping
from .capabilities import MARIADB
from .names import literal, quoted
from .privileges import Grants
from .scanning import Scanner

if t.TYPE_CHECKING:
    from ..._backups import Backup, Decryption
    from ..._tasks import Dump


def accounts(link: t.Any, task: Dump, server: Server, grants: Grants) -> Work:
    """Users, roles and what they may do: MariaDB's program writes them; for MySQL, whose does not, we ask."""
    from ..._files import store

    readable = grants.allow("SELECT", "mysql")
    if not readable:
        raise Refused("the login may not read the accounts", cure=grants.statement(["SELECT"], "mysql"))
    clients.role_of(link)
    tool = clients.of(server, "dump")
    lines = dumping.words(task, tool.path, server, grants, None)
    with clients.private_folder() as folder, store.part(task) as new:
        if server.engine == MARIADB:
            clients.write_login(folder, link.login, tool, encrypted=bool(link.cipher()))
            environment = clients.environment(folder)
            more = {"stop": link.stopped, "taps": [Scanner()], "cwd": folder}
            work = new.run(lines, environment, what="globals", ext="globals.sql", **more)
        else:
            work = new.feed(_accounts(link), what="globals", ext="globals.sql", stop=link.stopped, taps=[Scanner()])
            lines = [["", SHOWN]]
        yield from dumping.ticks(work, task.ref)
        sealed = new.seal(dumping.backup_of(task, server, tool, lines, new.began))
    yield Tick(note=sealed.id)


SHOWN = "SHOW CREATE USER, SHOW GRANTS"
OWN_ACCOUNTS = ("mysql.infoschema", "mysql.session", "mysql.sys")
DEFAULT_ROLE = re.compile(r" DEFAULT ROLE ((?:`(?:[^`]|``)+`@`(?:[^`]|``)*`,? ?)+)(?= REQUIRE|$)")


def _accounts(link: t.Any) -> t.Iterator[bytes]:
    """All accounts first, then what they may do and are by default: roles are accounts like others."""
    # Hashes hold any byte at all.
    link.rows("SET SESSION print_identified_with_as_hex = 1")
    rows = link.rows("SELECT User, Host FROM mysql.user ORDER BY User, Host")
    names = [f"{literal(str(u))}@{literal(str(h))}" for u, h in rows if str(u) not in OWN_ACCOUNTS]
    after = []
    yield b"-- Accounts\n\n"
    for name in names:
        text = str(link.rows(f"SHOW CREATE USER {name}")[0][0])
        found = DEFAULT_ROLE.search(text)
        if found:
            text = text[: found.start()] + text[found.end() :]
            after.append(f"SET DEFAULT ROLE {found.group(1).strip()} TO {name}")
        yield f"{text.replace('CREATE USER', 'CREATE USER IF NOT EXISTS', 1)};\n".encode()
    for name in names:
        for (grant,) in link.rows(f"SHOW GRANTS FOR {name}"):
            yield f"{grant};\n".encode()
    for statement in after:
        yield f"{statement};\n".encode()
    yield b"\n-- Dump completed\n"


# ---- tried out -------------------------------------------------------------------------------------------------------

EVERY = "SELECT User, Host FROM mysql.user"
WORDS = (b"GRANT ", b"CREATE USER ")
OF_THE_PROGRAM = b"mariadb_dump_import_role"
SECRET = re.compile(r" (?:IDENTIFIED|USING) .*", re.DOTALL)


def there(link: t.Any) -> set[bytes]:
    """The accounts of a server, as they are quoted in statements; MariaDB quotes those of GRANT PROXY otherwise."""
    rows = [(str(user), str(host)) for user, host in link.rows(EVERY)]
    return {f"{quote(user)}@{quote(host)}".encode() for user, host in rows for quote in (quoted, literal)}


def compared(link: t.Any, backup: Backup, decrypt: Decryption | None, before: t.Collection[bytes]) -> None:
    """Raises Refused where what the backup says of accounts that were not there `before` is not so on this server."""
    from ..._files import reader

    said = set(_said(link, before))
    for stored in backup.files:
        with reader.opened(backup, stored, decrypt) as lines:
            for line in lines:
                one = line.startswith(WORDS) and line.endswith(b";\n") and OF_THE_PROGRAM not in line
                if one and line.strip() not in said and not any(account in line for account in before):
                    words = SECRET.sub("", line.decode("utf-8", "replace").strip())
                    raise Refused(f"{backup.id} was restored, and this is not so: {words}")


def _said(link: t.Any, before: t.Collection[bytes]) -> t.Iterator[bytes]:
    """Statements, as they stand in backups, of those that were not there `before`."""
    if link.flavour.name != MARIADB:
        yield from (line.strip() for line in _accounts(link))
        return
    for user, host in link.rows(EVERY):
        if quoted(str(user)).encode() + b"@" + quoted(str(host)).encode() in before:
            continue
        name = f"{literal(str(user))}@{literal(str(host))}" if host else literal(str(user))  # a role has none
        for (grant,) in link.rows(f"SHOW GRANTS FOR {name}"):
            yield f"{grant};".encode()
        for (words,) in link.rows(f"SHOW CREATE USER {name}") if host else ():
            yield f"{words};".replace("CREATE USER", "CREATE USER IF NOT EXISTS", 1).encode()
