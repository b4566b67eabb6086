# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong with a fleet, and nothing else."""

from __future__ import annotations


class FleetError(Exception):
    """A server did not start, or a statement failed: the message holds what the program said."""


class Missing(FleetError):
    """This machine lacks a server or a part of it; the message says how to get it."""
