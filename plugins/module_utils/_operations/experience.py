# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What planners learn from the last rebuild of an object, whichever operation it was. Pure; the journal remembers."""

from __future__ import annotations

import typing as t

from .._units import say_bytes

if t.TYPE_CHECKING:
    from .._records import Attempt

GROWTH = 1.2


def gained_little(last: Attempt | None, size: int) -> str:
    """Why an object of `size` bytes is left alone, or nothing.

    A rebuild that gained less than half of what was expected shows the natural size: it waits for 20 % of growth.
    """
    if not last or not last.ok or last.expected_bytes <= 0:
        return ""
    if 2 * (last.bytes_before - last.bytes_after) >= last.expected_bytes:
        return ""
    if size > GROWTH * last.bytes_after:
        return ""
    return (
        f"looks bloated, but its last rebuild freed {say_bytes(last.bytes_before - last.bytes_after)} of"
        f" {say_bytes(last.expected_bytes)} expected: left alone until it has grown by 20 %"
    )
