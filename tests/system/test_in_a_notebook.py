"""Data sets, designs, stores and studies in Python and notebooks: names survive, tables are short and escaped."""

from __future__ import annotations

import pickle
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pydt
from pydt.base import ConfigError, DataError, DesignError, html_table
from pydt.estimation import overall

README = Path(__file__).parents[2] / "README.md"
NAMES = [f"<b>{i}" for i in range(25)]


def data() -> pydt.Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    site = [f"site <{i % 4}>" if i else None for i in range(60)]
    images = random.integers(0, 256, (60, 8, 8, 1), np.uint8)
    return pydt.Dataset.from_arrays(images, labels, ["a", "<i>", "c"], columns={"site": site}, name="few")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> pydt.Store:
    """Of 100 rows the first failed; group 4 adds 5."""
    masks = pydt.design.bernoulli(25, 100, seed=2)[np.arange(100)]
    outputs = np.random.default_rng(1).normal(size=(100, 30)) + 5.0 * masks[:, [4]]
    outputs[0] = np.nan
    return pydt.Store.from_arrays(tmp_path_factory.mktemp("store"), masks, outputs, groups=NAMES)


def test_a_frame_of_a_store_has_the_masks_of_finished_rows_and_fits_keep_its_names(store: pydt.Store) -> None:
    pytest.importorskip("pandas")
    frame = store.to_frame()
    assert list(frame.columns) == NAMES
    assert frame.index.tolist() == store.finished().tolist() == list(range(1, 100))
    assert np.array_equal(frame.to_numpy(), store.masks())
    mean = store.outputs("outputs", "value").mean(1)
    found = pydt.influences(frame, mean).to_frame()
    assert found["group"].tolist() == NAMES
    assert found.loc[found["value"].idxmax(), "group"] == NAMES[4]
    assert overall(store).groups == tuple(NAMES)


def test_a_frame_of_a_design_has_its_masks_by_name() -> None:
    pytest.importorskip("pandas")
    made = pydt.design.random(25, 40, alpha=0.4, seed=1)
    assert np.array_equal(made.to_frame(NAMES).to_numpy(), np.asarray(made))
    assert list(made.to_frame(NAMES).columns) == NAMES
    assert list(made.to_frame().columns) == list(range(25))
    with pytest.raises(DesignError, match="24 names for 25 groups"):
        made.to_frame(NAMES[:24])


def test_a_frame_of_a_data_set_has_classes_and_groups_by_key() -> None:
    pytest.importorskip("pandas")
    made = data()
    frame = made.to_frame()
    assert frame.index.tolist() == list(made.all_keys())
    assert frame["class"].tolist() == [made.classes[label] for label in made.labels]
    assert frame["site"].tolist()[1:3] == ["site <1>", "site <2>"]
    assert frame["site"].isna().tolist() == [True] + [False] * 59


def study() -> pydt.Study:
    return pydt.Study(
        {"<b>src": data()}, {"supervised": pydt.Recipe("convnet-8", steps=3)}, {"t": pydt.Target(data())},
        shots=(1,), scratch=pydt.Recipe("convnet-8", "none"),
    )  # fmt: skip


def test_lines_are_short_tables_escaped_and_pandas_is_optional(
    store: pydt.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    made = pydt.design.random(25, 40, alpha=0.4, seed=1)
    assert repr(store) == f"Store({str(store.folder)!r}, 1 plan)"
    assert repr(study()) == "Study('study': 1 source x 1 size x 1 method x 1 target; 2 arms, 3 seeds each)"
    shown: list[Any] = [data(), made, store, study()]
    for one, expected in zip(shown, ("&lt;i&gt;", "0.4", "<td>99</td><td>1</td>", "&lt;b&gt;src"), strict=True):
        html = one._repr_html_()
        assert expected in html
        assert "<b>" not in html
        assert "<i>" not in html
        assert "<script" not in html
        assert len(repr(one)) < 200
    for one in shown[:3]:
        with pytest.raises(ConfigError, match=rf"{type(one).__name__}\.to_frame: pandas is not .*pip install pandas"):
            one.to_frame()


def test_a_store_refuses_tables_whose_rows_are_in_another_order(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    masks = pandas.DataFrame(pydt.design.bernoulli(5, 30)[np.arange(30)], [f"run {i}" for i in range(30)])
    outputs = pandas.DataFrame(random.normal(size=(30, 4)), masks.index)
    assert pydt.Store.from_arrays(tmp_path / "a", masks, outputs).masks().shape == (30, 5)
    with pytest.raises(DataError, match="outputs of 'b': the index of masks in another order"):
        pydt.Store.from_arrays(tmp_path / "b", masks, {"a": outputs, "b": outputs.iloc[::-1]})


def test_a_store_takes_the_names_of_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    random = np.random.default_rng(0)
    masks = pandas.DataFrame(pydt.design.bernoulli(8, 90)[np.arange(90)], columns=list("abcdefgh"))
    outputs = pandas.DataFrame(random.normal(size=(90, 4)), columns=["w", "x", "y", "z"])
    made = pydt.Store.from_arrays(tmp_path / "a", masks, {"p": outputs, "q": outputs.to_numpy()})
    assert made.plan().names == tuple("abcdefgh")
    ids = {task["name"]: made.examples(task["digest"], "all")["ids"] for task in made.plan().tasks}
    assert sorted(ids["q"].tolist()) == [0, 1, 2, 3]
    assert pydt.ranking(made, task="p", per="example").columns != pydt.ranking(made, task="q", per="example").columns
    assert set(pydt.ranking(made, task="p", per="example").columns) <= set("wxyz")
    # What is said goes before, numbers that only count are no names, and an older import is found again.
    named = pydt.Store.from_arrays(tmp_path / "b", masks, outputs, groups=list("qrstvwxy"))
    assert named.plan().names == tuple("qrstvwxy")
    counted = pandas.DataFrame(masks.to_numpy()), pandas.DataFrame(outputs.to_numpy())
    plain = pydt.Store.from_arrays(tmp_path / "c", masks.to_numpy(), outputs.to_numpy())
    assert pydt.Store.from_arrays(tmp_path / "c", *counted).plan().digest == plain.plan().digest
    twice = outputs.set_axis(["x", "x", "y", "z"], axis=1)
    assert len(pydt.Store.from_arrays(tmp_path / "d", masks, twice).plan().tasks) == 1


@pytest.mark.skipif(not README.is_file(), reason="the README is not here")
def test_the_example_of_the_readme_runs_as_written() -> None:
    pandas = pytest.importorskip("pandas")
    from matplotlib import pyplot

    random = np.random.default_rng(0)
    masks = pandas.DataFrame(random.random((60, 8)) < 0.5, columns=list("abcdefgh"))
    outputs = pandas.DataFrame({"accuracy": random.normal(size=60) + 3 * masks["c"], "margin": random.normal(size=60)})
    section = README.read_text(encoding="utf-8").split("### In a notebook", 1)[1].split("\n## ", 1)[0]
    lines = re.findall(r"^ {4}(.*)$", section, re.M)
    names: dict[str, Any] = {"pydt": pydt, "masks_table": masks, "outputs_table": outputs}
    exec(compile("\n".join(lines), README.name, "exec"), names)
    assert names["sure"]["group"].tolist()[-1] == "c"
    assert names["wide"].shape == (8, 2)
    assert len(names["ax"].containers[0][0].get_xdata()) == 8
    pyplot.close(names["ax"].figure)


def test_what_travels_to_other_processes_still_does(tmp_path: Path) -> None:
    for one in (data(), data().save(tmp_path / "data"), pydt.design.random(25, 40)):
        assert repr(pickle.loads(pickle.dumps(one))) == repr(one)


def test_a_table_says_how_many_rows_it_leaves_out_and_survives_any_text() -> None:
    html = html_table("a < b\n\udcff", ("name",), ((f"\udcff{i}" + "x" * 500,) for i in range(30)), 30, "groups")
    html.encode()
    assert html.count("<tr>") == 21
    assert "10 more groups" in html
    assert "a &lt; b<br>?" in html
    assert max(map(len, html.split("<td>"))) < 300
    assert "more" not in html_table("a", ("name",), [("b",)], 1)
