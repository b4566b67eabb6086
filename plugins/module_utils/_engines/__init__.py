# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where engines are opened: one line an engine, imported only when it is asked for."""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._protocols import Engine
from .._records import Execution


def open_engine(params: t.Mapping[str, t.Any], execution: Execution, name: str = "") -> Engine:
    """The engine that the option `engine` names, or the operation's own. Does not connect. Raises BadInput,

    MissingMeans.
    """
    name = name or params["engine"]
    if name == "postgresql":
        from .postgresql import PostgreSQL

        return PostgreSQL(params, execution)
    if name in ("mysql", "mariadb"):
        from .mysql import MySQL

        return MySQL(params, execution)
    if name == "sqlite":
        from .sqlite import SQLite

        return SQLite(params, execution)
    if name == "backups":
        from .backups import Backups

        return Backups(params, execution)
    if name == "data_directory":
        from .backups.data_directory import DataDirectory

        return DataDirectory(params, execution)
    raise BadInput(f"engine: {name!r} is not known", cure="Use postgresql, mysql, mariadb or sqlite")
