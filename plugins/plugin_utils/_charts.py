# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The charts of the fleet's report, drawn by matplotlib as SVG that stands in the page. What they show: _fleet.py.

As wide as a phone, so that nothing has to be shrunk there; a wider page puts them beside each other. Colours are those
of the page, by the names of its style sheet: they follow light, dark and print. The same data gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import re
import typing as t
import unicodedata
import warnings
from xml.etree import ElementTree as ET

from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import say_bytes, say_seconds

if t.TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = t.Mapping[str, t.Any]

LIBRARY = "matplotlib"
BARS = 10  # of a chart: the worst
WIDTH = 352.0  # CSS pixels; the text of a phone of 390 less the margins
SOON, FAR = 30, 365  # days until a disk is full: when it is bad, and from when on nobody needs to know
ROW = 34.0  # a line of words and a bar below it
SIGNS = 50  # of a line of words that fit into WIDTH: letters count once, ideographs twice
PIXEL = 1 / 72  # inches: at 72 dots an inch matplotlib's SVG has one unit a pixel
# Stand-ins that nobody would choose: in the SVG they become the style sheet's own.
COLOURS = {
    "#010201": "var(--bar)",
    "#010202": "var(--bar-2)",
    "#010203": "var(--bad)",
    "#010204": "var(--track)",
    "#010205": "var(--ink)",
    "#010206": "var(--faint)",
}
SPACE = "{http://www.w3.org/2000/svg}"
KEPT = ("viewBox", "d", "x", "y", "transform")  # attributes
BAR, BAR_2, BAD, TRACK, INK, FAINT = COLOURS
SETTINGS: dict[str, t.Any] = {
    "svg.fonttype": "none",  # text stays text: it can be found, copied and read aloud
    "text.parse_math": False,  # a name may hold dollar signs
    "text.usetex": False,
    "path.simplify": False,
}


class Bar(t.NamedTuple):
    label: str
    text: str  # at the right, above the bar
    parts: tuple[tuple[float, str], ...]  # length and colour


class Chart(t.NamedTuple):
    name: str
    title: str
    note: str
    svg: str
    told: str  # for whoever cannot see it
    key: tuple[tuple[str, str], ...] = ()  # what the colours mean: variable of the style sheet, words


class NoLibrary(Exception):
    """What draws is not there. The message says what to install."""


def charts(databases: Data) -> list[Chart]:
    """Those that there is something to draw for. Raises NoLibrary."""
    most = databases["backup_max_age_seconds"]
    drawn = [_bloat(databases["bloat"]), _growth(databases["growth"]), _backups(databases["backups"], most)]
    return [_draw(chart, bars, longest) for chart, bars, longest in drawn if bars]


# ---- what is drawn ---------------------------------------------------------------------------------------------------

Drawn = tuple[Chart, list[Bar], float]  # what is as long as the chart is wide comes last


def _bloat(found: t.Sequence[Data]) -> Drawn:
    bars, longest = [], max((one["bloat_bytes"] + one["index_bloat_bytes"] for one in found), default=0)
    for one in found[:BARS]:
        table, index = one["bloat_bytes"], one["index_bloat_bytes"]
        share = f", {100 * (table + index) / one['bytes']:.0f} %" if one["bytes"] else ""
        bars.append(Bar(_name(one), f"{say_bytes(table + index)}{share}", ((table, BAR), (index, BAR_2))))
    key = (("--bar", "tables"), ("--bar-2", "indexes"))
    return Chart("bloat", "Bloat", "Space that a rebuild would give back" + _of(found), "", "", key), bars, longest


def _growth(found: t.Sequence[Data]) -> Drawn:
    bars, longest = [], max((one["bytes_per_day"] for one in found), default=0)
    for one in found[:BARS]:
        days = one["days_until_full"]
        full = "" if days is None or days >= FAR else f", full in {days:,.0f} d"
        colour = BAD if days is not None and days < SOON else BAR
        pace = one["bytes_per_day"]
        bars.append(Bar(_name(one), f"{say_bytes(pace)} a day{full}", ((pace, colour),)))
    key = (("--bad", f"disk full within {SOON} days"),) if any(line.parts[0][1] == BAD for line in bars) else ()
    return Chart("growth", "Growth", "By the sizes in the journals" + _of(found), "", "", key), bars, longest


def _backups(found: t.Sequence[Data], most: float) -> Drawn:
    ages = [one["age_seconds"] for one in found[:BARS]]
    longest = max([age for age in ages if age is not None] + [most])
    bars = []
    for one, age in zip(found, ages):
        late = age is None or age > most
        text = "none" if age is None else say_seconds(age)
        bars.append(Bar(_name(one), text, ((longest if age is None else age, BAD if late else BAR),)))
    key = (("--bad", f"older than {say_seconds(most)}, or none"),) if any(b.parts[0][1] == BAD for b in bars) else ()
    note = "The last that was read to its end" + _of(found)
    return Chart("backups", "Age of backups", note, "", "", key), bars, longest


def _of(found: t.Sequence[Data]) -> str:
    return f"; the worst {BARS} of {len(found):,} databases" if len(found) > BARS else ""


def _name(one: Data) -> str:
    """Database and host; of a file the end of its path tells more than its beginning."""
    database, host = _plain(one["database"]), _plain(one["host"])
    base = database.rsplit("/", 1)[-1] or database
    return base if base == host else f"{base} · {host}" if base else host


def _plain(text: t.Any) -> str:
    """Without what no SVG can hold, and what would turn the line around."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(text))


def _short(text: str, most: int) -> str:
    """Beginning and end of what is too long."""
    wide = sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
    if len(text) + wide <= most:
        return text
    half = (most - 1) // (4 if wide else 2)
    return f"{text[:half]}…{text[-half:]}"


# ---- drawing ---------------------------------------------------------------------------------------------------------


def _draw(chart: Chart, bars: t.Sequence[Bar], longest: float) -> Chart:
    # Its own words about fonts and folders would only confuse whoever runs a playbook.
    logging.getLogger(LIBRARY).setLevel(logging.ERROR)
    try:
        import matplotlib as mpl
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as missing:
        raise NoLibrary(f"install {LIBRARY} on the controller (pip install {LIBRARY}): {missing}") from missing
    out = io.BytesIO()
    # Whatever settings somebody has for charts of their own.
    with warnings.catch_warnings(), mpl.rc_context():
        warnings.simplefilter("ignore")  # a sign that our font lacks is in the reader's
        mpl.rcdefaults()
        mpl.rcParams.update({**SETTINGS, "svg.hashsalt": chart.name})
        figure = Figure(figsize=(WIDTH * PIXEL, ROW * len(bars) * PIXEL), dpi=72)
        FigureCanvasSVG(figure)
        figure.patch.set_visible(False)
        for number, line in enumerate(bars):
            _row(figure, line, number * ROW, WIDTH / longest)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    told = "; ".join(f"{line.label}: {line.text}" for line in bars)
    return chart._replace(svg=_inline(out.getvalue()), told=told)


def _row(figure: Figure, line: Bar, top: float, scale: float) -> None:
    """Straight on the figure, in its pixels: axes with nothing to read off would cost half of the time."""
    from matplotlib.patches import Rectangle
    from matplotlib.text import Text
    from matplotlib.transforms import IdentityTransform

    pixels, floor = IdentityTransform(), figure.bbox.height - top
    label = _short(line.label, SIGNS - len(line.text))
    words = [Text(0, floor - 12, label, color=INK), Text(WIDTH, floor - 12, line.text, color=FAINT, ha="right")]
    for text in words:
        text.set(fontsize=12, transform=pixels)
        figure.add_artist(text)
    left = 0.0
    for length, colour in ((WIDTH / scale, TRACK), *line.parts):
        if length > 0:
            width = max(length * scale, 1)
            where = (left, floor - 23)
            figure.add_artist(Rectangle(where, width, 6, color=colour, linewidth=0, transform=pixels, clip_on=False))
            left += width if colour != TRACK else 0


def _inline(svg: bytes) -> str:
    """Without what only a file of its own needs, in the colours and the font of the page.

    As a tree: in text, a name may look like anything.
    """
    root = ET.fromstring(svg)
    for parent in root.iter():
        parent.tag = parent.tag.removeprefix(SPACE)
        for child in list(parent):
            if child.tag in (f"{SPACE}metadata", f"{SPACE}defs"):
                parent.remove(child)
        if parent.tag != "text":
            parent.text = None
        parent.tail = None
        style = parent.get("style", "")
        for sign, colour in COLOURS.items():
            style = style.replace(sign, colour)
        kept = {name: parent.attrib[name] for name in KEPT if name in parent.attrib}
        parent.attrib.clear()
        parent.attrib.update(kept)
        if style:
            parent.set("style", re.sub(r"font: ([\d.]+px) [^;]*", r"font: \1 var(--font)", style))
    root.set("aria-hidden", "true")
    return ET.tostring(root, encoding="unicode")
