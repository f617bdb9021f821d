"""What a row by command costs beyond the command itself: `python bench/command.py [PART ...] --json FILE`.

The program is `cp OUTPUTS {out}`, rows keep about half of 20,000 examples: `{keep}` has 10,000 ids. Part `row`: one
worker, fsync on; the time between two rows that the driver stores, less that of the same `cp` started by `subprocess`
alone; the two in turns, medians. The stored outputs are compared with the copied file, bit by bit. Part `parts`: what
of it is the keep file, the supervisor, reading the outputs, and storing them. Both also as processor time, which other
jobs of the machine disturb least.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from pydt import Command, Design, Groups, Measure, Plan, run
from pydt.ensemble.plan import Context
from pydt.ensemble.row import RowInput
from pydt.ensemble.runners.child import run_child
from pydt.ensemble.runners.keep_file import KEEP_FORMATS
from pydt.ensemble.runners.out_file import read_out
from pydt.store import Outcome, Row, Store

EXAMPLES, GROUPS, OUTPUTS = 20_000, 20, 10_000
Case = dict[str, Any]


def plan(given: Path, keep: str, rows: int) -> Plan:
    members = [f"group {i % GROUPS:02d}" for i in range(EXAMPLES)]
    source = Groups(members, ids=[f"example {i:06d}" for i in range(EXAMPLES)])
    masks = np.random.default_rng(0).permuted(np.tile(np.arange(GROUPS) < GROUPS // 2, (rows, 1)), axis=1)
    recipe = Command(["cp", str(given), "{out}"], keep=keep)
    seeds = tuple(range(rows))  # rows of equal masks are rows of their own
    return Plan(source, design=Design.explicit(masks), recipe=recipe, tasks=[Measure("m", OUTPUTS)], seeds=seeds)


def processor() -> float:
    """Seconds of processor time of this process and its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def alone(given: Path, scratch: Path) -> float:
    start = time.perf_counter()
    subprocess.run(["cp", str(given), str(scratch / "copy.npy")], check=True)
    return time.perf_counter() - start


def rows(given: Path, scratch: Path, keep: str, repeats: int) -> Case:
    """Whole rows, from driver to store."""
    whole, bare = [], []
    values = np.load(given)
    for turn in range(5):  # in turns with the program alone
        folder = scratch / f"{keep} {turn}"
        count = max(1, repeats // 5) + 2
        store = run(plan(given, keep, count), folder, workers=1, progress=False)
        if not (store.outputs("m", "value", "all") == values).all():
            raise SystemExit("stored outputs are not those of the program")
        events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        times = [event["time"] for event in events if event["event"] == "row"]
        whole += np.diff(times)[1:].tolist()  # the first row waits for the worker's start
        bare += [alone(given, scratch) for _ in range(count - 2)]
    row, program = statistics.median(whole), statistics.median(bare)

    def used(count: int) -> float:
        start = processor()
        run(plan(given, keep, count), scratch / f"{keep} of {count}", workers=1, progress=False)
        return processor() - start

    few = used(2)  # the start of the worker
    both, start = (used(2 + repeats) - few) / repeats, processor()
    for _ in range(repeats):
        alone(given, scratch)
    return {
        "case": f"row by command, keep={keep!r}, 10,000 kept ids, 10,000 outputs",
        "row_ms": 1e3 * row,
        "program_ms": 1e3 * program,
        "overhead_ms": 1e3 * (row - program),
        "overhead_processor_ms": 1e3 * (both - (processor() - start) / repeats),
        "n": len(whole),
        "checked": True,
    }


def parts(given: Path, scratch: Path, repeats: int) -> list[Case]:
    """What the overhead consists of."""
    asked = plan(given, "ids", 1)
    context = Context(asked.source, asked.by, asked.recipe, asked.tasks)
    mask = np.arange(GROUPS) < GROUPS // 2
    measure, store, number = asked.tasks[0], Store.create(scratch / "parts"), 0

    def row() -> RowInput:
        return RowInput(context, Row(mask, 1), context.tasks, lambda: scratch)

    def supervised() -> None:
        with open(scratch / "log", "w+b") as log:
            run_child(["cp", str(given), str(scratch / "copy.npy")], str(scratch), os.environ, log, None)

    def put() -> None:
        nonlocal number
        number += 1
        outcome = Outcome({"value": measure.values(np.load(given))})
        store.put(f"{number:064x}", outcome, {"task": measure.digest, "seed": 1})

    jobs: dict[str, Callable[[], Any]] = {
        f"keep file, {keep}": lambda form=form: form.write(row(), scratch / f"keep{form.suffix}")  # type: ignore[misc]
        for keep, form in KEEP_FORMATS.items()
    }
    jobs |= {
        "program under its supervisor": supervised,
        "outputs read": lambda: measure.values(read_out("npy", given, ["m"])["m"]),
        "outputs stored, fsync": put,
    }
    cases, bare = [], []
    for name, job in jobs.items():
        job()
        times, used = [], []
        for _ in range(repeats):
            start, before = time.perf_counter(), processor()
            job()
            times.append(time.perf_counter() - start)
            used.append(processor() - before)
            if name.startswith("program"):
                bare.append(alone(given, scratch))
        took, busy = statistics.median(times), statistics.median(used)
        cases.append({"case": name, "ms": 1e3 * took, "processor_ms": 1e3 * busy, "n": repeats})
    return [*cases, {"case": "program alone", "ms": 1e3 * statistics.median(bare), "n": repeats}]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("parts", nargs="*", choices=["row", "parts", []], default=[])
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="where to make the stores; default: a temporary folder")
    options = parser.parse_args()
    chosen, cases = options.parts or ["row", "parts"], []
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        scratch = Path(folder)
        given = scratch / "outputs.npy"
        np.save(given, np.random.default_rng(1).random(OUTPUTS, np.float32))
        if "row" in chosen:
            cases += [rows(given, scratch, keep, options.repeats) for keep in ("ids", "npy")]
        if "parts" in chosen:
            cases += parts(given, scratch, options.repeats)
    for case in cases:
        print(
            ", ".join(f"{name} {value:.4g}" if isinstance(value, float) else f"{value}" for name, value in case.items())
        )
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
