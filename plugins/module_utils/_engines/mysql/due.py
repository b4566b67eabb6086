# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due of one table, as SQL, and how much it is. Only reads; in what order it is taken: stores.py."""

from __future__ import annotations

import typing as t

from ..._errors import DbFault, Gone, Refused, Stopped
from ..._retention import Sought
from . import old_rows
from .connection import Link
from .faults import TIMEOUT, number_of
from .names import quoted
from .purge_session import frozen
from .stores import Field, Store

T = t.TypeVar("T")


class Refusal(Exception):
    """Why a rule cannot be applied to a table."""

    def __init__(self, code: str, why: str, cure: str = "") -> None:
        super().__init__(why)
        self.code, self.why, self.cure = code, why, cure


class Due:
    """What is due of one table, as SQL, and how much it is."""

    def __init__(self, link: Link, sought: Sought, store: Store, field: Field, now: float) -> None:
        self.link, self.sought, self.store, self.field = link, sought, store, field
        where = sought.expiry.where
        self.now = now if where and not old_rows.steady(where) else None
        self.dates = old_rows.dates(field.data_type, sought.expiry)
        self.where = f"{self.dates} AND {old_rows.wrapped(where)}" if where else self.dates
        self.seen: bool | None = None  # whether any is due; None: nobody has looked
        self.counting = True  # a count is wanted, where there is something to be counted

    def look(self, partition: str, *, counting: bool) -> None:
        """Looks for one row first. Without `counting` nothing more is asked: what is due has an unknown number."""
        query = f"SELECT 1 FROM {self._source(partition)} WHERE {self.where} LIMIT 1"
        found = self.timed(lambda: bool(self.link.rows(query, obj=str(self.store.ref))))
        self.seen, self.counting = found, counting or found is False

    def check(self) -> None:
        """Whether the user's condition stands alone, with and without parentheses around it. Raises Refusal."""
        where = self.sought.expiry.where
        if not where:
            return
        self.link.rows("START TRANSACTION READ ONLY")
        try:
            for words in (old_rows.wrapped(where), f"{where}\n"):
                self.link.run(f"SELECT 1 FROM {self.store.sql} WHERE FALSE AND {words} LIMIT 0")
        except (Gone, Stopped):
            raise
        except DbFault as fault:
            raise Refusal(
                "bad_where", f"its condition is not understood: {fault.cause}", "Mend where of the rule"
            ) from fault
        finally:
            self.link.rollback()

    def _source(self, partition: str) -> str:
        part = f" PARTITION ({quoted(partition)})" if partition else ""
        way = self.store.by_date(self.field.name)
        return f"{self.store.sql}{part}" + (f" FORCE INDEX ({quoted(way.via)})" if way else "")

    def count(self, partition: str) -> int | None:
        """Rows that are due; None where it took too long, or nobody wants to know."""
        if self.seen is False:
            return 0
        return self.number(f"SELECT COUNT(*) FROM {self._source(partition)} WHERE {self.where}")

    def number(self, query: str) -> int | None:
        """The answer to a question for one number."""
        if not self.counting:
            return None
        return self.timed(lambda: int(self.link.rows(query, obj=str(self.store.ref))[0][0]))

    def all(self) -> int | None:
        return self.number(f"SELECT COUNT(*) FROM {self.store.sql}")

    def timed(self, ask: t.Callable[[], T]) -> T | None:
        """None where the answer took longer than counting may."""
        limit = self.sought.timeout
        with frozen(self.link, self.now):
            if limit is None:
                return ask()
            try:
                with self.link.at_most(limit):
                    return ask()
            except Refused as fault:
                if number_of(fault.__cause__ or fault) in TIMEOUT:
                    return None
                raise
