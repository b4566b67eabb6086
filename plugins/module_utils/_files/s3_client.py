# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How boto3 is asked, and what its errors mean. Copies nothing."""

from __future__ import annotations

import typing as t

from .._backups import Bucket
from .._errors import DbFault, Gone, MissingMeans, Refused

AT_ONCE = 3  # parts under way: so often their bytes are in memory
CONNECT_SECONDS, READ_SECONDS, ATTEMPTS = 10, 60, 5
ABSENT = ("404", "NoSuchKey", "NotFound", "NoSuchUpload")
TRY_AGAIN = ("SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504")
CURES = {
    "NoSuchBucket": "Make the bucket, or name another one: copy_to",
    "AccessDenied": "Let the key read, write, list and delete below the prefix",
    "InvalidAccessKeyId": "Look at the access key",
    "SignatureDoesNotMatch": "Look at the secret key",
    "403": "Let the key read, write, list and delete below the prefix",
}


def client(access: Bucket) -> t.Any:
    """Raises MissingMeans, and what boto3 raises."""
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise MissingMeans(
            "copies in a bucket need boto3", cure="Install the Python package boto3 on the host where the module runs"
        ) from None
    given = {
        "endpoint_url": access.endpoint_url,
        "region_name": access.region,
        "aws_access_key_id": access.access_key,
        "aws_secret_access_key": access.secret_key,
        "aws_session_token": access.session_token,
        "verify": access.ca_bundle,
    }
    # A service of one's own rarely has a name for each bucket.
    style = {"s3": {"addressing_style": "path"}} if access.endpoint_url else {}
    config = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=AT_ONCE + 1,
        **style,
    )
    # A session of one's own: the default one is not made for threads.
    return boto3.session.Session().client("s3", config=config, **{key: value for key, value in given.items() if value})


def code_of(error: Exception) -> str:
    """What the service calls it; "": it did not come from there."""
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def fault_of(error: Exception, to: str, access: Bucket) -> DbFault:
    """What the library and the service say, without a secret."""
    from botocore import exceptions as known

    words = str(error)
    for secret in (access.secret_key, access.session_token, access.access_key):
        words = words.replace(secret, "***") if secret else words
    cause, code = f"{to}: {words}", code_of(error)
    if isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
        return Refused(cause, cure="Name an access key, or put one where boto3 looks for it")
    if isinstance(error, known.ClientError) and code not in TRY_AGAIN:
        return Refused(cause, cure=CURES.get(code, ""))
    if isinstance(
        error, (known.ClientError, known.ConnectionError, known.HTTPClientError, known.ResponseStreamingError)
    ):
        return Gone(cause)
    return Refused(cause)
