"""Checks of the repository itself: no dead link, nothing that belongs to a machine.

Run from anywhere: python tools/check_repository.py
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Absolute paths of a home or working folder, and addresses of a private package index.
FOREIGN = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work)/[\w.]|https?://[\w.-]*(?:pypi|index)[\w.-]*\.(?:local|internal)"
)


def main() -> int:
    """Print every fault; return how many there are."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    faults = []
    for name in filter(None, listed):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        if path.suffix == ".md":
            links = re.findall(r"\]\(([^)#:]+)\)|`((?:bench|docs|tools|tests|csrc|pydt)/[\w./]+)`", text)
            faults += [
                f"{name}: {link or code!r} is not there"
                for link, code in links
                if not (path.parent / link if link else ROOT / code).exists()
            ]
        faults += [
            f"{name}:{i}: {found[0]!r} belongs to one machine"
            for i, line in enumerate(lines, 1)
            if (found := FOREIGN.search(line))
        ]
    print("\n".join(faults) or "the repository is in order")
    return len(faults)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
