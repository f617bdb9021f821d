"""Hugging Face's data sets, by a stand-in and itself."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import PILToTensor

from pydt.base import DataError
from pydt.data import Dataset


def names_of(data: Dataset) -> list[str]:
    """The class name of each example."""
    return [data.classes[label] for label in data.labels]


class Feature:
    """A feature of the `datasets` package, as far as it is looked at."""

    def __init__(self, decode: bool = True, names: list[str] | None = None) -> None:
        self.decode = decode
        if names is not None:
            self.names = names


class Names:
    def __init__(self, names: list[str]) -> None:
        self.names = names


class Rows:
    """A data set of the `datasets` package: rows, and a choice of them."""

    def __init__(self, columns: dict[str, list[Any]], features: dict[str, Any], style: Any = None) -> None:
        self.columns, self.features, self.style = columns, features, style

    @property
    def format(self) -> dict[str, Any]:
        kind = self.style if self.style is None or isinstance(self.style, str) else "custom"
        return {"type": kind, "columns": list(self.columns)}

    @property
    def column_names(self) -> list[str]:
        return list(self.columns)

    def with_format(self, style: Any) -> Rows:
        return Rows(self.columns, self.features, style)

    with_transform = with_format

    def select(self, chosen: list[int]) -> Rows:
        return Rows({name: [v[i] for i in chosen] for name, v in self.columns.items()}, self.features, self.style)

    def cast_column(self, name: str, feature: Any) -> Rows:
        return Rows(self.columns, {**self.features, name: feature}, self.style)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Iterator[Any] | list[Any]:
        values = self.columns[name]
        if name == "image" and not self.features["image"].decode:
            return [None if v is None else {"bytes": b"x", "path": None} for v in values]
        if name == "image" and self.style == "torch":
            return [None if v is None else PILToTensor()(v) for v in values]
        return iter(values)


PICTURES = [Image.new("RGB", (5, 4), (10 * i, 0, 0)) for i in range(6)]
COLUMNS = {"image": PICTURES, "label": [2, 0, 1, 2, 0, 2], "text": ["a", None, "c", "d", "e", "f"]}


def stand_in(columns: dict[str, list[Any]]) -> Any:
    return Rows(columns, {"image": Feature(), "label": Names(["ant", "bee", "cat"]), "text": object()})


def itself(columns: dict[str, list[Any]]) -> Any:
    package = pytest.importorskip("datasets")
    label = package.ClassLabel(names=["ant", "bee", "cat"])
    features = package.Features(image=package.Image(), label=label, text=package.Value("string"))
    return package.Dataset.from_dict(columns, features=features)


@pytest.fixture(params=[stand_in, itself])
def make(request: pytest.FixtureRequest) -> Callable[[dict[str, list[Any]]], Any]:
    return request.param


def test_a_selection_keeps_the_names_that_have_images(make: Callable[..., Any]) -> None:
    assert names_of(Dataset.from_huggingface(make(COLUMNS))) == ["cat", "ant", "bee", "cat", "ant", "cat"]
    with pytest.warns(UserWarning, match="hf: 1 of 3 class names has no image and is left out: 'bee'"):
        data = Dataset.from_huggingface(make(COLUMNS).select([5, 1, 0]))
    assert names_of(data) == ["cat", "ant", "cat"]
    assert data.images is not None
    assert data.images[:, 0, 0, 0].tolist() == [50, 10, 0]


def test_missing_captions_labels_and_images(make: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="1 caption is missing and is empty: position 1"):
        assert Dataset.from_huggingface(make(COLUMNS), caption="text").captions == ("a", "", "c", "d", "e", "f")
    rows = make({**COLUMNS, "label": [2, None, 1, -1, 0, 2]})
    with pytest.raises(DataError, match=r"no label at positions 1, 3 \(2 of 6 images\).*dataset\.filter"):
        Dataset.from_huggingface(rows)
    rows = make({**COLUMNS, "image": [*PICTURES[:4], None, None]})
    with pytest.raises(DataError, match=r"no image at positions 4, 5 \(2 of 6 images\).*dataset\.filter"):
        Dataset.from_huggingface(rows)


@pytest.mark.parametrize("style", ["torch", "numpy", "pandas", "arrow", "polars"])
def test_a_format_changes_nothing(make: Callable[..., Any], style: str) -> None:
    if make is itself and style in ("pandas", "polars"):
        pytest.importorskip(style)
    plain = Dataset.from_huggingface(make(COLUMNS))
    assert Dataset.from_huggingface(make(COLUMNS).with_format(style)).digest == plain.digest


def test_a_function_that_changes_rows_is_refused(make: Callable[..., Any]) -> None:
    changed = make(COLUMNS).with_transform(lambda rows: {**rows, "label": [0] * len(rows["label"])})
    with pytest.raises(DataError, match=r"a function of with_transform changes its rows.*dataset\.map"):
        Dataset.from_huggingface(changed)


def test_splits_and_streams(make: Callable[..., Any]) -> None:
    splits = {"train": make(COLUMNS).select([0, 1, 2]), "test": make(COLUMNS)}
    assert len(Dataset.from_huggingface(splits)) == 3
    assert len(Dataset.from_huggingface(splits, split="test")) == 6
    with pytest.raises(DataError, match=r"no split 'validation'.*split='train' or 'test'"):
        Dataset.from_huggingface(splits, split="validation")


def test_images_of_an_archive_are_decoded(tmp_path: Path) -> None:
    package = pytest.importorskip("datasets")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for i in range(2):
            buffer = io.BytesIO()
            PICTURES[i].save(buffer, "PNG")
            archive.writestr(f"{i}.png", buffer.getvalue())
    paths = [f"zip://{i}.png::{tmp_path / 'a.zip'}" for i in range(2)]
    rows = package.Dataset.from_dict({"image": paths, "label": ["x", "y"]}).cast_column("image", package.Image())
    data = Dataset.from_huggingface(rows)
    assert data.images is not None
    assert data.images[:, 0, 0, 0].tolist() == [0, 10]


def test_files_that_are_gone_are_refused_with_a_mend_that_is_there(tmp_path: Path) -> None:
    package = pytest.importorskip("datasets")
    folder = pytest.importorskip("torchvision").datasets.ImageFolder
    for name in "xy":
        (tmp_path / name).mkdir()
        PICTURES[0].save(tmp_path / name / "0.png", "PNG")
    listed = folder(str(tmp_path))
    paths = [path for path, _ in listed.samples]
    rows = package.Dataset.from_dict({"image": paths, "label": ["x", "y"]}).cast_column("image", package.Image())
    (tmp_path / "x" / "0.png").unlink()
    for told, make in (
        ("torch.utils.data.Subset", lambda: Dataset.from_torchvision(listed)),
        ("dataset.select", lambda: Dataset.from_huggingface(rows)),
    ):
        with pytest.raises(DataError, match=f"x/0.png: cannot be read.*leave them out: {told}") as caught:
            make()
        assert "skip" not in str(caught.value)


def test_what_the_package_itself_does(tmp_path: Path) -> None:
    package = pytest.importorskip("datasets")
    rows = itself(COLUMNS)
    expected = ["cat", "ant", "bee", "cat", "ant", "cat"]
    shuffled = rows.shuffle(seed=3)
    data = Dataset.from_huggingface(shuffled)
    assert data.images is not None
    assert [expected[colour // 10] for colour in data.images[:, 0, 0, 0]] == names_of(data)
    with pytest.warns(UserWarning, match="'bee'"):
        kept = Dataset.from_huggingface(rows.filter(lambda row: row["label"] != 1))
    assert names_of(kept) == [name for name in expected if name != "bee"]
    assert names_of(Dataset.from_huggingface(rows.rename_column("label", "kind"), label="kind")) == expected
    renamed = rows.cast_column("label", package.ClassLabel(names=["A", "B", "C "]))
    assert Dataset.from_huggingface(renamed).classes == ("A", "B", "C")
    undecoded = rows.cast_column("image", package.Image(decode=False))
    assert Dataset.from_huggingface(undecoded).digest == Dataset.from_huggingface(rows).digest
    texts = rows.remove_columns("label").add_column("label", [f" {name}\n" for name in expected])
    assert names_of(Dataset.from_huggingface(texts)) == expected
    with pytest.raises(DataError, match=r"a IterableDataset is no data set.*not streamed"):
        Dataset.from_huggingface(rows.to_iterable_dataset())
    both = package.DatasetDict(train=rows, test=rows.select([0, 1, 2]))
    assert len(Dataset.from_huggingface(both, split="test")) == 3
    both.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="no split 'validation'"):
        Dataset.from_huggingface(tmp_path / "saved", split="validation")
    many = package.Features(image=package.Image(), label=package.Sequence(package.ClassLabel(names=["a", "b"])))
    several = package.Dataset.from_dict({"image": PICTURES[:2], "label": [[0], [0, 1]]}, features=many)
    with pytest.raises(DataError, match=r"labels: \[0\] at position 0"):
        Dataset.from_huggingface(several)
    with Path(tmp_path / "a.png").open("wb") as file:
        PICTURES[3].save(file, "PNG")
    files = package.Dataset.from_dict({"image": [str(tmp_path / "a.png")], "label": ["x"]})
    assert Dataset.from_huggingface(files.cast_column("image", package.Image())).encoded
    with pytest.raises(DataError, match=r"hf: column 'image' holds texts .*cast_column\('image'"):
        Dataset.from_huggingface(files)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    for dtype, values in (("uint8", pixels), ("float32", (pixels / 255).astype(np.float32))):
        cubes = package.Features(image=package.Array3D((5, 4, 3), dtype), label=package.Value("string"))
        data = Dataset.from_huggingface(
            package.Dataset.from_dict({"image": list(values), "label": ["x", "y"]}, features=cubes)
        )
        assert np.array_equal(data.images if data.images is not None else 0, pixels)
    lists = rows.select([3]).map(lambda row: {"pixels": np.asarray(row["image"])}, remove_columns="image")
    with pytest.warns(UserWarning, match="2 of 3 class names"):
        (listed,) = np.asarray(Dataset.from_huggingface(lists, image="pixels").images)
    assert np.array_equal(listed, np.asarray(PICTURES[3]))
    with pytest.raises(DataError, match=r"item is not .* but a dict of 3.*Dataset\.from_huggingface"):
        Dataset.from_torchvision(rows)
    broken = [{"bytes": b"no image", "path": None}, {"bytes": b"nor this", "path": None}]
    hollow = package.Dataset.from_dict({"image": broken, "label": [0, 1]}).cast_column("image", package.Image())
    with pytest.raises(DataError, match=r"hf\[0\]: the image raised UnidentifiedImageError"):
        Dataset.from_huggingface(hollow)
