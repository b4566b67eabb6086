# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation: every reference checked, and HTML below .dev/docs."""

from __future__ import annotations

import shutil

from .environment import DEV, ROOT, python_of
from .sanity import refresh_copy
from .steps import Log

HTML = DEV / "docs"


def check(log: Log) -> None:
    """Links between options, return values, plugins and roles lead somewhere."""
    tool = python_of("venv-docs").parent / "antsibull-docs"
    log.run(tool, "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=all", refresh_copy())


def html(log: Log) -> None:
    """What a documentation site would show. Links to other sites' indexes are left out: it works offline."""
    tools = python_of("venv-docs").parent
    shutil.rmtree(HTML, ignore_errors=True)
    HTML.mkdir(parents=True)
    path = {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"}
    options = ["--use-current", "--lenient", "--dest-dir", str(HTML)]
    log.run(tools / "antsibull-docs", "sphinx-init", *options, "dbfleet.maintenance", env=path)
    with (HTML / "conf.py").open("a", encoding="utf-8") as settings:
        settings.write("\nintersphinx_mapping = {}\n")
    log.run("bash", "build.sh", env=path, cwd=HTML)
    log.say(f"{(HTML / 'build' / 'html' / 'index.html').relative_to(ROOT)}")
