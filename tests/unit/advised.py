# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Made-up measurements for the tests of recommendations, and what is recommended for them. No test lives here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _health as health
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.advice_policy import Policy
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import (
    Finding,
    Measured,
    Ref,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._structure import (
    Index,
    Structure,
)

from .samples import MB, NOW, defaults, measured, table

ORDERS = Ref("shop", ("public", "orders"))
LONG_AGO = NOW - timedelta(days=100)


def policy(**given_options: Any) -> Policy:
    return advice.policy(defaults(advice.OPTIONS, large_table="1TB", **given_options))


def index(name: str = "i", *columns: str, **fields: Any) -> Index:
    """Used, unless told otherwise."""
    columns = columns or (name,)
    ref = Ref("shop", ("public", name))
    parts = tuple("int4_ops" for _column in columns)
    known = {"columns": columns, "parts": parts, "bytes": MB, "scans": 5, "counted_since": LONG_AGO, **fields}
    return Index(ref, fields.pop("table", ORDERS), **{k: v for k, v in known.items() if k != "table"})


def world(*indexes: Index, structure: Structure | None = None, **fields: Any) -> Measured:
    return measured(table(), database={"indexes": indexes, "structure": structure}, **fields)


def found(seen: Measured, **options: Any) -> list[Finding]:
    return [f for f in advice.plan(policy(**options), seen).findings if f.code in advice.RECOMMENDED]


def codes(seen: Measured, **options: Any) -> list[tuple[str, str]]:
    return [(f.code, f.ref.path[-1] if f.ref.path else f.ref.database) for f in found(seen, **options)]


def sick(**fields: Any) -> Measured:
    return world(health=health.Health(**fields))
