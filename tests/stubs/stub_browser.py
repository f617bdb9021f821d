"""A page in a real browser: what it says, what the console says of it, and how wide it is."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest


class Browser:
    """Loads pages in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        found = shutil.which("chromium") or shutil.which("google-chrome")
        if found is None:
            pytest.skip("no chromium")
        self.program = found

    def load(self, text: str, width: int) -> tuple[str, str]:
        """The document after loading, and the log, in which faults stand as CONSOLE."""
        page = self.folder / "page.html"
        page.write_text(text, encoding="utf-8")
        command = [self.program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        command += [f"--user-data-dir={self.folder / 'profile'}", "--enable-logging=stderr", "--v=0", "--dump-dom"]
        command += ["--virtual-time-budget=3000", f"--window-size={width},900", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return done.stdout, done.stderr

    def wide(self, text: str, width: int) -> int:
        """How wide the page is in a frame of a width, as windows have a smallest one.

        The copy measures itself, so it has no policy.
        """
        measure = "<script>parent.postMessage(document.documentElement.scrollWidth, '*')</script>"
        freed = re.sub(r"<meta http-equiv[^>]*>", "", text).replace("</body>", measure + "</body>")
        (self.folder / "freed.html").write_text(freed, encoding="utf-8")
        tell = "onmessage = e => document.title = 'wide ' + e.data"
        frame = f"<iframe src='freed.html' style='width:{width}px;height:900px;border:0'></iframe>"
        dom, _ = self.load(f"<title>none</title><script>{tell}</script>{frame}", width)
        found = re.search(r"<title>wide (\d+)</title>", dom)
        assert found is not None
        return int(found.group(1))
