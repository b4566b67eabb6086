# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the documentation says is what the modules take: options, types, defaults, choices; and examples that work."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from ansible_collections.dbfleet.maintenance.plugins.module_utils import _facts
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import (
    advice,
    backup,
    bloat,
    history,
    refresh_views,
    reindex,
    restore,
    retention,
    rotation,
    vacuum,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._options import CONNECTION, EXECUTION, SELECTION
from ansible_collections.dbfleet.maintenance.plugins.modules import db_alert_state
from ansible_collections.dbfleet.maintenance.plugins.plugin_utils import _alert_options, _report_options

HERE = "ansible_collections.dbfleet.maintenance.plugins"
SHARED = {**CONNECTION, **SELECTION}
SPECS: dict[str, dict[str, Any]] = {
    "db_vacuum": {**SHARED, **EXECUTION, **vacuum.OPTIONS},
    "db_reindex": {**SHARED, **EXECUTION, **reindex.OPTIONS},
    "db_cleanup": {**SHARED, **EXECUTION, **retention.OPTIONS},
    "db_backup": {**SHARED, **EXECUTION, **backup.OPTIONS},
    "db_backup_rotate": {**SHARED, **EXECUTION, **rotation.OPTIONS},
    "db_restore": {**SHARED, **EXECUTION, **restore.OPTIONS},
    "db_refresh_views": {**SHARED, **EXECUTION, **refresh_views.OPTIONS},
    "db_bloat_facts": {**SHARED, **_facts.READING, **bloat.OPTIONS},
    "db_assess_facts": {**SHARED, **_facts.READING, **_facts.assess_options()},
    "db_stats_facts": {**SHARED, **_facts.READING, **advice.OPTIONS},
    "db_report": _report_options.OPTIONS,
    "db_alert": _alert_options.OPTIONS,
    "db_alert_state": db_alert_state.OPTIONS,
    "db_history_facts": {**SHARED, **_facts.READING, **history.OPTIONS},
}
# Connected to no database: what it has in common with others it says itself.
UNCONNECTED = ("db_alert", "db_alert_state", "db_report")
EVERY = sorted(path.stem for path in (Path(__file__).parents[2] / "plugins" / "modules").glob("db_*.py"))
MODULES = [name for name in EVERY if name not in UNCONNECTED]
each_module = pytest.mark.parametrize("name", MODULES)
each_of_all = pytest.mark.parametrize("name", EVERY)


def module(name: str) -> Any:
    return importlib.import_module(f"{HERE}.modules.{name}")


def fragment(name: str) -> dict[str, Any]:
    """A documentation fragment as Ansible finds it: `dbfleet.maintenance.execution.reading`."""
    parts = name.removeprefix("dbfleet.maintenance.").split(".")
    found = importlib.import_module(f"{HERE}.doc_fragments.{parts[0]}").ModuleDocFragment
    loaded: dict[str, Any] = yaml.safe_load(getattr(found, parts[1].upper() if parts[1:] else "DOCUMENTATION"))
    return loaded


def documented(name: str) -> dict[str, Any]:
    """Every option of a module, those of its fragments too; none of them twice."""
    own = yaml.safe_load(module(name).DOCUMENTATION)
    options: dict[str, Any] = dict(own.get("options") or {})
    for part in own.get("extends_documentation_fragment", ()):
        more = fragment(part).get("options") or {}
        assert not more.keys() & options.keys()
        options.update(more)
    return options


def facts_of(option: dict[str, Any], nested: str) -> dict[str, Any]:
    """What documentation and specification have to agree on."""
    kept = {k: option.get(k) for k in ("type", "elements", "default", "choices", "aliases")}
    kept["required"] = bool(option.get("required"))
    kept[nested] = {name: facts_of(inner, nested) for name, inner in (option.get(nested) or {}).items()}
    kept["inner"] = kept.pop(nested)
    return kept


def test_every_module_is_looked_at() -> None:
    assert sorted(SPECS) == EVERY


@each_of_all
def test_documented_options_are_those_that_the_module_takes(name: str) -> None:
    told = {option: facts_of(found, "suboptions") for option, found in documented(name).items()}
    taken = {option: facts_of(found, "options") for option, found in SPECS[name].items()}
    assert told == taken


@each_of_all
def test_every_option_is_described(name: str) -> None:
    def walk(options: dict[str, Any]) -> None:
        for option, found in options.items():
            words = found["description"]
            assert words, option
            assert all(isinstance(line, str) and line.rstrip().endswith(".") for line in words), (option, words)
            walk(found.get("suboptions") or {})

    walk(documented(name))


@each_of_all
def test_examples_are_accepted(name: str) -> None:
    tasks = yaml.safe_load(module(name).EXAMPLES)
    ours = [(key.rpartition(".")[2], given) for task in tasks for key, given in task.items() if "maintenance" in key]
    assert name in {called for called, _given in ours}
    for called, given in ours:
        result = ArgumentSpecValidator(SPECS[called]).validate(given)
        assert result.error_messages == []


@each_module
def test_secrets_are_marked_and_nothing_else_is(name: str) -> None:
    secret = {option for option, spec in SPECS[name].items() if spec.get("no_log")}
    drills = {"drill_password"} if "drill_on" in SPECS[name] else set()
    assert secret == {"login_password", *drills}


@each_module
def test_attributes_are_declared(name: str) -> None:
    own = yaml.safe_load(module(name).DOCUMENTATION)
    (part,) = [p for p in own["extends_documentation_fragment"] if ".attributes." in p]
    attributes = fragment(part)["attributes"]
    assert attributes.keys() >= {"check_mode", "diff_mode", "idempotent", "platform", "action_group"}
    assert part.endswith("facts" if name.endswith("_facts") else "action")


@pytest.mark.parametrize("name", UNCONNECTED)
def test_what_has_no_connection_declares_the_same_attributes_and_has_no_secret(name: str) -> None:
    attributes = yaml.safe_load(module(name).DOCUMENTATION)["attributes"]
    assert attributes.keys() == fragment("dbfleet.maintenance.attributes.action")["attributes"].keys()
    assert not any(spec.get("no_log") for spec in SPECS[name].values())


@each_module
def test_what_is_returned_is_documented_by_its_name(name: str) -> None:
    returned = yaml.safe_load(module(name).RETURN)
    facts = {"db_assess_facts": ["db_due", "db_stats"]}
    assert list(returned["ansible_facts"]["contains"]) == facts.get(name, [name.removesuffix("_facts")])


def test_options_inside_another_refer_to_their_neighbours_there() -> None:
    text = yaml.safe_dump(fragment("dbfleet.maintenance.vacuum.nested"))
    assert "O(vacuum.min_dead_rows)" in text
    assert "O(min_dead_rows)" not in text
