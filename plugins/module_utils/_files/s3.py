# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies of backups in a bucket of an S3-compatible service, by boto3. What is said to be there was compared there."""

from __future__ import annotations

import base64
import hashlib
import os
import typing as t
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

from .._backups import Backup, Bucket, Stored
from .._errors import BadInput, DbFault, Refused
from .._tuples import NamedTuple
from . import durable
from .backup_manifest import MANIFEST
from .pipeline import BLOCK
from .reader import compare
from .s3_client import ABSENT, AT_ONCE, client, code_of, fault_of
from .underway import told
from .unfinished import folder_name

if t.TYPE_CHECKING:
    from .underway import Progress

PART = 16 << 20  # bytes; at least, of each but the last
MOST_PARTS = 9000  # the protocol takes 10,000


class Piece(NamedTuple):
    """A part of a file, as it was sent."""

    number: int
    etag: str
    digest: bytes


class Store:
    """The part of a bucket below the prefix."""

    def __init__(self, to: str, access: Bucket) -> None:
        self._to, self._access = to, access
        self._bucket, _slash, prefix = to[len("s3://") :].partition("/")
        self._prefix = prefix.strip("/")
        if not self._bucket:
            raise BadInput(f"copy_to: {to} names no bucket", cure="Write s3://bucket/prefix")
        with self._said():
            self._client = client(access)

    # ---- what copies.py asks for

    def ready(self, backup: Backup) -> None:
        """Raises Refused, Gone."""
        from botocore.exceptions import ClientError

        # A HEAD would not tell a bucket that is not there from an object.
        manifest = self._key(backup, backup.id + MANIFEST)
        with self._said():
            try:
                self._client.get_object(Bucket=self._bucket, Key=manifest)["Body"].close()
            except ClientError as error:
                if code_of(error) not in ABSENT:
                    raise

    def holds(self, backup: Backup, progress: Progress) -> bool:
        """Raises Refused, Gone, Stopped."""
        with self._said():
            return self._is_there(backup, self._key(backup, backup.id + MANIFEST), progress)

    def copy(self, backup: Backup, progress: Progress) -> None:
        """The manifest last. Raises Refused, Gone, Stopped: what is there then has to be removed."""
        manifest = self._key(backup, backup.id + MANIFEST)
        with self._said():
            self._delete([manifest])
            for stored in backup.files:
                self._send(backup, stored, self._key(backup, stored.name), progress)
            progress.go_on()
            text = told(backup)
            self._put(manifest, text)
            if self._get(manifest) != text:
                raise Refused(f"{self._to}/{manifest} is not what was sent")

    def remove(self, backup: Backup) -> int:
        """The manifest first: what dies on the way is no copy any more, and is removed by who removes it again."""
        manifest = self._key(backup, backup.id + MANIFEST)
        with self._said():
            freed = self._delete([manifest])
            self._forget(self._key(backup, backup.id + "."))
            return freed + self._delete([self._key(backup, stored.name) for stored in backup.files])

    # ---- one file

    def _send(self, backup: Backup, stored: Stored, key: str, progress: Progress) -> None:
        path = os.path.join(backup.folder, stored.name)
        with durable.refusing(f"{path} cannot be read"):
            fd = durable.open_to_read(path)
        with open(fd, "rb", buffering=0) as file:
            found = hashlib.sha256()
            size = max(PART, -(-stored.bytes // MOST_PARTS))
            if stored.bytes <= size:
                data = _exactly(file, size + 1)
                found.update(data)
                compare(path, stored, len(data), found.hexdigest())
                self._put(key, data)
                progress.more(len(data))
                expected = _base64(found.digest())
            else:
                expected = self._in_parts(key, _parts(file, size, found), progress)
                compare(path, stored, stored.bytes, found.hexdigest())
        self._verify(key, stored, (expected,), progress)

    def _put(self, key: str, data: bytes) -> None:
        digest = _base64(hashlib.sha256(data).digest())
        self._client.put_object(Bucket=self._bucket, Key=key, Body=data, ChecksumSHA256=digest)

    def _in_parts(self, key: str, parts: t.Iterator[bytes], progress: Progress) -> str:
        """The checksum that the service has to come to. Nothing is left of an upload that fails."""
        self._forget(key)  # nobody else sends it
        upload = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, ChecksumAlgorithm="SHA256")
        ident = upload["UploadId"]
        try:
            pieces = self._parallel(key, ident, parts, progress)
            done = [
                {"PartNumber": piece.number, "ETag": piece.etag, "ChecksumSHA256": _base64(piece.digest)}
                for piece in pieces
            ]
            self._client.complete_multipart_upload(
                Bucket=self._bucket, Key=key, UploadId=ident, MultipartUpload={"Parts": done}
            )
        except BaseException:
            with suppress(Exception):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=key, UploadId=ident)
            raise
        return f"{_base64(hashlib.sha256(b''.join(piece.digest for piece in pieces)).digest())}-{len(pieces)}"

    def _parallel(self, key: str, ident: str, parts: t.Iterator[bytes], progress: Progress) -> list[Piece]:
        pieces: list[Piece] = []
        under_way: list[Future[Piece]] = []
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for number, data in enumerate(parts, 1):
                    progress.more(len(data))
                    under_way.append(pool.submit(self._part, key, ident, number, data))
                    if len(under_way) == AT_ONCE:
                        pieces.append(under_way.pop(0).result())
                pieces += [each.result() for each in under_way]
            except BaseException:
                for each in under_way:
                    each.cancel()
                raise
        return pieces

    def _part(self, key: str, ident: str, number: int, data: bytes) -> Piece:
        digest = hashlib.sha256(data).digest()
        said = self._client.upload_part(
            Bucket=self._bucket, Key=key, UploadId=ident, PartNumber=number, Body=data, ChecksumSHA256=_base64(digest)
        )
        return Piece(number, said["ETag"], digest)

    def _forget(self, beginning: str) -> None:
        """Uploads that died, of files whose keys begin so."""
        with suppress(Exception):  # not every key may list them, and not every service knows how
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._bucket, Prefix=beginning):
                for each in page.get("Uploads", ()):
                    self._client.abort_multipart_upload(Bucket=self._bucket, Key=each["Key"], UploadId=each["UploadId"])

    # ---- what is there

    def _is_there(self, backup: Backup, manifest: str, progress: Progress) -> bool:
        if self._get(manifest) is None:
            return False
        try:
            for stored in backup.files:
                self._verify(self._key(backup, stored.name), stored, (), progress)
        except Refused:
            return False
        return True

    def _verify(self, key: str, stored: Stored, expected: tuple[str, ...], progress: Progress) -> None:
        """By the checksum that the service made of what it got, or else by reading all of it. Raises Refused."""
        head = self._head(key)
        where = f"{self._to.rstrip('/')}: {key}"
        if head is None:
            raise Refused(f"{where} is not there")
        if head["ContentLength"] != stored.bytes:
            raise Refused(f"{where} has {head['ContentLength']} bytes instead of {stored.bytes}")
        whole = _base64(bytes.fromhex(stored.sha256))
        if head.get("ChecksumSHA256") in (whole, *expected):
            return
        found, size = hashlib.sha256(), 0
        for data in self._client.get_object(Bucket=self._bucket, Key=key)["Body"].iter_chunks(BLOCK):
            found.update(data)
            size += len(data)
            progress.go_on()
        compare(where, stored, size, found.hexdigest())

    def _head(self, key: str) -> dict[str, t.Any] | None:
        from botocore.exceptions import ClientError

        try:
            found: dict[str, t.Any] = self._client.head_object(Bucket=self._bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            if code_of(error) in ABSENT:
                return None
            raise
        return found

    def _get(self, key: str) -> bytes | None:
        if self._head(key) is None:
            return None
        data: bytes = self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()
        return data

    def _delete(self, keys: t.Sequence[str]) -> int:
        """One by one: not every service knows how to delete many. Bytes freed."""
        freed = 0
        for key in keys:
            head = self._head(key)
            if head is not None:
                self._client.delete_object(Bucket=self._bucket, Key=key)
                freed += head["ContentLength"]
        return freed

    def _key(self, backup: Backup, name: str) -> str:
        return "/".join(part for part in (self._prefix, folder_name(backup.database), name) if part)

    @contextmanager
    def _said(self) -> t.Iterator[None]:
        """What the library and the service say, without a secret."""
        try:
            yield
        except DbFault:
            raise
        except Exception as error:
            raise fault_of(error, self._to, self._access) from None


def _parts(file: t.IO[bytes], size: int, found: t.Any) -> t.Iterator[bytes]:
    while True:
        data = _exactly(file, size)
        if not data:
            return
        found.update(data)
        yield data


def _exactly(file: t.IO[bytes], size: int) -> bytes:
    """So many bytes, fewer only at the end of the file. Raises Refused."""
    parts: list[bytes] = []
    with durable.refusing("a file of the backup cannot be read"):
        while size:
            data = file.read(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
    return b"".join(parts)


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode("ascii")
