# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of cleanup: what cannot be meant is refused, and each row is in one stage at most, whatever the clock says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.dbfleet.maintenance.plugins.doc_fragments.cleanup import ModuleDocFragment
from ansible_collections.dbfleet.maintenance.plugins.module_utils._errors import BadInput
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations import retention
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.presets import PRESETS
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.retention_options import RULE
from ansible_collections.dbfleet.maintenance.plugins.module_utils._operations.retention_rules import (
    Policy,
    Rule,
    stages,
)
from ansible_collections.dbfleet.maintenance.plugins.module_utils._records import Wants
from ansible_collections.dbfleet.maintenance.plugins.module_utils._retention import Archive
from ansible_collections.dbfleet.maintenance.plugins.module_utils._units import duration

from ..samples import NOW, defaults, server
from .retention_world import policy

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]


def read(**options: Any) -> Policy:
    return retention.policy(defaults(retention.OPTIONS, **options))


def only_rule(**fields: Any) -> Rule:
    (found,) = policy({"delete_after": "90d", **fields}).rules
    return found


# ---- what cannot be meant --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"delete_after": None}, "no row would ever leave"),
        ({"delete_after": "90"}, "delete_after"),
        ({"delete_after": "-3d"}, "delete_after"),
        ({"delete_after": "5000000d"}, "every calendar"),
        ({"archive_after": "90d"}, "not shorter"),
        ({"archive_after": "91d"}, "not shorter"),
        ({"archive_after": "1y"}, "archive_after"),
        ({"name": " "}, "name is empty"),
        ({"name": None}, "name"),
        ({"name": " old"}, "white space"),
        ({"name": "old\n"}, "white space"),
        ({"name": "o\u200bld"}, "nobody sees"),
        ({"table": ""}, "table is empty"),
        ({"table": None}, "table"),
        ({"table": "ev\0ents"}, "NUL"),
        ({"date_column": "  "}, "date_column is empty"),
        ({"date_column": None}, "date_column"),
        ({"where": ""}, "where is empty"),
        ({"where": " \n"}, "where is empty"),
        ({"where": "a = '\0'"}, "NUL"),
        ({"date_unit": "days"}, "date_unit"),
        ({"timezone": "Europe/Bärlin"}, "timezone"),
        ({"timezone": ""}, "timezone"),
        ({"archive_table": "attic"}, "without archive_after"),
        ({"archive_dir": "/srv/attic"}, "without archive_after"),
        ({"on_children": "archive"}, "without archive_after"),
        ({"archive_after": "30d", "archive_table": "attic", "archive_dir": "/srv/attic"}, "exclude each other"),
        ({"archive_after": "30d", "archive_dir": "srv/attic"}, "absolute"),
        ({"archive_after": "30d", "archive_table": "events"}, "the table itself"),
        ({"archive_after": "30d", "archive_dir": " "}, "archive_dir"),
        ({"archive_after": "30d", "archive_format": "xml"}, "archive_format"),
        ({"archive_after": "30d", "archive_compression": "lzma"}, "archive_compression"),
        ({"rows_per_run": 0}, "rows_per_run"),
        ({"rows_per_run": "many"}, "rows_per_run"),
        ({"refuse_over_rows": 0}, "refuse_over_rows"),
        ({"refuse_over_rows": -1}, "refuse_over_rows"),
        ({"refuse_over_percent": 0}, "refuse_over_percent"),
        ({"refuse_over_percent": 100.5}, "refuse_over_percent"),
        ({"on_children": "orphan"}, "on_children"),
        ({"database": ""}, "database is empty"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_named_with_a_cure(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word) as raised:
        policy({"delete_after": "90d", **fields})
    assert raised.value.cure
    if "name" not in fields:
        assert "old" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"batch_seconds": 0}, "batch_seconds"),
        ({"batch_seconds": -1}, "batch_seconds"),
        ({"batch_seconds": 61}, "batch_seconds"),
        ({"duty_percent": 0}, "duty_percent"),
        ({"duty_percent": 0.9}, "duty_percent"),
        ({"duty_percent": 101}, "duty_percent"),
        ({"duty_percent": float("nan")}, "duty_percent"),
        ({"require_backup": "a day"}, "require_backup"),
        ({"max_snapshot_age": "long"}, "max_snapshot_age"),
        ({"max_wal_backlog": "10"}, "max_wal_backlog"),
        ({"max_replica_lag": "ten"}, "max_replica_lag"),
        ({"count_timeout": "ten"}, "count_timeout"),
        ({"tables": []}, "tables"),
        ({"only": ["young"]}, "only: there is no rule young"),
        ({"override": {"delete_after": "1d"}}, "without only"),
        ({"only": ["old"], "override": {"name": "new"}}, "keeps its name"),
        ({"only": ["old"], "override": {"delete_after": "soon"}}, "delete_after"),
        ({"only": ["old"], "override": {"colour": "red"}}, "colour"),
        ({"presets": ["django_session"]}, "there is no preset django_session"),
        ({"presets": [7]}, "names no preset"),
        ({"presets": [{"delete_after": "1d"}]}, "names no preset"),
        ({"presets": ["soft_deleted"]}, "table"),
        ({"presets": ["audit_log", "audit_log"]}, "audit_log is there more than once"),
        ({"presets": [{"preset": "audit_log", "name": "old"}]}, "old is there more than once"),
        ({"presets": [{"name": "audit_log", "archive_after": None}]}, "no row would ever leave"),
        ({"presets": [{"name": "audit_log", "rows_per_run": "x"}]}, "rows_per_run"),
    ],
)
def test_an_option_that_cannot_be_meant_is_named_with_a_cure(options: dict[str, Any], word: str) -> None:
    with pytest.raises(BadInput, match=word) as raised:
        policy({"delete_after": "90d"}, **options)
    assert raised.value.cure


def test_two_rules_must_not_empty_one_archive_by_different_ages() -> None:
    fields = {"archive_after": "30d", "archive_table": "attic"}
    with pytest.raises(BadInput, match="attic"):
        policy({**fields, "name": "a", "delete_after": "90d"}, {**fields, "name": "b", "delete_after": "91d"})
    with pytest.raises(BadInput, match="attic"):
        policy({**fields, "name": "a", "delete_after": "90d"}, {**fields, "name": "b"})
    same = policy({**fields, "name": "a", "delete_after": "90d"}, {**fields, "name": "b", "delete_after": "90d"})
    assert sum(stage.of_archive for stage in stages(same, NOW)) == 1


# ---- what is meant ---------------------------------------------------------------------------------------------------


def test_every_field_is_read() -> None:
    whole = {
        "delete_after": "730d",
        "archive_after": "365d",
        "where": "paid",
        "date_unit": "milliseconds",
        "timezone": "Europe/Berlin",
        "archive_dir": "/srv/attic",
        "archive_format": "csv",
        "archive_compression": "gzip",
        "rows_per_run": 10,
        "refuse_over_rows": 20,
        "refuse_over_percent": 5,
        "on_children": "archive",
        "database": "shop",
    }
    assert only_rule(**whole) == Rule(
        *("old", "events", "at", 365 * 86400, 730 * 86400, "paid", "milliseconds", "Europe/Berlin"),
        *(Archive("", "/srv/attic", "csv", "gzip"), 10, 20, 5.0, "archive", "shop"),
    )
    assert not whole.keys() - RULE.keys()


def test_the_archive_is_beside_the_table_unless_said_otherwise() -> None:
    assert only_rule(table="audit.log", archive_after="1d").archive == Archive("audit.log_archive")
    assert only_rule(archive_after="1d", archive_table="attic.log").archive == Archive("attic.log")


def test_without_a_rule_nothing_is_measured() -> None:
    assert retention.wants(read(), server()) == Wants()


def test_only_runs_what_it_names_enabled_or_not_with_the_values_given() -> None:
    rules = [{"name": n, "delete_after": "9d", "enabled": n != "b"} for n in "abc"]
    assert [r.name for r in policy(*rules).rules] == ["a", "c"]
    assert [r.name for r in policy(*rules, only=["b"]).rules] == ["b"]
    named = policy(*rules, only=["b", "c"], override={"delete_after": "2d", "rows_per_run": "7"})
    assert [(r.name, r.delete_after, r.rows_per_run) for r in named.rules] == [("b", 2 * 86400, 7), ("c", 2 * 86400, 7)]


# ---- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_a_rule_as_it_stands(name: str) -> None:
    more = {} if "table" in PRESETS[name].fields else {"table": "orders"}
    (found,) = read(presets=[{"preset": name, **more}]).rules
    assert found.name == name
    assert found.optional == (not more)
    assert PRESETS[name].fields.keys() <= RULE.keys()
    assert PRESETS[name].source.startswith("https://") or PRESETS[name].source == "no framework"
    assert max(found.archive_after or 0, found.delete_after or 0) >= 7 * 86400


@given(st.sampled_from(sorted(PRESETS)), st.data())
def test_each_field_of_a_preset_can_be_overridden_and_nothing_else_changes(name: str, data: st.DataObject) -> None:
    values: dict[str, Any] = {
        "table": "other", "date_column": "born", "delete_after": "4000d", "where": "true", "rows_per_run": 5,
        "refuse_over_percent": 7.0, "refuse_over_rows": 9, "on_children": "delete", "timezone": "Asia/Kathmandu",
        "database": "shop", "name": "mine", "date_unit": "microseconds",
    }  # fmt: skip
    base = {"preset": name, "table": PRESETS[name].fields.get("table", "orders")}
    field = data.draw(st.sampled_from(sorted(values)))
    (plain,), (changed,) = read(presets=[base]).rules, read(presets=[{**base, field: values[field]}]).rules
    where = {"date_column": "column", "date_unit": "unit", "timezone": "zone"}.get(field, field)
    wanted = duration(values[field]) if field.endswith("_after") else values[field]
    expected = {**plain._asdict(), where: wanted, "optional": False}
    if field == "table" and plain.archive:
        expected["archive"] = Archive("other_archive")
    assert {**changed._asdict(), "optional": False} == expected


def test_a_field_that_is_null_is_taken_away() -> None:
    (found,) = read(presets=[{"preset": "orders_archive", "archive_after": None, "delete_after": "900d"}]).rules
    assert found.archive is None
    assert found.delete_after == 900 * 86400


def test_every_preset_is_documented_as_it_is() -> None:
    told = yaml.safe_load(ModuleDocFragment.DOCUMENTATION)["options"]["presets"]["description"]
    for name, preset in PRESETS.items():
        (line,) = [text for text in told if text.startswith(f"V({name}) takes ")]
        for field in ("table", "date_column"):
            assert f"C({preset.fields[field]})" in line if field in preset.fields else "has to be given" in line
        for field, verb in (("archive_after", "archived"), ("delete_after", "deleted")):
            assert (
                (f"{verb} after {preset.fields[field]}" in line)
                if field in preset.fields
                else f"{verb} after" not in line
            )
        assert preset.source == "no framework" or f"U({preset.source})" in line


# ---- stages ----------------------------------------------------------------------------------------------------------

AGES = st.sampled_from([0, 1, 3600, 86399, 86400, 90 * 86400, 181 * 86400, 365 * 86400, 730 * 86400])
QUARTER = timedelta(minutes=15)
WALL_CLOCKS = st.integers(0, 10 * 366 * 86400 // 900).map(lambda n: datetime(2020, 1, 1, tzinfo=UTC) + n * QUARTER)


@given(AGES, AGES, WALL_CLOCKS, st.sampled_from(ZONES), st.data())
def test_each_row_is_in_the_stage_of_its_age_whatever_zone_the_clock_has(
    first: int, second: int, wall: datetime, zone: str, data: st.DataObject
) -> None:
    now = wall.replace(tzinfo=ZoneInfo(zone), fold=data.draw(st.integers(0, 1)))
    fields = {"archive_after": f"{first}s"} if first < second or data.draw(st.booleans()) else {}
    if first < second or not fields:
        fields["delete_after"] = f"{second}s"
    found = stages(policy(fields), now)
    edges = [s.sought.expiry.before for s in found]
    row = data.draw(st.sampled_from(edges)) + data.draw(st.sampled_from([-1, 0, 1])) * timedelta(microseconds=1)
    row = row.astimezone(timezone(timedelta(hours=data.draw(st.integers(-12, 14)))))
    age = (now.astimezone(UTC) - row.astimezone(UTC)).total_seconds()
    mine = [s.sought for s in found if not s.of_archive]
    taking = [s for s in mine if row < s.expiry.before and (not s.expiry.since or row >= s.expiry.since)]
    if "delete_after" in fields and age > second:
        wanted = ["delete"]
    elif "archive_after" in fields and age > first:
        wanted = ["archive"]
    else:
        wanted = []
    assert ["archive" if s.archive else "delete" for s in taking] == wanted


def test_with_both_ages_rows_leave_the_archive_at_the_second() -> None:
    archive = {"archive_after": "365d", "delete_after": "730d", "where": "paid"}
    gone, kept, cleaned = stages(policy(archive), NOW)
    assert (cleaned.sought.expiry.table, cleaned.sought.expiry.where) == ("events_archive", "")
    assert cleaned.sought.optional
    assert cleaned.sought.expiry.before == gone.sought.expiry.before == kept.sought.expiry.since
    in_files = stages(policy({**archive, "archive_dir": "/srv/attic"}), NOW)
    # A file goes a day later: of rows that have days only it is known when these began.
    assert [s.sought.files_before for s in in_files] == [None, gone.sought.expiry.before - timedelta(hours=25)]


def test_a_clock_in_summer_time_counts_real_days() -> None:
    now = datetime(2026, 4, 1, 12, tzinfo=ZoneInfo("Europe/Berlin"))  # the clocks changed on 29 March
    (found,) = stages(policy({"delete_after": "90d"}), now)
    assert now.astimezone(UTC) - found.sought.expiry.before == timedelta(days=90)
