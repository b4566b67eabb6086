# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the playbooks leave in the variables of a fleet's hosts, made up: for the report's tests and its benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

GB, MB, DAY = 1 << 30, 1 << 20, 86400
OPERATIONS = ("backup", "cleanup", "vacuum", "reindex", "refresh_views", "rotate")
HOSTILE = '<script>alert("x")</script> & $co$t "];--</pre>\u202e\x00'
Host = dict[str, Any]


def finding(
    priority: int, code: str, name: str, message: str, *, fix: str | None = None, database: str = "shop"
) -> Host:
    """One of `findings`."""
    found = {"priority": priority, "code": code, "database": database, "object": name, "message": message, "fix": fix}
    return dict(found)


def step(kind: str, name: str, status: str = "done", *, freed: int = 0, rows: int = 0, **more: Any) -> Host:
    """One of `steps`."""
    amount = {"bytes_freed": freed, "rows": rows, "seconds": 12.5}
    return {
        "database": "shop",
        "object": name,
        "kind": kind,
        "reason": "dead rows 41 % (820,113) over 10 %",
        "statements": [f"{kind.upper()} {name}"],
        "status": status,
        "measured": {},
        "expected": amount,
        "actual": {} if status == "planned" else amount,
        "proven": True if status == "done" else None,
        "error": None if status in ("done", "planned") else "canceling statement due to lock timeout",
        **more,
    }


def ran(module: str, steps: Sequence[Host], findings: Sequence[Host] = (), **more: Any) -> Host:
    """A registered result of a module that acts."""
    counts = {status: sum(s["status"] == status for s in steps) for status in ("done", "skipped", "deferred", "failed")}
    sums = {key: sum(s["actual"].get(key) or 0 for s in steps) for key in ("rows", "bytes_freed", "seconds")}
    summary = {"planned": len(steps), **counts, **sums, "bytes_written": 0}
    fact = {"engine": "postgresql", "steps": list(steps), "findings": list(findings), "summary": summary}
    return {"ansible_facts": {module: fact}, "changed": counts["done"] > 0, "failed": counts["failed"] > 0, **more}


def assessed(
    *, findings: Sequence[Host] = (), due: Sequence[str] = (), backup_age: int | None = 9 * 3600, **more: Any
) -> Host:
    """A registered result of db_assess_facts."""
    facts: dict[str, Any] = {
        "engine": "postgresql",
        "server": {"version": "18.4", "address": "db.example.com:5432", "role": "primary"},
        "databases": ["shop"],
        "preflight": {"assessed": True, "ok": True, "stopped_by": []},
        "findings": list(findings),
        "bloat": {
            "bytes": 40 * GB,
            "bloat_bytes": 3 * GB,
            "index_bloat_bytes": GB,
            "databases": [
                {"database": "shop", "bytes": 40 * GB, "bloat_bytes": 3 * GB, "index_bloat_bytes": GB},
            ],
        },
        "backups": [
            {
                "database": "shop",
                "at": None if backup_age is None else "2026-11-22T00:10:00+00:00",
                "age_seconds": backup_age,
                "verified_age_seconds": backup_age,
                "level": "decode",
                "bytes": GB,
            }
        ],
        "seconds": 0.4,
    }
    sample = {
        "database": "shop",
        "object": "public.orders",
        "kind": "vacuum",
        "reason": "dead rows 41 % (820,113) over 10 %",
        "statements": ["VACUUM public.orders"],
    }
    for name in OPERATIONS:
        wanted = name in due
        amounts = {"steps": int(wanted), "skipped": 0, "bytes": GB * wanted, "rows": 0, "seconds": 3.0 * wanted}
        facts[name] = {"assessed": True, "due": wanted, "sample": [sample] * wanted, **amounts}
    facts |= {"due": bool(due), "idle": not due, **more}
    return {"ansible_facts": {"db_due": facts}, "changed": False}


def unreachable(message: str = "Task failed: Failed to connect to the host via ssh: no route to host") -> Host:
    """What a host leaves that could not be reached."""
    return {"maintenance_assessed": {"unreachable": True, "msg": message, "changed": False}}


def history(name: str, bytes_per_day: int, failing: int = 0) -> Host:
    """A registered result of db_history_facts."""
    failure = {"operation": "db_reindex", "kind": "reindex", "database": "shop", "object": "public.orders_pkey"}
    facts = {
        "engine": "postgresql",
        "server": {"address": f"{name}:5432"},
        "databases": [
            {
                "database": "shop",
                "bytes": 40 * GB,
                "bytes_per_day": bytes_per_day,
                "days_until_full": 20 * GB / bytes_per_day,
                "points": [["2026-10-23T07:00:00+00:00", 38 * GB], ["2026-11-22T06:00:00+00:00", 40 * GB]],
            }
        ],
        "disks": [{"disk": "data", "free": 20 * GB, "days_until_full": 20 * GB / bytes_per_day}],
        "failures": [
            {**failure, "times": failing, "since": "2026-11-19T01:12:51+00:00", "error": "lock timeout"},
        ]
        if failing
        else [],
        "steps": [],
        "summary": {"runs": 61, "failed_runs": failing, "steps": 702, "failed_steps": failing},
    }
    return {"ansible_facts": {"db_history": facts}, "changed": False}


UNUSED = finding(
    3,
    "unused_index",
    "public.orders_by_state",
    "not used for 45 d, and takes 1.2 GB",
    fix='DROP INDEX CONCURRENTLY "public"."orders_by_state"',
)
PINNED = finding(
    1,
    "horizon_pinned",
    "public.orders",
    "812,113 dead rows cannot be removed: a transaction of app@10.0.3.7 is open for 3 d 4 h",
    fix="SELECT pg_catalog.pg_terminate_backend(41873)",
)
MISSING = finding(
    2,
    "missing_foreign_key_index",
    "public.invoices",
    "no index on customer_id, which refers to public.customers: each delete there reads all of its 1,204,113 rows",
    fix='CREATE INDEX CONCURRENTLY ON "public"."invoices" ("customer_id")',
)


def mixed(size: int = 8) -> dict[str, Host]:
    """A fleet with something of everything: hosts 0 to 6 are special, all others are healthy."""
    error = "db.example.com:5432: 1 of 3 steps failed: shop public.orders_pkey: canceling statement due to lock timeout"
    fleet: dict[str, Host] = {
        "shop-eu-primary": {
            "maintenance_assessed": assessed(findings=[PINNED, MISSING, UNUSED], due=["vacuum", "reindex"]),
            "maintenance_history": history("shop-eu-primary", 2 * GB, failing=3),
            "vacuum_result": ran(
                "db_vacuum", [step("vacuum", "public.orders"), step("reclaim", "public.baskets", freed=3 * GB)]
            ),
            "reindex_result": ran("db_reindex", [step("reindex", "public.orders_pkey", "failed")]),
            "maintenance_error": error,
        },
        "warehouse-02.eu-central.db.example.com": unreachable(),
        "billing": {},
        "reports": {
            "maintenance_assessed": assessed(due=["cleanup"], backup_age=None, findings=[MISSING]),
            "maintenance_history": history("reports", 90 * MB),
            "cleanup_result": ran(
                "db_cleanup",
                [
                    step("delete", "public.sessions", rows=1_204_113, freed=2 * GB),
                    step("archive", "public.audit_log", rows=88_000),
                ],
            ),
        },
        "shop-us-primary": {
            "maintenance_assessed": assessed(due=["vacuum"], backup_age=40 * 3600, findings=[UNUSED]),
            "maintenance_history": history("shop-us-primary", 700 * MB),
            "vacuum_result": ran(
                "db_vacuum", [step("vacuum", "public.orders"), step("vacuum", "public.items", "deferred")]
            ),
        },
        "crm-standby": {"maintenance_assessed": assessed(due=["vacuum"], idle=True)},
        "hostile": {
            "maintenance_assessed": assessed(
                findings=[finding(2, "no_primary_key", HOSTILE, HOSTILE, fix=HOSTILE, database=HOSTILE)]
            )
        },
    }
    for number in range(len(fleet), size):
        name = f"db{number:04}"
        fleet[name] = {
            "maintenance_assessed": assessed(findings=[UNUSED] if number % 3 == 0 else []),
            "maintenance_history": history(name, (number % 50 + 1) * MB),
        }
    return dict(list(fleet.items())[:size])


def names(fleet: Mapping[str, Host]) -> list[str]:
    """Its hosts."""
    return list(fleet)
