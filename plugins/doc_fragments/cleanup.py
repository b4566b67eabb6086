# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of db_cleanup's options, once for the module and once inside db_assess_facts."""

from __future__ import annotations

import re

OPTIONS = r"""
rules:
  description:
    - Which rows leave which table, and when. Two rules must not have the same name.
    - Ages are counted back from the server's clock at the start of the run. A row is due when its date lies before
      that moment; rows without a date never leave.
  type: list
  elements: dict
  default: []
  suboptions:
    name:
      description:
        - The rule's name, for O(only), for messages and for the journal.
      type: str
      required: true
    table:
      description:
        - The table as V(schema.table), or V(table) where that is the only one of its name.
      type: str
      required: true
    date_column:
      description:
        - The column that a row's age is counted from. A date, a timestamp with or without time zone, or a whole number
          (see O(rules[].date_unit)); in SQLite also text as ISO 8601.
        - An index that begins with it makes finding the rows cheap. Without one the table is walked by its primary key,
          and a finding names the missing index.
      type: str
      required: true
    archive_after:
      description:
        - Rows older than this, as V(90d), move into O(rules[].archive_table) or O(rules[].archive_dir).
      type: str
    delete_after:
      description:
        - Rows older than this, as V(2w), are deleted.
        - With O(rules[].archive_after), which must be shorter, rows move to the archive at the first age, and leave the
          archive at this one. Rows of the table that have reached it already are deleted without being archived.
      type: str
    where:
      description:
        - An SQL condition on the table's rows that has to hold, too, as V(status = 'paid'). It is handed to the server
          as it is. With one, partitions are not dropped as a whole.
        - It decides which rows are archived or deleted; the archive is cleaned by age alone.
      type: str
    date_unit:
      description:
        - What a date column counts that is a whole number, since 1970-01-01 00:00 UTC. Needed for such columns, and
          refused for others.
      type: str
      choices: [seconds, milliseconds, microseconds]
    timezone:
      description:
        - The time zone of a date column that has none itself, as V(Europe/Berlin).
      type: str
      default: UTC
    archive_table:
      description:
        - The table that rows move to, in the same transaction. It is created like the source when it is missing, and
          gets the columns that the source has got since. Its schema must exist.
        - The default is the table's name with C(_archive) behind it, if O(rules[].archive_after) is given without
          O(rules[].archive_dir).
      type: str
    archive_dir:
      description:
        - The directory of compressed files that rows move to, on the host where the module runs; an absolute path. Each
          file has a manifest beside it with row count, columns and SHA-256. It is created when it is missing.
      type: path
    archive_format:
      description:
        - How archive files are written. V(jsonl) has one JSON object a row, V(csv) is RFC 4180 with a header.
      type: str
      choices: [jsonl, csv]
      default: jsonl
    archive_compression:
      description:
        - How archive files are compressed. V(auto) is zstd where Python has a library for it, else gzip.
      type: str
      choices: [auto, zstd, gzip]
      default: auto
    rows_per_run:
      description:
        - At most so many rows leave the tables of one database in one run by this rule; the rest is held back for the
          next. Partitions that are dropped as a whole are not counted.
      type: int
    refuse_over_rows:
      description:
        - Nothing leaves, and a finding says so, when more rows than this are due in one database.
      type: int
    refuse_over_percent:
      description:
        - Nothing leaves, and a finding says so, when more than this share of the table's rows is due.
      type: float
      default: 50.0
    on_children:
      description:
        - What happens where rows of other tables hang from due ones by foreign keys, over any number of levels and
          whatever the foreign keys themselves do on delete.
        - V(fail) refuses the rule, and a finding lists them with counts.
        - V(delete) deletes them first, in the same bites.
        - V(archive) archives them where the rule archives, into the child's name with C(_archive) behind it or into
          files of their own, and deletes them where it deletes. What is archived of children stays there.
      type: str
      choices: [fail, delete, archive]
      default: fail
    database:
      description:
        - The rule is for this database. The default is every selected one that has the table.
      type: str
    enabled:
      description:
        - With V(false) the rule runs only when O(only) names it.
      type: bool
      default: true
presets:
  description:
    - Rules that are known by name, as V(django_sessions), or dictionaries that override a preset field by field with
      those of O(rules). In a dictionary C(preset) names the preset, and C(name) gives the rule another name; C(name)
      alone does both. A field that is set to null is taken away.
    - A preset's table that is not there is no news, unless O(presets) names another one.
    - V(django_sessions) takes C(django_session) by C(expire_date), deleted after 30d (expired sessions).
      U(https://docs.djangoproject.com/en/stable/topics/http/sessions/#clearing-the-session-store).
    - V(rails_sessions) takes C(sessions) by C(updated_at), deleted after 30d (sessions that nobody used).
      U(https://github.com/rails/activerecord-session_store).
    - V(laravel_sessions) takes C(sessions) by C(last_activity), deleted after 30d (sessions that nobody used).
      U(https://laravel.com/docs/session#database).
    - V(symfony_sessions) takes C(sessions) by C(sess_lifetime), deleted after 30d (expired sessions; the column
      is the moment of expiry since Symfony 4.4).
      U(https://symfony.com/doc/current/session.html#store-sessions-in-a-database).
    - V(spring_sessions) takes C(spring_session) by C(expiry_time), deleted after 30d (expired sessions and their
      attributes; on MySQL the table is SPRING_SESSION).
      U(https://docs.spring.io/spring-session/reference/configuration/jdbc.html).
    - V(express_sessions) takes C(session) by C(expire), deleted after 30d (expired sessions of
      connect-pg-simple). U(https://github.com/voxpelli/node-connect-pg-simple).
    - V(express_mysql_sessions) takes C(sessions) by C(expires), deleted after 30d (expired sessions of
      express-mysql-session). U(https://github.com/chill117/express-mysql-session).
    - V(flask_sessions) takes C(sessions) by C(expiry), deleted after 30d (expired sessions of Flask-Session).
      U(https://flask-session.readthedocs.io/).
    - V(audit_log) takes C(audit_log) by C(created_at), archived after 90d (an audit log, whose table and column
      are to be overridden).
    - V(django_admin_log) takes C(django_admin_log) by C(action_time), archived after 90d (what was done in the
      admin). U(https://docs.djangoproject.com/en/stable/ref/contrib/admin/#logentry-objects).
    - V(django_auditlog) takes C(auditlog_logentry) by C(timestamp), archived after 90d (entries of
      django-auditlog). U(https://django-auditlog.readthedocs.io/).
    - V(django_easy_audit) takes C(easyaudit_crudevent) by C(datetime), archived after 90d (changes recorded by
      django-easy-audit). U(https://github.com/soynatan/django-easy-audit).
    - V(django_easy_audit_logins) takes C(easyaudit_loginevent) by C(datetime), archived after 90d (logins
      recorded by django-easy-audit). U(https://github.com/soynatan/django-easy-audit).
    - V(django_easy_audit_requests) takes C(easyaudit_requestevent) by C(datetime), deleted after 90d (requests
      recorded by django-easy-audit). U(https://github.com/soynatan/django-easy-audit).
    - V(django_axes_logs) takes C(axes_accesslog) by C(attempt_time), deleted after 90d (logins recorded by
      django-axes, whose own default is 30 days). U(https://django-axes.readthedocs.io/en/latest/3_usage.html).
    - V(keycloak_events) takes C(event_entity) by C(event_time), archived after 90d (login events; on MySQL the
      table is EVENT_ENTITY). U(https://www.keycloak.org/docs/latest/server_admin/#auditing-user-events).
    - V(task_log) takes C(task_log) by C(created_at), deleted after 30d (a log of tasks, whose table and column
      are to be overridden).
    - V(failed_tasks) takes C(failed_tasks) by C(failed_at), deleted after 30d (tasks that failed; table and
      column are to be overridden).
    - V(celery_results) takes C(celery_taskmeta) by C(date_done), deleted after 30d (results in Celery's own
      SQLAlchemy backend, whose default is one day).
      U(https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-expires).
    - V(celery_group_results) takes C(celery_tasksetmeta) by C(date_done), deleted after 30d (results of groups in
      Celery's own SQLAlchemy backend).
      U(https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-expires).
    - V(django_celery_results) takes C(django_celery_results_taskresult) by C(date_done), deleted after 30d
      (results of django-celery-results). U(https://django-celery-results.readthedocs.io/).
    - V(django_celery_group_results) takes C(django_celery_results_groupresult) by C(date_done), deleted after 30d
      (results of groups of django-celery-results). U(https://django-celery-results.readthedocs.io/).
    - V(django_q) takes C(django_q_task) by C(stopped), deleted after 30d (tasks of Django Q that have ended, well
      or not). U(https://django-q2.readthedocs.io/en/master/tasks.html).
    - V(laravel_failed_jobs) takes C(failed_jobs) by C(failed_at), deleted after 30d (failed jobs;
      queue:prune-failed takes those of yesterday). U(https://laravel.com/docs/queues#pruning-failed-jobs).
    - V(laravel_job_batches) takes C(job_batches) by C(finished_at), deleted after 30d (batches that are
      finished). U(https://laravel.com/docs/queues#pruning-batches).
    - V(laravel_telescope) takes C(telescope_entries) by C(created_at), deleted after 7d (entries and their tags;
      telescope:prune takes those of yesterday). U(https://laravel.com/docs/telescope#data-pruning).
    - V(rails_delayed_job) takes C(delayed_jobs) by C(failed_at), deleted after 30d (jobs that failed for good;
      others have no date in this column). U(https://github.com/collectiveidea/delayed_job).
    - V(rails_good_job) takes C(good_jobs) by C(finished_at), deleted after 30d (jobs that are finished; GoodJob
      itself keeps them for 14 days). U(https://github.com/bensheldon/good_job#monitor-and-preserve-worked-jobs).
    - V(rails_good_job_executions) takes C(good_job_executions) by C(finished_at), deleted after 30d (executions
      that are finished). U(https://github.com/bensheldon/good_job#monitor-and-preserve-worked-jobs).
    - V(rails_solid_queue) takes C(solid_queue_jobs) by C(finished_at), deleted after 30d (jobs that are finished;
      Solid Queue itself keeps them for a day).
      U(https://github.com/rails/solid_queue#other-configuration-settings).
    - V(oban_jobs) takes C(oban_jobs) by C(completed_at) where V(state = 'completed'), deleted after 30d (jobs
      that are completed). U(https://hexdocs.pm/oban/Oban.Plugins.Pruner.html).
    - V(oban_discarded_jobs) takes C(oban_jobs) by C(discarded_at) where V(state = 'discarded'), deleted after 30d
      (jobs that failed for good). U(https://hexdocs.pm/oban/Oban.Plugins.Pruner.html).
    - V(symfony_failed_messages) takes C(messenger_messages) by C(created_at) where V(queue_name = 'failed'),
      deleted after 90d (messages of the failure transport in the Doctrine transport's table).
      U(https://symfony.com/doc/current/messenger.html#saving-retrying-failed-messages).
    - V(wordpress_action_scheduler) takes C(wp_actionscheduler_actions) by C(last_attempt_gmt) where V(status IN
      ('complete', 'canceled')), deleted after 60d (actions of WooCommerce and others that are done; Action
      Scheduler itself keeps them for 30 days). U(https://actionscheduler.org/faq/).
    - V(wordpress_action_scheduler_logs) takes C(wp_actionscheduler_logs) by C(log_date_gmt), deleted after 60d
      (the log of such actions). U(https://actionscheduler.org/faq/).
    - V(orders_archive) takes C(orders) by C(created_at), archived after 365d (orders of more than a year ago;
      table, column and on_children are to be overridden where they differ).
    - V(soft_deleted) takes a table, which has to be given, by C(deleted_at), archived after 365d and deleted
      after 730d (rows that were marked as deleted).
  type: list
  elements: raw
  default: []
only:
  description:
    - Run only the rules and presets of these names, also those that are not enabled.
  type: list
  elements: str
  default: []
override:
  description:
    - Fields that the rules named in O(only) take for this run, as V(delete_after=7d rows_per_run=10000). Meant for the
      command line; refused without O(only).
  type: dict
  default: {}
partitions:
  description:
    - V(auto) drops partitions all of whose rows are due instead of deleting their rows; where the rule archives, after
      they are archived. The last, the default and the MAXVALUE partition always stay.
    - On MySQL and MariaDB one of 64 MB or more is exchanged with an empty table first, so that nobody waits until its
      files are removed, unless the login may not do that, the server belongs to a cluster, or the table does not allow
      it. That table's name begins with C(dbfleet_); it is dropped, by the next run where this one is interrupted.
    - V(never) deletes rows only.
  type: str
  choices: [auto, never]
  default: auto
batch_seconds:
  description:
    - How long one bite should take, in seconds. Its number of rows is adapted to that.
  type: float
  default: 0.2
duty_percent:
  description:
    - The share of the time in which bites work, from 1 to 100. After each bite the run rests, in proportion to what the
      bite took, and leaves processors, disk and locks to others.
    - With less than 100 bites take at most 0.02 seconds, unless rows go into files, one processor of a PostgreSQL
      server is enough for counting, the vacuum afterwards pauses as autovacuum does (C(vacuum_cost_delay) of 2 ms), and
      the module's own process steps back (C(nice) of 10).
    - A purge takes so much longer, and is predicted to. V(20) is a good value where an application works meanwhile.
  type: float
  default: 100
require_backup:
  description:
    - Nothing leaves a database whose last verified backup is older than this, as V(26h), or unknown.
  type: str
backup_dir:
  description:
    - Absolute path of the folder of M(dbfleet.maintenance.db_backup) on the host where the module runs. Its manifests
      say for O(require_backup) which backups there are, and that they were read to their end. Without it the journal
      says when a backup was last verified.
  type: path
max_snapshot_age:
  description:
    - Wait between two bites while another transaction is open for longer than this. It would keep the deleted rows
      from being reused.
  type: str
max_wal_backlog:
  description:
    - Wait between two bites while more than this, as V(10GB), of write-ahead log waits to be archived or replicated
      (PostgreSQL), or binary logs take more than this (MySQL, MariaDB). What cannot be known is too much.
  type: str
"""


def _indented(text: str, by: int) -> str:
    return "".join(" " * by + line if line.strip() else line for line in text.splitlines(keepends=True))


def _nested(text: str, option: str) -> str:
    """The same text where the options stand inside another one: what they say of each other names that one, too."""
    names = re.findall(r"^([a-z_]+):$", text, re.MULTILINE)
    return re.sub(r"O\((" + "|".join(names) + r")([)\[])", rf"O({option}.\1\2", text)


class ModuleDocFragment:
    DOCUMENTATION: str
    NESTED: str


# Assigned here and not in the class body, where the documentation tools take literals only.
ModuleDocFragment.DOCUMENTATION = "options:\n" + _indented(OPTIONS.lstrip("\n"), 2)
ModuleDocFragment.NESTED = (
    "options:\n"
    "  cleanup:\n"
    "    description:\n"
    "      - Assess what M(dbfleet.maintenance.db_cleanup) would do with these of its options.\n"
    "      - Without it cleanup is not assessed, and is not due.\n"
    "    type: dict\n"
    "    suboptions:\n" + _indented(_nested(OPTIONS.lstrip("\n"), "cleanup"), 6)
)
