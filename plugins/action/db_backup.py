# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of db_backup: how it is started, followed and shown stands in plugin_utils/_job.py."""

from __future__ import annotations

from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._job import ActionModule

__all__ = ["ActionModule"]
