# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Archive files as their users see them: names, manifests, who may have which, and how they end."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput, Busy, MissingMeans, Refused
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import compression, durable
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.manifest import MANIFEST, PARTIAL, PENDING
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.names import file_name, is_of
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.reading import read
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.shelf import Shelf, look, remove, wrecks
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Ref
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive, Column, Frame
from tests.unit.files.disk import Disk, PowerCut
from tests.unit.files.scenario import COLUMNS, IDENTITY, ITEMS, ORDERS, RULE, World, bite, day, recover, shelf

TOOLS = {"zstd": "zstd", "gzip": "gzip"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def finished(folder: Path, *numbers: int, compression: str = "gzip", form: str = "jsonl") -> dict[str, dict[str, Any]]:
    """A whole step; its manifests by table."""
    files, before = shelf(folder, compression, form), set(folder.glob("*" + MANIFEST))
    for number in numbers:
        assert files.put(bite(number), str(number)) > 0
        files.settle()
    files.close()
    found = [json.loads(path.read_text()) for path in folder.glob("*" + MANIFEST) if path not in before]
    return {manifest["table"]["path"][-1]: manifest for manifest in found}


def abandon(files: Shelf) -> None:
    for data in files._data.values():
        os.close(data.fd)
    files._data.clear()


# ---- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jsonl", "csv"])
@pytest.mark.parametrize("kind", ["zstd", "gzip"])
def test_the_tools_read_them(tmp_path: Path, kind: str, form: str) -> None:
    """Frame by frame, as one file."""
    finished(tmp_path, 1, 3, 4, compression=kind, form=form)
    tool = shutil.which(TOOLS[kind])
    assert tool, f"{kind} is not installed"
    for path in tmp_path.glob("*" + MANIFEST):
        data = str(path).removesuffix(MANIFEST)
        subprocess.run([tool, "-tq", data], check=True)
        shown = subprocess.run([tool, "-dc", data], check=True, stdout=subprocess.PIPE).stdout
        assert shown.count(b"\n") == json.loads(path.read_text())["rows"] + (form == "csv")
        assert len(list(read(data))) == json.loads(path.read_text())["rows"]


def test_what_the_manifest_says(tmp_path: Path) -> None:
    found = finished(tmp_path, 4, 1)
    orders, items = found["orders"], found["items"]
    data = (tmp_path / orders["file"]).read_bytes()
    assert orders["bytes"] == len(data) and orders["sha256"] == hashlib.sha256(data).hexdigest()
    assert (orders["rows"], orders["first"], orders["last"]) == (4, day(1), day(5))
    assert orders["columns"] == [column._asdict() for column in COLUMNS]
    assert (orders["rule"], orders["identity"], orders["about"]) == (RULE, IDENTITY, {"server": "one"})
    assert orders["parent"] is None and items["parent"] == orders["file"] and items["rows"] == 2
    assert (orders["database"], orders["version"], orders["format"], orders["compression"]) == (
        "shop",
        1,
        "jsonl",
        "gzip",
    )
    created = datetime.fromisoformat(orders["created"])
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)


def test_nothing_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes grow with the file: reading gigabytes back would double the time."""
    monkeypatch.setattr(durable, "digest", lambda path: pytest.fail("it was read"))
    finished(tmp_path, 1, 2)
    assert len(names(tmp_path)) == 4


def test_nothing_is_made_for_nothing(tmp_path: Path) -> None:
    files = shelf(tmp_path / "archive")
    assert files.put([Frame(ORDERS, COLUMNS, [])], "1") == 0
    files.settle()
    files.close()
    files.close()
    assert look(str(tmp_path / "archive"), IDENTITY, RULE, datetime.now(UTC)).outdated == ()
    assert wrecks(str(tmp_path / "archive"), IDENTITY, RULE) == []
    assert names(tmp_path) == []


def test_columns_that_change_meanwhile_get_a_file_of_their_own(tmp_path: Path) -> None:
    files = shelf(tmp_path)
    files.put(bite(2), "1")
    files.settle()
    files.put([Frame(ORDERS, (*COLUMNS, Column("new", "text", "text")), [[5, "x", "y"]], (), day(1), day(2))], "2")
    files.settle()
    files.close()
    found = sorted(len(row) for path in tmp_path.glob("*.gz") for row in read(str(path)))
    assert found == [2, 2, 3]


def test_memory_does_not_grow(tmp_path: Path) -> None:
    rows = [[number, "x" * 900 + str(number)] for number in range(1000)]
    files = shelf(tmp_path)
    peaks = []
    tracemalloc.start()
    try:
        for turn in range(30):
            tracemalloc.reset_peak()
            files.put([Frame(ORDERS, COLUMNS, rows, (), day(1), day(2))], str(turn))
            files.settle()
            peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    files.close()
    assert max(peaks[10:]) < 1.05 * max(peaks[1:5])


# ---- names -----------------------------------------------------------------------------------------------------------

HOSTILE = st.text(st.one_of(st.characters(), st.sampled_from("./\\~-+%\x00\n\ud800ü")), min_size=1, max_size=200)


@given(path=st.lists(HOSTILE, min_size=1, max_size=2), rule=HOSTILE, identity=HOSTILE, other=HOSTILE)
def test_names_stay_in_the_folder(path: list[str], rule: str, identity: str, other: str) -> None:
    name = file_name(Ref("db", tuple(path), "p1"), rule, identity, "20260101T000000Z") + ".jsonl.zst"
    longest = name + MANIFEST + ".tmp"
    assert len(os.fsencode(longest)) <= 255 and not set(name) & set("/\\\0\n ") and name[0] not in ".-"
    for tail in ("", PARTIAL, MANIFEST, MANIFEST + ".tmp"):
        assert is_of(name + tail, rule, identity)
    assert other == identity or not is_of(name, rule, other)
    assert other == rule or not is_of(name, other, identity)


@given(name=st.text(st.sampled_from("abcZ019.~-%_"), max_size=60))
def test_other_names_are_nobodys(name: str) -> None:
    assert not is_of(name, RULE, IDENTITY)


# ---- who may have which ----------------------------------------------------------------------------------------------


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    """Of the same rule, on two hosts' runs, say: neither is a wreck to the other while it lives."""
    one, two = shelf(tmp_path), shelf(tmp_path)
    for number in (1, 2):
        one.put(bite(number), str(number))
        two.put(bite(number + 2), str(number + 2))
        assert wrecks(str(tmp_path), IDENTITY, RULE) == []
        assert look(str(tmp_path), IDENTITY, RULE, None).unsettled == ()
        one.settle()
        two.settle()
    one.close()
    abandon(two)
    assert [wreck.pending and wreck.pending.mark for wreck in wrecks(str(tmp_path), IDENTITY, RULE)] == ["4"]
    assert len(names(tmp_path)) == 4 + 3


def test_a_wreck_is_settled_by_one_only(tmp_path: Path) -> None:
    files = shelf(tmp_path)
    files.put(bite(1), "1")
    abandon(files)
    (wreck,), (other,) = (wrecks(str(tmp_path), IDENTITY, RULE) for _turn in range(2))
    fd = durable.open_again(str(next(tmp_path.glob("*" + PARTIAL))))
    assert durable.locked(fd)
    with pytest.raises(Busy):
        wreck.keep()
    os.close(fd)
    wreck.keep()
    other.keep()
    assert len(names(tmp_path)) == 4


@pytest.mark.parametrize(
    ("identity", "rule"), [("server 2", RULE), (IDENTITY, "old"), (IDENTITY, RULE + "."), ("", "")]
)
def test_wrecks_of_others_are_left_alone(tmp_path: Path, identity: str, rule: str) -> None:
    files = shelf(tmp_path)
    files.put(bite(1), "1")
    abandon(files)
    assert wrecks(str(tmp_path), identity, rule) == []
    assert look(str(tmp_path), identity, rule, datetime.now(UTC)).unsettled == ()


def test_what_is_unsettled_stays_for_the_next_run(tmp_path: Path) -> None:
    files = shelf(tmp_path)
    files.put(bite(1), "first")
    files.settle()
    files.put(bite(2), "second")
    with pytest.raises(Refused, match="nobody knows"):
        files.put(bite(3), "third")
    files.close()
    unsettled = look(str(tmp_path), IDENTITY, RULE, None).unsettled
    assert len(unsettled) == 2 and all(path.endswith(PARTIAL) for path in unsettled)
    (wreck,) = wrecks(str(tmp_path), IDENTITY, RULE)
    assert wreck.pending and wreck.pending.mark == "second" and wreck.pending.keys == ("2",)
    wreck.cut()
    (orders,) = tmp_path.glob("public.orders.*.gz")
    assert [row[0] for row in read(str(orders))] == ["100", "101"]
    assert len(names(tmp_path)) == 4 and not list(tmp_path.glob("*" + PENDING))


def test_the_archive_is_the_same_wherever_it_was_cut(tmp_path: Path) -> None:
    """A manifest by a recovery says what that of a run without an accident says."""
    folder = tmp_path / "quiet"
    folder.mkdir()
    quiet = finished(folder, 1, 2)
    for stop in range(60):
        folder, world = tmp_path / str(stop), World(tmp_path / f"{stop}.log")
        folder.mkdir()
        disk = Disk(folder, stop + 1)
        try:
            with disk.watched():
                finished(folder, 1, 2)
        except PowerCut:
            world.commit(1)
            world.commit(2)
            recover(folder, world)
        for path in folder.glob("*" + MANIFEST):
            manifest = json.loads(path.read_text())
            same = quiet[manifest["table"]["path"][-1]]
            if manifest["rows"] == same["rows"]:
                kept = ("bytes", "sha256", "first", "last", "columns", "about", "identity", "rule")
                assert {name: manifest[name] for name in kept} == {name: same[name] for name in kept}


# ---- age -------------------------------------------------------------------------------------------------------------


def at(number: int) -> datetime:
    return datetime(2026, 1, number, tzinfo=UTC)


def test_files_leave_when_their_newest_row_is_old(tmp_path: Path) -> None:
    old, new = finished(tmp_path, 1, 2), finished(tmp_path, 3)  # newest rows: the 3rd and the 4th of January
    assert look(str(tmp_path), IDENTITY, RULE, at(3)).outdated == ()
    found = look(str(tmp_path), IDENTITY, RULE, at(3) + timedelta(seconds=1))
    assert [Path(path).name for path in found.outdated] == [old["items"]["file"], old["orders"]["file"]]
    assert (found.outdated_rows, found.outdated_bytes) == (4, old["items"]["bytes"] + old["orders"]["bytes"])
    assert remove(found.outdated)[:2] == (found.outdated_bytes, 4)
    assert remove(found.outdated)[:2] == (0, 0)
    assert names(tmp_path) == sorted(f["file"] + tail for f in new.values() for tail in ("", MANIFEST))
    assert look(str(tmp_path), IDENTITY, RULE, None).outdated == ()


def test_removing_is_taken_up_again(tmp_path: Path) -> None:
    """Interrupted at each call: the next look finds what is left, and nothing stays without its manifest."""
    for stop in range(1, 20):
        folder = tmp_path / str(stop)
        folder.mkdir()
        finished(folder, 1)
        disk = Disk(folder, stop)
        try:
            with disk.watched():
                remove(look(str(folder), IDENTITY, RULE, at(9)).outdated)
        except PowerCut:
            disk.after("flushed" if stop % 2 else "killed")
            remove(look(str(folder), IDENTITY, RULE, at(9)).outdated)
        assert names(folder) == []
    assert len(disk.calls) < stop  # the last ones were not interrupted any more


@pytest.mark.parametrize("last", ["infinity", "", "12026-01-01T00:00:00+00:00", "soon"])
def test_what_is_no_date_is_never_old(tmp_path: Path, last: str) -> None:
    files = shelf(tmp_path)
    for bounds in ((day(1), day(2)), (day(1), last) if last else ("", "")):
        files.put([Frame(ORDERS, COLUMNS, [[1, "a"]], (), *bounds)], "1")
        files.settle()
    files.close()
    assert bool(look(str(tmp_path), IDENTITY, RULE, at(9)).outdated) == (not last)


@pytest.mark.parametrize(
    "zone", ["2026-01-05T01:00:00+02:00", "2026-01-04T23:00:00Z", "2026-01-04T23:00:00", "-infinity"]
)
def test_dates_as_engines_write_them(tmp_path: Path, zone: str) -> None:
    files = shelf(tmp_path)
    files.put([Frame(ORDERS, COLUMNS, [[1, "a"]], (), zone, zone)], "1")
    files.settle()
    files.close()
    assert look(str(tmp_path), IDENTITY, RULE, at(5)).outdated
    assert bool(look(str(tmp_path), IDENTITY, RULE, at(4)).outdated) == (zone == "-infinity")


@pytest.mark.parametrize("damage", ["gone", "empty", "other", "[]", '{"version": 2}'])
def test_files_without_a_sound_manifest_stay(tmp_path: Path, damage: str) -> None:
    found = finished(tmp_path, 2)["orders"]
    data, manifest = tmp_path / found["file"], tmp_path / (found["file"] + MANIFEST)
    if damage == "gone":
        manifest.unlink()
    elif damage == "other":
        manifest.write_text(json.dumps({**found, "file": "../" + found["file"]}))
    else:
        manifest.write_text("" if damage == "empty" else damage)
    assert look(str(tmp_path), IDENTITY, RULE, at(9)).outdated == ()
    with pytest.raises(Refused, match="manifest"):
        remove([str(data)])
    assert data.exists()


# ---- compression -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", compression.LIBRARIES)
def test_each_library_writes_what_the_tool_reads(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parent = library.rpartition(".")[0]
    if (parent and not importlib.util.find_spec(parent)) or not importlib.util.find_spec(library):
        pytest.skip(f"{library} is not installed")
    monkeypatch.setattr(compression, "LIBRARIES", (library,))
    pack = compression.codec("auto").pack
    parts = [b"one\n" * 1000, b"", b"two\n"]
    path = tmp_path / "data.zst"
    path.write_bytes(b"".join(pack(part) for part in parts))
    subprocess.run(["zstd", "-tq", path], check=True)
    with compression.opened(str(path)) as file:
        assert file.read() == b"".join(parts)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert subprocess.run(["zstd", "-tq", path], check=False, stderr=subprocess.DEVNULL).returncode, "no checksum"


def test_without_a_library_for_zstd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "LIBRARIES", ())
    assert compression.codec("auto").name == "gzip"
    with pytest.raises(MissingMeans, match="zstandard"):
        shelf(tmp_path, "zstd")
    with pytest.raises(BadInput, match="lz4"):
        Shelf(str(tmp_path), IDENTITY, RULE, ITEMS, Archive("", str(tmp_path), "jsonl", "lz4"), about={})


def test_the_same_rows_are_the_same_bytes(tmp_path: Path) -> None:
    """gzip would write the time into each member."""
    first, second = (finished(tmp_path, 1)["orders"]["sha256"] for _turn in range(2))
    assert first == second
