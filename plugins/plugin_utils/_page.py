# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's report as one HTML page: _page.html.j2, _page.css and _page.js filled with what _fleet.py made. Pure.

Names, messages and statements come from databases: the template escapes everything, and a policy in the page allows
no script but our own, and nothing from elsewhere.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import typing as t
from datetime import datetime
from pathlib import Path

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_count, say_seconds

if t.TYPE_CHECKING:
    from jinja2 import Template

    from ._charts import Chart

Data = t.Mapping[str, t.Any]

HERE = Path(__file__).parent
MOST = 300  # findings and failures that are shown: the data file has all of them
LISTED = 12  # hosts of one finding
WORDS = {
    "failed": "failed",
    "unreachable": "out of reach",
    "silent": "did not report",
    "stopped": "not started",
    "due": "due",
    "unfinished": "not finished",
    "done": "done",
    "waiting": "not now",
    "healthy": "nothing due",
}
NOTHING = ""
FAR = 365  # days: nobody needs to know more exactly when a disk will be full
# Columns of what was done: title, key of a sum, how it is said.
SUMS = (
    ("hosts", "hosts", "count"),
    ("steps", "planned", "count"),
    ("done", "done", "count"),
    ("failed", "failed", "count"),
    ("deferred", "deferred", "count"),
    ("skipped", "skipped", "count"),
    ("rows", "rows", "count"),
    ("freed", "bytes_freed", "size"),
    ("written", "bytes_written", "size"),
    ("time", "seconds", "duration"),
)


def page(data: Data, charts: t.Sequence[Chart], *, why_no_charts: str = "", data_name: str = "") -> str:
    """The whole file. The same data gives the same text."""
    script = _code("_page.js")
    hosts = data["hosts"]
    well = [host for host in hosts if host["state"] == "healthy"]
    return _template().render(
        data=data,
        style=_code("_page.css"),
        script=script,
        script_hash="sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        words=WORDS,
        columns=_columns(hosts),
        parts=_parts(data, bool(charts or why_no_charts)),
        shown=data["findings"][:MOST],
        most=MOST,
        listed=LISTED,
        poorly=[host for host in hosts if host["state"] != "healthy"],
        well=well,
        sums=[one for one in SUMS if any(operation[one[1]] for operation in data["operations"])],
        charts=charts,
        why_no_charts=why_no_charts,
        data_name=data_name,
    )


@functools.lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    env = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    env.filters.update(FILTERS)
    return env.from_string((HERE / "_page.html.j2").read_text(encoding="utf-8"))


def _code(name: str) -> str:
    """Of a style sheet or script, without the lines about its licence, which stand at its top."""
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if "SPDX-License-Identifier" in line) + 1
    return "\n".join(lines[start:]) + "\n"


def _columns(hosts: t.Sequence[Data]) -> dict[str, bool]:
    """Those of the table of hosts that somebody has something to say in."""
    keys = {
        "growth": "bytes_per_day",
        "full": "days_until_full",
        "bloat": "bloat_bytes",
        "backup": "databases_without_backup",
    }
    return {name: any(host[key] is not None for host in hosts) for name, key in keys.items()}


def _parts(data: Data, charts: bool) -> list[tuple[str, str, int | None]]:
    """Of the page: where, what, how many."""
    parts = [
        ("missing", "Did not report", len(data["missing"])),
        ("failures", "Failures", len(data["failures"])),
        ("findings", "Findings", len(data["findings"])),
        ("done", "Done" if not data["planned"] else "Planned", None if data["operations"] else 0),
        ("charts", "Charts", None if charts else 0),
        ("hosts", "Hosts", len(data["hosts"])),
    ]
    return [(name, title, count) for name, title, count in parts if count != 0]


# ---- words -----------------------------------------------------------------------------------------------------------


def _size(value: float | None) -> str:
    return NOTHING if value is None else say_bytes(value)


def _duration(value: float | None) -> str:
    return NOTHING if value is None else say_seconds(value)


def _days(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"in {value:,.0f} d" if value < FAR else "in over a year"


def _some(value: float, said: str) -> str:
    """Nothing for nought."""
    return FILTERS[said](value) if value else NOTHING


def _without(text: str, start: str) -> str:
    return text.removeprefix(start).lstrip("; ")


def _deeds(host: Data) -> str:
    """What was done, or is due, where its state has not said it."""
    return NOTHING if host["text"] == WORDS[host["state"]] else host["text"]


def _count(value: int | None) -> str:
    return NOTHING if value is None else f"{value:,}"


def _moment(text: str) -> str:
    """In the zone that it has."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{found:%Y-%m-%d %H:%M} {found.tzname() or ''}".rstrip()


def _day(text: str) -> str:
    return text[:10]


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _server(host: Data) -> str:
    words = [host["engine"], host["version"], host["role"] if host["role"] not in (None, "primary") else None]
    return " ".join(str(word) for word in words if word)


def _backup(host: Data) -> str:
    """The age of the oldest, or how many there are none of."""
    if host["databases_without_backup"] is None:
        return NOTHING
    if host["databases_without_backup"]:
        return f"{host['databases_without_backup']} without"
    return _duration(host["backup_age_seconds"])


def _findings(host: Data) -> str:
    if not host["findings"]:
        return NOTHING
    return f"{host['findings']}, {host['urgent']} urgent" if host["urgent"] else str(host["findings"])


def _amount(step: Data) -> str:
    words = [say_bytes(step["bytes_freed"])] if step["bytes_freed"] else []
    words += [say_count(step["rows"], "row")] if step["rows"] else []
    words += [say_seconds(step["seconds"])] if step["seconds"] else []
    return ", ".join(words)


FILTERS: dict[str, t.Callable[..., str]] = {
    "size": _size,
    "duration": _duration,
    "days": _days,
    "count": _count,
    "moment": _moment,
    "day": _day,
    "plain": _plain,
    "server": _server,
    "backup": _backup,
    "findings": _findings,
    "amount": _amount,
    "some": _some,
    "without": _without,
    "deeds": _deeds,
}
