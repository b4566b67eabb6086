# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_report: the variables of a fleet become files on the controller. What they hold: plugin_utils/_fleet.py."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import typing as t
from datetime import datetime, timezone
from pathlib import Path

from ansible.errors import AnsibleActionFail
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.plugins.action import ActionBase

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import duration
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._report_options import OPTIONS

Data = dict[str, t.Any]
Vars = t.Mapping[str, t.Any]


class ActionModule(ActionBase):
    """Runs on the controller alone: nothing is sent to any host."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> Data:
        result: Data = super().run(tmp, task_vars)
        variables = task_vars or {}
        options = _options(self._task.args)
        hosts = _hosts(options, variables)
        at = datetime.now(timezone.utc)
        try:
            data = _data(hosts, options, at, planned=self._task.check_mode)
            files, notes = _files(data, options)
            if options["metrics_path"]:
                files.append(_metrics_file(data, options, at, variables["hostvars"]))
            wrote = _write(files, dry=self._task.check_mode)
        except (BadInput, OSError, ValueError, LookupError) as fault:
            raise AnsibleActionFail(f"db_report: {fault}") from fault
        paths = dict(zip(("path", "data_path", "metrics_path"), (str(file.path) for file in files)))
        result.update(changed=bool(wrote), msg=data["summary"]["text"], **paths, summary=data["summary"])
        if notes:
            result["warnings"] = notes
        if self._task.diff:
            result["diff"] = [file.diff for file in files if file.path in wrote]
        return result


def _options(given: Vars) -> Data:
    checked = ArgumentSpecValidator(OPTIONS).validate(given)
    if checked.error_messages:
        raise AnsibleActionFail("; ".join(checked.error_messages))
    options: Data = checked.validated_parameters
    return options


class _File(t.NamedTuple):
    path: Path
    content: bytes
    words: str  # for a diff that a DBA reads: not the whole file
    mode: int
    group: str | None = None
    dated: bool = False  # always written, for its times; new only where something else is

    @property
    def diff(self) -> Data:
        return {"before": "", "after": self.words, "after_header": str(self.path)}


def _hosts(options: Data, variables: Vars) -> dict[str, Vars]:
    """What each host left."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _fleet_host

    names = options["hosts"] if options["hosts"] is not None else variables["ansible_play_hosts_all"]
    return _fleet_host.gathered(variables["hostvars"], names, options["operations"])


def _data(hosts: dict[str, Vars], options: Data, at: datetime, *, planned: bool) -> Data:
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _fleet
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._fleet_host import Asked

    asked = Asked(
        title=options["title"],
        at=at,
        operations=tuple(options["operations"]),
        planned=planned,
        history=duration(options["history"], "history"),
        backup_max_age=duration(options["backup_max_age"], "backup_max_age"),
    )
    return _fleet.fleet(hosts, asked)


def _files(data: Data, options: Data) -> tuple[list[_File], list[str]]:
    """Page and data, and what there is to complain about. A report that says nothing new keeps its time."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _charts
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._page import page

    path = _path(options["path"])
    data_path = _path(options["data_path"]) if options["data_path"] else path.with_suffix(".json")
    if data_path == path:
        raise BadInput(f"{path} cannot hold page and data", cure="Let path end in .html, or set data_path")
    data["at"] = _time_of(data_path, data) or data["at"]
    charts, why, notes = [], "", []
    if options["charts"]:
        try:
            charts = _charts.charts(data["databases"])
        except _charts.NoLibrary as missing:
            why = str(missing)
            notes = [f"The report has no charts: {why}"]
    text = page(data, charts, why_no_charts=why, data_name=data_path.name)
    words = data["summary"]["text"] + "\n"
    made = json.dumps(data, indent=1, ensure_ascii=False, default=str) + "\n"
    mode = _mode(options["mode"], "mode")
    # A name that is no Unicode is still told.
    return [
        _File(path, text.encode("utf-8", "backslashreplace"), words, mode),
        _File(data_path, made.encode("utf-8", "backslashreplace"), words, mode),
    ], notes


def _path(given: str) -> Path:
    return Path(os.path.expandvars(given)).expanduser()


def _metrics_file(data: Data, options: Data, at: datetime, inventory: t.Iterable[str]) -> _File:
    """With what hosts said last that this run left out, or that could not tell it this time."""
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _metrics

    path, labels = _path(options["metrics_path"]), {k: str(v) for k, v in (options["metrics_labels"] or {}).items()}
    if path.suffix != ".prom":
        raise BadInput(f"{path} would never be read", cure="Let metrics_path end in .prom, as node_exporter wants it")
    wrong = _metrics.no_labels(labels)
    if wrong:
        raise BadInput(f"metrics_labels: {', '.join(wrong)} cannot be a label", cure="Use other names, as fleet")
    try:
        older = path.read_bytes().decode("utf-8", "replace")  # as it is: a name may end a line
    except FileNotFoundError:
        older = ""
    found, told = _metrics.numbers(data, at)
    here = [host["host"] for host in data["hosts"]]
    text = _metrics.text(found, _metrics.staying(_metrics.known(older), told, here, inventory), labels)
    mode, words = _mode(options["metrics_mode"], "metrics_mode"), data["summary"]["text"] + "\n"
    return _File(path, text.encode("utf-8"), words, mode, options["metrics_group"], dated=True)


def _time_of(path: Path, data: Data) -> str | None:
    """When the report that lies there was made, if it says the same."""
    try:
        known = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(known, dict) or not isinstance(known.get("at"), str):
        return None
    same = json.loads(json.dumps({**data, "at": known["at"]}, default=str)) == known
    return t.cast(str, known["at"]) if same else None


def _write(files: t.Sequence[_File], *, dry: bool) -> list[Path]:
    """Those that are not there as they should be; each is replaced as a whole."""
    wrong = [file for file in files if not _is(file)]
    if not dry:
        # The metrics last: their time says that all is done. The page after its data, for it refers to them.
        for file in sorted((f for f in files if f in wrong or f.dated), key=lambda f: (f.dated, -files.index(f))):
            target = file.path.resolve()  # a link stays a link
            target.parent.mkdir(parents=True, exist_ok=True)
            _replace(target, file)
    return [file.path for file in wrong]


def _mode(asked: t.Any, name: str) -> int:
    """`"0600"`, or what YAML makes of 0600."""
    if isinstance(asked, int) and not isinstance(asked, bool):
        return asked
    if not isinstance(asked, str) or not re.fullmatch("0?[0-7]{3,4}", asked):
        raise BadInput(f"{name}: {asked!r} is no mode of a file", cure='Write it as "0600"')
    return int(asked, 8)


def _is(file: _File) -> bool:
    try:
        there = file.path.read_bytes()
        if file.path.stat().st_mode & 0o7777 != file.mode or (file.group and file.path.group() != file.group):
            return False
    except (FileNotFoundError, KeyError):  # or it is a group's that has no name
        return False
    if not file.dated:
        return there == file.content
    from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._metrics import without_times

    return without_times(there.decode("utf-8", "replace")) == without_times(file.content.decode())


def _replace(target: Path, file: _File) -> None:
    number, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(number, "wb") as out:
            os.fchmod(number, file.mode)
            if file.group:
                shutil.chown(name, group=file.group)
            out.write(file.content)
            out.flush()
            os.fsync(number)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
