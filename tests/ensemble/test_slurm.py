"""Rows in jobs of a batch system: submitit's own stand-ins for Slurm, whose jobs may end at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from stub_cluster import (
    equal_real_parts,
    equal_rows_of_ones_own,
    equal_though_hidden,
    hidden_parts,
    hide,
    workers_of_parts,
)
from stub_processes import alive, wait_for
from stub_rows import MARKER, contents, environment, go, log, parts, plan, stub_row

from pydt.base import ConfigError, PydtError
from pydt.data import Dataset, Target
from pydt.ensemble import Plan, run, run_parts
from pydt.ensemble.executors import slurm as cluster
from pydt.ensemble.executors.call import MOST, WorkerDied, work
from pydt.ensemble.executors.mailbox import Listener, Mail
from pydt.ensemble.executors.slurm import Slurm
from pydt.store import Row

submitit = pytest.importorskip("submitit")
pytestmark = pytest.mark.slow


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Slurm]:
    pool = Slurm(tmp_path / "jobs", cluster="local", workers=2, poll=0.2)
    yield pool
    pool.shutdown(cancel_futures=True)
    assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["logs"]


def beats(pool: Slurm) -> dict[int, dict[str, Any]]:
    """What the jobs said last, by slot."""
    found = {}
    for path in (pool.folder / "beats").glob("[0-9]"):
        with contextlib.suppress(ValueError):
            found[int(path.name)] = json.loads(path.read_bytes())
    return found


def life(pool: Slurm, slot: int) -> str:
    """Name of what runs in a slot, empty before it has said anything."""
    return str(beats(pool).get(slot, {}).get("life", ""))


def holding(file: str) -> None:
    """A call that tells which job it is in, and does not end."""
    Path(f"{file}.tmp").write_text(str(os.getppid()))
    os.rename(f"{file}.tmp", file)
    time.sleep(600)


def calls(job: Any) -> bytes:
    return pickle.dumps((stub_row, job.context))


def test_rows_are_equal_bytes(pool: Slurm, tmp_path: Path) -> None:
    assert pool._max_workers == 2
    go(plan(30), tmp_path / "here", workers=1)
    go(plan(30), tmp_path / "jobs made", pool)
    assert contents(tmp_path / "jobs made") == contents(tmp_path / "here")
    pids = {entry["pid"] for entry in log(tmp_path / "jobs made")}
    assert len(pids) == 2
    go(plan(40), tmp_path / "jobs made", pool)  # the same jobs take another parcel
    assert pool.submit(os.getpid).result(60) in pids


def test_real_parts_are_equal_bytes(pool: Slurm, tmp_path: Path, source: Dataset, target: Target) -> None:
    equal_real_parts(source, target, tmp_path, pool)


class Watched(Slurm):
    """Counts the parcels and data sets in its folder with each call."""

    most = data = 0

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Any:
        future = super().submit(function, *arguments, **named)
        self.most = max(self.most, len(list((self.folder / "parcels").iterdir())))
        self.data = max(self.data, len(list((self.folder / "data").iterdir())))
        return future


def test_rows_that_share_a_gpu_of_a_job(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"cluster": "debug", "workers": 2, "gpus_per_node": 2}
    for share, rows in ((1, 4), (3, 12)):
        with Slurm(tmp_path / str(share), gpu_share=share, **asked) as pool:
            assert pool._max_workers == rows
    with pytest.raises(ConfigError, match="gpu_share 0 is out of range"):
        Slurm(tmp_path / "none", gpu_share=0, **asked)


def test_workers_serve_many_parts_and_a_death_costs_one(tmp_path: Path) -> None:
    with Watched(tmp_path / "jobs", cluster="local", workers=1, poll=0.2) as pool:
        assert workers_of_parts(tmp_path, pool, 19) == (1, 1)
    assert 1 < pool.most <= 2 + MOST  # two are sent ahead


def test_the_folder_holds_few_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYDT_CACHE", str(tmp_path / "cache"))
    with Watched(tmp_path / "jobs", cluster="local", workers=1, poll=0.2) as pool:
        run_parts(hidden_parts(tmp_path, 12), tmp_path / "s", pool, runner=stub_row, progress=False)
    assert len({entry["part"] for entry in log(tmp_path / "s") if entry["event"] == "row"}) == 12
    assert 1 < pool.data <= 2 + MOST
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 12


def test_only_other_threads_need_other_workers(tmp_path: Path) -> None:
    asked = [*parts(12, threads=1)[:6], *parts(12, threads=2)[6:]]
    with Slurm(tmp_path / "jobs", cluster="local", workers=1, poll=0.2) as pool:
        run_parts(asked, tmp_path / "s", pool, runner=stub_row, progress=False)
    pids = [entry["pid"] for entry in log(tmp_path / "s") if entry["event"] == "row"]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [6, 6]


def test_rows_of_ones_own_are_equal_bytes(pool: Slurm, tmp_path: Path) -> None:
    equal_rows_of_ones_own(tmp_path, pool)


# submitit leaves the logs of its debug executor open
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <_io.FileIO name=.*DEBUG_:pytest.PytestUnraisableExceptionWarning"
)
def test_debug_executor_runs_jobs_in_threads(tmp_path: Path) -> None:
    go(plan(12), tmp_path / "here", workers=1)
    with Slurm(tmp_path / "jobs", cluster="debug", workers=2) as pool:
        go(plan(12), tmp_path / "there", pool)
    assert contents(tmp_path / "there") == contents(tmp_path / "here")


def test_a_lost_job_costs_a_life_and_is_replaced(pool: Slurm, tmp_path: Path) -> None:
    lost, file = pool.submit(holding, str(tmp_path / "job")), tmp_path / "job"
    assert wait_for(file.exists, 60)
    job = int(file.read_text())
    assert wait_for(lambda: job in [beat["pid"] for beat in beats(pool).values()], 60)
    slot, before = next((slot, beat["life"]) for slot, beat in beats(pool).items() if beat["pid"] == job)
    for other in [pool.submit(time.sleep, 0.1) for _ in range(3)]:
        other.result(60)
    os.kill(job, signal.SIGKILL)
    with pytest.raises(WorkerDied, match=r"no sign of life|its job ended"):
        lost.result(60)
    assert wait_for(lambda: life(pool, slot) not in ("", before), 60)
    assert pool.submit(abs, -3).result(60) == 3


def test_a_slurm_that_refuses_for_a_while_is_asked_again(pool: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.submit(abs, 1).result(60)
    assert wait_for(lambda: len(beats(pool)) == 2, 60)
    real, asked = submitit.AutoExecutor.submit, []

    def submit(self: Any, job: Any) -> Any:
        asked.append(job)
        if len(asked) < 4:
            raise subprocess.CalledProcessError(1, "sbatch", "Socket timed out on send/recv operation")
        return real(self, job)

    monkeypatch.setattr(submitit.AutoExecutor, "submit", submit)
    before = life(pool, 0)
    os.kill(beats(pool)[0]["pid"], signal.SIGKILL)
    assert wait_for(lambda: len(asked) > 1, 60)
    assert pool.submit(abs, -3).result(60) == 3  # the other job goes on
    assert wait_for(lambda: life(pool, 0) not in ("", before), 60)
    assert len(asked) == 4


def test_the_driver_gives_a_sign_while_slurm_makes_it_wait(pool: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered, done = threading.Event(), threading.Event(), submitit.LocalJob.done

    def slow(self: Any, *how: Any) -> bool:
        asked.set()
        answered.wait(60)
        return bool(done(self, *how))

    monkeypatch.setattr(submitit.LocalJob, "done", slow)
    pool.submit(abs, 1)
    assert asked.wait(60)
    seen = (pool.folder / "driver").read_bytes()
    assert wait_for(lambda: (pool.folder / "driver").read_bytes() != seen, 20)
    answered.set()


def test_a_row_whose_data_come_after_the_end_of_all_jobs_is_told(
    pool: Slurm, tmp_path: Path, source: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYDT_CACHE", str(tmp_path / "cache"))
    data = source.save(tmp_path / "source")
    hide(data)
    asked, over, listen, write = threading.Event(), threading.Event(), Listener.listen, cluster.write_atomic

    def sending(folder: str, stream: Any) -> None:
        asked.set()
        over.wait(60)

    def listening(self: Listener) -> Any:
        if asked.is_set():
            raise PydtError("all jobs ended")
        return listen(self)

    def stopping(path: Path, content: bytes) -> None:
        over.set()
        wait_for(future.done, 60)
        write(path, content)

    monkeypatch.setattr(cluster, "send", sending)
    monkeypatch.setattr(cluster, "write_atomic", stopping)  # the first thing that happens once all jobs are given up
    monkeypatch.setattr(Listener, "listen", listening)
    context = SimpleNamespace(tasks=(), source=data)
    future = pool.submit(work, pickle.dumps((stub_row, context)), Row([1], 1), ())
    with pytest.raises(PydtError, match="all jobs ended"):
        future.result(120)


def test_a_preempted_job_is_started_again_and_its_rows_wait(pool: Slurm, tmp_path: Path) -> None:
    pool.submit(abs, 1).result(60)
    assert wait_for(lambda: len(beats(pool)) == 2, 60)
    started = tmp_path / "started"
    rows = [pool.submit(once, str(started), number) for number in range(2)]
    assert wait_for(lambda: len(list(tmp_path.glob("started*"))) == 2, 60)
    lives = {number: beat["life"] for number, beat in beats(pool).items()}
    os.kill(beats(pool)[0]["pid"], signal.SIGUSR2)  # as Slurm does before it ends a job
    assert sorted(row.result(90) for row in rows) == [0, 1]
    assert wait_for(lambda: beats(pool)[0]["life"] != lives[0], 60)
    assert beats(pool)[1]["life"] == lives[1]


def once(started: str, number: int) -> int:
    """Long the first time."""
    path = Path(f"{started} {number}")
    if not path.exists():
        path.touch()
        time.sleep(5)
    return number


def test_short_rows_do_not_wait_behind_a_long_one(pool: Slurm) -> None:
    long = pool.submit(time.sleep, 600)
    short = [pool.submit(time.sleep, 0.01) for _ in range(20)]
    for future in short:
        future.result(60)
    assert long.cancel()


def test_an_overlong_row_is_ended_and_its_job_goes_on(pool: Slurm) -> None:
    with pytest.raises(WorkerDied, match=r"^ran longer than 0\.5 s$"):
        pool.submit(work, calls(plan(1, seconds=60)), Row([1] * 6, 1), (0,), limit=0.5).result(60)
    lives = {number: beat["life"] for number, beat in beats(pool).items()}
    for seed in (1, 2, 3, 4):
        assert "outcomes" in pool.submit(work, calls(plan(1)), Row([1] * 6, seed), (0,), limit=30.0).result(60)
    assert {number: beat["life"] for number, beat in beats(pool).items()}.items() >= lives.items()


def test_a_worker_that_dies_costs_its_row_one_life(pool: Slurm, tmp_path: Path) -> None:
    store = go(plan(11, what="die once", folder=str(tmp_path)), tmp_path / "s", pool)
    assert len(store.masks()) == 11
    died = [entry for entry in log(tmp_path / "s") if entry["event"] == "worker died"]
    assert [(entry["row"], entry["reason"]) for entry in died] == [(9, "exit status -9")]


def test_only_a_whole_answer_counts(pool: Slurm, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch = Mail.fetch

    def damaging(self: Mail, place: str) -> Any:
        path = self.folder / place
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return fetch(self, place)

    with monkeypatch.context() as patch:  # of this process only: the jobs are others
        patch.setattr(Mail, "fetch", damaging)
        with pytest.raises(WorkerDied, match=r"cannot be read .*damaged message"):
            pool.submit(abs, 2).result(60)
    assert pool.submit(abs, -2).result(60) == 2


def test_real_rows_are_equal_bytes_also_where_the_data_are_not(
    tmp_path: Path, source: Dataset, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def there(job: Plan, cache: Path) -> None:
        monkeypatch.setenv("PYDT_CACHE", str(cache))
        with Slurm(tmp_path / "jobs", cluster="local", workers=1) as pool:
            run(job, tmp_path / "there", pool, progress=False)

    equal_though_hidden(source, target, tmp_path, monkeypatch, cluster, there)


def test_jobs_that_cannot_start_are_told_with_what_they_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "module_paths", lambda: 3)  # what a job cannot use
    with Slurm(tmp_path / "jobs", cluster="local", workers=2, poll=0.2) as pool:
        future = pool.submit(abs, 1)
        with pytest.raises(PydtError, match=r"without having done anything(?s:.*)TypeError"):
            future.result(120)
        with pytest.raises(RuntimeError, match="after shutdown"):
            pool.submit(abs, 1)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    for wanted, text in (
        ({"workers": 0}, "give the number of jobs"),
        ({"workers": 1, "nodes": 2}, "raise workers="),
        ({"workers": 1, "slurm_pratition": "gpu"}, "pratition"),
        ({"workers": 1, "timeout_min": "long"}, "timeout_min"),
        ({"workers": 1, "cluster": "lokal"}, "lokal"),
        ({"workers": 1, "cluster": "slurm"}, "srun"),
    ):
        with pytest.raises(ConfigError, match=text):
            Slurm(tmp_path, **{"cluster": "local", **wanted})
    pool = Slurm(tmp_path, cluster="local", workers=3, cpus_per_task=4, slurm_gpus_per_node=8)
    assert pool._max_workers == 24
    pool.shutdown()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_outlives_the_driver(number: int, tmp_path: Path, marker: str) -> None:
    script = (
        "import sys, stub_rows; from pydt.cluster import Slurm; from pydt.ensemble import run\n"
        "with Slurm(sys.argv[2], cluster='local', workers=2) as pool:\n"
        "    run(stub_rows.plan(400, seconds=0.05), sys.argv[1], pool, runner=stub_rows.stub_row, progress=False)\n"
    )
    driver = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "s"), str(tmp_path / "jobs")],
        env=environment(marker),
        start_new_session=True,
        stderr=subprocess.PIPE,
    )
    assert wait_for(lambda: len(list(tmp_path.glob("s/rows/*/*.safetensors"))) > 3, 60)
    (os.killpg if number == signal.SIGINT else os.kill)(driver.pid, number)
    if number == signal.SIGINT:
        assert "the same command continues" in driver.communicate(timeout=60)[1].decode()
    assert wait_for(lambda: not set(alive(marker)) - {driver.pid}, 10), alive(marker)
    driver.communicate()
    if number == signal.SIGINT:
        assert [path.name for path in (tmp_path / "jobs").iterdir()] == ["logs"]


# ---- what submitit says to Slurm, with commands in the place of Slurm's

COMMANDS = {
    "sbatch": """
import re
script = sys.argv[-1]
number = str(1000 + len({path.name.split("_")[0] for path in jobs.iterdir()}))
array = re.search(r"--array=0-([0-9]+)", open(script).read())
for name in [number + "_" + str(i) for i in range(int(array[1]) + 1)] if array else [number]:
    start(name, script)
print("Submitted batch job", number)
""",
    "srun": """
rest = [part for part in sys.argv[1:]]
while rest[0].startswith("--"):
    rest = rest[1:] if "=" in rest[0] or rest[0] == "--unbuffered" else rest[2:]
os.execvp(rest[0], rest)
""",
    # As some sites do: every job that has ended was COMPLETED. The signal of a preemption ends the script at once, but
    # what it runs first puts the job into the queue again: a job lives as long as anything of it.
    "sacct": """
groups = set()
for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
        state, _, group = path.read_text().rpartition(")")[2].split()[:3]
    except OSError:
        continue
    if state != "Z":
        groups.add(group)
print("JobID|State|NodeList")
for path in jobs.iterdir():
    runs = path.read_text().split()[0] in groups
    print(path.name, "RUNNING" if runs else "COMPLETED", "here", sep="|")
""",
    "scancel": """
for path in jobs.glob(sys.argv[1] + "*"):
    try:
        os.killpg(int(path.read_text().split()[0]), signal.SIGKILL)
    except ProcessLookupError:
        pass
""",
    "scontrol": """
start(sys.argv[2], (jobs / sys.argv[2]).read_text().split()[1])
""",
}
HEAD = """#!{python}
import os, pathlib, signal, subprocess, sys
jobs = pathlib.Path({jobs!r})
def start(name, script):
    parent, _, task = name.partition("_")
    said = {{"SLURM_JOB_ID": name, "SLURM_ARRAY_JOB_ID": parent, "SLURM_ARRAY_TASK_ID": task}} if task else {{}}
    nothing = subprocess.DEVNULL
    made = subprocess.Popen(
        ["bash", script], env={{**os.environ, "SLURM_JOB_ID": name, **said}}, start_new_session=True,
        stdin=nothing, stdout=nothing, stderr=nothing,
    )
    whole = jobs.with_name(f"{{name}}.new")  # sacct may read at any moment
    whole.write_text(f"{{made.pid}} {{script}}")
    whole.rename(jobs / name)
"""


def test_arrays_requeues_and_losses_as_slurm_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marker: str
) -> None:
    commands, running = tmp_path / "bin", tmp_path / "running"
    commands.mkdir()
    running.mkdir()
    for name, text in COMMANDS.items():
        (commands / name).write_text(HEAD.format(python=sys.executable, jobs=str(running)) + text)
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv(MARKER, marker)
    go(plan(40), tmp_path / "here", workers=1)

    def disturb(pool: Slurm) -> None:
        assert wait_for(lambda: len(beats(pool)) == 2, 120)
        for job, number, rows in (("1000_0", signal.SIGUSR2, 4), ("1000_1", signal.SIGKILL, 12)):
            assert wait_for(lambda rows=rows: len(list(tmp_path.glob("there/rows/*/*.safetensors"))) > rows, 120)
            os.killpg(int((running / job).read_text().split()[0]), number)  # a signal reaches all of a job

    with Slurm(tmp_path / "jobs", workers=2, poll=0.5, slurm_partition="cpu") as pool:
        with ThreadPoolExecutor(1) as threads:
            disturbing = threads.submit(disturb, pool)
            go(plan(40, seconds=0.5), tmp_path / "there", pool)
        disturbing.result()
        lives = list((pool.folder / "in").iterdir())
    assert contents(tmp_path / "there") == contents(tmp_path / "here")
    assert {path.name for path in running.iterdir()} == {"1000_0", "1000_1", "1001"}
    assert len(lives) >= 3  # two, and the one that was queued again
    died = [entry["reason"] for entry in log(tmp_path / "there") if entry["event"] == "worker died"]
    # on a busy machine, the driver may see the job that was queued again only once it runs again
    lost = [reason for reason in died if reason != "its job was started again"]
    assert len(lost) == 1
    assert "no sign of life" in lost[0] or "its job ended" in lost[0]
    assert wait_for(lambda: not alive(marker), 15), alive(marker)
