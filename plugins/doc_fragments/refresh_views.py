# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_refresh_views' options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
views:
  description:
    - Names of materialized views as C(schema.view), or C(view) alone, with V(*), V(?) and a leading V(-).
    - The default is every materialized view. One that is meant to stay empty has to be taken away, as
      V(["*", "-reports.draft"]); otherwise a view that was never filled is filled.
  type: list
  elements: str
  default: ["*"]
concurrent:
  description:
    - V(auto) lets readers go on (C(CONCURRENTLY)) where a unique index on plain columns covers all rows, and locks
      them out elsewhere. The first fill of a view always does; nobody can read it before.
    - V(always) never locks readers out, and reports a finding where there is no such index.
    - V(never) locks readers out while it runs, which takes about half the time.
  type: str
  choices: [auto, always, never]
  default: auto
stale_only:
  description:
    - Refresh only views whose tables changed since the last refresh that the journal knows of, that read another view
      which is refreshed, or that O(max_age) makes due.
    - V(false) refreshes all of them, every time.
  type: bool
  default: true
max_age:
  description:
    - Refresh at least so often, as V(1d), whatever the counters of the server say. For views that look at the clock or
      read foreign tables, which no counter shows. Without it those are reported.
  type: str
"""


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def _nested(text: str, option: str) -> str:
    """The same text where the options stand inside another one: what they say of each other names that one, too."""
    names = re.findall(r"^([a-z_]+):$", text, re.MULTILINE)
    return re.sub(r"O\((" + "|".join(names) + r")\)", rf"O({option}.\1)", text)


class ModuleDocFragment:
    DOCUMENTATION: str
    NESTED: str


# Assigned here and not in the class body, where the documentation tools take literals only.
ModuleDocFragment.DOCUMENTATION = "options:\n" + _indented(OPTIONS.lstrip("\n"), 2)
ModuleDocFragment.NESTED = (
    "options:\n"
    "  refresh_views:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_refresh_views) would do with these of its options.\n"
    "      - Without it views are not assessed, and none is due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "refresh_views"), 6)
)
