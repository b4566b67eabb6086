# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throwaway certificate authority and one certificate for servers on loopback, made with openssl."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from .errors import Missing
from .processes import give_away, run

_EXTENSIONS = "subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n"


class Certificates(NamedTuple):
    """Where the authority's certificate, the servers' certificate and their key are."""

    ca: Path
    certificate: Path
    key: Path

    def copy_to(self, home: Path) -> tuple[Path, Path]:
        """Put certificate and key into a server's folder, readable by its user alone."""
        copies = (home / "server.crt", home / "server.key")
        for source, target in zip((self.certificate, self.key), copies, strict=True):
            target.touch(mode=0o600)
            shutil.copyfile(source, target)
            give_away(target)
        return copies


def create(folder: Path) -> Certificates:
    """Make an authority and a server certificate for localhost and 127.0.0.1, valid for a few days."""
    if shutil.which("openssl") is None:
        raise Missing("TLS needs the program openssl: apt-get install openssl")
    folder.mkdir(mode=0o755)
    ca, ca_key, request = folder / "ca.crt", folder / "ca.key", folder / "server.csr"
    made = Certificates(ca, folder / "server.crt", folder / "server.key")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256")
    (folder / "extensions").write_text(_EXTENSIONS)
    run(
        ["openssl", "req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", "9", "-subj", "/CN=dbfleet test CA"]
    )
    run(["openssl", "req", *curve, "-keyout", made.key, "-out", request, "-subj", "/CN=localhost"])
    signing = ("-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "9", "-sha256")
    run(
        [
            "openssl",
            "x509",
            "-req",
            "-in",
            request,
            *signing,
            "-extfile",
            folder / "extensions",
            "-out",
            made.certificate,
        ]
    )
    ca.chmod(0o644)
    return made
