# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules of cleanup that are known by name: tables and columns of common frameworks, each with its source. No logic of
what is due.

Ages are longer than the frameworks' own defaults where they have any, what audits or laws may ask for is
archived rather than deleted, and rows that still mean something to the application are left alone by `where`.
"""

from __future__ import annotations

import typing as t

from .._errors import BadInput
from .._tuples import NamedTuple

Fields = t.Mapping[str, t.Any]

# A session that has expired is dead to its application, however many there are: a neglected table consists of them.
EXPIRED = {"refuse_over_percent": 100.0}


class Preset(NamedTuple):
    fields: Fields
    about: str
    source: str  # where table, column and meaning are written down


def _deleted(table: str, column: str, after: str, **more: t.Any) -> Fields:
    return {"table": table, "date_column": column, "delete_after": after, **more}


def _archived(table: str, column: str, after: str, **more: t.Any) -> Fields:
    return {"table": table, "date_column": column, "archive_after": after, **more}


PRESETS: dict[str, Preset] = {
    # ---- sessions ----------------------------------------------------------------------------------------------------
    "django_sessions": Preset(
        _deleted("django_session", "expire_date", "30d", **EXPIRED),
        "expired sessions",
        "https://docs.djangoproject.com/en/stable/topics/http/sessions/#clearing-the-session-store",
    ),
    "rails_sessions": Preset(
        _deleted("sessions", "updated_at", "30d"),
        "sessions that nobody used",
        "https://github.com/rails/activerecord-session_store",
    ),
    "laravel_sessions": Preset(
        _deleted("sessions", "last_activity", "30d", date_unit="seconds"),
        "sessions that nobody used",
        "https://laravel.com/docs/session#database",
    ),
    "symfony_sessions": Preset(
        _deleted("sessions", "sess_lifetime", "30d", date_unit="seconds", **EXPIRED),
        "expired sessions; the column is the moment of expiry since Symfony 4.4",
        "https://symfony.com/doc/current/session.html#store-sessions-in-a-database",
    ),
    "spring_sessions": Preset(
        _deleted("spring_session", "expiry_time", "30d", date_unit="milliseconds", on_children="delete", **EXPIRED),
        "expired sessions and their attributes; on MySQL the table is SPRING_SESSION",
        "https://docs.spring.io/spring-session/reference/configuration/jdbc.html",
    ),
    "express_sessions": Preset(
        _deleted("session", "expire", "30d", **EXPIRED),
        "expired sessions of connect-pg-simple",
        "https://github.com/voxpelli/node-connect-pg-simple",
    ),
    "express_mysql_sessions": Preset(
        _deleted("sessions", "expires", "30d", date_unit="seconds", **EXPIRED),
        "expired sessions of express-mysql-session",
        "https://github.com/chill117/express-mysql-session",
    ),
    "flask_sessions": Preset(
        _deleted("sessions", "expiry", "30d", **EXPIRED),
        "expired sessions of Flask-Session",
        "https://flask-session.readthedocs.io/",
    ),
    # ---- audit logs --------------------------------------------------------------------------------------------------
    "audit_log": Preset(
        _archived("audit_log", "created_at", "90d"),
        "an audit log, whose table and column are to be overridden",
        "no framework",
    ),
    "django_admin_log": Preset(
        _archived("django_admin_log", "action_time", "90d"),
        "what was done in the admin",
        "https://docs.djangoproject.com/en/stable/ref/contrib/admin/#logentry-objects",
    ),
    "django_auditlog": Preset(
        _archived("auditlog_logentry", "timestamp", "90d"),
        "entries of django-auditlog",
        "https://django-auditlog.readthedocs.io/",
    ),
    "django_easy_audit": Preset(
        _archived("easyaudit_crudevent", "datetime", "90d"),
        "changes recorded by django-easy-audit",
        "https://github.com/soynatan/django-easy-audit",
    ),
    "django_easy_audit_logins": Preset(
        _archived("easyaudit_loginevent", "datetime", "90d"),
        "logins recorded by django-easy-audit",
        "https://github.com/soynatan/django-easy-audit",
    ),
    "django_easy_audit_requests": Preset(
        _deleted("easyaudit_requestevent", "datetime", "90d"),
        "requests recorded by django-easy-audit",
        "https://github.com/soynatan/django-easy-audit",
    ),
    "django_axes_logs": Preset(
        _deleted("axes_accesslog", "attempt_time", "90d"),
        "logins recorded by django-axes, whose own default is 30 days",
        "https://django-axes.readthedocs.io/en/latest/3_usage.html",
    ),
    "keycloak_events": Preset(
        _archived("event_entity", "event_time", "90d", date_unit="milliseconds"),
        "login events; on MySQL the table is EVENT_ENTITY",
        "https://www.keycloak.org/docs/latest/server_admin/#auditing-user-events",
    ),
    # ---- tasks and jobs ----------------------------------------------------------------------------------------------
    "task_log": Preset(
        _deleted("task_log", "created_at", "30d"),
        "a log of tasks, whose table and column are to be overridden",
        "no framework",
    ),
    "failed_tasks": Preset(
        _deleted("failed_tasks", "failed_at", "30d"),
        "tasks that failed; table and column are to be overridden",
        "no framework",
    ),
    "celery_results": Preset(
        _deleted("celery_taskmeta", "date_done", "30d"),
        "results in Celery's own SQLAlchemy backend, whose default is one day",
        "https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-expires",
    ),
    "celery_group_results": Preset(
        _deleted("celery_tasksetmeta", "date_done", "30d"),
        "results of groups in Celery's own SQLAlchemy backend",
        "https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-expires",
    ),
    "django_celery_results": Preset(
        _deleted("django_celery_results_taskresult", "date_done", "30d"),
        "results of django-celery-results",
        "https://django-celery-results.readthedocs.io/",
    ),
    "django_celery_group_results": Preset(
        _deleted("django_celery_results_groupresult", "date_done", "30d"),
        "results of groups of django-celery-results",
        "https://django-celery-results.readthedocs.io/",
    ),
    "django_q": Preset(
        _deleted("django_q_task", "stopped", "30d"),
        "tasks of Django Q that have ended, well or not",
        "https://django-q2.readthedocs.io/en/master/tasks.html",
    ),
    "laravel_failed_jobs": Preset(
        _deleted("failed_jobs", "failed_at", "30d"),
        "failed jobs; queue:prune-failed takes those of yesterday",
        "https://laravel.com/docs/queues#pruning-failed-jobs",
    ),
    "laravel_job_batches": Preset(
        _deleted("job_batches", "finished_at", "30d", date_unit="seconds"),
        "batches that are finished",
        "https://laravel.com/docs/queues#pruning-batches",
    ),
    "laravel_telescope": Preset(
        _deleted("telescope_entries", "created_at", "7d", on_children="delete"),
        "entries and their tags; telescope:prune takes those of yesterday",
        "https://laravel.com/docs/telescope#data-pruning",
    ),
    "rails_delayed_job": Preset(
        _deleted("delayed_jobs", "failed_at", "30d"),
        "jobs that failed for good; others have no date in this column",
        "https://github.com/collectiveidea/delayed_job",
    ),
    "rails_good_job": Preset(
        _deleted("good_jobs", "finished_at", "30d"),
        "jobs that are finished; GoodJob itself keeps them for 14 days",
        "https://github.com/bensheldon/good_job#monitor-and-preserve-worked-jobs",
    ),
    "rails_good_job_executions": Preset(
        _deleted("good_job_executions", "finished_at", "30d"),
        "executions that are finished",
        "https://github.com/bensheldon/good_job#monitor-and-preserve-worked-jobs",
    ),
    "rails_solid_queue": Preset(
        _deleted("solid_queue_jobs", "finished_at", "30d"),
        "jobs that are finished; Solid Queue itself keeps them for a day",
        "https://github.com/rails/solid_queue#other-configuration-settings",
    ),
    "oban_jobs": Preset(
        _deleted("oban_jobs", "completed_at", "30d", where="state = 'completed'"),
        "jobs that are completed",
        "https://hexdocs.pm/oban/Oban.Plugins.Pruner.html",
    ),
    "oban_discarded_jobs": Preset(
        _deleted("oban_jobs", "discarded_at", "30d", where="state = 'discarded'"),
        "jobs that failed for good",
        "https://hexdocs.pm/oban/Oban.Plugins.Pruner.html",
    ),
    "symfony_failed_messages": Preset(
        _deleted("messenger_messages", "created_at", "90d", where="queue_name = 'failed'"),
        "messages of the failure transport in the Doctrine transport's table",
        "https://symfony.com/doc/current/messenger.html#saving-retrying-failed-messages",
    ),
    "wordpress_action_scheduler": Preset(
        _deleted("wp_actionscheduler_actions", "last_attempt_gmt", "60d", where="status IN ('complete', 'canceled')"),
        "actions of WooCommerce and others that are done; Action Scheduler itself keeps them for 30 days",
        "https://actionscheduler.org/faq/",
    ),
    "wordpress_action_scheduler_logs": Preset(
        _deleted("wp_actionscheduler_logs", "log_date_gmt", "60d"),
        "the log of such actions",
        "https://actionscheduler.org/faq/",
    ),
    # ---- business ----------------------------------------------------------------------------------------------------
    "orders_archive": Preset(
        _archived("orders", "created_at", "365d"),
        "orders of more than a year ago; table, column and on_children are to be overridden where they differ",
        "no framework",
    ),
    "soft_deleted": Preset(
        {"date_column": "deleted_at", "archive_after": "365d", "delete_after": "730d"},
        "rows that were marked as deleted; table has to be given",
        "no framework",
    ),
}


def preset(entry: object) -> tuple[dict[str, t.Any], bool]:
    """The fields of a rule, overridden field by field; and whether its table may be missing. Raises BadInput."""
    given: dict[str, t.Any] = {"name": entry} if isinstance(entry, str) else {}
    if isinstance(entry, t.Mapping):
        given = {str(k): v for k, v in entry.items()}
    which = given.pop("preset", None) or given.get("name")
    if not isinstance(which, str):
        cure = "Write the name of a preset, or a dictionary with preset or name in it"
        raise BadInput(f"presets: {entry!r} names no preset", cure=cure)
    if which not in PRESETS:
        raise BadInput(f"presets: there is no preset {which}", cure=f"There are: {', '.join(sorted(PRESETS))}")
    fields = {**PRESETS[which].fields, "name": which, **given}
    return fields, "table" not in given
