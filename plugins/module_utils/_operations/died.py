# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that died, as findings: what somebody has to know whom no run can tell. Which they are says the journal."""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone

from .._records import Finding, Ref

if t.TYPE_CHECKING:
    from .._past import Died

CODE = "run_died"
FIX = "See what ended it in the log of the system: memory, a restart, a kill. The next run takes up what it left"


def findings(died: t.Iterable[Died]) -> tuple[Finding, ...]:
    """One a module."""
    return tuple(Finding(2, CODE, Ref(""), _said(run), fix=FIX) for run in died)


def _said(run: Died) -> str:
    began = datetime.fromtimestamp(run.began, timezone.utc)
    where = f" in {run.ref.database}" if run.ref.path else ""
    at = f"; it was at {run.kind.partition(' ')[0]} of {run.ref}{where}" if run.kind else ""
    return f"{run.module} began at {began:%Y-%m-%d %H:%M} UTC and died: process {run.pid} is gone{at}"
