# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of db_alert: the action plugin takes them, tests hold documentation and role equal. Nothing else."""

from __future__ import annotations

import typing as t

from ._alarms import KINDS, MAX_AGES
from ._alert_times import DAYS

CHANNELS = ["mail", "slack", "webhook", "pager"]
TALKING = CHANNELS[:3]  # a pager is for what cannot wait

# Those that a role's user sets; the others tell of the run.
OPTIONS: dict[str, dict[str, t.Any]] = {
    "state_path": {"type": "str", "required": True},
    "title": {"type": "str", "default": "Database maintenance"},
    "hosts": {"type": "list", "elements": "str"},
    "operations": {
        "type": "list",
        "elements": "str",
        "default": ["backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate_backups"],
    },
    "ran": {"type": "list", "elements": "str", "default": []},
    "history": {"type": "str", "default": "24h"},
    "calls": {"type": "list", "elements": "str", "choices": CHANNELS, "default": []},
    "daily": {"type": "list", "elements": "str", "choices": TALKING, "default": []},
    "weekly": {"type": "list", "elements": "str", "choices": TALKING, "default": []},
    "reminder": {"type": "str"},
    "summary_at": {"type": "str", "default": "06:00"},
    "weekly_on": {"type": "str", "choices": list(DAYS), "default": "monday"},
    "timezone": {"type": "str", "default": ""},
    "mail_format": {"type": "str", "choices": ["html", "plain"], "default": "html"},
    "report_url": {"type": "str"},
    "kinds": {"type": "list", "elements": "str", "choices": list(KINDS), "default": list(KINDS)},
    "connection_warning": {"type": "float", "default": 80.0},
    "connection_critical": {"type": "float", "default": 95.0},
    "statement_warning": {"type": "str", "default": "2s"},
    "statement_critical": {"type": "str", "default": "5s"},
    "backup_warning": {"type": "str", "default": "26h"},
    "backup_critical": {"type": "str", "default": "50h"},
    "transaction_id_warning": {"type": "float", "default": 100.0},
    "transaction_id_critical": {"type": "float", "default": 150.0},
    "disk_warning": {"type": "str", "default": "30d"},
    "disk_critical": {"type": "str", "default": "7d"},
    "bloat_percent": {"type": "float", "default": 30.0},
    "bloat_min_size": {"type": "str", "default": "1GB"},
    "growth": {"type": "str", "default": "100MB"},
    "table_size": {"type": "str", "default": "1GB"},
    "run_max_age": {"type": "str", "default": "26h"},
    "operation_max_age": {"type": "dict", "default": MAX_AGES},
    "wait": {"type": "str", "default": "5m"},
    "run": {"type": "str"},
    "sent": {"type": "list", "elements": "dict"},
}
