# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that select databases and tables."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  databases:
    description:
      - Names of databases, with V(*) and V(?); a leading V(-) takes away. The order does not matter, case does.
      - The default is every user database. A name without V(*) and V(?) must exist.
      - For SQLite a list of files or globs, which has to be given.
    type: list
    elements: str
    default: ["*"]
  tables:
    description:
      - Names of tables as C(schema.table), or C(table) alone, with V(*), V(?) and a leading V(-).
      - The default is every table.
    type: list
    elements: str
    default: ["*"]
"""
