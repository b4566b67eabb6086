# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What README.md tells people to type: grants are enough, variables are there, archives are read back."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.demo import aging
from tests.fleet import Fleet, Missing, Server

from . import conftest
from .churn import churn
from .cleanup import digest, rows_of
from .conftest import Pool
from .module_runner import run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
ROLES = ("backup", "rotate_backups", "preflight", "cleanup", "vacuum", "reindex", "refresh_views")
ROLES_VARIABLE = r"`((?:backup|rotate_backups|cleanup|vacuum|reindex|refresh_views)_[a-z_]+)`"
OWNED = """
DO $$ DECLARE found record; BEGIN
  FOR found IN SELECT oid::regclass AS name FROM pg_class
                WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'm')
  LOOP EXECUTE 'ALTER TABLE ' || found.name || ' OWNER TO shop_owner'; END LOOP;
END $$
"""


def statements(title: str) -> str:
    """The SQL under a comment line of its own."""
    found = re.search(rf"^-- {title}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    assert found, f"README.md has no SQL for {title}"
    return found[1]


def shop(fleet: Fleet, product: str, fill: Callable[[Server, str], None] = churn) -> Server:
    """A server of its own, for the grants are for the whole of it, with a churned database that is somebody else's."""
    name, *major = product.split("-")
    try:
        server: Server = fleet.postgresql(int(major[0])) if major else getattr(fleet, name)()
    except Missing as why:
        conftest.missing(why)
    conftest.tested(f"{name} {server.version}")
    server.sql("CREATE DATABASE shop")
    fill(server, "shop")
    if name == "postgresql":
        server.sql("CREATE ROLE shop_owner")
        server.script(OWNED, database="shop")
    return server


@pytest.mark.parametrize(
    ("product", "title"),
    [
        ("postgresql-15", "postgresql 13"),
        ("postgresql-16", "postgresql 13"),
        ("postgresql-18", "postgresql 17"),
        ("mysql", "mysql"),
        ("mariadb", "mariadb"),
    ],
)
def test_the_grants_are_enough(fleet: Fleet, product: str, title: str) -> None:
    server = shop(fleet, product)
    server.script(statements(title))
    login = {**server.login(), "login_user": "maintenance", "login_password": "change me", "databases": ["shop"]}
    method = "exclusive" if server.engine == "postgresql" else "online"
    options = {**login, "journal": "none", "reclaim_min_size": "1MB", "reclaim_method": method}
    indexes = {"indexes": ["*"], "tables": ["orders"], "force": True, "assume_free_space": "100GB"}
    login["journal"] = "none"
    done = [
        run("db_vacuum", options).fact(),
        run("db_reindex", {**login, **indexes}).fact(),
        run("db_refresh_views", login).fact(),
    ]
    (stats,) = run("db_stats_facts", login).result["ansible_facts"].values()
    server.kill()
    steps = [step for fact in done for step in fact["steps"]]
    findings = [finding for fact in done for finding in fact["findings"]]
    views = {"refresh"} if server.engine == "postgresql" else set()
    assert {step["status"] for step in steps} == {"done"}, steps
    assert {"reclaim", "analyze", "reindex"} | views <= {step["kind"] for step in steps}
    findings += stats["findings"]
    assert [f for f in findings if "GRANT" in f"{f['message']} {f['fix']}"] == []
    assert [why for why in stats["unknown"].values() if "GRANT" in why] == []
    assert stats["indexes"]["bytes"] > 0
    assert stats["summary"]["indexes"] < 20  # the churned tables', none of the server's own


RULES = {
    "presets": ["django_sessions"],
    "rules": [aging.DELETED_ORDERS, aging.OLD_EVENTS],
}


@pytest.mark.parametrize(
    ("product", "titles"),
    [
        ("postgresql-18", ["postgresql 17", "postgresql cleanup"]),
        ("postgresql-16", ["postgresql 13", "postgresql cleanup"]),
        ("mysql", ["mysql", "mysql cleanup"]),
        ("mariadb", ["mariadb", "mysql cleanup"]),
    ],
)
def test_the_grants_of_cleanup_are_enough(fleet: Fleet, product: str, titles: list[str]) -> None:
    server = shop(fleet, product, aging.age)
    for title in titles:
        server.script(statements(title), database="shop")
    login = {**server.login(), "login_user": "maintenance", "login_password": "change me", "databases": ["shop"]}
    owner = product != "postgresql-18"
    if not owner:
        planned = run("db_cleanup", {**login, **RULES, "journal": "none"}, check=True).fact()
        assert {step["status"] for step in planned["steps"]} == {"planned"}
        assert "drop_partition" not in {step["kind"] for step in planned["steps"]}
        server.script(statements("postgresql partitions"), database="shop")
    done = run("db_cleanup", {**login, **RULES, "journal": "none"}).fact()
    server.kill()
    # A server may have analyzed a new archive before it is asked to.
    assert {s["status"] for s in done["steps"] if s["error"] != "no longer due"} == {"done"}, done["steps"]
    assert {"delete", "archive", "drop_partition", "analyze"} <= {step["kind"] for step in done["steps"]}
    assert [f for f in done["findings"] if f["priority"] < 3 or "GRANT" in f"{f['message']} {f['fix']}"] == []


def written(where: str) -> str:
    """A command under `Reading an archive back`."""
    text = README.partition("### Reading an archive back")[2].partition("\n###")[0]
    found = re.search(where, text, re.DOTALL)
    assert found, f"README.md does not say how: {where}"
    return found[1]


@pytest.mark.parametrize("product", ["postgresql-16", "mysql", "mariadb"])
def test_an_archive_is_read_back_as_said(
    pool: Pool, database: Callable[[Server], str], product: str, tmp_path: Path
) -> None:
    server = pool.get(product)
    name = database(server)
    aging.age(server, name)
    server.sql("UPDATE audit_log SET what = NULL WHERE id % 7 = 0", database=name)
    server.sql("UPDATE audit_log SET what = 'a \"quoted\", \\ and\nbroken line' WHERE id % 11 = 0", database=name)
    before = digest(rows_of(server, "audit_log", database=name))
    into = {"archive_dir": str(tmp_path), "archive_format": "csv", "archive_compression": "gzip"}
    rules: dict[str, Any] = {"presets": [{"name": "audit_log", **into}], "databases": [name], "journal": "none"}
    run("db_cleanup", {**server.login(), **rules})
    (file,) = tmp_path.glob("*.csv.gz")
    text = gzip.decompress(file.read_bytes())
    login: dict[str, Any] = {"host": server.host, "port": server.port, "user": server.user, "password": server.password}
    if server.engine == "postgresql":
        import psycopg2

        server.sql("CREATE TABLE audit_log_old (LIKE audit_log)", database=name)
        copy = written(r"psql shop -c '\\(copy[^']*)'")
        with psycopg2.connect(dbname=name, **login) as db:
            db.cursor().copy_expert(copy, BytesIO(text))
    else:
        import pymysql

        server.sql("CREATE TABLE audit_log_old LIKE audit_log", database=name)
        server.sql("SET GLOBAL local_infile = 1")
        plain = tmp_path / "plain.csv"
        plain.write_bytes(text)
        load = written(r"(LOAD DATA.*?);").replace("audit_log.csv", str(plain))
        with pymysql.connect(database=name, local_infile=True, autocommit=True, **login) as db:
            db.cursor().execute(load)
    assert digest(*(rows_of(server, table, database=name) for table in ("audit_log", "audit_log_old"))) == before


def test_the_variables_are_there() -> None:
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row[1])}
    known = set()
    for role in (*ROLES, "report"):
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        known |= set(spec["argument_specs"]["main"]["options"])
    used = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/**/*.yml"))
    used += (ROOT / "plugins/plugin_utils/_job.py").read_text(encoding="utf-8")
    for role in ROLES:
        used += (ROOT / f"roles/{role}/vars/main.yml").read_text(encoding="utf-8")
        used += (ROOT / f"roles/{role}/defaults/main.yml").read_text(encoding="utf-8")
    assert len(named) > 15
    assert {name for name in named if name not in known and not re.search(rf"\b{name}\b", used)} == set()


def test_the_defaults_are_as_said() -> None:
    options = {}
    for role in ROLES:
        spec = yaml.safe_load((ROOT / f"roles/{role}/meta/argument_specs.yml").read_text(encoding="utf-8"))
        options.update(spec["argument_specs"]["main"]["options"])
    table = README.partition("## Settings")[2].partition("\n## ")[0]
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        names = re.findall(ROLES_VARIABLE, cells[1]) if len(cells) > 2 else []
        said = re.findall(r"`([^`]+)`", cells[2]) if names else []
        if names and cells[2] == "none":
            assert all(options[name].get("default") in (None, [], {}) for name in names)
            continue
        for name, text in zip(names, said, strict=True):
            default = options[name]["default"]
            plain = f"{default}".lower() if isinstance(default, bool) else f"{default}".removesuffix(".0")
            assert text == (f"[{', '.join(default)}]" if isinstance(default, list) else plain)
