# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers for the tests: started once a session, one of each kind, and written down as tested. No test lives here."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from ansible_collections.dbfleet.maintenance.plugins.module_utils._backups import Bucket
from tests.fleet import Fleet, Missing, Server
from tests.fleet.bucket import Service
from tests.fleet.installations import postgresql_majors
from tests.playbook import KEEP_PACKED

from .matrix import taking_turns
from .module_runner import reap

IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}
POSTGRESQL = postgresql_majors()
# MariaDB with performance_schema, metadata locks among what it watches.
WATCHING = {"performance_schema": "ON", "performance_schema_instrument": "wait/lock/metadata/sql/mdl=ON"}


def pytest_configure(config: pytest.Config) -> None:
    """Many playbooks are run here, always with the same modules."""
    config.addinivalue_line("markers", "every_server: each case of it meets every server, whatever takes turns")
    os.environ.setdefault(KEEP_PACKED, "1")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cases take turns in meeting the servers where that is asked for."""
    if os.environ.get("DBFLEET_MATRIX") == "turns":
        items[:], others = taking_turns(items)
        config.hook.pytest_deselected(items=others)


def missing(why: object) -> NoReturn:
    """A server that is not there is a loud skip locally and a failure in CI."""
    if IN_CI:
        pytest.fail(f"a server is missing: {why}")
    pytest.skip(f"NOT TESTED, a server is missing: {why}")


def tested(line: str) -> None:
    """Writes down which server was really tested."""
    record = os.environ.get("DBFLEET_TESTED")
    if record:
        with Path(record).open("a", encoding="utf-8") as out:
            out.write(line + "\n")


class Pool:
    """One server of each kind for the whole session; tests make databases of their own on it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self._servers: dict[str, Server] = {}

    def get(self, key: str) -> Server:
        """`postgresql-16`, `mariadb`, `mariadb-watching`, `mysql`."""
        if key not in self._servers:
            try:
                self._servers[key] = self._start(key)
            except Missing as why:
                missing(why)
            tested(f"{key.partition('-')[0]} {self._servers[key].version}")
        return self._servers[key]

    def _start(self, key: str) -> Server:
        product, _dash, kind = key.partition("-")
        if product == "postgresql":
            return self.fleet.postgresql(int(kind), settings={"max_prepared_transactions": "10"})
        return self.fleet.mysql() if product == "mysql" else self.fleet.mariadb(settings=WATCHING if kind else None)


@pytest.fixture(scope="session")
def fleet() -> Iterator[Fleet]:
    """A fleet for servers that a test starts, stops or kills itself."""
    with Fleet() as it:
        yield it


@pytest.fixture(autouse=True)
def no_module_stays() -> Iterator[None]:
    """A module that a failing test started does not run on."""
    yield
    reap()


@pytest.fixture(scope="session")
def pool(fleet: Fleet) -> Pool:
    """The shared servers."""
    return Pool(fleet)


@pytest.fixture(params=[f"postgresql-{major}" for major in POSTGRESQL])
def postgresql(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """Each PostgreSQL in turn."""
    return pool.get(str(request.param))


@pytest.fixture(params=["mariadb", "mysql"])
def mysql(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """MariaDB and MySQL in turn."""
    return pool.get(str(request.param))


@pytest.fixture(params=["mysql", "mariadb", "mariadb-watching"])
def each(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """MariaDB as it comes, MariaDB with performance_schema, and MySQL."""
    return pool.get(str(request.param))


@pytest.fixture(params=["mysql", "mariadb-watching"])
def seeing(request: pytest.FixtureRequest, pool: Pool) -> Server:
    """Servers that tell who holds metadata locks."""
    return pool.get(str(request.param))


@pytest.fixture
def database() -> Iterator[Callable[[Server], str]]:
    """Makes a database of a name of its own on a server; dropped at the end."""
    made: list[tuple[Server, str]] = []

    def make(server: Server) -> str:
        name = f"t{os.getpid()}_{len(made)}_{os.urandom(3).hex()}"
        server.sql(f"CREATE DATABASE {name}")
        made.append((server, name))
        return name

    yield make
    for server, name in made:
        force = " WITH (FORCE)" if server.engine == "postgresql" else ""
        server.sql(f"DROP DATABASE IF EXISTS {name}{force}")


@pytest.fixture
def root() -> None:
    """For what nobody else can do at all; not being root is the same as a missing server."""
    if os.geteuid() != 0:
        why = "only root makes small file systems and becomes other users"
        if IN_CI:
            pytest.fail(why)
        pytest.skip(f"NOT TESTED, {why}")


@pytest.fixture
def lite(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a SQLite file."""
    tested(f"sqlite {sqlite3.sqlite_version}")

    def make(name: str = "shop.sqlite3") -> Path:
        return tmp_path / name

    return make


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """An S3 protocol server."""
    try:
        with Service() as found:
            yield found
    except Missing as why:
        missing(why)


@pytest.fixture
def bucket(service: Service) -> tuple[Any, str, Bucket]:
    """A client of the test's own, the name of a new bucket, and how our code reaches it."""
    name = f"bucket-{os.urandom(4).hex()}"
    service.client.create_bucket(Bucket=name)
    return service.client, name, Bucket(**service.options())
