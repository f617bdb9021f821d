"""One rule for text, numbers, and what is missing, wherever labels, group columns and captions come from.

More than 500 lines: each source of labels is held to every part of the one rule.
"""

from __future__ import annotations

import json
import unicodedata
import warnings
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stub_tars as tars
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pydt.base import DataError
from pydt.data import Dataset, Target
from pydt.data.labels import as_text, encode_captions, encode_columns, encode_labels
from pydt.ensemble import read_plan


def images(n: int) -> np.ndarray:
    return np.zeros((n, 2, 2), np.uint8)


def one_names(labels: Any, classes: Any = None) -> list[str]:
    """The name of each label."""
    codes, names = encode_labels(labels, classes, 3)
    return [names[code] for code in codes]


# ---- text ----------------------------------------------------------------------------------------------------------

SPELLINGS = [
    "café",
    " café",
    "café\n",
    "\ufeffcafé",
    "café\0\0",
    "cafe\u0301",
    "café".encode(),
    b"\xef\xbb\xbfcaf\xc3\xa9\r\n",
]


def from_arrays(tmp_path: Path, label: Any) -> tuple[str, ...]:
    return Dataset.from_arrays(images(2), [label, "dog"]).classes


def from_an_array(tmp_path: Path, label: Any) -> tuple[str, ...]:
    if isinstance(label, bytes):
        return Dataset.from_arrays(images(2), np.array([label, b"dog"])).classes
    return Dataset.from_arrays(images(2), np.array([label, "dog"])).classes


def from_names(tmp_path: Path, label: Any) -> tuple[str, ...]:
    return Dataset.from_arrays(images(2), [0, 1], [label, "dog"]).classes


def from_a_column(tmp_path: Path, label: Any) -> tuple[str, ...]:
    return Dataset.from_arrays(images(2), [0, 1], columns={"pet": [label, "dog"]}).columns["pet"][1]


def from_a_folder(tmp_path: Path, label: Any) -> tuple[str, ...]:
    text = label.decode() if isinstance(label, bytes) else label
    for name in (text.replace("\0", ""), "dog"):  # no file name holds a NUL
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(tars.jpeg(0))
    return Dataset.from_folder(tmp_path).classes


def from_cls(tmp_path: Path, label: Any) -> tuple[str, ...]:
    content = label if isinstance(label, bytes) else label.encode()
    members = [*tars.examples([1], cls="dog"), tars.member("a.jpg", tars.jpeg(2)), tars.member("a.cls", content)]
    return Dataset.from_tar(tars.write(tmp_path / "a.tar", members)).classes


def from_a_file_of_a_plan(tmp_path: Path, label: Any) -> tuple[str, ...]:
    content = label if isinstance(label, bytes) else label.encode()
    np.save(tmp_path / "images.npy", images(2))
    lines = [content.replace(b"\r", b"").replace(b"\n", b""), b"dog"]
    (tmp_path / "labels.txt").write_bytes(b"\n".join(lines))
    text = """
        [source]
        images = "images.npy"
        labels = "labels.txt"
        columns.pet = "labels.txt"
        [design]
        kind = "bernoulli"
        models = 4
        [[tasks]]
        target.train.sample = "digits"
    """
    (tmp_path / "plan.toml").write_text(text)
    source = read_plan(tmp_path / "plan.toml").plan.source
    assert source.columns["pet"][1] == source.classes
    return source.classes


def from_json(tmp_path: Path, label: Any) -> tuple[str, ...]:
    text = label.decode() if isinstance(label, bytes) else label
    members = [*tars.examples([1], json='{"kind": "dog"}'), tars.member("a.jpg", tars.jpeg(2))]
    members.append(tars.member("a.json", json.dumps({"kind": text}).encode()))
    return Dataset.from_tar(tars.write(tmp_path / "a.tar", members), label="kind").classes


SOURCES = [
    from_arrays,
    from_an_array,
    from_names,
    from_a_column,
    from_a_folder,
    from_cls,
    from_json,
    from_a_file_of_a_plan,
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("source", SOURCES)
def test_a_text_is_one_name_wherever_it_comes_from(source: Callable[..., Any], spelling: Any, tmp_path: Path) -> None:
    assert sorted(source(tmp_path, spelling)) == ["café", "dog"]


@pytest.mark.parametrize(
    ("labels", "shown"),
    [
        (["cat", "cat ", "dog"], r"'cat' and 'cat ' are one name"),
        (["cat", b"cat", "dog"], r"'cat' and b'cat'"),
        (["caf\u00e9", "cafe\u0301", "dog"], r"'café' and 'cafe\\u0301' are"),
        (["\ufeffcat", "cat", "dog"], r"'\\ufeffcat' and 'cat'"),
        ([1, "1", 2], r"1 and '1'"),
        (["1", "01", "2"], r"'1' and '01'|'01' and '1'"),
        ([True, "True", "dog"], r"True and 'True'"),
        ([True, 0, 5], r"True and 0 in one list"),
    ],
)
def test_two_spellings_of_one_label_are_refused_and_shown(labels: list[Any], shown: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=shown):
        Dataset.from_arrays(images(3), labels)
    with pytest.raises(DataError, match=rf"column 'pet': .*({shown})"):
        Dataset.from_arrays(images(3), [0, 1, 0], columns={"pet": labels})
    if all(isinstance(label, str) for label in labels):
        members = [m for i, text in enumerate(labels) for m in tars.examples([i], cls=text)]
        with pytest.raises(DataError, match=shown):
            Dataset.from_tar(tars.write(tmp_path / "a.tar", members))
    if isinstance(labels[1], str) and not isinstance(labels[0], int) and labels[1] != "01":
        with pytest.raises(DataError, match="the same name twice: "):
            Dataset.from_arrays(images(3), [0, 1, 2], labels)


def test_two_folders_of_one_name_are_refused_and_shown(tmp_path: Path) -> None:
    for name in ("cafe\u0301", "café", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(tars.jpeg(0))
    assert len(list(tmp_path.iterdir())) == 3
    with pytest.raises(DataError, match=r"the same name twice: 'cafe\\u0301' and 'caf\u00e9'"):
        Dataset.from_folder(tmp_path)


def test_the_index_of_a_series_of_class_names_says_their_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"number": [2, 0, 1], "name": ["c", "a", "b"]})
    for classes in (
        table.set_index("number")["name"],
        table.set_index("name")["number"],
        pandas.Series(["a", "b", "c"]),
        table.sort_values("name", ignore_index=True)["name"],
    ):
        data = Dataset.from_arrays(images(3), [0, 1, 2], classes)
        assert [data.classes[label] for label in data.labels] == ["a", "b", "c"]
    by_row = table["name"].sort_values()  # its index still says 0: c, 1: a, 2: b
    assert Dataset.from_arrays(images(3), [0, 1, 2], by_row).classes == ("c", "a", "b")
    for wrong, told in (
        (pandas.Series(["a", "b", "c"], index=[0, 1, 1]), "its index has an entry twice"),
        (pandas.Series(["a", "b", "c"], index=["x", "y", "z"]), "what is a number and what a name"),
        (table, "a DataFrame is no list of texts.*one column"),
    ):
        with pytest.raises(DataError, match=told):
            Dataset.from_arrays(images(3), [0, 1, 2], wrong)


@pytest.mark.parametrize("wrong", [b"caf\xe9", "caf\udce9"])
def test_text_that_is_not_utf8_is_refused_with_its_place(wrong: Any) -> None:
    with pytest.raises(DataError, match=r"labels: b?'caf\\\w+' at position 2 is not UTF-8"):
        Dataset.from_arrays(images(3), ["a", "b", wrong])
    with pytest.raises(DataError, match=r"captions: b?'caf\\\w+' at position 2 is not UTF-8"):
        Dataset.from_arrays(images(3), [0, 1, 0], captions=["a", "b", wrong])


@given(st.text(max_size=6) | st.binary(max_size=6))
def test_a_text_by_the_rule_is_what_it_is(raw: str | bytes) -> None:
    try:
        text = as_text(raw)
    except ValueError:
        with pytest.raises((UnicodeDecodeError, UnicodeEncodeError)):
            raw.decode() if isinstance(raw, bytes) else raw.encode()
        return
    assert as_text(text) == text
    assert as_text(f" \ufeff{text}\0\n") == text
    assert unicodedata.is_normalized("NFC", text)
    assert as_text(text.encode()) == text


def test_numbers_are_numbers_however_they_are_written(tmp_path: Path) -> None:
    expected = ("1", "2", "10")
    for labels in ([10, 1, 2], ["10", "1", "2"], [10.0, np.int8(1), torch.tensor(2)], np.array(["10", "1", "2"], "S5")):
        assert Dataset.from_arrays(images(3), labels).classes == expected, labels
        assert one_names(labels, {10: "c", 1: "a", 2: "b"}) == ["c", "a", "b"]
    members = [m for i, text in enumerate(("10", "1", "2")) for m in tars.examples([i], cls=text)]
    assert Dataset.from_tar(tars.write(tmp_path / "a.tar", members)).classes == expected
    # A text that names a class is that class, and no number.
    assert one_names(["1", "0", "1"], ["1", "0"]) == ["1", "0", "1"]
    assert one_names([1, 0, 1], ["1", "0"]) == ["0", "1", "0"]
    with pytest.raises(DataError, match="'cat' and 0 in one list"):
        one_names([0, "cat", 0], ["cat", "0"])
    codes, _ = encode_columns({"site": ["3", "-1", "4"]}, 3)["site"]
    assert codes.tolist() == [0, -1, 1], "-1 is in no group however it is written"


@settings(max_examples=200)
@given(st.lists(st.integers(-20, 20) | st.sampled_from([2**40, -(2**40)]), min_size=1, max_size=12))
def test_numbers_texts_and_arrays_of_them_are_the_same_labels(numbers: list[int]) -> None:
    distinct = sorted(set(numbers))
    for labels in (
        numbers,
        np.array(numbers),
        list(map(str, numbers)),
        np.array(numbers, float),
        torch.tensor(numbers),
    ):
        codes, names = encode_labels(labels, None, len(numbers))
        assert names == tuple(map(str, distinct))
        assert codes.tolist() == [distinct.index(n) for n in numbers]


# ---- classes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "classes",
    [
        {0: "cat", 2: "owl", 1: "dog"},
        {"owl": 2, "cat": 0, "dog": 1},
        {"2": "owl", "0": "cat", "1": "dog"},  # as JSON has it
        {np.int64(1): "dog", np.int64(0): "cat", np.int64(2): "owl"},
        ["cat", "dog", "owl"],
        np.array(["cat", "dog", "owl"]),
        (name for name in ("cat", "dog", "owl")),
        {"cat": 7, "dog": 5, "owl": 9}.keys(),
        {7: "cat", 8: "dog", 9: "owl"}.values(),
    ],
)
def test_classes_say_which_number_has_which_name(classes: Any) -> None:
    codes, names = encode_labels([2, 0, 1], classes, 3)
    assert codes.tolist() == [2, 0, 1]
    assert names == ("cat", "dog", "owl")


def test_numbers_in_the_lines_of_a_plan_are_numbers_of_its_classes(tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", images(3))
    (tmp_path / "labels.txt").write_text("1\n0\n1\n")
    (tmp_path / "said.txt").write_text("\ufeffone\n\nthree\n")
    for classes in ('["cat", "dog"]', '{ 0 = "cat", 1 = "dog" }', "{ dog = 1, cat = 0 }"):
        text = f"""
            [source]
            images = "images.npy"
            labels = "labels.txt"
            captions = "said.txt"
            classes = {classes}
            [design]
            kind = "bernoulli"
            models = 4
            [[tasks]]
            target.train.sample = "digits"
        """
        (tmp_path / "plan.toml").write_text(text)
        source = read_plan(tmp_path / "plan.toml").plan.source
        assert [source.classes[label] for label in source.labels] == ["dog", "cat", "dog"]
        assert source.captions == ("one", "", "three")


def test_a_mapping_may_have_gaps_and_two_names_for_one_number() -> None:
    table = {"cat": 3, "kitten": 3, "dog": 10}
    data = Dataset.from_arrays(images(3), [10, 3, 10], table)
    assert data.classes == ("cat, kitten", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match=r"label 4 at position 1 with 2 classes.*use one of 3, 10"):
        Dataset.from_arrays(images(3), [10, 4, 10], table)


@pytest.mark.parametrize(
    ("classes", "what"),
    [
        ({"cat", "dog", "owl"}, "a set has no order"),
        (frozenset(("cat", "dog", "owl")), "a frozenset has no order"),
        ({"cat": "dog", "dog": "cat"}, "what is a number and what a name"),
        ({0: 1, 1: 2, 2: 0}, "what is a number and what a name"),
        (["cat", None, "owl"], "no name of class 1"),
        (["cat", float("nan"), "owl"], "no name of class 1"),
        ("cat", "is no list of texts"),
    ],
)
def test_classes_that_do_not_say_it_are_refused(classes: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        Dataset.from_arrays(images(3), [0, 1, 2], classes)


def test_equal_names_are_refused_and_a_number_may_stand_for_no_label() -> None:
    with pytest.raises(DataError, match="the same name twice: 'cat' and 'cat'"):
        one_names([0, 1, 0], ["cat", "cat"])
    with pytest.raises(DataError, match=r"no label at position 1 \(None, NaN, empty or -1\)"):
        encode_labels([0, -1, 0], ["cat"], 3, absent=-1)
    assert encode_labels([0, -1, 0], {0: "cat", -1: "dog"}, 3, absent=-1)[1] == ("dog", "cat")
    assert encode_labels([0, -1, 0], None, 3, absent=-1)[1] == ("-1", "0")


def test_a_test_set_is_numbered_by_the_names_of_its_classes() -> None:
    train = Dataset.from_arrays(np.zeros((90, 2, 2), np.uint8), np.arange(90) % 3, ["cat", "dog", "owl"])
    test = Dataset.from_arrays(np.full((40, 2, 2), 7, np.uint8), ["owl", "cat"] * 20)
    target = Target(train, test)
    assert [target.classes[label] for label in target.judged.labels[:2]] == ["owl", "cat"]
    assert target.judged.classes == train.classes
    with pytest.raises(DataError, match="different class names: 'emu' is in test alone"):
        Target(train, Dataset.from_arrays(np.full((40, 2, 2), 7, np.uint8), ["emu", "cat"] * 20))


# ---- what is missing -----------------------------------------------------------------------------------------------


class NAType:
    """pandas' NA: neither equal to itself nor unequal, and of no truth value."""

    def __eq__(self, other: object) -> Any:
        return self

    def __ne__(self, other: object) -> Any:
        return self

    __hash__ = object.__hash__

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")


class Scalar:
    """A scalar of Arrow."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def as_py(self) -> Any:
        return self.value


MISSING = {
    "None": None,
    "nan": float("nan"),
    "numpy": np.float32("nan"),
    "time": np.datetime64("NaT"),
    "masked": np.ma.masked,
    "pandas": NAType(),
    "arrow": Scalar(None),
    "torch": torch.tensor(float("nan")),
    "decimal": Decimal("nan"),
    "empty": "",
    "blank": " \n",
    "bytes": b"",
}


@pytest.mark.parametrize("how", MISSING)
def test_what_is_missing_is_missing_in_every_spelling(how: str) -> None:
    missing = MISSING[how]
    labels = ["b", missing, "a", missing]
    with pytest.raises(DataError, match=r"no label at positions 1, 3 \(2 of 4 images\).*leave the image out"):
        Dataset.from_arrays(images(4), labels)
    data = Dataset.from_arrays(images(4), [0, 1, 0, 1], columns={"site": labels, "size": [10, missing, 9, -1]})
    assert data.columns["site"][0].tolist() == [1, -1, 0, -1]
    assert data.columns["site"][1] == ("a", "b")
    assert data.columns["size"][0].tolist() == [1, -1, 0, -1]
    assert data.columns["size"][1] == ("9", "10")
    if how in ("empty", "blank", "bytes"):
        assert Dataset.from_arrays(images(4), [0, 1, 0, 1], captions=labels).captions is not None
        return
    with pytest.warns(UserWarning, match=r"2 captions are missing and are empty: positions 1, 3 \(2 of 4 images\)"):
        data = Dataset.from_arrays(images(4), [0, 1, 0, 1], captions=labels)
    assert data.captions == ("b", "", "a", "")
    assert data.noted == {"images without a caption": (2, "1")}


def test_columns_of_numpy() -> None:
    masked = np.ma.array([5, 6, 5], mask=[False, True, False])
    assert encode_columns({"site": masked}, 3)["site"][0].tolist() == [0, -1, 0]
    with pytest.raises(DataError, match="no label at position 1"):
        Dataset.from_arrays(images(3), masked)
    assert encode_labels(np.array(["a", "b", "a"], object), None, 3)[1] == ("a", "b")
    assert encode_labels(np.array([b"a\0", b"b", b"a"]), None, 3)[1] == ("a", "b")
    assert encode_labels(np.array([True, False, True]), ["no", "yes"], 3)[0].tolist() == [1, 0, 1]


def test_dates_are_no_numbers() -> None:
    for dates in (np.array(["2020-01-01", "NaT"], "M8[ns]"), [np.datetime64("2020-01-01", "ns"), None]):
        with pytest.raises(DataError, match=r"'2020-01-01.* at position 0"):
            encode_columns({"day": dates}, 2)
    assert encode_columns({"day": np.array(["NaT", "NaT"], "M8[ns]")}, 2)["day"][0].tolist() == [-1, -1]


def test_rows_with_a_single_one_are_no_labels() -> None:
    with pytest.raises(DataError, match=r"shape \(3, 3\) for 3 images.*labels\.argmax\(1\)"):
        Dataset.from_arrays(images(3), np.eye(3))


def test_what_to_do_about_images_that_are_tensors_of_floats() -> None:
    floats = torch.arange(8 * 3 * 5 * 6).reshape(8, 3, 5, 6).to(torch.uint8) / 255
    given: Any = floats
    mends = []
    for _ in range(2):
        with pytest.raises(DataError, match="images: ") as caught:
            Dataset.from_arrays(given, [0, 1] * 4)
        mend = str(caught.value.mend)
        mends.append(mend)
        code = mend[mend.index("numpy.") :].split(" if ")[0].split(" puts ")[0]
        given = eval(code, {"numpy": np, "images": given})
    data = Dataset.from_arrays(given, [0, 1] * 4)
    assert data.images is not None
    assert np.array_equal(data.images, (floats * 255).round().permute(0, 2, 3, 1).to(torch.uint8))


def test_names_of_columns_and_of_parts_are_texts() -> None:
    part = Dataset.from_arrays(images(2), ["a", "b"])
    for wrong in (None, float("nan"), b"x", 5):
        with pytest.raises(DataError, match=r"names: .* at position 1 is no text"):
            Dataset.concat([part, part], names=["one", wrong])  # type: ignore[list-item]


def test_captions_are_texts_and_nothing_else() -> None:
    assert encode_captions([b"a", " b\n", np.str_("\ufeffc")], 3)[0] == ("a", " b\n", "c")
    texts, missing = encode_captions(["", "a", None], 3)
    assert texts == ("", "a", "")
    assert missing.tolist() == [False, False, True], "an empty caption is one"
    assert encode_captions([None] * 3, 3)[0] is None
    for wrong, shown in [
        (["a", 5, "b"], "5 at position 1 is no text"),
        (["a", "b", ["c", "d"]], "'d'] at position 2 is no text"),
    ]:
        with pytest.raises(DataError, match=shown):
            encode_captions(wrong, 3)
    with pytest.raises(DataError, match="a dict is no list"):
        encode_captions({"a": 1, "b": 2, "c": 3}, 3)


class Table:
    """A table of pandas or polars, as far as it is looked at."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = list(columns)
        self._values = columns

    def __len__(self) -> int:
        return len(next(iter(self._values.values())))

    def __iter__(self) -> Any:
        return iter(self.columns)

    def __getitem__(self, name: str) -> Series:
        return Series(self._values[name])


class Series:
    """A column of pandas or polars."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Any:
        return iter(self._values)

    def to_list(self) -> list[Any]:
        return self._values


def check_table(table: Any) -> None:
    """A table with text, numbers and captions, in each place where a column is taken."""
    labels, units, texts = table["kind"], table["size"], table["text"]
    with pytest.warns(UserWarning, match="1 caption is missing and is empty: position 2"):
        data = Dataset.from_arrays(images(3), labels, columns={"size": units}, captions=texts)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    assert data.columns["size"][0].tolist() == [0, -1, 1]
    assert data.columns["size"][1] == ("3", "4")
    assert data.captions == ("one", "two", "")
    data = Dataset.from_arrays(images(3), [0, 1, 0], columns=table)
    assert list(data.columns) == ["kind", "size", "text"]
    assert data.columns["text"][0].tolist() == [0, 1, -1]
    with pytest.raises(DataError, match=f"labels: a {type(table).__name__} is no list.*one column"):
        Dataset.from_arrays(images(3), table)
    with pytest.raises(DataError, match=f"captions: a {type(table).__name__} is no list|captions for 3 images"):
        Dataset.from_arrays(images(3), [0, 1, 0], captions=table)


ODD = [*MISSING.values(), 1, -1, 2**70, 1.5, True, "a", "a ", "01", "\udcff", b"\xff", np.int8(1), np.timedelta64(1)]
ODD += [np.bool_(True), np.array([1, 2]), torch.tensor([1]), [1], {"a": 1}, {1}, range(2), object, Path("a"), 1j]


def given_as(name: str, values: Any) -> Dataset | DataError:
    """A data set of four images with something in one of the places where a column is taken, or why it is refused."""
    how: dict[str, Any] = {"labels": range(4) if name == "classes" else [0, 1] * 2, name: values}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Dataset.from_arrays(images(4), **how)
    except DataError as error:
        return error


PLACES = ["labels", "classes", "columns", "captions"]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, len(ODD) - 1), min_size=4, max_size=4), st.sampled_from([list, tuple, iter, Series]))
def test_whatever_is_given_is_taken_or_refused(chosen: list[int], kind: Callable[..., Any]) -> None:
    values = [ODD[i] for i in chosen]  # some have no hash, which hypothesis asks for
    for place in PLACES:
        found = given_as(place, {"site": kind(values)} if place == "columns" else kind(values))
        if isinstance(found, DataError):
            assert found.mend
            assert found.where
        else:
            assert len(found) == 4
            assert all(as_text(text) == text for text in found.classes)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "odd", [2**70, 1.5, "text", b"text", {1}, object, 1j, torch.tensor(1), np.array(1), np.ma.masked]
)
def test_what_is_no_column_is_refused(place: str, odd: Any) -> None:
    for values in [odd, {"site": odd}] if place == "columns" else [odd]:
        found = given_as(place, values)
        assert isinstance(found, DataError)
        assert found.mend


TABLE: dict[str, list[Any]] = {"kind": ["dog", "cat", "dog"], "size": [3, None, 4], "text": ["one", "two", None]}


def test_tables_give_their_columns() -> None:
    check_table(Table(TABLE))


def test_tables_of_pandas() -> None:
    pandas = pytest.importorskip("pandas")
    check_table(pandas.DataFrame(TABLE))
    check_table(pandas.DataFrame(TABLE, index=[7, 7, 1]))
    check_table(pandas.DataFrame(TABLE).convert_dtypes())
    check_table(pandas.DataFrame(TABLE).astype({"kind": "category", "text": "category"}))
    twice = pandas.DataFrame([[1, 2], [3, 4]], columns=["a", "a"])
    with pytest.raises(DataError, match="columns: column 'a' is there twice"):
        Dataset.from_arrays(images(2), [0, 1], columns=twice)
    for missing in (pandas.NA, pandas.NaT):
        with pytest.raises(DataError, match="no label at position 1"):
            Dataset.from_arrays(images(3), ["a", missing, "b"])


def test_tables_of_polars() -> None:
    polars = pytest.importorskip("polars")
    check_table(polars.DataFrame(TABLE))


def test_tables_of_arrow() -> None:
    arrow = pytest.importorskip("pyarrow")
    with pytest.raises(DataError, match="columns: column 'a' is there twice"):
        Dataset.from_arrays(images(2), [0, 1], columns=arrow.table([[1, 2], [3, 4]], names=["a", "a"]))
    check_table(arrow.table(TABLE))
    with pytest.raises(DataError, match="no label at position 1"):
        Dataset.from_arrays(images(3), [arrow.scalar("a"), arrow.scalar(None), arrow.scalar("b")])


def test_what_is_missing_in_the_json_of_a_shard(tmp_path: Path) -> None:
    def shard(*texts: str) -> Path:
        members = [m for i, text in enumerate(texts) for m in tars.examples([i], json=text)]
        return tars.write(tmp_path / "a.tar", members)

    # A field that is not asked for is not looked at.
    path = shard('{"kind": "a", "score": NaN, "x": Infinity}', '{"kind": "b", "score": 1}')
    assert Dataset.from_tar(path, label="kind").classes == ("a", "b")
    data = Dataset.from_tar(path, label="kind", columns=["score"])
    assert data.columns["score"][0].tolist() == [-1, 0]
    members = [*tars.examples([0], cls="0"), tars.member("000.txt", b"\xef\xbb\xbfa cat")]
    assert Dataset.from_tar(tars.write(tmp_path / "a.tar", members)).captions == ("a cat",)
    path = shard('{"kind": "a"}', '{"kind": NaN}', '{"kind": null}', '{"kind": ""}')
    with pytest.raises(DataError, match=r"3 bad files: .*001\.jpg: has no label \('kind' of its \.json is missing\)"):
        Dataset.from_tar(path, label="kind")
    assert len(Dataset.from_tar(path, label="kind", bad="skip")) == 1
    path = shard('{"kind": "a", "score": 1}', '{"kind": "b", "score": -Infinity}', '{"kind": 0.5, "score": 1}', '{"x')
    with pytest.raises(DataError, match="3 bad files") as caught:
        Dataset.from_tar(path, label="kind", columns=["score"])
    text = str(caught.value)
    assert "001.jpg: its .json cannot be used ('score' is -inf" in text
    assert "002.jpg: its .json cannot be used ('kind' is 0.5" in text
    assert "003.jpg: its .json cannot be used (Unterminated" in text, "not that it has no label"
