# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_cleanup's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
rules:
  description:
    - Which rows leave which table, and when. Two rules must not have the same name.
    - Ages are counted back from the server's clock at the start of the run. A row is due when its date lies before
      that moment; rows without a date never leave.
  type: list
  elements: dict
  default: []
  suboptions:
    name:
      description:
        - The rule's name, for O(only), for messages and for the journal.
      type: str
      required: true
    table:
      description:
        - The table as V(schema.table), or V(table) where that is the only one of its name.
      type: str
      required: true
    date_column:
      description:
        - The column that a row's age is counted from. A date, a timestamp with or without time zone, or a whole number
          (see O(rules[].date_unit)); in SQLite also text as ISO 8601.
        - An index that begins with it makes finding the rows cheap. Without one the table is walked by its primary key,
          and a finding names the missing index.
      type: str
      required: true
    archive_after:
      description:
        - Rows older than this, as V(90d), move into O(rules[].archive_table) or O(rules[].archive_dir).
      type: str
    delete_after:
      description:
        - Rows older than this, as V(2w), are deleted.
        - With O(rules[].archive_after), which must be shorter, rows move to the archive at the first age, and leave the
          archive at this one. Rows of the table that have reached it already are deleted without being archived.
      type: str
    where:
      description:
        - An SQL condition on the table's rows that has to hold, too, as V(status = 'paid'). It is handed to the server
          as it is. With one, partitions are not dropped as a whole.
        - It decides which rows are archived or deleted; the archive is cleaned by age alone.
      type: str
    date_unit:
      description:
        - What a date column counts that is a whole number, since 1970-01-01 00:00 UTC. Needed for such columns, and
          refused for others.
      type: str
      choices: [seconds, milliseconds, microseconds]
    timezone:
      description:
        - The time zone of a date column that has none itself, as V(Europe/Berlin).
      type: str
      default: UTC
    archive_table:
      description:
        - The table that rows move to, in the same transaction. It is created like the source when it is missing, and
          gets the columns that the source has got since. Its schema must exist.
        - The default is the table's name with C(_archive) behind it, if O(rules[].archive_after) is given without
          O(rules[].archive_dir).
      type: str
    archive_dir:
      description:
        - The directory of compressed files that rows move to, on the host where the module runs; an absolute path. Each
          file has a manifest beside it with row count, columns and SHA-256. It is created when it is missing.
      type: path
    archive_format:
      description:
        - How archive files are written. V(jsonl) has one JSON object a row, V(csv) is RFC 4180 with a header.
      type: str
      choices: [jsonl, csv]
      default: jsonl
    archive_compression:
      description:
        - How archive files are compressed. V(auto) is zstd where Python has a library for it, else gzip.
      type: str
      choices: [auto, zstd, gzip]
      default: auto
    rows_per_run:
      description:
        - At most so many rows leave the tables of one database in one run by this rule; the rest is held back for the
          next. Partitions that are dropped as a whole are not counted.
      type: int
    refuse_over_rows:
      description:
        - Nothing leaves, and a finding says so, when more rows than this are due in one database.
      type: int
    refuse_over_percent:
      description:
        - Nothing leaves, and a finding says so, when more than this share of the table's rows is due.
      type: float
      default: 50.0
    on_children:
      description:
        - What happens where rows of other tables hang from due ones by foreign keys, over any number of levels and
          whatever the foreign keys themselves do on delete.
        - V(fail) refuses the rule, and a finding lists them with counts.
        - V(delete) deletes them first, in the same bites.
        - V(archive) archives them where the rule archives, into the child's name with C(_archive) behind it or into
          files of their own, and deletes them where it deletes. What is archived of children stays there.
      type: str
      choices: [fail, delete, archive]
      default: fail
    database:
      description:
        - The rule is for this database. The default is every selected one that has the table.
      type: str
    enabled:
      description:
        - With V(false) the rule runs only when O(only) names it.
      type: bool
      default: true
presets:
  description:
    - Rules that are known by name, as V(django_sessions), or dictionaries that override a preset field by field with
      those of O(rules). In a dictionary C(preset) names the preset, and C(name) gives the rule another name; C(name)
      alone does both. A field that is set to null is taken away.
    - A preset's table that is not there is no news, unless O(presets) names another one.
  type: list
  elements: raw
  default: []
only:
  description:
    - Run only the rules and presets of these names, also those that are not enabled.
  type: list
  elements: str
  default: []
override:
  description:
    - Fields that the rules named in O(only) take for this run, as V(delete_after=7d rows_per_run=10000). Meant for the
      command line; refused without O(only).
  type: dict
  default: {}
partitions:
  description:
    - V(auto) drops partitions all of whose rows are due instead of deleting their rows; where the rule archives, after
      they are archived. The last, the default and the MAXVALUE partition always stay.
    - V(never) deletes rows only.
  type: str
  choices: [auto, never]
  default: auto
batch_seconds:
  description:
    - How long one bite should take, in seconds. Its number of rows is adapted to that.
  type: float
  default: 0.2
require_backup:
  description:
    - Nothing leaves a database whose last verified backup is older than this, as V(26h), or unknown.
  type: str
max_snapshot_age:
  description:
    - Wait between two bites while another transaction is open for longer than this. It would keep the deleted rows
      from being reused.
  type: str
max_wal_backlog:
  description:
    - Wait between two bites while more than this, as V(10GB), of write-ahead log waits to be archived or replicated
      (PostgreSQL), or binary logs take more than this (MySQL, MariaDB). What cannot be known is too much.
  type: str
"""


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def _nested(text: str, option: str) -> str:
    """The same text where the options stand inside another one: what they say of each other names that one, too."""
    names = re.findall(r"^([a-z_]+):$", text, re.MULTILINE)
    return re.sub(r"O\((" + "|".join(names) + r")([)\[])", rf"O({option}.\1\2", text)


class ModuleDocFragment:
    DOCUMENTATION: str
    NESTED: str


# Assigned here and not in the class body, where the documentation tools take literals only.
ModuleDocFragment.DOCUMENTATION = "options:\n" + _indented(OPTIONS.lstrip("\n"), 2)
ModuleDocFragment.NESTED = (
    "options:\n"
    "  cleanup:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_cleanup) would do with these of its options.\n"
    "      - Without it cleanup is not assessed, and is not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "cleanup"), 6)
)
