"""A page that is used: keys, clicks and questions over a browser's DevTools pipe."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowRight": 39}


class Live:
    """One page; `log` gets what the console says, `requests` what is asked of the network or the disk."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._rest, self._number = to, back, b"", 0
        self.log: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", {})

    def open(
        self, page: Path, width: int = 1280, height: int = 900, dark: bool = False, media: str = "screen", at: str = ""
    ) -> None:
        """Load a file, at a place of it, in a window of a size, and wait until it has loaded."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self._call("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})
        for url in ("about:blank", page.as_uri() + at):  # a new address within an open page would load nothing
            self.log, self.requests, self._loaded = [], [], False
            self._call("Page.navigate", {"url": url})
            while not self._loaded:
                self._read()

    def ask(self, expression: str) -> Any:
        """The value of an expression in the page."""
        asked = {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True}
        found = self._call("Runtime.evaluate", asked)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """A key, or the letters of a text."""
        for one in [key] if key in _KEYS else key:
            named = {"key": one, "code": one, "windowsVirtualKeyCode": _KEYS.get(one, 0)}
            text = {"Enter": "\r"}.get(one, "" if one in _KEYS and one != " " else one)
            self._call("Input.dispatchKeyEvent", {"type": "keyDown", **named, **({"text": text} if text else {})})
            self._call("Input.dispatchKeyEvent", {"type": "keyUp", **named})

    def click(self, selector: str) -> None:
        """A click on what a selector finds first."""
        self.ask(f"document.querySelector({json.dumps(selector)}).click()")

    def picture(self, path: Path, whole: bool = False) -> None:
        """A picture of the window, or of the whole page."""
        data = self._call("Page.captureScreenshot", {"captureBeyondViewport": whole})["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, given: dict[str, Any]) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": given}
        if not method.startswith("Target."):
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            reply = self._read()
            if reply.get("id") == self._number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]

    def _read(self) -> dict[str, Any]:
        """The next message; what the page did is noted on the way."""
        end = time.monotonic() + 60
        while b"\0" not in self._rest:
            ready = select.select([self._back], [], [], max(0, end - time.monotonic()))[0]
            data = os.read(self._back, 1 << 20) if ready else b""
            assert data, "the browser does not answer"
            self._rest += data
        text, self._rest = self._rest.split(b"\0", 1)
        message: dict[str, Any] = json.loads(text)
        told = message.get("params", {})
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded":
                self.log.append(json.dumps(told))
            case "Network.requestWillBeSent" if not told["request"]["url"].startswith("data:"):
                self.requests.append(told["request"]["url"])
        return message


@contextmanager
def live(folder: Path) -> Iterator[Live]:
    """A page in a browser that ends with the block; skips the test where there is none."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium")
    (theirs, to), (back, own) = os.pipe(), os.pipe()
    theirs, own = (fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs, own))  # clear of 3 and 4

    def connect() -> None:
        os.dup2(theirs, 3)
        os.dup2(own, 4)

    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe"]
    command += ["--disable-background-networking", "--disable-component-update", f"--user-data-dir={folder / 'live'}"]
    with subprocess.Popen(command, preexec_fn=connect, pass_fds=(3, 4), stderr=subprocess.DEVNULL) as browser:
        try:
            yield Live(to, back)
        finally:
            browser.terminate()
