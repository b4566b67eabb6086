# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands beside an archive file: the note of a bite that is under way, and the manifest of a finished file."""

from __future__ import annotations

import json
import os
import typing as t
from datetime import datetime, timezone

from .._errors import Refused
from .._records import Ref
from .._retention import Column
from .._tuples import NamedTuple

FORMAT = 1
PARTIAL = ".partial"
PENDING = ".pending.json"
MANIFEST = ".manifest.json"


class Extent(NamedTuple):
    """How much of a file."""

    bytes: int = 0
    rows: int = 0
    first: str = ""  # smallest and largest date
    last: str = ""
    sha256: str = ""  # of these bytes


class Entry(NamedTuple):
    """A file that is being written."""

    name: str  # that it gets in the end
    table: Ref
    columns: tuple[Column, ...]
    sure: Extent  # without the last bite
    maybe: Extent  # with it
    parent: str = ""  # the file of the rule's table, where this is one of its children


class State(NamedTuple):
    """What a run notes before each bite: all that the next run needs if this one dies."""

    identity: str
    rule: str
    format: str
    compression: str
    about: t.Mapping[str, str]
    entries: tuple[Entry, ...]
    mark: str = ""
    keys: tuple[str, ...] = ()

    def settled(self, *, last: bool) -> State:
        """Nothing is in doubt any more: the last bite counts, or does not."""
        entries = tuple(
            entry._replace(sure=entry.maybe) if last else entry._replace(maybe=entry.sure) for entry in self.entries
        )
        return self._replace(entries=entries, mark="", keys=())


class Manifest(NamedTuple):
    """What one has to know of a finished file before it is read, or removed."""

    identity: str
    rule: str
    file: str
    bytes: int
    rows: int
    last: str
    parent: str


def pending_text(state: State) -> bytes:
    """ASCII: names and keys need not be Unicode."""
    return json.dumps({"version": FORMAT, **state._asdict(), "entries": [_plain(e) for e in state.entries]}).encode()


def read_pending(path: str) -> State:
    """Raises Refused where it is damaged, OSError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        plain = json.loads(data)
        if plain.pop("version") != FORMAT:
            raise ValueError("it is of a newer version of this collection")
        entries = tuple(_entry(entry) for entry in plain.pop("entries"))
        return State(**{**plain, "keys": tuple(plain["keys"]), "entries": entries})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Refused(
            f"{path} cannot be read: {error}",
            cure="Without it nobody knows which rows of the files beside it are still in the table:"
            " compare them, then move them away together",
        ) from error


def _plain(entry: Entry) -> dict[str, t.Any]:
    columns = [column._asdict() for column in entry.columns]
    extents = {"sure": entry.sure._asdict(), "maybe": entry.maybe._asdict()}
    return {**entry._asdict(), "table": entry.table._asdict(), "columns": columns, **extents}


def _entry(plain: dict[str, t.Any]) -> Entry:
    name = plain["name"]
    if os.path.basename(name) != name or name.startswith("."):
        raise ValueError("it names a file of another folder")
    return Entry(
        name=name,
        table=_ref(plain["table"]),
        columns=tuple(Column(**column) for column in plain["columns"]),
        sure=Extent(**plain["sure"]),
        maybe=Extent(**plain["maybe"]),
        parent=plain["parent"],
    )


def _ref(plain: dict[str, t.Any]) -> Ref:
    return Ref(plain["database"], tuple(plain["path"]), plain.get("partition", ""))


def manifest_text(state: State, entry: Entry) -> bytes:
    """Of a file that is finished: `entry.sure` is all of it."""
    whole = entry.sure
    plain = {
        "version": FORMAT,
        "file": entry.name,
        "bytes": whole.bytes,
        "sha256": whole.sha256,
        "rows": whole.rows,
        "columns": [column._asdict() for column in entry.columns],
        "first": whole.first,
        "last": whole.last,
        "rule": state.rule,
        "database": entry.table.database,
        "table": entry.table._asdict(),
        "parent": entry.parent or None,
        "format": state.format,
        "compression": state.compression,
        "identity": state.identity,
        "about": dict(state.about),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
    return (json.dumps(plain, indent=2) + "\n").encode()


def read_manifest(path: str) -> Manifest | None:
    """None where it is damaged, or of another version. Raises OSError."""
    with open(path, "rb") as file:
        data = file.read()
    try:
        plain = json.loads(data)
        texts = [plain[name] for name in ("identity", "rule", "file", "last")] + [plain["parent"] or ""]
        counts = [plain["bytes"], plain["rows"]]
        if plain["version"] != FORMAT or os.path.basename(plain["file"]) != plain["file"]:
            return None
        if not all(isinstance(text, str) for text in texts) or not all(isinstance(count, int) for count in counts):
            return None
        identity, rule, file, last, parent = texts
        return Manifest(identity, rule, file, counts[0], counts[1], last, parent)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def moment(text: str) -> datetime | None:
    """A date as engines write it (ISO 8601, UTC where it says nothing); None for what is no date of our calendar."""
    try:
        found = datetime.fromisoformat(text[:-1] + "+00:00" if text.endswith("Z") else text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def order(text: str) -> tuple[int, datetime, str]:
    """Dates in their order. What is no date (infinity, the year 10000) comes last, so that nothing goes too early."""
    zero = datetime(1, 1, 1, tzinfo=timezone.utc)
    if text == "-infinity":
        return (0, zero, "")
    found = moment(text)
    return (1, found, "") if found else (2, zero, text)
