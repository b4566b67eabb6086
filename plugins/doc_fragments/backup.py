# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_backup's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

S3 = r"""
s3:
  description:
    - How the S3-compatible service of O(copy_to) is reached. What is left out is looked for where boto3 looks for it,
      in the environment, its configuration and the instance's role.
  type: dict
  suboptions:
    endpoint_url:
      description:
        - Address of the service, as V(https://minio.example.com:9000). The default is AWS.
      type: str
    region:
      description:
        - Region of the bucket.
      type: str
    access_key:
      description:
        - Name of the access key.
      type: str
    secret_key:
      description:
        - Secret of the access key. It is never returned, logged, or on a command line.
      type: str
    session_token:
      description:
        - Session token of temporary credentials.
      type: str
    ca_bundle:
      description:
        - File with the certificate authority of the service.
      type: path
"""

OPTIONS = r"""
backup_dir:
  description:
    - Absolute path of the backup folder on the host where the module runs. It is made where it is not there, with mode
      0700; each database has a folder of its own inside.
    - Several servers may share it. Each counts its own backups only.
  type: path
  required: true
method:
  description:
    - V(dump) writes each database by its engine's own means. That is C(pg_dump), C(mysqldump) or C(mariadb-dump), and
      SQLite's backup interface. On MariaDB the programs that write a large database at once see one moment, for which
      nobody commits for an instant; it takes a login with C(RELOAD), and else one program writes all.
    - V(physical) writes the files of the whole server. That is C(pg_basebackup), and C(mariadb-backup), for which the
      module has to run on the server's own host. A method that there is no way to carry out on a server is refused with
      the reason.
    - V(pgbackrest) lets pgBackRest do so, where it is configured on the host. What it keeps counts whoever made it, by
      its C(info); each backup is verified by its C(verify), whose output is read, and by whether the log that it needs
      is there; and it expires its backups itself. C(verify) reads all that the repository holds. As root, its programs
      run as the user of the server.
    - V(auto) is V(dump).
  type: str
  choices: [auto, dump, physical, pgbackrest]
  default: auto
compression:
  description:
    - What the backups are compressed with while they are written.
  type: str
  choices: [zstd, gzip, none]
  default: zstd
compression_level:
  description:
    - From 1 to 19 for zstd, from 1 to 9 for gzip. The default is fast, and no larger than what the engine's own tool
      makes.
  type: int
encrypt:
  description:
    - To whom the backups are encrypted while they are written; nothing is on the disk in plain text at any moment.
      Only public keys are needed here, so that a host that is broken into gives none of its backups away.
    - An encrypted backup is read to its end while it is written, for nobody here can read it afterwards.
    - SQLite files go through memory then, which has to be large enough for them.
  type: dict
  suboptions:
    gpg_recipient:
      description:
        - Fingerprints or addresses of keys in the key ring of the user that the module runs as.
      type: list
      elements: str
    age_recipient:
      description:
        - Recipients of C(age), as C(age1…).
      type: list
      elements: str
min_interval:
  description:
    - Nothing is due while a backup that is verified as far as O(verify) asks for is younger than this, as V(20h).
    - Where such a backup lacks only its verification, or its copy, only that is due.
  type: str
  default: 20h
verify:
  description:
    - How far each backup is verified after it was written. V(checksum) reads it from the disk again and compares its
      hashes. V(decode) also decompresses and parses the whole of it. V(restore) also restores it as O(drill_on) says,
      compares it with what the manifest counts, and throws the restored database away.
    - The level that was reached, and when, stands in the manifest of the backup.
  type: str
  choices: [checksum, decode, restore]
  default: decode
drill_on:
  description:
    - Where V(restore) of O(verify) restores. V(throwaway) is a temporary server of the same version that is started
      for it; V(same_server) a scratch database on the server itself, with events and jobs asleep.
    - A dictionary of connection options is another server of the same kind, not older, where dumps are restored into
      a scratch database, whoever owned what and runs as whom. It may have C(login_host), C(login_port),
      C(login_user), C(login_unix_socket), C(login_db), C(ssl_mode), C(ca_cert), C(ssl_cert) and C(ssl_key); the
      password is O(drill_password). What belongs to a whole server is tried out on a temporary one all the same.
    - A dictionary with C(folder) alone names the folder in which a SQLite file is restored, in place of the one of the
      backups; or in which the temporary server of MySQL and MariaDB lies.
    - Elsewhere than on their own server, views of MySQL and MariaDB that need tables of other databases are left out.
      The finding C(views_not_tried) names them.
  type: raw
  default: throwaway
drill_password:
  description:
    - Password for the other server of O(drill_on). It is never returned, logged, or on a command line.
  type: str
globals:
  description:
    - Back up what belongs to no database, too, such as roles, tablespaces, users and grants.
  type: bool
  default: true
exclude_tables:
  description:
    - Patterns of tables whose rows are left out. Their definitions are backed up.
  type: list
  elements: str
  default: []
copy_to:
  description:
    - Where each verified backup is copied to, and compared there. Another folder, such as a mounted share, or
      V(s3://bucket/prefix).
    - The backup's manifest says where before anything is there. What a run leaves that is killed in the middle is
      finished or removed by the next copy, or by the rotation of the backup; nothing that manifests do not name is
      touched.
    - In a bucket the key has to read, write, list and delete below the prefix, and to list and end multipart uploads
      (s3:ListBucketMultipartUploads, s3:AbortMultipartUpload).
  type: str
rate_limit:
  description:
    - Read at most so much a second from the server, as V(50MB).
  type: str
nice:
  description:
    - How modest the programs that dump and compress are, from 0 to 19.
  type: int
  default: 0
pin:
  description:
    - Rotation never removes backups that are made with this.
  type: bool
  default: false
bin_dir:
  description:
    - Folder with the client programs of the server. By default they are looked for on the path and where packages put
      them, and one that is as new as the server is taken.
  type: path
full_interval:
  description:
    - A full backup is made when the last verified one is older than this, as V(7d). In between, backups hold what
      changed since another one. They build on none that is not verified. Without this each backup is full.
    - It is for the methods V(pgbackrest), and V(physical) of PostgreSQL 17 and newer where C(summarize_wal) is on. What
      is encrypted cannot be built on.
  type: str
incremental_from:
  description:
    - What a backup between two full ones builds on. V(last) is the one before it, so that it is small; V(full) is the
      last full one, so that a restore needs two of them only.
  type: str
  choices: [last, full]
  default: last
pgbackrest_stanza:
  description:
    - The stanza of pgBackRest. By default it is the one of this very server, by its system identifier.
  type: str
pgbackrest_repo:
  description:
    - Number of the repository of pgBackRest, where it has several and not all of them are meant. By default the backups
      of all of them count, and it chooses where the next one goes.
  type: int
pgbackrest_config:
  description:
    - The configuration file of pgBackRest, where it is not where pgBackRest looks for it.
  type: path
""" + S3.lstrip("\n")


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def _nested(text: str, option: str) -> str:
    """The same text where the options stand inside another one: what they say of each other names that one, too."""
    names = re.findall(r"^([a-z0-9_]+):$", text, re.MULTILINE)
    return re.sub(r"O\((" + "|".join(names) + r")\)", rf"O({option}.\1)", text)


class ModuleDocFragment:
    DOCUMENTATION: str
    NESTED: str


# Assigned here and not in the class body, where the documentation tools take literals only.
ModuleDocFragment.DOCUMENTATION = "options:\n" + _indented(OPTIONS.lstrip("\n"), 2)
ModuleDocFragment.NESTED = (
    "options:\n"
    "  backup:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_backup) would do with these of its options.\n"
    "      - Without it backups are not assessed, and not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "backup"), 6)
)
