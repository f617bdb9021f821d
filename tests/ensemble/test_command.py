"""Rows by a command: real programs through `run`, what they read and write, and every way in which they fail.

More than 500 lines: one list of failures serves what is told, what is kept and how a run goes on.
"""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stub_processes import alive, kill, wait_for
from stub_rows import contents, environment, log

from pydt.base import ConfigError, DataError, PydtError
from pydt.data import Groups
from pydt.design import Design
from pydt.ensemble import Command, Plan, RowInput, run
from pydt.ensemble.plan import Context
from pydt.ensemble.runners.child import run_child, told
from pydt.ensemble.runners.keep_file import KEEP_FORMATS
from pydt.ensemble.runners.out_file import read_out
from pydt.store import Measure, Row, Store, verify

IDS = ["a", "b,1", 'c"', "dé"]
MASKS = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 0, 0], [0, 1, 0], [0, 0, 1]], bool)
MEMBERS = {"north": ["n1", "n2"], "south": ["s1"], "east": ["e1", "e2", "e3"]}
# Row 2 does what the file "mode" says, which is not in `depends`: the same plan continues after the mend.
TRAIN = """
import csv, json, os, signal, subprocess, sys, time
keep, seed, out, scratch = sys.argv[1:5]
ids = open(keep, encoding="utf-8", newline="").read().split("\\n")[:-1]
what = open("mode").read() if seed == "13" else "good"
names = ["a", "b,1", 'c"', "d\\u00e9"]
outputs = {name: len(ids) + i / 4 + int(seed) for i, name in enumerate(names)}
print(f"training on {len(ids)} examples", flush=True)
assert os.listdir(scratch) == []
with open("calls", "a") as calls:
    calls.write(seed + "\\n")
if what == "crash":
    raise ValueError("no such column")
if what == "crash once" and open("calls").read().split().count("13") == 1:
    sys.exit(3)
if what == "hang":
    subprocess.Popen(["sleep", "300"], start_new_session=True)
    time.sleep(300)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "term":
    os.kill(os.getpid(), signal.SIGTERM)
if what == "nothing":
    sys.exit(0)
if what == "fifo":
    os.mkfifo(out)
    sys.exit(0)
if what == "folder":
    os.mkdir(out)
    sys.exit(0)
if what == "dangling":
    os.symlink("/nowhere/at/all", out)
    sys.exit(0)
if what == "endless":
    with open(out, "wb") as file:
        file.truncate(1 << 40)
    sys.exit(0)
if what == "no json":
    open(out, "w").write("{")
    sys.exit(0)
if what == "twice":
    open(out, "w").write('{"score": {"a": 1, "a": 2}}')
    sys.exit(0)
if what == "nan":
    outputs["b,1"] = float("nan")
if what == "few":
    del outputs["b,1"]
if what == "others":
    outputs["zebra"] = 1.0
if what == "text":
    outputs["a"] = "high"
found = {"score": dict(reversed(outputs.items()))}
if what == "short":
    found = {"score": [1.0, 2.0, 3.0]}
if what == "another measure":
    found = {"accuracy": outputs}
with open(out, "w") as file:
    json.dump(found, file)
"""
ARGUMENTS = ["{keep}", "{seed}", "{out}", "{scratch}"]


def job(folder: Path, mode: str = "good", **more: Any) -> Plan:
    """Six rows of three groups; the seed of row i is 11 + i."""
    (folder / "train.py").write_text(TRAIN)
    (folder / "mode").write_text(mode)
    (folder / "calls").write_text("")
    made = {"depends": ["train.py"], "out": "json", "folder": str(folder), **more}
    recipe = Command([sys.executable, "-I", "-S", "train.py", *ARGUMENTS], **made)
    return plan(recipe, Measure("score", IDS))


def plan(recipe: Any, *measures: Measure, source: Any = None) -> Plan:
    seeds = tuple(range(11, 11 + len(MASKS)))
    source = Groups(MEMBERS, by="site") if source is None else source
    return Plan(source, design=Design.explicit(MASKS), recipe=recipe, tasks=measures, seeds=seeds)


def go(asked: Plan, folder: Path, **more: Any) -> Store:
    return run(asked, folder, **{"workers": 2, "progress": False, **more})


def expected(row: int) -> list[float]:
    kept = int(MASKS[row] @ [2, 1, 3])
    return [kept + i / 4 + 11 + row for i in range(4)]


def calls(folder: Path) -> list[str]:
    return (folder / "calls").read_text().split()


# ---- a row is what the program wrote


def test_rows_are_what_the_program_wrote_in_the_order_of_the_ids(tmp_path: Path) -> None:
    store = go(job(tmp_path), tmp_path / "store")
    np.testing.assert_array_equal(store.outputs("score", "value", "all"), [expected(i) for i in range(6)])
    assert sorted(calls(tmp_path)) == [str(11 + i) for i in range(6)]
    assert not (tmp_path / "store" / "logs").exists()
    with ThreadPoolExecutor(2) as threads:
        go(job(tmp_path), tmp_path / "threads", executor=threads, limit=60.0)
    same = contents(tmp_path / "threads")
    assert same == contents(tmp_path / "store")


def test_no_shell_reads_the_arguments_and_braces_are_doubled(tmp_path: Path) -> None:
    code = "import json, sys; json.dump(sys.argv[2:], open('argv', 'w')); json.dump(dict(m=1), open(sys.argv[1], 'w'))"
    odd = ["$HOME `id`", "{{seed}}={seed}", "", "*", "{device} {threads}", "a\nb", "{{{seed}}}"]
    recipe = Command([sys.executable, "-c", code, "{out}", *odd], out="json", folder=str(tmp_path), threads=2)
    go(plan(recipe, Measure("m")), tmp_path / "store", workers=1)
    given = json.loads((tmp_path / "argv").read_text())
    assert given == ["$HOME `id`", "{seed}=16", "", "*", "cpu 2", "a\nb", "{16}"]


def test_the_environment_is_that_of_the_worker_and_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", "yes")
    code = (
        "import json, os, sys; names = ['FROM_OUTSIDE', 'LEVEL', 'OMP_NUM_THREADS']\n"
        "assert sys.stdin.read() == '' and os.listdir('/proc/self/fd') == ['0', '1', '2', '3']\n"
        "json.dump([os.environ[name] for name in names] + [os.getcwd()], open('env', 'w'))\n"
        "json.dump(dict(m=1), open(sys.argv[1], 'w'))"
    )
    folder = tmp_path / "inside"
    folder.mkdir()
    recipe = Command([sys.executable, "-c", code, "{out}"], out="json", env={"LEVEL": "3"}, folder=str(folder))
    go(plan(replace(recipe, threads=3), Measure("m")), tmp_path / "store", workers=1)
    assert json.loads((folder / "env").read_text()) == ["yes", "3", "3", str(folder)]


def test_each_program_sees_the_gpu_of_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    code = (
        "import json, os, sys, time; open(os.environ['CUDA_VISIBLE_DEVICES'] + sys.argv[2], 'w')\n"
        "while len([name for name in os.listdir() if 'cuda' in name]) < 2: time.sleep(0.01)\n"  # both workers have one
        "json.dump(dict(m=int(os.environ['CUDA_VISIBLE_DEVICES'])), open(sys.argv[1], 'w'))"
    )
    recipe = Command([sys.executable, "-c", code, "{out}", "{device}"], out="json", device="cuda", folder=str(tmp_path))
    store = go(plan(recipe, Measure("m")), tmp_path / "store", workers=None)
    assert set(store.outputs("m", "value", "all").ravel().tolist()) == {5, 7}
    assert (tmp_path / "5cuda").exists()
    assert (tmp_path / "7cuda").exists()


@pytest.mark.parametrize("keep", ["groups", "npy", "parquet"])
def test_the_program_reads_what_is_kept(keep: str, tmp_path: Path) -> None:
    if keep == "parquet":
        pytest.importorskip("pyarrow")
    read = {
        "groups": "[dict(north=1, south=4, east=16)[name] for name in open(keep).read().split()]",
        "npy": "[[.5, .5, 4, 16 / 3, 16 / 3, 16 / 3][i] for i in numpy.load(keep)]",
        "parquet": "[dict(north=.5, south=4, east=16 / 3)[group] * (one[0] == group[0]) for one, group in "
        "zip(*pyarrow.parquet.read_table(keep).select(['id', 'group']).to_pydict().values())]",
    }[keep]
    imported = {"groups": "sys", "npy": "numpy", "parquet": "pyarrow.parquet"}[keep]
    code = f"import json, sys, {imported}; keep = sys.argv[1]; found = {read}\n"
    code += "json.dump(dict(m=sum(found)), open(sys.argv[2], 'w'))"
    recipe = Command([sys.executable, "-c", code, "{keep}", "{out}"], keep=keep, out="json", folder=str(tmp_path))
    store = go(plan(recipe, Measure("m")), tmp_path / "store")
    np.testing.assert_allclose(store.outputs("m", "value", "all")[:, 0], MASKS @ [1.0, 4.0, 16.0], rtol=1e-6)


# ---- every failure: row, log and mend are told, no other row is harmed, the mended program completes

FAILURES = [
    (
        "crash",
        "ended with exit status 1, 2 times; it printed last: (?s:.*)ValueError: no such column",
        "mend the prog",
        2,
    ),
    ("kill", "was killed by SIGKILL: perhaps the machine ran out of memory, 2 times", "mend the program", 2),
    ("term", "was killed by SIGTERM, 2 times; it printed last: training on 5 examples", "mend the program", 2),
    ("nothing", r"wrote no {out} file \(out.json\), 2 times", "let it write its outputs to {out}", 2),
    ("dangling", "wrote no {out} file", "let it write its outputs to {out}", 2),
    ("fifo", "its output file is not read: not a regular file", "write a regular file", 1),
    ("folder", "its output file is not read: not a regular file", "write a regular file", 1),
    ("endless", "its output file is not read: larger than 268,435,456 bytes", "268,435,456 bytes at most", 1),
    ("no json", "its output file is no JSON", "json.dump", 1),
    ("twice", "its output file has 'a' twice", "write each measure and each id once", 1),
    ("few", r"outputs of 'score': lack 1 of 4 examples \('b,1'\)", "return a number for each example", 1),
    ("others", r"outputs of 'score': have 1 examples that the measure has not \('zebra'\)", "declare these", 1),
    ("text", "outputs of 'score': are of type <U", "return one number for each example", 1),
    ("short", r"outputs of 'score': are of shape \(3,\), not \(4,\)", "one number for each of the 4 examples", 1),
    ("another measure", "returned outputs of 'accuracy', which is no task", "for each of: 'score'", 1),
]


SLOW = ("term", "dangling", "folder", "no json", "twice", "text", "another measure")  # their kin are always tested


@pytest.mark.parametrize(
    ("mode", "wrong", "mend", "tries"),
    [pytest.param(*one, id=one[0], marks=[pytest.mark.slow] if one[0] in SLOW else []) for one in FAILURES],
)
def test_a_program_that_fails(mode: str, wrong: str, mend: str, tries: int, tmp_path: Path) -> None:
    place = tmp_path / "store" / "logs" / "row-2.log"
    with pytest.raises(PydtError, match=wrong) as caught:
        go(job(tmp_path, mode), tmp_path / "store", limit=60.0)
    text = str(caught.value)
    assert "row 2 (design row with seed 13, 2 of 3 groups kept)" in text
    assert mend in text
    assert f"its log: {place}" in text
    assert "training on 5 examples" in place.read_text()
    assert calls(tmp_path).count("13") == tries
    notes = [entry["text"] for entry in log(tmp_path / "store") if entry["event"] == "note"]
    assert len(notes) == tries - 1
    assert all("try 1 of 2: the command" in note for note in notes)
    finished = Store(tmp_path / "store").finished().tolist()
    assert {0, 1} <= set(finished)  # those before it; those that ran beside it have finished, too
    assert len(finished) == len(calls(tmp_path)) - tries
    asked = job(tmp_path)
    store = go(asked, tmp_path / "store")
    np.testing.assert_array_equal(store.outputs("score", "value", "all"), [expected(i) for i in range(6)])
    assert len(calls(tmp_path)) == 6 - len(finished)
    assert verify(tmp_path / "store")["verified"]


def test_a_program_that_hangs_is_ended_and_its_worker_lives(tmp_path: Path, marker: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PYDT_TEST_MARKER", marker)
    began = time.monotonic()
    with pytest.raises(PydtError, match="longer than 2 s, 2 times; it printed last: training") as caught:
        go(job(tmp_path, "hang", env={"PYDT_HANG": marker}), tmp_path / "store", limit=2.0)
    assert time.monotonic() - began < 60
    assert "row 2 (" in str(caught.value)
    assert "allow more than limit" in str(caught.value)
    assert "training on 5 examples" in (tmp_path / "store" / "logs" / "row-2.log").read_text()
    assert not [entry for entry in log(tmp_path / "store") if entry["event"] == "worker died"]
    assert holders(marker) == []  # the sleep of a session of its own is gone, too


def test_chance_is_tried_again(tmp_path: Path) -> None:
    store = go(job(tmp_path, "crash once"), tmp_path / "store")
    np.testing.assert_array_equal(store.outputs("score", "value", "all"), [expected(i) for i in range(6)])
    assert calls(tmp_path).count("13") == 2
    assert not (tmp_path / "store" / "logs").exists()


def test_numbers_that_are_not_finite_fail_the_row_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = go(job(tmp_path, "nan"), tmp_path / "store", progress=True)
    ((row, _, reason),) = store.failed()
    assert (row, reason) == (2, "score of example 'b,1' is nan")
    assert store.finished().tolist() == [0, 1, 3, 4, 5]
    place = tmp_path / "store" / "logs" / "row-2.log"
    assert "training on 5 examples" in place.read_text()
    assert f"row 2 failed ({reason}); its log: {place}" in " ".join(capfd.readouterr().err.split())
    assert calls(tmp_path).count("13") == 1


def test_rows_that_run_beside_a_failure_finish(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import json, os, sys, time; out, seed = sys.argv[1:]\n"
        "open('at ' + seed, 'w')\n"
        "while len([n for n in os.listdir() if n.startswith('at')]) < 2: time.sleep(0.01)\n"
        "if seed == '12': sys.exit('no data')\n"
        "time.sleep(1.5); json.dump(dict(m=1), open(out, 'w'))"
    )
    recipe = Command([sys.executable, "-c", code, "{out}", "{seed}"], out="json", tries=1, folder=str(tmp_path))
    with pytest.raises(PydtError, match=r"row 1 .*exit status 1; it printed last: no data"):
        go(plan(recipe, Measure("m")), tmp_path / "store", progress=True)
    assert 0 in Store(tmp_path / "store").finished().tolist()
    assert re.search(
        "waiting for (a row that is|2 rows that are) running, Ctrl-C ends now", " ".join(capfd.readouterr().err.split())
    )


def test_long_logs_keep_their_end(tmp_path: Path) -> None:
    code = "import sys; sys.stdout.write('x' * (3 << 20) + 'the end'); sys.exit(2)"
    recipe = Command([sys.executable, "-c", code, "{out}"], tries=1, folder=str(tmp_path))
    with pytest.raises(PydtError, match=r"x{200}the end"):
        go(plan(recipe, Measure("m")), tmp_path / "store", workers=1)
    kept = (tmp_path / "store" / "logs" / "row-0.log").read_bytes()
    assert len(kept) == 1 << 20
    assert kept.endswith(b"the end")


def test_a_silent_failure_says_that_there_is_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(PydtError, match=r"row 0 .*exit status 1; it printed nothing"):
        go(plan(Command(["false", "{out}"], tries=1), Measure("m")), tmp_path / "store", workers=1)


@pytest.mark.parametrize("program", ["no-such-program", "./train.py"])
def test_a_program_that_cannot_be_started(program: str, tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("no program")
    recipe = Command([program, "{out}"], folder=str(tmp_path))
    reason = "No such file" if program == "no-such-program" else "Permission denied"
    with pytest.raises(PydtError, match=f"row 0 .*'{program}' cannot be started in {tmp_path} .{reason}"):
        go(plan(recipe, Measure("m")), tmp_path / "store", workers=1)
    assert any("no program of this machine" in entry.get("text", "") for entry in log(tmp_path / "store"))


# ---- nothing outlives the run


def holders(marker: str) -> list[int]:
    """Processes of programs that were started with PYDT_HANG=marker and are alive."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and f"PYDT_HANG={marker}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


DRIVER = """
import sys
from pathlib import Path
import test_command
test_command.go(test_command.job(Path(sys.argv[1]), sys.argv[2], env={"PYDT_HANG": sys.argv[3]}), Path(sys.argv[4]))
"""


@pytest.mark.parametrize(
    "how",
    [
        ("kill -9 driver", signal.SIGKILL),
        ("kill -9 worker", 0),
        ("Ctrl-C", signal.SIGINT),
        pytest.param(("SIGTERM", signal.SIGTERM), marks=pytest.mark.slow),
    ],
    ids=lambda how: how[0],
)
def test_programs_end_with_whatever_ends_the_run(how: tuple[str, int], tmp_path: Path, marker: str) -> None:
    what, number = how
    tests = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [sys.executable, "-c", tests + DRIVER, str(tmp_path), "hang", marker, str(tmp_path / "store")]
    with subprocess.Popen(command, env=environment(marker), stderr=subprocess.DEVNULL, start_new_session=True) as run:
        try:
            assert wait_for(lambda: sleeping(marker), 60)
            if what == "kill -9 worker":
                worker = worker_of(marker)
                mine = [pid for pid in holders(marker) if worker in ancestors(pid)]
                kill(worker)
                assert len(mine) == 3  # supervisor, program, its child
                assert wait_for(lambda: not set(mine) & set(holders(marker)), 10)
                assert run.poll() is None
                kill(run.pid)
            else:
                run.send_signal(number)
            run.wait(60)
            assert wait_for(lambda: not alive(marker) and not holders(marker), 10)
        finally:
            kill(run.pid)
    finished = Store(tmp_path / "store").finished().tolist()
    assert 2 not in finished
    go(job(tmp_path, env={"PYDT_HANG": marker}), tmp_path / "whole")
    (tmp_path / "calls").write_text("")
    go(job(tmp_path, env={"PYDT_HANG": marker}), tmp_path / "store")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert len(calls(tmp_path)) == 6 - len(finished)


def sleeping(marker: str) -> bool:
    """The hanging program has started its sleep, in a session of its own."""
    return any(b"sleep" in command(pid).split(b"\0")[0] for pid in holders(marker))


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def worker_of(marker: str) -> int:
    """The worker that waits for the hanging program, whose child sleeps: its supervisor stands between."""
    (sleep,) = [pid for pid in holders(marker) if b"sleep" in command(pid).split(b"\0")[0]]
    return parent(parent(parent(sleep)))


def ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = parent(pid)
        except OSError:
            break
        found.append(pid)
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_what_a_program_leaves_behind_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "for own in (False, True):\n"
        "    print(subprocess.Popen(['sleep', '300'], start_new_session=own).pid, flush=True)\n"
        "sys.exit(4)"
    )
    with open(tmp_path / "log", "w+b") as file:
        assert run_child([sys.executable, "-c", code], str(tmp_path), dict(os.environ), file, None) == 4
    for pid in (tmp_path / "log").read_text().split():
        assert not Path("/proc", pid).exists()


def test_signals_to_a_whole_job_do_not_end_the_supervisor(tmp_path: Path) -> None:
    code = (
        "import os, signal\n"
        "for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM, signal.SIGHUP): os.kill(os.getppid(), number)\n"
        "raise SystemExit(5)"
    )
    with open(tmp_path / "log", "w+b") as file:
        assert run_child([sys.executable, "-c", code], str(tmp_path), dict(os.environ), file, None) == 5
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_a_program_has_the_usual_signals(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+b") as file:
        code = "for line in open('/proc/self/status'):\n    if line[:6] in ('SigBlk', 'SigIgn'): print(line.strip())"
        run_child([sys.executable, "-I", "-S", "-c", code], str(tmp_path), dict(os.environ), file, None)
    masks = dict(line.split(":") for line in (tmp_path / "log").read_text().splitlines())
    assert int(masks["SigBlk"], 16) == 0
    python = 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1  # ignored by every Python itself
    assert int(masks["SigIgn"], 16) & 0x7FFFFFFF == python  # the C library has two real-time signals of its own


def test_a_limit_of_months_is_a_limit(tmp_path: Path) -> None:
    with open(tmp_path / "log", "w+b") as log:
        assert run_child(["true"], str(tmp_path), os.environ, log, 1e8) == 0


def test_exit_statuses_in_words() -> None:
    assert told(3) == "ended with exit status 3"
    assert told(-signal.SIGSEGV) == "was killed by SIGSEGV"
    assert told(-signal.SIGKILL) == "was killed by SIGKILL: perhaps the machine ran out of memory"
    assert told(-63) == "was killed by signal 63"


# ---- what the plan holds


def test_a_changed_file_gives_other_rows_and_ends_a_run(tmp_path: Path) -> None:
    before = job(tmp_path).recipe
    (tmp_path / "train.py").write_text(TRAIN + "# other\n")
    assert replace(before).digest != before.digest
    asked = plan(before, Measure("score", IDS))  # of the file as it was
    with pytest.raises(ConfigError, match=r"row 0 .*'train.py' has changed since the run began"):
        go(asked, tmp_path / "store", workers=1)
    assert calls(tmp_path) == []


def test_what_decides_the_numbers_is_in_the_name(tmp_path: Path) -> None:
    made = job(tmp_path).recipe
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "train.py").write_text(TRAIN)
    same: list[dict[str, Any]] = [{"tries": 5}, {"threads": 2}, {"device": "cuda"}]
    same += [{"folder": str(tmp_path / "elsewhere")}]
    assert {replace(made, **one).digest for one in same} == {made.digest}
    others: list[dict[str, Any]] = [{"env": {"A": "1"}}, {"keep": "groups"}, {"out": "csv"}, {"depends": ()}]
    others += [{"command": [*made.command, "x"]}, {}]
    assert len({replace(made, **one).digest for one in others}) == len(others)


def test_what_is_not_noticed_is_told(tmp_path: Path) -> None:
    for name in ("train.py", "data.csv", "used.py"):
        (tmp_path / name).write_text("")
    long = "x" * 5000  # no file has such a name
    arguments = [sys.executable, "train.py", "./used.py", "--data=data.csv", long, ".", "{keep}", "{out}"]
    remarks = Command(arguments, depends=["used.py"], folder=str(tmp_path)).remarks()
    mend = "is not in depends: rows that are stored stay when it changes"
    assert remarks == [f"train.py {mend}", f"data.csv {mend}"]
    assert Command(["no-such-program", "{out}"]).remarks() == [
        "the command has no {keep}: every row trains on all the data, and no group has an influence",
        "no-such-program is no program of this machine: every worker must have it",
    ]


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ({"command": "python train.py {out}"}, "give a list"),
        ({"command": []}, "give a list"),
        ({"command": ["", "{out}"]}, "give a list"),
        ({"command": ["a\0", "{out}"]}, "give a list"),
        ({"command": ["a", 1, "{out}"]}, "give a list"),
        ({"command": ["a", "{keep}"]}, r"has no {out}"),
        ({"command": ["a", "{{out}}"]}, r"has no {out}"),
        ({"command": ["a", "{sed}", "{out}"]}, r"'{sed}'.*did you mean 'seed'"),
        ({"command": ["a", "{out"]}, r"{{ is a brace"),
        ({"command": ["a", "}{out}"]}, r"{{ is a brace"),
        ({"command": ["a", '{"x": 1}', "{out}"]}, r"{{ is a brace"),
        ({"keep": "txt"}, "unknown keep 'txt'"),
        ({"out": "safetensor"}, "did you mean 'safetensors'"),
        ({"env": {"A": 1}}, "give texts by name"),
        ({"env": {"A=B": "x"}}, "no environment can hold"),
        ({"env": {"": "x"}}, "no environment can hold"),
        ({"env": {"A": "x\0"}}, "no environment can hold"),
        ({"tries": 0}, "tries"),
        ({"threads": 0}, "threads"),
        ({"device": "cuda:1"}, "unknown device"),
        ({"depends": ["nothing.py"]}, "nothing.py cannot be read"),
        ({"depends": "train.py"}, "is no list of files"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], wrong: str) -> None:
    with pytest.raises(ConfigError, match=wrong):
        Command(**{"command": ["a", "{out}"], **arguments})


def test_sources_and_measures_that_the_formats_cannot_hold() -> None:
    for name in ("a\nb", "a\n", "", "a\u2028b", "\udcff"):
        source = Groups(MEMBERS | {"west": [name]})
        named = Groups({**MEMBERS, **({name: ["w"]} if name else {"a\rb": ["w"]})})
        for keep, own in (("ids", source), ("groups", named)):
            with pytest.raises(ConfigError, match='use keep="npy"'):
                plan(Command(["a", "{out}"], keep=keep), Measure("m"), source=own)
    with pytest.raises(ConfigError, match="holds one measure, there are 2"):
        plan(Command(["a", "{out}"]), Measure("m"), Measure("n"))


def test_parquet_needs_pyarrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ConfigError, match="pip install pyarrow"):
        plan(Command(["a", "{out}"], keep="parquet"), Measure("m"))


# ---- what is read and written

LINES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text.splitlines() == [text])
IDENTIFIERS = st.lists(LINES, min_size=2, max_size=8, unique=True)
FINITE = st.floats(-(2.0**40), 2.0**40, width=32)
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@quick
@given(IDENTIFIERS, st.data())
def test_keep_files_come_back(tmp_path: Path, ids: list[str], data: st.DataObject) -> None:
    members = data.draw(st.lists(st.sampled_from(["x", "y z", None]), min_size=len(ids), max_size=len(ids)))
    members[0] = "x"
    source = Groups(members, ids=ids)
    _, names = source.units()
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names))))
    recipe = Command(["a", "{out}"])
    context = Context(source, "group", recipe, (Measure("m"),))
    row = RowInput(context, Row(mask, 1), context.tasks, lambda: tmp_path)
    kept = [i for i, name in enumerate(members) if name is None or mask[names.index(name)]]
    found: dict[str, Any] = {}
    for keep, form in KEEP_FORMATS.items():
        if keep != "parquet":
            found[keep] = tmp_path / f"{keep}{form.suffix}"
            form.write(row, found[keep])
    assert found["ids"].read_bytes().decode().split("\n") == [*(ids[i] for i in kept), ""]
    assert found["groups"].read_text("utf-8").split("\n") == [*(n for n, k in zip(names, mask, strict=True) if k), ""]
    assert np.load(found["npy"]).tolist() == kept
    assert np.load(found["npy"]).dtype == np.int64


def write_csv(path: Path, ids: list[str], values: list[float], measures: list[str]) -> None:
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["value", "task", "more", "id"])
        for name in measures:
            rows.writerows([value, name, "?", one] for one, value in zip(ids, values, strict=True))


def write_json(path: Path, ids: list[str], values: list[float], measures: list[str]) -> None:
    path.write_text(json.dumps({name: dict(zip(ids, values, strict=True)) for name in measures}))


@quick
@given(IDENTIFIERS, st.data(), st.sampled_from([("csv", write_csv), ("json", write_json)]), st.randoms())
def test_outputs_by_id_come_back(
    tmp_path: Path, ids: list[str], data: st.DataObject, form: tuple[str, Callable[..., None]], random: Any
) -> None:
    values = data.draw(st.lists(FINITE, min_size=len(ids), max_size=len(ids)))
    mixed = list(zip(ids, values, strict=True))
    random.shuffle(mixed)
    form[1](tmp_path / "out", [one for one, _ in mixed], [value for _, value in mixed], ["m", "n"])
    found = read_out(form[0], tmp_path / "out", ["m", "n"])
    for name in ("m", "n"):
        np.testing.assert_array_equal(Measure(name, ids).values(found[name]), np.float32([values]))


@pytest.mark.parametrize("kind", ["?", "<u1", "<i8", "<f2", ">f4", "<f8"])
@pytest.mark.parametrize("shape", [(5,), (3, 5)])
def test_arrays_of_any_number_come_back(kind: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    values = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(kind)
    np.save(tmp_path / "out.npy", values)
    found = Measure("m", 5).values(read_out("npy", tmp_path / "out.npy", ["m"])["m"])
    np.testing.assert_array_equal(found, np.atleast_2d(values).astype(np.float32))
    if kind != ">f4":
        save_file({"m": values}, tmp_path / "out.safetensors")
        found = Measure("m", 5).values(read_out("safetensors", tmp_path / "out.safetensors", ["m"])["m"])
        np.testing.assert_array_equal(found, np.atleast_2d(values).astype(np.float32))


@pytest.mark.parametrize(
    ("out", "data", "wrong"),
    [
        ("npy", b"", "cannot be mapped as .npy"),
        ("npy", b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O', ", "cannot be mapped as .npy"),
        ("safetensors", b"\xff" * 20, "is no safetensors file of numbers"),
        ("csv", b"", "has the head ''.*id,value"),
        ("csv", b"id;value\na;1\n", "has the head 'id;value'"),
        ("csv", b"id,value\na,1\na,2\n", "line 3 has the id 'a' again.*write each id once"),
        ("csv", b"id,value\na,1,2\n", "line 2 has 3 fields, not 2"),
        ("csv", b"id,value\na,high\n", "line 2 has the value 'high', which is no number"),
        ("csv", b"id,value\n\xff,1\n", "is no CSV of numbers"),
        ("csv", b'id,value\n"a,1\n', "is no CSV of numbers"),
        ("json", b"[1, 2]", r"holds \[1, 2\], not an object"),
        ("json", b"[" * 100_000, "is no JSON"),
        ("json", b"\xff", "is no JSON"),
    ],
)
def test_files_that_are_not_of_the_format(out: str, data: bytes, wrong: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(data)
    with pytest.raises(DataError, match=f"its output file {wrong}"):
        read_out(out, tmp_path / "out", ["m"])


def test_a_csv_may_begin_with_a_mark_and_end_lines_as_on_windows(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"\xef\xbb\xbfid,value\r\na,1\r\n\r\nb,nan\r\n")
    found = read_out("csv", tmp_path / "out", ["m"])["m"]
    assert found["a"] == 1
    assert np.isnan(found["b"])


def test_an_array_of_more_draws_than_memory_holds_is_refused(tmp_path: Path) -> None:
    with open(tmp_path / "out.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|b1", "fortran_order": False, "shape": (1 << 34, 5)})
        file.truncate(file.tell() + (5 << 34))
    with pytest.raises(DataError, match=r"more than 1,073,741,824 bytes.*write fewer draws"):
        read_out("npy", tmp_path / "out.npy", ["m"])
