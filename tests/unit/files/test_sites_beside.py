# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A new data directory and another one that belongs to it, such as that of tablespaces: what a death leaves of both."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import sites

KEYSTONE = "PG_VERSION"


def fill(site: Path, spaces: Path, dies: str) -> None:
    """As a restore does it; dies at that moment."""

    def at(moment: str) -> None:
        if moment == dies:
            os._exit(7)

    before = sites.look(str(site))
    with sites.founded(str(spaces), of=before) as beside, sites.founded(str(site)) as new:
        for folder, name in ((new.data, "base"), (new.data, KEYSTONE), (beside.data, "far"), (beside.data, "away")):
            (Path(folder) / name).write_text("x")
        at("filled")
        beside.raise_up()
        beside.placed = True
        at("one is up")
        new.raise_up(KEYSTONE)
        at("both are up")
        new.finish()
        at("one is finished")
        beside.finish()


def died(act: Callable[[], None]) -> None:
    pid = os.fork()
    if not pid:
        try:
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@pytest.mark.parametrize("moment", ["filled", "one is up"])
def test_neither_is_there_before_both_are(tmp_path: Path, moment: str) -> None:
    site, spaces = tmp_path / "new", tmp_path / "new.tablespaces"
    died(lambda: fill(site, spaces, moment))
    assert not (site / KEYSTONE).exists()
    seen = sites.look(str(site))
    assert (seen.left, sites.look(str(spaces), seen).left) == (True, True)
    fill(site, spaces, "never")
    assert {path.name for path in site.iterdir()} == {"base", KEYSTONE}
    assert {path.name for path in spaces.iterdir()} == {"far", "away"}


@pytest.mark.parametrize("moment", ["both are up", "one is finished"])
def test_what_may_be_in_use_stays(tmp_path: Path, moment: str) -> None:
    """A server may have been started on it by now: neither for this directory nor for another one is it removed."""
    site, spaces = tmp_path / "new", tmp_path / "new.tablespaces"
    died(lambda: fill(site, spaces, moment))
    assert (site / KEYSTONE).exists()
    for other in (site, tmp_path / "other"):
        seen = sites.look(str(other))
        assert sites.look(str(spaces), seen).occupied
        with pytest.raises(Refused, match="is not empty"):
            fill(other, spaces, "never")
    assert {"far", "away"} <= {path.name for path in spaces.iterdir()}


def test_another_restore_that_is_under_way_is_left_alone(tmp_path: Path) -> None:
    with sites.founded(str(tmp_path / "new")) as filling:
        (Path(filling.data) / KEYSTONE).write_text("x")
        with pytest.raises(Busy, match="another restore"), sites.founded(str(tmp_path / "new")):
            pass
        assert "another restore" in sites.look(str(tmp_path / "new")).why_not
        filling.place(KEYSTONE)
    assert {path.name for path in (tmp_path / "new").iterdir()} == {KEYSTONE}
