# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_restore's options."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  backup_dir:
    description:
      - Absolute path of the backup folder on the host where the module runs. It is needed, with O(database), where
        O(path) is not given.
    type: path
  database:
    description:
      - The database whose backup is restored; for SQLite the path of its file, as it was.
    type: str
  which:
    description:
      - V(latest), the id of a backup, or a moment as V(2026-11-22T06:30:00Z), which takes the newest backup that began
        until then. A moment without a time zone is in UTC.
    type: str
    default: latest
  path:
    description:
      - Absolute path of the manifest, or of a file, of the backup to be restored, in place of O(backup_dir),
        O(database) and O(which).
    type: path
  server:
    description:
      - Whose backup, where several servers share the folder and this is none of them. The identity that stands in the
        manifest, or the address.
    type: str
  decrypt:
    description:
      - What an encrypted backup is read with.
    type: dict
    suboptions:
      age_identity:
        description:
          - File with the identity of C(age).
        type: path
      gpg_home:
        description:
          - Folder of the key ring of gpg. The default is that of the user that the module runs as.
        type: path
      gpg_passphrase:
        description:
          - Passphrase of the key, where it has one. It is handed over by a pipe, and never returned or logged.
        type: str
  target:
    description:
      - Name of the database that comes to be; for SQLite the path of the file. The default is the database that was
        backed up.
    type: str
  replace:
    description:
      - Replace a database of that name. It stays as it is until the restored one is complete and has been compared.
        Without this a database that is there is never touched, and the module fails.
    type: bool
    default: false
  globals:
    description:
      - Restore what belonged to no database, too, such as roles and grants, as it was then.
    type: bool
    default: false
  drill:
    description:
      - Restore the backup, compare it with what its manifest counts, throw it away, and write into the manifest that it
        is proven. Nothing is due where that stands there already. A backup of a whole server (method V(physical)) is
        named by O(path).
    type: bool
    default: false
  drill_on:
    description:
      - Where a drill restores. V(throwaway) is a temporary server of the same version that is started for it;
        V(same_server) a scratch database on the server itself, with events and jobs asleep.
      - A dictionary of connection options is another server of the same kind, not older, where the dump is restored
        into a scratch database, whoever owned what and runs as whom. It may have C(login_host), C(login_port),
        C(login_user), C(login_unix_socket), C(login_db), C(ssl_mode), C(ca_cert), C(ssl_cert) and C(ssl_key); the
        password is O(drill_password).
      - A dictionary with C(folder) alone names the folder in which a SQLite file is restored, in place of the one of
        the backups; or in which the temporary server of MySQL and MariaDB lies.
      - Where MySQL and MariaDB restore on another server than that of the backup, views that need tables of other
        databases are left out. The finding C(views_not_tried) names them.
    type: raw
    default: throwaway
  drill_password:
    description:
      - Password for the other server of O(drill_on). It is never returned, logged, or on a command line.
    type: str
  bin_dir:
    description:
      - Folder with the programs of the server. By default they are looked for on the path and where packages put them.
    type: path
  target_dir:
    description:
      - Absolute path of a data directory that comes to be from the newest backup of a whole server (method
        V(physical) or V(pgbackrest)), or from the one that O(which) or O(path) names. It must be empty, or not be
        there. No server is needed, and none that runs is touched. What is restored lies in a hidden folder in it until
        it is complete; where a restore has died there, that is recognised and removed first.
      - What was copied from a standby of PostgreSQL becomes a server of its own.
      - Not together with O(database), O(target), O(replace), O(globals) and O(drill).
    type: path
  tablespace_dir:
    description:
      - Absolute path of the folder that takes the tablespaces of PostgreSQL which lay outside of the data directory,
        each in a folder of its name. It must be empty, or not be there, and is only made where there are such. The
        default is O(target_dir) with C(.tablespaces) behind it.
    type: path
  target_owner:
    description:
      - The account that O(target_dir) belongs to. Where the module runs as root, the default is V(mysql) or
        V(postgres), as the server's packages make it; else it is the module's user.
    type: str
  prove:
    description:
      - Start a server on O(target_dir), reached by nobody else, and check what is in it, before the restore counts as
        done. It is stopped again. The programs of the server must be there for that.
      - With V(false) a server of PostgreSQL that is started there later may still replay the log that was archived
        since; what pgBackRest restores does so by itself.
    type: bool
    default: true
  copy_from:
    description:
      - Where copies of backups are, as O(dbfleet.maintenance.db_backup#module:copy_to) named it. A backup that is not
        in O(backup_dir), or not whole there, is fetched from it first and compared with its hashes; from then on it is
        a backup like others. Another folder, such as a mounted share, or V(s3://bucket/prefix).
    type: str
  s3:
    description:
      - How the S3-compatible service of O(copy_from) is reached. What is left out is looked for where boto3 looks for
        it, in the environment, its configuration and the instance's role.
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
