# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The table at the end of the demo: what was due and why, what was done, bytes or rows before and after. Pure."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes
from tests.playbook import Call

WIDTHS = (9, 25, 34, 9, 9, 9)
HEAD = ("host", "object", "due because", "done", "before", "after")


def table(calls: Iterable[Call]) -> list[str]:
    """One row a step; columns are wrapped, never cut."""
    lines = [_line(HEAD), _line(["-" * width for width in WIDTHS])]
    shown = ""
    for call in calls:
        for step in call.fact.get("steps", ()):
            lines += _row(call.host if call.host != shown else "", step)
            shown = call.host
    return lines


def _row(host: str, step: dict[str, Any]) -> list[str]:
    actual = step["actual"]
    sizes = [say_bytes(actual[key]) if actual.get(key) is not None else "" for key in ("bytes_before", "bytes_after")]
    if "rows_remaining" in actual:  # rows that are due, before and after
        counts = (step["measured"]["rows"], actual["rows_remaining"])
        sizes = ["" if count is None else f"{count:,} rows" for count in counts]
    done = step["kind"] if step["status"] == "done" else f"{step['kind']} {step['status']}"
    if step["proven"] is False:
        done += ", still due"
    cells = [host, _name(step), step["reason"], done, *sizes]
    wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(cells, WIDTHS, strict=True)]
    height = max(len(cell) for cell in wrapped)
    return [_line([cell[i] if i < len(cell) else "" for cell in wrapped]) for i in range(height)]


def _line(cells: Sequence[str]) -> str:
    left, right = cells[:4], cells[4:]
    words = [cell.ljust(width) for cell, width in zip(left, WIDTHS, strict=False)]
    words += [cell.rjust(width) for cell, width in zip(right, WIDTHS[4:], strict=True)]
    return " ".join(words).rstrip()


def _name(step: dict[str, Any]) -> str:
    """The object; of files the last part of the path."""
    name = step["object"] if step["object"] != step["database"] else step["database"]
    return str(name).rsplit("/", 1)[-1]
