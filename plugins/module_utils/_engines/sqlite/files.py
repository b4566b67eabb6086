# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files: which ones are databases, who may write to them, what space there is. No SQL."""

from __future__ import annotations

import glob
import os
import stat
import sys
import typing as t

from ..._errors import BadInput
from ..._records import Finding, Ref
from ..._selection import Patterns
from ..._tuples import NamedTuple

BESIDE = ("-wal", "-shm", "-journal")  # files that SQLite keeps beside a database, and that belong to it
_NAME_THEM = 'Name them by their full paths or globs, such as ["/srv/app/*.db", "-/srv/app/scratch.db"]'


class Found(NamedTuple):
    """The files that the option `databases` asks for."""

    paths: tuple[str, ...]  # resolved, each once
    findings: tuple[Finding, ...]


class Selection:
    """The option `databases` for files: paths and globs with `*`, `?`, `**`; a leading `-` takes away.

    An exclusion without a directory is held against the name alone: `-*.bak`. Raises BadInput; looks at no file yet.
    """

    def __init__(self, patterns: t.Sequence[str]) -> None:
        self.taken = [str(p) for p in patterns if not str(p).startswith("-")]
        away = [str(p) for p in patterns if str(p).startswith("-")]
        if not self.taken or "*" in self.taken:
            raise BadInput("databases: which files are SQLite databases is not known by itself", cure=_NAME_THEM)
        for path in self.taken:
            if not path.startswith("/"):
                raise BadInput(f"databases: {path!r} is no full path", cure=_NAME_THEM)
            _encodable(path)
        self.away = Patterns(away, "databases") if away else None

    def find(self) -> Found:
        """Looks for the files. Raises BadInput for a named file that is not there, or that is no file."""
        paths: dict[str, None] = {}
        findings = []
        for pattern in self.taken:
            if not _wild(pattern):
                paths[_literal(pattern)] = None
                continue
            matched = [p for p in sorted(glob.glob(_globbed(pattern), recursive=True)) if self._is_database(p)]
            paths.update((os.path.realpath(p), None) for p in matched)
            if not matched:
                message = f"no file matches {pattern}"
                findings.append(Finding(3, "nothing_selected", Ref(""), message, fix="See option databases"))
        chosen, twice = _one_name_each([p for p in paths if not self._excluded(p)])
        return Found(chosen, (*findings, *twice))

    def find_any(self) -> Found:
        """The named file, where it is there."""
        return Found(tuple(os.path.realpath(p) for p in self.taken if os.path.exists(p)), ())

    def _is_database(self, path: str) -> bool:
        return os.path.isfile(path) and not path.endswith(BESIDE) and not self._excluded(path)

    def _excluded(self, path: str) -> bool:
        # Patterns with nothing but exclusions take everything else.
        return self.away is not None and not self.away.takes(path, os.path.basename(path))


def _encodable(path: str) -> None:
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        encoding = sys.getfilesystemencoding()
        raise BadInput(
            f"databases: {path!a} cannot be written in the encoding of file names there, {encoding}",
            cure="Set LC_ALL=C.UTF-8 in the task's environment",
        ) from None


def _one_name_each(paths: t.Sequence[str]) -> tuple[tuple[str, ...], list[Finding]]:
    """Of the hard links of one file the first: SQLite's journals go by name, and by two names it is soon damaged.

    Source: https://www.sqlite.org/howtocorrupt.html, 2.5
    """
    names: dict[tuple[int, int], str] = {}
    findings = []
    for path in paths:
        own = os.stat(path)
        first = names.setdefault((own.st_dev, own.st_ino), path)
        if first != path:
            message = f"it is the same file as {first} (a hard link): used by both names it will be damaged"
            findings.append(Finding(2, "two_names", Ref(path), message, fix="Remove one of the two names"))
    return tuple(names.values()), findings


def _wild(pattern: str) -> bool:
    return "*" in pattern or "?" in pattern


def _globbed(pattern: str) -> str:
    """Only `*` and `?` are signs of ours: a bracket in a file's name is itself."""
    return pattern.replace("[", "[[]")


def _literal(path: str) -> str:
    real = os.path.realpath(path)
    if path.endswith(BESIDE) and os.path.isfile(path.rsplit("-", 1)[0]):
        raise BadInput(f"databases: {path} belongs to the database beside it", cure="Name the database")
    if not os.path.lexists(path) or not os.path.exists(real):
        raise BadInput(f"databases: there is no file {path}", cure="Mend the path; a database is never created")
    if not os.path.isfile(real):
        raise BadInput(f"databases: {path} is no regular file", cure="Name a file, or a glob such as /srv/app/*.db")
    return real


def size_of(path: str) -> int:
    """Bytes, 0 where there is no such file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def device_of(path: str) -> int | None:
    """Of the file system that the file is on; None where it is not there."""
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


def on_disk(path: str) -> int:
    """Bytes that a database takes: the file and its write-ahead log."""
    return size_of(path) + size_of(path + "-wal")


def marks(path: str) -> tuple[int, ...]:
    """What changes when anybody writes to the database, or begins to."""
    try:
        own = os.stat(path)
    except OSError:
        return ()
    return (own.st_ino, own.st_size, own.st_mtime_ns, size_of(path + "-wal"), int(os.path.exists(path + "-shm")))


def _may(path: str, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def why_unreadable(path: str) -> str:
    """Why the file cannot be read by this user, or nothing."""
    if not os.path.isfile(path):
        return "the file is not there any more"
    return "" if _may(path, os.R_OK) else "this user may not read the file"


def why_unwritable(path: str) -> str:
    """Why this user cannot, or must not, write to the database; or nothing.

    A journal or a write-ahead log is made beside the file. SQLite gives it the file's mode, and the file's owner only
    when root makes it (`robustFchown` in os_unix.c): made by anybody else, it could lock the application out.
    """
    folder = os.path.dirname(path)
    if not (_may(path, os.W_OK) and _may(folder, os.W_OK | os.X_OK)):
        read_only = os.statvfs(path).f_flag & getattr(os, "ST_RDONLY", 1)
        return "the file system is read-only" if read_only else "this user may not write to the file and its directory"
    own, user = os.stat(path), os.geteuid()
    if user in (0, own.st_uid):
        return ""
    group = os.stat(folder)
    inherits = bool(group.st_mode & stat.S_ISGID) and group.st_gid == own.st_gid
    if own.st_mode & stat.S_IWGRP and (inherits or os.getegid() == own.st_gid):
        return ""
    return (
        "another user owns the file, and what this user makes beside it could lock the owner out:"
        " run as the owner (become_user) or as root"
    )


def temporary_directory() -> str:
    """Where SQLite puts the copy that VACUUM makes, chosen as `unixTempFileDir` in os_unix.c chooses."""
    names = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"), "/var/tmp", "/usr/tmp", "/tmp", ".")
    return next((d for d in names if d and os.path.isdir(d) and _may(d, os.W_OK | os.X_OK)), ".")


def free_bytes(folder: str) -> tuple[int, int]:
    """Free for this user, and total. Raises OSError."""
    found = os.statvfs(folder)
    free = found.f_bfree if os.geteuid() == 0 else found.f_bavail
    return free * found.f_frsize, found.f_blocks * found.f_frsize


def same_file_system(one: str, other: str) -> bool:
    return os.stat(one).st_dev == os.stat(other).st_dev
