# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The session in which old rows are counted and taken: settings, isolation, and a clock that stands still."""

from __future__ import annotations

import contextlib
import typing as t

from ..._errors import DbFault, Refused
from .connection import Link

SETTINGS = {
    # A server may have them otherwise for everybody.
    "foreign_key_checks": "1",
    "sql_safe_updates": "0",
    "completion_type": "'NO_CHAIN'",
    # The plan is ours: looking into the index for each of thousands of keys would cost more than reading them.
    "eq_range_index_dive_limit": "1",
}
FLAVOURED = {
    "mysql": {"range_optimizer_max_mem_size": "0"},
    "mariadb": {"in_predicate_conversion_threshold": "0"},
}


def prepare(link: Link, *, strict: bool) -> bool:
    """The session of a purge. `strict`: what does not fit the archive is an error, never cut off to fit.

    READ COMMITTED locks just the rows that leave. A server that logs statements refuses it, so that there the gaps
    between them are locked as well: then it returns true.
    """
    words = dict(SETTINGS, **FLAVOURED[link.flavour.name])
    if strict:
        words["sql_mode"] = "'STRICT_ALL_TABLES,ALLOW_INVALID_DATES,NO_AUTO_VALUE_ON_ZERO,NO_ENGINE_SUBSTITUTION'"
    link.rows("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in words.items()))
    logs = {
        str(k): str(v).upper()
        for k, v in link.rows("SHOW VARIABLES WHERE Variable_name IN ('log_bin', 'binlog_format')")
    }
    repeatable = logs.get("log_bin") == "ON" and logs.get("binlog_format") == "STATEMENT"
    link.rows(f"SET SESSION TRANSACTION ISOLATION LEVEL {'REPEATABLE READ' if repeatable else 'READ COMMITTED'}")
    return repeatable


@contextlib.contextmanager
def frozen(link: Link, seconds: float | None) -> t.Iterator[None]:
    """NOW() says the moment of the cutoff meanwhile.

    For what is read only: what is written would carry that moment into the binary log, and replicas would seem to lag
    by as much as the run has taken.
    """
    if seconds is None:
        yield
        return
    with contextlib.suppress(Refused):  # secure_timestamp: then it moves by the seconds of the run
        link.rows(f"SET SESSION timestamp = {seconds:.6f}")
    try:
        yield
    finally:
        with contextlib.suppress(DbFault):
            link.rows("SET SESSION timestamp = DEFAULT")
