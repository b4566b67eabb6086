# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The site: what Sphinx complains of, and what a picture must not show."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from tests.dev import docs
from tests.dev.environment import ROOT
from tests.dev.steps import StepFailed

OURS = [
    "a.rst:3: WARNING: undefined label: 'ansible_collections.dbfleet.maintenance.docsite.gone' [ref.ref]",
    "a.rst:4: WARNING: image file not readable: docsite/images/gone.png",
    "a.rst:5: ERROR: Unexpected indentation.",
]


@pytest.mark.parametrize("line", OURS)
def test_what_sphinx_complains_of_is_a_fault(line: str) -> None:
    with pytest.raises(StepFailed) as failed:
        docs._judge(f"{line}\n")
    assert line in str(failed.value)


def test_what_leads_into_the_site_of_ansible_is_none() -> None:
    docs._judge("a.rst:1: WARNING: undefined label: 'common_return_values' [ref.ref]\n")


def test_a_picture_keeps_to_itself_where_it_was_made() -> None:
    docs._keep_private("shop.sqlite3")
    with pytest.raises(StepFailed):
        docs._keep_private(f"bloat of {ROOT}/.dev/demo/shop.sqlite3")


def test_a_picture_gets_smaller_and_stays_a_picture() -> None:
    noisy = Image.effect_noise((200, 200), 40).convert("RGB")
    made = io.BytesIO()
    noisy.save(made, "PNG")
    less = docs.small(made.getvalue())
    assert len(less) < len(made.getvalue())
    with Image.open(io.BytesIO(less)) as image:
        assert image.size == (200, 200)
