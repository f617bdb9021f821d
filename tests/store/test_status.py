"""How far a plan is."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from stub_store import KEY, computed, store_wrong, two_tasks

from pydt.base import StoreError
from pydt.store import Store, status
from pydt.store import compact as compact_store

compact = partial(compact_store, fewest=2)


def test_status_says_how_far_a_plan_is(tmp_path: Path) -> None:
    assert status(computed(tmp_path / "none", two_tasks(3), []).folder)["rows_per_hour"] == 0
    job = two_tasks(10)
    store = computed(tmp_path, job, range(7), failures=(1, 4, 5))
    store_wrong(store, store.plan().keys[5][0], reason="loss of 1")
    now = time.time()
    for row, ago in enumerate([9000, 1800, 1700, 20]):
        store.log(event="row", row=row, time=now - ago)
    store.log(event="other")
    with open(tmp_path / "log.jsonl", "ab") as file:
        file.write(b'{"event": "to')
    found = status(tmp_path)
    assert found["rows_per_hour"] == pytest.approx(4, abs=0.1)  # two more since the first, half an hour ago
    numbers = {name: found[name] for name in ("plan", "rows", "finished", "failed", "missing", "stop", "quarantined")}
    about = {"rows": 10, "finished": 4, "failed": 3, "missing": 3, "quarantined": 0}
    assert numbers == {"plan": job.digest, **about, "stop": None}
    assert found["reasons"] == {"loss of 1": 2, "loss of 4": 1}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (found["files"], found["bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert found["writer"] is None
    json.dumps(found)

    store.note_stop(None, {"rows": 6})
    compact(tmp_path)
    store.path(KEY).parent.mkdir(parents=True, exist_ok=True)
    with store.writing():
        found = status(tmp_path)
    assert found["writer"]["pid"]
    assert (found["finished"], found["failed"], found["missing"]) == (3, 3, 0)
    assert found["stop"] == store.stopped()
    assert found["stop"]["rows"] == 6
    assert found["packed"] == 14

    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    lock = {"pid": ended.pid, "host": platform.node()}
    (tmp_path / ".lock").write_text(json.dumps(lock))  # as a killed driver leaves it
    assert status(tmp_path)["writer"] is None
    (tmp_path / ".lock").write_text(json.dumps({**lock, "host": "elsewhere"}))
    assert status(tmp_path)["writer"] == {**lock, "host": "elsewhere"}


def test_status_of_several_plans_is_of_the_latest_or_the_one_named(tmp_path: Path) -> None:
    first, second = two_tasks(3), two_tasks(4)
    computed(tmp_path, first)
    time.sleep(0.02)
    computed(tmp_path, second, [0])
    assert status(tmp_path)["rows"] == 4
    assert status(tmp_path, first)["rows"] == 3
    assert status(tmp_path)["plans"] == 2
    Store.create(tmp_path / "empty")
    assert status(tmp_path / "empty")["plan"] is None
    with pytest.raises(StoreError, match="holds no store"):
        status(tmp_path / "nothing")
