# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Durations, sizes, percentages: read from the user's words and written back in them. Nothing else."""

from __future__ import annotations

import re

from ._errors import BadInput

_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_BYTES = {"B": 1, "kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "PB": 1 << 50}
_PARTS = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*\Z")
_MOST = float(1 << 63)  # what servers and clocks can count
_ROUNDS_UP = 1023.95 / 1024  # from here on one decimal would say 1024.0 of the smaller unit


def _read(value: object, units: dict[str, float], option: str, example: str) -> float:
    found = _PARTS.match(str(value))
    if not found or found.group(2) not in units:
        raise BadInput(f"{option}: {str(value)!r} is not understood", cure=f"Write it as {example}")
    number = float(found.group(1)) * units[found.group(2)]
    if number >= _MOST:
        raise BadInput(f"{option}: {str(value)[:40]!r} is too large", cure=f"Write it as {example}")
    return number


def duration(value: object, option: str = "duration") -> float:
    """Seconds of `30s`, `15m`, `12h`, `90d`, `4w`, `200ms`; raises BadInput."""
    return _read(value, dict(_SECONDS), option, "30s, 15m, 12h, 90d or 4w")


def size(value: object, option: str = "size") -> int:
    """Bytes of `8kB`, `100MB`, `2GB`: powers of 1024, as PostgreSQL writes them; raises BadInput."""
    return int(_read(value, dict(_BYTES), option, "8kB, 100MB or 2GB"))


def percentage(value: object, option: str = "percentage", *, most: float = 100.0, zero: bool = True) -> float:
    """A plain number from 0 to `most`, or above 0 where `zero` is no threshold; raises BadInput."""
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 <= number <= most:
        raise BadInput(f"{option}: {value!r} is not a percentage", cure=f"Write a plain number from 0 to {most:.0f}")
    if not number and not zero:
        raise BadInput(f"{option}: from 0 % on everything would be due, every time", cure="Give a number above 0")
    return number


def say_bytes(value: float) -> str:
    """`1536` becomes `1.5 kB`."""
    number, sign = abs(float(value)), "-" if value < 0 else ""
    for unit, factor in reversed(_BYTES.items()):
        if number >= factor * _ROUNDS_UP and unit != "B":
            return f"{sign}{number / factor:.1f} {unit}"
    return f"{sign}{number:.0f} B"


def say_seconds(value: float) -> str:
    """`0.25` becomes `0.25 s`, `5400` becomes `1 h 30 min`, `864000` becomes `10 d`."""
    number = max(0.0, float(value))
    if number < 10:
        return f"{number:.2f} s"
    whole = round(number)
    for unit, factor, below, smaller in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= factor:
            rest = whole % factor // smaller
            return f"{whole // factor} {unit}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def say_count(value: int, noun: str, plural: str = "") -> str:
    """`1 row`, `1,204 rows`."""
    return f"{value:,} {noun if value == 1 else plural or noun + 's'}"
