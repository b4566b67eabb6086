# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""`./dev test`, `lint`, `unit`, `integration` and `docs`: which steps there are, in which order, and how they end.

Two lanes run beside each other: the tests on real servers, which take longest, and everything else. All steps run,
whatever fails; the exit status is 0 only when none failed.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Sequence

from . import docs, lint, package, sanity, servers
from .steps import Counts, Result, Step, run_step, stop_on_sigterm

PARTS = ("lint", "sanity", "unit", "integration", "molecule", "package")
NEED_SERVERS = {"sanity", "integration", "molecule"}  # sanity needs shellcheck, which comes the same way

STEPS = [
    Step("machine", "machine", "first", servers.machine),
    Step("integration", "integration", "servers", servers.integration),
    Step("sanity", "sanity", "code", sanity.sanity),
    Step("ansible-lint", "lint", "code", lint.ansible_lint),
    Step("mypy", "lint", "code", lint.mypy),
    Step("ruff", "lint", "code", lint.ruff),
    Step("ruff-format", "lint", "code", lint.ruff_format),
    Step("yamllint", "lint", "code", lint.yamllint),
    Step("shellcheck", "lint", "code", lint.shellcheck),
    Step("reuse", "lint", "code", lint.reuse),
    Step("changelog", "lint", "code", lint.changelog),
    Step("docs-lint", "lint", "code", docs.lint),
    Step("unit", "unit", "code", servers.unit),
    Step("package", "package", "code", package.package),
    Step("importer", "package", "code", package.importer),
    Step("molecule", "molecule", "code", servers.molecule),
]
DOCS = [Step("docs-check", "docs", "code", docs.check), Step("docs-html", "docs", "code", docs.html)]
PICTURES = [Step("docs-screenshot", "docs", "code", docs.screenshot)]


class Progress:
    """Collects results and shows each step's output as one piece."""

    def __init__(self, *, live: bool) -> None:
        self.results: list[Result] = []
        self._live = live
        self._lock = threading.Lock()

    def work(self, steps: Sequence[Step]) -> None:
        """Carry the steps of one lane out, one after the other."""
        for step in steps:
            with self._lock:
                print(f"== {step.name} ==" if self._live else f"-- {step.name} starts", flush=True)
            result, output = run_step(step, live=self._live)
            with self._lock:
                if not self._live:
                    print(f"\n== {step.name}: {result.status} in {result.seconds:.1f} s ==\n{output}", flush=True)
                self.results.append(result)


def run(steps: Sequence[Step]) -> int:
    """Run the steps in their lanes, show how they ended, and return the exit status."""
    start = time.monotonic()
    lanes = {lane: [step for step in steps if step.lane == lane] for lane in ("first", "servers", "code")}
    progress = Progress(live=not (lanes["servers"] and lanes["code"]))
    progress.work(lanes["first"])
    beside = threading.Thread(target=progress.work, args=(lanes["servers"],))
    beside.start()
    progress.work(lanes["code"])
    beside.join()
    results = progress.results
    if any(step.name == "integration" for step in steps):
        results.append(_coverage())
    _show(results, time.monotonic() - start)
    return int(any(result.status == "failed" for result in results))


def _coverage() -> Result:
    """Which servers were tested; with CI=true a missing one is a failure."""
    missing = servers.missing_servers()
    print("\nTested on: " + (", ".join(servers.tested_servers()) or "no server at all"), flush=True)
    if not missing:
        return Result("every server", "ok", 0.0, Counts(passed=1))
    note = "not tested: " + ", ".join(missing)
    if servers.IN_CI or not servers.tested_servers():
        return Result("every server", "failed", 0.0, Counts(failed=1), note)
    return Result("every server", "skipped", 0.0, Counts(skipped=1), note)


def _show(results: Sequence[Result], seconds: float) -> None:
    print(f"\n{'step':<14} {'result':<8} {'seconds':>8} {'passed':>7} {'failed':>7} {'skipped':>8}")
    for name, status, took, counts, note in results:
        first_line = note.split("\n", maxsplit=1)[0]
        print(
            f"{name:<14} {status:<8} {took:>8.1f} "
            f"{counts.passed:>7} {counts.failed:>7} {counts.skipped:>8}  {first_line}".rstrip()
        )
    passed, failed, skipped = (sum(column) for column in zip(*(result.counts for result in results), strict=True))
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped in {seconds:.0f} s", flush=True)


def chosen(parts: Sequence[str]) -> list[Step]:
    """The steps of the named parts, or all, with what they need."""
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise SystemExit(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    wanted = set(parts or PARTS)
    if wanted & NEED_SERVERS:
        wanted.add("machine")
    return [step for step in STEPS if step.part in wanted]


def main(command: str, arguments: Sequence[str]) -> int:
    """Run what `./dev` was asked for."""
    if command == "test":
        return run(chosen(arguments))
    if command == "lint":
        return run([step for step in STEPS if step.part == "lint"])
    if command == "docs":
        return run(PICTURES if "--screenshot" in arguments else DOCS)
    step = next(step for step in STEPS if step.name == command)
    act = servers.unit if command == "unit" else servers.integration
    return run([step._replace(act=lambda log: act(log, *arguments))])


if __name__ == "__main__":
    stop_on_sigterm()
    sys.exit(main(sys.argv[1], sys.argv[2:]))
