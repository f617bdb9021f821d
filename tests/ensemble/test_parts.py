"""Many parts in one run: the rows of each are those of a run of its own, whoever computes them and whatever ends it."""

from __future__ import annotations

import contextlib
import json
import re
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stub_rows import GROUPS, StubRecipe, StubSource, StubTask, contents, log, stub_row

from pydt.base import ConfigError, DesignError, PydtError, digest
from pydt.data import Dataset, Target
from pydt.ensemble import Context, Part, RowInput, run_parts, run_rows
from pydt.ensemble.executors import call
from pydt.store import Outcome, Row, Store, stored_remarks

FULL = np.ones(GROUPS, bool)


@dataclass(frozen=True)
class Named(StubRecipe):
    """A stub recipe of which there are several."""

    name: str = "a"

    @property
    def digest(self) -> str:
        return digest("recipe", self.name)


def part(source: str, seeds: Any = (1, 2), recipe: str = "a", tasks: Any = ("digits",), **more: Any) -> Part:
    context = Context(StubSource(source), "class", Named(name=recipe, **more), tuple(map(StubTask, tasks)))
    return Part(context, tuple(Row(FULL, seed) for seed in seeds), f"{source}, recipe {recipe}")


def study(seed: int = 1, **more: Any) -> list[Part]:
    """Three sources by two recipes, two rows and two tasks each."""
    sources, tasks = ("latin", "greek", "cyrillic"), ("digits", "letters")
    return [part(source, (seed, seed + 1), name, tasks, **more) for source in sources for name in ("a", "b")]


def go(parts: list[Part], folder: Path, **more: Any) -> Store:
    if "workers" in more:
        return run_parts(parts, folder, runner=stub_row, progress=False, **more)
    with ThreadPoolExecutor(1) as threads:
        return run_parts(parts, folder, threads, **{"runner": stub_row, "progress": False, **more})


def apart(parts: list[Part], folder: Path) -> dict[str, bytes]:
    """The bytes of a store into which each part was run alone."""
    with ThreadPoolExecutor(1) as threads:
        for one in parts:
            context = one.context
            about = context.source, context.by, context.recipe, context.tasks, one.rows
            run_rows(*about, folder, threads, runner=stub_row, progress=False)
    return contents(folder)


def rows_of(folder: Path) -> Counter[tuple[str, int]]:
    """How often each row was stored, by the log."""
    return Counter((entry["part"], entry["row"]) for entry in log(folder) if entry["event"] == "row")


# ---- the same bytes


def test_parts_in_one_run_are_the_bytes_of_each_alone_with_any_workers(tmp_path: Path) -> None:
    expected = apart(study(), tmp_path / "apart")
    go(study(), tmp_path / "threads")
    go(study(), tmp_path / "one", workers=1)
    go(list(reversed(study())), tmp_path / "two", workers=2)
    for name in ("threads", "one", "two"):
        assert contents(tmp_path / name) == expected
    assert len([name for name in expected if name.startswith("rows/")]) == 6 * 2 * 2
    assert len([name for name in expected if name.startswith("plans/")]) == 6


def test_a_part_is_asked_of_the_store_by_its_record(tmp_path: Path) -> None:
    parts = study()
    store = go(parts, tmp_path)
    for one in parts:
        assert store.finished(one.record).tolist() == [0, 1]
        found = store.outputs("letters", "correct", "all", one.record)
        assert found.shape == (2, 40)
    logits = [store.outputs("digits", "logit", "all", one.record) for one in parts]
    assert np.array_equal(logits[0], logits[2]), "the stub reads no source: equal rows of two sources"
    assert parts[0].record.cells.tolist() != parts[2].record.cells.tolist()


class Stopping(ThreadPoolExecutor):
    """One thread, in which the n-th row is Ctrl-C."""

    def __init__(self, after: int) -> None:
        super().__init__(1)
        self.left = after

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Any:
        self.left -= 1
        return super().submit(self._stop if self.left < 0 else function, *arguments, **named)

    def _stop(self, *arguments: Any, **named: Any) -> None:
        raise KeyboardInterrupt


@settings(max_examples=12, deadline=None)
@given(after=st.lists(st.integers(0, 11), min_size=1, max_size=3), damage=st.integers(0, 5))
def test_killed_at_any_row_and_continued_the_bytes_are_the_same(
    after: list[int], damage: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    parts = study()
    expected = apart(parts, folder / "apart")
    for number in after:
        with Stopping(number) as executor, contextlib.suppress(KeyboardInterrupt):
            run_parts(parts, folder / "s", executor, runner=stub_row, progress=False)
        for path in sorted((folder / "s" / "rows").rglob("*.safetensors"))[:damage:2]:
            data = bytearray(path.read_bytes())
            data[-3] ^= 4
            path.write_bytes(data)
    go(parts, folder / "s")
    found = {name: data for name, data in contents(folder / "s").items() if not name.startswith("quarantine")}
    assert found == expected


# ---- only what is missing


def test_what_is_added_to_a_study_runs_alone(tmp_path: Path) -> None:
    go(study(), tmp_path / "s")
    assert rows_of(tmp_path / "s").total() == 12
    go([*study(), part("signs", (1,), "a", ("digits", "letters"))], tmp_path / "s")
    assert rows_of(tmp_path / "s").total() == 13, "a source"
    assert rows_of(tmp_path / "s")["signs, recipe a", 0] == 1
    more = [Part(one.context, (*one.rows, Row(FULL, 9)), one.name) for one in study()[:1]]
    go(more, tmp_path / "s")
    assert rows_of(tmp_path / "s").total() == 14, "a seed"
    with ThreadPoolExecutor(1) as threads:
        third = [part("latin", (1, 2), "a", ("digits", "letters", "signs"))]
        run_parts(third, tmp_path / "s", threads, runner=only_signs, progress=False)
    assert rows_of(tmp_path / "s").total() == 16, "a task: its cells alone"


def only_signs(given: RowInput) -> Any:
    assert [task.name for task in given.tasks] == ["signs"]
    return stub_row(given)


def test_a_row_of_two_parts_is_computed_and_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("digits", "letters")
    parts = [part("latin", (1, 2), "a", both), part("latin", (2, 3), "a", both)]
    parts[1] = Part(parts[1].context, parts[1].rows, "again")
    go(parts, tmp_path / "s", progress="json")
    assert rows_of(tmp_path / "s") == {("latin, recipe a", 0): 1, ("latin, recipe a", 1): 1, ("again", 1): 1}
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["event"], one["rows"], one["of"]) for one in shown] == [("start", 0, 3), ("end", 3, 3)]
    assert Store(tmp_path / "s").finished(parts[1].record).tolist() == [0, 1]


def test_a_damaged_row_is_trained_again_in_its_part(tmp_path: Path) -> None:
    store = go(study(), tmp_path / "s")
    expected = contents(tmp_path / "s")
    path = store.path(study()[3].record.keys[1][1])
    path.write_bytes(path.read_bytes()[:-5])
    go(study(), tmp_path / "s")
    assert {name: data for name, data in contents(tmp_path / "s").items() if "quarantine" not in name} == expected
    assert rows_of(tmp_path / "s")["greek, recipe b", 1] == 2
    assert rows_of(tmp_path / "s").total() == 13


# ---- what is said


def test_an_error_names_its_part_and_the_other_rows_are_kept(tmp_path: Path) -> None:
    parts = [part("latin", (1, 2)), part("greek", (10, 3), what="raise"), part("signs", (4,))]
    with pytest.raises(PydtError, match=r"raised twice(?s:.*)KeyError") as caught:
        go(parts, tmp_path / "s", workers=1)
    assert caught.value.where == "greek, recipe a, row 0 (keep row with seed 10, 6 of 6 groups kept)"
    store = Store(tmp_path / "s")
    assert store.finished(parts[0].record).tolist() == [0, 1]
    events = {(entry["event"], entry.get("part")) for entry in log(tmp_path / "s")}
    assert ("error", "greek, recipe a") in events


def test_a_part_of_one_row_is_called_by_its_name_alone(tmp_path: Path) -> None:
    parts = [part("latin", (1,)), part("greek", (10,), what="refuse")]
    with pytest.raises(PydtError) as caught:
        go(parts, tmp_path / "s")
    assert caught.value.where == "greek, recipe a (keep row with seed 10, 6 of 6 groups kept): images/7.png"


def test_failed_rows_name_their_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    go([part("latin", (1,)), part("greek", (10, 11), what="diverge")], tmp_path, progress="json")
    shown = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed = [one for one in shown if one["event"] == "failed"]
    assert [(one["part"], one["row"]) for one in failed] == [("greek, recipe a", 0)]


def weak_row(given: RowInput) -> dict[str, Outcome]:
    """Rows of recipe "b" learnt nothing."""
    learnt = given.context.recipe.name != "b"
    facts = {"accuracy": 0.9 if learnt else 0.1, "trivial_accuracy": 0.1, "loss": 2.0, "trivial_loss": 2.3}
    scalars = {f"source_{name}": value for name, value in {**facts, "images": 100}.items()}
    return {digest: Outcome(one.arrays, {**one.scalars, **scalars}) for digest, one in stub_row(given).items()}


def test_rows_of_one_recipe_are_judged_together(tmp_path: Path) -> None:
    parts = [part(source, (1,), name) for source in ("latin", "greek", "cyrillic") for name in "ab"]
    go(parts, tmp_path, runner=weak_row)
    told = [entry for entry in log(tmp_path) if entry["event"] == "hardly learnt"]
    assert [(entry["rows"], entry["of"]) for entry in told] == [(3, 3)]
    assert told[0]["text"].startswith("latin, recipe b and 2 more: 3 of 3 rows hardly learnt their own source: ")


# ---- bad input


def test_parts_that_cannot_be_run_are_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no rows"):
        part("latin", ())
    with pytest.raises(DesignError, match="latin, row 0: 2 groups, but the source has 6"):
        Part(part("latin").context, (Row([1, 1], 1),), "latin")
    with pytest.raises(ConfigError, match="at least one"):
        go([], tmp_path)
    with pytest.raises(ConfigError, match="two parts are called 'latin, recipe a'"):
        go([part("latin"), part("latin", (3,))], tmp_path)
    with pytest.raises(ConfigError, match=r"parts\[1\]: is a str"):
        go([part("latin"), "greek"], tmp_path)  # type: ignore[list-item]
    assert not (tmp_path / "rows").exists()


# ---- many parts


@pytest.mark.slow
def test_two_hundred_parts_take_bounded_memory_and_few_contexts(tmp_path: Path) -> None:
    parts = [part(f"source {i}", (1 + i,), tasks=[f"task {j}" for j in range(8)]) for i in range(200)]
    tracemalloc.start()
    try:
        store = go(parts, tmp_path / "s")
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 40 << 20
    assert len(call._parcels) <= 4
    assert rows_of(tmp_path / "s").total() == 200
    assert all(len(store.finished(one.record)) == 1 for one in parts)


def test_data_in_memory_are_written_once_for_all_parts_and_remarks_are_stored(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 255, (120, 6, 6, 1), np.uint8)
    labels = np.arange(120) % 4
    target = Target(Dataset.from_arrays(images[:80], labels[:80], name="shapes"), pool=40, validation=10)
    source = Dataset.from_arrays(images[60:], labels[60:], name="mixed")
    tasks = tuple(RealTask(f"task {i}", target) for i in range(3))
    parts = [
        Part(Context(source.sample(n), "class", StubRecipe(), tasks), (Row(np.ones(4), seed),), f"{n} images, {seed}")
        for n in (40, 60)
        for seed in (1, 2)
    ]
    store = go(parts, tmp_path / "s", workers=1)
    assert len(list((tmp_path / "s" / "data").iterdir())) == 3, "two samples and the target"
    told = [stored_remarks(store, one.record) for one in parts]
    assert told[0] == told[1] != told[2]
    assert re.match(r"20 images of the target 'shapes' are in the source", told[2][0])
    said = [entry["text"] for entry in log(tmp_path / "s") if entry["event"] == "shared images"]
    assert [text.split(":")[0] for text in said] == ["40 images, 1 and 1 more", "60 images, 1 and 1 more"]


@dataclass(frozen=True)
class RealTask(StubTask):
    """A stub with a target of images."""

    name: str = ""
    target: Any = None

    def examples(self) -> dict[str, np.ndarray]:
        return StubTask().examples()
