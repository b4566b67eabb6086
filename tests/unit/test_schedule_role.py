# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The role schedule before its first task: its arguments are judged when nothing is known of the host yet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

ROLE = Path(__file__).parents[2] / "roles" / "schedule"
FOLDERS = ("schedule_dir", "schedule_log_dir", "schedule_lock_dir", "schedule_unit_dir")


def templated(facts: dict[str, Any], name: str) -> object:
    """A variable of the role as Ansible makes it of the defaults."""
    found: dict[str, Any] = {"ansible_facts": facts}
    for file in ("defaults/main.yml", "vars/main.yml"):
        for key, value in yaml.safe_load((ROLE / file).read_text(encoding="utf-8")).items():
            found[key] = trust_as_template(value) if isinstance(value, str) else value
    made: object = Templar(DataLoader(), found).template(found[name])
    return made


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_paths_when_nobody_has_asked_who_runs_it(name: str) -> None:
    """ansible-core 2.19 refuses the role otherwise; 2.21 does not look so closely."""
    assert str(templated({}, name)).startswith("~/.")
    assert str(templated({"user_uid": 1000, "user_dir": "/home/dba"}, name)).startswith("/home/dba/.")
    assert str(templated({"user_uid": 0, "user_dir": "/root"}, name)).startswith(("/etc/", "/var/log/"))
