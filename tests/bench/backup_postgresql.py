# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_backup against `pg_dump -Fc`: one database, hashed and read to its end by ours. See README.md beside this."""

from __future__ import annotations

import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.fleet import Fleet
from tests.fleet.postgresql import PostgreSQL
from tests.integration.module_runner import run

from .vacuum import SETTINGS

MAJOR = int(os.environ.get("BENCH_POSTGRESQL", "16"))
MEGABYTES = int(os.environ.get("BENCH_MB", "1100"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DATABASE = "bench"
TABLES = 4
# Of many types, which the server takes long to write out, and mostly text: by name, with rows a megabyte.
DATA = {
    "orders": (
        4_500,
        """
CREATE TABLE t{number} (id bigint, customer int, at timestamptz, status varchar(12), amount numeric(12, 2), token uuid,
                        note text, doc jsonb);
INSERT INTO t{number}
SELECT n, n * 7919 % 50000, '2026-01-01'::timestamptz + n * interval '7 seconds',
       (ARRAY['new', 'paid', 'packed', 'sent', 'returned'])[1 + n % 5], (n * 104729 % 1000000) / 100.0,
       md5(n::text)::uuid,
       'Order ' || n || ' of customer ' || n * 7919 % 50000 || ', to be delivered to street ' || n * 31 % 997
       || ' in the ' || (ARRAY['morning', 'afternoon', 'evening'])[1 + n % 3],
       jsonb_build_object('weight', n % 300, 'carrier', 'c' || n % 7, 'fragile', n % 2 = 0)
  FROM generate_series({first}::bigint, {last}) n;
""",
    ),
    "sessions": (
        4_200,
        """
CREATE TABLE t{number} (id bigint, at timestamptz, token text, client varchar(40), state text, score double precision);
INSERT INTO t{number}
SELECT n, '2026-01-01'::timestamptz + n * interval '7 seconds', md5(n::text), 'customer ' || n % 1000,
       repeat(md5((n % 77)::text), 2), sin(n)
  FROM generate_series({first}::bigint, {last}) n;
""",
    ),
}


def make(server: PostgreSQL, kind: str) -> int:
    """A database of about that many megabytes; its size in bytes."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    density, fill = DATA[kind]
    rows = MEGABYTES * density // TABLES
    for number in range(TABLES):
        words = fill.format(number=number, first=number * rows + 1, last=(number + 1) * rows)
        server.script(f"{words} ALTER TABLE t{number} ADD PRIMARY KEY (id);", database=DATABASE)
    server.sql("VACUUM ANALYZE", database=DATABASE)
    server.sql("CHECKPOINT")
    return int(server.sql(f"SELECT pg_database_size('{DATABASE}')")[0][0])


def pg_dump(server: PostgreSQL, folder: Path) -> int:
    """The peer, by the same socket: bytes of its file."""
    argv = [str(server.bin_dir / "pg_dump"), "-h", str(server.socket), "-p", str(server.port), "-U", server.user]
    target = folder / "peer.dump"
    subprocess.run(
        [*argv, "-Fc", "-f", str(target), DATABASE], env={**os.environ, "PGPASSWORD": server.password}, check=True
    )
    size = target.stat().st_size
    target.unlink()
    return size


def one_stream(server: PostgreSQL, folder: Path) -> int:
    """db_backup with one pg_dump, so that what the others bring can be seen."""
    return ours(server, folder, jobs=1)


def ours(server: PostgreSQL, folder: Path, jobs: int = 2) -> int:
    """db_backup with its defaults, as a process of its own: bytes of what lies in the folder afterwards."""
    place = folder / "ours"
    login = {key: value for key, value in server.login().items() if key != "login_host"}
    login["login_unix_socket"] = str(server.socket)
    options = {**login, "databases": [DATABASE], "journal": "none", "backup_dir": str(place)}
    options["jobs"] = jobs
    found: dict[str, Any] = run("db_backup", {**options, "bin_dir": str(server.bin_dir)}).result
    if found["summary"]["failed"] or found["summary"]["done"] != 4:
        sys.exit(f"db_backup did not do its work: {found}")
    size = sum(path.stat().st_size for path in place.rglob("*.dump*"))
    shutil.rmtree(place)
    return size


def computing(server: PostgreSQL) -> float:
    """Processor seconds of the server, its children that have ended included, and of all programs that we ran."""
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    ticks = sum(int(field) for field in fields[11:15])
    return ticks / os.sysconf("SC_CLK_TCK") + used.ru_utime + used.ru_stime


def measure(server: PostgreSQL, kind: str, folder: Path) -> None:
    """Interleaved rounds; medians."""
    size = make(server, kind)
    sides = {"pg_dump -Fc": pg_dump, "db_backup": ours, "db_backup, jobs: 1": one_stream}
    took: dict[str, list[float]] = {side: [] for side in sides}
    computed: dict[str, list[float]] = {side: [] for side in sides}
    bytes_of: dict[str, int] = {}
    for number in range(ROUNDS):
        for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
            began, before = time.monotonic(), computing(server)
            bytes_of[side] = sides[side](server, folder)
            took[side].append(time.monotonic() - began)
            time.sleep(0.3)  # the server counts what its processes have computed once they have ended
            computed[side].append(computing(server) - before)
            said = f"{took[side][-1]:.1f} s, {computed[side][-1]:.1f} s of CPU, {bytes_of[side]:,} bytes"
            print(f"  {kind}, {side}: {said}", flush=True)
    theirs, mine, alone = (statistics.median(took[side]) for side in sides)
    cpu = [statistics.median(computed[side]) for side in sides]
    of_size = bytes_of["db_backup"] / bytes_of["pg_dump -Fc"]
    print(
        f"PostgreSQL {server.version}, {kind}, {size / 2**30:.2f} GB: {theirs / mine:.2f} times faster than pg_dump -Fc"
        f" ({mine:.1f} s and {theirs:.1f} s, {theirs / alone:.2f} times with jobs: 1) at {of_size:.2f} times its size;"
        f" {cpu[1]:.1f} s and {cpu[0]:.1f} s of CPU, {cpu[2]:.1f} s with jobs: 1; largest process"
        f" {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB",
        flush=True,
    )
    server.sql(f"DROP DATABASE {DATABASE} WITH (FORCE)")


def main() -> None:
    with Fleet() as fleet, tempfile.TemporaryDirectory(prefix="bench-") as name:
        server = fleet.postgresql(MAJOR, settings={**SETTINGS, "log_statement": "none"})
        for kind in DATA:
            measure(server, kind, Path(name))


if __name__ == "__main__":
    main()
