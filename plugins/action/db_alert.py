# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_alert: looks at a fleet and says what is to be sent to whom; then keeps what went out. It sends nothing itself.

What is decided stands in plugin_utils/_alarms.py and _calls.py, the file in module_utils/_alert_state.py.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
import uuid
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, Held
from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import duration, percentage, size
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_options import OPTIONS
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_words import plain

if t.TYPE_CHECKING:
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import Message, Wanted

Data = dict[str, t.Any]
Vars = t.Mapping[str, t.Any]

STATE = "dbfleet.maintenance.db_alert_state"
HERE = (None, "localhost", "127.0.0.1")  # delegated to one of them, the state lies on the controller
MAILER = "community.general.mail"
# What it says.
MAILED, MAILED_IN_PART = "Mail sent successfully", ("Failed to send mail to at least one recipient",)
CRASHED = re.compile("^(Task failed: )?(Module failed: )?")
LONGEST = 400  # characters of an error
SECRET = 6  # characters from which on a part of an address may be one
# An apostrophe within a word opens nothing; what was cut has no end.
QUOTED = re.compile(r"""(?<!\w)b?(?:'(?:[^'\\]|\\.)*'?|"(?:[^"\\]|\\.)*"?)""", re.DOTALL)
NOBODY = "Nobody is told of anything: no channel has a recipient, by calls, daily or weekly"
LOST = "What was told before is not known: everything is told again."


class StateLost(Exception):
    """The file cannot be read or written. Nobody may be left uncalled for that."""


class ActionModule(ActionBase):
    """Decides on the controller; the state may lie on the host that the task is delegated to."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Data:
        result: Data = super().run(tmp, task_vars)
        self.variables = task_vars or {}
        options = _options(self._task.args)
        try:
            result.update(self._keep(options) if options["sent"] is not None else self._look(options))
        except (BadInput, ValueError) as fault:
            raise AnsibleActionFail(f"db_alert: {fault}") from fault
        return result

    # ---- before anything is sent ---------------------------------------------------------------------------------

    def _look(self, options: Data) -> Data:
        from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _alert_messages, _calls

        wanted, dry = _wanted(options), self._task.check_mode
        data = self._data(options)
        run, wait = uuid.uuid4().hex, duration(options["wait"], "wait")
        try:
            state, damaged, lost = self._state(options["state_path"], run, wait, dry=dry)
        except Held as held:  # what this run has seen is told by the next one
            return self._shown([], _calls.empty(), run, [str(held)], str(held))
        note = LOST if damaged or lost else ""
        state = _alert_messages.looked(state, data, wanted, options["ran"], set(self.variables["hostvars"]))
        found = _alert_messages.messages(state, data, wanted, note)
        state = _calls.begun(state, {message.id: {**message.pending, "run": run} for message in found})
        if not dry and not lost:
            try:
                self._save(options["state_path"], run, state, end=not found, aside=bool(damaged))
            except (StateLost, Held) as fault:
                lost = str(fault)
        nobody = "" if wanted.calls or wanted.daily or wanted.weekly else NOBODY
        return self._shown(found, state, run, [words for words in (damaged, lost, nobody) if words], lost)

    def _data(self, options: Data) -> Data:
        from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _fleet, _fleet_host

        names = options["hosts"] if options["hosts"] is not None else self.variables["ansible_play_hosts_all"]
        hosts = _fleet_host.gathered(self.variables["hostvars"], names, options["operations"])
        asked = _fleet_host.Asked(
            title=options["title"],
            at=datetime.now(timezone.utc),
            operations=tuple(options["operations"]),
            planned=self._task.check_mode,
            history=duration(options["history"], "history"),
            backup_max_age=duration(options["backup_warning"], "backup_warning"),
        )
        return _fleet.fleet(hosts, asked)

    def _shown(self, found: t.Sequence[Message], state: Data, run: str, warnings: list[str], lost: str) -> Data:
        levels = [one["level"] for one in state["alarms"].values()]
        what = ", ".join(f"{one.channel}: {one.subject}" for one in found)
        said = f"{'would send' if self._task.check_mode else 'to be sent'}: {what}" if found else "nothing to be sent"
        result: Data = {
            "changed": bool(found),
            "msg": said,
            "run": run,
            "planned": self._task.check_mode,
            "mailer": any(one.channel == "mail" for one in found) and _known(MAILER),
            "messages": [message.shown for message in found],
            "alarms": {level: levels.count(level) for level in ("critical", "warning")},
            "state_error": lost or None,
        }
        if warnings:
            result["warnings"] = warnings
        if self._task.diff:
            result["diff"] = [{"before": "", "after": one.text, "after_header": one.id} for one in found]
        return result

    # ---- afterwards ----------------------------------------------------------------------------------------------

    def _keep(self, options: Data) -> Data:
        """Only what went out is told; the rest comes again with the next run."""
        from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _calls

        sent = [outcome(one) for one in options["sent"]]
        failed = [one.said for one in sent if one.error]
        result = {"changed": False, "run": options["run"], "failed_calls": failed, "msg": f"{len(sent)} sent"}
        if self._task.check_mode:
            return result
        try:
            state, damaged, lost = self._state(options["state_path"], options["run"] or "", 0.0, dry=False)
        except Held as held:
            state, damaged, lost = {}, "", str(held)
        if not (damaged or lost):
            own = {name: one for name, one in state["pending"].items() if one["run"] == options["run"]}
            after = _calls.told(state, [own[one.id] for one in sent if one.ok and one.id in own])
            try:
                self._save(options["state_path"], options["run"] or "", after, end=True)
            except (StateLost, Held) as fault:
                lost = str(fault)
        if damaged or lost:
            failed.append(f"what was sent cannot be kept, and will be sent again: {damaged or lost}")
        if failed:
            result["msg"] = f"Not told, and to be told by the next run: {'; '.join(failed)}"
            result["warnings"] = [result["msg"]]
        return result

    # ---- the state -----------------------------------------------------------------------------------------------

    def _state(self, path: str, run: str, wait: float, *, dry: bool) -> tuple[Data, str, str]:
        """The state; and what is wrong with it: damaged, or not to be had at all."""
        from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _calls

        try:
            content = self._load(path, run, wait, dry=dry)
        except StateLost as fault:
            return _calls.empty(), "", str(fault)
        if content is None:
            return _calls.empty(), "", ""
        try:
            return _calls.restored(json.loads(content)), "", ""
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as fault:
            return _calls.empty(), f"{path} is damaged, and is kept beside a new one: {fault}", ""

    def _load(self, path: str, run: str, wait: float, *, dry: bool) -> str | None:
        if self._task.delegate_to not in HERE:
            found = self._there(path=path, run=run, wait=wait, state="peeked" if dry else "claimed")
            return t.cast("str | None", found["content"])
        from ansible_collections.dbfleet.maintenance.plugins.module_utils import _alert_state

        try:
            return _alert_state.peek(_path(path)) if dry else _alert_state.claim(_path(path), run, wait=wait)
        except OSError as fault:
            raise StateLost(f"the state cannot be used: {fault}") from fault

    def _save(self, path: str, run: str, state: Data, *, end: bool, aside: bool = False) -> None:
        content = json.dumps(state) + "\n"
        if self._task.delegate_to not in HERE:
            self._there(path=path, run=run, content=content, state="saved", end=end, aside=aside)
            return
        from ansible_collections.dbfleet.maintenance.plugins.module_utils import _alert_state

        try:
            _alert_state.save(_path(path), run, content, end=end, aside=aside)
        except OSError as fault:
            raise StateLost(f"the state cannot be kept: {fault}") from fault

    def _there(self, **given: t.Any) -> Data:
        """The same on the host that the task is delegated to."""
        try:
            found: Data = self._execute_module(module_name=STATE, module_args=given, task_vars=self.variables)
        except AnsibleConnectionFailure as fault:
            raise StateLost(f"{self._task.delegate_to}, which keeps the state, is out of reach: {fault}") from fault
        if found.get("held"):
            raise Held(found["msg"])
        if found.get("failed") or found.get("unreachable"):
            raise StateLost(f"{self._task.delegate_to}, which keeps the state: {found.get('msg', '')}")
        return found


def _known(module: str) -> bool:
    """Whether Ansible knows a module. A playbook that names one which it does not know is at its end."""
    from ansible.plugins.loader import module_loader

    return bool(module_loader.find_plugin_with_context(module).resolved)


def _path(given: str) -> Path:
    return Path(os.path.expandvars(given)).expanduser()


def _options(given: Vars) -> Data:
    checked = ArgumentSpecValidator(OPTIONS).validate(given)
    if checked.error_messages:
        raise AnsibleActionFail("; ".join(checked.error_messages))
    options: Data = checked.validated_parameters
    return options


def _wanted(options: Data) -> Wanted:
    """Checked and typed. Raises BadInput."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _alert_times
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import Wanted

    return Wanted(
        limits=_limits(options),
        hours=_alert_times.hours(options["timezone"], options["summary_at"], options["weekly_on"]),
        title=options["title"],
        calls=list(dict.fromkeys(options["calls"])),
        daily=list(dict.fromkeys(options["daily"])),
        weekly=list(dict.fromkeys(options["weekly"])),
        reminder=duration(options["reminder"], "reminder") if options["reminder"] else 0.0,
        html=options["mail_format"] == "html",
        url=options["report_url"] or "",
    )


def _limits(options: Data) -> t.Any:
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import Limits
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alert_messages import kinds

    def seconds(name: str) -> float:
        return duration(options[name], name)

    def pair(name: str, read: t.Callable[[str], float]) -> tuple[float, float]:
        return read(f"{name}_warning"), read(f"{name}_critical")

    days = tuple(found / 86400 for found in pair("disk", seconds))
    return Limits(
        kinds=kinds(options["kinds"]),
        connections=pair("connection", lambda name: percentage(options[name], name)),
        statements=pair("statement", seconds),
        backup=pair("backup", seconds),
        transaction_ids=pair("transaction_id", lambda name: percentage(options[name], name, most=1000.0)),
        disk=(days[0], days[1]),
        bloat=(percentage(options["bloat_percent"], "bloat_percent"), 0.0),
        bloat_min_size=size(options["bloat_min_size"], "bloat_min_size"),
        growth=(float(size(options["growth"], "growth")), 0.0),
        table=(float(size(options["table_size"], "table_size")), 0.0),
        overdue=seconds("run_max_age"),
        operations=_ages(options["operation_max_age"] or {}),
    )


def _ages(given: Data) -> dict[str, float]:
    """Of those that are not named the default. Raises BadInput."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._alarms import MAX_AGES

    unknown = sorted(set(map(str, given)) - set(MAX_AGES))
    if unknown:
        cure = f"There are {', '.join(MAX_AGES)}"
        raise BadInput(f"operation_max_age: {', '.join(unknown)} is no operation", cure=cure)
    return {name: duration(str(age), "operation_max_age") for name, age in {**MAX_AGES, **given}.items()}


class Outcome(t.NamedTuple):
    """What became of a message. Never with an address as a whole, for those of webhooks are secrets."""

    id: str
    channel: str
    ok: bool
    host: str
    error: str

    @property
    def said(self) -> str:
        return f"{self.channel} by {self.host or 'an unknown host'}: {self.error}"


def outcome(one: Vars) -> Outcome:
    """Of what somebody says, or of what a loop over the messages registered."""
    message, error = one.get("item") or one, ""
    if "ok" in one:
        ok, error = bool(one["ok"]), str(one.get("error") or "")
    elif message["channel"] == "mail":
        # Where one of several recipients was refused the others have it: it does not go to them night after night.
        ok = one.get("msg") in (MAILED, *MAILED_IN_PART)
        error = "" if one.get("msg") == MAILED else _refusal(one)
    else:
        ok = 200 <= int(one.get("status") or 0) < 300
        error = "" if ok else str(one.get("msg") or "no answer")
    if not ok and not error:
        error = "it was not sent"
    address = _parts_of(str(one.get("url") or ""))
    host, words = str(one.get("host") or address.hostname or ""), CRASHED.sub("", error)
    if message["channel"] != "mail":
        words = _hidden(words, address)
    words = re.sub(r"https?://\S+", "(address)", " ".join(words.split()))
    return Outcome(str(message["id"]), str(message["channel"]), ok, host, plain(words, LONGEST))


class _Address(t.NamedTuple):
    """What may be said of an address, and what may not."""

    hostname: str = ""
    secrets: tuple[str, ...] = ()


def _parts_of(url: str) -> _Address:
    try:
        found = urlsplit(url)
        secrets = (url, found.path, found.query, found.username, found.password, *found.path.split("/"))
        return _Address(found.hostname or "", tuple(one for one in secrets if one and len(one) >= SECRET))
    except ValueError:  # brackets that do not close
        return _Address("", (url,))


def _hidden(words: str, address: _Address) -> str:
    """Errors over an address quote what is wrong with it, also where it does not begin as one."""
    for secret in sorted(address.secrets, key=len, reverse=True):
        words = words.replace(secret, "(address)")
    return QUOTED.sub("(hidden)", words)


def _refusal(one: Vars) -> str:
    refused = one.get("result") or {}
    return "; ".join([str(one.get("msg") or "no answer"), *(f"{to}: {why}" for to, why in refused.items())])
