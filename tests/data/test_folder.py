"""Folders of image files, torchvision's and Hugging Face's data sets: what is listed, read, left out and noticed."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from oracle_crc import crc32c
from PIL import Image

from pydt import _core
from pydt.base import DataError
from pydt.data import Dataset, Target, pixels, spool
from pydt.data.formats import folder as sources
from pydt.data.formats.library_items import stack
from pydt.data.index_file import FILE, pack_index, read_index


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that the core is asked to read."""
    names: list[str] = []
    honest = _core.read_files

    def counting(ends: np.ndarray, data: np.ndarray, *others: Any) -> Any:
        names.extend(data[a:b].tobytes().decode() for a, b in pairwise(ends.tolist()))
        return honest(ends, data, *others)

    monkeypatch.setattr(_core, "read_files", counting)
    return names


def test_what_an_index_of_a_folder_says(folder_of_images: Path) -> None:
    dataset = Dataset.from_folder(folder_of_images)
    found = read_index(folder_of_images / FILE)
    files = sorted(folder_of_images.glob("*/*.jpg"))
    assert (
        list(found["keys"]) == [f.relative_to(folder_of_images).as_posix() for f in files] == list(dataset.keys or ())
    )
    assert list(found["classes"]) == ["class 0", "class 1", "class 2"]
    assert np.asarray(found["labels"]).tolist() == [0] * 7 + [1] * 7 + [2] * 7
    assert np.asarray(found["length"]).tolist() == [f.stat().st_size for f in files]
    assert np.asarray(found["time"]).tolist() == [f.stat().st_mtime_ns for f in files]
    assert np.asarray(found["crc"]).tolist() == [crc32c(f.read_bytes()) for f in files]
    sums = [hashlib.sha256(f.read_bytes()).digest()[:16] for f in files]
    assert np.asarray(found["sha"]).tobytes() == b"".join(sums)
    assert list(dataset.paths or ()) == [str(f) for f in files]


def test_a_folder_is_read_once_and_then_only_what_changed(folder_of_images: Path, reads: list[str]) -> None:
    first = Dataset.from_folder(folder_of_images)
    assert len(reads) == 21
    reads.clear()
    written = (folder_of_images / FILE).stat().st_mtime_ns
    assert Dataset.from_folder(folder_of_images).digest == first.digest
    assert Dataset.open(folder_of_images).digest == first.digest
    assert not reads
    assert (folder_of_images / FILE).stat().st_mtime_ns == written, "an index that still holds is not written again"
    changed, added, removed = (folder_of_images / "class 1" / name for name in ("3.jpg", "9.jpg", "4.jpg"))
    shutil.copy(folder_of_images / "class 0" / "0.jpg", changed)
    shutil.copy(folder_of_images / "class 2" / "1.jpg", added)
    removed.unlink()
    second = Dataset.from_folder(folder_of_images)
    assert reads == [str(changed), str(added)]
    assert second.digest != first.digest
    (folder_of_images / FILE).unlink()
    assert Dataset.from_folder(folder_of_images).digest == second.digest, "what was known and what is read agree"


def test_data_changed_since_indexing_is_noticed_at_open(folder_of_images: Path, reads: list[str]) -> None:
    Dataset.from_folder(folder_of_images)
    moved = folder_of_images.rename(folder_of_images.with_name("elsewhere"))
    assert (Dataset.open(moved).paths or ("",))[0].startswith(str(moved)), "an index moves with its folder"
    reads.clear()
    same, other, gone = (moved / "class 0" / f"{i}.jpg" for i in range(3))
    os.utime(same)
    data = bytearray(other.read_bytes())
    data[200] ^= 1
    other.write_bytes(data)
    gone.unlink()
    from pydt.data import persistence as saved

    saved.verified.clear()
    with pytest.raises(DataError, match=r"2 of 21 image files are not those.*1\.jpg: has changed; .*2\.jpg") as caught:
        Dataset.open(moved)
    assert str(same) not in str(caught.value), "a file that was only touched is as it was"
    assert reads[:2] == [str(same), str(other)]


def test_a_damaged_index_in_a_folder_is_made_anew(folder_of_images: Path, reads: list[str]) -> None:
    digest = Dataset.from_folder(folder_of_images).digest
    (folder_of_images / FILE).write_bytes(b"rubbish")
    reads.clear()
    assert Dataset.from_folder(folder_of_images).digest == digest
    assert len(reads) == 21
    # An index of something else, or one whose records do not belong to its keys, is not believed either.
    for sections in ({"labels": np.arange(3)}, {**read_index(folder_of_images / FILE), "keys": ["class 0/0.jpg"]}):
        (folder_of_images / FILE).write_bytes(pack_index(sections))
        reads.clear()
        assert Dataset.from_folder(folder_of_images).digest == digest
        assert len(reads) == 21


def test_a_folder_that_may_not_be_written(folder_of_images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, new: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    dataset = Dataset.from_folder(folder_of_images)
    assert len(dataset) == 21
    assert not (folder_of_images / FILE).exists()


def bad_files(root: Path) -> dict[str, str]:
    """Files that are no images, and what is said of each."""
    good = (root / "class 0" / "0.jpg").read_bytes()
    picture = root / "class 0" / "0.png"
    Image.open(root / "class 0" / "0.jpg").save(picture)
    folder = root / "class 1"
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_bytes(b"not an image")
    (folder / "psd.png").write_bytes(b"8BPS" + bytes(20))
    (folder / "cut.jpg").write_bytes(good[: len(good) // 2])
    (folder / "cut.png").write_bytes(picture.read_bytes()[:-20])
    (folder / "gone.jpg").symlink_to("nowhere")
    (folder / "self.jpg").symlink_to("self.jpg")
    (folder / "circle").symlink_to("..")
    os.mkfifo(folder / "fifo.jpg")
    (folder / "device.png").symlink_to("/dev/zero")
    with open(folder / "sparse.jpg", "wb") as file:
        file.truncate(1 << 40)
    with open(os.fsencode(folder) + b"/\xff.jpg", "wb") as file:
        file.write(good)
    return {
        "class 1/empty.jpg": "empty image file",
        "class 1/text.jpg": "is no JPEG",
        "class 1/psd.png": "is no JPEG",
        "class 1/cut.jpg": "truncated",
        "class 1/cut.png": "truncated",
        "class 1/gone.jpg": "cannot be read (No such file",
        "class 1/self.jpg": "cannot be read (Too many levels",
        "class 1/circle": "a link back",
        "class 1/fifo.jpg": "is no regular file",
        "class 1/device.png": "is no regular file",
        "class 1/sparse.jpg": "too large for an image",
        repr("class 1/\udcff.jpg"): "its name is not UTF-8",
    }


def test_f12_bad_files_are_listed_or_left_out(folder_of_images: Path) -> None:
    expected = bad_files(folder_of_images)
    (folder_of_images / "class 1" / "new\nline.jpg").write_bytes(
        (folder_of_images / "class 0" / "1.jpg").read_bytes()
    )  # a name like any other
    with pytest.raises(DataError, match=r"bad files: ") as caught:
        Dataset.from_folder(folder_of_images)
    assert str(caught.value).startswith(f"{len(expected)} bad files: ")
    assert "and 2 more" in str(caught.value)
    assert 'bad="skip" (in a plan file bad = "skip" beside folder or tar, with `pydt pack` --bad skip)' in str(
        caught.value
    )
    assert not (folder_of_images / FILE).exists(), "what was refused is not indexed"
    dataset = Dataset.from_folder(folder_of_images, bad="skip")
    said = dict(dataset.left_out)
    assert set(said) == set(expected)
    for key, reason in expected.items():
        assert reason in said[key], key
    assert "class 1/new\nline.jpg" in (dataset.keys or ())
    assert Dataset.open(folder_of_images).left_out == said
    with pytest.raises(DataError, match="unknown bad 'ignore'"):
        Dataset.from_folder(folder_of_images, bad="ignore")


def test_links_to_folders_are_followed(folder_of_images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    shutil.move(folder_of_images / "class 2", outside / "c")
    (folder_of_images / "class 2").symlink_to(outside / "c")
    (folder_of_images / "class 0" / "more").symlink_to(outside / "c")
    dataset = Dataset.from_folder(folder_of_images)
    assert len(dataset) == 28
    assert (dataset.keys or ())[7] == "class 0/more/0.jpg"


def test_columns_captions_sampling_and_joining_of_files(folder_of_images: Path, tmp_path: Path) -> None:
    site = ["left" if i % 2 else "right" for i in range(21)]
    dataset = Dataset.from_folder(folder_of_images, columns={"site": site}, captions=[f"no. {i}" for i in range(21)])
    part = dataset.sample(12, seed=1)
    assert [(part.captions or ())[i] for i in range(12)] == [f"no. {p}" for p in part.positions]
    assert part.records is not None
    assert dataset.records is not None
    assert np.array_equal(part.records.crc, dataset.records.crc[part.positions])
    both = Dataset.concat([part, dataset], names=["some", "all"])
    assert both.units("source")[1] == ("some", "all")
    assert [both.units("site")[1][c] for c in both.units("site")[0][12:]] == site
    place = tmp_path / "joined"
    opened = both.save(place)
    assert opened.full_digest == both.full_digest
    assert list(opened.paths or ()) == list(both.paths or ())
    assert list(opened.captions or ()) == list(both.captions or ())
    spooled = spool(both, tmp_path / "spooled")
    assert spooled.folder == str(tmp_path / "spooled" / both.full_digest)


def test_a_project_that_moved_with_its_images_is_spooled_again(folder_of_images: Path, tmp_path: Path) -> None:
    first = Dataset.from_folder(shutil.copytree(folder_of_images, tmp_path / "before" / "photos"))
    spool(first, tmp_path / "before" / "data")
    shutil.move(tmp_path / "before", tmp_path / "after")
    moved = Dataset.from_folder(tmp_path / "after" / "photos")
    assert moved.full_digest == first.full_digest
    found = spool(moved, tmp_path / "after" / "data")
    assert list(found.paths or ()) == list(moved.paths or ())
    assert found.full_digest == first.full_digest


def test_files_are_told_apart_by_their_bytes(folder_of_images: Path, tmp_path: Path) -> None:
    train = Dataset.from_folder(folder_of_images)
    other = tmp_path / "other"
    for label in range(3):
        (other / f"class {label}").mkdir(parents=True)
        for i in range(8):
            image = np.full((8, 8, 3), 20 * i + label, np.uint8)
            Image.fromarray(image).save(other / f"class {label}" / f"{i}.png")
    Target(train, Dataset.from_folder(other))
    shutil.copy(folder_of_images / "class 1" / "2.jpg", other / "class 0" / "another name.jpg")
    with pytest.raises(DataError, match=r"1 of 25 test examples are in train too.*another name"):
        Target(train, Dataset.from_folder(other))


# ---- torchvision ---------------------------------------------------------------------------------------------------


def test_torchvisions_image_folder_is_indexed_like_the_folder(folder_of_images: Path, reads: list[str]) -> None:
    from torchvision.datasets import ImageFolder

    units = {"site": list(range(21))}
    dataset = Dataset.from_torchvision(ImageFolder(str(folder_of_images)), columns=units, captions=["x"] * 21)
    assert len(dataset.units("site")[1]) == 21
    assert dataset.captions == ("x",) * 21
    reads.clear()
    assert Dataset.from_folder(folder_of_images).digest == dataset.digest
    assert not reads


def test_a_torchvision_list_with_bad_or_repeated_files(folder_of_images: Path) -> None:
    class Listed:
        root = str(folder_of_images)
        classes = (("a", "first"), "b")
        samples = tuple((str(folder_of_images / "class 0" / f"{i}.jpg"), i % 2) for i in range(4))

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, i: int) -> Any: ...

    listed = Listed()
    assert Dataset.from_torchvision(listed).classes == ("a, first", "b")
    listed.samples = (*Listed.samples, Listed.samples[0])
    with pytest.raises(DataError, match=r"'class 0/0\.jpg' is listed twice"):
        Dataset.from_torchvision(listed)
    listed.samples = (*Listed.samples, (str(folder_of_images / "none.jpg"), 1))
    with pytest.raises(DataError, match=r"1 bad file: .*none\.jpg: cannot be read"):
        Dataset.from_torchvision(listed)


def test_palette_images_become_colours() -> None:
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    clear, opaque = (Image.new("RGBA", (3, 2), (1, 2, 3, alpha)) for alpha in (4, 255))
    images, _, traits = stack([(palette, 0), (clear, 0), (opaque, 0)], "x", "white")
    assert (traits & pixels.CLEAR).tolist() == [0, 1, 0]
    assert images[:, 0, 0].tolist() == [[200, 100, 50], [251, 251, 251], [1, 2, 3]], "transparent ones on white"


# ---- Hugging Face --------------------------------------------------------------------------------------------------


class Feature:
    """A feature of the `datasets` package, as far as it is looked at."""

    def __init__(self, decode: bool = True, names: list[str] | None = None) -> None:
        self.decode = decode
        if names is not None:
            self.names = names


class Faces:
    """A data set of the `datasets` package, as far as it is looked at."""

    def __init__(self, images: list[Any], files: list[dict[str, Any]], sizes: list[Any] | None = None) -> None:
        self.columns = {
            "image": images,
            "label": [i % 2 for i in range(len(images))],
            "hair": [0, 1, -1, None, *[0] * (len(images) - 4)],
            "text": [f"face {i}" for i in range(len(images))],
        }
        self.files = files
        self.features = {
            "image": Feature(),
            "label": Feature(names=["calm", "glad"]),
            "hair": Feature(names=["dark", "fair"]),
            "text": object(),
        }

    def __len__(self) -> int:
        return len(self.columns["image"])

    def __getitem__(self, column: str) -> Iterator[Any]:
        return iter(self.columns[column])

    def cast_column(self, column: str, feature: Feature) -> dict[str, list[Any]]:
        assert not feature.decode
        return {column: self.files}


def test_hugging_face_images_of_one_size_become_an_array() -> None:
    images = [Image.new("RGB", (5, 4), (i, 0, 0)) for i in range(6)]
    faces = Faces(images, [{"bytes": b"x", "path": "a.png"}] * 6)
    dataset = Dataset.from_huggingface(faces, columns=["hair"], caption="text", name="faces")
    assert dataset.images is not None
    assert dataset.images.shape == (6, 4, 5, 3)
    assert dataset.images[:, 0, 0, 0].tolist() == list(range(6))
    assert dataset.classes == ("calm", "glad")
    assert dataset.labels.tolist() == [0, 1, 0, 1, 0, 1]
    assert dataset.units("hair")[0].tolist() == [0, 1, -1, -1, 0, 0]
    assert dataset.units("hair")[1] == ("dark", "fair")
    assert dataset.captions == tuple(f"face {i}" for i in range(6))
    with pytest.raises(DataError, match=r"no column 'legend'.*choose one of: image, label"):
        Dataset.from_huggingface(faces, caption="legend")
    faces.columns["image"][3] = Image.new("RGB", (6, 4))
    with pytest.raises(DataError, match=r"hf\[3\]: image of shape \(4, 6, 3\)"):
        Dataset.from_huggingface(faces)


def test_hugging_face_images_that_are_files_stay_files(folder_of_images: Path) -> None:
    files = [{"bytes": None, "path": str(folder_of_images / "class 1" / f"{i}.jpg")} for i in range(7)]
    dataset = Dataset.from_huggingface(Faces([None] * 7, files), columns=["hair"])
    assert dataset.encoded
    assert list(dataset.keys or ()) == [f"{i}.jpg" for i in range(7)]
    assert len(dataset.units("hair")[1]) == 2


def test_hugging_face_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"`datasets` is not installed.*pip install 'pydt-transfer\[hf\]'"):
        Dataset.from_huggingface("mnist")
    with pytest.raises(DataError, match="a list is no data set of `datasets`"):
        Dataset.from_huggingface([1, 2])


def test_hugging_face_itself(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    images = [Image.new("L", (5, 4), 10 * i) for i in range(6)]
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["calm", "glad"]))
    made = datasets.Dataset.from_dict({"image": images, "label": [0, 1] * 3}, features=features)
    made.save_to_disk(tmp_path / "saved")
    for given in (made, tmp_path / "saved"):
        dataset = Dataset.from_huggingface(given)
        assert dataset.images is not None
        assert dataset.images[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
        assert dataset.classes == ("calm", "glad")
    with pytest.raises(DataError, match="cannot be loaded"):
        Dataset.from_huggingface(str(tmp_path / "nothing here"))


def test_every_image_is_taken_and_what_is_not_is_counted(tmp_path: Path) -> None:
    """Suffixes of images in any case, names that lie, and what tools leave behind."""
    root = tmp_path / "in"
    taken = {
        "cat": ["a.jpg", "b.JPG", "c.jpeg", "d.JPEG", "e.jfif", "f.JPE", "g.gif", "h.GIF", "i.pjpeg", "j.jp2", "k.dib"],
        "dog": ["a.png", "deeper/b.PNG", "no suffix", "photo.jpg_large", "c.jpg?width=200", "a webp.png", "l.avif"],
    }
    forms = {"gif": "GIF", "webp.png": "WEBP", "png": "PNG", "jp2": "JPEG2000", "dib": "BMP", "avif": "AVIF"}
    for label, names in taken.items():
        for number, name in enumerate(names):
            (root / label / name).parent.mkdir(parents=True, exist_ok=True)
            form = next((form for end, form in forms.items() if name.lower().endswith(end)), "JPEG")
            Image.new("RGB", (9, 9), (20 * number, 99, 0)).save(root / label / name, form)
    image = (root / "cat" / "a.jpg").read_bytes()
    left = {
        sources.HIDDEN: ["cat/._a.jpg", "cat/.hidden.png", "dog/Thumbs.db", ".DS_Store", "dog/deeper/desktop.ini"],
        sources.INSIDE: [
            "cat/.ipynb_checkpoints/a-checkpoint.jpg",
            "cat/.thumbnails/normal/a.png",
            "cat/__MACOSX/._b.JPG",
            ".git/config",
            "__MACOSX/cat/a.jpg",
            "dog/@eaDir/SYNOPHOTO.jpg",
        ],
        sources.UNFINISHED: ["cat/a.jpg~", "dog/b.jpg.part", "dog/a.png.bak"],
        sources.OTHER: ["cat/readme.txt", "dog/deeper/labels", "list.csv"],
        sources.BESIDE: ["stray.jpg", "another.gif"],
        ".heic files, which are not read, left out": ["cat/IMG_1.HEIC"],
        ".dng files, which are not read, left out": ["cat/IMG_2.dng"],
    }
    for reason, names in left.items():
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            text = reason == sources.OTHER or name.endswith((".HEIC", ".dng", "config"))
            (root / name).write_bytes(b"II*\0 none of ours" if text else image)
    for _ in range(2):  # read, and from the index
        with pytest.warns(UserWarning, match="2 images lie beside the folders"):
            dataset = Dataset.from_folder(root)
        assert list(dataset.all_keys()) == sorted(f"{label}/{name}" for label, names in taken.items() for name in names)
        assert dataset.classes == ("cat", "dog")
        assert dict(dataset.noted) == {reason: (len(names), min(names)) for reason, names in left.items()}
    assert Dataset.open(root).noted == dataset.noted
    assert Dataset.open(dataset.save(tmp_path / "saved").folder or "").noted == dataset.noted
    both = Dataset.concat([dataset, dataset.sample(3)], ["x", "y"])
    assert both.noted[sources.UNFINISHED] == (6, "x/cat/a.jpg~")
    assert f"{sources.UNFINISHED}: 3 (cat/a.jpg~, ...)" in dataset.notes()
    assert ".dng files, which are not read, left out: 1 (cat/IMG_2.dng)" in dataset.notes()


def test_images_beside_the_classes_are_told_of(folder_of_images: Path) -> None:
    expected = Dataset.from_folder(folder_of_images)
    stray = (folder_of_images / "class 0" / "0.jpg").read_bytes()
    (folder_of_images / "notes.txt").write_bytes(b"")
    for name, what in [("b.jpg", r"an image lies .* left out: b\.jpg$"), ("a.PNG", r"2 images lie .* a\.PNG, \.\.\.$")]:
        (folder_of_images / name).write_bytes(stray)
        with pytest.warns(UserWarning, match=what):
            assert Dataset.from_folder(folder_of_images).digest == expected.digest


def test_captions_go_to_the_files_that_they_name(folder_of_images: Path) -> None:
    keys = list(Dataset.from_folder(folder_of_images).all_keys())
    texts = {key: f"of {key}" for key in reversed(keys)}
    assert Dataset.from_folder(folder_of_images, captions=texts).captions == tuple(f"of {key}" for key in keys)
    for wrong, message in (
        ({**texts, "cat/none.jpg": "?"}, r"captions: 1 of 22 are of files that are not there: 'cat/none\.jpg'"),
        ({key: texts[key] for key in keys[1:]}, rf"1 of 21 images have none: '{keys[0]}'"),
    ):
        with pytest.raises(DataError, match=message):
            Dataset.from_folder(folder_of_images, captions=wrong)


def test_captions_by_file_names_are_never_guessed(tmp_path: Path) -> None:
    for key in ("a/1.png", "b/1.png", "b/2.png", "a/3.png"):
        (tmp_path / key).parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (60 * int(key[2]), 0, 0)).save(tmp_path / key)
    texts = {"3.png": "three", "b/1.png": "one of b", "2.png": "two", "a/1.png": "one of a"}
    read = Dataset.from_folder(tmp_path, captions=texts)
    assert read.captions == ("one of a", "three", "one of b", "two")
    with pytest.raises(DataError, match=r"'1\.png' is the name of 2 files"):
        Dataset.from_folder(tmp_path, captions={**texts, "1.png": "?"})
    with pytest.raises(DataError, match=r"'b/2\.png' has two"):
        Dataset.from_folder(tmp_path, captions={**texts, "b/2.png": "?"})
    (tmp_path / "a" / "1.png").write_bytes(b"")
    left = Dataset.from_folder(tmp_path, bad="skip", captions=texts)
    assert left.captions == ("three", "one of b", "two"), "that of the file that was left out is passed over"
    with pytest.raises(DataError, match=r"'1\.png' is the name of 2 files"):
        Dataset.from_folder(tmp_path, bad="skip", captions={"3.png": "", "2.png": "", "1.png": "?"})
