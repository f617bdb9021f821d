"""Rows on Ray: the same bytes as on this machine, whatever is lost on the way."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stub_rows
from stub_cluster import (
    equal_real_parts,
    equal_rows_of_ones_own,
    equal_though_hidden,
    hidden_parts,
    workers_of_parts,
)
from stub_processes import alive, wait_for
from stub_rows import contents, held_row, log, plan, stub_row

from pydt.base import ConfigError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run, run_parts
from pydt.ensemble.executors import ray as executor
from pydt.ensemble.executors.call import MOST, WorkerDied, work
from pydt.ensemble.executors.ray import Ray
from pydt.store import Row

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,
    # Ray's own, about the future of one of its settings
    pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning"),
]
STUBS = str(Path(stub_rows.__file__).parent)
MEMORY = 100 << 20  # of an object store; more would be taken from /dev/shm at once


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A cluster of one node with one CPU, to which tests add another; its workers find the runners of the tests."""
    from ray.cluster_utils import Cluster

    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = STUBS
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
    head = {"num_cpus": 1, "object_store_memory": MEMORY, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()
    os.environ.pop("PYTHONPATH")
    if before is not None:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray puts the folder that a driver was started in before the installed packages: not the one with the sources."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def pool(cluster: Any) -> Iterator[Ray]:
    with Ray(cluster.address) as pool:
        yield pool


def go(job: Plan, folder: Path, executor: Any = None, **more: Any) -> Any:
    return run(job, folder, executor, runner=stub_row, progress=False, **more)


def test_rows_are_equal_bytes_and_one_node_may_be_lost(cluster: Any, tmp_path: Path) -> None:
    go(plan(10), tmp_path / "here", workers=1)
    node = cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
    with Ray(cluster.address) as pool:
        assert pool._max_workers == 2

        def held() -> list[int]:
            """The processes that are in the middle of a row."""
            return [pid for path in tmp_path.glob("held *") if Path(f"/proc/{(pid := int(path.name[5:]))}").exists()]

        def lose() -> None:
            wait_for(lambda: len(held()) == 2, 60)
            cluster.remove_node(node, allow_graceful=False)
            wait_for(lambda: len(held()) == 1, 60)
            (tmp_path / "go").touch()

        losing = threading.Thread(target=lose)
        losing.start()
        store = run(plan(10, folder=str(tmp_path)), tmp_path / "ray", pool, runner=held_row, progress=False)
        losing.join()
    assert len(store.masks()) == 10
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    died = [entry["reason"] for entry in log(tmp_path / "ray") if entry["event"] == "worker died"]
    assert died
    assert "Died" in died[0] or "Crashed" in died[0] or "Lost" in died[0]
    assert not ray.is_initialized()


def test_a_worker_that_dies_costs_its_row_one_life(pool: Ray, tmp_path: Path) -> None:
    store = go(plan(11, what="die once", folder=str(tmp_path)), tmp_path / "s", pool)
    assert len(store.masks()) == 11
    died = [entry for entry in log(tmp_path / "s") if entry["event"] == "worker died"]
    assert [(entry["row"], entry["reason"]) for entry in died] == [(9, "exit status -9")]


def test_an_overlong_row_is_ended(pool: Ray) -> None:
    parcel = packed(plan(1, seconds=60))
    with pytest.raises(WorkerDied, match=r"^ran longer than 0\.5 s$"):
        pool.submit(work, parcel, Row([1] * 6, 1), (0,), limit=0.5).result(60)
    assert "outcomes" in pool.submit(work, packed(plan(1)), Row([1] * 6, 1), (0,), limit=30.0).result(60)


def packed(job: Plan) -> bytes:
    import pickle

    return pickle.dumps((stub_row, job.context))


def test_the_parcel_travels_once(pool: Ray, monkeypatch: pytest.MonkeyPatch) -> None:
    put: list[int] = []
    real = ray.put
    monkeypatch.setattr(ray, "put", lambda data: put.append(len(data)) or real(data))
    parcel = packed(plan(1))
    for future in [pool.submit(work, parcel, Row([1] * 6, seed), (0,)) for seed in range(1, 9)]:
        assert "outcomes" in future.result(60)
    assert put == [len(parcel)]


def test_cancelling_ends_the_row_and_the_queue(pool: Ray, tmp_path: Path) -> None:
    parcel = packed(plan(1, seconds=120))
    futures = [pool.submit(work, parcel, Row([1] * 6, seed), (0,)) for seed in (1, 2)]
    time.sleep(3)
    assert all(future.cancel() for future in futures)
    assert pool.submit(os.getpid).result(30) != os.getpid()


def test_real_rows_are_equal_bytes_also_where_the_data_are_not(
    cluster: Any, tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there(job: Plan, cache: Path) -> None:
        with Ray(cluster.address, options={"runtime_env": {"env_vars": {"PYDT_CACHE": str(cache)}}}) as pool:
            assert len(run(job, tmp_path / "there", pool, progress=False).masks()) == 4

    equal_though_hidden(source, target, tmp_path, monkeypatch, executor, there)


def test_real_parts_are_equal_bytes(pool: Ray, tmp_path: Path, source: Dataset, target: Target) -> None:
    equal_real_parts(source, target, tmp_path, pool)


def test_workers_serve_many_parts_and_a_death_costs_one(pool: Ray, tmp_path: Path) -> None:
    first, more = workers_of_parts(tmp_path, pool, 15)
    assert first <= pool._max_workers
    assert more <= 1
    assert len(pool._held) <= MOST


def test_the_store_of_objects_holds_few_data_sets(cluster: Any, tmp_path: Path) -> None:
    cache = {"PYDT_CACHE": str(tmp_path / "cache")}
    with Ray(cluster.address, workers=1, options={"runtime_env": {"env_vars": cache}}) as pool:
        store = run_parts(hidden_parts(tmp_path, 12), tmp_path / "s", pool, runner=stub_row, progress=False)
        assert len(pool._data) <= 2 + MOST
    assert len(list(store.folder.glob("plans/*"))) == 12


def test_rows_of_ones_own_are_equal_bytes(pool: Ray, tmp_path: Path) -> None:
    equal_rows_of_ones_own(tmp_path, pool)


def test_a_cluster_without_room_or_out_of_reach_is_named(cluster: Any) -> None:
    with pytest.raises(ConfigError, match=r"1 CPUs and 1 GPUs; there are [12] and 0"):  # a lost node counts for a while
        Ray(cluster.address, gpus=1)
    assert not ray.is_initialized()
    with pytest.raises(ConfigError, match="give positive numbers"):
        Ray(cluster.address, workers=0)


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    import subprocess
    import sys

    marker = f"ray{os.getpid()}"
    script = (
        "import sys, stub_rows; from pydt.cluster import Ray; from pydt.ensemble import run\n"
        "with Ray(workers=2) as pool:\n"
        "    run(stub_rows.plan(400, seconds=0.05), sys.argv[1], pool, runner=stub_rows.stub_row, progress=False)\n"
    )
    environment = {**os.environ, "PYTHONPATH": STUBS, "PYDT_TEST_MARKER": marker}
    environment.pop("RAY_ADDRESS", None)
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s")],
        env=environment,
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    assert wait_for(lambda: len(list(tmp_path.glob("s/rows/*/*.safetensors"))) > 3, 60)
    os.killpg(driver.pid, signal.SIGINT)
    assert "the same command continues" in driver.communicate(timeout=60)[1].decode()
    assert wait_for(lambda: not alive(marker), 10), alive(marker)
