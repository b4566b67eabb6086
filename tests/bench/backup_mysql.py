# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""db_backup against `mariadb-dump | gzip` and mydumper: one database, hashed and read to its end. See README.md."""

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

from tests.fleet import Fleet, Server
from tests.integration.module_runner import run

MEGABYTES = int(os.environ.get("BENCH_MB", "1100"))
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))
DATABASE = "bench"
ROWS_A_MEGABYTE = 5_000
SETTINGS = {"innodb_buffer_pool_size": "2G", "general_log": "OFF", "max_binlog_size": "1G"}
COLUMNS = """
  id bigint PRIMARY KEY, customer int, at datetime, status varchar(12), amount decimal(12, 2), token char(32),
  note varchar(200), doc longtext CHECK (json_valid(doc)), KEY (at)"""
# The same kinds of values as in the PostgreSQL part.
VALUES = """
  SELECT seq, seq * 7919 % 50000, '2026-01-01' + INTERVAL seq * 7 SECOND,
         ELT(1 + seq % 5, 'new', 'paid', 'packed', 'sent', 'returned'), (seq * 104729 % 1000000) / 100, MD5(seq),
         CONCAT('Order ', seq, ' of customer ', seq * 7919 % 50000, ', it''s delivered to street ', seq * 31 % 997,
                ' in the ', ELT(1 + seq % 3, 'morning', 'afternoon', 'evening')),
         JSON_OBJECT('weight', seq % 300, 'carrier', CONCAT('c', seq % 7), 'fragile', seq % 2 = 0)"""


def make(server: Server) -> int:
    """A database of about that many megabytes, in four tables; its size in bytes."""
    server.sql(f"CREATE DATABASE {DATABASE}")
    rows = MEGABYTES * ROWS_A_MEGABYTE // 4
    for number in range(4):
        source = f"seq_{number * rows + 1}_to_{(number + 1) * rows}"
        server.script(
            f"SET sql_log_bin = 0; CREATE TABLE orders_{number} ({COLUMNS});"
            f"INSERT INTO orders_{number} {VALUES} FROM {source}; ANALYZE TABLE orders_{number};",
            database=DATABASE,
        )
    query = "SELECT SUM(DATA_LENGTH + INDEX_LENGTH) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'bench'"
    return int(float(server.sql(query)[0][0]))


class Sides:
    """Each writes one backup and says how large it is."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        self.login = folder / "login.cnf"
        self.login.touch(mode=0o600)
        words = (
            f"user={server.user}\npassword={server.password}\nhost={server.host}\nport={server.port}\nprotocol=tcp\n"
        )
        self.login.write_text(f"[client]\n{words}[mydumper]\n{words.replace('protocol=tcp', '')}")

    def gzip(self) -> int:
        """As most people have it in their cron."""
        target, words = self.folder / "peer.sql.gz", "--single-transaction --quick --routines --events --triggers"
        pipe = f"mariadb-dump --defaults-file={self.login} {words} {DATABASE} | gzip > {target}"
        subprocess.run(["bash", "-o", "pipefail", "-c", pipe], check=True)
        return target.stat().st_size

    def mydumper(self, *more: str) -> int:
        place = self.folder / "mydumper"
        shutil.rmtree(place, ignore_errors=True)
        where = [
            "-h",
            self.server.host,
            "-P",
            str(self.server.port),
            "-u",
            self.server.user,
            "-p",
            self.server.password,
        ]
        argv = ["mydumper", *where, "-B", DATABASE, "-o", str(place), "-G", "-E", "-R", "-t", "2", *more]
        subprocess.run([*argv, "--trx-consistency-only"], check=True, stderr=subprocess.DEVNULL)
        return sum(path.stat().st_size for path in place.iterdir())

    def packed(self) -> int:
        return self.mydumper("-c")

    def ours(self, **more: Any) -> int:
        """db_backup with its defaults, as a process of its own: hashed, and read again to its end."""
        place = self.folder / "ours"
        shutil.rmtree(place, ignore_errors=True)
        options = {**self.server.login(), "engine": "mariadb", "databases": [DATABASE], "journal": "none", **more}
        found: dict[str, Any] = run("db_backup", {**options, "backup_dir": str(place), "globals": False}).result
        if found["summary"]["failed"] or not found["summary"]["done"]:
            sys.exit(f"db_backup did not do its work: {found}")
        return sum(path.stat().st_size for path in place.rglob("*.sql*"))

    def checksum(self) -> int:
        """Read again and hashed, not parsed: what no peer does either."""
        return self.ours(verify="checksum")

    def plain(self) -> int:
        """As a mydumper that packs nothing, but hashed, and hashed again from the disk."""
        return self.ours(verify="checksum", compression="none")

    def single(self) -> int:
        """One mariadb-dump, as before there were several streams."""
        return self.ours(jobs=1)


def computing(server: Server) -> float:
    """Seconds of computing of everybody until now: what was started here and has ended, and the server."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    fields = Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return ended.ru_utime + ended.ru_stime + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Interleaved rounds; medians."""
    with Fleet() as fleet, tempfile.TemporaryDirectory(prefix="bench-") as name:
        server = fleet.mariadb(settings=SETTINGS)
        size, it = make(server), Sides(server, Path(name))
        sides = {
            "db_backup": it.ours,
            "db_backup jobs: 1": it.single,
            "db_backup verify: checksum": it.checksum,
            "db_backup verify: checksum, compression: none": it.plain,
            "mariadb-dump | gzip": it.gzip,
        }
        if shutil.which("mydumper"):
            sides.update({"mydumper -t2 -c": it.packed, "mydumper -t2, nothing packed": it.mydumper})
        else:
            print("mydumper is not there: not compared (Debian's package mydumper)")
        took: dict[str, list[float]] = {side: [] for side in sides}
        computed: dict[str, list[float]] = {side: [] for side in sides}
        bytes_of: dict[str, int] = {}
        for number in range(ROUNDS):
            for side in list(sides)[:: 1 if number % 2 == 0 else -1]:
                began, before = time.monotonic(), computing(server)
                bytes_of[side] = sides[side]()
                took[side].append(time.monotonic() - began)
                computed[side].append(computing(server) - before)
        mine, ours = statistics.median(took["db_backup"]), statistics.median(computed["db_backup"])
        load = " ".join(f"{each:.1f}" for each in os.getloadavg())
        what = f"MariaDB {server.version}, {size / 2**30:.2f} GB, {ROUNDS} rounds"
        print(f"{what}, two at a time where it can be; load {load}")
        for side, seconds in took.items():
            median, cpu = statistics.median(seconds), statistics.median(computed[side])
            print(
                f"  {side}: {median:.1f} s, {cpu:.1f} s of computing, {bytes_of[side]:,} bytes;"
                f" db_backup takes {mine / median:.2f} of its time, {ours / cpu:.2f} of its computing"
            )
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        print(f"  largest process: {peak:.0f} MB")


if __name__ == "__main__":
    main()
