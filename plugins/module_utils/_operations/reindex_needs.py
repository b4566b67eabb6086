# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""WHEN an index needs to be built anew: options, policy, thresholds. What is then done: reindex.py."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._records import Measured
from .._selection import Patterns
from .._structure import Index
from .._tuples import NamedTuple
from .._units import duration, percentage, say_bytes, size

REASONS = ["bloated", "invalid", "collation"]

OPTIONS: dict[str, t.Any] = {
    "reasons": {"type": "list", "elements": "str", "choices": REASONS, "default": REASONS},
    "indexes": {"type": "list", "elements": "str", "default": ["*"]},
    "bloat_percent": {"type": "float", "default": 30.0},
    "min_size": {"type": "str", "default": "10MB"},
    "replicated_max_size": {"type": "str", "default": "1GB"},
    "max_snapshot_age": {"type": "str", "default": "10m"},
    "method": {"type": "str", "choices": ["online", "exclusive"], "default": "online"},
    "adopt_leftovers": {"type": "bool", "default": False},
    "force": {"type": "bool", "default": False},
}


class Policy(NamedTuple):
    tables: Patterns
    indexes: Patterns
    reasons: frozenset[str]
    bloat_percent: float
    min_size: int
    replicated_max_size: int
    max_snapshot_age: float
    online: bool
    adopt_leftovers: bool
    force: bool
    max_replica_lag: float | None


class Need(NamedTuple):
    what: str  # bloated, invalid, collation, forced
    reason: str
    measured: dict[str, t.Any]
    safety: int = 0


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    if not params["reasons"]:
        raise BadInput("reasons: the list is empty", cure=f"Name some of {', '.join(REASONS)}")
    tables = Patterns(["*"] if params.get("tables") is None else params["tables"], "tables")
    indexes = Patterns(params["indexes"], "indexes")
    if params["force"] and not (tables.named or indexes.named):
        raise BadInput("force would rebuild every index", cure="Name those that you mean in indexes, or their tables")
    lag = params.get("max_replica_lag")
    return Policy(
        tables=tables,
        indexes=indexes,
        reasons=frozenset(params["reasons"]),
        bloat_percent=percentage(params["bloat_percent"], "bloat_percent", zero=False),
        min_size=size(params["min_size"], "min_size"),
        replicated_max_size=size(params["replicated_max_size"], "replicated_max_size"),
        max_snapshot_age=duration(params["max_snapshot_age"], "max_snapshot_age"),
        online=params["method"] == "online",
        adopt_leftovers=params["adopt_leftovers"],
        force=params["force"],
        max_replica_lag=None if lag is None else duration(lag, "max_replica_lag"),
    )


# ---- one function a threshold. To add one: an option, a field of Policy, a function here, its name in NEEDS ---------


def invalid(index: Index, policy: Policy, measured: Measured) -> Need | None:
    if index.valid:
        return None
    why = "invalid: no query uses it, and every change of the table keeps it up"
    return Need("invalid", why, {"valid": False}, safety=8)


def wrongly_sorted(index: Index, policy: Policy, measured: Measured) -> Need | None:
    """A mismatch stays until the collation's version is refreshed: meanwhile the journal knows what was rebuilt."""
    if not index.stale or rebuilt(index, measured):
        return None
    why = f"{index.stale}: its order may be wrong, and then queries miss rows"
    return Need("collation", why, {"collation": index.stale}, safety=9)


def due_from(index: Index, policy: Policy) -> float:
    """Percent. What comes back by itself would be due again and again."""
    return max(policy.bloat_percent, index.settles)


def bloated(index: Index, policy: Policy, measured: Measured) -> Need | None:
    limit = due_from(index, policy)
    if not index.bloat or index.bytes < policy.min_size or index.bloat.low < limit:
        return None
    found = index.bloat
    why = f"bloat {found.percent:.0f} % ({say_bytes(found.bytes)}) over {limit:g} %, by {found.method}"
    return Need("bloated", why, {"bloat_percent": round(found.percent, 1), "bloat_bytes": found.bytes})


NEEDS: tuple[t.Callable[[Index, Policy, Measured], Need | None], ...] = (wrongly_sorted, invalid, bloated)


def rebuilt(index: Index, measured: Measured) -> bool:
    """Whether a run of ours has built this very index under the collations as they are now."""
    note = measured.notes.get(("reindex", index.ref))
    return bool(index.state and note and note.text == index.state)
