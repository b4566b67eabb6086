# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report's numbers as a file for Prometheus, with what hosts that told nothing said last. Pure: no clock, no file.

Written by these few lines rather than by prometheus_client: that would be one more thing for every controller to have,
for two rules of quoting. Tests read what is written here with its parser.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import re
import typing as t
from datetime import datetime, timedelta

from ._fleet import STATES, WRONG

Data = dict[str, t.Any]
Labels = t.Mapping[str, str]

PREFIX = "dbfleet_"
DAY = 86400.0
PRIORITIES = (1, 2, 3)
STATUSES = ("done", "skipped", "deferred", "failed", "unproven")
NAME_OF_LABEL = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


class Metric(t.NamedTuple):
    """One name. `kept`: where a host does not tell it this time, what it said last stays."""

    help: str
    labels: tuple[str, ...] = ()
    kept: bool = False


HOST, DATABASE, OPERATION = ("host",), ("host", "database"), ("host", "operation")
# All names but the prefix. README.md of the role report has this table, too.
METRICS: dict[str, Metric] = {
    "report_timestamp_seconds": Metric("When this file was written, at the end of a run."),
    "backup_max_age_seconds": Metric("From which age on the report calls a backup late."),
    "host_state": Metric(f"1 for the state that the host is in: {', '.join(STATES)}.", ("host", "state")),
    "host_failures": Metric("Steps of the host that failed, and its own error.", HOST),
    "host_last_report_timestamp_seconds": Metric("When a run last reached the host.", HOST, kept=True),
    "host_last_success_timestamp_seconds": Metric("When a run last had no trouble with the host.", HOST, kept=True),
    "host_info": Metric(
        "1; the labels tell what the server is.", ("host", "engine", "version", "role", "address"), kept=True
    ),
    "host_findings": Metric(
        "Findings of the assessment and of operations; priority 1 is urgent.", ("host", "priority"), kept=True
    ),
    "host_recommendations": Metric(
        "Recommendations, where statistics are measured; priority 1 is urgent.", ("host", "priority"), kept=True
    ),
    "host_databases": Metric("Databases of the server.", HOST, kept=True),
    "host_size_bytes": Metric("Bytes of all databases.", HOST, kept=True),
    "host_bloat_bytes": Metric("Bytes that a rebuild of tables and indexes would give back.", HOST, kept=True),
    "host_growth_bytes_per_second": Metric("Growth of all databases that have a trend.", HOST, kept=True),
    "host_connections_ratio": Metric("Connections in use, of those that the server allows.", HOST, kept=True),
    "host_slowest_statement_seconds": Metric("Mean time of the slowest statement.", HOST, kept=True),
    "host_disk_full_timestamp_seconds": Metric("When the disk is full if growth goes on so.", HOST, kept=True),
    "database_bloat_bytes": Metric(
        "As host_bloat_bytes, of the databases with the most; object is table or index.",
        (*DATABASE, "object"),
        kept=True,
    ),
    "database_growth_bytes_per_second": Metric("Growth of the database, where it grows.", DATABASE, kept=True),
    "database_transaction_age_ratio": Metric(
        "Age of transaction ids, of that at which the server freezes by force; from a half on.", DATABASE, kept=True
    ),
    "database_last_backup_timestamp_seconds": Metric("When the newest backup began; 0 is never.", DATABASE, kept=True),
    "database_last_verified_backup_timestamp_seconds": Metric(
        "When the newest backup began that was read to its end; 0 is never.", DATABASE, kept=True
    ),
    "operation_steps": Metric(
        "Steps of the last run, by how they ended; unproven ones are among those done.", (*OPERATION, "status")
    ),
    "operation_removed_rows": Metric("Rows that the last run removed or archived.", OPERATION),
    "operation_freed_bytes": Metric("Bytes that the last run gave back to the file system.", OPERATION),
    "operation_written_bytes": Metric("Bytes that the last run wrote, as backups or archives.", OPERATION),
    "operation_duration_seconds": Metric("What the steps of the last run took.", OPERATION),
}

# A sample by the values of its metric's labels.
Samples = dict[tuple[str, ...], float]
Found = dict[str, Samples]


class Known(t.NamedTuple):
    """A line of an older file."""

    metric: str
    host: str
    line: str


# ---- numbers ---------------------------------------------------------------------------------------------------------


def numbers(data: Data, at: datetime) -> tuple[Found, dict[str, set[str]]]:
    """The samples of a report that was made at this time, and which hosts told each metric, also without a sample."""
    found: Found = {name: {} for name in METRICS}
    told: dict[str, set[str]] = {name: set() for name in METRICS}
    found["report_timestamp_seconds"][()] = at.timestamp()
    found["backup_max_age_seconds"][()] = data["databases"]["backup_max_age_seconds"]
    failures = _counts(one["host"] for one in data["failures"])
    for shown in data["hosts"]:
        _host(found, told, shown, at, failures.get(shown["host"], 0))
    _findings(found, data)
    _databases(found, data["databases"], at)
    for name, samples in found.items():
        told[name].update(key[0] for key in samples if key)
    return found, told


def _counts(names: t.Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _host(found: Found, told: dict[str, set[str]], shown: Data, at: datetime, failures: int) -> None:
    host, state, now, signs = shown["host"], shown["state"], at.timestamp(), shown["signs"]
    found["host_state"][host, state] = 1
    found["host_failures"][(host,)] = failures
    values: dict[str, float | None] = {
        "host_last_report_timestamp_seconds": None if state in ("silent", "unreachable") else now,
        "host_last_success_timestamp_seconds": None if state in WRONG or failures else now,
        "host_databases": shown["databases"],
        "host_size_bytes": shown["bytes"],
        "host_bloat_bytes": shown["bloat_bytes"],
        "host_growth_bytes_per_second": _scaled(shown["bytes_per_day"], 1 / DAY),
        "host_connections_ratio": _scaled(signs["connections_percent"], 1 / 100),
        "host_slowest_statement_seconds": max((one["mean_seconds"] for one in signs["statements"]), default=None),
        "host_disk_full_timestamp_seconds": _full_at(shown["days_until_full"], at),
    }
    found_here = {name: value for name, value in values.items() if value is not None}
    for name, value in found_here.items():
        found[name][(host,)] = value
    for name in _told(shown, found_here):
        told[name].add(host)
    if shown["engine"] is not None:
        words = (str(shown[key] or "") for key in ("engine", "version", "role", "address"))
        found["host_info"][(host, *words)] = 1
        found["host_findings"].update({(host, str(priority)): 0 for priority in PRIORITIES})
    if "statistics" in signs["measured"]:
        counts = dict.fromkeys(map(str, PRIORITIES), 0) | signs["recommended"]
        found["host_recommendations"].update({(host, priority): count for priority, count in counts.items()})
    for one in signs["transaction_ids"]:
        found["database_transaction_age_ratio"][host, one["database"]] = one["percent"] / 100
    for one in shown["operations"]:
        _operation(found, host, one)


def _told(shown: Data, values: t.Collection[str]) -> t.Iterator[str]:
    """Metrics of which the host told all that there is: where it has nothing of a kind, what it had is over."""
    measured = shown["signs"]["measured"]
    known = {
        "host_info": shown["engine"] is not None,
        "host_findings": shown["engine"] is not None,
        "host_recommendations": "statistics" in measured,
        "host_slowest_statement_seconds": "slow_statements" in measured,
        "host_disk_full_timestamp_seconds": shown["bytes_per_day"] is not None,
        "database_bloat_bytes": shown["bloat_bytes"] is not None,
        "database_growth_bytes_per_second": shown["bytes_per_day"] is not None,
        "database_transaction_age_ratio": "statistics" in measured,
        "database_last_backup_timestamp_seconds": shown["databases_without_backup"] is not None,
        "database_last_verified_backup_timestamp_seconds": shown["databases_without_backup"] is not None,
    }
    yield from (name for name, metric in METRICS.items() if known.get(name, not metric.kept) or name in values)


def _scaled(value: float | None, by: float) -> float | None:
    return None if value is None else value * by


def _full_at(days: float | None, at: datetime) -> float | None:
    return None if days is None else at.timestamp() + days * DAY


def _operation(found: Found, host: str, one: Data) -> None:
    key = (host, one["operation"])
    for status in STATUSES:
        found["operation_steps"][(*key, status)] = one[status]
    found["operation_removed_rows"][key] = one["rows"]
    found["operation_freed_bytes"][key] = one["bytes_freed"]
    found["operation_written_bytes"][key] = one["bytes_written"]
    found["operation_duration_seconds"][key] = one["seconds"]


def _findings(found: Found, data: Data) -> None:
    """But for recommendations: they would come and go with the runs that measure statistics."""
    counts = found["host_findings"]
    for one in data["findings"]:
        for host in one["hosts"]:
            key = (host, str(one["priority"]))
            counts[key] = counts.get(key, 0) + 1
    for shown in data["hosts"]:
        for priority, count in shown["signs"]["recommended"].items():
            counts[shown["host"], priority] -= count


def _databases(found: Found, databases: Data, at: datetime) -> None:
    for one in databases["bloat"]:
        for label, of_it in (("table", "bloat_bytes"), ("index", "index_bloat_bytes")):
            found["database_bloat_bytes"][one["host"], one["database"], label] = one[of_it]
    for one in databases["growth"]:
        found["database_growth_bytes_per_second"][one["host"], one["database"]] = one["bytes_per_day"] / DAY
    for one in databases["backups"]:
        key = (one["host"], one["database"])
        newest, good = one["newest_age_seconds"], one["age_seconds"]
        found["database_last_backup_timestamp_seconds"][key] = _began(one["at"], newest, at)
        good_at = one["at"] and _later(one["at"], (newest or 0) - (good or 0))
        found["database_last_verified_backup_timestamp_seconds"][key] = _began(good_at, good, at)


def _later(moment: str, seconds: float) -> str:
    return (datetime.fromisoformat(moment) + timedelta(seconds=seconds)).isoformat()


def _began(moment: str | None, age: float | None, at: datetime) -> float:
    """Of a backup: what this run made itself is as old as the report."""
    if age is None:
        return 0.0
    return datetime.fromisoformat(moment).timestamp() if moment else at.timestamp() - age


def no_labels(labels: t.Iterable[str]) -> list[str]:
    """Those that Prometheus does not take, or that a metric has already."""
    own = {label for metric in METRICS.values() for label in metric.labels}
    return [name for name in labels if name in own or not NAME_OF_LABEL.fullmatch(name)]


# ---- the file --------------------------------------------------------------------------------------------------------


def text(found: Found, old: t.Iterable[Known], labels: Labels) -> str:
    """The whole file. `labels` stand behind those of each sample; `old` are lines of an older file that stay."""
    stay: dict[str, list[str]] = {}
    for known in old:
        stay.setdefault(known.metric, []).append(known.line)
    more = "".join(f',{name}="{quoted(value)}"' for name, value in labels.items())
    lines = []
    for name, metric in METRICS.items():
        # Each series once: names that are no Unicode may look alike, and the whole file would be refused for two.
        made = {_series(name, metric, key, more): value for key, value in found[name].items()}
        samples = [*(f"{series} {_number(value)}" for series, value in made.items()), *stay.get(name, ())]
        if samples:
            lines += [f"# HELP {PREFIX}{name} {metric.help}", f"# TYPE {PREFIX}{name} gauge", *samples]
    return "\n".join([*lines, ""])


def _series(name: str, metric: Metric, key: tuple[str, ...], more: str) -> str:
    own = "".join(f',{label}="{quoted(word)}"' for label, word in zip(metric.labels, key))
    inside = (own + more).removeprefix(",")
    return f"{PREFIX}{name}{{{inside}}}" if inside else f"{PREFIX}{name}"


def quoted(value: str) -> str:
    """The value of a label. What is no Unicode is told in signs that are: the whole file would be refused for it."""
    told = str(value).encode("utf-8", "backslashreplace").decode()
    return told.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))


LINE = re.compile(rf'{PREFIX}(\w+)\{{host="((?:[^"\\]|\\.)*)".*\}} [-+.\w]+')
TIMES = re.compile(rf"^{PREFIX}\w+_timestamp_seconds\b.*$", re.MULTILINE)


def known(older: str) -> list[Known]:
    """The lines of a file of ours that tell of a host; anything else is not understood, and left out."""
    found = []
    for line in older.split("\n"):
        match = LINE.fullmatch(line)
        if match and match[1] in METRICS:
            found.append(Known(match[1], match[2], line))
    return found


def staying(
    older: t.Iterable[Known],
    told: t.Mapping[str, t.Collection[str]],
    hosts: t.Collection[str],
    inventory: t.Iterable[str],
) -> list[Known]:
    """What is kept: all of hosts that this run left out, and of its own what they could not tell, by their names.

    A host that the inventory does not know any more is gone with all that it said.
    """
    here, tellers = {quoted(name) for name in hosts}, {m: {quoted(x) for x in names} for m, names in told.items()}
    known_hosts = {quoted(name) for name in inventory} | here
    return [
        one
        for one in older
        if one.host in known_hosts
        and (one.host not in here or (METRICS[one.metric].kept and one.host not in tellers[one.metric]))
    ]


def without_times(content: str) -> str:
    """What has to differ for a file to say something new."""
    return TIMES.sub("", content)
