# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of modules that change databases: lets them go on alone, and waits for them. How is _following.py's.

The module parts with the connection that started it (module_utils/_detached.py), and says where its result will be.
What it returns in the end takes the place of what it had said: neither the result nor what Ansible makes of it differs.
"""

from __future__ import annotations

import os
import sys
import typing as t

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action.normal import ActionModule as Normal
from ansible.utils.display import Display

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import duration
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils._following import Follower, Job, job_of, line

Data = dict[str, t.Any]
PROGRESS, RECONNECT = "maintenance_progress", "maintenance_reconnect"  # variables of hosts, or of a whole play
PATIENCE = "5m"  # for which a host may be out of reach while its job goes on
WISH = "DBFLEET_JOB"  # what _action.py looks for
# Asked when the main process loads the plugin: workers have no terminal. AWX gives its jobs one that nobody looks at.
SHOWS = (
    all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    and "AWX_HOST" not in os.environ
    and "JOB_ID" not in os.environ
)
LINE_SECONDS = 5.0  # between two lines of a host
LINES = 4.0  # a second, of all hosts together


class ActionModule(Normal):
    """In check mode, under async and where it is switched off nothing is done but what Ansible does for any module."""

    _supports_check_mode = True
    _supports_async = True

    def run(self, tmp: str | None = None, task_vars: Data | None = None) -> Data:
        self._variables = task_vars or {}
        self._waiting = False
        try:
            self._patience = duration(self._variable(RECONNECT, PATIENCE), RECONNECT)
        except BadInput as fault:
            raise AnsibleActionFail(str(fault)) from fault
        wish = self._wish()
        if wish:
            self._task.environment.append({WISH: wish})
        try:
            as_usual: t.Callable[..., Data] = super().run
            return as_usual(tmp, task_vars)
        finally:
            if wish:
                self._task.environment.pop()

    def _wish(self) -> str:
        """Where Ansible runs on the host itself there is no connection to lose: only who looks on gains something."""
        if self._task.check_mode or self._task.async_val:
            return ""
        asked = self._variable(PROGRESS, "auto")
        if str(asked).lower() != "auto":
            return "detach" if boolean(asked) else "silent"
        local = getattr(self._connection, "_remote_is_local", False)
        return "" if local and not SHOWS else "detach"

    def _variable(self, name: str, default: str) -> t.Any:
        return self._templar.template(self._variables.get(name, default))

    def _low_level_execute_command(self, *args: t.Any, **kwargs: t.Any) -> t.Any:
        """What the module's command says is taken here, whatever else Ansible does before and afterwards."""
        said = super()._low_level_execute_command(*args, **kwargs)
        job = None if self._waiting else job_of(said["stdout"])
        if job is None:
            return said
        self._waiting = True
        try:
            result = self._result_of(job)
        finally:
            self._waiting = False
        return {**said, "stdout": result, "stdout_lines": result.splitlines()}

    def _result_of(self, job: Job) -> str:
        show = SHOWS and not self._task.no_log
        follower = Follower(
            job,
            ask=lambda command: str(self._low_level_execute_command(command)["stdout"]),
            show=self._show if show else None,
            every=max(LINE_SECONDS, len(self._variables.get("ansible_play_batch") or ()) / LINES),
            lost=AnsibleConnectionFailure,
            patience=self._patience,
            reset=self._connection.reset,
        )
        # The module's file holds its arguments, and passwords: it is not needed any more.
        remove: t.Callable[..., None] = self._remove_tmp_path
        follower.reaching(lambda: remove(None))
        return follower.result()

    def _show(self, said: Data | str) -> None:
        host, name = str(self._variables.get("inventory_hostname", "")), self._task.action.rpartition(".")[2]
        text = said if isinstance(said, str) else line(said)
        Display().display(f"{host}: {name} {text}", stderr=True, screen_only=True)
