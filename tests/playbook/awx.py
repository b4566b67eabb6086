# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for AWX's HTTP API: remembers what is made, and refuses what AWX would. It runs no job.

As far as the modules of awx.awx go: look-ups by name, POST, PATCH, DELETE, associations, surveys, approval nodes.
Source: awx/api of AWX 24.6, and https://ansible.readthedocs.io/projects/awx/en/24.6.1/rest_api/api_ref.html.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import yaml

TOKEN = "a token of the tests"
ENCRYPTED = "$encrypted$"
Item = dict[str, Any]


class Kind(NamedTuple):
    """A resource: its type, and its fields with their defaults. A field in `refers` holds the id of another."""

    type: str
    fields: Item
    refers: dict[str, str]


def _kinds() -> dict[str, Kind]:
    known = yaml.safe_load(Path(__file__).with_name("awx_fields.yml").read_text(encoding="utf-8"))
    made = {}
    for name, found in known.items():
        refers = found.get("refers", {})
        made[name] = Kind(found["type"], {**dict.fromkeys(refers), **found.get("fields", {})}, refers)
    return made


KINDS = _kinds()
UNIFIED = ("job_templates", "workflow_job_templates", "projects", "inventory_sources", "workflow_approval_templates")
READ_ONLY = ("id", "type", "url", "related", "summary_fields")
QUESTION = {"question_name", "question_description", "required", "type", "variable"}
TYPES = {"text", "textarea", "password", "multiplechoice", "multiselect", "integer", "float"}


class Refused(Exception):
    """An answer with another status than 2xx."""

    def __init__(self, status: int, answer: Item) -> None:
        super().__init__(f"{status} {answer}")
        self.status, self.answer = status, answer


class Awx:
    """What it holds. `project` is what git would bring: playbooks and inventories that templates may name."""

    def __init__(self, project: Path) -> None:
        self.project = project
        self.items: dict[str, dict[int, Item]] = {name: {} for name in KINDS}
        self.surveys: dict[int, Item] = {}
        self.links: dict[tuple[str, int, str], list[int]] = {}
        self.secrets: dict[int, Item] = {}
        self.writes: list[tuple[str, str, Any]] = []
        self.unknown: list[tuple[str, str]] = []
        self._next = 0
        self.lock = threading.Lock()

    # ---- what tests ask ----------------------------------------------------------------------------------------------

    def named(self, endpoint: str) -> dict[str, Item]:
        """By name."""
        return {item["name"]: item for item in self.items[endpoint].values()}

    def linked(self, endpoint: str, item: Item, association: str) -> list[int]:
        """The ids of what is associated with it."""
        return self.links.get((endpoint, item["id"], association), [])

    # ---- requests ----------------------------------------------------------------------------------------------------

    def answer(self, method: str, path: str, query: Mapping[str, str], data: Item) -> tuple[int, Any]:
        """The status and the answer of a request below /api/v2/."""
        if method != "GET":
            self.writes.append((method, path, data))
        endpoint, *rest = path.strip("/").split("/")
        if endpoint == "unified_job_templates":
            return 200, self._found([x for name in UNIFIED for x in self.items[name].values()], query)
        if endpoint not in KINDS:
            raise Refused(404, {"detail": f"no {endpoint}"})
        if not rest:
            return self._list(method, endpoint, query, data)
        item = self.items[endpoint].get(int(rest[0]))
        if item is None:
            raise Refused(404, {"detail": "Not found."})
        if len(rest) == 1:
            return self._item(method, endpoint, item, data)
        if rest[1] == "survey_spec":
            return self._survey(method, item, data)
        if rest[1] == "create_approval_template":
            return self._approval(item, data)
        return self._association(method, (endpoint, item["id"], rest[1]), data)

    def _found(self, items: list[Item], query: Mapping[str, str]) -> Item:
        kept = [x for x in items if all(_fits(x, key, value) for key, value in query.items())]
        return {"count": len(kept), "next": None, "results": kept}

    def _list(self, method: str, endpoint: str, query: Mapping[str, str], data: Item) -> tuple[int, Any]:
        if method == "GET":
            return 200, self._found(list(self.items[endpoint].values()), query)
        return 201, self.make(endpoint, **data)

    def _item(self, method: str, endpoint: str, item: Item, data: Item) -> tuple[int, Any]:
        if method == "PATCH":
            self._write(endpoint, item, data)
        elif method == "DELETE":
            del self.items[endpoint][item["id"]]
            return 204, None
        return 200, item

    def make(self, endpoint: str, **data: Any) -> Item:
        """A new one, after the checks that AWX makes."""
        kind = KINDS[endpoint]
        self._next += 1
        url = f"/api/v2/{endpoint}/{self._next}/"
        related = {"survey_spec": f"{url}survey_spec/"} if "survey_enabled" in kind.fields else {}
        item: Item = {"id": self._next, "type": kind.type, "url": url, "related": related, "summary_fields": {}}
        item |= {"name": "", "description": "", **kind.fields}
        if endpoint == "workflow_job_template_nodes":
            del item["name"]
        self._write(endpoint, item, data)
        if endpoint == "projects":
            item["scm_revision"] = "0" * 40
            item["summary_fields"] = {"current_update": {"id": self.make("project_updates", name="sync")["id"]}}
        self.items[endpoint][item["id"]] = item
        return item

    def _write(self, endpoint: str, item: Item, data: Item) -> None:
        kind = KINDS[endpoint]
        fields = {key: value for key, value in data.items() if key in item and key not in READ_ONLY}
        # Of a text nothing is an empty one.
        fields = {k: "" if x is None and isinstance(kind.fields.get(k), str) else x for k, x in fields.items()}
        self.unknown += [(endpoint, key) for key in data if key not in item]
        for field, other in kind.refers.items():
            number = fields.get(field)
            there = UNIFIED if other == "unified_job_templates" else (other,)
            if number is not None and not any(number in self.items[name] for name in there):
                raise Refused(400, {field: [f"Invalid pk {number!r}"]})
        made = {**item, **fields}
        self._check(endpoint, made)
        if endpoint == "credentials":
            self.secrets[item["id"]] = fields.get("inputs", {})
            fields = {**fields, **self._hidden(made)}
        item.update(fields)

    def _check(self, endpoint: str, made: Item) -> None:
        names = [x for x in self.items[endpoint].values() if x["id"] != made["id"]]
        if "name" in made and not made["name"]:
            raise Refused(400, {"name": ["This field may not be blank."]})
        scope = ("name", "organization", "inventory", "credential_type", "unified_job_template")
        same = [x for x in names if all(x.get(key) == made.get(key) for key in scope)]
        if "name" in made and same:
            raise Refused(400, {"__all__": [f"{endpoint} with this name already exists."]})
        if endpoint == "job_templates":
            self._check_playbook(made["playbook"])
            json.loads(made["extra_vars"] or "{}")
        if endpoint == "inventory_sources" and not (self.project / made["source_path"]).is_file():
            raise Refused(400, {"source_path": ["not in the project"]})
        if endpoint == "schedules":
            _check_rule(made["rrule"])

    def _check_playbook(self, name: str) -> None:
        """AWX lists files whose lines look like those of a playbook."""
        path = self.project / name
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        if not re.search(r"^\s*-?\s*(hosts|(\w+\.\w+\.)?import_playbook):", text, re.MULTILINE):
            raise Refused(400, {"playbook": ["Playbook not found for project."]})

    def _hidden(self, credential: Item) -> Item:
        known = self.items["credential_types"][credential["credential_type"]]["inputs"]
        fields = {field["id"]: field for field in known["fields"]}
        strange = set(credential["inputs"]) - set(fields)
        if strange or set(known.get("required", ())) - set(credential["inputs"]):
            raise Refused(400, {"inputs": [f"not as its type says: {strange}"]})
        shown = {key: ENCRYPTED if fields[key].get("secret") else x for key, x in credential["inputs"].items()}
        return {"inputs": shown}

    def _survey(self, method: str, item: Item, data: Item) -> tuple[int, Any]:
        if method == "POST":
            wrong = _wrong_survey(data)
            if wrong:
                raise Refused(400, {"error": wrong})
            self.surveys[item["id"]] = data
        elif method == "DELETE":
            self.surveys.pop(item["id"], None)
        return 200, self.surveys.get(item["id"], {}) if method == "GET" else {}

    def _approval(self, node: Item, data: Item) -> tuple[int, Any]:
        kept = {key: value for key, value in data.items() if key in ("name", "description", "timeout")}
        made = self.make("workflow_approval_templates", **kept)
        node["unified_job_template"] = made["id"]
        node["related"]["unified_job_template"] = made["url"]
        return 201, made

    def _association(self, method: str, key: tuple[str, int, str], data: Item) -> tuple[int, Any]:
        endpoint, owner, association = key
        there = self.links.setdefault(key, [])
        other = endpoint if association.endswith("_nodes") else association
        other = "notification_templates" if other.startswith("notification_templates") else other
        if method == "GET":
            return 200, self._found([self.items[other][number] for number in there], {})
        if data["id"] not in self.items[other]:
            raise Refused(400, {"detail": f"no {other} {data['id']}"})
        if data.get("disassociate"):
            there.remove(data["id"])
            return 204, None
        twice = [k for k, ids in self.links.items() if k[:2] == (endpoint, owner) and data["id"] in ids]
        if association.endswith("_nodes") and twice:
            raise Refused(400, {"detail": "Relationship not allowed."})
        there.append(data["id"])
        return 204, None


def _fits(item: Item, key: str, value: str) -> bool:
    """A filter of a list; those that go for either id or name are made by names that are numbers."""
    if key.startswith("or__"):
        return value in (str(item["id"]), item.get("name"))
    return str(item.get(key)) == value


def _check_rule(rule: str) -> None:
    """What AWX asks of a schedule's rule."""
    starts = re.findall(r"DTSTART(?:;TZID=[\w/]+:\d{8}T\d{6}|:\d{8}T\d{6}Z) ", rule)
    if len(starts) != 1 or rule.count("RRULE:") != 1 or "INTERVAL=" not in rule or "SECONDLY" in rule:
        raise Refused(400, {"rrule": [f"not valid: {rule}"]})


def _wrong_survey(survey: Item) -> str:
    if set(survey) != {"name", "description", "spec"} or not survey["spec"]:
        return "name, description and spec have to be there"
    for question in survey["spec"]:
        if QUESTION - set(question) or question["type"] not in TYPES or not question["question_name"]:
            return f"a question is not complete: {question}"
        if not all(isinstance(question[x], int) for x in ("min", "max") if question.get(x) is not None):
            return f"a limit is no number: {question}"
        if question["type"].startswith("multi") and not question.get("choices"):
            return f"a question has no choices: {question}"
    variables = [question["variable"] for question in survey["spec"]]
    return "" if len(set(variables)) == len(variables) else "a variable is there twice"


def answers(survey: Item, given: Mapping[str, Any]) -> Item:
    """The variables that AWX hands to a playbook for these answers: what its documentation says of optional ones."""
    made = {}
    for question in survey["spec"]:
        name = question["variable"]
        if given.get(name):
            made[name] = given[name]
        elif question["type"] in ("text", "textarea") and not question.get("min"):
            made[name] = ""
    return made


class Handler(BaseHTTPRequestHandler):
    """One request."""

    awx: Awx

    def log_message(self, *_words: Any) -> None:
        """Nowhere."""

    def handle_any(self) -> None:
        """Whatever the method."""
        url = urlsplit(self.path)
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refused(401, {"detail": "Authentication credentials were not provided."})
            with self.awx.lock:
                path, query = url.path.removeprefix("/api/v2"), dict(parse_qsl(url.query))
                status, answer = self.awx.answer(self.command, path, query, json.loads(raw or "{}"))
        except Refused as refused:
            status, answer = refused.status, refused.answer
        body = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("X-API-Product-Name", "AWX")
        self.send_header("X-API-Product-Version", "24.6.1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(awx: Awx) -> Iterator[str]:
    """The address at which it answers until this ends."""
    methods = {f"do_{method}": Handler.handle_any for method in ("GET", "POST", "PATCH", "DELETE")}
    handler = type("HandlerOfOne", (Handler,), {"awx": awx, **methods})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
