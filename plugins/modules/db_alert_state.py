# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_alert_state: the state of calls on a host that outlives the controller. Done by module_utils/_alert_state.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: db_alert_state
short_description: Keeps on a host what was told to whom about a fleet
version_added: 0.1.0
description:
  - Used by M(dbfleet.maintenance.db_alert) where its task is delegated to a host. Nobody has to call it.
  - The file is claimed by one run at a time, and replaced as a whole. It is for its owner alone.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
options:
  path:
    description:
      - The file. Folders above it are made.
    type: path
    required: true
  state:
    description:
      - V(claimed) reads the file for a run that is going to change it, V(saved) replaces it, V(peeked) only reads it.
    type: str
    choices: [claimed, saved, peeked]
    required: true
  run:
    description:
      - A name of the run, which the claim is held by.
    type: str
    required: true
  wait:
    description:
      - How many seconds to wait for another run that has claimed the file.
    type: float
    default: 0.0
  content:
    description:
      - What is to be in the file.
    type: str
  end:
    description:
      - Whether the claim ends with it.
    type: bool
    default: true
  aside:
    description:
      - Whether what is there is damaged, and is to be kept beside the new file.
    type: bool
    default: false
attributes:
  check_mode:
    description: Can run in C(check_mode) and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description:
      - Will return details on what has changed (or possibly needs changing in C(check_mode)), when in diff mode.
    support: none
  idempotent:
    description:
      - When run twice in a row outside check mode, with the same arguments, the second invocation indicates no
        change.
    support: full
    details:
      - It never says that something has changed, since the file is a memory of its own.
  platform:
    description: Target OS/families that can be operated against.
    support: full
    platforms: posix
  action_group:
    description: Use C(group/dbfleet.maintenance.all) in C(module_defaults) to set connection options for all modules.
    support: none
    membership: []
    details:
      - It is connected to no database.
seealso:
  - module: dbfleet.maintenance.db_alert
"""

EXAMPLES = r"""
- name: See what was told
  dbfleet.maintenance.db_alert_state:
    path: /var/lib/dbfleet/alerts.json
    state: peeked
    run: me
  register: found
"""

RETURN = r"""
content:
  description: What is in the file; nothing where there is none.
  returned: success
  type: str
held:
  description: Whether another run has claimed the file.
  returned: failure
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.dbfleet.maintenance.plugins.module_utils._alert_state import claim, peek, save
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Held

OPTIONS = {
    "path": {"type": "path", "required": True},
    "state": {"type": "str", "choices": ["claimed", "saved", "peeked"], "required": True},
    "run": {"type": "str", "required": True},
    "wait": {"type": "float", "default": 0.0},
    "content": {"type": "str"},
    "end": {"type": "bool", "default": True},
    "aside": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(OPTIONS, supports_check_mode=True, required_if=[("state", "saved", ["content"])])
    given = module.params
    path, dry = Path(given["path"]), module.check_mode
    content = given["content"]
    try:
        if given["state"] == "saved":
            if not dry:
                save(path, given["run"], content, end=given["end"], aside=given["aside"])
        elif given["state"] == "peeked" or dry:
            content = peek(path)
        else:
            content = claim(path, given["run"], wait=given["wait"])
    except Held as fault:
        module.fail_json(msg=str(fault), held=True)
    except OSError as fault:
        module.fail_json(msg=str(fault))
    module.exit_json(changed=False, content=content)


if __name__ == "__main__":
    main()
