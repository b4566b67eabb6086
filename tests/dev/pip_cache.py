# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Lets ansible-test make its environments with nothing but the package index that pip is configured for.

It starts each of them with a script that it fetches from a place of its own, unless that script lies in its cache.
Where none lies there, one of ours does the same: it unpacks pip's wheel, which pip fetched beforehand, into the
environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .steps import Log

CACHE = Path.home() / ".ansible" / "test" / "cache"

WHICH = """
import json
from ansible_test._internal.constants import SUPPORTED_PYTHON_VERSIONS
from ansible_test._internal.host_configs import VirtualPythonConfig
from ansible_test._internal.python_requirements import get_venv_packages
configs = [VirtualPythonConfig(version=version, path="unused") for version in SUPPORTED_PYTHON_VERSIONS]
print(json.dumps(sorted({get_venv_packages(config)["pip"] for config in configs})))
"""

SCRIPT = '''"""Unpacks the wheel of pip {version} that lies beside this file into the environment that runs it."""
import os
import sysconfig
import zipfile

wheel = os.path.join(os.path.dirname(os.path.abspath(__file__)), "{wheel}")
zipfile.ZipFile(wheel).extractall(sysconfig.get_paths()["purelib"])
'''


def prepare(log: Log) -> None:
    """Fill the cache for each pip that ansible-test wants; leave alone what lies there."""
    try:
        done = subprocess.run([sys.executable, "-c", WHICH], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        # Another ansible-test than the ones this was written for: its own way may work.
        log.say(f"ansible-test does not say which pip it wants: {error.stderr}")
        return
    for version in json.loads(done.stdout):
        script = CACHE / f"get_pip_{version.replace('.', '_')}.py"
        if not script.exists():
            _provide(log, version, script)


def _provide(log: Log, version: str, script: Path) -> None:
    CACHE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(CACHE), f"pip=={version}"]
    log.run(*pip, "--disable-pip-version-check")
    wheel = next(CACHE.glob(f"pip-{version}-*.whl")).name
    script.write_text(SCRIPT.format(version=version, wheel=wheel))
