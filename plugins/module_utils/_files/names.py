# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How archive files are called, and whose they are by their names. No I/O.

`<table>.<rule>.<UTC time>.<8 digits of the identity>.<random>.<format>.<compression>`; none of the parts after the
table has a dot of its own.
"""

from __future__ import annotations

import hashlib
import os

from .._records import Ref
from .durable import TEMPORARY, safe_name
from .manifest import MANIFEST, PARTIAL, PENDING

LONGEST_TABLE, LONGEST_RULE = 90, 50  # characters: a name has at most 255, with all that is put behind it


def file_name(table: Ref, rule: str, identity: str, stamp: str) -> str:
    """Without the ending: a new one each time."""
    each = LONGEST_TABLE // max(len(table.path), 1)
    names = ".".join(safe_name(name, each) for name in table.path) or safe_name(os.path.basename(table.database), each)
    partition = f"+{safe_name(table.partition, 30)}" if table.partition else ""
    return f"{names}{partition}.{owner(rule, identity, stamp)}.{os.urandom(4).hex()}"


def owner(rule: str, identity: str, stamp: str) -> str:
    digits = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{safe_name(rule, LONGEST_RULE)}.{stamp}.{digits}"


def is_of(name: str, rule: str, identity: str) -> bool:
    """Whether a file of the folder may belong to the rule there: its name says so. What stands in it must agree."""
    for tail in (TEMPORARY, MANIFEST, PENDING, PARTIAL):
        name = name.removesuffix(tail)
    parts, wanted = name.split("."), owner(rule, identity, "").split("..")
    fields = parts[-6:-2] if parts[-1] in ("zst", "gz") else parts[-4:]
    return len(fields) == 4 and fields[0] == wanted[0] and fields[2] == wanted[1]
