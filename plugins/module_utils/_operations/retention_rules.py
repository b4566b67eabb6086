# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of cleanup as users give them: read, checked, and cut into stages. What is due is retention.py's."""

from __future__ import annotations

import os
import typing as t
from collections import Counter
from datetime import datetime, timedelta, timezone

from .._errors import BadInput
from .._retention import Archive, Expiry, Sought
from .._selection import Patterns
from .._tuples import NamedTuple
from .._units import duration, percentage, size
from .retention_options import RULE

LONGEST = 1000 * 366 * 86400.0  # seconds: calendars of databases and of Python begin with the year 1
LONGEST_BITE = 60.0  # seconds
LEAST_DUTY = 1.0  # percent
# A manifest says of a calendar day when it began; until it has ended, wherever that is, its rows are not old enough.
A_DAY = timedelta(hours=25)


class Rule(NamedTuple):
    name: str
    table: str
    column: str
    archive_after: float | None = None  # seconds
    delete_after: float | None = None
    where: str = ""
    unit: str = ""
    zone: str = "UTC"
    archive: Archive | None = None
    rows_per_run: int | None = None
    refuse_over_rows: int | None = None
    refuse_over_percent: float = 50.0
    on_children: str = "fail"
    database: str = ""
    optional: bool = False  # a table that is nowhere is no news

    @property
    def lasting(self) -> tuple[t.Any, ...]:
        """What rules that share an archive table have to agree on: it is cleaned by age alone."""
        return (self.delete_after, self.column, self.unit, self.zone, self.database)


class Policy(NamedTuple):
    relations: Patterns  # the option `tables`: rules of other tables rest
    rules: tuple[Rule, ...]
    partitions: bool
    batch_seconds: float
    require_backup: float | None
    max_snapshot_age: float | None
    max_wal_backlog: int | None
    max_replica_lag: float | None
    count_timeout: float | None  # of the assessment: rows may be unknown there
    duty: float = 1.0  # the share of the time in which bites work
    backup_dir: str = ""  # whose manifests say when there was a backup; else the journal does


class Stage(NamedTuple):
    """One thing that a rule does: it deletes, it archives, or it cleans the archive table."""

    rule: Rule
    sought: Sought
    age: float  # seconds: rows older than this are due
    of_archive: bool = False


# ---- options ---------------------------------------------------------------------------------------------------------


def policy(params: t.Mapping[str, t.Any]) -> Policy:
    """The user's options, checked and typed. Raises BadInput."""
    lag, timeout = params.get("max_replica_lag"), params.get("count_timeout")
    seconds = params["batch_seconds"]
    if not 0 < seconds <= LONGEST_BITE:
        raise BadInput(f"batch_seconds: {seconds:g} is out of range", cure=f"Give seconds up to {LONGEST_BITE:g}")
    duty = percentage(params["duty_percent"], "duty_percent")
    if duty < LEAST_DUTY:
        raise BadInput(f"duty_percent: {duty:g} is out of range", cure=f"Give {LEAST_DUTY:g} to 100")
    return Policy(
        relations=Patterns(["*"] if params.get("tables") is None else params["tables"], "tables"),
        rules=_chosen(params),
        partitions=params["partitions"] == "auto",
        batch_seconds=seconds,
        require_backup=_age(params, "require_backup"),
        max_snapshot_age=_age(params, "max_snapshot_age"),
        max_wal_backlog=None
        if params.get("max_wal_backlog") is None
        else size(params["max_wal_backlog"], "max_wal_backlog"),
        max_replica_lag=None if lag is None else duration(lag, "max_replica_lag"),
        count_timeout=None if timeout is None else duration(timeout, "count_timeout"),
        duty=duty / 100,
        backup_dir=_backup_dir(params),
    )


def _backup_dir(params: t.Mapping[str, t.Any]) -> str:
    """Looked into only where a backup is required."""
    if not params.get("backup_dir") or params.get("require_backup") is None:
        return ""
    from .backup_options import folder_of

    return folder_of(params["backup_dir"], "backup_dir")


def _age(given: t.Mapping[str, t.Any], option: str, where: str = "") -> float | None:
    if given.get(option) is None:
        return None
    found = duration(given[option], where + option)
    if found > LONGEST:
        raise BadInput(f"{where}{option}: {given[option]} lies before every calendar", cure="Give a shorter time")
    return found


def _chosen(params: t.Mapping[str, t.Any]) -> tuple[Rule, ...]:
    """The rules that run: all that are enabled, or those that `only` names."""
    given = list(_given(params))
    names = [str(fields.get("name")) for where, fields, optional in given]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"rules: {', '.join(twice)} is there more than once", cure="Give each rule a name of its own")
    only, override = [str(name) for name in params.get("only") or ()], dict(params.get("override") or {})
    unknown = [name for name in only if name not in names]
    if unknown:
        known = ", ".join(names) or "none; presets have to be named in the option presets"
        raise BadInput(f"only: there is no rule {', '.join(unknown)}", cure=f"There are: {known}")
    if override and not only:
        raise BadInput("override is given without only", cure="Name the rules that it is meant for in the option only")
    if "name" in override:
        raise BadInput("override: a rule keeps its name", cure="Leave name out")
    rules = []
    for where, fields, optional in given:
        named = fields.get("name") in only
        checked = validated({**fields, **override} if named else fields, where)
        if named or (checked["enabled"] and not only):
            # A table that is named for this run is meant to be there.
            rules.append(_rule(checked, where, optional and not (named and "table" in override)))
    _sharing(rules)
    return tuple(rules)


def _given(params: t.Mapping[str, t.Any]) -> t.Iterator[tuple[str, dict[str, t.Any], bool]]:
    """Where a rule stands, for errors; its fields; whether its table may be missing everywhere."""
    for fields in params.get("rules") or ():
        yield f"rule {fields.get('name')}: ", dict(fields), False
    if params.get("presets"):
        from .presets import preset

        for entry in params["presets"]:
            fields, optional = preset(entry)
            yield f"preset {fields.get('name')}: ", fields, optional


def validated(fields: t.Mapping[str, t.Any], where: str) -> dict[str, t.Any]:
    """The fields of a rule with their types and defaults, as Ansible checks options. Raises BadInput."""
    from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

    # What is null is not given: required fields are missed then, and defaults hold.
    result = ArgumentSpecValidator(RULE).validate({k: v for k, v in fields.items() if v is not None})
    if result.error_messages:
        raise BadInput(where + "; ".join(result.error_messages), cure="See the documentation of the option rules")
    checked: dict[str, t.Any] = result.validated_parameters
    return checked


# ---- one rule --------------------------------------------------------------------------------------------------------


def _rule(given: t.Mapping[str, t.Any], where: str, optional: bool) -> Rule:
    for option in ("name", "table", "date_column", "where", "archive_table", "archive_dir", "database", "timezone"):
        _text(given, option, where)
    for option in ("rows_per_run", "refuse_over_rows"):
        if given.get(option) is not None and given[option] < 1:
            raise BadInput(f"{where}{option}: {given[option]} would let no row leave", cure="Give at least 1")
    archive_after, delete_after = _age(given, "archive_after", where), _age(given, "delete_after", where)
    _ages(given, archive_after, delete_after, where)
    _zone(given["timezone"], where)
    return Rule(
        name=given["name"],
        table=given["table"],
        column=given["date_column"],
        archive_after=archive_after,
        delete_after=delete_after,
        where=given.get("where") or "",
        unit=given.get("date_unit") or "",
        zone=given["timezone"],
        archive=_archive(given, where),
        rows_per_run=given.get("rows_per_run"),
        refuse_over_rows=given.get("refuse_over_rows"),
        refuse_over_percent=percentage(given["refuse_over_percent"], where + "refuse_over_percent", zero=False),
        on_children=given["on_children"],
        database=given.get("database") or "",
        optional=optional,
    )


def _text(given: t.Mapping[str, t.Any], option: str, where: str) -> None:
    """A condition that a template left empty would take every row; a name with a line break is none."""
    text = given.get(option)
    if text is None:
        return
    if not text.strip():
        raise BadInput(f"{where}{option} is empty", cure="Fill it, or leave it out")
    if "\0" in text:
        raise BadInput(f"{where}{option} has a NUL character", cure="Write it without")
    if option == "name" and (text != text.strip() or not text.isprintable()):
        raise BadInput(f"{where}name: {text!r} has white space around it, or signs that nobody sees", cure="Mend it")


def _ages(given: t.Mapping[str, t.Any], archive: float | None, delete: float | None, where: str) -> None:
    if archive is None and delete is None:
        raise BadInput(f"{where}no row would ever leave", cure="Give delete_after, archive_after or both")
    if archive is not None and delete is not None and archive >= delete:
        raise BadInput(
            f"{where}archive_after {given['archive_after']} is not shorter than delete_after {given['delete_after']}",
            cure="Rows go into the archive at the first age and leave it at the second; nothing would be archived",
        )


def _archive(given: t.Mapping[str, t.Any], where: str) -> Archive | None:
    table, folder = given.get("archive_table"), given.get("archive_dir")
    if given.get("archive_after") is None:
        named = next((o for o in ("archive_table", "archive_dir") if given.get(o)), "")
        if named or given["on_children"] == "archive":
            what = named or "on_children: archive"
            cure = "Give archive_after, too; as it is, rows would be deleted without being archived"
            raise BadInput(f"{where}{what} is given without archive_after", cure=cure)
        return None
    if table and folder:
        raise BadInput(f"{where}archive_table and archive_dir exclude each other", cure="Give one of them")
    if folder and not os.path.isabs(folder):
        raise BadInput(f"{where}archive_dir: {folder} is no absolute path", cure="Begin it with /")
    if table == given["table"]:
        raise BadInput(f"{where}archive_table is the table itself", cure="Name another one")
    return Archive(
        table="" if folder else table or f"{given['table']}_archive",
        folder=folder or "",
        format=given["archive_format"],
        compression=given["archive_compression"],
    )


def _zone(name: str, where: str) -> None:
    """A typing error is told before the server is asked; where this host knows no time zones, the server will tell."""
    if name.upper() == "UTC":
        return
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # ZoneInfoNotFoundError is a KeyError
        if zoneinfo.available_timezones():
            cure = "Use a name such as Europe/Berlin"
            raise BadInput(f"{where}timezone: {name!r} is not known", cure=cure) from None


def _sharing(rules: t.Sequence[Rule]) -> None:
    """Rows of one rule must not leave the archive by the age of another."""
    first: dict[str, Rule] = {}
    for rule in rules:
        table = rule.archive.table if rule.archive else ""
        known = first.setdefault(table, rule) if table else rule
        if known.lasting != rule.lasting:
            raise BadInput(
                f"rule {rule.name}: its archive table {table} is that of rule {known.name}, too, and they differ in"
                " delete_after, date_column, date_unit, timezone or database",
                cure="Give each an archive_table of its own",
            )


# ---- stages ----------------------------------------------------------------------------------------------------------


def stages(policy: Policy, now: datetime) -> list[Stage]:
    """All that the rules do, with their moments frozen. No row is in two stages of one rule."""
    found: list[Stage] = []
    cleaned: set[tuple[str, str]] = set()  # archive tables are cleaned once, whoever shares them
    for rule in policy.rules:
        found += _of_source(rule, policy, now)
        table = rule.archive.table if rule.archive else ""
        if rule.delete_after is not None and table and (table, rule.database) not in cleaned:
            cleaned.add((table, rule.database))
            expiry = _expiry(rule, now, rule.delete_after)._replace(table=table, where="")
            sought = Sought(expiry, None, True, policy.partitions, policy.count_timeout, gently=policy.duty < 1)
            found.append(Stage(rule, sought, rule.delete_after, of_archive=True))
    alone = Counter(stage.rule.name for stage in found)
    return [_shared(stage, alone[stage.rule.name]) for stage in found]


def _shared(stage: Stage, count: int) -> Stage:
    """Where all that a rule removes is seen at once, its refusal can be decided with less than an exact total."""
    if count > 1:
        return stage
    return stage._replace(sought=stage.sought._replace(share=stage.rule.refuse_over_percent))


def _of_source(rule: Rule, policy: Policy, now: datetime) -> t.Iterator[Stage]:
    """What has reached the end of its time is deleted; what has not, and is old enough, is archived."""
    gone = None
    if rule.delete_after is not None:
        expiry = _expiry(rule, now, rule.delete_after)
        gone = expiry.before
        sought = Sought(expiry, None, rule.optional, policy.partitions, policy.count_timeout, gently=policy.duty < 1)
        yield Stage(rule, sought, rule.delete_after)
    if rule.archive_after is not None and rule.archive:
        expiry = _expiry(rule, now, rule.archive_after)._replace(since=gone)
        sought = Sought(
            expiry,
            rule.archive,
            rule.optional,
            policy.partitions,
            policy.count_timeout,
            files_before=gone - A_DAY if gone and rule.archive.folder else None,
            gently=policy.duty < 1,
        )
        yield Stage(rule, sought, rule.archive_after)


def _expiry(rule: Rule, now: datetime, age: float) -> Expiry:
    return Expiry(
        rule=rule.name,
        table=rule.table,
        database=rule.database,
        column=rule.column,
        # In a zone with summer time Python would count back on the clock on the wall.
        before=now.astimezone(timezone.utc) - timedelta(seconds=age),
        where=rule.where,
        unit=rule.unit,
        zone=rule.zone,
    )
