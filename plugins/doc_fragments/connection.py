# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the connection options: the names that community.postgresql and ansible.mysql use."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  engine:
    description:
      - What to speak. V(mysql) and V(mariadb) are the same code, and the server says which of them it is.
    type: str
    required: true
    choices: [postgresql, mysql, mariadb, sqlite]
  login_host:
    description:
      - Host of the server. Empty means a Unix socket for PostgreSQL, and V(localhost) for MySQL and MariaDB.
      - Not used for SQLite.
    type: str
    default: ""
  login_port:
    description:
      - Port of the server. PostgreSQL listens on V(5432) by default, MySQL and MariaDB on V(3306).
    type: int
  login_user:
    description:
      - Who to log in as. Without it the client library decides, for PostgreSQL C(PGUSER) or V(postgres).
    type: str
  login_password:
    description:
      - The password. It travels to client programs by a file of mode 0600 and is never shown.
    type: str
  login_unix_socket:
    description:
      - Directory (PostgreSQL) or path (MySQL, MariaDB) of the server's Unix socket.
      - For PostgreSQL a O(login_host) beside it other than V(localhost) is refused.
    type: str
    default: ""
  login_db:
    description:
      - The database to connect to first, for PostgreSQL V(postgres) by default. Which databases are maintained is
        the business of O(databases).
    type: str
    default: ""
  ssl_mode:
    description:
      - Whether and how strictly TLS is used, in libpq's words. For MySQL and MariaDB V(allow) means V(prefer).
      - V(verify-ca) and V(verify-full) need O(ca_cert); they never fall back to something weaker.
    type: str
    choices: [allow, disable, prefer, require, verify-ca, verify-full]
    default: prefer
  ca_cert:
    description:
      - File with the certificates of the authorities that the server's certificate is checked against.
    type: path
    aliases: [ssl_rootcert]
  ssl_cert:
    description:
      - File with the client's certificate.
    type: path
    aliases: [client_cert]
  ssl_key:
    description:
      - File with the client's key.
    type: path
    aliases: [client_key]
  check_hostname:
    description:
      - Whether the host name must be that of the certificate (MySQL, MariaDB). By default as O(ssl_mode) says.
    type: bool
  connect_timeout:
    description:
      - Longest wait for the connection, in seconds.
    type: int
    default: 30
  connect_params:
    description:
      - More parameters for the driver; for PostgreSQL any keyword of libpq.
    type: dict
    default: {}
  config_file:
    description:
      - An option file whose section C([client]) is read (MySQL, MariaDB). Options given here win over it.
    type: path
  session_role:
    description:
      - Role to take on after the login.
    type: str
requirements:
  - psycopg2 (package psycopg2-binary), or psycopg 3, for PostgreSQL
  - PyMySQL for MySQL and MariaDB
"""
