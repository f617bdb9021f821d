"""A small study of real networks that learn in a tenth of a second each.

`python -c "import stub_studies; stub_studies.main()" FOLDER WORKERS` is a driver of it that tests can kill.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from stub_images import blobs
from stub_rows import log
from stub_store import contents

from pydt.data import Dataset, Target
from pydt.studies import Study, run_study
from pydt.training import FineTune, Recipe

SEEDS = 2
RATES = (0.01, 0.1, 1.0)


def images(name: str, each: int, classes: int, seed: int) -> Dataset:
    made, labels = blobs(each, classes, seed)
    return Dataset.from_arrays(made, labels, name=name)


def target(name: str, seed: int) -> Target:
    return Target(images(name, 40, 4, seed), pool=60, validation=20)


def small(**changes: Any) -> Study:
    """Two sources, sizes, methods, targets, modes, shots and seeds, scratch, three rates: 9 arms, 18 rows."""
    about: dict[str, Any] = {
        "sources": {"a": images("a", 12, 4, 1), "b": images("b", 10, 6, 2)},
        "methods": {name: Recipe("convnet-4", name, steps=3, batch_size=8) for name in ("supervised", "simclr")},
        "targets": {"t": target("t", 3), "u": target("u", 4)},
        "sizes": (16, 32),
        "shots": (1, 3),
        "modes": {"probe": {}, "finetune": {"finetune": FineTune(epochs=1)}},
        "draws": 2,
        "seeds": SEEDS,
        "rates": RATES,
        "scratch": Recipe("convnet-4", "none"),
    }
    return Study(**{**about, **changes})


def told(folder: Path) -> dict[str, bytes]:
    """All files of a store but the log and those of data, whose index says when it was written."""
    return {name: data for name, data in contents(folder).items() if not name.startswith("data/")}


def events(folder: Path, name: str = "row") -> list[dict[str, Any]]:
    return [entry for entry in log(folder) if entry["event"] == name]


def networks(folder: Path, since: int = 0) -> Counter[str]:
    """Where the networks of the rows came from, of all rows in the log but the first `since`."""
    return Counter(entry["network"] for entry in events(folder)[since:])


def main() -> None:
    folder, workers = sys.argv[1:]
    run_study(small(), Path(folder), workers=int(workers), progress=False)
