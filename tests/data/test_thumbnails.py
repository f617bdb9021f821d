"""Thumbnails of every kind of source: what networks see, small, the first of each group, and where each lies."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pydt.data import Dataset, thumbnails
from pydt.data.thumbnails import THUMBNAIL, pictures

RED, GREEN, BLUE = (200, 30, 40), (20, 180, 60), (10, 40, 220)


def smooth(height: int, width: int) -> np.ndarray:
    """Slow waves, uint8 (height, width, 3): what survives every way to make a picture smaller."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    return np.stack([127 + 90 * np.sin(4 * x), 127 + 90 * np.cos(3 * y), 127 + 60 * np.sin(3 * (x + y))], 2).astype(
        "u1"
    )


def small(image: np.ndarray, side: int = THUMBNAIL) -> np.ndarray:
    """The oracle: means of the pixels below each of `side` x `side` squares of the image's middle, float64."""
    length = min(image.shape[:2])
    top, left = ((n - length) // 2 for n in image.shape[:2])
    middle = image[top : top + length, left : left + length].astype(float)
    edges = np.linspace(0, length, side + 1).astype(int).tolist()
    parts = [slice(a, max(b, a + 1)) for a, b in pairwise(edges)]
    return np.stack([np.stack([middle[down, across].mean((0, 1)) for across in parts]) for down in parts])


def folder(root: Path) -> Path:
    """Images of every kind, one a class, each but "broken" with a second, plain one."""
    emoji = np.zeros((72, 72, 4), np.uint8)
    emoji[20:50, 20:50] = (*RED, 255)
    emoji[50:60, 20:50] = (*BLUE, 128)
    palette = Image.fromarray(smooth(80, 80)).quantize(16)
    ramp = np.linspace(0, 65535, 80 * 80).reshape(80, 80).astype(np.uint16)
    turned = Image.Exif()
    turned[0x0112] = 6
    for name, image, form, more in [
        ("clear", Image.fromarray(emoji), "png", {}),
        ("grey", Image.fromarray(smooth(90, 70)[..., 0]), "png", {}),
        ("cmyk", Image.fromarray(smooth(80, 80)).convert("CMYK"), "jpg", {"quality": 95}),
        ("deep", Image.fromarray(ramp), "png", {}),
        ("palette", palette, "png", {"transparency": 0}),
        ("photo", Image.fromarray(smooth(600, 900)), "jpg", {"quality": 95, "exif": turned}),
        ("tiny", Image.fromarray(smooth(9, 9)), "png", {}),
    ]:
        (root / name).mkdir(parents=True)
        image.save(root / name / f"a.{form}", **more)
        Image.new("RGB", (70, 70), GREEN).save(root / name / "b.png")
    (root / "broken").mkdir()
    for i, name in enumerate(("a.png", "b.png", "c.png")):
        stream = io.BytesIO()
        Image.new("RGB", (70, 70), BLUE if i else RED).save(stream, "PNG")
        data = bytearray(stream.getvalue())
        data[45:60] = bytes(15) if i < 2 else data[45:60]  # begins and ends as an image should
        (root / "broken" / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder(tmp_path_factory.mktemp("thumbnails") / "images")


def test_a_folder_is_pictured_as_networks_see_it(images: Path) -> None:
    data = Dataset.from_folder(images, background="#0000ff")
    found, where = data.pictured("class", 2)
    assert set(found) == set(data.classes)
    assert all(one.shape[1:] == (THUMBNAIL, THUMBNAIL, 3) and one.dtype == np.uint8 for one in found.values())
    clear = found["clear"][0].astype(int)
    assert clear[2, 2].tolist() == [0, 0, 255], "the background of the data set"
    assert clear[30, 30].tolist() == list(RED)
    assert np.abs(clear[49, 30] - [(255 * 0 + 128 * 10) / 255, 128 * 40 / 255, (127 * 255 + 128 * 220) / 255]).max() < 2
    for name, expected in {"grey": np.repeat(smooth(90, 70)[..., :1], 3, 2), "cmyk": smooth(80, 80)}.items():
        assert np.abs(found[name][0] - small(expected)).mean() < 8, name
    assert 0 <= found["deep"][0].min() < 8
    assert 247 < found["deep"][0].max() <= 255
    assert np.abs(found["deep"][0].astype(float).mean() - 127.5) < 2, "not cut at 255"
    assert np.abs(found["photo"][0] - small(smooth(600, 900))).mean() < 4, "large, decoded small, and not turned"
    assert where["clear"] == ("clear/a.png", "clear/b.png")
    assert [tuple(found[name][1][5, 5]) for name in found if name != "broken"] == [GREEN] * 7


def test_what_cannot_be_decoded_is_passed_over(images: Path) -> None:
    data = Dataset.from_folder(images)
    found, where = data.pictured("class", 2)
    assert where["broken"] == ("broken/c.png",)
    assert found["broken"][:, 5, 5].tolist() == [list(BLUE)]
    gone = images / "tiny" / "a.png"
    kept = gone.read_bytes()
    gone.unlink()
    try:
        assert data.pictured("class", 1)[1]["tiny"] == ("tiny/b.png",)
    finally:
        gone.write_bytes(kept)


def shard(images: Path, path: Path) -> Path:
    """All images as members of one shard, with their class."""
    with tarfile.open(path, "w") as file:
        for image in sorted(images.rglob("*.*")):
            if image.suffix in (".png", ".jpg"):
                stem = f"{image.parent.name}-{image.stem}"
                file.add(image, f"{stem}{image.suffix}")
                text = image.parent.name.encode()
                told = tarfile.TarInfo(f"{stem}.cls")
                told.size = len(text)
                file.addfile(told, io.BytesIO(text))
    return path


def test_shards_saved_and_joined_data_sets_show_the_same(images: Path, tmp_path: Path) -> None:
    loose = Dataset.from_folder(images)
    expected = loose.thumbnails("class", 2)
    shards = Dataset.from_tar(shard(images, tmp_path / "all.tar"))
    opened = Dataset.open(shards.save(tmp_path / "saved").folder or "")
    for one in (shards, opened):
        found, where = one.pictured("class", 2)
        assert {name: value.tolist() for name, value in found.items()} == {
            name: value.tolist() for name, value in expected.items()
        }
        assert where["clear"] == ("clear-a.png", "clear-b.png")
    joined = Dataset.concat([loose, shards], ["folder", "shard"])
    found, where = joined.pictured("source", 1)
    assert where == {"folder": ("folder/broken/c.png",), "shard": ("shard/broken-c.png",)}
    assert found["folder"].tolist() == found["shard"].tolist()


def test_arrays_stay_as_they_are_where_they_are_small() -> None:
    tiny = np.arange(4 * 8 * 6, dtype=np.uint8).reshape(4, 8, 6)
    data = Dataset.from_arrays(tiny, np.array([1, 0, 1, 1]), ["a", "b"])
    found, where = data.pictured("class", 2)
    assert found["b"].tolist() == tiny[[0, 2]][..., None].tolist()
    assert where == {"a": ("image 1",), "b": ("image 0", "image 2")}
    large = np.stack([smooth(128, 192), smooth(128, 192)[::-1]])
    found, _ = Dataset.from_arrays(large, np.array([0, 1]), ["a", "b"]).pictured("class", 1)
    assert found["a"].shape == (1, THUMBNAIL, THUMBNAIL, 3)
    assert np.abs(found["a"][0] - small(large[0])).mean() < 4
    grey, _ = Dataset.from_arrays(large[..., 0], np.array([0, 1]), ["a", "b"]).pictured("class", 1)
    assert grey["a"].shape == (1, THUMBNAIL, THUMBNAIL, 1)


@pytest.mark.parametrize("channels", [2, 4])
def test_arrays_with_a_channel_that_may_be_alpha_become_colours(channels: int) -> None:
    images = np.zeros((2, 5, 5, channels), np.uint8)
    images[0, ..., -1] = 255
    found, _ = Dataset.from_arrays(images, np.array([0, 1]), ["a", "b"]).pictured("class", 1)
    assert found["a"].shape == found["b"].shape == (1, 5, 5, 3)
    assert (found["a"].max(), found["b"].min()) == (0, 255)


def test_time_and_room_are_bounded(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Dataset.from_folder(images)
    assert data.records is not None
    sizes = dict(zip(data.all_keys(), data.records.length.tolist(), strict=True))
    first = [next(key for key in sizes if key.startswith(f"{name}/")) for name in data.classes]
    monkeypatch.setattr(thumbnails, "_MOST_READ", sum(sizes.values()) - 1)
    where = data.pictured("class", 2)[1]
    assert {name: len(own) for name, own in where.items() if name != "broken"} == dict.fromkeys(
        set(where) - {"broken"}, 1
    )
    monkeypatch.setattr(thumbnails, "_MOST_READ", sizes[first[0]] + sizes[first[1]] + sizes[first[2]])
    assert list(data.pictured("class", 2)[1]) == list(data.classes[1:3]), "of the first three, one is broken"
    monkeypatch.undo()
    monkeypatch.setattr(thumbnails, "_MOST_KEPT", 2 * len(data.classes) * 3 * THUMBNAIL**2 - 1)
    assert {len(own) for own in data.pictured("class", 2)[1].values()} == {1}


def test_pictures_for_the_eye_are_those_for_comparisons_but_for_rounding(images: Path) -> None:
    data = Dataset.from_folder(images)
    i = list(data.all_keys()).index("photo/a.jpg")
    (quick,), (exact,) = pictures(data, [i]), pictures(data, [i], exact=True)
    assert np.abs(quick.astype(int) - exact).max() < 12
    assert quick.tolist() != exact.tolist(), "else it was not quick"
