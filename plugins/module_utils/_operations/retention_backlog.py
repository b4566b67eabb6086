# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the last run of a rule noted, and what follows from it: a backlog that grows. Nothing else."""

from __future__ import annotations

import json
import typing as t

from .._records import Finding, Note, Ref
from .._tuples import NamedTuple
from .retention_refusals import Case, say_moment


class Before(NamedTuple):
    """What a step of this rule on this table noted when it last ended: see nibble.py."""

    due: int | None
    removed: int
    allowed: int | None  # rows that it was allowed; None: all


def noted(note: Note | None) -> Before | None:
    """None where nothing was noted, or something that is none of ours."""
    try:
        said = json.loads(note.text) if note else {}
        return Before(said["due"], int(said["removed"]), said.get("allowed"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def backlog_grows(case: Case, ref: Ref, rows: int | None, note: Note | None) -> t.Iterator[Finding]:
    """More is due than when the last run began, though it removed rows and left some: it will never end."""
    before = noted(note)
    if note is None or before is None or before.due is None or rows is None or before.removed <= 0:
        return
    days = (case.measured.server.now - note.at).total_seconds() / 86400
    if days <= 0 or before.removed >= before.due or rows <= before.due:
        return
    coming, going = (rows - before.due + before.removed) / days, before.removed / days
    message = (
        f"the backlog grows: {coming:,.0f} rows a day become due and {going:,.0f} a day are removed;"
        f" {rows:,} rows are due now, {before.due:,} were on {say_moment(note.at)}"
    )
    fix = "Give the run more time, raise rows_per_run, run more often, or partition the table by its date"
    yield case.say(2, "backlog_grows", message, ref=ref, fix=fix)
