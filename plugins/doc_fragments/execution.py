# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documentation of the options that say how work is carried out."""

from __future__ import annotations


class ModuleDocFragment:
    # What reading modules take.
    READING = r"""
options:
  jobs:
    description:
      - How many sessions work at a time.
    type: int
    default: 2
  lock_timeout:
    description:
      - Longest wait for a lock that the application would queue behind, as V(500ms), V(1s) or V(1m). Then the step is
        tried again with growing pauses.
    type: str
    default: 1s
  journal:
    description:
      - Absolute path of the journal, a small SQLite file on the host where the module runs, or V(none).
      - By default V(/var/lib/dbfleet/journal.sqlite) where that can be written to, else C(dbfleet/journal.sqlite) in
        the user's state directory. Losing it costs speed and history, never correctness.
    type: str
  journal_keep:
    description:
      - How long the journal remembers runs, steps and sizes, as V(90d), at least a day. What is older is forgotten by
        the next run that writes into it, never in check mode. What the next steps are decided by, such as cursors and
        refresh times, is one entry an object, and kept for at least 400 days.
    type: str
    default: 400d
  allow_untested:
    description:
      - Allow rewrites on a major version newer than any that was tested.
    type: bool
    default: false
  max_results:
    description:
      - Lists longer than this are cut; the summary has the true counts.
    type: int
    default: 200
"""

    DOCUMENTATION = r"""
options:
  time_budget:
    description:
      - A step is started only if it is predicted to fit into what is left of this time, as V(30m) or V(2h). What is
        left over is deferred and comes first next time.
    type: str
  hard_stop:
    description:
      - Whether steps that still run at the end of the budget are cancelled.
    type: bool
    default: true
  window:
    description:
      - The maintenance window as V(22:00-06:00), on the server's clock. Outside of it nothing is started, and its end
        is the end of the budget.
    type: str
  window_timezone:
    description:
      - Time zone of O(window), for example V(Europe/Berlin). The default is UTC.
    type: str
  retries:
    description:
      - How often a step is tried again after a lock timeout, a deadlock or a lost connection.
    type: int
    default: 3
  concurrent_wait:
    description:
      - Longest wait of work that nobody queues behind.
    type: str
    default: 30m
  if_running:
    description:
      - What to do when another run is at work on one of the databases.
    type: str
    choices: [fail, skip, wait]
    default: fail
  replicas:
    description:
      - Replicas whose lag is read before and between steps, as C(host) or C(host:port), with the same login.
      - Needs O(max_replica_lag), which says how much lag is too much.
    type: list
    elements: str
    default: []
  max_replica_lag:
    description:
      - Pause while any of O(replicas) lags by more than this, as V(10s). A lag that cannot be read counts as too much.
    type: str
  stop_file:
    description:
      - Stop cleanly, at the next safe point, when this file exists.
    type: path
  assume_free_space:
    description:
      - Free space on the server, as V(200GB), for servers whose file systems cannot be looked at from where the
        module runs (managed services). Without it rebuilds are skipped there.
    type: str
"""
