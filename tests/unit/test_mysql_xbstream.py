# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading mariadb-backup's stream, made here: whatever the pieces are, and wherever it is cut or damaged."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.module_utils._engines.mysql.xbstream import Stream
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import Refused


def head(kind: bytes, path: str, flags: int = 0) -> bytes:
    return b"XBSTCK01" + bytes([flags]) + kind + struct.pack("<I", len(path.encode())) + path.encode()


def payload(path: str, data: bytes, offset: int = 0, flags: int = 0) -> bytes:
    return head(b"P", path, flags) + struct.pack("<QQI", len(data), offset, zlib.crc32(data)) + data


def file(path: str, data: bytes) -> bytes:
    return payload(path, data) + head(b"E", path)


def renamed(old: str, new: str) -> bytes:
    return head(b"R", old) + struct.pack("<I", len(new)) + new.encode()


POINTS = b"backup_type = full-backuped\nfrom_lsn = 0\nlast_lsn = 77\n"
LAST = [
    file("xtrabackup_binlog_info", b"binlog.000001\t4\t0-1-2\n"),
    file("ib_logfile0", b"log" * 50),
    file("xtrabackup_checkpoints", POINTS),
    file("backup-my.cnf", b"[mysqld]\n"),
    file("xtrabackup_info", b""),
]
CHUNKS = [
    payload("./shop/orders.ibd", b"a" * 100),
    payload("shop/other.ibd", b"XBSTCK01" * 4),
    payload("shop/orders.ibd", b"b" * 10, 100),
    head(b"S", "shop/orders.ibd") + struct.pack("<Q", 200),
    payload("shop/orders.ibd", b"c", 200),
    head(b"E", "shop/orders.ibd"),
    payload("shop/other.ibd", b"zz", 3, flags=2),
    head(b"E", "shop/other.ibd"),
    file("shop/orders.frm", b"\x01\xfe"),
    file("shop/old.frm", b"\x01\xfe"),
    renamed("shop/old.frm", "shop/a@0020new.frm"),
    file("shop/gone.frm", b""),
    head(b"D", "shop/gone.frm"),
    file("shop/#sql-12.frm", b""),
    *LAST,
]
WHOLE = b"".join(CHUNKS)


def read(data: bytes, *sizes: int) -> Stream:
    stream, at = Stream(), 0
    for size in sizes:
        stream.feed(data[at : at + size])
        at += size
    stream.feed(data[at:])
    stream.end()
    return stream


@given(st.lists(st.integers(0, 60), max_size=40))
def test_the_pieces_do_not_matter(sizes: list[int]) -> None:
    stream = read(WHOLE, *sizes)
    assert stream.files["shop/orders.ibd"] == 201 and stream.files["shop/other.ibd"] == 32
    assert stream.tables() == ["shop/a@0020new", "shop/orders"]
    assert stream.told("checkpoints").encode() == POINTS
    assert stream.told("binlog") == "binlog.000001\t4\t0-1-2\n"


def test_wherever_it_is_cut_it_is_not_whole() -> None:
    for end in range(len(WHOLE)):
        with pytest.raises(Refused, match="not whole"):
            read(WHOLE[:end])


@given(st.integers(0, len(WHOLE) - 1), st.integers(1, 255))
def test_a_damaged_byte_of_a_file_is_found_out(at: int, change: int) -> None:
    """In names, kinds and lengths not every one is: what they say then may be true of another stream."""
    damaged = bytearray(WHOLE)
    damaged[at] ^= change
    try:
        read(bytes(damaged))
    except Refused:
        return
    assert not in_a_payload(at)


def in_a_payload(at: int) -> bool:
    start = 0
    for chunk in CHUNKS:
        if chunk[9:10] == b"P" and start <= at < start + len(chunk):
            length = int(struct.unpack_from("<I", chunk, 10)[0])
            size = int(struct.unpack_from("<Q", chunk, 14 + length)[0])
            return start + 34 + length <= at < start + 34 + length + size
        start += len(chunk)
    return False


@pytest.mark.parametrize(("wrong", "words"), [
    (file("shop/t.ibd", b"a") + file("shop/t.ibd", b"a"), "twice"),
    (payload("shop/t.ibd", b"a", 5), "gap"),
    (head(b"Q", "shop/t.ibd"), "unknown kind"),
    (file("../etc/passwd", b"a"), "no file of a data directory"),
    (file("/etc/passwd", b"a"), "no file of a data directory"),
    (payload("shop/t.ibd", b"a"), "has no end"),
    (head(b"E", "x" * 5000), "no chunk begins"),
])  # fmt: skip
def test_what_no_program_writes_is_refused(wrong: bytes, words: str) -> None:
    with pytest.raises(Refused, match=words):
        read(wrong + b"".join(LAST))


def test_an_incremental_one_is_not_whole() -> None:
    points = file("xtrabackup_checkpoints", POINTS.replace(b"full-backuped", b"incremental"))
    with pytest.raises(Refused, match="full"):
        read(b"".join([*LAST[:2], points, *LAST[3:]]))
