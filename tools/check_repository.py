"""Checks of the repository itself: links, anchors and files that documents name exist; nothing belongs to a machine.

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


def dead(path: Path, text: str, listed: list[str]) -> list[str]:
    """Links, anchors, paths and names of Python files in a document that lead nowhere."""
    found = []
    for link, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", text):
        place = path.parent / link if link else path
        heads = re.findall(r"^#+ (.+)$", place.read_text(encoding="utf-8"), re.M) if anchor and place.is_file() else []
        slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
        if not place.exists() or (anchor and anchor not in slugs):
            found.append(f"{link}#{anchor}")
    rooms = "|".join({name.split("/")[1] for name in listed if re.match(r"pydt/\w+/", name)})
    for name in re.findall(rf"`((?:bench|docs|tools|tests|csrc|pydt|{rooms})/[\w./-]+|test_\w+\.py)", text):
        known = (ROOT / name).exists() or (ROOT / "pydt" / name).exists() or any(f"/{name}" in one for one in listed)
        if not known and not re.search("NAME|ROOM", name):
            found.append(name)
    return found


def main() -> int:
    """Print every fault; return how many there are."""
    git = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = git.stdout.splitlines()
    faults = []
    for name in listed:
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        lines = text.splitlines()
        if path.suffix == ".md":
            faults += [f"{name}: {one!r} is not there" for one in dead(path, text, listed)]
        faults += [
            f"{name}:{i}: {found[0]!r} belongs to one machine"
            for i, line in enumerate(lines, 1)
            if (found := FOREIGN.search(line))
        ]
    print("\n".join(faults) or "the repository is in order")
    return len(faults)


if __name__ == "__main__":
    sys.exit(min(main(), 1))
