# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups as their manifests tell of them, and how they are asked for. Beside _records.py on the bottom shelf."""

from __future__ import annotations

import typing as t
from datetime import datetime

from ._tuples import NamedTuple

LEVELS = ("", "checksum", "decode", "restore")  # of verification, each of them more than the one before


class Stored(NamedTuple):
    """One file of a backup, as it lies there: compressed, and encrypted where it is."""

    name: str  # relative to the folder of the manifest
    bytes: int
    sha256: str
    what: str  # dump, globals, physical
    plain_bytes: int = 0  # before it was compressed and encrypted; 0: unknown


class Backup(NamedTuple):
    """What a manifest says. Moments are in UTC."""

    id: str  # unique; begins with the moment at which it began, for whoever looks at the folder
    server: str  # which server, wherever it is reached: the engine's name and what tells its servers apart
    address: str  # where it was reached then
    engine: str  # postgresql, mysql, mariadb, sqlite
    version: str  # of the server
    database: str  # "": the server as a whole (physical), or what belongs to none of its databases (globals)
    method: str  # dump, physical, pgbackrest, globals
    tool: str  # "pg_dump 16.14"
    arguments: tuple[str, ...]  # of the tool; no secret is ever among them
    began: datetime
    ended: datetime
    files: tuple[Stored, ...]
    format: str = ""  # of the dump: custom, directory, sql, tar, file
    compression: str = "none"  # zstd, gzip, none
    encryption: str = ""  # gpg, age; "": none
    source_bytes: int = 0  # that the database had
    rows: t.Mapping[str, int] | None = None  # by table, of the same snapshot; None: the method does not tell
    sums: t.Mapping[str, str] | None = None  # by table, of its rows in any order; None: nobody has made them yet
    parent: str = ""  # id of the backup that an incremental one builds on
    pin: bool = False  # is never rotated away
    level: str = ""  # of LEVELS, reached so far
    verified_at: datetime | None = None
    copies: tuple[str, ...] = ()  # where it was copied to, and verified there
    copying: tuple[str, ...] = ()  # where something of it may be that no run has finished, or not yet
    about: t.Mapping[str, str] = {}  # what a restore needs beside: character set, collation, owner, position in the log
    folder: str = ""  # where the manifest was found; not part of it

    @property
    def bytes(self) -> int:
        """That it takes on the disk."""
        return sum(file.bytes for file in self.files)

    @property
    def whole(self) -> bool:
        """It needs no other backup."""
        return not self.parent


class Broken(NamedTuple):
    """A manifest that cannot be read, or whose files are missing or have another size. Neither counts nor protects."""

    name: str  # of the manifest, relative to the backup folder
    why: str
    backup: Backup | None = None  # where the manifest itself can be read


class Unfinished(NamedTuple):
    """What a backup that died left behind; nobody works on it any more."""

    database: str
    files: tuple[str, ...]  # relative to the backup folder
    bytes: int
    server: str = ""  # whose it was, as Backup.server says it; "": nobody knows
    removed: bool = False  # it was a backup, and was being removed


class Stanza(NamedTuple):
    """Where pgBackRest keeps the backups of a server. What is empty it finds, or takes by default, itself."""

    name: str = ""
    repo: int | None = None
    config: str = ""  # a file; "": where pgBackRest looks for it
    type: str = "full"  # of a backup that is to be made: full, incr, diff


class Repository(NamedTuple):
    """What another program keeps, as that program tells: of this server, the complete ones, oldest first."""

    stanza: Stanza = Stanza()
    backups: tuple[Backup, ...] = ()  # no manifest has been looked at: not one of them has a level
    why_not: str = ""  # why nothing can be kept there
    cure: str = ""


class Sheltered(NamedTuple):
    """What is wanted to be known of backups."""

    folder: str
    target: str = ""  # copies: a folder or s3://bucket/prefix; looked into only where it is a folder
    timeout: float | None = None
    bucket: Bucket | None = None  # how the service of `target` or `source` is reached; None: buckets are not looked at
    source: str = ""  # where copies are looked for that are not here: a folder or s3://bucket/prefix
    databases: tuple[str, ...] = ()  # whose copies are looked for there
    stanza: Stanza | None = None  # pgBackRest's repository is wanted, too: the engine asks for it
    site: str = ""  # a data directory that a whole server is to be restored into
    spaces: str = ""  # the folder of its tablespaces

    def merge(self, other: Sheltered | None) -> Sheltered:
        """Of several operations; one folder is looked into, the first one."""
        if other is None or other.folder != self.folder:
            return self
        return self._replace(
            target=self.target or other.target,
            bucket=self.bucket or other.bucket,
            stanza=self.stanza or other.stanza,
        )


class Site(NamedTuple):
    """A data directory that is to come to be, as it is: not there, or empty, or with what a dead run left there."""

    path: str
    why_not: str = ""  # why nothing can be restored there
    occupied: bool = False  # because something is there already
    free: int | None = None  # bytes of its file system
    device: int | None = None  # that file system
    left: bool = False  # a restore has died there: what it left is removed


class Shelf(NamedTuple):
    """The backup folder as it is."""

    folder: str
    backups: tuple[Backup, ...] = ()  # complete as far as a look at names and sizes tells; oldest first, by `began`
    broken: tuple[Broken, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()
    foreign: tuple[str, ...] = ()  # files that no manifest names: never touched
    free: int | None = None  # bytes of its file system
    device: int | None = None  # of its file system, to be compared with the data's
    why_not: str = ""  # why nothing can be written there
    vanished: tuple[str, ...] = ()  # ids of backups whose copies are not where their manifests say
    elsewhere: tuple[Backup, ...] = ()  # that only Sheltered.source has; `folder` is where they would lie here
    unseen: str = ""  # why copies could not be looked at
    site: Site | None = None  # Sheltered.site, where that is asked for
    spaces: Site | None = None  # Sheltered.spaces, likewise


class Encryption(NamedTuple):
    """To whom a backup is encrypted. Only public matter: whoever backs up need not be able to read."""

    program: str  # gpg, age
    recipients: tuple[str, ...]


class Decryption(NamedTuple):
    """What a backup is read with where it is encrypted. The passphrase is a secret; the rest names files."""

    identity: str = ""  # age: the file with the identity
    home: str = ""  # gpg: the folder of the key ring; "": the user's own
    passphrase: str = ""  # gpg: of the key; handed over by a pipe

    def __repr__(self) -> str:
        return f"Decryption(identity={self.identity!r}, home={self.home!r})"


class Bucket(NamedTuple):
    """How an S3-compatible service is reached. What is empty comes from where boto3 looks for it."""

    endpoint_url: str = ""
    region: str = ""
    access_key: str = ""
    secret_key: str = ""
    session_token: str = ""
    ca_bundle: str = ""  # a file; where the service has a certificate of one's own

    def __repr__(self) -> str:
        return f"Bucket(endpoint_url={self.endpoint_url!r}, region={self.region!r})"


class Elsewhere(NamedTuple):
    """Another server, or another folder, where backups are tried out. The password is a secret."""

    options: t.Mapping[str, t.Any]  # those of a connection, without the password; or `folder` alone
    password: str = ""

    @property
    def folder(self) -> str:
        """Where it is no server: for what is restored there."""
        return str(self.options.get("folder") or "")

    @property
    def address(self) -> str:
        if self.folder:
            return self.folder
        host = self.options.get("login_unix_socket") or self.options.get("login_host")
        port = self.options.get("login_port")
        return f"{host}:{port}" if port else str(host)

    def __repr__(self) -> str:
        return f"Elsewhere({self.address!r})"


class Manner(NamedTuple):
    """How a backup is written: the same for every engine, carried out by _files/."""

    folder: str  # the backup folder, absolute
    compression: str = "zstd"  # zstd, gzip, none
    compression_level: int | None = None  # None: fast, and no larger than what the engine's own tool makes by default
    encryption: Encryption | None = None
    rate_limit: int | None = None  # bytes a second, of what is read from the server
    nice: int = 0
    pin: bool = False
    identity: str = ""  # Backup.server
