# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs joined by pipes, without a shell: each one's exit status and words are read. Knows no file of a backup."""

from __future__ import annotations

from .._errors import Refused


class ProgramFailed(Refused):
    """A program did not end well. An engine may translate it into what it means (Busy, Gone …)."""

    program: str  # its name, without the folder
    code: int  # its exit status; negative: the signal that it died of
    said: str  # the end of what it wrote to standard error
