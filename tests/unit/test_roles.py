# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One spec an operation: a role's variables are its modules' options, under its own name and with the same defaults."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from jinja2.nativetypes import NativeEnvironment

from ansible_collections.dbfleet.maintenance.plugins.module_utils._facts import READING
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import (
    backup,
    preflight,
    refresh_views,
    reindex,
    retention,
    rotation,
    vacuum,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._options import CONNECTION, EXECUTION, SELECTION
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _report_options

ROOT = Path(__file__).parents[2]
OMITTED = object()
# The role knows where, if nobody says it.
REPORT = {**_report_options.OPTIONS, "path": {"type": "str", "default": "./dbfleet-report.html"}}


class Role(NamedTuple):
    """A role and the options that it takes, those of the operation apart from those that serve all operations."""

    name: str
    operation: dict[str, Any]
    execution: dict[str, Any]

    def variable(self, option: str) -> str:
        """The role's name stands in front once."""
        return option if option.startswith(f"{self.name}_") else f"{self.name}_{option}"

    @property
    def options(self) -> dict[str, Any]:
        """By variable."""
        return {self.variable(option): spec for option, spec in {**self.operation, **self.execution}.items()}

    def read(self, name: str) -> Any:
        """A YAML file of the role."""
        return yaml.safe_load((ROOT / "roles" / self.name / name).read_text(encoding="utf-8"))


ROLES = [
    Role("vacuum", vacuum.OPTIONS, EXECUTION),
    Role("reindex", reindex.OPTIONS, EXECUTION),
    Role("refresh_views", refresh_views.OPTIONS, EXECUTION),
    Role("cleanup", retention.OPTIONS, EXECUTION),
    Role("backup", backup.OPTIONS, EXECUTION),
    Role("rotate_backups", rotation.OPTIONS, EXECUTION),
    Role("preflight", preflight.OPTIONS, {}),
    Role("report", REPORT, {}),
]
each_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)


def _values(texts: dict[str, Any], **variables: Any) -> dict[str, Any]:
    """What Ansible makes of variables that may be templates of other variables; what is omitted is left out."""
    known = {**variables, "omit": OMITTED}
    made = {
        name: NativeEnvironment().from_string(text).render(known) if isinstance(text, str) and "{{" in text else text
        for name, text in texts.items()
    }
    return {name: value for name, value in made.items() if value is not OMITTED}


def _made(found: Any, **variables: Any) -> dict[str, Any]:
    """As _values, also of one template that makes the whole dictionary."""
    if not isinstance(found, str):
        return _values(found, **variables)
    (made,) = _values({"dictionary": found}, **variables).values()
    return {name: value for name, value in made.items() if value is not OMITTED}


@each_role
def test_argument_specs_are_the_options(role: Role) -> None:
    specified = role.read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]
    _take_descriptions(specified)
    assert specified == {
        name: {key: value for key, value in spec.items() if value is not None} for name, spec in role.options.items()
    }


def _take_descriptions(options: dict[str, Any]) -> None:
    """Away, and none may be missing."""
    for spec in options.values():
        assert spec.pop("description")
        _take_descriptions(spec.get("options", {}))


@each_role
def test_defaults_are_the_options_defaults(role: Role) -> None:
    wanted = {name: spec["default"] for name, spec in role.options.items() if spec.get("default") is not None}
    assert _values(role.read("defaults/main.yml")) == wanted


def _dictionaries(role: Role) -> dict[str, dict[str, Any]]:
    """What the role hands to its module, and the options that are in it."""
    found = {f"{role.name}_policy": role.operation, f"{role.name}_execution": role.execution}
    return {name: options for name, options in found.items() if options}


@each_role
def test_the_module_gets_every_option_and_leaves_out_what_has_no_default(role: Role) -> None:
    defaults = _values(role.read("defaults/main.yml"))
    handed = {name: found for name, found in role.read("vars/main.yml").items() if name in _dictionaries(role)}
    assert handed.keys() == _dictionaries(role).keys()
    for name, options in _dictionaries(role).items():
        assert _made(handed[name], **{role.variable(option): 1 for option in options}).keys() == options.keys()
        wanted = {option: defaults[role.variable(option)] for option in options if role.variable(option) in defaults}
        assert _made(handed[name], **defaults) == wanted


@each_role
def test_what_serves_all_operations_is_given_once(role: Role) -> None:
    given = {f"maintenance_{option}": object() for option in role.execution}
    defaults = _values(role.read("defaults/main.yml"), **given)
    handed = _values(role.read("vars/main.yml").get(f"{role.name}_execution", {}), **{**given, **defaults})
    assert handed == {option: given[f"maintenance_{option}"] for option in role.execution}


@each_role
def test_the_roles_own_variables_win(role: Role) -> None:
    own = {name: object() for name in role.options}
    given = {f"maintenance_{option}": object() for option in {**role.operation, **role.execution}}
    handed = role.read("vars/main.yml")
    for name, options in _dictionaries(role).items():
        made = _made(handed[name], **{**given, **own})
        assert made == {option: own[role.variable(option)] for option in options}


def test_the_connection_is_what_every_module_takes() -> None:
    first, *_others = yaml.safe_load((ROOT / "playbooks/maintenance.yml").read_text(encoding="utf-8"))
    options = {**CONNECTION, **SELECTION, **READING}.keys()
    variables = {name: f"maintenance_{name}" if name in READING else f"db_{name}" for name in options}
    given = {variable: object() for variable in variables.values()}
    made = _made(first["vars"]["dbfleet_connection"], **given)
    assert made == {name: given[variable] for name, variable in variables.items()}
    assert _made(first["vars"]["dbfleet_connection"], db_engine="sqlite") == {"engine": "sqlite"}


@pytest.mark.parametrize("folder", ["defaults", "vars"])
def test_the_policies_are_those_of_all_roles_that_an_assessment_takes(folder: str) -> None:
    shown = {path.stem: path for path in (ROOT / "roles/policies" / folder / "main").iterdir()}
    first, *_others = yaml.safe_load((ROOT / "playbooks/maintenance.yml").read_text(encoding="utf-8"))
    (assess,) = (task["block"][0] for task in first["tasks"] if "block" in task)
    taken = re.findall(r"\b(\w+)_policy\b", str(assess["dbfleet.maintenance.db_assess_facts"]))
    assert shown.keys() == {*taken} - {"statistics"}  # it has no role: its variables are the play's
    assert {name: path.resolve() for name, path in shown.items()} == {
        name: ROOT / "roles" / name / folder / "main.yml" for name in shown
    }
    assert all(path.is_symlink() and not path.readlink().is_absolute() for path in shown.values())
