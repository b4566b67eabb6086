# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Manifests of backups: what is written comes back, and what was touched, cut or invented is not believed."""

from __future__ import annotations

import json
import os
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import LEVELS, Backup, Stored
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Busy, Refused, Vanished
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, durable
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.backup_manifest import (
    MANIFEST,
    Distrusted,
    parse,
    path_of,
    plain,
    read_fields,
    read_manifest,
    text_of,
)
from tests.unit.files.backing import NOON, look, make, names, record, sound

ID = "20261122T120000Z-0a1b2c"
HASH = "ab" * 32
words = st.text(st.characters(codec=None), max_size=20)
moments = st.integers(0, 4_000_000_000_000_000).map(
    lambda us: NOON + timedelta(microseconds=us - 2_000_000_000_000_000)
)
sizes = st.integers(0, 1 << 60)
stored = st.builds(
    Stored,
    st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).map(lambda end: f"{ID}.x{end}"),
    sizes,
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.sampled_from(["dump", "globals", "physical"]),
    sizes,
)
manifests = st.builds(
    record,
    st.just(ID),
    files=st.lists(stored, max_size=4, unique_by=lambda file: file.name).map(tuple),
    database=words,
    address=words,
    tool=words,
    arguments=st.lists(words, max_size=4).map(tuple),
    began=moments,
    ended=moments,
    verified_at=st.none() | moments,
    level=st.sampled_from(LEVELS),
    rows=st.none() | st.dictionaries(words, sizes, max_size=4),
    about=st.dictionaries(words, words, max_size=4),
    copies=st.lists(words, max_size=3).map(tuple),
    parent=words,
    pin=st.booleans(),
    source_bytes=sizes,
)


@given(manifests)
def test_what_is_written_comes_back(backup: Backup) -> None:
    assert parse(json.loads(text_of(plain(backup))), "") == backup


def test_every_flipped_byte_and_every_cut_is_seen(tmp_path: Path) -> None:
    path = Path(path_of(make(tmp_path)))
    whole = path.read_bytes()
    believed = []
    dice = random.Random(20261122)
    for place in range(len(whole)):
        for damaged in (
            whole[:place],
            whole[:place] + bytes([whole[place] ^ 1 << dice.randrange(8)]) + whole[place + 1 :],
        ):
            path.write_bytes(damaged)
            try:
                read_manifest(str(path))
            except Distrusted:
                continue
            believed.append((place, damaged))
    assert believed == []
    path.write_bytes(whole)
    assert read_manifest(str(path)).id


LIES: list[tuple[str, Any]] = [
    ("id", "../../etc"),
    ("id", "20261122T120000Z-0a1b2"),
    ("id", 7),
    ("began", "2026-11-22T12:00:00"),
    ("began", "yesterday"),
    ("ended", None),
    ("level", "perfect"),
    ("pin", 1),
    ("pin", None),
    ("files", None),
    ("files", {}),
    ("rows", {"t": -1}),
    ("rows", {"t": True}),
    ("arguments", "--all"),
    ("copies", [1]),
    ("about", {"a": None}),
    ("source_bytes", "12"),
    ("database", None),
    ("version_of_server", 16),
]
NAMES = [
    "../x.sql",
    "/etc/passwd",
    f"{ID}",
    f"{ID}.x/../../../etc/passwd",
    f"{ID}.x//y",
    f"{ID}.x/",
    f"{ID}.x/.",
    f"{ID}.x\0y",
    f"../shop/{ID}.sql",
    f"./{ID}.sql",
    "20261122T120000Z-ffffff.sql",
    f"{ID}{MANIFEST}",
    f"{ID}.partial",
    "",
]


@pytest.mark.parametrize(("field", "lie"), LIES)
def test_lies_are_not_believed(field: str, lie: Any) -> None:
    with pytest.raises(Distrusted):
        parse({**plain(record(ID)), field: lie}, "")


@pytest.mark.parametrize("field", sorted(set(plain(record(ID))) & {"id", "files", "began", "database", "server"}))
def test_nothing_that_is_needed_is_missing(field: str) -> None:
    fields = plain(record(ID))
    del fields[field]
    with pytest.raises(Distrusted):
        parse(fields, "")


@pytest.mark.parametrize("name", NAMES)
def test_a_manifest_names_no_file_but_its_own(name: str) -> None:
    with pytest.raises(Distrusted, match="no file of this backup"):
        parse(plain(record(ID, files=(Stored(name, 1, HASH, "dump"),))), "")


def test_a_manifest_names_no_file_twice() -> None:
    file = Stored(f"{ID}.sql", 1, HASH, "dump")
    assert parse(plain(record(ID, files=(file,))), "").files == (file,)
    with pytest.raises(Distrusted, match="twice"):
        parse(plain(record(ID, files=(file, file))), "")


def test_of_another_version_or_called_otherwise_it_is_broken(tmp_path: Path) -> None:
    backup = make(tmp_path)
    fields = read_fields(path_of(backup))
    other = f"{tmp_path}/shop/{ID}{MANIFEST}"
    durable.replace(other, text_of(fields))
    durable.replace(path_of(backup), text_of({**fields, "version": 2}))
    shelf = look(tmp_path)
    assert shelf.backups == () and {broken.name for broken in shelf.broken} == {
        f"shop/{ID}{MANIFEST}",
        f"shop/{backup.id}{MANIFEST}",
    }
    assert {"another version" in broken.why or "called otherwise" in broken.why for broken in shelf.broken} == {True}


def test_a_verification_is_never_less_than_before_and_unknown_fields_stay(tmp_path: Path) -> None:
    backup = make(tmp_path)
    durable.replace(path_of(backup), text_of({**read_fields(path_of(backup)), "weather": "fine"}))
    later = NOON + timedelta(hours=1)
    assert backups.amend(backup, level="decode", at=later).level == "decode"
    assert backups.amend(backup, level="checksum").verified_at == later
    backups.amend(backup, copies=["/mnt/a", "/mnt/b"], rows={"t": 3})
    backups.amend(backup, without=["/mnt/a"], pin=True)
    (now,) = look(tmp_path).backups
    assert (now.level, now.verified_at, now.copies, now.rows, now.pin) == ("decode", later, ("/mnt/b",), {"t": 3}, True)
    assert read_fields(path_of(backup))["weather"] == "fine" and sound(now)


def test_who_amends_and_who_removes_do_not_meet(tmp_path: Path) -> None:
    backup = make(tmp_path)
    fd = durable.open_again(path_of(backup))
    try:
        assert durable.locked(fd)
        with pytest.raises(Busy):
            backups.amend(backup, level="decode")
        with pytest.raises(Busy):
            backups.remove(backup)
    finally:
        os.close(fd)
    assert backups.remove(backup) > backup.bytes
    assert names(tmp_path) == []
    with pytest.raises(Vanished):
        backups.amend(backup, level="decode")
    with pytest.raises(Vanished):
        backups.remove(backup)


def test_a_symbolic_link_leads_nowhere(tmp_path: Path) -> None:
    folder, outside = tmp_path / "backups", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 10)
    backup = make(folder)
    data = folder / "shop" / backup.files[0].name
    data.unlink()
    data.symlink_to(outside / "precious")
    nested = Stored(f"{backup.id}.dir/precious", 10, HASH, "dump")
    durable.replace(path_of(backup), text_of(plain(backup._replace(files=(*backup.files, nested)))))
    (folder / "shop" / f"{backup.id}.dir").symlink_to(outside)
    (broken,) = look(folder).broken
    assert "no file" in broken.why
    with pytest.raises(Refused):
        backups.remove(backup)
    assert (outside / "precious").read_bytes() == b"x" * 10
    # What stands in its place stays, and is mentioned no more than once.
    assert names(outside) == ["precious"]
