#!/usr/bin/python
# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: db_history_facts
short_description: Tells from the journal what maintenance did, how long it took, what failed and what grows
version_added: 0.1.0
description:
  - Reads the journal on the host where the modules run. It connects to no database, and needs no driver.
  - Every run and step with its time, rows and bytes, what was expected and what came of it, and errors; which objects
    have failed how often in a row; how good the predictions were.
  - Sizes that M(dbfleet.maintenance.db_stats_facts) and M(dbfleet.maintenance.db_assess_facts) have kept become
    trends of databases and tables, by the slope of Theil and Sen, which outliers do not bend; so do connections, the
    mean time of statements and cache hits. Under seven samples there is no trend, and C(why) says so.
  - Runs in check mode, and runs that found nothing due, leave no trace in the journal.
author:
  - The dbfleet.maintenance contributors (@dbfleet)
extends_documentation_fragment:
  - dbfleet.maintenance.attributes.facts
  - dbfleet.maintenance.connection
  - dbfleet.maintenance.selection
  - dbfleet.maintenance.execution.reading
  - dbfleet.maintenance.history
"""

EXAMPLES = r"""
- name: What happened in the last week, and when is the disk full?
  dbfleet.maintenance.db_history_facts:
    engine: postgresql
    login_host: db1.example.com
    since: 7d
    until_database_size: 500GB

- name: What grows fastest?
  ansible.builtin.debug:
    msg: "{{ ansible_facts.db_history.databases | sort(attribute='bytes_per_day') | last }}"

- name: All that this host's journal knows, its backup folders included
  dbfleet.maintenance.db_history_facts:
    engine: mariadb
    servers: ["*"]
"""

RETURN = r"""
ansible_facts:
  description: The facts.
  returned: success
  type: dict
  contains:
    db_history:
      description:
        - What the journal knows. Times are ISO 8601 in UTC. Lists are cut to O(max_results), after their order was
          made; C(summary) has the true counts.
      type: dict
      contains:
        engine:
          description: The option O(engine).
          type: str
          sample: postgresql
        server:
          description: C(address), the name under which the journal knows the server of the connection options.
          type: dict
          sample: {address: "db1.example.com:5432"}
        servers:
          description: All servers and backup folders that the journal knows, with C(runs) and C(last_at).
          type: list
          elements: dict
          sample: [{server: "db1.example.com:5432", runs: 61, last_at: "2026-11-22T01:10:03+00:00"}]
        journal:
          description:
            - C(path) of the journal, V(null) where there is none, and C(why). C(first_at) is its oldest run.
          type: dict
          sample: {path: /var/lib/dbfleet/journal.sqlite, why: null, first_at: "2026-03-01T01:10:02+00:00"}
        since:
          description: From when on.
          type: str
          sample: "2026-10-23T07:00:00+00:00"
        until:
          description: Until when.
          type: str
          sample: "2026-11-22T07:00:00+00:00"
        runs:
          description:
            - Runs, the newest first. C(status) is V(done), V(failed), V(stopped), V(interrupted) (it was killed) or
              V(running). C(seconds) is V(null) where the end is not known, or the clock was put back meanwhile.
              C(error) is that of its first step that failed.
          type: list
          elements: dict
          sample:
            - run: 812
              server: "db1.example.com:5432"
              at: "2026-11-22T01:10:03+00:00"
              operation: db_vacuum
              status: failed
              changed: true
              seconds: 212.4
              steps: 14
              done: 12
              failed: 1
              deferred: 0
              skipped: 1
              rows: 0
              bytes_freed: 734003200
              bytes_written: 0
              error: "public.orders: lock timeout"
        steps:
          description:
            - Steps, the newest first. C(status) is V(done), V(failed), V(deferred), V(skipped), V(interrupted) or
              V(running). C(rule) is the rule of a purge. C(seconds), C(rows) and C(bytes_freed) are V(null) where
              nothing came of it.
          type: list
          elements: dict
          sample:
            - run: 812
              server: "db1.example.com:5432"
              at: "2026-11-22T01:10:04+00:00"
              operation: db_vacuum
              database: shop
              object: public.orders
              kind: vacuum
              rule: null
              status: done
              reason: "dead rows 41 % (820,113) over 10 %"
              seconds: 12.1
              expected_seconds: 11.4
              rows: 0
              expected_rows: 0
              bytes_freed: 0
              expected_bytes: 0
              bytes_before: 2147483648
              bytes_after: 2147483648
              proven: true
              error: null
        operations:
          description: Counts and sums of O(since) by operation and kind of step.
          type: list
          elements: dict
          sample:
            - operation: db_vacuum
              kind: vacuum
              steps: 340
              done: 333
              failed: 2
              deferred: 4
              skipped: 1
              interrupted: 0
              running: 0
              seconds: 4120.9
              rows: 0
              bytes_freed: 0
              bytes_written: 0
              last_done_at: "2026-11-22T01:10:04+00:00"
              last_failed_at: "2026-11-20T01:12:51+00:00"
        failures:
          description:
            - What failed or was killed last time, and has not ended well since. C(times) in a row, from C(since) on;
              most first. Those whose last failure is older than O(since) are left out.
          type: list
          elements: dict
          sample:
            - server: "db1.example.com:5432"
              operation: db_reindex
              kind: reindex
              rule: null
              database: shop
              object: public.orders_pkey
              times: 3
              since: "2026-11-20T01:12:51+00:00"
              last_at: "2026-11-22T01:14:07+00:00"
              error: "lock timeout"
        predictions:
          description:
            - What came of it by what was expected, of the steps that were done. 1 is exact, 2 is twice as much as
              expected. V(null) where nothing was expected. Steps that neither took nor were to take a tenth of a
              second do not count among C(seconds_ratio). Each ratio has C(steps), C(median), C(p10) and C(p90).
          type: list
          elements: dict
          sample:
            - operation: db_vacuum
              kind: reclaim
              steps: 9
              seconds_ratio: {steps: 9, median: 0.94, p10: 0.71, p90: 1.31}
              bytes_ratio: {steps: 9, median: 0.99, p10: 0.93, p90: 1.02}
              rows_ratio: null
        databases:
          description:
            - Databases by their growth, the fastest first. C(bytes_per_day) is V(null) where there is no trend, and
              C(why) says why. C(days_until_full) is of the disk of the data, at the pace of all databases on it, and
              C(days_until_size) of O(until_database_size); V(null) where nothing grows, nothing is known, or the
              samples span less than a day. C(points) are at most 30 of the samples, as pairs of time and bytes.
              C(tables) are those that changed, by their growth, the fastest first, at most 10.
          type: list
          elements: dict
          sample:
            - server: "db1.example.com:5432"
              database: shop
              samples: 37
              first_at: "2026-10-23T07:00:00+00:00"
              last_at: "2026-11-22T06:00:00+00:00"
              bytes: 53687091200
              rows: 120000000
              bytes_per_day: 107374182
              rows_per_day: 240000
              days_until_full: 92.0
              days_until_size: 4500.0
              why: null
              points: [["2026-10-23T07:00:00+00:00", 50466324480], ["2026-11-22T06:00:00+00:00", 53687091200]]
              tables:
                - object: public.orders
                  samples: 36
                  first_at: "2026-10-23T07:00:00+00:00"
                  last_at: "2026-11-22T06:00:00+00:00"
                  bytes: 21474836480
                  rows: 80000000
                  bytes_per_day: 85899345
                  rows_per_day: 200000
                  days_until_size: null
                  why: null
        disks:
          description:
            - Disks of the data with their C(free) and C(total) bytes as last seen C(at), what the databases on them
              grow a day, and days until they are full.
          type: list
          elements: dict
          sample:
            - server: "db1.example.com:5432"
              disk: data
              free: 9878424780
              total: 107374182400
              at: "2026-11-22T06:00:00+00:00"
              bytes_per_day: 107374182
              days_until_full: 92.0
              why: null
        performance:
          description:
            - Trends of C(metric), V(connections), V(statement_seconds) (mean time of all statements between one sample
              and the next) and V(cache_hit_percent) (likewise). C(most) is the number of connections that ordinary
              users may take. What the server does not count is not there.
          type: list
          elements: dict
          sample:
            - server: "db1.example.com:5432"
              metric: statement_seconds
              samples: 37
              first_at: "2026-10-23T07:00:00+00:00"
              last_at: "2026-11-22T06:00:00+00:00"
              first: 0.0021
              last: 0.0034
              per_day: 0.00004
              most: null
              why: null
        backups:
          description: When a backup of each database was last made and last verified, however long ago.
          type: list
          elements: dict
          sample:
            - server: "db1.example.com:5432"
              database: shop
              dumped_at: "2026-11-22T00:10:44+00:00"
              verified_at: "2026-11-22T00:14:02+00:00"
        summary:
          description: True counts, of which lists may have been cut; C(tables) of those that changed.
          type: dict
          sample:
            runs: 61
            failed_runs: 1
            steps: 702
            failed_steps: 3
            failures: 1
            databases: 4
            tables: 23
            bytes_freed: 734003200
            rows: 120400
            seconds: 4410.2
"""

from ansible_collections.dbfleet.maintenance.plugins.module_utils._history import history_module


def main() -> None:
    history_module()


if __name__ == "__main__":
    main()
