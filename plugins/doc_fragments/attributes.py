# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the attributes that every module declares, and keeps."""

from __future__ import annotations


class ModuleDocFragment:
    # What changes databases.
    ACTION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details:
      - Check mode measures and plans exactly as a run does, and leaves out only the carrying out. It writes nothing,
        neither to a database nor to the journal.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: full
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: partial
    details:
      - Steps follow from what is measured. A second run finds nothing due unless the databases were changed
        meanwhile, or options ask for what is not due.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action_group:
    description: Use C(group/dbfleet.maintenance.all) in C(module_defaults) to set connection options for all modules.
    support: full
    membership:
      - dbfleet.maintenance.all
"""

    # What only reads.
    FACTS = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
    details:
      - This module only reads.
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: N/A
    details:
      - This module changes nothing.
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: full
    details:
      - This module changes nothing.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action_group:
    description: Use C(group/dbfleet.maintenance.all) in C(module_defaults) to set connection options for all modules.
    support: full
    membership:
      - dbfleet.maintenance.all
  facts:
    description: Action returns an C(ansible_facts) dictionary that will update existing host facts.
    support: full
"""
