# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of rotation, and nothing else. What they mean: rotation.py and rotation_law.py."""

from __future__ import annotations

import typing as t

from .backup_options import S3

COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")

OPTIONS: dict[str, t.Any] = {
    "backup_dir": {"type": "path", "required": True},
    "copy_to": {"type": "str"},
    "s3": {"type": "dict", "options": S3},
    **{f"keep_{name}": {"type": "int"} for name in COUNTS},
    "keep_within": {"type": "str"},
    "min_verified": {"type": "int", "default": 1},
    "timezone": {"type": "str", "default": "UTC"},
    "servers": {"type": "list", "elements": "str", "default": ["*"]},
}
