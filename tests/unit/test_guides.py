# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the guides below docs/docsite say is so: messages, variables, defaults, grants, references."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import advice_policy

ROOT = Path(__file__).parents[2]
RST = ROOT / "docs" / "docsite" / "rst"
GUIDES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(RST.glob("*.rst"))}
README = (ROOT / "README.md").read_text(encoding="utf-8")
PREFIX = "ansible_collections.dbfleet.maintenance.docsite."
each_guide = pytest.mark.parametrize("name", GUIDES)

# ---- messages --------------------------------------------------------------------------------------------------------

# Words of Ansible's, of servers', or of a result: explained, but not ours to choose.
STATUS = {"deferred", "skipped", "failed", "proven: false"}
ANSIBLES = {"Module result deserialization failed", 'Failed to find required executable "crontab"'}
NOT_OURS = {*STATUS, *ANSIBLES, "Connection refused", "no Python driver"}


def templates(tree: ast.AST) -> Iterator[str]:
    """Each text of a program as people see it: what is put in becomes `…`."""
    parts = {id(v) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = (v.value if isinstance(v, ast.Constant) else "…" for v in node.values)
            yield "".join(str(part) for part in said)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield re.sub(r"\{[a-z_]*\}", "…", node.value)


@cache
def messages() -> tuple[str, ...]:
    """Every text of plugins, but for their documentation; and playbooks, where some hints stand."""
    files = [path for path in (ROOT / "plugins").rglob("*.py") if path.parent.name not in ("modules", "doc_fragments")]
    found = {text for path in files for text in templates(ast.parse(path.read_text(encoding="utf-8")))}
    found |= {path.read_text(encoding="utf-8") for path in (ROOT / "playbooks").rglob("*.yml")}
    return tuple(text.replace("\\", "") for text in found)


def terms(text: str) -> list[str]:
    """What is explained on a page of messages: lines that are a literal, with something indented below."""
    return [found[1] for found in re.finditer(r"^``([^`]+)``[^\n]*\n  \S", text, re.MULTILINE)]


def is_said(term: str) -> bool:
    """Whether one message has all of it, in this order, and not something else in between."""
    like = re.compile(r".*?".join(re.escape(part.strip()) for part in term.split("…")))
    return any(like.search(text) for text in messages())


def test_the_messages_are_those_that_people_see() -> None:
    told = terms(GUIDES["guide_troubleshooting"])
    assert len(told) > 60
    assert [term for term in told if term not in NOT_OURS and not is_said(term)] == []


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert is_said("databases: there is no file …")
    assert not is_said("databases: there is no such file …")
    assert not is_said("there is no file … databases:")


def test_other_messages_on_the_page_are_said_too() -> None:
    """In the middle of a sentence: what has an ellipsis is a message, unless it is a command."""
    quoted = re.findall(r"``([^`\n]*…[^`\n]*)``", GUIDES["guide_troubleshooting"])
    assert [words for words in quoted if len(words) > 1 and not is_said(words)] == []


# ---- variables and defaults ------------------------------------------------------------------------------------------


@cache
def role_options() -> dict[str, dict[str, Any]]:
    """Options by the name of the role."""
    found = {}
    for path in sorted(ROOT.glob("roles/*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]["main"].get("options", {})
        found[path.parents[1].name] = spec
    return found


@cache
def variables() -> frozenset[str]:
    """What can be set: options of roles, and whatever playbooks and roles look at."""
    used = "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("playbooks/**/*.yml"))
    used += "".join(path.read_text(encoding="utf-8") for path in ROOT.glob("roles/*/*/*.yml"))
    used += (ROOT / "plugins" / "plugin_utils" / "_job.py").read_text(encoding="utf-8")  # for how tasks are followed
    words = set(re.findall(r"\b[a-z]+(?:_[a-z0-9]+)+\b", used))
    return frozenset(words | {name for spec in role_options().values() for name in spec})


def named(text: str) -> set[str]:
    """Whatever looks like a variable of ours: in literals, in YAML, behind -e. References are checked by their tool."""
    plain = re.sub(r":ans\w+:`[^`]*`|:ref:`[^`]*`|^\.\. _.*$", "", text, flags=re.MULTILINE)
    roles = "|".join(sorted(role_options()))
    return set(re.findall(rf"(?<![\w./])((?:db|maintenance|statistics|drill|{roles})_[a-z0-9_]*[a-z0-9])\b", plain))


@each_guide
def test_the_variables_are_there(name: str) -> None:
    modules = {path.stem for path in (ROOT / "plugins" / "modules").glob("db_*.py")}
    results = {f"{role}_result" for role in role_options()}
    facts = {"db_due", "db_stats", "db_bloat", "db_history"}
    assert named(GUIDES[name]) - modules - results - facts - set(role_options()) - variables() == set()


@pytest.mark.parametrize("name", ["guide_thresholds", "guide_alert"])
def test_the_defaults_are_as_said(name: str) -> None:
    told = re.findall(r"maintenance\.(\w+)#role:main:(\w+)(?:=([^`]*))?`", GUIDES[name])
    assert len(told) > 10
    for role, option, said in told:
        default = role_options()[role][option].get("default")
        assert said == ("" if default is None else f"{default}".removesuffix(".0")), option


def test_the_defaults_of_recommendations_are_as_said() -> None:
    told = dict(re.findall(r"db_stats_facts#module:(\w+)=([^`]*)`", GUIDES["guide_thresholds"]))
    have = {name: f"{option['default']}".removesuffix(".0") for name, option in advice_policy.OPTIONS.items()}
    assert told == have


# ---- grants ----------------------------------------------------------------------------------------------------------


def privileges() -> str:
    """What README.md says of them."""
    return README.partition("## Privileges")[2].partition("\n## ")[0]


def sql(text: str) -> list[str]:
    """Blocks of SQL without their indentation, each with the comment line that names it."""
    blocks = re.findall(r"^\.\. code-block:: sql\n\n((?:  .*\n|\n)+)", text, re.MULTILINE)
    return ["".join(line[2:] for line in block.splitlines(keepends=True)).strip() for block in blocks]


def test_the_grants_are_those_that_the_tests_run() -> None:
    """tests/integration/test_readme.py runs those of README.md on real servers."""
    wanted = [block.strip() for block in re.findall(r"^```sql\n(.*?)^```", privileges(), re.DOTALL | re.MULTILINE)]
    assert sorted(sql(GUIDES["guide_privileges"])) == sorted(wanted)
    assert len(wanted) == 7


def test_the_table_of_privileges_is_that_of_the_readme() -> None:
    lines = [line.strip("|") for line in privileges().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    table = GUIDES["guide_privileges"].partition(".. list-table::")[2].partition("\nBackups")[0]
    told = [re.findall(r"^(?:  \* -|    -)(.*)$", row, re.MULTILINE) for row in re.split(r"\n(?=  \* -)", table)]
    mine = [[cell.strip().replace("``", "`") for cell in row] for row in told[1:]]
    assert mine == [row + [""] * (5 - len(row)) for row in rows]


# ---- references ------------------------------------------------------------------------------------------------------


def test_every_guide_is_in_the_index_and_has_its_label() -> None:
    index = yaml.safe_load((RST.parent / "extra-docs.yml").read_text(encoding="utf-8"))
    assert sorted(name for section in index["sections"] for name in section["toctree"]) == sorted(GUIDES)
    for name, text in GUIDES.items():
        assert f"\n.. _{PREFIX}{name}:\n" in text


@each_guide
def test_references_lead_somewhere(name: str) -> None:
    """Those to plugins are antsibull-docs' business; these would be Sphinx's, which ./dev test does not run."""
    labels = {label for text in GUIDES.values() for label in re.findall(r"^\.\. _([^:]+):$", text, re.MULTILINE)}
    used = re.findall(r":ref:`[^<`]*<([^>]+)>`", GUIDES[name])
    assert set(used) - labels == set()
    assert len(used) == GUIDES[name].count(":ref:")


@each_guide
def test_pictures_are_there_and_small(name: str) -> None:
    for picture in re.findall(r"^\.\. (?:figure|image):: (\S+)$", GUIDES[name], re.MULTILINE):
        assert 0 < (RST / picture).stat().st_size < 150_000
