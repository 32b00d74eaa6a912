"""A headless Chromium that tests talk to over a pipe, in the DevTools protocol: no driver, no package, no port."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds of silence


class Browser:
    """One page. `complaints` are its console errors, uncaught exceptions and requests beyond the file itself."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read, self._rest, self._last = write, read, b"", 0
        self._loaded: set[str] = set()
        self.complaints: list[str] = []
        target = self._send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        self.send("Page.setLifecycleEventsEnabled", {"enabled": True})

    def open(self, file: Path, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Load `file` from its path, as a double click does."""
        phone = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.send("Emulation.setDeviceMetricsOverride", phone)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.complaints.clear()
        answer = self.send("Page.navigate", {"url": file.as_uri()})
        assert "errorText" not in answer, answer
        while answer["loaderId"] not in self._loaded:  # the page before it may say late that it is loaded
            self._take(self._message())

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression; it comes from outside the page, so its policy does not stop it."""
        answer = self.send("Runtime.evaluate", {"expression": script, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in answer:
            raise AssertionError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def point(self, x: float, y: float) -> None:
        self.send("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key})

    def screenshot(self, file: Path, *, whole: bool = False) -> None:
        shot = self.send("Page.captureScreenshot", {"captureBeyondViewport": whole} | self._size(whole))
        file.write_bytes(base64.b64decode(shot["data"]))

    def _size(self, whole: bool) -> dict[str, Any]:
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}} if whole else {}

    def send(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        return self._send(method, parameters or {}, sessionId=self._session)

    def _send(self, method: str, parameters: dict[str, Any], **more: str) -> dict[str, Any]:
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters, **more}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != message["id"]:
            self._take(answer)
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _take(self, event: dict[str, Any]) -> None:
        method, told = event.get("method", ""), event.get("params", {})
        if method == "Page.lifecycleEvent":
            self._loaded |= {told["loaderId"]} if told["name"] == "load" else set()
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(told["exceptionDetails"]))
        elif method == "Log.entryAdded" or (
            method == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning")
        ):
            self.complaints.append(str(told))
        elif method == "Network.requestWillBeSent" and not told["request"]["url"].startswith(
            ("file:", "data:", "about:")
        ):
            self.complaints.append(f"asked for {told['request']['url']}")

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], PATIENCE)[0]:
                raise AssertionError(f"the browser said nothing for {PATIENCE} s")
            part = os.read(self._read, 1 << 20)
            if not part:
                raise AssertionError("the browser has gone")
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with its profile in `folder`; the test is skipped where there is none."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no chromium here to look at the page in")
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"]
    arguments += [f"--user-data-dir={folder / 'profile'}", "--remote-debugging-pipe"]
    # Chromium reads from descriptor 3 and writes to 4.
    shell = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}', "bash", program, *arguments]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(shell, pass_fds=(theirs_in, theirs_out), stdout=log, stderr=log)
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield Browser(ours_out, ours_in)
    finally:
        os.close(ours_out)
        process.terminate()
        process.wait(timeout=30)
        os.close(ours_in)
