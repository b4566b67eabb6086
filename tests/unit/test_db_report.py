# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_report: two files that are there as a whole or not at all, written only where there is something new to say."""

from __future__ import annotations

import grp
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from prometheus_client.parser import text_string_to_metric_families

from ansible_collections.dbfleet.maintenance.plugins.action.db_report import ActionModule
from tests.playbook.results import assessed, mixed, unreachable

HEALTHY = {"db1": {"maintenance_assessed": assessed()}}


def report(fleet: dict[str, Any], path: Path, /, *, check: bool = False, diff: bool = False, **options: Any) -> Any:
    """The action's result, as a task of a play over all these hosts gets it."""
    args = {"path": str(path), "charts": False, **options}
    task = SimpleNamespace(args=args, check_mode=check, diff=diff, async_val=0, delegate_to=None, action="db_report")
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="unused"))
    maker: Any = ActionModule  # what it never touches is not there
    action = maker(
        task=task,
        connection=connection,
        play_context=SimpleNamespace(),
        loader=SimpleNamespace(),
        templar=SimpleNamespace(),
        shared_loader_obj=None,
    )
    return action.run(task_vars={"hostvars": fleet, "ansible_play_hosts_all": list(fleet)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "made" / "report.html"


def test_both_files_are_written_for_their_owner_alone(path: Path) -> None:
    result = report(mixed(8), path)
    data = path.with_suffix(".json")
    assert (result["changed"], result["path"], result["data_path"]) == (True, str(path), str(data))
    assert [oct(file.stat().st_mode & 0o777) for file in (path, data)] == ["0o600", "0o600"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json"]
    found = json.loads(data.read_text(encoding="utf-8"))
    assert result["msg"] == result["summary"]["text"] == found["summary"]["text"]
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_what_says_nothing_new_stays_with_its_time(path: Path) -> None:
    report(HEALTHY, path)
    before = [(file.stat().st_ino, file.read_bytes()) for file in (path, path.with_suffix(".json"))]
    assert report(HEALTHY, path)["changed"] is False
    assert [(file.stat().st_ino, file.read_bytes()) for file in (path, path.with_suffix(".json"))] == before
    assert report(mixed(8), path)["changed"] is True
    assert path.read_bytes() != before[0][1]


@pytest.mark.parametrize("harm", ["page", "data", "mode", "gone"])
def test_what_somebody_changed_is_made_good(path: Path, harm: str) -> None:
    report(HEALTHY, path)
    data = path.with_suffix(".json")
    if harm == "mode":
        path.chmod(0o644)
    elif harm == "gone":
        path.unlink()
    else:
        (path if harm == "page" else data).write_text("[]", encoding="utf-8")
    assert report(HEALTHY, path, check=True)["changed"] is True
    assert report(HEALTHY, path)["changed"] is True
    assert report(HEALTHY, path)["changed"] is False
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(data.read_text(encoding="utf-8"))["format"] == 1


def test_check_mode_writes_nothing_and_says_what_would_be(path: Path) -> None:
    assert report(HEALTHY, path, check=True)["changed"] is True
    assert not path.parent.exists()


@pytest.mark.parametrize(("mode", "made"), [("0640", 0o640), (0o644, 0o644), ("600", 0o600)])
def test_the_mode_is_as_asked(path: Path, mode: Any, made: int) -> None:
    report(HEALTHY, path, mode=mode)
    assert path.stat().st_mode & 0o777 == made


@pytest.mark.parametrize("mode", ["rw", "0999", "", True, 1.5])
def test_a_mode_that_is_none_is_refused(path: Path, mode: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="is no mode of a file"):
        report(HEALTHY, path, mode=mode)


def test_a_link_stays_one_and_no_reader_sees_half_a_file(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    elsewhere = tmp_path / "elsewhere.html"
    elsewhere.write_text("old", encoding="utf-8")
    path.symlink_to(elsewhere)
    with elsewhere.open(encoding="utf-8") as reader:
        report(HEALTHY, path)
        assert reader.read() == "old"
    assert path.is_symlink()
    assert elsewhere.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_where_nothing_can_be_written_the_old_report_stays(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report(HEALTHY, path)
    old = path.read_bytes()

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AnsibleActionFail, match="No space left on device"):
        report(mixed(8), path)
    assert path.read_bytes() == old
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json"]


def test_hosts_that_nobody_knows_did_not_report(path: Path) -> None:
    result = report(HEALTHY, path, hosts=["db1", "retired"])
    assert result["msg"] == "1 of 2 did not report; 1 without errors"
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["missing"] == ["retired"]


def test_without_the_library_there_is_a_warning_and_a_report(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = report(HEALTHY, path, charts=True)
    assert result["changed"] is True
    (warning,) = result["warnings"]
    assert "pip install matplotlib" in warning
    assert "No charts: install matplotlib" in path.read_text(encoding="utf-8")
    assert "warnings" not in report(HEALTHY, path, charts=False)


def test_a_name_that_is_no_unicode_is_told(path: Path) -> None:
    report({"db1": {"maintenance_error": "caf\udce9"}}, path)
    assert "caf\\udce9" in path.read_text(encoding="utf-8")
    assert report({"db1": {"maintenance_error": "caf\udce9"}}, path)["changed"] is False


def test_diff_sums_up(path: Path) -> None:
    result = report(HEALTHY, path, diff=True)
    assert {entry["after"] for entry in result["diff"]} == {"1 of 1 without errors\n"}
    assert report(HEALTHY, path, diff=True)["diff"] == []


# ---- metrics ---------------------------------------------------------------------------------------------------------


def series(file: Path) -> dict[str, float]:
    """The samples without their labels' names, as far as they are this test's business."""
    families = text_string_to_metric_families(file.read_text(encoding="utf-8"))
    return {" ".join((one.name, *one.labels.values())): one.value for f in families for one in f.samples}


def test_metrics_are_written_by_every_run_and_new_only_by_one_that_says_something_new(path: Path) -> None:
    metrics = path.with_suffix(".prom")
    result = report(HEALTHY, path, metrics_path=str(metrics), metrics_labels={"fleet": "shops"})
    assert (result["changed"], result["metrics_path"]) == (True, str(metrics))
    assert metrics.stat().st_mode & 0o777 == 0o644
    before, first = metrics.stat().st_ino, series(metrics)
    assert report(HEALTHY, path, metrics_path=str(metrics), metrics_labels={"fleet": "shops"})["changed"] is False
    again = series(metrics)
    assert metrics.stat().st_ino != before
    assert again["dbfleet_report_timestamp_seconds shops"] > first["dbfleet_report_timestamp_seconds shops"]
    assert again["dbfleet_host_state db1 healthy shops"] == 1
    assert report({"db1": unreachable()}, path, metrics_path=str(metrics))["changed"] is True
    assert series(metrics)["dbfleet_host_state db1 unreachable"] == 1
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json", "report.prom"]


def test_metrics_keep_hosts_that_a_limit_leaves_out_and_lose_those_that_left_the_inventory(path: Path) -> None:
    metrics = path.with_suffix(".prom")
    fleet = mixed(9)
    report(fleet, path, metrics_path=str(metrics))
    assert "dbfleet_host_state db0007 healthy" in series(metrics)
    report(fleet, path, metrics_path=str(metrics), hosts=["reports"])
    assert "dbfleet_host_state db0007 healthy" in series(metrics)
    del fleet["db0007"]
    report(fleet, path, metrics_path=str(metrics), hosts=["reports"])
    assert {name for name in series(metrics) if "db0007" in name} == set()
    assert "dbfleet_host_state db0008 healthy" in series(metrics)


def test_metrics_in_check_mode_are_not_written(path: Path) -> None:
    metrics = path.with_suffix(".prom")
    assert report(HEALTHY, path, check=True, metrics_path=str(metrics))["changed"] is True
    report(HEALTHY, path, metrics_path=str(metrics))
    before = metrics.read_bytes()
    assert report({"db1": {}}, path, check=True, metrics_path=str(metrics))["changed"] is True
    assert metrics.read_bytes() == before


def test_metrics_belong_to_the_group_that_was_asked_for(path: Path) -> None:
    metrics = path.with_suffix(".prom")
    mine = grp.getgrgid(os.getegid()).gr_name
    asked: dict[str, Any] = {"metrics_path": str(metrics), "metrics_mode": "0640", "metrics_group": mine}
    report(HEALTHY, path, **asked)
    assert (metrics.stat().st_mode & 0o777, metrics.group()) == (0o640, mine)
    assert report(HEALTHY, path, **asked)["changed"] is False
    with pytest.raises(AnsibleActionFail, match="no_such_group"):
        report(mixed(8), path, **{**asked, "metrics_group": "no_such_group"})
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json", "report.prom"]


def test_metrics_that_cannot_be_written_leave_the_old_ones_and_the_new_report(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = path.with_suffix(".prom")
    report(HEALTHY, path, metrics_path=str(metrics))
    before = metrics.read_bytes()
    replace = Path.replace

    def refused(self: Path, target: Path) -> Path:
        if target.name == metrics.name:
            raise PermissionError(13, "Permission denied")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", refused)
    with pytest.raises(AnsibleActionFail, match="Permission denied"):
        report(mixed(8), path, metrics_path=str(metrics))
    assert metrics.read_bytes() == before
    assert json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["summary"]["hosts"] == 8
    assert sorted(file.name for file in path.parent.iterdir()) == ["report.html", "report.json", "report.prom"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"metrics_path": "{path}.txt"}, "end in .prom"),
        ({"metrics_path": "{path}.prom", "metrics_mode": "rw"}, "metrics_mode: 'rw' is no mode"),
        ({"metrics_path": "{path}.prom", "metrics_labels": '{{"host": "x"}}'}, "metrics_labels: host cannot be"),
        ({"history": "soon"}, "history: 'soon' is not understood"),
        ({"backup_max_age": "26"}, "backup_max_age: '26' is not understood"),
        ({"data_path": "{path}"}, "cannot hold page and data"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused(path: Path, options: dict[str, str], said: str) -> None:
    given: dict[str, Any] = {name: value.format(path=path) for name, value in options.items()}
    with pytest.raises(AnsibleActionFail, match=said):
        report(HEALTHY, path, **given)
    assert not path.exists()
