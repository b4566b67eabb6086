# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The house's own rules, which no linter knows: which way imports run, and what has to exist beside what."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
UTILS = ROOT / "plugins" / "module_utils"
# Who must not know whom. What is not named here may be imported: records, units and other small tools.
FORBIDDEN = {
    "_operations": {"_engines", "_run", "_files", "_frame"},
    "_engines": {"_operations", "_run", "_frame"},
    "_run": {"_operations", "_engines", "_files", "_frame"},
    "_files": {"_operations", "_engines", "_run", "_frame"},
    **{
        shelf: {"_operations", "_engines", "_run", "_files", "_frame"}
        for shelf in ("_records", "_tasks", "_structure", "_health", "_errors", "_protocols")
    },
    "_units": {"_operations", "_engines", "_run", "_files", "_frame"},
    "_selection": {"_operations", "_engines", "_run", "_files", "_frame"},
}


def _imported_parts(path: Path) -> Iterator[str]:
    """The parts of module_utils that a file imports, at its top or inside a function."""
    package = path.relative_to(UTILS).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        names = (node.module or "").split(".") if node.module else []
        if node.level:
            # `from . import x` names its target last; `from ..x import y` names it in the middle.
            target = [*package[: len(package) - node.level + 1], *names] or [alias.name for alias in node.names]
            yield target[0]
        elif "module_utils" in names:
            rest = names[names.index("module_utils") + 1 :] or [alias.name for alias in node.names]
            yield rest[0]


def _files(part: str) -> list[Path]:
    single = UTILS / f"{part}.py"
    return [single] if single.is_file() else sorted((UTILS / part).rglob("*.py"))


@pytest.mark.parametrize("part", sorted(FORBIDDEN))
def test_imports_run_one_way(part: str) -> None:
    wrong = {
        f"{path.relative_to(ROOT)} imports {imported}"
        for path in _files(part)
        for imported in _imported_parts(path)
        if imported in FORBIDDEN[part]
    }
    assert not wrong


def test_the_rule_about_imports_reads_real_imports() -> None:
    assert "_records" in {part for path in _files("_operations") for part in _imported_parts(path)}


def test_the_action_group_holds_every_module() -> None:
    group = yaml.safe_load((ROOT / "meta" / "runtime.yml").read_text(encoding="utf-8"))["action_groups"]["all"]
    modules = [path.stem for path in (ROOT / "plugins" / "modules").glob("*.py") if path.stem != "__init__"]
    # Report and calls have no connection that defaults could be for.
    assert sorted(group) == sorted(set(modules) - {"db_report", "db_alert", "db_alert_state"})


def test_every_role_documents_its_options_and_itself() -> None:
    roles = [path for path in (ROOT / "roles").glob("*") if path.is_dir()]
    missing = [
        f"{role.name}/{name}"
        for role in roles
        for name in ("README.md", "meta/argument_specs.yml", "tasks/main.yml", "defaults/main.yml")
        if not (role / name).is_file() and not (role / name).with_suffix("").is_dir()
    ]
    assert not missing
