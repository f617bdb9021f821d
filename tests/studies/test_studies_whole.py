"""Whole studies of small networks: killed, on every executor, extended, with failures, and with bad arguments."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_rows
from stub_processes import alive, kill, started, wait_for
from stub_rows import environment
from stub_store import contents
from stub_studies import RATES, SEEDS, events, images, networks, small, target, told

import pydt
from pydt.base import ConfigError, StoreError, TrainError
from pydt.cluster import Ray, Slurm
from pydt.ensemble import Plan, RowInput, run, run_row
from pydt.ensemble.code_version import versions
from pydt.store import Store
from pydt.studies import Study, cells_of, run_study, study_parts, study_report
from pydt.studies.running import choice_of
from pydt.training import FineTune, Recipe, Task

pytestmark = pytest.mark.slow
ARMS = 2 * 2 * 2 + 1


def go(study: Study, folder: Path, **more: Any) -> Store:
    with ThreadPoolExecutor(1) as thread:
        return run_study(study, folder, thread, progress=False, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of the small study, run without a break."""
    folder = tmp_path_factory.mktemp("study") / "whole"
    go(small(), folder)
    assert networks(folder) == {"trained": 16, "bank": 8, "untrained": 1 + SEEDS}
    return folder


# ---- kills and executors -------------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_study_killed_twice_ends_with_the_same_bytes(whole: Path, tmp_path: Path, marker: str) -> None:
    dice, folder = random.Random(17), tmp_path / "killed"
    command = [sys.executable, "-c", "import stub_studies; stub_studies.main()", str(folder), "1"]

    def driver() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, env=environment(marker), start_new_session=True))
        return started[-1]

    def rows() -> int:
        log = folder / "log.jsonl"
        return log.read_bytes().count(b'"event": "row"') if log.exists() else 0

    for first, last in ((1, ARMS - 2), (ARMS + 1, ARMS * (1 + SEEDS) - 2)):  # among the trials, then among the rows
        process, goal = driver(), dice.randint(first, last)
        assert wait_for(lambda goal=goal: rows() >= goal, 100)
        kill(process.pid)
        process.wait()
        assert wait_for(lambda: not alive(marker), 5.0)
        assert rows() < last + 2
        assert (folder / "choices").exists() == (first > ARMS)
    assert driver().wait(100) == 0
    assert told(folder) == told(whole)
    for store, name in ((folder, "pages of it"), (whole, "pages of the whole")):
        study_report(small(), store, tmp_path / name)
    pages = contents(tmp_path / "pages of it")
    assert {"study.html", "results.json"} < set(pages)
    assert pages == contents(tmp_path / "pages of the whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_give_the_same_bytes(workers: int, whole: Path, tmp_path: Path) -> None:
    run_study(small(), tmp_path / "there", workers=workers, progress=False)
    assert told(tmp_path / "there") == told(whole)


def test_jobs_of_a_batch_system_give_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    with Slurm(tmp_path / "jobs", cluster="local", workers=1, timeout_min=5, poll=0.2) as jobs:
        run_study(small(), tmp_path / "there", jobs, progress=False)
    assert told(tmp_path / "there") == told(whole)
    assert len({entry["pid"] for entry in events(tmp_path / "there")}) == 1  # one process serves all arms


# Ray's own, about the future of one of its settings
@pytest.mark.filterwarnings("ignore:Tip. In future versions of Ray:FutureWarning")
def test_ray_gives_the_same_bytes(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    monkeypatch.chdir(tmp_path)  # Ray puts this folder before the installed packages: not the one with the sources
    monkeypatch.setenv("PYTHONPATH", str(Path(stub_rows.__file__).parent))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    head = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        with Ray(cluster.address) as pool:
            run_study(small(), tmp_path / "there", pool, progress=False)
    finally:
        cluster.shutdown()
    assert told(tmp_path / "there") == told(whole)
    assert len({entry["pid"] for entry in events(tmp_path / "there")}) == 1  # one process serves all arms


# ---- what is added -------------------------------------------------------------------------------------------------

NEW: dict[str, tuple[Callable[[Study], dict[str, Any]], int, int, int]] = {
    # changes; networks trained, taken from the bank, untrained (each trial and each row of an arm counts once)
    "target": (lambda s: {"targets": {"v": target("v", 7), **s.targets}}, 0, 8 + 16, 1 + 2),
    "shots": (lambda s: {"shots": (1, 2, 3)}, 0, 8 + 16, 1 + 2),
    "source": (lambda s: {"sources": {"c": images("c", 9, 4, 5), **s.sources}}, 4 * 2, 4, 0),
    "size": (lambda s: {"sizes": (16, 24, 32)}, 4 * 2, 4, 0),
    "method": (lambda s: {"methods": {**s.methods, "long": replace(s.methods["supervised"], steps=4)}}, 4 * 2, 4, 0),
    "seed": (lambda s: {"seeds": SEEDS + 1}, 8, 0, 1),
    "mode without rates": (lambda s: {"modes": {**s.modes, "stiff": {"mode": "probe", "penalty": 9.0}}}, 0, 16, 2),
    "mode": (
        lambda s: {"modes": {**s.modes, "longer": {"mode": "finetune", "finetune": FineTune(epochs=2)}}},
        0,
        8 + 16,
        1 + 2,
    ),
}


def keys(study: Study, folder: Path) -> set[str]:
    return {key for part in study_parts(study, folder) for key in part.record.keys[0]}


@pytest.mark.parametrize("what", NEW)
def test_what_is_added_trains_only_what_is_missing(what: str, whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "more"))
    changes, *counts = NEW[what]
    before, rows, more = told(folder), len(events(folder)), small(**changes(small()))
    go(more, folder)
    found = networks(folder, rows)
    assert [found[kind] for kind in ("trained", "bank", "untrained")] == counts
    assert before.items() < told(folder).items()
    assert keys(small(), folder) < keys(more, folder)
    rows = len(events(folder))
    go(more, folder)
    go(small(), folder)
    assert len(events(folder)) == rows


def test_a_rate_that_is_added_is_all_that_is_tried(whole: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(whole, tmp_path / "more"))
    before, rows, more = told(folder), len(events(folder)), small(rates=(*RATES, 0.3))
    known = keys(small(), folder)
    go(more, folder)
    assert "trained" not in networks(folder, rows)
    new = [key for entry in events(folder)[rows:] for key in entry["keys"]]
    changed = keys(more, folder) - known  # where the new rate is the best one
    assert len(new) == len(set(new)) == ARMS * 4 + len(changed)
    assert 0 < len(changed) < ARMS * 4 * SEEDS
    store = Store(folder)
    rates = {store.get(key).status for key in new}
    assert rates == {"ok"}
    assert before.items() < told(folder).items()


# ---- failures ------------------------------------------------------------------------------------------------------


class Fails:
    """Fails the trainings of an arm of a study, of the seeds given."""

    def __init__(self, study: Study, arm: str, seeds: tuple[int, ...]) -> None:
        chosen = next(one for one in study.arms if one.name == arm)
        self.sources = {study.part(chosen, seed).context.source.digest: chosen.recipe.digest for seed in seeds}

    def __call__(self, given: RowInput) -> Any:
        if self.sources.get(given.context.source.digest) == given.context.recipe.digest:
            raise TrainError("diverged", "a test")
        return run_row(given)


FEW: dict[str, Any] = {"sizes": (16,), "targets": {"t": target("t", 3)}, "shots": (3,), "seeds": 3}


def test_an_arm_that_diverges_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    calm = small(**FEW)
    wild = {**calm.methods, "wild": Recipe("convnet-4", steps=30, batch_size=8, lr=1e20)}
    study = small(**FEW, methods=wild)
    cells = cells_of(study, go(study, tmp_path / "wild"))
    assert networks(tmp_path / "wild")["trained"] == 6 * 3  # once a seed, though trials and rows ask for it
    others = cells_of(calm, go(calm, tmp_path / "calm"))
    assert len(cells) == 7 * 2
    for (arm, task), cell in cells.items():
        if "wild" in arm:
            assert cell.values.shape == (0, 2, cell.values.shape[2])
            assert len(cell.failed) == 3
            assert np.isnan(cell.mean)
        else:
            assert cell.failed == ()
            assert cell.values.tobytes() == others[arm, task].values.tobytes()
    chosen = choice_of(study, tmp_path / "wild", study.arms[2])
    assert chosen is not None
    assert chosen.undecided == ("t, finetune, 3 shots",)
    assert chosen.tasks[1].rate == min(RATES)
    found = study_report(study, tmp_path / "wild")
    assert (found["study"]["rows"], found["study"]["failed"]) == (7 * 3, 2 * 3)
    assert "a, 16 images, wild, seed 0: " in found["notes"][0]
    lost = [row for row in found["accuracy"] if row["method"] == "wild"]
    assert [(row["mean"], row["seeds"], row["failed"]) for row in lost] == [(None, 0, 3)] * 4
    plain = study_report(calm, tmp_path / "calm")
    for row in plain["accuracy"]:
        assert row in found["accuracy"]
    sources = [row for row in found["pairs"] if row["axis"] == "source" and row["at"] != "wild"]
    assert sources == [row for row in plain["pairs"] if row["axis"] == "source"]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_seed_that_fails_is_left_out_and_counted(seed: int, tmp_path: Path) -> None:
    study = small(**FEW)
    runner = Fails(study, "b, 16 images, simclr", (seed,))
    cells = cells_of(study, go(study, tmp_path / "failed", runner=runner))
    whole = cells_of(study, go(study, tmp_path / "whole", runner=run_row))
    for (arm, task), cell in cells.items():
        if arm == "b, 16 images, simclr":
            assert cell.seeds == tuple(s for s in range(3) if s != seed)
            assert cell.failed == ("a test: diverged",)
            if "probe" in task or seed:  # the rate is chosen on the first seed that trains
                assert cell.values.tobytes() == whole[arm, task].values[list(cell.seeds)].tobytes()
        else:
            assert cell.values.tobytes() == whole[arm, task].values.tobytes()
    chosen = choice_of(study, tmp_path / "failed", study.arms[3])
    assert chosen is not None
    assert chosen.undecided == ()
    found = study_report(study, tmp_path / "failed")
    assert found["study"]["failed"] == 1
    assert f"b, 16 images, simclr, seed {seed}: a test: diverged" in found["notes"][0]
    assert len([note for note in chosen.notes if "every rate" in note]) == (seed == 0)


# ---- arguments and folders -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "more", "text"),
    [
        ({}, {"workers": 0}, "must be at least 1, is 0"),
        ({}, {"limit": -1}, "no row can be done in -1 seconds"),
        ({}, {"limit": float("nan")}, "no row can be done in nan seconds"),
        ({}, {"keep": "weight"}, "did you mean 'weights'?"),
        ({}, {"keep_bytes": 0}, "keep_bytes"),
        ({"rates": (0.1,)}, {}, "is one rate"),
        ({"rates": (0.1, 0.1)}, {}, "twice|repeated"),
        ({"modes": ("probe",)}, {}, "no mode has a learning rate"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(
    changes: Any, more: Any, text: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=text):
        run_study(small(**FEW, **changes), tmp_path / "store", progress=False, **more)
    assert not (tmp_path / "store" / "log.jsonl").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("text")
    with pytest.raises(StoreError, match=r"letter\.txt"):
        go(small(**FEW), tmp_path / "letter.txt")
    (tmp_path / "store.json").write_text('{"title": "a shop"}')
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError, match=r"store\.json"):
        go(small(**FEW), tmp_path)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_store_of_a_plan_takes_a_study_and_keeps_its_default(tmp_path: Path) -> None:
    study = small(**{**FEW, "rates": ()})
    recipe = study.methods["supervised"]
    design = pydt.design.design.random(4, 2, alpha=0.5, seed=3)
    plan = Plan(study.sources["a"].dataset, design=design, recipe=recipe, tasks=[Task(study.targets["t"], shots=3)])
    run(plan, tmp_path, workers=1, progress=False)
    before = told(tmp_path)
    store = go(study, tmp_path)
    assert before.items() < told(tmp_path).items()
    assert len(Store(tmp_path).finished()) == 2  # of the plan
    assert len(cells_of(study, store)) == 5 * 2


def test_other_code_is_refused_before_rates_are_tried(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(whole, folder)
    before, real = contents(folder), versions()
    for room in ("driver", "keeping", "parts"):
        monkeypatch.setattr(f"pydt.ensemble.{room}.versions", lambda: {**real, "torch": "9.9"})
    more = small(sources={**small().sources, "new": images("new", 10, 4, 9)})
    with pytest.raises(StoreError, match=r"other code: torch .*now 9\.9"):
        go(more, folder, same_code=True)
    assert contents(folder) == before, "nothing is trained or written"
