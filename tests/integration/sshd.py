# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real sshds on addresses of loopback, with keys and files of their own, as this user. No test lives here."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from tests.fleet.errors import Missing
from tests.fleet.processes import free_port, kill_family, run

from .module_runner import until

# Where sshd of Debian looks for it as root; the service, which is never started here, would make it.
SEPARATION = Path("/run/sshd")
# No password, no PAM (a container's may not let anybody in), and nothing out of /etc. The folder may be one of a place
# where everybody writes, as /tmp is. HOME: bash reads ~/.bashrc when sshd starts it, where a user's own tools may take
# locks, which stay when everything is killed.
CONFIGURATION = """\
Port {port}
{addresses}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
SetEnv HOME={folder}
MaxStartups 100
Subsystem sftp internal-sftp
"""


class Ssh:
    """What belongs to all of them: a folder, keys, a port, and what clients need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.program = shutil.which("sshd", path=f"{os.environ.get('PATH', os.defpath)}{os.pathsep}/usr/sbin") or ""
        if not self.program:
            raise Missing("sshd is not on this machine: apt-get install openssh-server")
        for name in ("host_key", "key"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", folder / name])
        host_key = (folder / "host_key.pub").read_text(encoding="utf-8")
        (folder / "known_hosts").write_text(f"[127.0.0.*]:{self.port} {host_key}", encoding="utf-8")

    def variables(self, address: str) -> dict[str, Any]:
        """How an inventory describes a host behind one of these addresses."""
        return {
            "ansible_connection": "ssh",
            "ansible_host": address,
            "ansible_port": self.port,
            "ansible_user": pwd.getpwuid(os.geteuid()).pw_name,
            "ansible_ssh_private_key_file": str(self.folder / "key"),
            # Whoever runs the tests may have other keys and settings.
            "ansible_ssh_common_args": f"-F none -o UserKnownHostsFile={self.folder}/known_hosts -o IdentityAgent=none",
            # A terminal is only asked for where modules are copied, and is not everywhere to be had.
            "ansible_ssh_use_tty": False,
        }

    def environment(self) -> dict[str, str]:
        """What `ansible-playbook` needs: connections are kept open for a while, by sockets with short names."""
        return {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder), "ANSIBLE_HOST_KEY_CHECKING": "true"}


class Sshd:
    """One sshd; `kill` takes with it everything that runs on its hosts, as a machine does that dies."""

    def __init__(self, ssh: Ssh, *addresses: str) -> None:
        self._ssh, self._addresses = ssh, addresses
        self._config = ssh.folder / f"sshd-{addresses[0]}.conf"
        lines = "\n".join(f"ListenAddress {address}" for address in addresses)
        text = CONFIGURATION.format(port=ssh.port, addresses=lines, folder=ssh.folder)
        self._config.write_text(text, encoding="utf-8")
        if os.geteuid() == 0:
            SEPARATION.mkdir(mode=0o755, exist_ok=True)
        self._start()

    def _start(self) -> None:
        with (self._ssh.folder / "sshd.log").open("ab") as log:
            # -D: it stays this process, whose number is the one to end.
            self._process = subprocess.Popen(
                [self._ssh.program, "-D", "-e", "-f", str(self._config)], stdin=subprocess.DEVNULL, stderr=log
            )
        until(self._listening, what="sshd, as its log tells,")

    def _listening(self) -> bool:
        if self._process.poll() is not None:
            said = (self._ssh.folder / "sshd.log").read_text(encoding="utf-8", errors="replace")
            raise AssertionError(f"sshd has ended: {said[-2000:]}")
        for address in self._addresses:
            with socket.socket() as probe:
                if probe.connect_ex((address, self._ssh.port)):
                    return False
        return True

    def kill(self) -> None:
        """Ends it with all that was begun through it."""
        if self._process.poll() is None:
            kill_family(self._process.pid)
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        with suppress(ProcessLookupError):
            self.kill()
