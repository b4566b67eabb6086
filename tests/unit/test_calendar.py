# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When cron runs something, in the words of systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from ansible.errors import AnsibleFilterError

from ansible_collections.dbfleet.maintenance.plugins.filter.as_calendar import as_calendar

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("cron", "calendar"),
    [
        ("* * * * *", "*-*-* *:*:00"),
        ("0 2 * * *", "*-*-* 02:00:00"),
        ("15 */4 * * *", "*-*-* 00,04,08,12,16,20:15:00"),
        ("45 1-23/6 * * *", "*-*-* 01,07,13,19:45:00"),
        ("5/20 0 * * *", "*-*-* 00:05,25,45:00"),
        ("0 4 * * sun", "Sun *-*-* 04:00:00"),
        ("0 4 * * 7", "Sun *-*-* 04:00:00"),
        ("0 4 * * 5-7", "Sun,Fri,Sat *-*-* 04:00:00"),
        ("30 22 * * MON-Fri", "Mon,Tue,Wed,Thu,Fri *-*-* 22:30:00"),
        ("0 4 * * 0-7", "*-*-* 04:00:00"),
        ("0 3 1,15 jan-mar *", "*-01,02,03-01,15 03:00:00"),
        ("0 0 31 12 *", "*-12-31 00:00:00"),
    ],
)
def test_says_the_same(cron: str, calendar: str) -> None:
    assert as_calendar(cron) == calendar


@pytest.mark.parametrize(
    "wrong",
    [
        *("", "@daily", "0 2 * *", "0 2 * * * *", "60 2 * * *", "-1 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 * 13 *"),
        *("0 2 * * 8", "0 2 * * foo", "0 2 * * mon-", "5-3 * * * *", "*/0 * * * *", "0 2 1 * mon", "0,, * * * *"),
        *("a b c d e", "0 2 * * mon;tue", "1.5 * * * *", "\u0663 * * * *x"),
    ],
)
def test_refuses_what_is_no_moment(wrong: str) -> None:
    with pytest.raises(AnsibleFilterError, match="as_calendar"):
        as_calendar(wrong)


def test_the_usual_plan_can_be_said_to_both() -> None:
    plan = yaml.safe_load((ROOT / "roles/schedule/defaults/main.yml").read_text(encoding="utf-8"))["schedule_plan"]
    assert len({as_calendar(job["at"]) for job in plan}) == len(plan)
    for job in plan:
        collection, _dot, playbook = job["playbook"].rpartition(".")
        assert collection == "dbfleet.maintenance"
        assert (ROOT / "playbooks" / f"{playbook}.yml").is_file()
