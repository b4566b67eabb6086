# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of db_report: the action plugin takes them, tests hold documentation and role equal. Nothing else."""

from __future__ import annotations

import typing as t

OPTIONS: dict[str, dict[str, t.Any]] = {
    "path": {"type": "str", "required": True},
    "data_path": {"type": "str"},
    "mode": {"type": "raw", "default": "0600"},
    "title": {"type": "str", "default": "Database maintenance"},
    "hosts": {"type": "list", "elements": "str"},
    "operations": {
        "type": "list",
        "elements": "str",
        "default": ["backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups"],
    },
    "history": {"type": "str", "default": "24h"},
    "backup_max_age": {"type": "str", "default": "26h"},
    "charts": {"type": "bool", "default": True},
    "metrics_path": {"type": "str"},
    "metrics_mode": {"type": "raw", "default": "0644"},
    "metrics_group": {"type": "str"},
    "metrics_labels": {"type": "dict", "default": {}},
}
