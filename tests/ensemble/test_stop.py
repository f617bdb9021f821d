"""Runs that stop when sure: the same stop whoever trains the rows, in whatever order, however often it was killed."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, contents, effect_row, studied
from typer.testing import CliRunner

from pydt import StoppingRule, design
from pydt.base import ConfigError, DataError, PydtError, StoreError, Unreadable, digest
from pydt.cli.app import app
from pydt.ensemble import Plan, RowInput, run
from pydt.ensemble.executors.call import work
from pydt.ensemble.interim import Interim
from pydt.estimation import Look, mean_output, unmet
from pydt.store import Outcome, Store, export, status, verify

RULE = "sign 2"


class Shuffled(Executor):
    """Runs submitted rows one by one in random order: many are under way whenever one is done."""

    _max_workers = 6

    def __init__(self, seed: int) -> None:
        self.dice, self.jobs, self.open = random.Random(seed), [], True
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self.changed:
            self.jobs.append((future, function, arguments, named))
            self.changed.notify()
        return future

    def serve(self) -> None:
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.jobs or not self.open)
                if not self.jobs:
                    return
                future, function, arguments, named = self.jobs.pop(self.dice.randrange(len(self.jobs)))
            if future.set_running_or_notify_cancel():
                future.set_result(function(*arguments, **named))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        with self.changed:
            self.open = False
            self.changed.notify()
        self.thread.join()


def stopping(job: Plan, folder: Path, rule: str | None = RULE, **more: Any) -> Store:
    return run(job, folder, runner=effect_row, progress=False, stop=rule, **more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All rows of the plan."""
    with ThreadPoolExecutor(1) as threads:
        return stopping(studied(), tmp_path_factory.mktemp("whole"), None, executor=threads)


def expected(whole: Store, rule: str = RULE) -> Look:
    """What the rule says of the rows in plan order."""
    numbers = np.full(len(studied().design), np.nan)
    numbers[whole.finished()] = mean_output(whole, whole.plan(), None, "correct", "score")
    return StoppingRule.parse(rule).look(studied().design, numbers)


def notes(folder: Path) -> dict[str, bytes]:
    return contents(folder / "stops")


def test_same_stop_in_any_order_and_for_any_number_of_workers(tmp_path: Path, whole: Store) -> None:
    look, job = expected(whole), studied()
    assert look.stopped
    assert 30 < look.rows < 100
    stores = {"one": stopping(job, tmp_path / "one", workers=1), "two": stopping(job, tmp_path / "two", workers=2)}
    for seed in range(3):
        with Shuffled(seed) as executor:
            stores[f"shuffled {seed}"] = stopping(job, tmp_path / f"shuffled {seed}", executor=executor)
    for name, store in stores.items():
        note = store.stopped()
        assert note is not None
        assert (note["rows"], note["looks"], note["reason"]) == (look.rows, look.looks, look.reason)
        assert note["rule"] == "sign 2 level 0.05"
        assert note["decided"] == [[f"class {i}", sign] for i, sign in zip(look.decided, look.signs, strict=True)]
        assert notes(tmp_path / name) == notes(tmp_path / "one")
        # nothing later is used, though some of it is stored
        assert store.finished().tolist() == [i for i in whole.finished() if i < look.rows]
        used = len(store.finished())
        assert store.outputs("digits").tobytes() == whole.outputs("digits")[:used].tobytes()
        assert [i for i, _, _ in store.failed()] == [i for i, _, _ in whole.failed() if i < look.rows]
        stored = len(list((tmp_path / name).glob("rows/*/*.safetensors")))
        assert look.rows <= stored
        assert stored <= look.rows + 2 or name != "one"  # no more than were under way
    assert any(len(list((tmp_path / name).glob("rows/*/*"))) > look.rows for name in stores)


def test_what_the_rule_sees_of_a_row_is_what_the_report_uses(tmp_path: Path, whole: Store) -> None:
    record = whole.plan()
    interim = Interim(whole, record, studied().design, range(len(record.rows)))
    while interim.read(1.0):
        pass
    seen = interim.values[whole.finished()]
    np.testing.assert_allclose(seen, mean_output(whole, record, None, "correct", "score"), rtol=1e-12)
    assert np.isnan(interim.values[[i for i, _, _ in whole.failed()]]).all()
    assert len(whole.failed()) > 0


def test_a_stopped_plan_is_left_alone_and_other_rules_judge_anew(tmp_path: Path, whole: Store) -> None:
    job, folder = studied(str(tmp_path)), tmp_path / "s"
    with ThreadPoolExecutor(1) as threads:
        note = stopping(job, folder, executor=threads).stopped()
        assert note is not None
        asked = (tmp_path / "calls").read_text()
        assert stopping(job, folder, executor=threads).stopped() == note
        assert (tmp_path / "calls").read_text() == asked  # nothing was trained

        more = stopping(job, folder, "sign 2 level 1e-9", executor=threads)  # a stricter one goes on
        assert more.stopped()["rows"] == expected(whole, "sign 2 level 1e-9").rows > note["rows"]
        less = stopping(job, folder, "stderr < 50", executor=threads)  # an easy one goes back
        assert less.stopped()["rows"] == expected(whole, "stderr < 50").rows < note["rows"]

        rest = stopping(job, folder, None, executor=threads)  # none: all rows count again
        assert rest.stopped() is None
        assert contents(folder / "rows") == contents(whole.folder / "rows")
        assert len(rest.masks()) == len(whole.masks())
        assert stopping(job, folder, executor=threads).stopped() == note  # and back


def test_a_longer_plan_stops_where_the_shorter_one_did(tmp_path: Path) -> None:
    job = studied(str(tmp_path))
    longer = replace(job, design=design.bernoulli(GROUPS, 300, seed=1), seeds=tuple(range(1, 301)))
    with ThreadPoolExecutor(1) as threads:
        first = stopping(job, tmp_path / "s", executor=threads)
        asked = (tmp_path / "calls").read_text()
        second = stopping(longer, tmp_path / "s", executor=threads)
    assert second.stopped() == first.stopped()
    assert (tmp_path / "calls").read_text() == asked


def test_a_damaged_row_of_a_stopped_plan_is_trained_again_and_the_stop_is_the_same(tmp_path: Path) -> None:
    job, folder = studied(str(tmp_path)), tmp_path / "s"
    with ThreadPoolExecutor(1) as threads:
        store = stopping(job, folder, executor=threads)
        note, before = notes(folder), len((tmp_path / "calls").read_text().splitlines())
        for row in (3, 20):
            store.path(store.plan().keys[row][0]).write_bytes(b"")
        again = stopping(job, folder, executor=threads)
    assert notes(folder) == note
    assert len(again.masks()) + len(again.failed()) == again.stopped()["rows"]
    fresh = (tmp_path / "calls").read_text().splitlines()[before:]
    assert fresh[:2] == ["4", "21"]
    assert len(fresh) <= 4  # they come first, so that little is trained that is not used


def test_any_order_and_any_restart_is_the_same_stop(whole: Store) -> None:
    """Rows taken in by twenty permutations, each with a driver that is replaced in the middle."""
    record, wanted = whole.plan(), expected(whole)
    rule, outcomes = StoppingRule.parse(RULE), [whole.get(keys[0]) for keys in record.keys]
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(outcomes)).tolist()
        # rows arrive roughly in order, as from a few workers, or wildly
        order = order if seed % 2 else sorted(range(len(outcomes)), key=lambda i, order=order: i + order[i] % 12)
        half = order[: 10 * seed]
        interim = Interim(whole, record, studied().design, sorted(half))
        while interim.read(1.0):
            pass
        for row in order[10 * seed :]:
            if interim.look(rule).stopped:
                break
            interim.add(row, {0: outcomes[row]})
        found = interim.look(rule)
        assert (found.rows, found.looks, found.reason) == (wanted.rows, wanted.looks, wanted.reason)


def test_what_goes_wrong_after_the_stop_is_nobodys_loss(tmp_path: Path, whole: Store) -> None:
    rows = expected(whole).rows
    with ThreadPoolExecutor(1) as threads:
        store = stopping(studied(late=rows), tmp_path, executor=threads, workers=3)
        assert store.stopped()["rows"] == rows
    with ThreadPoolExecutor(1) as threads, pytest.raises(PydtError, match="raised twice"):
        stopping(studied(late=rows - 1), tmp_path / "before", executor=threads, workers=3)


class Late(ThreadPoolExecutor):
    """Rows after `last` are under way while the run stops, and are done after that."""

    def __init__(self, folder: Path, last: int) -> None:
        super().__init__(8)
        self.folder, self.last = folder, last

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        return super().submit(self.late if arguments[1].seed > self.last else function, *arguments, **named)

    def late(self, *arguments: Any) -> Any:
        end = time.monotonic() + 60
        while not list(self.folder.glob("stops/*.json")) and time.monotonic() < end:
            time.sleep(0.01)
        return work(*arguments)


def _refusing(given: RowInput) -> dict[str, Outcome]:
    context, row = given.context, given.row
    if row.seed > context.recipe.late:
        raise DataError("truncated", "images/7.png", "delete it")
    return effect_row(given)


def test_a_row_under_way_that_is_refused_after_the_stop_is_logged(tmp_path: Path, whole: Store) -> None:
    rows = expected(whole).rows
    with Late(tmp_path, rows) as executor:
        store = run(studied(late=rows), tmp_path, executor, workers=3, runner=_refusing, progress=False, stop=RULE)
    assert store.stopped()["rows"] == rows
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    unused = [entry for entry in lines if entry["event"] == "not used"]
    assert unused
    assert all("images/7.png: truncated" in entry["reason"] for entry in unused)


def test_a_row_that_one_task_failed_on_is_not_looked_at(tmp_path: Path, whole: Store) -> None:
    """As in `Store.outputs`: a row counts when all its tasks do."""
    job = replace(studied(), tasks=(StubTask(), StubTask("unlucky")))
    with ThreadPoolExecutor(1) as threads:
        store = run(job, tmp_path, threads, runner=_unlucky, progress=False, stop=RULE)
    numbers = np.full(len(job.design), np.nan)
    finished = store.finished()
    numbers[finished] = mean_output(store, store.plan(), None, "correct", "score")
    rows = store.stopped()["rows"]
    assert len(store.failed()) > rows / 3
    look = StoppingRule.parse(RULE).look(job.design, numbers[:rows])
    assert look.stopped
    assert look.rows == rows


def _unlucky(given: RowInput) -> dict[str, Outcome]:
    row, tasks = given.row, given.tasks
    found = effect_row(replace(given, tasks=given.tasks[:1]))
    if row.seed % 2:
        return {**found, tasks[1].digest: Outcome(status="failed", reason="bad luck")}
    return {**found, tasks[1].digest: found[tasks[0].digest]}


def test_rules_that_make_no_sense_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stop"):
        stopping(studied(), tmp_path / "s", "sign ten")
    with pytest.raises(ConfigError, match="10 of 6 groups"):
        stopping(studied(), tmp_path / "s", "sign 10")
    assert not (tmp_path / "s").exists()


def test_a_plan_too_short_for_a_look_is_trained_and_said_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = Plan(StubSource(), design=design.bernoulli(GROUPS, 20), recipe=StubRecipe(), tasks=[StubTask()])
    with ThreadPoolExecutor(1) as threads:
        store = run(short, tmp_path, threads, runner=effect_row, stop="sign 1")
    assert store.stopped() is None
    assert len(store.masks()) + len(store.failed()) == 20
    assert "too short for a look by sign 1" in capsys.readouterr().err


def test_the_same_plan_twice_in_one_counts_twice(tmp_path: Path) -> None:
    """A mask and seed that come again are trained once and have their number at both places."""
    masks = np.asarray(design.bernoulli(GROUPS, 60, seed=1))
    twice = design.Design.explicit(np.concatenate([masks, masks]))
    seeds = tuple(range(1, 61)) * 2
    job = Plan(StubSource(), design=twice, recipe=StubRecipe(), tasks=[StubTask()], seeds=seeds)
    with ThreadPoolExecutor(1) as threads:
        store = stopping(job, tmp_path / "s", "stderr < 5", executor=threads)
        everything = stopping(job, tmp_path / "all", None, executor=threads)
    numbers = np.full(120, np.nan)
    numbers[everything.finished()] = mean_output(everything, everything.plan(), None, "correct", "score")
    look = StoppingRule.parse("stderr < 5").look(twice, numbers)
    assert look.stopped
    assert look.rows > 60
    assert store.stopped()["rows"] == look.rows


def test_a_row_that_cannot_be_read_is_told_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor(1) as threads:
        store = stopping(studied(), tmp_path, executor=threads)
    key, real = store.plan().keys[7][0], Store.get

    def get(self: Store, wanted: str) -> Outcome:
        if wanted == key:
            raise Unreadable.of(OSError(5, "Input/output error"), store.path(key))
        return real(self, wanted)

    monkeypatch.setattr(Store, "get", get)
    interim = Interim(store, store.plan(), studied().design, range(20))
    for _ in range(2):  # the view may be the first to meet it, and says nothing
        with pytest.raises(StoreError, match="Input/output error"):
            interim.read(60.0)
    monkeypatch.undo()
    while interim.read(1.0):
        pass
    assert interim.known[:20].all()


# ---- a rule that does not end its plan ----------------------------------------------------------------------------


def unmet_run(folder: Path, rule: str = "sign 6", **more: Any) -> Store:
    with ThreadPoolExecutor(1) as threads:
        return stopping(studied(), folder, rule, executor=threads, **more)


def test_a_rule_that_is_not_met_says_what_it_had_reached(
    tmp_path: Path, whole: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    with ThreadPoolExecutor(1) as threads:
        store = run(studied(), tmp_path, threads, runner=effect_row, stop="sign 6")
    look = expected(whole, "sign 6")
    assert not look.stopped
    note = store.rule()
    assert note is not None
    assert note["met"] is False
    assert (note["rule"], note["looks"], note["looked"]) == ("sign 6 level 0.05", look.looks, look.rows)
    assert note["decided"] == [[store.names()[i], sign] for i, sign in zip(look.decided, look.signs, strict=True)]
    text = f"stop rule 'sign 6 level 0.05' not met: {len(look.decided)} of 6 groups have a sign after {look.rows} rows"
    assert text in capsys.readouterr().err.splitlines()[-2]
    assert store.stopped() is None, "all rows count"
    assert len(store.finished()) == len(whole.finished())
    assert status(tmp_path)["unmet"] == note
    told = CliRunner().invoke(app, ["status", str(tmp_path)]).output
    assert text in told
    assert export(tmp_path, tmp_path / "out")["rule"] == note


def test_a_kill_changes_nothing_of_what_an_unmet_rule_says(tmp_path: Path) -> None:
    unmet_run(tmp_path / "once")
    job = studied(late=90)
    with pytest.raises(PydtError), ThreadPoolExecutor(1) as threads:
        stopping(job, tmp_path / "twice", "sign 6", executor=threads)
    note = Store(tmp_path / "twice").rule()
    assert note is not None
    assert note["met"] is False
    assert 0 < note["looked"] <= 90, "also while rows are missing"
    unmet_run(tmp_path / "twice")
    assert contents(tmp_path / "once") == contents(tmp_path / "twice")
    unmet_run(tmp_path / "once")  # nothing to train
    assert Store(tmp_path / "once").rule() == Store(tmp_path / "twice").rule()


def test_what_a_rule_says_is_of_the_last_run(tmp_path: Path) -> None:
    store = unmet_run(tmp_path)
    assert not unmet_run(tmp_path, "stderr < 0.001").rule()["met"]  # type: ignore[index]
    met = unmet_run(tmp_path, RULE)
    assert met.rule() == {"met": True, **met.stopped()}  # type: ignore[dict-item]
    assert status(tmp_path)["unmet"] is None
    assert unmet_run(tmp_path, "none").rule() is None
    assert store.rule() is None


def test_a_damaged_note_of_a_rule_is_named(tmp_path: Path) -> None:
    store = unmet_run(tmp_path)
    path = next(tmp_path.glob("rules/*.json"))
    good = json.loads(path.read_text())
    for change in ({"looks": 3}, {"looks": "3"}, {"reason": None}, {"decided": [["a", 7]]}, {"plan": "0"}):
        wrong = {name: value for name, value in {**good, **change}.items() if name != "sha256"}
        bodies = [{**wrong, "sha256": good["sha256"]}]
        if change != {"looks": 3}:
            bodies.append({**wrong, "sha256": digest("rule", wrong)})
        for body in bodies:
            path.write_text(json.dumps(body))
            with pytest.raises(StoreError, match=r"rules/.*damaged.*delete this one file"):
                store.rule()
    path.write_text("[1")
    assert status(tmp_path)["damaged"][0]["file"] == f"rules/{path.name}"
    assert verify(tmp_path)["damaged"][0]["file"] == f"rules/{path.name}"
    assert unmet_run(tmp_path).rule() is not None, "the same run writes it anew"


def test_a_plan_too_short_for_a_look_says_so(tmp_path: Path) -> None:
    job = Plan(
        StubSource(), design=design.bernoulli(GROUPS, 12, seed=1), recipe=StubRecipe(), tasks=[StubTask()],
        seeds=range(1, 13),
    )  # fmt: skip
    with ThreadPoolExecutor(1) as threads:
        store = stopping(job, tmp_path, "sign 1", executor=threads)
    said = unmet(store.rule())  # type: ignore[arg-type]
    assert said.endswith("not met: the plan of 12 rows is too short for a look, which takes 27 rows or more")
