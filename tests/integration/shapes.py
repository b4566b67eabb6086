# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables and b-trees of shapes drawn by chance, with their churn, for PostgreSQL: what estimators are judged on."""

from __future__ import annotations

import random
from typing import NamedTuple


class Kind(NamedTuple):
    """A column: its type, an expression of the row's number `i`, and the bytes it takes, about."""

    type: str
    value: str
    width: int
    key: bool = True  # may be in a b-tree
    follows: bool = False  # the row's number, and so other columns that do
    expression: str = ""  # to index instead of the column, `{}` being its name


class Shape(NamedTuple):
    """A table that can be made, and its indexes by name."""

    name: str
    rows: int
    make: str
    churn: tuple[str, ...]
    indexes: tuple[str, ...]
    fresh: bool


def _whole(below: int) -> str:
    return f"floor(random() * {below})::bigint"


def kinds(dice: random.Random) -> list[Kind]:
    """One of each kind of column, with its own parameters."""
    few, many = dice.choice([2, 7, 40, 300]), dice.choice([1000, 20000, 10**9])
    long, word = dice.choice([12, 30, 70, 200]), dice.choice([5, 9, 17, 26])
    return [
        Kind("int", _whole(few), 4),
        Kind("int", f"i % {many}", 4, follows=True, expression="({} * 2)"),
        Kind("int", _whole(many), 4),
        Kind("bigint", f"(i::bigint * 7919) % {many}", 8, follows=True),
        Kind("smallint", f"{_whole(few)}::smallint", 2),
        Kind("boolean", "random() < 0.3", 1),
        Kind("timestamptz", f"'2026-01-01'::timestamptz + i % {many} * interval '1 second'", 8, follows=True),
        Kind("date", f"'2020-01-01'::date + {_whole(2000)}::int", 4),
        Kind("uuid", "md5(i::text)::uuid", 16, follows=True),
        Kind("float8", "random()", 8),
        Kind("float8", f"{_whole(few)}", 8),
        Kind("numeric(12,2)", f"(random() * {many})::numeric(12,2)", 8),
        Kind("numeric", _whole(few), 5),
        Kind("text", "md5(i::text)", 33, follows=True, expression="lower({})"),
        Kind(
            "text",
            f"repeat(chr(97 + i % 26), {_whole(long)}::int) || i",
            long // 2 + 6,
            follows=True,
            expression="upper({})",
        ),
        Kind("text", f"'state-' || {_whole(few)}", 10, expression="lower({})"),
        Kind("text", f"substr(md5(({_whole(many)})::text), 1, {word})", word + 1),
        Kind(
            "varchar(80)",
            "CASE WHEN random() < 0.7 THEN 'short' ELSE repeat('y', 60) END || i % 1000",
            30,
            follows=True,
        ),
        Kind("char(11)", "lpad((i % 5000)::text, 11, '0')", 12, follows=True),
        Kind("text", "repeat(md5(random()::text), 8)", 260, key=False),
        Kind("jsonb", "jsonb_build_object('id', i, 'tags', repeat('z', (random() * 40)::int))", 60, key=False),
        Kind("int[]", "ARRAY[i, i + 1, 3]", 36, key=False),
        Kind("inet", f"'10.0.0.0'::inet + {_whole(many)} % 65536", 7),
    ]


def _columns(dice: random.Random) -> list[tuple[str, Kind, float]]:
    """(name, kind, share of nulls)."""
    chosen = dice.sample(kinds(dice), dice.randint(2, 7)) + ([] if dice.random() < 0.8 else kinds(dice)[:8])
    if not any(k.key for k in chosen):
        chosen.append(kinds(dice)[2])
    return [(f"c{n}", kind, dice.choice([0, 0, 0, 0.1, 0.5, 0.95])) for n, kind in enumerate(chosen)]


def _churn(dice: random.Random, name: str, rows: int, values: str) -> tuple[str, ...]:
    """Deletes and updates of one pattern, or of two."""
    share, nth, low = dice.uniform(0.1, 0.8), dice.choice([2, 3, 5, 10]), int(rows * dice.uniform(0, 0.6))
    high = low + int(rows * dice.uniform(0.1, 0.4))
    patterns = [
        f"DELETE FROM {name} WHERE random() < {share:.2f}",
        f"DELETE FROM {name} WHERE id BETWEEN {low} AND {high}",
        f"DELETE FROM {name} WHERE id % {nth} = 0",
        f"DELETE FROM {name} WHERE id % {nth} <> 0",
        f"UPDATE {name} SET id = id WHERE random() < {share:.2f}",
        f"UPDATE {name} SET id = id + {10 * rows} WHERE id % {nth} = 1",
        (
            f"DELETE FROM {name} WHERE id < {high}; VACUUM {name};"
            f" INSERT INTO {name} SELECT {values} FROM generate_series({20 * rows}, {20 * rows + high // 2}) i"
        ),
    ]
    return tuple(dice.sample(patterns, dice.choice([1, 1, 2])))


def _index(dice: random.Random, table: str, number: int, columns: list[tuple[str, Kind, float]]) -> tuple[str, str]:
    """The name and the statement of one b-tree."""
    able = [(name, kind) for name, kind, _nulls in columns if kind.key]
    chosen = dice.sample(able, min(len(able), dice.choice([1, 1, 1, 2, 3])))
    followers = [c for c in chosen if c[1].follows]
    chosen = [c for c in chosen if c not in followers[1:]]
    keys = [
        kind.expression.format(name) if kind.expression and dice.random() < 0.2 else name + dice.choice(["", " DESC"])
        for name, kind in chosen
    ]
    rest = [name for name, kind in able if (name, kind) not in chosen]
    include = f" INCLUDE ({rest[0]})" if rest and dice.random() < 0.15 else ""
    options = []
    if dice.random() < 0.3:
        options.append(f"fillfactor = {dice.choice([50, 70, 80, 100])}")
    if dice.random() < 0.1:
        options.append("deduplicate_items = off")
    where = " WHERE id % 3 <> 0" if dice.random() < 0.15 else ""
    name = f"{table}_{number}"
    storage = f" WITH ({', '.join(options)})" if options else ""
    return name, f"CREATE INDEX {name} ON {table} ({', '.join(keys)}){include}{storage}{where};"


def shapes(seed: int, tables: int = 20, size: float = 3e6) -> list[Shape]:
    """So many tables of about `size` bytes, each with an index or more; the first sixth of them never changed."""
    dice, made = random.Random(seed), []
    for number in range(tables):
        name, columns = f"t{number}", _columns(dice)
        rows = int(size * dice.uniform(0.7, 1.5) / (36 + sum(k.width + 3 for _n, k, _s in columns)))
        listed = ", ".join(["id bigint", *(f"{n} {k.type}" for n, k, _s in columns)])
        values = ", ".join(
            ["i", *(f"CASE WHEN random() >= {s} THEN {k.value} END" if s else k.value for _n, k, s in columns)]
        )
        # By random() itself would sort: it would then be one and the same value wherever the row says random().
        order = dice.choice(["", "", " ORDER BY md5(i::text)"])
        indexes = [_index(dice, name, n, columns) for n in range(dice.choice([1, 2, 3]))]
        if dice.random() < 0.5:
            unique = dice.choice(["", "UNIQUE "])
            indexes.append((f"{name}_id", f"CREATE {unique}INDEX {name}_id ON {name} (id);"))
        fresh = number < tables // 6
        first = dice.random() < 0.5 and not fresh
        create = "".join(statement for _name, statement in indexes)
        fill = f"INSERT INTO {name} SELECT {values} FROM generate_series(1, {rows}) i{order};"
        make = (
            f"CREATE UNLOGGED TABLE {name} ({listed}) WITH (fillfactor = {dice.choice([100, 100, 90, 70])});"
            f"SELECT setseed({dice.uniform(-1, 1):.6f});" + (create + fill if first else fill + create)
        )
        churn = () if fresh else _churn(dice, name, rows, values)
        made.append(Shape(name, rows, make, churn, tuple(n for n, _s in indexes), fresh))
    return made
