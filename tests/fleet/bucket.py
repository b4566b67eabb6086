# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that speaks S3's protocol, for copies of backups: moto's, in memory, in a process of its own."""

from __future__ import annotations

import atexit
import importlib.util
import os
import subprocess
import sys
import time
import urllib.request
from types import TracebackType
from typing import Any, Self

from .errors import Missing
from .processes import free_port

ACCESS_KEY, SECRET_KEY = "AKIATEST", "s3cr3t+words"


class Service:
    """It has no buckets at first. `least_part`: bytes that parts must have but the last; 0: as the protocol says."""

    region = "us-east-1"

    def __init__(self, least_part: int = 0) -> None:
        if importlib.util.find_spec("moto") is None or importlib.util.find_spec("boto3") is None:
            raise Missing("moto and boto3: pip install 'moto[s3,server]' boto3")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        more = {"S3_UPLOAD_PART_MIN_SIZE": str(least_part)} if least_part else {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, **more},
        )
        self._owner = os.getpid()
        self.client: Any = None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def begin(self) -> Any:
        """Its client, once it answers. At the end of this process it ends, at the latest."""
        import boto3

        atexit.register(self.close)
        for _attempt in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.1)
        keys = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}
        self.client = boto3.session.Session().client("s3", endpoint_url=self.url, region_name=self.region, **keys)
        return self.client

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops it; in a child of whoever began it nothing happens."""
        if os.getpid() == self._owner:
            atexit.unregister(self.close)
            self._process.kill()
            self._process.wait()

    def options(self) -> dict[str, str]:
        """How a module reaches it: its option s3."""
        keys = {"access_key": ACCESS_KEY, "secret_key": SECRET_KEY}
        return {"endpoint_url": self.url, "region": self.region, **keys}


def stored(client: Any, bucket: str) -> dict[str, int]:
    """Sizes by key."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}


def open_uploads(client: Any, bucket: str) -> list[str]:
    """Keys of uploads that nobody has ended."""
    return [each["Key"] for each in client.list_multipart_uploads(Bucket=bucket).get("Uploads", ())]
