# Copyright (c) 2026, the dbfleet.maintenance contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A headless Chromium, spoken to by its DevTools protocol through two pipes: pages looked at, asked and pictured."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PATIENCE = 3000  # looks, 10 ms apart
PROGRAMS = ("chromium-headless-shell", "chromium", "google-chrome", "chromium-browser")
# Nothing of its own goes to the network; the page's requests would be told all the same.
OPTIONS = (
    "--headless",
    "--no-sandbox",  # root in a container has none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)


def program() -> str | None:
    """The browser that is there, or that DBFLEET_CHROMIUM names."""
    return os.environ.get("DBFLEET_CHROMIUM") or next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One browser with one page. Messages of the protocol end with a zero byte; over there they use 3 and 4."""

    def __init__(self, path: str) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="dbfleet-browser-", ignore_cleanup_errors=True)
        self._rest, self._last, self._session = b"", 0, ""
        self.requests: list[str] = []  # addresses that the page asked for since it was opened
        self.refused: list[str] = []  # why some of them were not, by the page's own policy or anything else
        self.logged: list[str] = []  # what the page complained about
        self._process, self._to, self._from = self._start(path)
        try:
            (target,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
            attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
            self._session = attached["sessionId"]
            for domain in ("Page", "Network", "Runtime", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.close()
            raise

    def _start(self, path: str) -> tuple[subprocess.Popen[bytes], int, int]:
        """The process, and the ends of the pipes to it and from it."""
        pipes = [os.pipe(), os.pipe()]
        (there, to), (back, here) = pipes
        # Out of the way of 3 and 4, where the shell puts them.
        far = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (there, here)]
        command = [path, *OPTIONS, f"--user-data-dir={self._home.name}", "about:blank"]
        wrapped = ["bash", "-c", f'exec "$@" 3<&{far[0]} 4>&{far[1]} {far[0]}<&- {far[1]}>&-', "bash", *command]
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(wrapped, pass_fds=far, stdin=quiet, stdout=quiet, stderr=quiet)
        for end in (there, here, *far):
            os.close(end)
        return process, to, back

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_about: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends it, whatever became of it."""
        with contextlib.suppress(RuntimeError, OSError):  # it may be gone
            self._session = ""
            self.call("Browser.close")
        os.close(self._to)
        os.close(self._from)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._home.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Waits for its answer; raises RuntimeError for an error."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            more = os.read(self._from, 1 << 16)
            if not more:
                raise RuntimeError(f"the browser ended with {self._process.wait(10)}")
            self._rest += more
        line, self._rest = self._rest.split(b"\0", 1)
        message = dict(json.loads(line))
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message.get("method") == "Network.loadingFailed":
            self.refused.append(message["params"].get("blockedReason") or message["params"]["errorText"])
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
            self.logged.append(json.dumps(message["params"]))
        return message

    def open(self, path: Path, *, width: int, height: int = 900, dark: bool = False, media: str = "screen") -> None:
        """A file, on a screen of so many CSS pixels, or on paper."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])
        self.requests, self.refused, self.logged = [], [], []
        self.call("Page.navigate", url=path.as_uri())
        self.until(lambda: self.ask("document.readyState") == "complete")

    def ask(self, expression: str) -> Any:
        """The value of an expression of JavaScript in the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"]))
        return found["result"].get("value")

    def until(self, holds: Callable[[], bool]) -> None:
        """Waits; raises RuntimeError when it never does."""
        for _attempt in range(PATIENCE):
            if holds():
                return
            self.ask("new Promise(done => setTimeout(done, 10))")
        raise RuntimeError("waited in vain")

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def paper(self, path: Path) -> None:
        """A PDF of the page as it is printed."""
        path.write_bytes(base64.b64decode(self.call("Page.printToPDF", printBackground=False)["data"]))
