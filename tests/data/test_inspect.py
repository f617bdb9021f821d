"""What `pydt inspect` and `pydt pack` say of a data set, and the picture they draw."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pydt.base import DataError
from pydt.cli import app as cli
from pydt.data import Dataset
from pydt.data import inspect as look
from pydt.data.pixels import decode


def solid(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (30, 40)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes of 1, 2 and 14; one image three times, in two classes; one file that only a decoder finds fault with, one
    that is no image."""
    root = tmp_path / "things"
    for i in range(14):
        solid(root / "many" / f"{i:02d}.png", (10 * i, 200, 0), (30 + i, 40))
    solid(root / "a few" / "x.png", (1, 2, 3))
    solid(root / "a few" / "y.png", (255, 0, 255))
    shutil.copy(root / "many" / "03.png", root / "many" / "03 again.png")
    (root / "one").mkdir()
    shutil.copy(root / "many" / "03.png", root / "one" / "03.png")
    data = bytearray((root / "many" / "05.png").read_bytes())
    data[45:60] = bytes(15)
    (root / "many" / "05.png").write_bytes(data)
    (root / "many" / "text.jpg").write_text("not an image")
    return root


def test_files_of_other_bytes_with_the_same_pixels_are_duplicates(tmp_path: Path) -> None:
    """A PNG compressed otherwise, a BMP and a palette of the same image; a deep image of other, brighter greys."""
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 8, (20, 30), np.uint8))
    deep = random.integers(300, 60000, (20, 30)).astype(np.uint16)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    image.save(tmp_path / "a" / "0.png", compress_level=1)
    image.save(tmp_path / "a" / "1.png", compress_level=9)
    image.convert("P").save(tmp_path / "b" / "2.png")
    image.convert("RGB").save(tmp_path / "b" / "3.bmp")
    Image.fromarray(deep).save(tmp_path / "b" / "4.png")
    Image.fromarray(deep + np.uint16(300)).save(tmp_path / "b" / "5.png")
    found = look.inspect(look.load(tmp_path))
    assert found["duplicates"] == [["a/0.png", "a/1.png", "b/2.png", "b/3.bmp"]]
    assert found["duplicates across classes"] == 1
    assert "exact duplicates, of bytes or decoded pixels: 3 images too many" in "\n".join(look.lines(found))


def test_images_of_one_colour_are_duplicates_by_their_bytes_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    white = Image.new("RGB", (20, 30), "white")
    white.save(tmp_path / "a" / "0.png", compress_level=0)
    white.save(tmp_path / "a" / "1.png", compress_level=9)
    white.save(tmp_path / "b" / "2.png", compress_level=9)
    drawing = np.full((30, 20, 4), 255, np.uint8)
    drawing[..., 3] = np.random.default_rng(0).integers(0, 256, (30, 20))
    Image.fromarray(drawing).save(tmp_path / "b" / "3.png")
    found = look.inspect(look.load(tmp_path))
    assert found["duplicates"] == [["a/1.png", "b/2.png"]]
    assert found["noted"]["images of one colour, compared by bytes only"] == [4, "a/0.png"]
    what = "images of one colour (all the same shade) on white; another background= may show them"
    assert found["noted"][what] == [1, "b/3.png"]
    raw = np.zeros((4, 5, 5, 1), np.uint8)
    raw[2:, 0, 0] = 9
    arrays = look.inspect(Dataset.from_arrays(raw, [0, 0, 0, 0]))
    assert arrays["duplicates"] == [["2", "3"]]
    assert arrays["noted"] == {"images of one colour that equal others, no duplicates": [2, "0"]}


def test_a_folder_of_files(folder: Path) -> None:
    dataset = look.load(folder)
    found = look.inspect(dataset)
    assert found["kind"] == "files"
    assert found["images"] == 18
    assert found["bytes"] == sum(p.stat().st_size for p in folder.rglob("*.png"))
    assert found["classes"] == {"a few": 2, "many": 15, "one": 1}
    assert found["modes"] == {"RGB": 17}
    assert found["height"] == [40, 40.0, 40]
    assert found["width"][::2] == [30, 43]
    assert found["duplicates"] == [["many/03 again.png", "many/03.png", "one/03.png"]]
    assert found["duplicates across classes"] == 1
    assert set(found["broken"]) == {"many/05.png", "many/text.jpg"}
    assert found["broken"]["many/05.png"].startswith("cannot be decoded")
    assert found["digest"] == dataset.digest


def test_orientations_that_are_not_followed_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for orientation in range(1, 5):
        turned = Image.Exif()
        turned[0x0112] = orientation
        Image.new("RGB", (8, 4), (40 * orientation, 0, 0)).save(tmp_path / "a" / f"{orientation}.jpg", exif=turned)
    found = look.inspect(look.load(tmp_path))
    assert found["noted"]["images with an EXIF orientation, shown as stored"] == [3, "a/2.jpg"]


def test_arrays_with_units(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 7, 3), np.uint8)
    images[4] = images[1]
    images[8] = images[1]
    images[6] = images[0]
    site = ["x", "y", None, "y", "y", "x", None, "y", "y"]
    Dataset.from_arrays(images, list("aabbbaaaa"), columns={"site": site}).save(tmp_path / "saved")
    found = look.inspect(look.load(tmp_path / "saved"))
    assert found["kind"] == "array"
    assert found["bytes"] == images.nbytes
    assert (found["height"], found["width"], found["modes"]) == ([5, 5.0, 5], [7, 7.0, 7], {"RGB": 9})
    assert found["units"] == {"site": {"x": 2, "y": 5}}
    assert found["in no unit"] == {"site": 2}
    assert found["duplicates"] == [["0", "6"], ["1", "4", "8"]]
    assert found["duplicates across classes"] == 1
    assert found["broken"] == {}
    np.save(tmp_path / "bare.npy", images)
    bare = look.inspect(look.load(tmp_path / "bare.npy"))
    assert bare["classes"] == {"all": 9}
    assert bare["duplicates"] == found["duplicates"]
    (tmp_path / "x.tar.gz").write_bytes(gzip.compress(b"a tar"))
    with pytest.raises(DataError, match=r"x\.tar\.gz: is compressed by gzip. unpack it"):
        look.load(tmp_path / "x.tar.gz")
    (tmp_path / "x.toml").write_text("seed = 1")
    with pytest.raises(DataError, match=r"x\.toml: is a file that is no data set. give a folder, a tar shard"):
        look.load(tmp_path / "x.toml")
    with pytest.raises(DataError, match="no such folder"):
        look.load(tmp_path / "nothing")


def test_equal_checksums_are_not_taken_for_equal_images(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydt import _core

    monkeypatch.setattr(_core, "crc_records", lambda images, positions, threads: np.zeros(len(positions), np.uint32))
    images = np.arange(10, dtype=np.uint8).reshape(5, 1, 2)
    images[3] = images[1]
    assert look.inspect(Dataset.from_arrays(images, [0] * 5))["duplicates"] == [["1", "3"]]


def test_the_contact_sheet(folder: Path, tmp_path: Path) -> None:
    dataset = look.load(folder)
    look.contact_sheet(dataset, tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    assert sheet.shape == (3 * 68 + 16, 180 + 10 * 68 + 8, 3)
    tiles = sheet[8:, 180:]
    for column, name in ((0, "x"), (1, "y")):
        data = (folder / "a few" / f"{name}.png").read_bytes()
        assert np.array_equal(tiles[:64, 68 * column : 68 * column + 64], decode(data, 64, False))
    assert (tiles[:64, 136:] == 255).all(), "a class of two has no third"
    # Of fifteen, every one and a half: the broken one (place 6) is the fifth shown.
    shown = [dataset.all_keys()[2 + i * 15 // 10] for i in range(10)]
    assert shown[4] == "many/05.png"
    assert tuple(tiles[68 + 8, 4 * 68 + 8]) == (255, 228, 225)
    for column in (0, 1, 2, 3, 5, 9):
        expected = decode((folder / shown[column]).read_bytes(), 64, False)
        assert np.array_equal(tiles[68 : 68 + 64, 68 * column : 68 * column + 64], expected)
    assert (sheet[:, :180] < 100).any(axis=(1, 2)).sum() > 20, "names are written"


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (28, 28), (5, 200), (100, 90)])
def test_sheets_of_arrays(tmp_path: Path, channels: int, height: int, width: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (90, height, width, channels), np.uint8)
    look.contact_sheet(Dataset.from_arrays(images, np.arange(90)), tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape[:2] == (20 * 68 + 32, 4 * 868)
    if (height, width) == (28, 28) and channels == 3:
        enlarged = np.asarray(Image.fromarray(images[0]).resize((64, 64), Image.Resampling.NEAREST))
        assert np.array_equal(sheet[8:72, 180:244], enlarged)


def test_the_commands(folder: Path, tmp_path: Path) -> None:
    run = CliRunner()
    done = run.invoke(cli.app, ["inspect", str(folder), "--sheet", str(tmp_path / "s.png")])
    assert done.exit_code == 0, done.output
    assert "18 image files" in done.stdout
    assert "3 classes, from the smallest to the largest: one (1), a few (2), many (15)" in done.stdout
    assert "many/03 again.png = many/03.png = one/03.png" in done.stdout
    assert "many/text.jpg: is no JPEG" in done.stdout
    assert (tmp_path / "s.png").is_file()
    plain = run.invoke(cli.app, ["inspect", str(folder), "--json"])
    assert json.loads(plain.stdout) == json.loads(json.dumps(look.inspect(look.load(folder))))
    out = tmp_path / "packed"
    refused = run.invoke(cli.app, ["pack", str(folder), str(out), "--size", "16"])
    assert isinstance(refused.exception, DataError)
    done = run.invoke(cli.app, ["pack", str(folder), str(out), "--size", "16", "--bad", "skip", "--workers", "2"])
    assert done.exit_code == 0, done.output
    assert "17 images of 3 classes at 16 x 16" in done.stdout
    assert "left out many/text.jpg: is no JPEG" in done.stderr
    done = run.invoke(cli.app, ["inspect", str(out)])
    assert "17 images in an array" in done.stdout
    assert "broken images: 2" in done.stdout


def test_long_lists_are_cut() -> None:
    images = np.tile(np.uint8([[0, 1]]), (40, 1, 1))
    text = look.lines(look.inspect(Dataset.from_arrays(images, np.arange(40) % 20)))
    assert any("20 classes" in line and "..." in line for line in text)
    assert any(line.endswith(" = ...") for line in text)
