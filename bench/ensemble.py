"""Rows per minute against a plain script: `python bench/ensemble.py [PART ...] --json FILE`.

The plan is the quickstart's. The plain script is what one writes by hand for it: torchvision's transforms in a Dataset,
a DataLoader, the same network, SGD, schedule and probes in plain PyTorch, one process per core with one thread each.
`prepared` is a better one: all images are normalised once, and batches are sliced from a tensor.

    row       processor time of one row, all sides in turns in one process that has the allocator's settings of pydt's
              workers; the accuracies are compared on the same masks: means must agree within three standard errors
    run       whole runs on 1 and 2 workers: rows per minute between the first and the last row that finished
    overhead  seconds per row of a run whose rows are given and not trained: what is not training or transfer
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch start their pools
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import torch
from sample import five_shot_plan
from torch import nn
from torch.nn import functional as F

import pydt
from pydt.ensemble import RowInput, run_row
from pydt.ensemble.executors.local import MALLOC
from pydt.store import Outcome

Case = dict[str, Any]
MEAN, STD, BATCH, EPOCHS, LR = 0.2, 0.35, 128, 6, 1.0


# ---- the plain script -----------------------------------------------------------------------------------------------
class Characters(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        from torchvision import transforms

        self.images, self.labels = images, labels
        # the v2 transforms take twice as long
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize([MEAN], [STD])])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, at: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.images[at]), int(self.labels[at])


def network() -> nn.Module:
    layers: list[nn.Module] = [nn.AvgPool2d(2)]
    before = 1
    for width in (24, 48, 96):
        layers += [nn.Conv2d(before, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        before = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def loaded(images: np.ndarray, labels: np.ndarray, train: bool) -> Callable[[], Iterator[Any]]:
    data = Characters(images, labels)
    loader = torch.utils.data.DataLoader(data, BATCH if train else 512, shuffle=train, drop_last=train)
    return lambda: iter(loader)


def prepared(images: np.ndarray, labels: np.ndarray, train: bool) -> Callable[[], Iterator[Any]]:
    ready = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD
    known = torch.from_numpy(labels)

    def epoch() -> Iterator[Any]:
        count, size = len(ready), BATCH if train else 512
        order = torch.randperm(count) if train else torch.arange(count)
        last = count - count % size if train else count
        return ((ready[order[i : i + size]], known[order[i : i + size]]) for i in range(0, last, size))

    return epoch


def plain_row(facts: dict[str, Any], keep: np.ndarray, seed: int, batches: Any = loaded) -> float:
    """Trains one model and probes it on the digits; the accuracy on the report half, mean over the draws."""
    torch.manual_seed(seed)
    kept = facts["labels"][keep]
    classes, labels = np.unique(kept, return_inverse=True)
    body = network()
    model = nn.Sequential(body, nn.Linear(96, len(classes)))
    epoch = batches(facts["images"][keep], labels, True)
    steps = len(labels) // BATCH * EPOCHS
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, cycle_momentum=False)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.1)
    model.train()
    for _ in range(EPOCHS):
        for images, wanted in epoch():
            optimizer.zero_grad()
            loss_of(model(images), wanted).backward()
            optimizer.step()
            schedule.step()
    body.eval()
    with torch.no_grad():
        every = torch.cat([body(images) for images, _ in batches(facts["digits"], facts["digit labels"], False)()])
    every, digits = every.double(), torch.from_numpy(facts["digit labels"])
    judged = torch.from_numpy(facts["judged"])
    right = []
    for draw in torch.from_numpy(facts["draws"]):
        few = every[draw]
        mean, std = few.mean(0), few.std(0, correction=0)
        std[std == 0] = 1
        z, wanted = (few - mean) / std, F.one_hot(digits[draw], 10).double()
        gram = z.T @ z + 10 * torch.eye(z.shape[1], dtype=z.dtype)
        weights = torch.linalg.solve(gram, z.T @ (wanted - wanted.mean(0)))
        guess = ((every[judged] - mean) / std @ weights + wanted.mean(0)).argmax(1)
        right.append((guess == digits[judged]).double().mean())
    return float(torch.stack(right).mean())


def what_is_known(plan: pydt.Plan) -> dict[str, Any]:
    """The plan as arrays."""
    task = plan.tasks[0]
    described, digits = task.target.described(), task.target.train
    return {
        "images": np.asarray(plan.source.images),
        "labels": plan.source.labels,
        "digits": np.asarray(digits.images),
        "digit labels": digits.labels,
        "judged": described["ids"][described["half"] == 1],
        "draws": task.few_shot(),
    }


def keeps(plan: pydt.Plan) -> list[tuple[np.ndarray, int]]:
    return [(plan.context.keep_examples(row), row.seed) for row in plan.rows()]


def _in_pool(job: tuple[np.ndarray, int]) -> float:
    plain_row(_facts, *job)
    return time.time()


_facts: dict[str, Any] = {}


def _prepare(facts: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    _facts.update(facts)


# ---- parts ----------------------------------------------------------------------------------------------------------
def case(name: str, ours_s: list[float], peer: str, peer_s: list[float]) -> Case:
    a, b = statistics.median(ours_s), statistics.median(peer_s)
    spread = [f"({min(times):.4f}-{max(times):.4f})" for times in (ours_s, peer_s)]
    print(f"{name:<40} {a:9.4f} {spread[0]:<17} {peer:<26} {b:9.4f} {spread[1]:<17} {b / a:6.2f}x", flush=True)
    return {"case": name, "ours_s": a, "peer": peer, "peer_s": b, "ratio": b / a, "checked": True}


def row(rows: int) -> list[Case]:
    plan = five_shot_plan(max(rows, 20))
    facts, jobs = what_is_known(plan), list(zip(plan.rows(), keeps(plan), strict=True))[:rows]

    def ours(at: int) -> float:
        (outcome,) = run_row(RowInput(plan.context, jobs[at][0], plan.tasks, Path)).values()
        return float(outcome.scalars["report_accuracy"])

    sides: dict[str, Callable[[int], float]] = {
        "ours": ours,
        "plain script": lambda at: plain_row(facts, *jobs[at][1]),
        "plain script, prepared": lambda at: plain_row(facts, *jobs[at][1], prepared),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    found: dict[str, list[float]] = {name: [] for name in sides}
    for call in sides.values():  # loads what is loaded once
        call(0)
    for at in range(rows):
        for name, call in sides.items():
            start = time.process_time()
            found[name].append(call(at))
            times[name].append(time.process_time() - start)
    for name in list(sides)[1:]:
        apart = np.subtract(found["ours"], found[name])
        error = apart.std(ddof=1) / len(apart) ** 0.5
        means = " %, ".join(f"{side} {100 * np.mean(found[side]):.2f}" for side in ("ours", name))
        print(f"accuracy: {means} %, {rows} rows; apart by {100 * apart.mean():+.2f} +- {100 * error:.2f}")
        assert abs(apart.mean()) <= 3 * error, "the accuracies differ by more than noise"
    return [case(f"one row, {rows} rows", times["ours"], name, times[name]) for name in list(sides)[1:]]


def run(rows: int, repeats: int) -> list[Case]:
    plan = five_shot_plan(rows)
    facts, jobs = what_is_known(plan), keeps(plan)

    def seconds(ends: list[float], workers: int) -> float:
        """A row, from when every worker has finished one: importing torch is not in it."""
        ends = sorted(ends)[workers - 1 :]
        return (ends[-1] - ends[0]) / (len(ends) - 1)

    def ours(workers: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            pydt.run(plan, folder, workers=workers, progress=False)
            lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
            return seconds([line["time"] for line in lines if line.get("event") == "row"], workers)

    def plain(workers: int) -> float:
        with multiprocessing.get_context("spawn").Pool(workers, _prepare, (facts,)) as pool:
            return seconds(list(pool.imap_unordered(_in_pool, jobs)), workers)

    times: dict[str, list[float]] = {"ours, 1": [], "ours, 2": [], "plain, 2": []}
    for _ in range(repeats):
        times["ours, 1"].append(ours(1))
        times["ours, 2"].append(ours(2))
        times["plain, 2"].append(plain(2))
        rates = [f"{name} workers {60 / values[-1]:.1f}" for name, values in times.items()]
        print(f"rows a minute: {', '.join(rates)}", flush=True)
    return [
        case(f"2 workers, {rows} rows, a row", times["ours, 2"], "plain script, 2 processes", times["plain, 2"]),
        case(f"2 workers, {rows} rows, a row", times["ours, 2"], "1 worker", times["ours, 1"]),
    ]


def given(row: RowInput) -> dict[str, Outcome]:
    """A runner that trains nothing, with outputs of the usual size."""
    scalars = dict.fromkeys(("source_loss", "source_accuracy", "score_accuracy", "report_accuracy"), 0.5)
    outcomes = {}
    for task in row.tasks:
        shape = (4, len(task.few_shot()), len(task.target.described()["ids"]))
        values = np.random.default_rng(row.seed).standard_normal(shape, np.float32)
        outcomes[task.digest] = Outcome({"primitives": values}, scalars)
    return outcomes


def overhead(rows: int, repeats: int) -> list[Case]:
    import ensemble as importable  # workers do not run the script itself

    few, many = five_shot_plan(20), five_shot_plan(20 + rows)

    def seconds(plan: pydt.Plan) -> float:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            pydt.run(plan, folder, workers=1, progress=False, runner=importable.given)
            return time.perf_counter() - start

    times = [(seconds(many) - seconds(few)) / rows for _ in range(repeats)]
    return [case(f"overhead, {rows} rows, a row", times, "target: 3 % of a second", [0.03])]


PARTS = {"row": row, "run": run, "overhead": overhead}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all by default")
    parser.add_argument("--json", type=Path, help="where to write the list of cases")
    parser.add_argument("--rows", type=int, default=20, help="trained rows of a part")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    parts = options.parts or list(PARTS)
    if "row" in parts and not set(MALLOC) <= set(os.environ):  # glibc reads them at the start of a process
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **MALLOC})
    torch.set_num_threads(1)
    print(f"{platform.machine()}, {os.cpu_count()} cores, numpy {np.__version__}, torch {torch.__version__}")
    cases = row(options.rows) if "row" in parts else []
    for name in MALLOC:  # pydt's workers set them by themselves, a plain script does not
        os.environ.pop(name, None)
    cases += run(options.rows, options.repeats) if "run" in parts else []
    cases += overhead(300, options.repeats) if "overhead" in parts else []
    if options.json:
        options.json.write_text(json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
