# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_alert: what it hands out, what it keeps, and that a state which is lost or damaged silences nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail

from ansible_collections.dbfleet.maintenance.plugins.action import db_alert
from ansible_collections.dbfleet.maintenance.plugins.action.db_alert import ActionModule, outcome

from .watch import GONE, HEALTHY

TROUBLED = {"db1": HEALTHY, "db2": GONE}
GONE_SAID = "out of reach: Failed to connect to the host via ssh: no route to host"
MAILED = "Mail sent successfully"


def alert(fleet: dict[str, Any], path: Path, *, check: bool = False, diff: bool = False, **options: Any) -> Any:
    """The action's result, as a task of a play over all these hosts gets it."""
    args = {"state_path": str(path), "calls": ["slack"], "wait": "0s", **options}
    task = SimpleNamespace(args=args, check_mode=check, diff=diff, async_val=0, delegate_to=None, action="db_alert")
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


def keep(found: Any, path: Path, *sent: dict[str, Any]) -> Any:
    return alert({}, path, run=found["run"], sent=list(sent))


def all_went_out(found: Any, path: Path) -> Any:
    return keep(found, path, *({"id": one["id"], "channel": one["channel"], "ok": True} for one in found["messages"]))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def test_what_went_out_is_not_sent_again(path: Path) -> None:
    found = alert(TROUBLED, path)
    assert (found["changed"], [one["id"] for one in found["messages"]]) == (True, ["call-slack"])
    assert found["alarms"] == {"critical": 1, "warning": 0}
    assert all_went_out(found, path)["failed_calls"] == []
    again = alert(TROUBLED, path)
    assert (again["changed"], again["messages"], again["msg"]) == (False, [], "nothing to be sent")


def test_what_did_not_go_out_is_sent_again_and_said(path: Path) -> None:
    found = alert(TROUBLED, path)
    kept = keep(
        found,
        path,
        {"item": found["messages"][0], "status": 500, "url": "https://hooks.example.com/T0/secret", "msg": "HTTP 500"},
    )
    assert kept["failed_calls"] == ["slack by hooks.example.com: HTTP 500"]
    assert kept["warnings"] == ["Not told, and to be told by the next run: slack by hooks.example.com: HTTP 500"]
    assert len(alert(TROUBLED, path)["messages"]) == 1


def test_a_run_that_was_killed_while_it_sent_has_told_nothing(path: Path) -> None:
    first = alert(TROUBLED, path)
    meanwhile = alert(TROUBLED, path)
    assert (meanwhile["messages"], meanwhile["state_error"]) == ([], meanwhile["warnings"][0])
    assert "another run is sending" in meanwhile["state_error"]
    Path(f"{path}.lock").write_text("", encoding="utf-8")  # its time is over
    assert len(alert(TROUBLED, path)["messages"]) == 1
    (late,) = all_went_out(first, path)["failed_calls"]
    assert late.startswith("what was sent cannot be kept, and will be sent again: another run is sending")


def test_a_run_that_comes_late_does_not_speak_for_another(path: Path) -> None:
    """The second one has seen more than the first has sent; both died before they could say so, but for the first."""
    first = alert(TROUBLED, path)
    Path(f"{path}.lock").write_text("", encoding="utf-8")
    assert len(alert({**TROUBLED, "db3": GONE}, path)["messages"]) == 1
    Path(f"{path}.lock").write_text("", encoding="utf-8")
    all_went_out(first, path)
    Path(f"{path}.lock").write_text("", encoding="utf-8")
    assert len(alert({**TROUBLED, "db3": GONE}, path)["messages"]) == 1


def test_a_run_with_nothing_to_send_is_in_nobodys_way(path: Path) -> None:
    alert({"db1": HEALTHY}, path)
    assert alert({"db1": HEALTHY}, path)["changed"] is False


def test_a_fresh_controller_with_the_file_goes_on(path: Path, tmp_path: Path) -> None:
    all_went_out(alert(TROUBLED, path), path)
    elsewhere = tmp_path / "volume" / "state.json"
    elsewhere.parent.mkdir()
    path.rename(elsewhere)
    assert alert(TROUBLED, elsewhere)["messages"] == []


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 1, "alarms": 3}', "\x00" * 100, "[" * 100_000],
    ids=["empty", "half", "list", "part", "zeros", "deep"],
)
def test_a_damaged_state_is_kept_aside_and_everything_is_told(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    found = alert(TROUBLED, path)
    (message,) = found["messages"]
    assert "everything is told again" in message["body"]["text"]
    assert "is damaged, and is kept" in found["warnings"][0]
    (kept,) = (file for file in path.parent.iterdir() if ".damaged-" in file.name)
    assert kept.read_text(encoding="utf-8") == content
    all_went_out(found, path)
    assert alert(TROUBLED, path)["messages"] == []


def test_a_state_that_cannot_be_kept_silences_nobody_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    nowhere = tmp_path / "file" / "state.json"
    for _night in range(2):
        found = alert(TROUBLED, nowhere)
        assert len(found["messages"]) == 1
        assert "the state cannot be used" in found["state_error"]
        (failed,) = all_went_out(found, nowhere)["failed_calls"]
        assert failed.startswith("what was sent cannot be kept, and will be sent again: the state cannot be used")


def test_check_mode_says_what_would_be_sent_and_leaves_no_trace(path: Path) -> None:
    found = alert(TROUBLED, path, check=True, diff=True)
    assert (found["changed"], found["msg"]) == (
        True,
        f"would send: slack: Database maintenance: 1 critical: db2 {GONE_SAID}",
    )
    assert "- db2: out of reach" in found["diff"][0]["after"]
    assert list(path.parent.iterdir()) == []
    all_went_out(alert(TROUBLED, path), path)
    before = path.read_bytes()
    assert alert({"db1": HEALTHY, "db2": HEALTHY}, path, check=True)["changed"] is True
    assert path.read_bytes() == before


def test_hosts_that_were_expected_and_are_not_known_are_called_for(path: Path) -> None:
    found = alert({"db1": HEALTHY}, path, hosts=["db1", "retired"])
    assert "retired was expected and did not report" in found["messages"][0]["subject"]


def test_whether_mails_can_be_sent_is_known_before_anything_goes_out(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, known in (("uri", True), ("nothing", False)):
        monkeypatch.setattr(db_alert, "MAILER", module)
        assert alert(TROUBLED, path, check=True, calls=["mail"])["mailer"] is known
        assert alert(TROUBLED, path, check=True)["mailer"] is False


def test_operations_that_are_not_named_keep_their_age() -> None:
    ages = db_alert._ages({"backup": "8d", "cleanup": "0s"})
    assert (ages["backup"], ages["cleanup"], ages["vacuum"]) == (8 * 86400, 0, 26 * 3600)


def test_nobody_to_be_told_is_said(path: Path) -> None:
    """A variable whose name was mistyped looks as if all were well."""
    assert alert(TROUBLED, path, calls=[])["warnings"] == [db_alert.NOBODY]
    assert "warnings" not in alert(TROUBLED, path, calls=[], weekly=["mail"])


def test_a_state_that_is_a_pipe_is_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    found = alert(TROUBLED, path)
    assert len(found["messages"]) == 1
    assert "is not a file" in found["state_error"]


def test_the_state_holds_no_address(path: Path) -> None:
    all_went_out(alert(TROUBLED, path, report_url="https://example.com/secret"), path)
    assert "https://" not in path.read_text(encoding="utf-8")
    assert json.loads(path.read_text(encoding="utf-8"))["format"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"connection_warning": 120}, "connection_warning: 120.0 is not a percentage"),
        ({"statement_warning": "soon"}, "statement_warning: 'soon' is not understood"),
        ({"bloat_min_size": "1"}, "bloat_min_size: '1' is not understood"),
        ({"summary_at": "morning"}, "summary_at: 'morning' is no time of day"),
        ({"timezone": "Mars"}, "timezone: 'Mars' is not known"),
        ({"operation_max_age": {"backups": "8d"}}, "operation_max_age: backups is no operation"),
        ({"operation_max_age": {"backup": "soon"}}, "operation_max_age: 'soon' is not understood"),
        ({"calls": ["pigeon"]}, "pigeon"),
        ({"daily": ["pager"]}, "pager"),
        ({"kinds": ["noise"]}, "noise"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_makes_no_sense_is_refused(path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(AnsibleActionFail, match=said):
        alert(TROUBLED, path, **options)
    assert not path.exists()


# ---- what became of a message ----------------------------------------------------------------------------------------

SLACK, MAIL = {"id": "call-slack", "channel": "slack"}, {"id": "call-mail", "channel": "mail"}


@pytest.mark.parametrize(
    ("found", "ok", "said"),
    [
        ({"item": SLACK, "status": 200, "url": "https://h/x"}, True, ""),
        ({"item": SLACK, "status": 204}, True, ""),
        ({"item": SLACK, "status": 302, "url": "https://h/x", "msg": "moved"}, False, "slack by h: moved"),
        (
            {"item": SLACK, "status": -1, "url": "https://u:p@h:1/s", "msg": "x https://u:p@h:1/s y"},
            False,
            "slack by h: x (address) y",
        ),
        ({"item": SLACK}, False, "slack by an unknown host: no answer"),
        # Addresses that are none: what is wrong with them is quoted.
        (
            {"item": SLACK, "status": -1, "msg": "unknown url type: 'hooks.example.com/SECRET'"},
            False,
            "slack by an unknown host: unknown url type: (hidden)",
        ),
        (
            {"item": SLACK, "status": -1, "url": "http://[SECRET/x", "msg": 'x "it\'s /SECRET" y http://[SECRET/x'},
            False,
            "slack by an unknown host: x (hidden) y (address)",
        ),
        (
            {"item": SLACK, "status": -1, "msg": "no port: 'it\\'s SECRET' and an end that was cut 'SECR"},
            False,
            "slack by an unknown host: no port: (hidden) and an end that was cut (hidden)",
        ),
        (
            {"item": SLACK, "status": -1, "msg": "URL can't contain control signs. '/SECRET x' (at b' ')"},
            False,
            "slack by an unknown host: URL can't contain control signs. (hidden) (at (hidden))",
        ),
        # A receiver may say the address again, as it likes.
        (
            {
                "item": SLACK,
                "status": 500,
                "url": "https://h/services/T0/SECRET?key=SECOND",
                "msg": "500: /SECRET SECOND",
            },
            False,
            "slack by h: 500: /(address) SECOND",
        ),
        ({"item": SLACK, "status": -1, "url": "https://h/x", "msg": "got \x00\u202e\nX"}, False, "slack by h: got X"),
        (
            {"item": SLACK, "failed": True, "msg": "The uri action failed to execute in the expected time frame (50)"},
            False,
            "slack by an unknown host: The uri action failed to execute in the expected time frame (50)",
        ),
        ({"item": MAIL, "msg": MAILED, "host": "mx"}, True, ""),
        (
            {"item": MAIL, "msg": "Task failed: Module failed: [Errno 111] Connection refused", "host": "mx"},
            False,
            "mail by mx: [Errno 111] Connection refused",
        ),
        ({"item": MAIL, "skipped": True, "host": "mx"}, False, "mail by mx: no answer"),
        ({**MAIL, "ok": True}, True, ""),
        ({**MAIL, "ok": False}, False, "mail by an unknown host: it was not sent"),
    ],
)
def test_outcomes(found: dict[str, Any], ok: bool, said: str) -> None:
    told = outcome(found)
    assert (told.ok, told.said if told.error else "") == (ok, said)


def test_one_refused_recipient_does_not_bring_the_mail_to_the_others_again() -> None:
    refused = {"gone@example.com": [550, "no such user"]}
    told = outcome(
        {"item": MAIL, "msg": "Failed to send mail to at least one recipient", "result": refused, "host": "mx"}
    )
    assert told.ok
    assert "gone@example.com: [550, 'no such user']" in told.said
