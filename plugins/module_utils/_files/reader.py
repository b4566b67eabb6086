# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a backup read back: decrypted, decompressed, compared with the manifest. Decides nothing."""

from __future__ import annotations

import io
import typing as t
from contextlib import contextmanager

from .._backups import Backup, Decryption, Stored


@contextmanager
def opened(backup: Backup, stored: Stored, decrypt: Decryption | None = None) -> t.Iterator[t.BinaryIO]:
    """The plain bytes of one file. Its last read raises DbFault where anything is wrong: hash, size, program, end.

    So a read that returns b"" says that all of it was read and is as it was written. It has no descriptor: a program
    gets its bytes through a pipe. Closing it early ends the programs without an error. Raises Refused, MissingMeans.
    """
    yield io.BytesIO()
    raise NotImplementedError


def checksum(backup: Backup) -> t.Iterator[int]:
    """Reads each file from the disk again and hashes it; yields bytes since the last time. Raises Refused."""
    yield 0
    raise NotImplementedError
