# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a rule of cleanup must take nothing, and what is worth knowing of it: one small function each. No step is made.

A refusal stands before the first delete: one finding, and nothing leaves by this rule in this database.
"""

from __future__ import annotations

import typing as t
from datetime import datetime, timezone

from .._records import Finding, Measured, Ref
from .._retention import Child, Expired
from .._tasks import AddKey, CreateIndex
from .._tuples import NamedTuple
from .._units import say_count, say_seconds
from .retention_rules import Policy, Rule, Stage

LISTED = 10  # children or triggers that one finding names


class Case(NamedTuple):
    """What one rule finds in one table: the source with all that is done to it, or the archive table."""

    rule: Rule
    found: tuple[tuple[Stage, Expired], ...]
    policy: Policy
    measured: Measured
    depots: t.Mapping[Ref, tuple[Rule, ...]] = {}  # rules that archive into a table
    beside: tuple[Expired, ...] = ()  # what the rule finds in its other table

    @property
    def ref(self) -> Ref:
        return self.found[0][1].ref

    @property
    def expired(self) -> tuple[Expired, ...]:
        return tuple(expired for stage, expired in self.found)

    @property
    def rows(self) -> int | None:
        """Due, over all stages; None: unknown."""
        return total([expired.rows for expired in self.expired])

    @property
    def of_rows(self) -> int | None:
        return max((e.of_rows for e in self.expired if e.of_rows is not None), default=None)

    @property
    def of_archive(self) -> bool:
        return self.found[0][0].of_archive

    @property
    def due(self) -> bool:
        """Whether anything would be removed."""
        return any(_due(expired) for expired in self.expired)

    @property
    def assessed(self) -> bool:
        """Counting was given so little time, or none, that unknown is no news: the run counts for itself."""
        return self.policy.count_timeout is not None or self.measured.glimpsed

    def say(self, priority: int, code: str, message: str, **more: t.Any) -> Finding:
        return Finding(priority, code, more.pop("ref", self.ref), f"rule {self.rule.name}: {message}", **more)


def _due(expired: Expired) -> bool:
    return expired.rows != 0 or bool(expired.parts) or bool(expired.files and expired.files.outdated)


def total(counts: t.Iterable[int | None]) -> int | None:
    """None where one of them is unknown."""
    known = list(counts)
    return None if None in known else sum(c for c in known if c is not None)


def say_moment(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")


def say_share(rows: int, of_rows: int) -> str:
    """Never 100 % of a table some of whose rows stay, nor 0 % of something."""
    percent = 100 * rows / max(of_rows, 1)
    if 0 < percent < 1:
        return "less than 1 %"
    return f"{percent:.0f} %" if rows >= of_rows else f"{min(percent, 99):.0f} %"


# ---- refusals --------------------------------------------------------------------------------------------------------


def not_applicable(case: Case) -> t.Iterator[Finding]:
    """No such column, no date, a view, a policy that hides rows: the engine's own words."""
    for expired in case.expired:
        if expired.why_not:
            yield case.say(2, expired.code or "not_applicable", expired.why_not, fix=expired.cure)


def ambiguous(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired:
        if expired.ambiguous:
            names = ", ".join(str(ref) for ref in expired.ambiguous)
            message = f"several tables are called {expired.sought.expiry.table}: {names}"
            yield case.say(2, "ambiguous_table", message, fix="Write the rule's table as schema.table")


def no_backup(case: Case) -> t.Iterator[Finding]:
    """Told once for a table and its archive."""
    limit, again = case.policy.require_backup, case.of_archive and case.beside
    if limit is None or again or not any(_due(e) or e.detaching for e in (*case.expired, *case.beside)):
        return
    last, most = _last_backup(case), say_seconds(limit)
    if last is None:
        said = "no verified backup of this database is on record"
    else:
        age = (case.measured.server.now - last).total_seconds()
        if age <= limit:
            return
        said = f"the last verified backup of this database is {say_seconds(age)} old"
    message = f"nothing is removed: {said}, and require_backup asks for one of the last {most}"
    yield case.say(1, "no_backup", message, fix="Back the database up with db_backup, or mend require_backup")


def _last_backup(case: Case) -> datetime | None:
    """When the newest verified backup began; what the journal knows where no folder is named."""
    if not case.policy.backup_dir:
        last = case.measured.past.get(("verify", Ref(case.ref.database)))
        return last.at if last and last.ok else None
    from .backup_known import last_verified

    return last_verified(case.measured, case.policy.backup_dir, case.ref.database)


def archive_unfit(case: Case) -> t.Iterator[Finding]:
    """The archive cannot take the rows."""
    for expired in case.expired:
        if expired.depot and expired.depot.ref == expired.ref:
            yield case.say(2, "archive_differs", "its archive table is the table itself", fix="Name another one")
        elif expired.depot and expired.depot.why_not:
            message = f"rows cannot go to {expired.depot.ref}: {expired.depot.why_not}"
            fix = "Mend the archive table, or name another one in archive_table"
            yield case.say(2, "archive_differs", message, fix=fix)
        if expired.files and expired.files.why_not:
            message = f"nothing can be written to the archive's directory: {expired.files.why_not}"
            yield case.say(2, "archive_unwritable", message, fix="Mend archive_dir, or its owner and mode")


def archive_shared(case: Case) -> t.Iterator[Finding]:
    """Written differently, it is one table all the same: rows of one rule must not leave by the age of another."""
    if not case.of_archive:
        return
    others = [r.name for r in case.depots.get(case.ref, ()) if r.lasting != case.rule.lasting]
    if others:
        names = ", ".join(others)
        message = f"its archive table is that of rule {names}, too, and they differ in delete_after or date_column"
        yield case.say(2, "archive_shared", message, fix="Give each rule an archive_table of its own")


def no_walk(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired:
        for piece in expired.pieces:
            if piece.rows != 0 and not piece.walk:
                why = piece.why_not or "it has no key by which its rows could be told apart"
                yield case.say(2, "no_key", f"its rows cannot be taken in bites: {why}", cure=AddKey(piece.ref))
                return


def uncounted(case: Case) -> t.Iterator[Finding]:
    """What nobody could count must not be taken for little."""
    if case.assessed or not case.due or (case.rows is not None and (case.of_rows is not None or not case.rows)):
        return
    if any(expired.why_not or expired.ambiguous for expired in case.expired):
        return  # nobody tried to
    message = "nothing is removed: how many rows are due, and of how many, could not be counted"
    yield case.say(2, "counting_timed_out", message, fix="An index that begins with the date column makes it cheap")


def too_many_rows(case: Case) -> t.Iterator[Finding]:
    """Of the table and its archive together; told once."""
    most, rows = case.rule.refuse_over_rows, total([expired.rows for expired in (*case.expired, *case.beside)])
    if case.of_archive and case.beside:
        return
    if most is not None and rows is not None and rows > most:
        message = f"nothing is removed: {say_count(rows, 'row')} are due, over refuse_over_rows {most:,}"
        fix = f"If that is meant, set refuse_over_rows of this rule to at least {rows}"
        yield case.say(2, "too_many_rows", message, fix=fix)


def too_large_share(case: Case) -> t.Iterator[Finding]:
    """Of the table; an archive is looked at together with its table, since in time all of its rows leave."""
    rows, of_rows, most = case.rows, case.of_rows, case.rule.refuse_over_percent
    if not rows or of_rows is None:
        return
    if case.of_archive:
        of_rows += max((e.of_rows or 0 for e in case.beside), default=0)
    if 100 * rows <= most * of_rows:
        return
    share = say_share(rows, of_rows)
    message = f"nothing is removed: {rows:,} of {of_rows:,} rows ({share}) are due, over refuse_over_percent {most:g}"
    enough = min(100, int(100 * rows / max(of_rows, 1)) + 1)
    fix = f"If that is meant, set refuse_over_percent of this rule to at least {enough}"
    yield case.say(2, "too_many_rows", message, fix=fix)


def children_of(case: Case) -> list[Child]:
    """What may hang from due rows, each foreign key once."""
    return list(dict.fromkeys(child for expired in case.expired for child in expired.children))


def hanging(case: Case, child: Child) -> bool:
    """Whether rows hang there; unknown is yes, but not where nothing had time to be counted."""
    return (child.rows is None and not case.assessed) or bool(child.rows)


def children_hang(case: Case) -> t.Iterator[Finding]:
    if case.rule.on_children != "fail" or not case.due:
        return
    found = [child for child in children_of(case) if hanging(case, child)]
    if found:
        named = "; ".join(say_child(child) for child in found[:LISTED])
        more = f"; and {len(found) - LISTED} more" if len(found) > LISTED else ""
        message = f"nothing is removed: rows of other tables hang from due ones: {named}{more}"
        fix = "Set on_children of this rule to delete or archive, or remove those rows by a rule of their own"
        yield case.say(2, "children", message, fix=fix)


def say_child(child: Child) -> str:
    rows = "an unknown number of rows" if child.rows is None else say_count(child.rows, "row")
    return f"{rows} of {child.table} by {', '.join(child.columns)} (on delete {child.action})"


def circular_children(case: Case) -> t.Iterator[Finding]:
    if case.rule.on_children == "fail" or not case.due:
        return
    for child in children_of(case):
        if child.circular and hanging(case, child):
            message = f"nothing is removed: {say_child(child)} hang from each other in a circle without a leaf"
            yield case.say(2, "circular_children", message, fix="Remove these references first")


REFUSALS: tuple[t.Callable[[Case], t.Iterator[Finding]], ...] = (
    not_applicable,
    ambiguous,
    no_backup,
    archive_unfit,
    archive_shared,
    no_walk,
    uncounted,
    too_many_rows,
    too_large_share,
    children_hang,
    circular_children,
)


# ---- worth knowing ---------------------------------------------------------------------------------------------------


def no_date_index(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired:
        bare = [piece for piece in expired.pieces if piece.walk and not piece.indexed]
        if bare:
            column = expired.sought.expiry.column
            message = f"no index begins with {column}: each run reads the whole table to find the rows that are due"
            cure = CreateIndex(expired.ref, (column,), partitioned=any(p.ref != expired.ref for p in bare))
            yield case.say(3, "no_date_index", message, cure=cure)
            return


def no_child_index(case: Case) -> t.Iterator[Finding]:
    for child in children_of(case) if case.due else ():
        if not child.indexed:
            columns = ", ".join(child.columns)
            message = f"no index of {child.table} begins with {columns}: each row that leaves reads that whole table"
            cure = CreateIndex(child.table, child.columns)
            yield case.say(3, "no_child_index", message, ref=child.table, cure=cure)


def triggers_fire(case: Case) -> t.Iterator[Finding]:
    names = list(dict.fromkeys(name for expired in case.expired for name in expired.triggers))
    if names and case.due:
        more = ", …" if len(names) > LISTED else ""
        message = f"for each row that leaves a trigger fires: {', '.join(names[:LISTED])}{more}"
        fix = ""
        if any(expired.parts and not expired.sought.archive for expired in case.expired):
            message += "; but none for the rows of partitions that are dropped whole"
            fix = "Where each row has to fire them, set partitions: never"
        yield case.say(3, "triggers_fire", message, fix=fix)


def archive_triggers(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired if case.due else ():
        if expired.depot and expired.depot.triggers:
            names = ", ".join(expired.depot.triggers[:LISTED])
            message = f"for each row that comes into the archive {expired.depot.ref} a trigger fires: {names}"
            yield case.say(3, "archive_triggers", message, fix="Rows are kept as it leaves them: let it change none")


def rows_elsewhere(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired:
        if expired.heirs:
            names = ", ".join(expired.heirs[:LISTED]) + (", …" if len(expired.heirs) > LISTED else "")
            message = f"tables inherit from it, and this rule does not look at their rows: {names}"
            yield case.say(3, "rows_in_children", message, fix="Write a rule for each of them that is to lose rows")
            return


def archive_grows(case: Case) -> t.Iterator[Finding]:
    for expired in case.expired:
        if expired.depot and expired.depot.missing:
            columns = ", ".join(f"{name} {kind}" for name, kind in expired.depot.missing)
            message = f"the archive {expired.depot.ref} lacks columns that the table has: {columns}"
            yield case.say(3, "archive_differs", f"{message}; they are added with the next rows")


def counted_in_vain(case: Case) -> t.Iterator[Finding]:
    if case.assessed and case.rows is None and not case.measured.glimpsed:
        most = say_seconds(case.policy.count_timeout or 0)
        message = f"counting the rows that are due took longer than {most}: their number is unknown here"
        yield case.say(3, "counting_timed_out", message)


NOTICES: tuple[t.Callable[[Case], t.Iterator[Finding]], ...] = (
    no_date_index,
    no_child_index,
    triggers_fire,
    archive_triggers,
    rows_elsewhere,
    archive_grows,
    counted_in_vain,
)
