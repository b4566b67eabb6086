# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which indexes do nobody any good: unused, duplicate, redundant, invalid. Pure; options stand in advice_policy.py."""

from __future__ import annotations

import typing as t

from .._records import Database, Finding, Measured, Ref
from .._structure import Index
from .._tasks import DropIndex, Reindex
from .._units import say_bytes, say_seconds
from .advice_policy import Policy

WEIGHTY = 100 << 20  # bytes: an index of this size that nobody needs is more than a matter of tidiness
ORDERED = ("btree",)  # methods that serve a search for the first columns of the key, too
SUPPORTS = "supports foreign key"  # a reason to keep that holds for a twin as well
LEFT_ALONE = ("of the extension", "of a temporary table", "being built")  # somebody else sees to it
TIED = (  # and those that hold for this very index
    *("replica identity", "clustered", "primary", "exclusion", "referred to by"),
    *LEFT_ALONE,
)


def findings(policy: Policy, measured: Measured) -> t.Iterator[Finding]:
    for database in measured.databases:
        if not database.system:
            yield from _Judge(policy, measured, database).findings()


def judged(policy: Policy, database: Database) -> list[Index]:
    """The indexes that are looked at: a partition's is judged with its table's, a catalog's is the server's own."""
    catalogs = {table.ref for table in database.tables if table.kind == "catalog"}
    return [i for i in database.indexes if i.partition_of is None and i.table not in catalogs and policy.takes(i.table)]


def unknown(policy: Policy, measured: Measured) -> dict[str, str]:
    """Why it cannot be said which indexes are unused: by database, as `unused_indexes in shop`."""
    found = {}
    for database in measured.databases if measured.server.role == "primary" else ():
        indexes = [i for i in judged(policy, database) if _droppable(i)]
        uncounted = [i for i in indexes if i.scans is None]
        if uncounted:
            why = "the server does not count how often indexes are used"
            if measured.health and "index uses" in measured.health.unknown:
                why = measured.health.unknown["index uses"]
            elif len(uncounted) < len(indexes):
                why = f"the server does not count how often {len(uncounted)} of {len(indexes)} indexes are used"
            found[f"unused_indexes in {database.name}"] = why
            continue
        young = [s for i in indexes if (s := _counted_seconds(i, measured)) is not None and s < policy.unused_index_age]
        if young:
            age = say_seconds(policy.unused_index_age)
            of = "" if len(young) == len(indexes) else f" of {len(young)} of {len(indexes)} indexes"
            why = f"index use{of} has been counted for {say_seconds(min(young))} only, under unused_index_age {age}"
            found[f"unused_indexes in {database.name}"] = why
    if measured.server.role != "primary" and measured.databases:
        found["unused_indexes"] = f"this {measured.server.role} counts its own scans only: ask the primary"
    return found


class _Judge:
    """Judges one database. An index that stands in for one to be dropped is not called unused itself."""

    def __init__(self, policy: Policy, measured: Measured, database: Database) -> None:
        self.policy, self.measured = policy, measured
        self.indexes = judged(policy, database)
        self.by_table: dict[Ref, list[Index]] = {}
        for index in self.indexes:
            self.by_table.setdefault(index.table, []).append(index)
        self.children: dict[Ref, list[Index]] = {}
        for index in database.indexes:
            if index.partition_of is not None:
                self.children.setdefault(index.partition_of, []).append(index)
        counters = database.structure.counters if database.structure else ()
        self.counters = [c for c in counters if c.kind == "auto_increment"]
        self.dropped: dict[Ref, Index] = {}  # those to be dropped, and who stands in for them
        self.needed: set[Ref] = set()

    def findings(self) -> t.Iterator[Finding]:
        for indexes in self.by_table.values():
            yield from self._invalid(indexes)
            alike: dict[t.Hashable, list[Index]] = {}  # only those that begin alike can stand in for each other
            for index in indexes:
                if index.valid:
                    alike.setdefault((index.method, index.columns[:1], index.parts[:1]), []).append(index)
            for group in alike.values() if len(alike) < len(indexes) else ():
                yield from self._duplicates(group)
                yield from self._redundant(group)
        self.needed |= set(self._counting())
        for index in self.indexes:
            if index.ref not in self.dropped and index.ref not in self.needed and _droppable(index):
                yield from self._unused(index)

    def _invalid(self, indexes: t.Sequence[Index]) -> t.Iterator[Finding]:
        for index in indexes:
            if index.valid or any(word in index.keep for word in LEFT_ALONE):
                continue
            what = f"the index {_name(index)} is invalid: it is kept up to date, and no query uses it"
            twin = next((i for i in indexes if i.valid and _same(i, index)), None)
            if twin is not None:
                cure = DropIndex(index.ref, index.table, index.partitioned)
                yield Finding(2, "invalid_index", index.ref, f"{what}; {_name(twin)} does the same", cure)
            elif index.partitioned:
                fix = "Make the index on the partitions that lack it and attach it there"
                message = f"the index {_name(index)} is invalid: not every partition has one"
                yield Finding(2, "invalid_index", index.ref, message, fix=fix)
            else:
                online = "online rebuild" not in index.lacks
                message = f"{what}; a unique one may not hold either" if index.unique else what
                yield Finding(2, "invalid_index", index.ref, message, Reindex(index.ref, index.table, online))

    def _duplicates(self, indexes: t.Sequence[Index]) -> t.Iterator[Finding]:
        groups: dict[t.Hashable, list[Index]] = {}
        for index in indexes:
            groups.setdefault(_kind(index), []).append(index)
        for group in groups.values():
            keeper, *others = sorted(group, key=_worth)
            for index in others:
                if _tied(index) or not keeper.visible:
                    continue
                if index.unique and not keeper.unique:
                    continue  # cannot be: a unique one is worth more
                yield self._stand_in(index, keeper, 2, "duplicate_index", f"is the same as {_name(keeper)}")

    def _redundant(self, indexes: t.Sequence[Index]) -> t.Iterator[Finding]:
        left = [i for i in indexes if i.ref not in self.dropped and i.method in ORDERED]
        for index in left:
            if index.unique or index.where or _tied(index) or not index.columns:
                continue
            wider = [i for i in left if _covers(i, index)]
            if wider:
                keeper = max(wider, key=lambda i: len(i.columns))
                words = f"is the beginning of {_name(keeper)}, which serves the same searches"
                yield self._stand_in(index, keeper, 3, "redundant_index", words)

    def _stand_in(self, index: Index, keeper: Index, priority: int, code: str, words: str) -> Finding:
        self.dropped[index.ref] = keeper
        if index.scans != 0 or index.keep:
            self.needed.add(keeper.ref)
        message = f"the index {_name(index)} {_size(index.bytes)}{words}"
        if index.constraint:
            both = f"behind the constraint {index.constraint}"
            message += f", and stands {both}" + (
                f", the other one behind {keeper.constraint}" * bool(keeper.constraint)
            )
            return Finding(priority, code, index.ref, message, fix=f"Drop the constraint {index.constraint}")
        return Finding(priority, code, index.ref, message, DropIndex(index.ref, index.table, index.partitioned))

    def _unused(self, index: Index) -> t.Iterator[Finding]:
        server = self.measured.server
        if server.role != "primary":
            return  # what its queries use says nothing about the others, and it cannot be dropped here
        parts = self._leaves(index)
        if not parts or any(i.scans is None or i.scans > 0 or not self._long_counted(i) for i in parts):
            return
        size = sum(i.bytes for i in parts)
        seconds = min(s for i in parts if (s := _counted_seconds(i, self.measured)) is not None)
        message = f"the index {_name(index)} {_size(size)}was not used once in {say_seconds(seconds)}"
        message += self._elsewhere() + (f"; {index.doubt}" if index.doubt else "")
        cure = DropIndex(index.ref, index.table, index.partitioned)
        yield Finding(2 if size >= WEIGHTY else 3, "unused_index", index.ref, message, cure)

    def _counting(self) -> t.Iterator[Ref]:
        """A column with AUTO_INCREMENT has to be the first of an index: one of them stays."""
        for counter in self.counters:
            able = [i for i in self.by_table.get(counter.ref, ()) if i.columns[:1] == (counter.column,)]
            left = [i for i in able if i.ref not in self.dropped]
            if left:
                yield max(left, key=lambda i: (not _droppable(i), i.scans or 0)).ref

    def _leaves(self, index: Index) -> list[Index]:
        """What is counted: a parent's uses are those of its partitions, and of theirs."""
        if not index.partitioned:
            return [index]
        return [leaf for child in self.children.get(index.ref, ()) for leaf in self._leaves(child)]

    def _long_counted(self, index: Index) -> bool:
        age, now = self.policy.unused_index_age, self.measured.server.now
        seconds = _counted_seconds(index, self.measured)
        if seconds is None or seconds < age:
            return False
        return index.last_scan is None or (now - index.last_scan).total_seconds() >= age

    def _elsewhere(self) -> str:
        replicas = (self.measured.health.replicas if self.measured.health else None) or ()
        attached = sum(not r.upstream for r in replicas)
        if attached:
            return (
                f"; the {attached} replicas attached count their own: check them"
                if attached > 1
                else ("; the replica attached counts its own: check it")
            )
        return "; replicas, if there are any, count their own: check them"


def _name(index: Index) -> str:
    return index.ref.path[-1] if index.ref.path else str(index.ref)


def _keys(index: Index) -> list[t.Hashable]:
    """What it is ordered by."""
    return list(zip(index.columns, index.parts))


def _kind(index: Index) -> tuple[t.Hashable, ...]:
    return (index.method, *_keys(index), tuple(sorted(index.included)), index.where)


def _same(one: Index, other: Index) -> bool:
    return _kind(one) == _kind(other) and (one.unique or not other.unique)


def _covers(wide: Index, index: Index) -> bool:
    """Whether every search that `index` serves is served by `wide`, which goes on where that one ends."""
    keys, wider = _keys(index), _keys(wide)
    return (
        wide.ref != index.ref
        and wide.method == index.method
        and wide.visible
        and not wide.where
        and len(wider) > len(keys)
        and wider[: len(keys)] == keys
        and set(index.included) <= {*wide.columns, *wide.included}
    )


def _size(size: int) -> str:
    """In brackets; nothing where it is not known."""
    return f"({say_bytes(size)}) " if size else ""


def _worth(index: Index) -> tuple[t.Any, ...]:
    """Who of several that are the same is kept: the first. Of two that are alike in all else the one that is used:
    the other one would be called unused next, though it has taken over."""
    tied = any(word in index.keep for word in TIED)
    backed = (not index.primary, not tied, not index.constraint, not index.unique, not index.visible)
    return (*backed, -(index.scans or 0), index.ref)


def _tied(index: Index) -> bool:
    """Whether something stands on this very index. A constraint is said, for it can be dropped like its index."""
    return index.primary or any(word in index.keep for word in TIED)


def _droppable(index: Index) -> bool:
    """Whether nothing but queries could need it. An expression has statistics, which plans use without the index."""
    needed = index.unique or index.primary or index.constraint or index.keep
    return index.valid and not needed and "" not in index.columns


def _counted_seconds(index: Index, measured: Measured) -> float | None:
    if index.scans is None or index.counted_since is None:
        return None
    return (measured.server.now - index.counted_since).total_seconds()
