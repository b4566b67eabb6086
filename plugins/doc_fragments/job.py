# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of how modules that may take long are carried out: alone, and followed from the controller."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  action:
    description: Indicates this has a corresponding action plugin so some parts of the options can be executed on the
      controller.
    support: partial
    details:
      - The action starts the module, waits for it, and shows how far it is. All else is done by the module.
  async:
    description: Supports being used with the C(async) keyword.
    support: full
notes:
  - On hosts that Ansible reaches by a connection the module goes on alone once it has begun, outside of check mode and
    C(async). A connection that drops does not end it. Ansible comes back for its result, for as long as the variable
    C(maintenance_reconnect) says (V(5m)), and calls the host unreachable then. Ctrl-C ends C(ansible-playbook), and
    not what is at work; use the playbook C(dbfleet.maintenance.stop).
  - On a terminal a line a host tells every few seconds how far it is, as the server itself says or by rows and bytes.
    Into a pipe and under AWX nothing is shown. With C(connection=local) there is no connection to lose, and the module
    goes on alone only where it is shown.
  - The variable C(maintenance_progress) set to V(false) switches both off; V(true) lets modules go on alone with
    C(connection=local), too.
"""
