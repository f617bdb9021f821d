"""A function as a recipe: what its name counts, what it may do to its process, and how it travels."""

from __future__ import annotations

import functools
import linecache
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stub_rows import contents

from pydt import design
from pydt.base import ConfigError, PydtError, TrainError
from pydt.data import Groups
from pydt.ensemble import Function, Plan, RowInput, run
from pydt.store import Measure, Store

GROUPS, EXAMPLES = 4, 6


def answers(row: RowInput) -> dict[str, Any]:
    """Numbers that depend on the seed and the kept examples."""
    random = np.random.default_rng([row.seed, *row.examples.tolist()])
    return {"right": random.random(EXAMPLES) < 0.5, "loss": random.random()}


def plan(function: Any, rows: int = 6, **more: Any) -> Plan:
    return Plan(
        Groups([f"g{i % GROUPS}" for i in range(12)]),
        design=design.bernoulli(GROUPS, rows, seed=1),
        recipe=Function(function, **more),
        tasks=[Measure("right", EXAMPLES), Measure("loss", higher_is_better=False)],
    )


def go(job: Plan, folder: Path, **more: Any) -> Store:
    return run(job, folder, progress=False, **({"workers": 1} | more))


def made(text: str, name: str = "f", file: str | None = None, **known: Any) -> Any:
    """A function of a text, as a notebook (with its lines) or an interactive session (without) has it."""
    file = file or "<stdin>"
    if file != "<stdin>":
        linecache.cache[file] = len(text), None, text.splitlines(keepends=True), file
    space = dict(known)
    exec(compile(text, file, "exec"), space)
    return space[name]


# ---- what the digest counts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [True, False], ids=["notebook", "interactive"])
def test_the_text_counts_and_its_layout_does_not(held: bool, tmp_path: Path) -> None:
    texts = [
        "def f(row):\n    return {'a': row.seed + 1}\n",
        "def f(row):\n    # a comment\n\n    return {'a':   row.seed+1}\n",
        "def f(row):\n    return {'a': row.seed + 2}\n",
        "def f(row):\n    return {'a': row.seed - 1}\n",
        "def f(row):\n    return {'a': len(row.ids) + 1}\n",
        "def f(row):\n    return {'a': [i for i in [row.seed]][0] + 1}\n",
    ]
    found = [Function(made(text, file=f"<cell {i}>" if held else None)).digest for i, text in enumerate(texts)]
    assert found[0] == found[1]
    assert len(set(found)) == 5


def test_a_set_in_code_without_text_has_one_name_in_every_process() -> None:
    code = (
        "from pydt.ensemble import Function\n"
        "space = {}\n"
        'exec(\'def f(row):\\n return {1: row in {"a", "b", "c", "d"}}\', space)\n'
        "print(Function(space['f']).digest)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2, 3)
    }
    assert len(found) == 1


def test_lambdas_of_one_line_are_two_functions() -> None:
    one, two = (lambda row: {"a": row.seed}), (lambda row: {"a": -row.seed})
    assert Function(one).digest != Function(two).digest


def test_what_a_function_reads_of_the_one_around_it_counts() -> None:
    def make(rate: Any, data: Any = None) -> Any:
        def f(row: RowInput) -> dict[str, Any]:
            return {"loss": rate, "data": data}

        return f

    def defaults(rate: Any) -> Any:
        def f(row: RowInput, rate: Any = rate) -> dict[str, Any]:
            return {"loss": rate}

        return f

    for maker in (make, defaults):
        values = [0.1, 0.2, 1, True, "a", float("nan")]
        assert len({Function(maker(value)).digest for value in values}) == len(values)
        assert Function(maker(0.1)).digest == Function(maker(0.1)).digest
    # of other types the text alone is known
    assert Function(make(1, np.zeros(2))).digest == Function(make(1, np.ones(2))).digest


def test_a_decorated_function_is_named_by_its_own_text() -> None:
    def twice(function: Any) -> Any:
        @functools.wraps(function)
        def inner(row: RowInput) -> Any:
            return function(row)

        return inner

    @twice
    def f(row: RowInput) -> Any:
        return {"a": 1}

    first = Function(f)

    @twice
    def f(row: RowInput) -> Any:
        return {"a": 2}

    assert Function(f).digest != first.digest
    assert "{'a': 1}" in first._text


def test_settings_and_files_count_and_the_machine_does_not(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("one")
    base = Function(answers, {"rate": 0.1}, [tmp_path / "data.txt"])
    assert Function(answers, {"rate": 0.1}, [tmp_path / "data.txt"], threads=4, device="cuda").digest == base.digest
    assert Function(answers, {"rate": 0.2}, [tmp_path / "data.txt"]).digest != base.digest
    assert Function(answers, {"rate": 0.1}).digest != base.digest
    (tmp_path / "data.txt").write_text("two!")
    assert Function(answers, {"rate": 0.1}, [tmp_path / "data.txt"]).digest != base.digest


def test_settings_are_a_copy(tmp_path: Path) -> None:
    given = {"layers": [1, 2]}
    recipe = Function(answers, given)
    before = recipe.digest
    given["layers"].append(3)
    recipe.described()["settings"]["layers"].append(3)
    assert recipe.digest == before
    assert recipe.described()["settings"] == {"layers": [1, 2]}


class _Callable:
    def __call__(self, row: RowInput) -> dict[str, Any]:
        return {}

    def method(self, row: RowInput) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((5,), r"5 is not a function.*give a def"),
        ((functools.partial(answers),), r"functools\.partial.*is not a function.*goes into settings"),
        ((_Callable,), r"is not a function"),
        ((_Callable(),), r"is not a function"),
        ((_Callable().method,), r"is not a function"),
        ((len,), r"is not a function"),
        ((answers, {"n": np.int64(3)}), r"Function\.settings.*int64.*float\(x\) and x\.tolist\(\)"),
        ((answers, {"n": float("inf")}), r"is no JSON"),
        ((answers, {"n": (1, 2)}), r"not the same as JSON"),
        ((answers, {1: 2}), r"not the same as JSON"),
        ((answers, [1]), r"give a dict"),
        ((answers, None), r"give a dict"),
        ((answers, {}, "train.py"), r"give a list"),
        ((answers, {}, ["missing.py"]), r"missing\.py cannot be read"),
    ],
)
def test_what_is_no_recipe_is_refused(arguments: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        Function(*arguments)


# ---- what it may do ------------------------------------------------------------------------------------------------


def untidy(row: RowInput) -> dict[str, Any]:
    """`answers` of a function that spoils what it can reach."""
    import threading

    found = answers(row)
    print("printed", row.seed)
    print("told", row.seed, file=sys.stderr)
    os.write(1, b"written\n")
    (row.scratch / "left.txt").write_text("left")
    for array in (row.mask, row.keep, row.examples):
        array[:] = 0
    row.settings["list"].append(1)
    assert row.settings == {"list": []}
    os.environ["PYDT_TEST_LEFT"] = "left"
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    os.chdir(row.scratch)
    return found


def test_an_untidy_function_harms_no_other_row(tmp_path: Path) -> None:
    job = plan(untidy, rows=8, settings={"list": []})
    store = go(job, tmp_path / "s")
    assert len(store.finished()) == 8
    for i, row in enumerate(store.rows()):
        kept = np.flatnonzero(row.mask[np.arange(12) % GROUPS])
        expected = np.random.default_rng([row.seed, *kept.tolist()]).random(EXAMPLES) < 0.5
        assert store.outputs("right", "value", "all")[i].tolist() == expected.tolist()


def failing(row: RowInput) -> dict[str, Any]:
    if row.settings["how"] == "diverge" and row.mask[0]:
        raise TrainError("loss is not finite", "epoch 3")
    if row.settings["how"] == "exit" and row.mask[0]:
        sys.exit("enough")
    if row.settings["how"] == "infinite" and row.mask[0]:
        return {"right": np.zeros(EXAMPLES), "loss": 1e300}
    return {"right": np.zeros(EXAMPLES), "loss": 1.0}


@pytest.mark.parametrize(
    ("how", "reason"), [("diverge", "loss is not finite"), ("infinite", "loss of example '0' is inf")]
)
def test_a_row_that_diverges_has_failed_and_no_other(how: str, reason: str, tmp_path: Path) -> None:
    store = go(plan(failing, settings={"how": how}), tmp_path / "s")
    masks = np.asarray(plan(failing, settings={"how": how}).design)
    assert [i for i, _, _ in store.failed()] == np.flatnonzero(masks[:, 0]).tolist()
    assert all(reason in text for _, _, text in store.failed())
    assert store.finished().tolist() == np.flatnonzero(~masks[:, 0]).tolist()


def test_a_function_that_exits_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(PydtError, match=r"(?s)raised twice.*sys\.exit\(\"enough\"\).*SystemExit: enough"):
        go(plan(failing, settings={"how": "exit"}), tmp_path / "s")


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("None", r"returned NoneType, not a dict.*'right', 'loss'"),
        ("[1]", r"returned list, not a dict"),
        ("{'right': [0] * 6}", r"no outputs of 'loss'"),
        ("{'right': [0] * 6, 'los': 1}", r"outputs of 'los', which is no task"),
        ("{'right': [0] * 5, 'loss': 1}", r"outputs of 'right'.*shape \(5,\), not \(6,\)"),
        ("{'right': ['a'] * 6, 'loss': 1}", r"not numbers"),
    ],
)
def test_what_is_no_output_is_told(given: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(PydtError, match=text), ThreadPoolExecutor(1) as pool:
        run(plan(made(f"def f(row):\n    return {given}\n")), tmp_path / "s", pool, progress=False)


# ---- how it travels ------------------------------------------------------------------------------------------------

SCRIPT = """
import sys
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import pydt
from pydt.store import Measure

table = np.arange(1000.0)


def helper(row):
    return float(table[row.examples].sum()) + row.seed


def fit(row):
    return {"loss": helper(row)}


def job():
    return pydt.Plan(
        pydt.Groups([f"g{i % 4}" for i in range(12)]),
        design=pydt.design.bernoulli(4, 6, seed=1),
        recipe=pydt.Function(fit),
        tasks=[Measure("loss")],
    )


if __name__ == "__main__":
    table = table * 2
    pydt.run(job(), sys.argv[1] + "/processes", workers=2, progress=False)
    with ProcessPoolExecutor(2) as pool:
        pydt.run(job(), sys.argv[1] + "/foreign", pool, progress=False)
"""


def test_a_function_of_the_script_travels_with_what_it_reads(tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(SCRIPT)
    (tmp_path / "elsewhere").mkdir()
    made_by = [sys.executable, str(tmp_path / "work.py"), str(tmp_path)]
    done = subprocess.run(made_by, cwd=tmp_path / "elsewhere", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "processes")
    kept = store.masks()[:, np.arange(12) % 4]
    seeds = np.array([row.seed for row in store.rows()])
    expected = (kept * (2.0 * np.arange(12))).sum(1) + seeds  # doubled: as it was when the run began
    np.testing.assert_array_equal(store.outputs("loss", "value", "all")[:, 0], expected.astype(np.float32))
    assert contents(tmp_path / "processes") == contents(tmp_path / "foreign")


def test_threads_and_processes_give_equal_bytes(tmp_path: Path) -> None:
    go(plan(answers), tmp_path / "processes", workers=2)
    with ThreadPoolExecutor(3) as pool:
        go(plan(answers), tmp_path / "threads", executor=pool)
    assert contents(tmp_path / "processes") == contents(tmp_path / "threads")
