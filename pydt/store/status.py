"""`status`: how far a plan is, from headers and the log: within a second for 10,000 rows."""

from __future__ import annotations

import contextlib
import os
import platform
from collections import Counter
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from pydt.base import PydtError, StoreError, holder
from pydt.store.bank import Bank
from pydt.store.cells import entries, relative, stems, torn
from pydt.store.descriptions import HALVES
from pydt.store.learning_check import weak
from pydt.store.log import rows_per_hour
from pydt.store.outputs import averaged, metric_output
from pydt.store.plan_record import Record
from pydt.store.rows import AUROC, VALUE
from pydt.store.store import Store

_MOST = 200  # rows whose values are read
_OTHERS = 20  # plans besides the one that is asked about


def status(dir: str | os.PathLike[str], plan: Any = None) -> dict[str, Any]:
    """How far a plan is. Only a damaged header that is met goes to quarantine.

    Args:
        dir: folder of a store.
        plan: a plan or its digest; None: the one with a design that was written last. Where none has a design, as in
            the store of a study, all of them: then numbers of rows are sums, and metrics are left out.

    Returns:
        plan: its digest or None (none, or several); name: as `Store.called`; plans: how many there are.
        rows: how many the plan has, and of those that count finished, failed, missing; reasons: how many rows failed
        for each; replaced: as `Store.replaced`; hardly_learnt: of some finished rows, how many hardly learnt their
        source and how many were looked at.
        tasks: name and metric of each, and over some finished rows mean and SD (None of one row) of the metric on the
        report half: a fraction, or of a `Measure` the number as rows store it, with its unit, scale and direction in
        "measure".
        stop: as `Store.stopped`; unmet: a stopping rule that did not end the plan, as `Store.rule`. rows_per_hour: of
        the last hour, from the log. bytes, files: of the folder. packed: cells in blocks. bank: entries and bytes of
        the bank. quarantined: files there.
        others: at most 20 other plans with a design: "name", "plan" (digest), "rows", "finished", "failed", "missing".
        writer: pid and host of the driver at work, if known. damaged: a list of {"file", "reason"} of what was met;
        `verify` looks at everything.

    Raises:
        StoreError: there is no store, or no such plan.
    """
    store = Store(dir)
    chosen = _chosen(store, plan)
    record = chosen[0] if len(chosen) == 1 else None
    found: dict[str, Any] = {
        "folder": str(store.folder),
        "plan": None,
        "name": None,
        "plans": len(stems(store, "plans", ".json")),
    }
    found |= {"rows": 0, "finished": 0, "failed": 0, "missing": 0, "reasons": {}, "replaced": [0, 0]}
    found["hardly_learnt"], found["tasks"] = [0, 0], []
    found["stop"] = found["unmet"] = None
    found["others"] = []
    damaged: dict[str, str] = {}
    if record is not None:
        found |= {"plan": record.digest, "name": store.called(record), "rows": len(record.rows)}
        try:
            found["stop"] = store.stopped(record)
        except StoreError as error:
            damaged[f"stops/{record.digest}.json"] = error.what
        unknown = bool(damaged)
        if not unknown:
            try:
                found["unmet"] = note if (note := store.rule(record)) is not None and not note["met"] else None
            except StoreError as error:
                damaged[f"rules/{record.digest}.json"] = error.what
        try:
            good, bad, missing = store.split(record, all=unknown)
            found |= {"finished": len(good), "failed": len(bad), "missing": len(missing)}
            found |= {"reasons": dict(Counter(reason for _, reason in bad).most_common())}
            if not unknown:
                found["replaced"] = list(store.replaced(record))
                seen = weak(store.glimpse(record))
                found["hardly_learnt"] = [len(seen.at), seen.judged]
                found["tasks"] = [one for task in record.tasks if (one := _metric(store, record, task)) is not None]
        except PydtError as error:  # its rows cannot be named, or one cannot be read
            damaged[error.where or f"plans/{record.digest}.json"] = error.what
        found["others"] = _others(store, record, damaged)
    elif chosen:
        _sum(store, chosen, found, damaged)
    files, size = _size(store.folder)
    found |= {"rows_per_hour": rows_per_hour(store), "bytes": size, "files": files}
    found["packed"] = sum(len(block.keys) for block in store.blocks())
    bank = Bank(store).sizes()
    found["bank"] = {"entries": len(bank), "bytes": sum(bank.values())}
    found["quarantined"] = len(entries(store.folder / "quarantine"))
    found["writer"] = _writer(store.folder / ".lock")
    damaged |= torn(store)
    damaged |= {relative(store, path): reason for path, reason in store.damaged.items()}
    found["damaged"] = [{"file": file, "reason": reason} for file, reason in damaged.items()]
    return found


def _metric(store: Store, record: Record, task: dict[str, Any]) -> dict[str, Any] | None:
    """What some finished rows reach on a task; None where they do not say."""
    if measure := task.get("settings", {}).get("measure"):
        values, metric = _values(store, record, task), task["name"]
    else:
        told = [one.get("report_accuracy") for one in store.glimpse(record, task=task["digest"])]
        values = [value for value in told if isinstance(value, float)]
        metric = "AUROC" if metric_output(task) == AUROC else "accuracy"
    if not values:
        return None
    sd = stdev(values) if len(values) > 1 else None
    found = {"name": task["name"], "metric": metric, "rows": len(values), "mean": fmean(values), "sd": sd}
    return found | ({"measure": {"name": task["name"], **measure}} if measure else {})


def _values(store: Store, record: Record, task: dict[str, Any]) -> list[float]:
    """A measure on the report half in at most `_MOST` finished rows, evenly spaced."""
    cells = record.cells[store.split(record)[0], [one["digest"] for one in record.tasks].index(task["digest"])]
    about = store.task(task["digest"])
    chosen = np.flatnonzero(about["half"] == HALVES["report"])
    weights, found = about["weights"][chosen], []
    for i in np.linspace(0, len(cells) - 1, min(_MOST, len(cells))).astype(int):
        key = cells[i].tobytes().hex()
        with contextlib.suppress(StoreError):  # a damaged row, which the store lists
            values = averaged(store.get(key), about["labels"], VALUE, str(store.path(key)), chosen)
            found.append(float(values.astype(np.float64) @ weights))
    return found


def _chosen(store: Store, plan: Any) -> list[Record]:
    if plan is not None:
        return [store.plan(plan)]
    plans = store.plans()
    found = [name for name, record in plans.items() if record.kind == "design"]
    if not found:
        return list(plans.values())
    written = {name: (store.folder / "plans" / f"{name}.json").stat().st_mtime_ns for name in found}
    return [plans[max(found, key=lambda name: (written[name], name))]]


def _others(store: Store, record: Record, damaged: dict[str, str]) -> list[dict[str, Any]]:
    """How far other plans with a design are."""
    found = []
    for other in [one for one in store.designs() if one.digest != record.digest][:_OTHERS]:
        try:
            good, bad, missing = store.split(other)
        except PydtError as error:
            damaged[error.where or f"plans/{other.digest}.json"] = error.what
            continue
        numbers = {"rows": len(other.rows), "finished": len(good), "failed": len(bad), "missing": len(missing)}
        found.append({"name": store.called(other), "plan": other.digest, **numbers})
    return sorted(found, key=lambda one: str(one["name"]))


def _sum(store: Store, records: list[Record], found: dict[str, Any], damaged: dict[str, str]) -> None:
    """Numbers of rows of several plans."""
    reasons = Counter[str]()
    for record in records:
        try:
            good, bad, missing = store.split(record)
        except PydtError as error:
            damaged[error.where or f"plans/{record.digest}.json"] = error.what
            continue
        for name, rows in (("finished", good), ("failed", bad), ("missing", missing)):
            found[name] += len(rows)
        reasons.update(reason for _, reason in bad)
    found["rows"] = found["finished"] + found["failed"] + found["missing"]
    found["reasons"] = dict(reasons.most_common())


def _size(folder: Path) -> tuple[int, int]:
    """Files below a folder, and their bytes."""
    files = size = 0
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    else:
                        files, size = files + 1, size + entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            continue  # a driver is at work
    return files, size


def _writer(lock: Path) -> dict[str, Any] | None:
    """The driver that the lock file names, unless it is dead (which only its own host can tell)."""
    if (found := holder(lock)) is None:
        return None
    pid, host = found
    if host == platform.node():
        try:
            os.kill(pid, 0)  # does nothing
        except ProcessLookupError:
            return None
        except PermissionError:  # another user's process
            pass
    return {"pid": pid, "host": host}
