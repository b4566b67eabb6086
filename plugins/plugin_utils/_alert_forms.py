# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A letter in the form of each channel: text and HTML for mails, Slack's markup, JSON, events of a pager. Pure.

What comes from databases is text and nothing else in all of them: no tag, no mention of everybody, no link.
"""

from __future__ import annotations

import typing as t
from html import escape

from ._alert_words import Letter, Line, plain
from ._calls import Call, Data, Page

LONGEST_SLACK = 1900  # characters: Slack cuts a text of 4,000 in pieces, Discord refuses more than 2,000
LONGEST_PAGER = 1000  # the summary of an event: 1,024 at most
LISTED = 50  # alarms in the data of a webhook and of an event
INKS = {"critical": "#d5382c", "warning": "#a86400", "good": "#1e8449", "plain": "#66758a"}  # on white and on black
NOTHING = "\N{ZERO WIDTH SPACE}"
# Each breaks what a chat would make of it: mentions (@everyone, also in chats that only resemble Slack), links, code.
BROKEN = {"@": f"@{NOTHING}", "://": f":{NOTHING}//", "](": f"]{NOTHING}(", "`": "'", "*": "∗", "~": "∼"}


def text(letter: Letter) -> str:
    """Plain text."""
    lines = [letter.head]
    for part in letter.parts:
        lines += ["", part.title.upper()]
        for line in part.lines:
            lines.append(f"- {line.where}: {line.text}")
            if line.fix:
                lines.append(f"  > {line.fix}")
        if part.more:
            lines.append(f"- and {part.more:,} more")
    lines += ["", *(words for words in (letter.foot, letter.url) if words)]
    return "\n".join(lines) + "\n"


def html(letter: Letter) -> str:
    """One column that fits a phone; styles stand where they hold, since readers of mail drop style sheets."""
    rows = "".join(_part(part) for part in letter.parts)
    foot = f'<p style="color:#707b8a;font-size:14px">{escape(letter.foot)}</p>' if letter.foot else ""
    if letter.url.startswith(("https://", "http://")):
        foot += f'<p><a href="{escape(letter.url)}">Report</a></p>'
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark"><title>'
        f"{escape(letter.subject)}</title></head>"
        '<body style="margin:0;padding:16px;font:16px/1.45 system-ui,sans-serif">'
        '<div style="max-width:600px;margin:0 auto;overflow-wrap:anywhere">'
        f'<h1 style="font-size:20px;margin:0 0 12px">{escape(letter.head)}</h1>{rows}{foot}</div></body></html>\n'
    )


def _part(part: t.Any) -> str:
    more = f'<p style="margin:4px 0">and {part.more:,} more</p>' if part.more else ""
    return (
        f'<div style="border-left:4px solid {INKS[part.tone]};padding-left:12px;margin:0 0 20px">'
        f'<h2 style="font-size:16px;margin:0 0 6px;color:{INKS[part.tone]}">{escape(part.title)}</h2>'
        f"{''.join(_line(line) for line in part.lines)}{more}</div>"
    )


def _line(line: Line) -> str:
    fix = f'<br><code style="font-size:13px">{escape(line.fix)}</code>' if line.fix else ""
    return f'<p style="margin:0 0 8px"><b>{escape(line.where)}</b><br>{escape(line.text)}{fix}</p>'


# ---- webhooks --------------------------------------------------------------------------------------------------------


def slack(letter: Letter) -> dict[str, t.Any]:
    """Understood by Slack, and by what takes its webhooks: Mattermost, Rocket.Chat, Zulip, Discord below /slack."""
    lines = [f"*{_marked(letter.subject)}*"]
    for part in letter.parts:
        lines.append(f"*{_marked(part.title)}*")
        lines += [f"• {_marked(line.where)}: {_marked(line.text)}" for line in part.lines]
        lines += [f"• and {part.more:,} more"] if part.more else []
    foot = [_marked(letter.foot)] if letter.foot else []
    if letter.url.startswith(("https://", "http://")) and not set(letter.url) & set("<>|"):
        foot.append(f"<{letter.url.replace('&', '&amp;')}|Report>")
    return {"text": _fitting(lines, foot, LONGEST_SLACK), "link_names": 0, "unfurl_links": False}


def _marked(words: str) -> str:
    """Slack's own three signs, and what other chats understand."""
    for sign, instead in BROKEN.items():
        words = words.replace(sign, instead)
    return words.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _fitting(lines: t.Sequence[str], foot: t.Sequence[str], most: int) -> str:
    """Whole lines only, so that no sign is cut in the middle."""
    kept: list[str] = []
    room = most - sum(len(line) + 1 for line in foot)
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            kept.append("• …")
            break
        kept.append(line)
    return "\n".join([*kept, *foot])


def webhook_of_call(letter: Letter, call: Call, title: str, at: str) -> dict[str, t.Any]:
    """For programs: the alarms themselves."""
    lists = {name: _listed(found) for name, found in call._asdict().items()}
    counts = {name: len(found) for name, found in call._asdict().items()}
    return {**_envelope("call", letter, title, at), **lists, "counts": counts}


def webhook_of_summary(summary: str, letter: Letter, title: str, at: str, sums: Data) -> dict[str, t.Any]:
    return {**_envelope(summary, letter, title, at), "summary": dict(sums)}


def _envelope(event: str, letter: Letter, title: str, at: str) -> dict[str, t.Any]:
    words = {"title": title, "subject": letter.subject, "text": text(letter), "url": letter.url or None}
    return {"version": 1, "event": event, "at": at, **words}


def _listed(alarms: t.Iterable[Data]) -> list[dict[str, t.Any]]:
    kept = ("kind", "host", "subject", "level", "text", "fix", "since")
    return [{name: plain(one[name]) if one.get(name) else None for name in kept} for one in list(alarms)[:LISTED]]


def pager(page: Page, letter: Letter, title: str, at: str) -> dict[str, t.Any]:
    """An event as version 2 of PagerDuty's events has it. Its key is a secret, and is put in by whoever sends it."""
    event: dict[str, t.Any] = {
        "event_action": "resolve" if page.over else "trigger",
        "dedup_key": f"dbfleet-{page.name}",
    }
    if page.over:
        return event
    hosts = list(dict.fromkeys(one["host"] for one in page.alarms))
    event["client"] = plain(title)
    event["payload"] = {
        "summary": plain(letter.subject, LONGEST_PAGER),
        "source": plain(hosts[0] if len(hosts) == 1 else f"{len(hosts)} hosts"),
        "severity": "critical",
        "timestamp": at,
        "group": plain(title),
        "class": ", ".join(dict.fromkeys(one["kind"] for one in page.alarms)),
        "custom_details": {"alarms": _listed(page.alarms), "count": len(page.alarms)},
    }
    if letter.url.startswith(("https://", "http://")):
        event["links"] = [{"href": letter.url, "text": "Report"}]
    return event
