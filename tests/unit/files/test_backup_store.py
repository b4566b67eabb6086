# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups as they are written: real programs, real pipes, whole or not at all; and what dies says why."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import zstandard

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Encryption
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    BadInput,
    DbFault,
    MissingMeans,
    Refused,
    Stopped,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.packing import MOST_THREADS
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.pipeline import ProgramFailed
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import Tap, part
from tests.unit.files.backing import LINES, fill, look, make, names, plain, record, sound, task

ROOT = Path(__file__).parents[3]
PROGRAMS = {"zstd": "zstd", "gzip": "pigz"}
SAY = "import sys, time; out = sys.stdout.buffer; "  # a program that writes


def unzstd(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


class Watch:
    """A tap that remembers; at `most` bytes, or at the end, it raises."""

    def __init__(self, most: int | None = None, *, last: bool = False) -> None:
        self.seen, self.ended, self._most, self._last = bytearray(), 0, most, last

    def feed(self, data: bytes) -> None:
        self.seen += data
        if self._most is not None and len(self.seen) > self._most:
            raise Refused("a tap does not like it")

    def end(self) -> None:
        self.ended += 1
        if self._last:
            raise Refused("a tap misses the end")


@pytest.fixture
def earlier(tmp_path: Path) -> Iterator[Path]:
    """A folder with a backup, which is still whole afterwards; and nothing else is left of what failed."""
    backup = make(tmp_path, compression="none")
    yield tmp_path
    shelf = look(tmp_path)
    assert [found.id for found in shelf.backups] == [backup.id]
    assert sound(backup) and plain(backup) == LINES
    assert (shelf.broken, shelf.unfinished, shelf.foreign) == ((), (), ())
    assert len(names(tmp_path)) == 2


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that are found before all others."""
    folder = tmp_path.parent / f"{tmp_path.name}-bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def program(folder: Path, name: str, script: str) -> None:
    made = folder / name
    made.write_text(f"#!/bin/sh\n{script}\n")
    made.chmod(0o755)


def written(
    folder: Path,
    script: str = "",
    *,
    data: bytes = LINES,
    stop: threading.Event | None = None,
    taps: Sequence[Tap] = (),
    **manner: Any,
) -> list[int]:
    with part(task(folder, **manner)) as new:
        ticks = fill(new, script, data, stop=stop, taps=taps)
        new.seal(record(new.id))
    return ticks


@pytest.mark.parametrize("found", ["program", "library"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
@pytest.mark.parametrize("way", ["run", "feed"])
def test_round_trip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compression: str, found: str, way: str) -> None:
    if found == "library" and compression != "none":
        real = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name, **more: real(name, **more) if name == "sh" else None)
    elif compression != "none":
        assert shutil.which(PROGRAMS[compression])
    source, seen = tmp_path / "source", Watch()
    source.write_bytes(LINES)
    with part(task(tmp_path / "backups", compression=compression)) as new:
        ticks = fill(new, f"cat {source}" if way == "run" else "", taps=[seen])
        backup = new.seal(record(new.id))
    (file,) = backup.files
    assert sum(ticks) == len(LINES) == file.plain_bytes
    assert bytes(seen.seen) == LINES and seen.ended == 1
    assert look(tmp_path / "backups").backups == (backup,)
    assert sound(backup) and plain(backup) == LINES
    data = (tmp_path / "backups" / "shop" / file.name).read_bytes()
    if compression != "none":
        assert len(data) < len(LINES) / 2
    # Anybody else can read it, too.
    assert (
        gzip.decompress(data) if compression == "gzip" else unzstd(data) if compression == "zstd" else data
    ) == LINES


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_nobody_else_reads_it_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with part(task(tmp_path / "a" / "backups")) as new:
            fill(new)
            place = new.place("dir")
            for _tick in new.spread(
                ["sh", "-c", f"mkdir {place}/in; umask 0; echo x > {place}/in/y"],
                dict(os.environ),
                what="x",
                place=place,
            ):
                modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file()}
                assert modes <= {0o600, 0o666}  # a program's own files, in a folder that is shut
            new.seal(record(new.id))
    finally:
        os.umask(before)
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600} and len(files) == 3


def test_many_files_of_a_program(tmp_path: Path) -> None:
    with part(task(tmp_path)) as new:
        place = new.place("dir")
        script = f"cd {place}; mkdir -p a/b; seq 1 50000 > a/b/c; echo done >&2; echo x > toc; echo unheard"
        ticks = list(new.spread(["sh", "-c", script], dict(os.environ), what="dump", place=place))
        backup = new.seal(record(new.id))
        assert new.said == {"sh": "done\n"}
    assert sum(ticks) == backup.bytes > 200_000
    assert {file.name for file in backup.files} == {f"{backup.id}.dir/toc", f"{backup.id}.dir/a/b/c"}
    assert look(tmp_path).backups == (backup,) and sound(backup)
    (tmp_path / "shop" / f"{backup.id}.dir" / "toc").unlink()
    assert "missing" in look(tmp_path).broken[0].why


def test_many_files_are_not_encrypted(earlier: Path) -> None:
    with (
        pytest.raises(Refused, match="before they are encrypted"),
        part(task(earlier, encryption=Encryption("age", ("age1x",)))) as new,
    ):
        list(new.spread(["true"], dict(os.environ), what="dump", place=new.place("dir")))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo cannot lock >&2; exit 3", "sh (exit 3): cannot lock"),
        ("seq 1 200000; echo 'server closed the connection' >&2; exit 1", "sh (exit 1): server closed the connection"),
        ("seq 1 200000; kill -9 $$", "sh (ended by SIGKILL)"),
        ("seq 1 200000; kill -PIPE $$", "sh (ended by SIGPIPE)"),
    ],
)
@pytest.mark.parametrize("compression", ["none", "zstd"])
def test_a_program_that_fails_fails_the_backup(earlier: Path, script: str, said: str, compression: str) -> None:
    with pytest.raises(ProgramFailed) as failed:
        written(earlier, script, compression=compression)
    assert said in str(failed.value) and failed.value.program == "sh"


PIPES = [
    # (programs, who is at fault)
    (["seq 1 1000000", "head -c 10 >/dev/null; echo too much >&2; exit 4"], "sh (exit 4): too much"),
    (["seq 1 1000000; exit 7", "cat"], "sh (exit 7)"),
    (
        ["seq 1 100; echo gone >&2; exit 7", "cat >/dev/null; echo 'unexpected end' >&2; exit 1"],
        "sh (exit 7): gone; sh",
    ),
    (["trap '' PIPE; seq 1 1000000 || exit 9", "exit 4"], "sh (exit 4)"),
    (["seq 1 1000000", "cat", "exit 4"], "sh (exit 4)"),
]


@pytest.mark.parametrize(("scripts", "said"), PIPES)
def test_the_program_at_fault_is_named(earlier: Path, scripts: list[str], said: str) -> None:
    pipe = [["sh", "-c", script] for script in scripts]
    with pytest.raises(ProgramFailed) as failed, part(task(earlier)) as new:
        list(new.run(pipe, dict(os.environ), what="dump", ext="sql"))
    assert str(failed.value).startswith(said)


def test_what_programs_say_that_end_well(tmp_path: Path) -> None:
    with part(task(tmp_path)) as new:
        fill(new, "echo warning: odd >&2; seq 1 10")
        assert new.said == {"sh": "warning: odd\n"}
        new.seal(record(new.id))


BAD_COMPRESSORS = [
    ("echo no memory >&2; exit 11", "zstd (exit 11): no memory"),
    ("head -c 300000 >/dev/null; echo no memory >&2; exit 11", "zstd (exit 11): no memory"),
    ("head -c 300000; kill -9 $$", "zstd (ended by SIGKILL)"),
    ("cat; kill -9 $$", "zstd (ended by SIGKILL)"),
    ("cat; exit 1", "zstd (exit 1)"),
    ("exit 0", "ended before it had read everything"),
    ("cat >/dev/null; exit 0", "wrote nothing"),
]


@pytest.mark.parametrize(("script", "said"), BAD_COMPRESSORS)
@pytest.mark.parametrize("way", ["run", "feed"])
def test_a_compressor_that_fails(earlier: Path, path: Path, script: str, said: str, way: str) -> None:
    program(path, "zstd", script)
    source = path / "source"
    source.write_bytes(LINES * 2)
    with pytest.raises(DbFault) as failed:
        written(earlier, f"cat {source}" if way == "run" else "", data=LINES * 2)
    assert said in str(failed.value)


def test_a_slow_compressor_is_waited_for_and_ticks_go_on(tmp_path: Path, path: Path) -> None:
    real = shutil.which("zstd", path="/usr/bin:/bin:/usr/local/bin")
    program(path, "zstd", f'if [ "$2" = -d ]; then exec {real} "$@"; fi; sleep 2.5; exec {real} "$@"')
    source = path / "source"
    source.write_bytes(LINES * 4)
    gaps, last = [], time.monotonic()
    with part(task(tmp_path)) as new:
        for _tick in new.run([["cat", str(source)]], dict(os.environ), what="dump", ext="sql"):
            gaps.append(time.monotonic() - last)
            last = time.monotonic()
        backup = new.seal(record(new.id))
    assert len(gaps) >= 3 and max(gaps) < 2
    assert plain(backup) == LINES * 4


@pytest.mark.parametrize("script", ["sleep 1000", "while :; do seq 1 1000; done"])
@pytest.mark.parametrize("compressor", ["", "sleep 1000", "trap '' INT TERM; cat"])
def test_a_stop_ends_all_programs(earlier: Path, path: Path, script: str, compressor: str) -> None:
    pids = path / "pids"
    if compressor:
        program(path, "zstd", f"echo $$ >> {pids}; {compressor}")
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        written(earlier, f"echo $$ >> {pids}; {script}", stop=stop)
    assert time.monotonic() - began < 12
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids.read_text().split())


@pytest.mark.parametrize("streams", [1, 2, 1000])
def test_streams_divide_the_processors(tmp_path: Path, path: Path, streams: int) -> None:
    told = path / "told"
    program(path, "zstd", f'echo "$@" >> {told}; exec {shutil.which("zstd")} "$@"')
    with part(task(tmp_path)) as new:
        list(new.run([["echo", "x"]], dict(os.environ), what="dump", ext="sql", streams=streams))
        new.seal(record(new.id))
    share = max(1, min(len(os.sched_getaffinity(0)), MOST_THREADS) // streams)
    assert f" -T{share} " in told.read_text()


def test_closing_the_generator_ends_all_programs(earlier: Path, path: Path) -> None:
    pids = path / "pids"
    with part(task(earlier)) as new:
        ticks = new.run([["sh", "-c", f"echo $$ > {pids}; sleep 1000"]], dict(os.environ), what="dump", ext="sql")
        while not (pids.exists() and pids.read_text().strip()):
            next(ticks)
        ticks.close()
        with pytest.raises(Refused, match="no files"):
            new.seal(record(new.id))
    assert not Path(f"/proc/{pids.read_text().strip()}").exists()


@pytest.mark.parametrize("tap", [Watch(10), Watch(500_000), Watch(last=True)])
@pytest.mark.parametrize("way", ["run", "feed"])
def test_a_tap_that_raises_fails_the_backup(earlier: Path, path: Path, tap: Watch, way: str) -> None:
    tap.seen.clear()
    source = path / "source"
    source.write_bytes(LINES)
    with pytest.raises(Refused, match="a tap"):
        written(earlier, f"cat {source}" if way == "run" else "", taps=[tap])


def test_taps_are_not_told_of_an_end_that_is_none(earlier: Path) -> None:
    tap = Watch()
    with pytest.raises(ProgramFailed), part(task(earlier)) as new:
        fill(new, "seq 1 1000; exit 1", taps=[tap])
    assert tap.seen and not tap.ended


def test_chunks_that_raise_fail_the_backup(earlier: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"x" * 1000
        raise Refused("the server is gone")

    with pytest.raises(Refused, match="the server is gone"), part(task(earlier)) as new:
        list(new.feed(chunks(), what="dump", ext="sql"))


def test_programs_that_are_not_there(earlier: Path) -> None:
    with pytest.raises(MissingMeans, match="pg_dumb is not there"), part(task(earlier)) as new:
        list(new.run([["pg_dumb"]], dict(os.environ), what="dump", ext="sql"))
    with pytest.raises(BadInput, match="bzip2"):
        written(earlier, compression="bzip2")
    with pytest.raises(BadInput, match="pgp"):
        written(earlier, encryption=Encryption("pgp", ("x",)))


def test_a_rate_is_kept(tmp_path: Path) -> None:
    began = time.monotonic()
    written(tmp_path, "head -c 3000000 /dev/zero", rate_limit=1_000_000)
    assert 1.9 < time.monotonic() - began < 6


def test_programs_are_nice(tmp_path: Path, path: Path) -> None:
    program(path, "zstd", "nice >&2; nice; cat >/dev/null")
    wanted = f"{min(os.nice(0) + 7, 19)}\n"
    with part(task(tmp_path, nice=7)) as new:
        fill(new, "nice >&2; echo x")
        assert new.said == {"sh": wanted}
        backup = new.seal(record(new.id))
    assert (tmp_path / "shop" / backup.files[0].name).read_text() == wanted


def test_what_packs_knows_no_secret_of_the_server(tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYSQL_PWD", "hunter2")
    program(path, "zstd", f"env > {path}/env; cat")
    with part(task(tmp_path)) as new:
        fill(new, "echo x", env={**os.environ, "PGPASSFILE": "/run/hunter2"})
        new.seal(record(new.id))
    assert "hunter2" not in (path / "env").read_text()
    assert "PATH=" in (path / "env").read_text()


def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    with part(task(tmp_path)) as one, part(task(tmp_path)) as two:
        fill(one)
        fill(two)
        shelf = look(tmp_path)
        assert (shelf.backups, shelf.unfinished, shelf.broken, shelf.foreign) == ((), (), (), ())
        first = one.seal(record(one.id))
    assert look(tmp_path).backups == (first,)
    assert len(names(tmp_path)) == 2


def test_memory_stays_flat(tmp_path: Path) -> None:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with part(task(tmp_path, compression="none")) as new:
        fill(new, "head -c 300000000 /dev/zero", taps=[])
        new.seal(record(new.id))
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 20_000, f"{sys.platform}: {grown} kB more"


@pytest.mark.parametrize("compressor", ["sleep 1000", "trap '' INT TERM; cat >/dev/null; sleep 1000"])
def test_a_stop_reaches_what_is_fed(earlier: Path, path: Path, compressor: str) -> None:
    program(path, "zstd", compressor)
    stop = threading.Event()
    threading.Timer(1.5, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        written(earlier, stop=stop, data=LINES * 4)
    assert 1 < time.monotonic() - began < 12


def killed_beside(folder: Path, words: str) -> None:
    """A module is killed while a shell of these words writes into the folder of its backup."""
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.unit.files.backing import *\n"
        "with part(task(Path(sys.argv[1]))) as new:\n"
        "    place = new.place('dir')\n"
        "    ticks = new.spread(['sh', '-c', sys.argv[2]], dict(os.environ), what='dump', place=place, cwd=place)\n"
        "    next(ticks); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/.dev/collections"}
    done = subprocess.run([sys.executable, "-c", script, str(folder), words], env=env, check=False)
    assert done.returncode == -signal.SIGKILL


def test_a_program_that_writes_files_itself_ends_with_us(tmp_path: Path) -> None:
    """Nothing else would tell it that nobody wants them any more."""
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv is not installed")
    killed_beside(tmp_path, "echo x > y; while :; do :; done")
    for _attempt in range(100):
        if look(tmp_path).unfinished:
            break
        time.sleep(0.05)
    (left,) = look(tmp_path).unfinished
    assert backups.clear(str(tmp_path), left) > 0
    assert names(tmp_path) == []


def test_a_program_that_outlives_us_is_at_work(tmp_path: Path) -> None:
    """The module was killed, its client would not end: what that still writes is not cleared away."""
    killed_beside(tmp_path, "trap '' TERM; echo x > y; sleep 2; echo x > z; sleep 1")
    shelf = look(tmp_path)
    assert (shelf.unfinished, shelf.foreign, shelf.broken) == ((), (), ())
    for _attempt in range(100):
        if look(tmp_path).unfinished:
            break
        time.sleep(0.1)
    (left,) = look(tmp_path).unfinished
    assert any((tmp_path / name / "z").exists() for name in left.files)
    assert backups.clear(str(tmp_path), left) > 0
    assert names(tmp_path) == []
