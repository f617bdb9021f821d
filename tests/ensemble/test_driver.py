"""The driver: any executor gives the same bytes, only what is missing is computed, nothing outlives it.

More than 500 lines, as the module it tests: one state machine.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import stub_rows
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, contents, environment, go, log, plan, stub_row

import pydt.design
from pydt.base import ConfigError, DataError, PydtError, StoreError, TrainError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run, run_rows
from pydt.ensemble.code_version import versions
from pydt.ensemble.executors.call import WorkerDied
from pydt.ensemble.executors.local import Processes, places
from pydt.ensemble.executors.pickling import pack
from pydt.ensemble.interim import Interim
from pydt.ensemble.row import RowInput
from pydt.estimation import failure_test
from pydt.store import Outcome, Row, Store


def calls(folder: Path) -> Counter[str]:
    """How often each row was asked for which tasks: "seed task,task"."""
    return Counter(line.rsplit(" ", 1)[0] for line in (folder / "calls").read_text().splitlines())


# ---- the same store, whoever computes it


def test_same_bytes_with_any_number_of_workers_and_any_executor(tmp_path: Path) -> None:
    job = plan(30, folder=str(tmp_path), what="fail")
    go(job, tmp_path / "one", workers=1)
    expected = contents(tmp_path / "one")
    assert len(expected) == 30 + 4  # rows, store.json, task, plan, thumbnails
    go(job, tmp_path / "two", workers=2)
    with ThreadPoolExecutor(3) as threads:
        go(job, tmp_path / "threads", threads)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        go(job, tmp_path / "processes", processes)
    for name in ("two", "threads", "processes"):
        assert contents(tmp_path / name) == expected
    threads = {line.split()[-1] for line in (tmp_path / "calls").read_text().splitlines()[:60]}
    assert threads == {"1"}


def test_store_holds_what_the_runner_gave_in_plan_order(tmp_path: Path) -> None:
    job = plan(12)
    store = go(job, tmp_path, workers=2)
    np.testing.assert_array_equal(store.masks(), np.asarray(job.design))
    assert [row.seed for row in store.rows()] == list(range(1, 13))
    outputs = store.outputs("digits", "logit", "all")
    for i, row in enumerate(job.rows()):
        given = stub_rows.outcome(job.context, row, job.tasks[0])
        np.testing.assert_allclose(outputs[i], given.arrays["primitives"][0].mean(0), rtol=1e-6)
    assert Store(tmp_path).outputs(job.tasks[0], "logit", "all").tobytes() == outputs.tobytes()


def test_a_real_design_comes_back_from_the_store_alone(tmp_path: Path) -> None:
    design = pydt.design.design.random(GROUPS, 8, seed=3)
    go(Plan(StubSource(), design=design, recipe=StubRecipe(), tasks=[StubTask()]), tmp_path)
    store = Store(tmp_path)
    assert store.design().digest == design.digest
    np.testing.assert_array_equal(store.masks(), np.asarray(design))
    assert store.names() == tuple(f"class {i}" for i in range(GROUPS))
    assert store.plan().source_facts == {"name": "stub", "examples": 14}
    assert [store.thumbnails()[f"class {i}"].tolist() for i in range(5)] == [[[[[i]] * 3] * 3] * 2 for i in range(5)]
    assert len(store.thumbnails()) == 5  # the last unit has none


# ---- only what is missing


def test_only_missing_cells_are_computed_and_one_training_serves_all_its_tasks(tmp_path: Path) -> None:
    folder = str(tmp_path)
    store = go(plan(3, folder=folder), tmp_path / "s")
    assert calls(tmp_path) == {"1 digits": 1, "2 digits": 1, "3 digits": 1}
    go(plan(3, folder=folder), tmp_path / "s")
    assert calls(tmp_path).total() == 3

    go(plan(5, folder=folder), tmp_path / "s")  # more models
    assert calls(tmp_path) == {f"{i} digits": 1 for i in range(1, 6)}

    two = replace(plan(5, folder=folder), tasks=(StubTask(), StubTask("letters")))  # one more target
    Path(store.path(store.plan().keys[1][0])).unlink()  # and one cell lost
    both = go(two, tmp_path / "s")
    fresh = calls(tmp_path) - Counter({f"{i} digits": 1 for i in range(1, 6)})
    assert fresh == {"1 letters": 1, "2 digits,letters": 1, "3 letters": 1, "4 letters": 1, "5 letters": 1}
    assert both.outputs("letters").shape == both.outputs("digits").shape == (5, 20)
    assert not np.allclose(both.outputs("letters"), both.outputs("digits"))
    assert {plan.kind: len(plan.rows) for plan in both.plans().values()} == {"design": 5}
    assert len(both.plans()) == 3


def test_any_list_of_rows_shares_the_store(tmp_path: Path) -> None:
    job = plan(4, folder=str(tmp_path))
    go(job, tmp_path / "s")
    rows = [Row(job.design[2], 3, "drop top"), Row(np.ones(GROUPS), 77, "full"), Row(np.ones(GROUPS), 77, "full")]
    with ThreadPoolExecutor(1) as threads:
        arms = run_rows(
            job.source, "class", job.recipe, job.tasks, rows, tmp_path / "s", threads, runner=stub_row, progress=False
        )
    # the first is a row of the design under another kind, the last two are one training
    assert calls(tmp_path) - Counter({f"{i} digits": 1 for i in range(1, 5)}) == {"77 digits": 1}
    assert arms.finished().tolist() == [0, 1, 2]
    assert [row.kind for row in arms.rows()] == ["drop top", "full", "full"]
    design = Store(tmp_path / "s")
    np.testing.assert_array_equal(arms.outputs("digits", "correct")[0], design.outputs("digits", "correct")[2])


def test_damaged_rows_are_computed_again(tmp_path: Path) -> None:
    job = plan(6, folder=str(tmp_path))
    store = go(job, tmp_path / "s")
    expected = contents(tmp_path / "s")
    for i, keys in enumerate(store.plan().keys[:3]):
        data = bytearray(store.path(keys[0]).read_bytes())
        data[len(data) // (i + 2)] ^= 16
        store.path(keys[0]).write_bytes(data)
    (tmp_path / "s" / "plans" / f"{job.digest}.json").write_text("{}")
    go(job, tmp_path / "s")
    found = {name: data for name, data in contents(tmp_path / "s").items() if not name.startswith("quarantine")}
    assert found == expected
    assert calls(tmp_path) == {f"{i} digits": 2 if i <= 3 else 1 for i in range(1, 7)}
    assert len(list((tmp_path / "s" / "quarantine").iterdir())) == 4
    assert [entry["event"] for entry in log(tmp_path / "s")].count("quarantine") == 4


_race: list[Any] = []


def _racing(given: RowInput) -> Any:
    store, *cell = _race.pop()
    store.put(*cell)  # as a second driver would, on a machine that computes something else
    return stub_row(given)


def test_rows_that_give_other_numbers_are_refused(tmp_path: Path) -> None:
    job = plan(2)
    store = go(job, tmp_path)
    key = store.plan().keys[0][0]
    stored, metadata = store.get(key), store.metadata(key)
    store.path(key).unlink()
    _race.append(
        (Store(tmp_path), key, replace(stored, arrays={"primitives": stored.arrays["primitives"] * 2}), metadata)
    )
    with ThreadPoolExecutor(1) as threads, pytest.raises(StoreError, match="different result"):
        run(job, tmp_path, threads, runner=_racing, progress=False)


# ---- rows that do not go well


@pytest.mark.parametrize(
    ("what", "reason"), [("diverge", "epoch 3: loss is not finite"), ("fail", "diverged"), ("nan", "not all finite")]
)
def test_failed_rows_are_results(what: str, reason: str, tmp_path: Path) -> None:
    job = plan(21, what=what, folder=str(tmp_path))
    store = go(job, tmp_path / "s", workers=1)
    assert [i for i, _, _ in store.failed()] == [9, 19]
    assert all(reason in text for _, _, text in store.failed())
    assert len(store.masks()) == len(store.outputs("digits")) == 19
    assert failure_test(store)[:2] == (2, 21)
    go(job, tmp_path / "s")
    assert calls(tmp_path).total() == 21


@pytest.mark.parametrize("what", ["raise once", "die once"])
def test_bad_luck_is_tried_again(what: str, tmp_path: Path) -> None:
    go(plan(11), tmp_path / "whole")
    store = go(plan(11, what=what, folder=str(tmp_path)), tmp_path / "s", workers=2)
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")
    assert len(store.masks()) == 11
    assert calls(tmp_path)["10 digits"] == 2
    assert [entry["row"] for entry in log(tmp_path / "s") if entry["event"] in ("error", "worker died")] == [9]


@pytest.mark.parametrize(
    ("what", "tries", "pattern"),
    [
        ("raise", 2, r"row 9 \(design row with seed 10.*raised twice(?s:.*)KeyError: 'a bug in the runner'"),
        ("die", 3, r"row 9 .*killed its worker 3 times"),
        ("forget", 1, r"row 9 .*returned no outputs of 'digits'"),
        ("misshape", 1, r"row 9 .*shape \(4, 40\), not \(4, draws, 40\)"),
        ("unpicklable", 2, r"row 9 (?s:.*)pickle"),
        ("refuse", 1, r"row 9 .*images/7.png: truncated. delete it"),
    ],
)
def test_a_row_that_cannot_be_computed_is_named_and_the_rest_is_kept(
    what: str, tries: int, pattern: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError if what == "refuse" else PydtError, match=pattern):
        go(plan(10, what=what, folder=str(tmp_path)), tmp_path / "s", workers=1)
    assert calls(tmp_path)["10 digits"] == tries
    assert Store(tmp_path / "s").finished().tolist() == list(range(9))
    assert len(go(plan(10), tmp_path / "s").masks()) == 10


def test_a_row_that_takes_too_long_is_tried_again_and_then_named(tmp_path: Path) -> None:
    go(plan(11), tmp_path / "whole")
    go(plan(11, what="hang once", folder=str(tmp_path)), tmp_path / "once", workers=2, limit=2.0)
    assert contents(tmp_path / "once") == contents(tmp_path / "whole")
    with pytest.raises(PydtError, match=r"row 9 .*: ran longer than 1 s, 3 times\. allow more than limit=1"):
        go(plan(10, what="hang"), tmp_path / "s", workers=1, limit=1)
    assert Store(tmp_path / "s").finished().tolist() == list(range(9))
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="limit"):
            go(plan(1), tmp_path / "s", limit=wrong)
    with pytest.raises(ConfigError, match="only a process of its own"):
        go(plan(11), tmp_path / "s", limit=5.0)  # a thread cannot be ended


class Losing(ThreadPoolExecutor):
    """An executor on whose first few submissions a node is lost."""

    losses = 3

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        if self.losses == 0:
            return super().submit(function, *arguments, **named)
        self.losses -= 1
        lost: Future[Any] = Future()
        lost.set_exception(WorkerDied("its node was lost"))
        return lost


def test_rows_of_a_lost_node_are_tried_again(tmp_path: Path) -> None:
    with Losing(2) as executor:
        assert len(go(plan(10), tmp_path, executor).masks()) == 10
    died = [entry for entry in log(tmp_path) if entry["event"] == "worker died"]
    assert [entry["reason"] for entry in died] == ["its node was lost"] * 3


def test_images_that_source_and_target_share_are_told_of(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], source: Dataset, target: Target
) -> None:
    from pydt.training import Recipe, Task

    def said(own: Dataset, folder: str) -> str:
        recipe = Recipe(method="none", network="convnet-4")
        job = Plan(
            own, design=pydt.design.design.random(len(own.classes), 2), recipe=recipe, tasks=[Task(target, draws=1)]
        )
        with ThreadPoolExecutor(1) as threads:
            run(job, tmp_path / folder, threads, progress="json")
        return capsys.readouterr().err

    assert "in the target" not in said(source, "apart")
    images = np.concatenate([source.images, target.train.images[[3, 7]]])
    mixed = Dataset.from_arrays(images, [*source.labels.tolist(), 0, 1], source.classes)
    told = "2 images of the target 'four blobs' are in the source, pixel for pixel, as 2 source images: in 'c0' (1), "
    assert told in said(mixed, "mixed")
    assert [entry["event"] for entry in log(tmp_path / "mixed")].count("shared images") == 1
    assert not [entry for entry in log(tmp_path / "apart") if entry["event"] == "shared images"]


def test_a_gpu_that_is_not_there_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Dataset, target: Target
) -> None:
    import torch

    from pydt.training import Recipe, Task

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    job = Plan(source, design=pydt.design.design.random(8, 3), recipe=Recipe(device="cuda"), tasks=[Task(target)])
    with ThreadPoolExecutor(1) as threads, pytest.raises(ConfigError, match=r"row 0 .*no CUDA device.*device=\"cpu\""):
        run(job, tmp_path, threads, progress=False)


def test_runner_that_gives_no_arrays_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(PydtError, match="gave 'primitives' as function"):
        go(plan(10, what="unpicklable"), tmp_path)


def test_broken_foreign_executor_is_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    processes = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with processes, pytest.raises(PydtError, match="fresh executor"):
        go(plan(10, what="die"), tmp_path, processes, workers=1)
    assert len(Store(tmp_path).masks()) >= 8


def test_executor_that_was_shut_down_is_named(tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(1)
    threads.shutdown()
    with pytest.raises(PydtError, match="takes no more rows"):
        go(plan(2), tmp_path, threads)


def test_functions_of_the_script_travel_to_workers_with_what_they_read(tmp_path: Path) -> None:
    script = (
        "import sys, stub_rows, pydt\nseen = []\nweight = 3\n"
        "def mine(row): return {task.name: stub_rows.stub_row(row)[task.digest] for task in row.tasks if weight == 3}\n"
        "store = pydt.run(stub_rows.plan(2), sys.argv[1], runner=mine, workers=1, progress=False)\n"
        "pydt.run(stub_rows.plan(3), sys.argv[1], runner=lambda row: mine(row), workers=1, progress=False)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "own")], env=environment(), check=True)
    go(plan(2), tmp_path / "stub")
    go(plan(3), tmp_path / "stub")
    assert contents(tmp_path / "own") == contents(tmp_path / "stub")


# ---- what is asked


def test_unwritable_folder_is_named_before_any_training(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/store.*choose a folder"):
        go(plan(2, folder=str(tmp_path)), tmp_path / "file" / "store")
    assert not (tmp_path / "calls").exists()
    with pytest.raises(ConfigError, match="workers"):
        go(plan(2), tmp_path / "s", workers=0)


# ---- what is shown and logged


def test_log_has_a_line_per_row(tmp_path: Path) -> None:
    go(plan(11, what="warn"), tmp_path, workers=1)
    lines = {entry["row"]: entry for entry in log(tmp_path)}
    assert sorted(lines) == list(range(11))
    assert lines[9]["warnings"] == ["RuntimeWarning: something odd"]
    assert lines[0]["warnings"] == []
    assert lines[0]["pid"] != os.getpid()
    assert lines[0]["seconds"] >= 0
    assert lines[0]["host"]
    assert lines[0]["versions"]["numpy"] == np.__version__
    assert lines[0]["versions"]["pillow"] == PIL.__version__


def test_changed_code_is_recorded_and_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(plan(2), tmp_path)
    real = versions()
    changed = {**real, "code": "99.0+new", "torch": "9.9"}
    for module in ("driver", "executors.call"):
        monkeypatch.setattr(f"pydt.ensemble.{module}.versions", lambda: changed)
    with ThreadPoolExecutor(1) as threads:
        store = run(plan(3), tmp_path, threads, runner=stub_row)
    assert len(store.masks()) == 3
    facts = {name: store.metadata(store.plan().keys[2][0])[name] for name in ("code", "torch", "torchvision", "isa")}
    assert facts == {name: changed[name] for name in facts}
    entry = next(entry for entry in log(tmp_path) if entry["event"] == "code changed")
    assert entry["now"] == {"code": "99.0+new", "torch": "9.9"}
    assert entry["stored"] == {name: [real[name]] for name in entry["now"]}
    said = capsys.readouterr().err
    assert "some stored rows were computed by other code" in said
    assert f"torch {real['torch']} (now 9.9)" in said
    assert "isa" not in said


def test_interrupt_carries_its_message(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        go(plan(12, what="stop"), tmp_path)
    stored = len(list(tmp_path.glob("rows/*/*.safetensors")))
    assert stored >= 9
    assert caught.value.args == (f"stopped: {stored} of 12 rows are stored in {tmp_path}; the same command continues",)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_stored_rows_are_read_is_heard(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are there, and the old ones are read to the last bit before the end."""
    go(plan(10), tmp_path)

    def read(self: Interim, seconds: float = 0.0) -> bool:
        os.kill(os.getpid(), number)
        return True

    monkeypatch.setattr(Interim, "read", read)
    with pytest.raises(KeyboardInterrupt if number == signal.SIGINT else SystemExit) as caught:
        go(plan(12), tmp_path)
    if number == signal.SIGINT:
        assert "12 of 12 rows are stored" in str(caught.value)
    else:
        assert caught.value.code == 143


# ---- the machine


def test_one_worker_for_every_gpu_or_threads_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert places(StubRecipe(threads=3)) == (2, ())
    assert places(StubRecipe(threads=9)) == (1, ())
    for gpus, expected in ((0, (1, ())), (1, (1, ("0",))), (3, (3, ("0", "1", "2")))):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert places(StubRecipe(device="cuda")) == expected
    assert places(StubRecipe(device="cuda:1")) == (1, ())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7,5,4")
    assert places(StubRecipe(device="cuda")) == (3, ("7", "5", "4"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-8932f937, GPU-0a1b,GPU-77")
    assert places(StubRecipe(device="cuda")) == (3, ("GPU-8932f937", "GPU-0a1b", "GPU-77"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,-1,1")  # CUDA reads as far as the first that is none
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert places(StubRecipe(device="cuda")) == (2, ("0", "2"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-aa,MIG-bb,MIG-cc")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # CUDA shows one of them
    assert places(StubRecipe(device="cuda")) == (3, ("MIG-aa", "MIG-bb", "MIG-cc"))


def test_workers_keep_the_memory_of_a_batch_and_see_one_gpu_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MALLOC_MMAP_THRESHOLD_", raising=False)
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1234")
    with Processes(1, 1, pack((stub_row, None)), ("5", "6")) as pool:
        names = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "CUDA_VISIBLE_DEVICES")
        assert [pool.submit(os.getenv, name).result() for name in names] == ["33554432", "1234", "5"]


class Counting(ThreadPoolExecutor):
    open = most = 0

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        future = super().submit(function, *arguments, **named)
        self.open += 1
        self.most = max(self.most, self.open)
        future.add_done_callback(lambda _: setattr(self, "open", self.open - 1))
        return future


def test_few_rows_are_in_flight(tmp_path: Path) -> None:
    with Counting(2) as threads:
        go(plan(40, seconds=0.002), tmp_path, threads)
    assert 2 <= threads.most <= 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_drivers_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    script = """
import sys, stub_rows
from pathlib import Path
from pydt.ensemble.progress import Progress
from pydt.ensemble import run
from pydt.ensemble import RowInput
sizes, row = {}, Progress.row
def watched(self, *given):
    row(self, *given)
    if self.done % 500 == 0:
        lines = Path("/proc/self/status").read_text().splitlines()
        sizes[self.done] = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))
Progress.row = watched
run(stub_rows.plan(10000), sys.argv[1], workers=2, runner=stub_rows.stub_row, progress=False)
print(sizes[1000], sizes[10000])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], env=environment(), capture_output=True, text=True, check=True
    )
    early, late = map(int, done.stdout.split())
    assert late - early < 4096, f"{early} kB after 1,000 rows, {late} kB after 10,000"


# ---- real rows


def test_real_rows_are_equal_bytes_whoever_trains_them(tmp_path: Path, source: Dataset, target: Target) -> None:
    import torch

    from pydt.training import Recipe, Task, train, transfer

    probe, tuned = Task(target, shots=3, draws=2), Task(target, mode="finetune", shots=2, draws=1, name="tuned")
    recipe = Recipe(network="convnet-2", epochs=1, batch_size=32)
    job = Plan(source, design=pydt.design.design.random(8, 6, seed=1), recipe=recipe, tasks=[probe, tuned])
    store = run(job, tmp_path / "one", workers=1, progress=False)
    run(job, tmp_path / "two", workers=2, progress=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)  # of the driver; the recipe says one
    try:
        with ThreadPoolExecutor(1) as threads:
            run(job, tmp_path / "thread", threads, progress=False)
    finally:
        torch.set_num_threads(before)
    expected = contents(tmp_path / "one" / "rows")
    assert len(set(expected.values())) == len(expected) == 12
    for name in ("two", "thread"):
        assert contents(tmp_path / name / "rows") == expected

    # and they are what the two functions give, from data that were only in memory
    assert store.failed() == []
    assert (tmp_path / "one" / "data").is_dir()
    row = job.rows()[1]
    trained = train(source, job.context.keep_examples(row), recipe, row.seed)
    for column, task in enumerate(job.tasks):
        given, scalars = transfer(trained, task, row.seed), store.scalars(task)
        np.testing.assert_array_equal(store.get(store.plan().keys[1][column]).arrays["primitives"], given.primitives)
        assert scalars[1] == {**trained.metrics, **given.scalars}
        right = store.outputs(task, "correct", "report").astype(np.float64)
        weights = store.examples(task, "report")["weights"]
        np.testing.assert_allclose(right @ weights, [s["report_accuracy"] for s in scalars], rtol=1e-6)


def test_other_code_is_refused_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(plan(3), tmp_path, same_code=True)
    real = versions()
    for room in ("driver", "keeping"):
        monkeypatch.setattr(f"pydt.ensemble.{room}.versions", lambda: {**real, "torch": "9.9"})
    with pytest.raises(StoreError, match=rf"other code: torch {re.escape(real['torch'])} \(now 9\.9\)"):
        go(plan(4), tmp_path, same_code=True)
    with pytest.raises(PydtError, match=r"row 0 .*computes by other code .*torch .*now 9\.9"):  # a worker's
        go(plan(4), tmp_path / "fresh", same_code=True)
    with ThreadPoolExecutor(1) as threads:  # else it is said, once, and not refused
        assert len(run(plan(6), tmp_path, threads, runner=stub_row).masks()) == 6
    assert capsys.readouterr().err.count(" computes by other code than this process: torch ") == 1


def test_pictures_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go(plan(2), tmp_path)
    pictures = contents(tmp_path / "thumbnails")
    monkeypatch.delattr(StubSource, "pictured")
    go(plan(3), tmp_path)
    monkeypatch.undo()
    (path,) = (tmp_path / "thumbnails").iterdir()
    path.write_bytes(b"")
    go(plan(3), tmp_path)
    assert contents(tmp_path / "thumbnails") == pictures


WRONG: dict[str, tuple[Any, Any]] = {
    "no names": ([np.zeros((4, 1, 40), np.float32)], {}),
    "scalars without names": ({}, [1.0]),
    "a scalar that is none": ({}, {"x": object()}),
    "an odd name": ({"__metadata__": np.zeros(3)}, {}),
    "a number that no file holds": ({"x": np.zeros(3, np.longdouble)}, {}),
}


def _wrong(given: RowInput) -> Any:
    context, tasks = given.context, given.tasks
    good = stub_row(given)[tasks[0].digest].arrays
    arrays, scalars = WRONG[context.recipe.what]
    return {tasks[0].digest: Outcome({**good, **arrays} if isinstance(arrays, dict) else arrays, scalars)}


@pytest.mark.parametrize("what", WRONG)
def test_outcomes_that_cannot_be_stored_name_their_row(what: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads, pytest.raises(PydtError, match=r"row 0 .*its runner gave") as caught:
        run(plan(2, what=what), tmp_path, threads, runner=_wrong, progress=False)
    assert caught.value.mend
    assert not list(tmp_path.glob("rows/*/*.safetensors"))


def _unreadable_name(given: RowInput) -> Any:
    raise TrainError(f"{os.fsdecode(bytes([97, 128]))} is no image", "epoch 1")


def test_a_reason_with_other_bytes_than_utf8_is_stored(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        store = run(plan(2), tmp_path, threads, runner=_unreadable_name, progress=False)
    assert [reason for _, _, reason in store.failed()] == ["epoch 1: a\\udc80 is no image"] * 2


def test_a_plan_that_was_never_run_into_a_store_is_told_so(tmp_path: Path) -> None:
    store = go(plan(2), tmp_path)
    with pytest.raises(StoreError, match=r"no plan '[0-9a-f]{8}'\. run it into this store first"):
        store.plan(plan(3))
