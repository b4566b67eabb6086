# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_backup_rotate's options, once for the module and once inside db_assess_facts."""

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
    - Absolute path of the backup folder on the host where the module runs.
  type: path
  required: true
copy_to:
  description:
    - Where M(dbfleet.maintenance.db_backup) copied to. The copies of what is removed are removed there, too. Without it
      copies are left alone, and mentioned.
  type: str
keep_last:
  description:
    - Keep so many of the newest backups.
  type: int
keep_hourly:
  description:
    - Keep the newest backup of so many hours, counted from the newest back; hours without a backup do not count. Of the
      backups of one hour a verified one is preferred.
  type: int
keep_daily:
  description:
    - The same for days.
  type: int
keep_weekly:
  description:
    - The same for weeks, which begin on Mondays.
  type: int
keep_monthly:
  description:
    - The same for months.
  type: int
keep_yearly:
  description:
    - The same for years.
  type: int
keep_within:
  description:
    - Keep every backup of the last, as V(14d), before the newest one, and the first one before them. The longest pause
      between two backups is not counted, so that a clock that jumps takes none away.
  type: str
min_verified:
  description:
    - Keep at least so many whole backups that are verified to V(decode) or V(restore). While there are fewer, none is
      removed. The newest verified one is never removed.
  type: int
  default: 1
timezone:
  description:
    - Time zone whose hours, days, weeks, months and years count, as V(Europe/Berlin).
  type: str
  default: UTC
servers:
  description:
    - Patterns of the servers whose backups are rotated, where several share the folder. They are held against the
      identity of the server that stands in the manifests, and against its address.
  type: list
  elements: str
  default: ["*"]
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
    "  rotate:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_backup_rotate) would do with these of its options.\n"
    "      - Without it rotation is not assessed, and not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "rotate"), 6)
)
