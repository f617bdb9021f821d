"""What torchvision's data sets say of their labels and files: taken or refused, never guessed.

More than 500 lines: each of the library's kinds of data sets has its own way to say it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from stub_items import Pairs
from torch.utils.data import ConcatDataset, Subset, random_split
from torchvision import datasets as vision
from torchvision.transforms import Resize

from pydt.base import DataError
from pydt.data import Dataset
from pydt.data.formats import torchvision


def names_of(data: Dataset) -> list[str]:
    """The class name of each example."""
    return [data.classes[label] for label in data.labels]


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Folders 1, 2, 10, of 2, 3 and 4 images, each of its own colour."""
    for number in (1, 2, 10):
        (tmp_path / str(number)).mkdir()
        for i in range(2 + (number > 1) + (number > 2)):
            Image.new("RGB", (6, 5), (20 * number, i, 0)).save(tmp_path / str(number) / f"{i}.png")
    return tmp_path


def folders(data: Dataset) -> list[str]:
    return [key.split("/")[0] for key in data.all_keys()]


# ---- class_to_idx, classes -----------------------------------------------------------------------------------------


class ByNumber(vision.ImageFolder):
    """The index of a class is the rank of its number; `classes` is as sorted as torchvision says that it is."""

    def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
        return ["1", "10", "2"], {"1": 0, "2": 1, "10": 2}


def test_class_to_idx_says_which_number_has_which_name(numbered: Path) -> None:
    data = Dataset.from_torchvision(ByNumber(str(numbered)))
    assert names_of(data) == folders(data)
    assert data.classes == ("1", "2", "10")


def test_indices_with_gaps_and_two_folders_of_one_index(numbered: Path) -> None:
    class Gaps(vision.ImageFolder):
        def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
            return ["1", "10", "2"], {"1": 7, "2": 3, "10": 40}

    data = Dataset.from_torchvision(Gaps(str(numbered)))
    assert names_of(data) == folders(data)

    class Merged(vision.ImageFolder):
        def find_classes(self, directory: Any) -> tuple[list[str], dict[str, int]]:
            return ["1", "10", "2"], {"1": 0, "2": 1, "10": 0}

    data = Dataset.from_torchvision(Merged(str(numbered)))
    assert names_of(data) == ["1, 10" if key != "2" else "2" for key in folders(data)]


def test_a_class_of_two_names_has_both() -> None:
    said: Any = {"classes": ["cat", "dog"], "class_to_idx": {"cat": 0, "kitten": 0, "dog": 1}}
    assert Dataset.from_torchvision(Pairs([1, 0], **said)).classes == ("cat, kitten", "dog")


def test_classes_and_class_to_idx_that_disagree_are_refused(numbered: Path) -> None:
    dataset = vision.ImageFolder(str(numbered))
    dataset.classes = ["ant", "bee", "cat"]
    with pytest.raises(DataError, match="classes and class_to_idx disagree on class 0: 'ant' and '1'"):
        Dataset.from_torchvision(dataset)
    dataset.class_to_idx = None  # type: ignore[assignment]
    assert Dataset.from_torchvision(dataset).classes == ("ant", "bee", "cat")


@pytest.mark.parametrize(
    "said",
    [
        {"classes": ["cat", "dog", "owl"]},
        {"classes": ("cat", "dog", "owl")},
        {"classes": np.array(["cat", "dog", "owl"])},
        {"classes": {2: "owl", 0: "cat", 1: "dog"}},
        {"classes": {"owl": 2, "dog": 1, "cat": 0}},
        {"class_to_idx": {"owl": 2, "dog": 1, "cat": 0}},
        {"classes": (name for name in ("cat", "dog", "owl")), "class_to_idx": {"cat": 0, "dog": 1, "owl": 2}},
        {"classes": ["owl", "dog", "cat"], "class_to_idx": {"owl": 2, "dog": 1, "cat": 0}},
        {"classes": {0: "cat", 1: "dog", 2: "owl"}, "class_to_idx": {"owl": 2, "dog": 1, "cat": 0}},
    ],
)
def test_names_in_any_form(said: Any) -> None:
    assert names_of(Dataset.from_torchvision(Pairs([2, 0, 1, 2], **said))) == ["owl", "cat", "dog", "owl"]


@pytest.mark.parametrize(
    ("said", "what"),
    [
        ({"classes": {"cat", "dog", "owl"}}, r"Pairs\.classes: a set has no order"),
        ({"classes": lambda: ["cat"]}, "classes are a method"),
        ({"classes": 3}, r"Pairs\.classes: 3 is no list"),
        ({"classes": ["cat", "dog", "dog "]}, "'dog' and 'dog '"),
        ({"classes": ["cat", "dog"]}, "label 2 at position 0 with 2 classes"),
        ({"class_to_idx": ["cat", "dog", "owl"]}, r"Pairs\.class_to_idx: a list\. give a mapping"),
        ({"classes": {0: "cat", 1: "dog"}, "class_to_idx": {"cat": 1, "dog": 0}}, "disagree on class 0"),
    ],
)
def test_names_that_do_not_say_it_are_refused(said: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        Dataset.from_torchvision(Pairs([2, 0, 1, 2], **said))


def test_a_property_of_names_and_names_that_are_there_twice() -> None:
    class Named(Pairs):
        @property
        def classes(self) -> list[str]:
            return ["a", "b"]

    assert Dataset.from_torchvision(Named([1, 0])).classes == ("a", "b")
    # ImageNet has two classes "crane", a bird and a machine; its class_to_idx has one.
    cranes = Pairs(
        [0, 1, 2], classes=[("crane",), ("emu", "bird"), ("crane",)], class_to_idx={"crane": 2, "emu": 1, "bird": 1}
    )
    assert Dataset.from_torchvision(cranes).classes == ("crane (0)", "emu, bird", "crane (2)")


def test_class_to_idx_may_map_numbers() -> None:
    data = Dataset.from_torchvision(Pairs([1, 0, 2], class_to_idx={40: 1, 7: 0, 9: 2}))
    assert names_of(data) == ["40", "7", "9"]


def test_names_without_images_are_left_out_and_counted() -> None:
    with pytest.warns(UserWarning, match="Pairs: 2 of 4 class names have no image and are left out: 'a', 'c'"):
        data = Dataset.from_torchvision(Pairs([3, 1, 3], classes=list("abcd")))
    assert data.notes() == ["class names without images, left out: 2 (a, ...)"]
    assert data.classes == ("b", "d")
    assert data.labels.tolist() == [1, 0, 1]


def idx(path: Path, array: np.ndarray) -> None:
    """An IDX file, as MNIST has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = bytes([0, 0, 8, array.ndim]) + b"".join(side.to_bytes(4, "big") for side in array.shape)
    path.write_bytes(head + array.tobytes())


@pytest.fixture
def letters(tmp_path: Path) -> Callable[..., Any]:
    """EMNIST's letters: a name N/A at 0, labels 1 to 26."""
    pixels = np.random.default_rng(0).integers(0, 256, (52, 28, 28), np.uint8)
    raw = tmp_path / "EMNIST" / "raw"
    idx(raw / "emnist-letters-train-images-idx3-ubyte", pixels)
    idx(raw / "emnist-letters-train-labels-idx1-ubyte", np.tile(np.arange(1, 27), 2).astype(np.uint8))
    return lambda **how: vision.EMNIST(str(tmp_path), "letters", **how)


def test_emnist_letters(letters: Callable[..., Any]) -> None:
    with pytest.warns(UserWarning, match="1 of 27 class names has no image and is left out: 'N/A'"):
        data = Dataset.from_torchvision(letters())
    assert names_of(data) == list("abcdefghijklmnopqrstuvwxyz") * 2


def test_a_target_transform_is_applied_and_names_follow(letters: Callable[..., Any]) -> None:
    data = Dataset.from_torchvision(letters(target_transform=lambda label: label - 1))
    assert names_of(data) == list("abcdefghijklmnopqrstuvwxyz") * 2
    with pytest.warns(UserWarning, match="N/A"):
        data = Dataset.from_torchvision(letters(transform=Resize((3, 3))))
    assert data.noted["images without the transform that the data set has"] == (52, "0")
    data = Dataset.from_torchvision(letters(target_transform=lambda label: label > 13))
    assert data.classes == ("a, b, c, d, e, f, g, h, i, j, k, l, m", "n, o, p, q, r, s, t, u, v, w, x, y, z")
    data = Dataset.from_torchvision(letters(target_transform=lambda label: f"letter {label % 2}"))
    assert names_of(data)[:3] == ["letter 1", "letter 0", "letter 1"]
    with pytest.raises(DataError, match=r"no label at positions 0, 26 \(2 of 52 images\)"):
        Dataset.from_torchvision(letters(target_transform=lambda label: label if label > 1 else None))
    with pytest.warns(UserWarning, match="1 of 27 class names has no image and is left out: 'N/A'"):
        assert names_of(Dataset.from_torchvision(letters(target_transform=int)))[:2] == ["a", "b"]
    count = iter(range(52))
    with pytest.raises(DataError, match="its target_transform makes 0 and 26 of label 1, so no name is right"):
        Dataset.from_torchvision(letters(target_transform=lambda label: next(count)))
    with pytest.raises(DataError, match=r"tensor.* at position 0"):
        Dataset.from_torchvision(letters(target_transform=lambda label: torch.eye(27)[label]))
    with pytest.raises(DataError, match=r"EMNIST\[0\]: target_transform raised KeyError: 1") as caught:
        Dataset.from_torchvision(letters(target_transform={}.__getitem__))
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_target_transform_need_not_take_the_images_that_a_subset_leaves_out(letters: Callable[..., Any]) -> None:
    dataset = letters(target_transform={1: 0, 3: 1}.__getitem__)
    wanted = [i for i, label in enumerate(dataset.targets.tolist()) if label in (1, 3)]
    data = Dataset.from_torchvision(Subset(dataset, [*wanted, wanted[0] - len(dataset)]))
    assert names_of(data) == [*("ac"[label == 3] for label in dataset.targets[wanted].tolist()), "a"]
    other = next(i for i, label in enumerate(dataset.targets.tolist()) if label not in (1, 3))
    with pytest.raises(DataError, match=rf"\[{other}\]: target_transform raised KeyError"):
        Dataset.from_torchvision(Subset(dataset, [*wanted, other]))


def test_a_target_transform_of_a_folder(numbered: Path) -> None:
    dataset = vision.ImageFolder(str(numbered), target_transform={0: 1, 1: 0, 2: 0}.__getitem__)
    data = Dataset.from_torchvision(dataset)
    assert data.encoded
    assert names_of(data) == ["1" if key == "1" else "10, 2" for key in folders(data)]
    what = "its target_transform may give labels that its class names do not fit"
    with pytest.raises(DataError, match=what):
        Dataset.from_torchvision(Pairs([0, 1], classes=["a", "b"], target_transform=lambda label: 1 - label))
    assert Dataset.from_torchvision(Pairs([5, 4], target_transform=lambda label: label)).classes == ("4", "5")


# ---- lists of a data set that do not agree -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_targets_that_are_not_those_of_samples_are_refused(numbered: Path, kind: Callable[..., Any]) -> None:
    dataset = vision.ImageFolder(str(numbered))
    dataset.targets = kind(dataset.targets)
    data = Dataset.from_torchvision(dataset)
    assert names_of(data) == folders(data)
    changed = [0] * 9
    dataset.targets = kind(changed)
    with pytest.raises(DataError, match=r"its samples and targets disagree \(1 and 0 at 2\).*set dataset\.targets"):
        Dataset.from_torchvision(dataset)
    dataset.targets = kind(changed[:4])
    with pytest.raises(DataError, match="samples and targets disagree"):
        Dataset.from_torchvision(dataset)


def test_samples_that_are_not_imgs_are_refused(numbered: Path) -> None:
    dataset = vision.ImageFolder(str(numbered))
    dataset.samples = dataset.samples[:5]
    dataset.targets = dataset.targets[:5]
    with pytest.raises(DataError, match=r"samples and imgs disagree \(5 and 9 entries\)"):
        Dataset.from_torchvision(dataset)
    dataset.imgs = dataset.samples
    with pytest.warns(UserWarning, match="'2'"):
        assert len(Dataset.from_torchvision(dataset)) == 5


def test_a_class_that_changes_its_items_is_asked_for_them(numbered: Path) -> None:
    class Paths(vision.ImageFolder):
        def __getitem__(self, i: int) -> Any:
            return (*super().__getitem__(i), self.samples[i][0])

    data = Dataset.from_torchvision(Paths(str(numbered)))
    assert data.encoded, "items that say the same as the files: the files"
    assert names_of(data) == folders(data)

    class Swapped(vision.ImageFolder):
        def __getitem__(self, i: int) -> Any:
            image, label = super().__getitem__(i)
            return image, (label + 1) % 3

    data = Dataset.from_torchvision(Swapped(str(numbered)))
    assert not data.encoded
    assert data.labels.tolist() == [1] * 2 + [2] * 4 + [0] * 3

    class Reversed(vision.ImageFolder):
        def __getitem__(self, i: int) -> Any:
            return super().__getitem__(len(self) - 1 - i)

    data = Dataset.from_torchvision(Reversed(str(numbered)))
    assert data.images is not None
    assert names_of(data) == [str(colour // 20) for colour in data.images[:, 0, 0, 0]]

    class Half(vision.ImageFolder):
        def __len__(self) -> int:
            return 4

    with pytest.warns(UserWarning, match="'2'"):
        assert len(Dataset.from_torchvision(Half(str(numbered)))) == 4


@pytest.mark.parametrize("samples", [7, ["a.png", "b.png"], [("a.png",)] * 2, {"a.png": 0}])
def test_samples_that_are_no_list_of_files_are_passed_over(samples: Any) -> None:
    data = Dataset.from_torchvision(Pairs([1, 0], samples=samples, root="."))
    assert data.images is not None
    assert data.labels.tolist() == [1, 0]


def test_arrays_of_a_class_that_changes_its_items(letters: Callable[..., Any]) -> None:
    dataset = letters()

    class Changed(type(dataset)):  # type: ignore[misc]
        def __getitem__(self, i: int) -> Any:
            image, label = super().__getitem__(i)
            return image, label % 2 + 1

    class Short(type(dataset)):  # type: ignore[misc]
        def __len__(self) -> int:
            return 4

    dataset.__class__ = Short
    with pytest.warns(UserWarning, match="23 of 27 class names"):
        assert names_of(Dataset.from_torchvision(dataset)) == ["a", "b", "c", "d"]
    dataset.__class__ = Changed
    with pytest.warns(UserWarning, match="25 of 27 class names"):
        assert names_of(Dataset.from_torchvision(dataset))[:2] == ["b", "a"]


# ---- parts and joins of data sets ----------------------------------------------------------------------------------


def test_a_transform_that_is_not_applied_is_told_of(numbered: Path) -> None:
    told = "images without the transform that the data set has"
    plain = vision.ImageFolder(str(numbered))
    resized = vision.ImageFolder(str(numbered), Resize((3, 3)))
    assert told not in Dataset.from_torchvision(plain).noted
    data = Dataset.from_torchvision(resized)
    assert data.digest == Dataset.from_torchvision(plain).digest
    assert data.noted[told] == (9, "1/0.png")
    both: Any = ConcatDataset([Subset(plain, [0, 5]), Subset(resized, [8])])
    assert Dataset.from_torchvision(both).noted[told] == (3, "1/0.png")
    taken = Dataset.from_torchvision(vision.FakeData(4, (3, 7, 6), 2, Resize((3, 3))))
    assert taken.images is not None
    assert taken.images.shape == (4, 3, 3, 3), "items as they are come with it"
    assert not taken.noted


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor, tuple])
def test_a_subset_keeps_files_and_names(numbered: Path, kind: Callable[..., Any]) -> None:
    data = Dataset.from_torchvision(Subset(ByNumber(str(numbered)), kind([8, 0, 3, -5])))
    assert data.encoded
    assert names_of(data) == folders(data) == ["2", "1", "10", "10"]
    inner = Subset(Subset(ByNumber(str(numbered)), [8, 0, 3, 4]), [3, 1])
    with pytest.warns(UserWarning, match="1 of 3 class names has no image and is left out: '2'"):
        assert names_of(Dataset.from_torchvision(inner)) == ["10", "1"]


def test_a_subset_of_arrays(letters: Callable[..., Any]) -> None:
    whole = letters()
    (part, _) = random_split(whole, [30, 22], torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="class names"):
        data = Dataset.from_torchvision(part)
    assert names_of(data) == [chr(ord("a") + int(whole.targets[i]) - 1) for i in part.indices]
    assert data.images is not None
    assert np.array_equal(data.images[..., 0], whole.data[part.indices])
    with pytest.raises(DataError, match=r"its indices are not numbers.*numpy\.flatnonzero"):
        Dataset.from_torchvision(Subset(whole, np.ones(52, bool)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match="its indices are not numbers of the 52 examples"):
        Dataset.from_torchvision(Subset(whole, [0, 52]))


def test_joined_data_sets(numbered: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    for name in ("1", "10", "2"):
        (other / name).mkdir()
        Image.new("RGB", (6, 5), (int(name), 9, 9)).save(other / name / "z.png")
    both: Any = ConcatDataset([vision.ImageFolder(str(numbered)), vision.ImageFolder(str(other))])
    data = Dataset.from_torchvision(both)
    assert data.encoded
    assert names_of(data) == [key.split("/")[-2] for key in data.all_keys()]
    assert len(data) == 12
    (other / "2").rename(other / "20")
    both = ConcatDataset([vision.ImageFolder(str(numbered)), vision.ImageFolder(str(other))])
    with pytest.raises(DataError, match=r"its parts name their classes differently.*Dataset\.concat"):
        Dataset.from_torchvision(both)
    arrays: Any = ConcatDataset([Pairs([1, 0], classes=["a", "b"]), Pairs([0, 1], classes=["a", "b"])])
    assert names_of(Dataset.from_torchvision(arrays)) == ["b", "a", "a", "b"]
    arrays = ConcatDataset([Pairs([1, 0], classes=["1", "10", "2"]), vision.ImageFolder(str(numbered))])
    with pytest.raises(DataError, match="files in some parts, pixels in others"):
        Dataset.from_torchvision(arrays)


# ---- labels that are none ------------------------------------------------------------------------------------------


def test_labels_that_are_no_class_are_refused() -> None:
    for label, shown in [
        ({"boxes": [1, 2]}, r"\{'boxes': \[1, 2\]\} at position 1"),
        (torch.tensor([0, 1, 1]), r"tensor\(\[0, 1, 1\]\) at position 1"),
        ((0, 3), r"\(0, 3\) at position 1"),
        (0.5, r"0\.5 at position 1"),
    ]:
        with pytest.raises(DataError, match=f"labels: {shown}"):
            Dataset.from_torchvision(Pairs([0, label, 1]))
    with pytest.raises(DataError, match=r"no label at positions 0, 2 \(2 of 3 images\).*Subset"):
        Dataset.from_torchvision(Pairs([None, 1, float("nan")]))
    assert Dataset.from_torchvision(Pairs([np.array([4]), np.array([3])])).classes == ("3", "4")


def pets(tmp_path: Path, **how: Any) -> Any:
    """torchvision's OxfordIIITPet of four images."""
    base = tmp_path / "oxford-iiit-pet"
    (base / "images").mkdir(parents=True)
    (base / "annotations").mkdir()
    lines = []
    for i, (breed, label, kind) in enumerate(
        [("Abyssinian", 1, 1), ("beagle", 2, 2), ("boxer", 3, 2), ("Bengal", 4, 1)]
    ):
        Image.new("RGB", (6, 5), (i, 0, 0)).save(base / "images" / f"{breed}_1.jpg")
        lines.append(f"{breed}_1 {label} {kind} 1")
    (base / "annotations" / "trainval.txt").write_text("\n".join(lines))
    return vision.OxfordIIITPet(str(tmp_path), **how)


def test_minus_one_is_no_label_where_labels_have_names() -> None:
    what = r"no label at positions 1, 3 \(2 of 4 images\) \(None, NaN, empty or -1\).*Subset"
    with pytest.raises(DataError, match=what):
        Dataset.from_torchvision(Pairs([0, -1, 1, None], classes=["a", "b"]))
    assert Dataset.from_torchvision(Pairs([-1, 1])).classes == ("-1", "1")
    assert names_of(Dataset.from_torchvision(Pairs([-1, 1], classes={-1: "down", 1: "up"}))) == ["down", "up"]


def bare(kind: Any, **fields: Any) -> Any:
    """A data set of torchvision's as its constructor leaves it, without the files that it reads."""
    made = kind.__new__(kind)
    made.__dict__.update({"transform": None, "target_transform": None, "transforms": None, "root": None}, **fields)
    return made


@pytest.mark.parametrize("kind", [vision.CIFAR10, vision.CIFAR100, vision.FashionMNIST, vision.KMNIST, vision.USPS])
@pytest.mark.parametrize("listed", [list, np.array, torch.tensor])
def test_arrays_of_torchvision_are_not_decoded(
    kind: Any, listed: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6), np.uint8)
    monkeypatch.setattr(torchvision, "pairs", None)
    fields: dict[str, Any] = {"data": torch.from_numpy(pixels), "targets": listed([1, 2, 0, 1])}
    if kind in (vision.CIFAR10, vision.CIFAR100):
        fields |= {"data": pixels, "classes": ["x", "y", "z"], "class_to_idx": {"x": 0, "y": 1, "z": 2}}
    elif kind is vision.USPS:
        fields |= {"data": pixels, "classes": ["x", "y", "z"]}
    else:
        fields |= {"classes": ["x", "y", "z"]}
    data = Dataset.from_torchvision(bare(kind, **fields))
    assert names_of(data) == ["y", "z", "x", "y"]
    assert data.images is not None
    assert np.array_equal(data.images[..., 0], pixels)
    fields["targets"] = listed([1, 2, 0])
    with pytest.raises(DataError, match=r"its data and targets disagree \(4 and 3 entries\)"):
        Dataset.from_torchvision(Subset(bare(kind, **fields), [3, 1]))


def textures(tmp_path: Path, **how: Any) -> Any:
    """torchvision's DTD of four images, of several sizes."""
    base = tmp_path / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True, exist_ok=True)
    names = ["woven/a.jpg", "dotted/b.jpg", "woven/c.jpg", "lined/d.jpg"]
    for i, name in enumerate(names):
        (base / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6 + i, 5), (20 * i, 0, 0)).save(base / "images" / name)
    (base / "labels" / "train1.txt").write_text("\n".join(names))
    return vision.DTD(str(tmp_path), **how)


def test_what_a_loader_of_its_own_reads_is_read_by_it(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), np.uint8)
    for i, name in enumerate(("cat", "dog")):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "a.npy", arrays[i])
    data = Dataset.from_torchvision(vision.DatasetFolder(str(tmp_path), np.load, (".npy",)))
    assert names_of(data) == ["cat", "dog"]
    assert np.array_equal(data.images if data.images is not None else 0, arrays)


def test_files_of_torchvision_stay_files(tmp_path: Path) -> None:
    data = Dataset.from_torchvision(textures(tmp_path))
    assert data.encoded
    assert names_of(data) == ["woven", "dotted", "woven", "lined"] == [key.split("/")[-2] for key in data.all_keys()]
    data = Dataset.from_torchvision(Subset(textures(tmp_path, target_transform=lambda label: 2 - label), [3, 1, 2]))
    assert names_of(data) == ["lined", "dotted", "woven"] == [key.split("/")[-2] for key in data.all_keys()]

    class Other(vision.DTD):
        def __getitem__(self, i: int) -> Any:
            return super().__getitem__(i)

    changed = textures(tmp_path)
    changed.__class__ = Other
    with pytest.raises(DataError, match=r"Other\[1\]: image of shape \(5, 7, 3\) after \(5, 6, 3\)"):
        Dataset.from_torchvision(changed)


def test_the_items_of_a_subset_alone_are_read() -> None:
    read: list[int] = []

    class Counted(Pairs):
        def __getitem__(self, i: int) -> tuple[Any, Any]:
            read.append(i)
            return super().__getitem__(i)

    whole = Counted(list(range(30)))
    data = Dataset.from_torchvision(Subset(Subset(whole, [9, 20, 3, 4]), [2, 0]))
    assert read == [3, 9]
    assert names_of(data) == ["3", "9"]


def test_names_of_another_kind_of_target(tmp_path: Path) -> None:
    data = Dataset.from_torchvision(pets(tmp_path, target_types="binary-category"))
    assert data.encoded
    assert names_of(data) == ["Cat", "Dog", "Dog", "Cat"]
    data = Dataset.from_torchvision(vision.OxfordIIITPet(str(tmp_path)))
    assert names_of(data) == ["Abyssinian", "Beagle", "Boxer", "Bengal"]
    both = vision.OxfordIIITPet(str(tmp_path), target_types=["category", "binary-category"])
    with pytest.raises(DataError, match=r"\(0, 0\) at position 0"):
        Dataset.from_torchvision(both)
    swapped = vision.OxfordIIITPet(str(tmp_path), transforms=lambda image, label: (image, 3 - label))
    with pytest.raises(DataError, match="its transforms may give labels"):
        Dataset.from_torchvision(swapped)
