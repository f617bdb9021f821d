"""Images that two data sets share are found byte for byte and pixel for pixel, whatever kind of data set holds them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from odd_images import encoded, photograph
from PIL import Image

import pydt.data.identical
import pydt.data.target
from pydt.data import Dataset, Target, shared_images, shared_units
from pydt.data.identical import pixel_sum, same


def pictures(count: int, seed: int, side: int = 24) -> list[Image.Image]:
    random = np.random.default_rng(seed)
    return [photograph(side, side, random) for _ in range(count)]


def folder(root: Path, files: dict[str, bytes]) -> Dataset:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return Dataset.from_folder(root)


def shard(path: Path, files: dict[str, bytes]) -> Dataset:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            for key, content in ((name, data), (name.rsplit(".", 1)[0] + ".cls", name.split("/")[0].encode())):
                entry = tarfile.TarInfo(key)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
    return Dataset.from_tar(path)


def made(kind: str, root: Path, images: list[Image.Image], form: str = "PNG", **how: object) -> Dataset:
    """A data set of these images, in two classes in turn."""
    names = [f"{'ab'[i % 2]}/{i:03d}.{form.lower()}" for i in range(len(images))]
    if kind == "array":
        return Dataset.from_arrays(np.stack([np.asarray(i) for i in images]), [n[0] for n in names])
    files = {name: encoded(image, form, **how) for name, image in zip(names, images, strict=True)}
    root.mkdir(parents=True)
    return folder(root, files) if kind == "folder" else shard(root / "0.tar", files)


def pairs(ours: Dataset, theirs: Dataset, pixels: bool | None = True) -> set[tuple[int, int]]:
    found = same(ours, theirs, pixels)
    return {(i, int(j)) for i, n in enumerate(found.ours.tolist()) if n >= 0 for j in np.flatnonzero(found.theirs == n)}


def truth(
    ours: list[Image.Image], names_ours: Dataset, theirs: list[Image.Image], names: Dataset
) -> set[tuple[int, int]]:
    """A plain loop over all pairs; data sets hold their images by class and name."""

    def order(count: int, data: Dataset) -> list[int]:
        return list(range(count)) if data.images is not None else sorted(range(count), key=lambda i: (i % 2, i))

    def at(images: list[Image.Image], data: Dataset) -> list[np.ndarray]:
        places = (
            order(len(images), data) if "tar" not in str(data.paths[0] if data.paths else "") else range(len(images))
        )
        return [np.asarray(images[i]) for i in places]

    left, right = at(ours, names_ours), at(theirs, names)
    return {(i, j) for i, a in enumerate(left) for j, b in enumerate(right) if np.array_equal(a, b)}


@pytest.mark.parametrize("ours", ["folder", "shard", "array"])
@pytest.mark.parametrize("theirs", ["folder", "shard", "array"])
def test_the_same_images_are_found_across_kinds(ours: str, theirs: str, tmp_path: Path) -> None:
    """PNG files are written with two levels of compression: their bytes differ, their pixels do not."""
    common, mine, other = pictures(4, 0), pictures(6, 1), pictures(7, 2)
    left, right = [*mine[:3], *common, *mine[3:]], [*other, *common[::-1], common[0]]
    one = made(ours, tmp_path / "one", left, compress_level=1)
    two = made(theirs, tmp_path / "two", right, compress_level=9)
    expected = truth(left, one, right, two)
    assert len(expected) == 5
    assert pairs(one, two) == expected
    found = same(one, two)
    assert not found.by_bytes.any()
    assert found.pixels


@pytest.mark.parametrize("kinds", [("folder", "shard"), ("shard", "folder"), ("folder", "folder")])
def test_the_same_bytes_are_found_without_decoding(kinds: tuple[str, str], tmp_path: Path) -> None:
    images = pictures(5, 0)
    one = made(kinds[0], tmp_path / "one", images, "JPEG", quality=80)
    two = made(kinds[1], tmp_path / "two", [*images[1:], *pictures(3, 3)], "JPEG", quality=80)
    found = same(one, two, pixels=False)
    assert found.by_bytes.sum() == (found.ours >= 0).sum() == (found.theirs >= 0).sum() == 4
    for i in np.flatnonzero(found.ours >= 0):
        j = int(np.flatnonzero(found.theirs == found.ours[i])[0])
        assert one.bytes_of([int(i)])[0].tobytes() == two.bytes_of([j])[0].tobytes()
    assert pairs(one, two, pixels=False) == pairs(one, two, pixels=True)


def test_equal_checksums_are_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all CRC32C agree, pixels still decide."""
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 5), np.uint8)
    one, two = (Dataset.from_arrays(part, [0] * len(part)) for part in (images[:4], images[2:]))
    monkeypatch.setattr(
        pydt.data.identical._core, "crc_records", lambda images, positions, threads: np.zeros(len(positions), np.uint32)
    )
    assert pairs(one, two) == {(2, 0), (3, 1)}


def test_pixels_are_those_that_a_network_is_shown(tmp_path: Path) -> None:
    """Grey, as three channels, in a palette; with alpha on the background; of 16 bits, scaled to 8."""
    random = np.random.default_rng(0)
    grey, colour = random.integers(0, 256, (9, 7), np.uint8), random.integers(0, 256, (9, 7, 3), np.uint8)
    alpha = random.integers(0, 2, (9, 7, 1), np.uint8) * 255
    rgb = np.repeat(grey[..., None], 3, 2)
    assert pixel_sum(grey) == pixel_sum(grey[..., None]) == pixel_sum(rgb)
    assert pixel_sum(np.dstack([rgb, alpha])) != pixel_sum(rgb)
    files = {
        "grey": Image.fromarray(grey),
        "rgb": Image.fromarray(rgb),
        "palette": Image.fromarray(grey).convert("P"),
        "clear": Image.fromarray(np.dstack([colour, alpha])),
        "hidden": Image.fromarray(np.dstack([np.where(alpha > 0, colour, 99), alpha]).astype(np.uint8)),
        "deep": Image.fromarray(grey.astype(np.uint16) * 257),
    }
    written = folder(tmp_path, {f"a/{name}.png": encoded(image, "PNG") for name, image in files.items()})
    shown = np.where(alpha > 0, colour, 255).astype(np.uint8)
    raw = Dataset.from_arrays(np.stack([rgb, shown, colour]), [0, 0, 0])
    places = {"clear": 1, "hidden": 1, "deep": 0, "grey": 0, "palette": 0, "rgb": 0}
    assert pairs(written, raw) == {(i, places[Path(key).stem]) for i, key in enumerate(written.all_keys())}
    black = Dataset.from_folder(tmp_path, background="black")
    assert {pair for pair in pairs(black, raw) if pair[1] == 1} == set()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.data())
def test_one_pixel_makes_another_image(height: int, width: int, channels: int, data: st.DataObject) -> None:
    image = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 256, (height, width, channels), np.uint8)
    other = image.copy()
    place = tuple(data.draw(st.integers(0, side - 1)) for side in image.shape)
    other[place] ^= 2
    assert pixel_sum(image) == pixel_sum(image.copy())
    assert pixel_sum(image) != pixel_sum(other)
    if height != width:
        assert pixel_sum(image) != pixel_sum(image.reshape(width, height, channels))


def test_what_cannot_be_decoded_equals_its_own_bytes_only(tmp_path: Path) -> None:
    good, *others = [encoded(image) for image in pictures(3, 0)]
    broken = good[:300] + bytes(len(good) - 302) + good[-2:]
    one = folder(tmp_path / "one", {"a/0.jpg": broken, "a/1.jpg": others[0]})
    two = folder(tmp_path / "two", {"a/0.jpg": broken, "a/1.jpg": good, "b/2.jpg": others[1]})
    assert pairs(one, two) == {(0, 0)}
    (tmp_path / "two" / "b" / "2.jpg").unlink()  # gone since it was indexed
    assert pairs(one, two) == {(0, 0)}


def test_the_start_of_a_run_compares_the_pixels_of_few_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(4, 0)
    one = made("folder", tmp_path / "one", images, compress_level=1)
    two = made("folder", tmp_path / "two", images, compress_level=9)
    assert len(pairs(one, two, None)) == 4
    for name, most in (("MOST_FILES", 7), ("MOST_BYTES", 100)):
        with monkeypatch.context() as patch:
            patch.setattr(pydt.data.identical, name, most)
            assert same(one, two, None).pixels is False
            assert pairs(one, two, None) == set()
            assert len(pairs(one, two, True)) == 4


def test_a_target_tells_which_units_hold_its_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(40, 0)
    target = Target(made("folder", tmp_path / "target", images, "JPEG", quality=90))
    files = {
        f"{'xyz'[i % 3]}/{i:02d}.jpg": encoded(image, "JPEG", quality=90) for i, image in enumerate(pictures(12, 5))
    }
    copies = {f"y/copy {i}.jpg": encoded(images[i], "JPEG", quality=90) for i in range(5)}
    again = {"z/once more.jpg": copies["y/copy 0.jpg"]}
    source = folder(tmp_path / "source", files | copies | again)
    (said,) = target.copied(source, *source.units())
    told = "5 images of the target 'target' are in the source, byte for byte, as 6 source images: in 'y' (5), 'z' (1)"
    assert said.startswith(f"{told} (the first: ")
    assert said.endswith("; models trained on these groups have seen the copies")
    apart = folder(tmp_path / "apart", files)
    assert target.copied(apart, *apart.units()) == []
    monkeypatch.setattr(pydt.data.identical, "MOST_FILES", 3)
    monkeypatch.setattr(pydt.data.target, "shared_by_digest", {})
    (said,) = target.copied(apart, *apart.units())
    assert "could not have been detected" in said
    mixed = shared_images(3, "it", 1)
    assert mixed == "3 images of it are in the source, byte for byte (1) or pixel for pixel (2)"
    assert shared_images(1, "it", 0) == "1 image of it is in the source, pixel for pixel"
    units, names = np.array([4, 4, 3, 2, 1, 0, -1]), list("abcde")
    assert shared_units(units, names) == "as 7 source images: in 'e' (2), 'a' (1), 'b' (1), 2 more groups, no group (1)"
    assert shared_units(units[1:-2], names) == "as 4 source images: in 'b' (1), 'c' (1), 'd' (1), 1 more group"


def blank(shade: int, **how: object) -> bytes:
    return encoded(Image.new("RGB", (24, 24), (shade,) * 3), "PNG", **how)


@pytest.mark.parametrize("kind", ["folder", "array"])
def test_images_of_one_colour_are_the_same_by_their_bytes_only(kind: str, tmp_path: Path) -> None:
    """Source: a copy, three blank images of other bytes and one of the same; the target has two such blank ones."""
    real = pictures(6, 0)
    copy = encoded(real[0], "PNG", compress_level=1)
    ours = {"a/0.png": copy, "a/1.png": blank(255, compress_level=0), "a/2.png": blank(255, compress_level=1)}
    ours |= {"b/3.png": blank(7, compress_level=0), "b/4.png": blank(9)}
    theirs = {f"{'xy'[i % 2]}/{i:02d}.png": encoded(image, "PNG") for i, image in enumerate(real)}
    theirs |= {"x/20.png": blank(255, compress_level=9), "y/21.png": blank(7, compress_level=9), "y/22.png": blank(9)}
    one, two = folder(tmp_path / "one", ours), folder(tmp_path / "two", theirs)
    same_bytes = [4]
    if kind == "array":  # no files, and so no bytes to compare
        raw = np.stack([np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for data in theirs.values()])
        two, same_bytes = Dataset.from_arrays(raw, [key[0] for key in theirs]), []
    found = same(one, two)
    assert np.flatnonzero(found.ours >= 0).tolist() == [0, *same_bytes]
    assert np.flatnonzero(found.by_bytes).tolist() == same_bytes
    assert np.flatnonzero(found.blank).tolist() == [i for i in (1, 2, 3, 4) if i not in same_bytes]
    keys = two.all_keys()
    held = [keys[i] for i in np.flatnonzero(found.theirs_blank)]
    assert len(held) == (2 if kind == "folder" else 3)
    if kind == "folder":
        assert held == ["x/20.png", "y/21.png"]
        assert [keys[i] for i in np.flatnonzero(found.theirs_by_bytes)] == ["y/22.png"]
        said = Target(two).copied(one, *one.units())
        assert said[0].startswith(
            "2 images of the target 'two' are in the source, byte for byte (1) or pixel for pixel (1)"
        )
        told = "5 images of one colour (3 of the source, 2 of the target 'two') are not compared"
        assert [text.startswith(told) for text in said] == [False, True]


def test_raw_images_of_one_colour_are_the_same_as_none() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (6, 8, 8, 3), np.uint8)
    images[2:4] = 255
    one, two = (Dataset.from_arrays(part, [0] * len(part)) for part in (images[:4], images[1:]))
    assert pairs(one, two) == {(1, 0)}
    assert same(one, two).blank.tolist() == [False, False, True, True]
    assert same(one, two).theirs_blank.sum() == 2
