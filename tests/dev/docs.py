# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The documentation: every reference checked, the site as HTML below .dev/docs, and the picture of a report in it."""

from __future__ import annotations

import io
import re
import shutil
import socket
from pathlib import Path

from PIL import Image

from tests.playbook.browser import Browser, program

from .environment import DEV, ROOT, only_one, python_of
from .sanity import refresh_copy
from .steps import Log, StepFailed

HTML = DEV / "docs"
DOCSITE = ROOT / "docs" / "docsite" / "rst"
# Where antsibull-docs puts guides, beside the pages that it makes of plugins; without its pictures.
GUIDES = HTML / "rst" / "docsite"
REPORT = DEV / "demo" / "report.html"
PICTURE = DOCSITE / "images" / "report.png"
WIDTH = 900  # CSS pixels
# How high it is down to the end of the charts; without a bar to scroll by.
HEIGHT = """
  document.documentElement.style.overflow = "hidden";
  Math.round(document.querySelector("#charts").getBoundingClientRect().bottom)
"""
COLOURS = 64
# References into Ansible's own site, whose index is left out here.
ELSEWHERE = re.compile(r"undefined label: '(?!ansible_collections\.dbfleet\.)")


def lint(log: Log) -> None:
    """Links between options, return values, plugins, roles and guides lead somewhere; code in guides can be parsed."""
    # What is made of plugins is well-formed where they pass ansible-test: to look at that takes half of the time.
    _lint(log, "venv", "--skip-rstcheck", "--validate-collection-refs=self")


def check(log: Log) -> None:
    """The same, and the pages that are made of plugins, and links to other collections."""
    _lint(log, "venv-docs", "--validate-collection-refs=all")


def _lint(log: Log, environment: str, *options: str) -> None:
    tool = python_of(environment).parent / "antsibull-docs"
    with only_one("ansible-test"):
        log.run(tool, "lint-collection-docs", "--plugin-docs", "--check-extra-docs-refs", *options, refresh_copy())


def html(log: Log) -> None:
    """What a documentation site would show. Links to other sites' indexes are left out: it works offline."""
    tools = python_of("venv-docs").parent
    shutil.rmtree(HTML, ignore_errors=True)
    HTML.mkdir(parents=True)
    path = {"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"}
    names = ["--project=dbfleet.maintenance", "--title=dbfleet.maintenance", "--html-short-title=dbfleet.maintenance"]
    names += ["--copyright=The dbfleet.maintenance contributors"]
    options = ["--use-current", "--squash-hierarchy", "--lenient", "--dest-dir", str(HTML), *names]
    log.run(tools / "antsibull-docs", "sphinx-init", *options, "dbfleet.maintenance", env=path)
    with (HTML / "conf.py").open("a", encoding="utf-8") as settings:
        settings.write("\nintersphinx_mapping = {}\n")
    # What its build.sh does; but the pictures have to come in between.
    (HTML / "rst").chmod(0o755)
    made = ["--use-current", "--squash-hierarchy", "--dest-dir", "rst", "dbfleet.maintenance"]
    log.run(tools / "antsibull-docs", "--config-file", "antsibull-docs.cfg", "collection", *made, env=path, cwd=HTML)
    shutil.copytree(DOCSITE / "images", GUIDES / "images")
    complaints = HTML / "warnings.txt"
    log.run(tools / "sphinx-build", "-M", "html", "rst", "build", "-c", ".", "-w", complaints, env=path, cwd=HTML)
    _judge(complaints.read_text(encoding="utf-8"))
    log.say(f"{(HTML / 'build' / 'html' / 'index.html').relative_to(ROOT)}")


def _judge(complaints: str) -> None:
    """A reference that leads nowhere, or a picture that is missing, is a fault of ours."""
    lines = [line for line in complaints.splitlines() if "WARNING" in line or "ERROR" in line]
    ours = [line for line in lines if not ELSEWHERE.search(line)]
    if ours:
        raise StepFailed("Sphinx complains:\n" + "\n".join(ours))


def screenshot(log: Log) -> None:
    """The report that the last ./dev demo has written, as it is shown in the guide: real servers, real findings."""
    if not REPORT.is_file():
        raise StepFailed(f"{REPORT.relative_to(ROOT)} is not there: ./dev demo writes it")
    where = program()
    if where is None:
        raise StepFailed("no Chromium is here: chromium-headless-shell has one; DBFLEET_CHROMIUM names another")
    raw = DEV / "report.png"
    with Browser(where) as browser:
        browser.open(REPORT, width=WIDTH)
        browser.open(REPORT, width=WIDTH, height=int(browser.ask(HEIGHT)))
        browser.ask(HEIGHT)
        _keep_private(str(browser.ask("document.body.innerText")))
        browser.picture(raw, whole=False)
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_bytes(small(raw.read_bytes()))
    raw.unlink()
    log.say(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


def _keep_private(text: str) -> None:
    """Raises StepFailed where the page tells of the machine that it was made on."""
    told = [word for word in (str(ROOT), str(Path.home()) + "/", socket.gethostname()) if word in text]
    if told:
        raise StepFailed(f"the picture would show {', '.join(told)}")


def small(png: bytes) -> bytes:
    """The same picture with as many colours as text and bars need: a third of the bytes."""
    made = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLOURS).save(made, "PNG", optimize=True)
    return made.getvalue()
