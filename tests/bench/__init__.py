# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benchmarks. A module is measured as Ansible starts it: a process of its own that imports all that it needs."""

from __future__ import annotations

import os

os.environ["DBFLEET_FORK"] = "0"
