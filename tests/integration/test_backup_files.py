# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups on full disks, and encrypted by gpg and age."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import (
    Decryption,
    Encryption,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import (
    BadInput,
    DbFault,
    Refused,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import backups, copies
from ansible_collections.dbfleet.maintenance.plugins.module_utils._files.store import part
from tests.unit.files.backing import LINES, fill, look, make, names, plain, record, sound, task

from .conftest import missing

NOISE = random.Random(7).randbytes(40 << 20)  # more than two parts of an upload, and nothing that could be compressed


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    if os.geteuid() != 0:
        missing("root, to mount a small file system")
    folder = tmp_path / "tiny"
    folder.mkdir(0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,mode=700", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        missing(f"a small file system: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def exhaust(folder: Path) -> None:
    """Takes all the space that is left there."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
@pytest.mark.parametrize("way", ["run", "feed", "spread"])
def test_a_full_disk_while_it_is_written(tiny: Path, tmp_path: Path, compression: str, way: str) -> None:
    earlier = make(tiny, compression="none")
    (tmp_path / "noise").write_bytes(NOISE[: 8 << 20])

    def whole() -> None:
        with part(task(tiny, compression=compression)) as new:
            if way == "spread":
                place = new.place("dir")
                list(new.spread(["cp", str(tmp_path / "noise"), place], dict(os.environ), what="dump", place=place))
            else:
                fill(new, f"cat {tmp_path}/noise" if way == "run" else "", data=NOISE[: 8 << 20])

    with pytest.raises(Refused, match="No space left") as refused:
        whole()
    assert "Make room" in refused.value.cure or way == "spread"
    shelf = look(tiny)
    assert shelf.backups == (earlier,) and not shelf.unfinished and not shelf.broken
    assert sound(earlier) and len(names(tiny)) == 2


@pytest.mark.parametrize("stage", ["folder", "marker", "seal"])
def test_a_full_disk_at_each_stage(tiny: Path, stage: str) -> None:
    """Of the manifest there is nothing, or all of it."""
    earlier = make(tiny, "other" if stage == "folder" else "shop")

    def whole() -> None:
        if stage != "seal":
            exhaust(tiny)
        with part(task(tiny)) as new:
            fill(new, data=LINES[:100_000])
            exhaust(tiny)
            new.seal(record(new.id))

    with pytest.raises(Refused, match="No space left") as refused:
        whole()
    assert "Make room" in refused.value.cure
    (tiny / "ballast").unlink()
    shelf = look(tiny)
    assert shelf.backups == (earlier,) and not shelf.unfinished and not shelf.broken
    assert len(names(tiny)) == 2
    with part(task(tiny)) as new:
        fill(new, data=LINES[:100_000])
        assert sound(new.seal(record(new.id)))


def test_a_full_disk_while_a_manifest_is_amended(tiny: Path) -> None:
    backup = make(tiny)
    exhaust(tiny)
    with pytest.raises(Refused, match="No space left"):
        backups.amend(backup, rows={f"table {n}": n for n in range(1000)})
    assert look(tiny).backups == (backup,) and sound(backup)


def test_a_full_disk_where_the_copy_goes(tiny: Path, tmp_path: Path) -> None:
    backup = make(tmp_path / "here", data=NOISE[: 8 << 20])
    with pytest.raises(Refused, match="No space left"):
        list(copies.copy(backup, str(tiny)))
    assert names(tiny) == [] and look(tmp_path / "here").backups == (backup,)


# ---- encrypted


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Encryption, Decryption]]]:
    """One key of each kind, made for this run; the one of gpg with a passphrase."""
    folder = tmp_path_factory.mktemp("keys", numbered=True)
    home = folder / "gnupg"
    home.mkdir(0o700)
    for program in ("gpg", "age"):
        if shutil.which(program) is None:
            missing(f"{program}: apt-get install gnupg age")
    env = {**os.environ, "GNUPGHOME": str(home)}
    gpg = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "open sesame"]
    subprocess.run([*gpg, "--quick-gen-key", "dba@example.com", "rsa2048", "encr", "never"], env=env, check=True)
    subprocess.run(["age-keygen", "-o", folder / "age.key"], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", folder / "age.key"], check=True, capture_output=True, text=True).stdout
    (folder / "recipients").write_text(public)
    os.environ["GNUPGHOME"], before = str(home), os.environ.get("GNUPGHOME")
    try:
        yield {
            "gpg": (Encryption("gpg", ("dba@example.com",)), Decryption(home=str(home), passphrase="open sesame")),
            "age": (Encryption("age", (public.strip(),)), Decryption(identity=str(folder / "age.key"))),
            "file": (Encryption("age", (str(folder / "recipients"),)), Decryption(identity=str(folder / "age.key"))),
        }
    finally:
        os.environ.pop("GNUPGHOME")
        if before:
            os.environ["GNUPGHOME"] = before
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


Keys = dict[str, tuple[Encryption, Decryption]]


@pytest.mark.parametrize("kind", ["gpg", "age", "file"])
@pytest.mark.parametrize("compression", ["zstd", "gzip", "none"])
def test_encrypted_and_back(tmp_path: Path, keys: Keys, kind: str, compression: str) -> None:
    encrypt, decrypt = keys[kind]
    backup = make(tmp_path, compression=compression, encryption=encrypt)
    assert backup.encryption == encrypt.program and backup.files[0].name.endswith(f".{encrypt.program}")
    data = (tmp_path / "shop" / backup.files[0].name).read_bytes()
    assert b"some words of row" not in data and len(data) == backup.bytes
    assert sound(backup) and plain(backup, decrypt=decrypt) == LINES


@pytest.mark.parametrize("kind", ["gpg", "age"])
def test_encrypted_and_damaged(tmp_path: Path, keys: Keys, kind: str) -> None:
    encrypt, decrypt = keys[kind]
    backup = make(tmp_path, data=LINES[:200_000], encryption=encrypt)
    path = tmp_path / "shop" / backup.files[0].name
    whole = path.read_bytes()
    dice, caught = random.Random(9), 0
    for number in range(12):
        place = dice.randrange(len(whole))
        path.write_bytes(whole[:place] + (bytes([whole[place] ^ 32]) + whole[place + 1 :] if number % 2 else b""))
        with pytest.raises(DbFault):
            plain(backup, decrypt=decrypt)
        caught += 1
    assert caught == 12


@pytest.mark.parametrize("kind", ["gpg", "age"])
def test_encrypted_and_no_key(tmp_path: Path, keys: Keys, kind: str) -> None:
    encrypt, decrypt = keys[kind]
    backup = make(tmp_path, data=LINES[:200_000], encryption=encrypt)
    wrong = {"gpg": decrypt._replace(passphrase="wrong sesame"), "age": Decryption()}[kind]
    if kind == "gpg":  # its agent would remember
        subprocess.run(["gpgconf", "--homedir", decrypt.home, "--kill", "all"], check=False)
    with pytest.raises(DbFault) as refused:
        plain(backup, decrypt=wrong)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize(
    "encrypt", [Encryption("gpg", ("nobody@example.com",)), Encryption("age", ("age1nobody",)), Encryption("age", ())]
)
def test_encrypted_to_nobody(tmp_path: Path, keys: Keys, encrypt: Encryption) -> None:
    with pytest.raises((Refused, BadInput)) as refused:
        make(tmp_path, encryption=encrypt)
    assert refused.value.cure
    assert names(tmp_path) == [] and keys


def test_no_secret_is_seen_by_others(tmp_path: Path, keys: Keys) -> None:
    """While gpg decrypts, nobody finds its passphrase where the system shows command lines and environments."""
    from ansible_collections.dbfleet.maintenance.plugins.module_utils._files import reader

    encrypt, decrypt = keys["gpg"]
    backup = make(tmp_path, data=NOISE, encryption=encrypt)
    seen = b""
    with reader.opened(backup, backup.files[0], decrypt) as file:
        assert file.read(1 << 20) == NOISE[: 1 << 20]
        mine = [child for child in Path("/proc").glob("[0-9]*/stat") if f" {os.getpid()} " in _text(child)]
        for stat in mine:
            seen += (stat.parent / "cmdline").read_bytes() + (stat.parent / "environ").read_bytes()
    assert b"gpg" in seen and b"sesame" not in seen


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
