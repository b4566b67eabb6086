# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks, run as users run them, and what their modules returned. Starts no server."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.fleet import Server

ROOT = Path(__file__).parents[2]
CALLBACKS = Path(__file__).parent / "callback"
# Set by tests that run many playbooks. Demo and benchmarks leave it alone: they show what users pay.
KEEP_PACKED = "DBFLEET_KEEP_PACKED"


class Call(NamedTuple):
    """One task of one host that ran a module of the collection."""

    host: str
    module: str
    status: str  # ok, failed, unreachable
    result: dict[str, Any]

    @property
    def fact(self) -> dict[str, Any]:
        """The one fact that it returned; empty when it failed before it had one."""
        return dict(next(iter(self.result.get("ansible_facts", {}).values()), {}))


class Played(NamedTuple):
    """A playbook that ran."""

    code: int
    text: str
    calls: list[Call]

    def of(self, module: str) -> dict[str, Call]:
        """The calls of one module by host; more than one on a host would be a fault."""
        found: dict[str, Call] = {}
        for call in self.calls:
            if call.module == module:
                if call.host in found:
                    raise AssertionError(f"{module} ran twice on {call.host}")
                found[call.host] = call
        return found

    def recap(self, host: str) -> dict[str, int]:
        """The host's counts in the last lines."""
        (line,) = [x for x in self.text.splitlines() if x.startswith(f"{host} ") and "unreachable=" in x]
        return {key: int(value) for key, value in (word.split("=") for word in line.split(":", 1)[1].split())}


def variables(server: Server) -> dict[str, Any]:
    """How an inventory describes a server."""
    return {f"db_{name}": value for name, value in server.login().items()}


def write_inventory(path: Path, hosts: Mapping[str, Mapping[str, Any]], **shared: Any) -> Path:
    """An inventory of hosts on which modules run here, by this Python. It holds passwords: mode 0600."""
    common = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, **shared}
    groups = {"all": {"vars": common, "hosts": {name: dict(found) for name, found in hosts.items()}}}
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as out:
        yaml.safe_dump(groups, out, sort_keys=False)
    return path


def play(
    playbook: str,
    inventory: Path,
    *arguments: str,
    env: Mapping[str, str] | None = None,
    show: Callable[[str], None] = lambda line: None,
    terminal: bool = False,
) -> Played:
    """Runs `ansible-playbook playbooks/<playbook>.yml` with these arguments; `show` gets each line as it comes.

    `terminal`: as somebody sees it who sits there, rather than into a pipe.
    """
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "calls.jsonl"
        command = [sys.executable, "-m", "ansible", "playbook", "-i", str(inventory)]
        ours, theirs = pty.openpty() if terminal else os.pipe()
        with subprocess.Popen(
            [*command, f"playbooks/{playbook}.yml", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment(record), **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            lines = []
            for line in _lines(ours):
                lines.append(line)
                show(line.rstrip("\n"))
        return Played(process.returncode, "".join(lines), _calls(record))


def _lines(ours: int) -> Iterator[str]:
    """What somebody writes into a pipe or a terminal whose other end this is, until he closes it."""
    with os.fdopen(ours, encoding="utf-8", errors="replace") as text, suppress(OSError):  # of a terminal: EIO
        yield from text


def environment(record: Path | None = None) -> dict[str, str]:
    """What Ansible needs to find the collection in this checkout, and to write down what its modules return."""
    found = {
        "ANSIBLE_COLLECTIONS_PATH": str(ROOT / ".dev" / "collections"),
        "ANSIBLE_HOME": str(ROOT / ".dev" / "ansible"),
        # Nothing outside the checkout, and a home that can be written to is not needed.
        "ANSIBLE_REMOTE_TMP": str(ROOT / ".dev" / "ansible" / "tmp"),
        "ANSIBLE_RETRY_FILES_ENABLED": "false",
    }
    if record:
        found |= {
            "DBFLEET_RECORD": str(record),
            # So that tests see what modules were given, and that no secret is in it.
            "ANSIBLE_INJECT_INVOCATION": "true",
        }
    if os.environ.get(KEEP_PACKED):
        found["DBFLEET_PACKED"] = str(_packed())
    enabled = [name for name, wanted in (("recorder", "RECORD"), ("packed", "PACKED")) if f"DBFLEET_{wanted}" in found]
    if enabled:
        found |= {"ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS), "ANSIBLE_CALLBACKS_ENABLED": ",".join(enabled)}
    return found


def _packed() -> Path:
    """Where modules that Ansible has packed are kept: another folder when a plugin, or Ansible, is another one."""
    state = hashlib.sha256(version("ansible-core").encode())
    for file in sorted((ROOT / "plugins").rglob("*.py")):
        found = file.stat()
        state.update(f"{file} {found.st_size} {found.st_mtime_ns}\n".encode())
    return ROOT / ".dev" / "packed" / state.hexdigest()[:16]


def _calls(record: Path) -> list[Call]:
    if not record.exists():
        return []
    return [Call(**json.loads(line)) for line in record.read_text(encoding="utf-8").splitlines()]


# A cutoff is a little later in the run than in the check.
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?")


def steps(calls: Sequence[Call]) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    """Host, database, object, kind and statements of all steps: the same in check mode and in the run that follows.

    But for the moment that rows are compared with.
    """
    found = [
        (
            call.host,
            step["database"],
            step["object"],
            step["kind"],
            tuple(MOMENT.sub("…", words) for words in step["statements"]),
        )
        for call in calls
        for step in call.fact.get("steps", ())
    ]
    return sorted(found)
