# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How sizes and speeds change over time: a slope that outliers do not bend. Pure; thresholds stand in advice.py."""

from __future__ import annotations

import typing as t
from datetime import datetime

from .._records import Sample
from .._tuples import NamedTuple

LEAST = 7  # points: fewer show noise
MOST = 60  # points: more add nothing but time, for every pair of them is looked at
DAY = 86400.0


class Trend(NamedTuple):
    """What a quantity does: `per_day` is the slope by Theil and Sen, the median of the slopes between all pairs."""

    per_day: float
    first: float
    last: float
    points: int
    seconds: float  # from the first point to the last


Point = tuple[float, float]  # seconds since 1970, value


def of_bytes(samples: t.Sequence[Sample]) -> Trend | None:
    """How fast an object grows, in bytes a day; None under seven samples."""
    return slope([(s.at.timestamp(), float(s.bytes)) for s in samples])


def of_rows(samples: t.Sequence[Sample]) -> Trend | None:
    """How fast an object gains rows, a day; None under seven samples that know them."""
    return slope([(s.at.timestamp(), float(s.rows)) for s in samples if s.rows is not None])


def of_ratio(samples: t.Sequence[Sample]) -> Trend | None:
    """The trend of bytes by rows between each sample and the next, where both only ever count up.

    So a mean that a server keeps since its start is told for each span apart.
    """
    return slope(spans(samples))


def spans(samples: t.Sequence[Sample]) -> list[Point]:
    """Bytes by rows between each sample and the next, at its end. A counter that went back was reset."""
    points = []
    for before, after in zip(samples, samples[1:]):
        if before.rows is None or after.rows is None or after.rows <= before.rows or after.bytes < before.bytes:
            continue
        mean = (after.bytes - before.bytes) / (after.rows - before.rows)
        points.append((after.at.timestamp(), mean))
    return points


def slope(points: t.Sequence[Point]) -> Trend | None:
    """Source: Sen, Estimates of the Regression Coefficient Based on Kendall's Tau, 1968."""
    series = thinned(sorted(dict(points).items()))
    if len(series) < LEAST:
        return None
    slopes = sorted(
        (value - before) / (at - then) for place, (at, value) in enumerate(series) for then, before in series[:place]
    )
    middle = len(slopes) // 2
    median = slopes[middle] if len(slopes) % 2 else (slopes[middle - 1] + slopes[middle]) / 2
    (began, first), (ended, last) = series[0], series[-1]
    return Trend(median * DAY, first, last, len(series), ended - began)


def thinned(series: t.Sequence[Point], most: int = MOST) -> list[Point]:
    """At most so many points, at even places, the first and the last among them."""
    if len(series) <= most:
        return list(series)
    step = (len(series) - 1) / (most - 1)
    return [series[round(place * step)] for place in range(most)]


def days_until(trend: Trend | None, room: float | None) -> float | None:
    """Days until `room` more bytes are used up; None where that is unknown, or nothing grows."""
    if trend is None or room is None or trend.per_day <= 0:
        return None
    return room / trend.per_day


def fit(samples: t.Sequence[Sample], now: datetime, most_days: float) -> tuple[Sample, ...]:
    """The samples of the last days: what happened a year ago says little of tomorrow."""
    return tuple(s for s in samples if (now - s.at).total_seconds() <= most_days * DAY)
