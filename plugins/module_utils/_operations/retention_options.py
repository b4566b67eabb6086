# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of cleanup, and nothing else. What they mean: retention_rules.py."""

from __future__ import annotations

import typing as t

# One rule. Presets are dictionaries of the same fields, and may be overridden field by field.
RULE: dict[str, dict[str, t.Any]] = {
    "name": {"type": "str", "required": True},
    "table": {"type": "str", "required": True},
    "date_column": {"type": "str", "required": True},
    "archive_after": {"type": "str"},
    "delete_after": {"type": "str"},
    "where": {"type": "str"},
    "date_unit": {"type": "str", "choices": ["seconds", "milliseconds", "microseconds"]},
    "timezone": {"type": "str", "default": "UTC"},
    "archive_table": {"type": "str"},
    "archive_dir": {"type": "path"},
    "archive_format": {"type": "str", "choices": ["jsonl", "csv"], "default": "jsonl"},
    "archive_compression": {"type": "str", "choices": ["auto", "zstd", "gzip"], "default": "auto"},
    "rows_per_run": {"type": "int"},
    "refuse_over_rows": {"type": "int"},
    "refuse_over_percent": {"type": "float", "default": 50.0},
    "on_children": {"type": "str", "choices": ["fail", "delete", "archive"], "default": "fail"},
    "database": {"type": "str"},
    "enabled": {"type": "bool", "default": True},
}

OPTIONS: dict[str, t.Any] = {
    "rules": {"type": "list", "elements": "dict", "default": [], "options": RULE},
    "presets": {"type": "list", "elements": "raw", "default": []},
    "only": {"type": "list", "elements": "str", "default": []},
    "override": {"type": "dict", "default": {}},
    "partitions": {"type": "str", "choices": ["auto", "never"], "default": "auto"},
    "batch_seconds": {"type": "float", "default": 0.2},
    "duty_percent": {"type": "float", "default": 100.0},
    "require_backup": {"type": "str"},
    "backup_dir": {"type": "path"},
    "max_snapshot_age": {"type": "str"},
    "max_wal_backlog": {"type": "str"},
}
