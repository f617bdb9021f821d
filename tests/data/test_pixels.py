"""What becomes of depth, transparency and frames: one answer wherever an image is looked at, that of its samples."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import oracle_pixels as oracle
import pytest
from odd_images import encoded
from odd_pixels import Samples, known
from PIL import Image

from pydt import _core
from pydt.analyses.leakage.similarity import grey, greys
from pydt.base import DataError
from pydt.data import Dataset, pictures, pixels
from pydt.data.identical import same
from pydt.data.inspect import contact_sheet
from pydt.data.packing import pack, pack_tar
from pydt.data.packing.array import decode

GROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "#1E90ff": (30, 144, 255)}
ODD = {name: (data, samples, bits) for name, data, samples, bits in known()}


def off(found: np.ndarray, samples: Samples, bits: int, ground: str = "white") -> float:
    """How far pixels are from those of the samples, at most, in steps of 255."""
    # Of 16 bits of colour or alpha Pillow reads the upper eight: both are a step too low at most.
    slack = bits == 16 and samples.shape[2] in (2, 4)
    return float(np.abs(found.astype(np.float64) - oracle.shown(samples, bits, GROUNDS[ground])).max() - slack)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "odd"
    for number, (name, (data, _, _)) in enumerate(ODD.items()):
        (root / f"class {number % 3}").mkdir(parents=True, exist_ok=True)
        (root / f"class {number % 3}" / name).write_bytes(data)
    return root


@pytest.mark.parametrize("name", ODD)
def test_pixels_are_those_of_the_samples(name: str) -> None:
    data, samples, bits = ODD[name]
    for ground in GROUNDS:
        assert off(np.asarray(pixels.rgb(data, ground)), samples, bits, ground) <= 1, ground
        assert np.array_equal(decode(data, 40, False, ground), np.asarray(pixels.rgb(data, ground)))
    clear = samples.shape[2] in (2, 4) and (samples[..., -1] < (1 << bits) - 1).any()
    deep = (samples.shape[2] == 1 and bits > 8 and not clear) or (name.startswith("png 1 of 16"))
    found = pixels.traits(data)
    assert bool(found & pixels.CLEAR) == clear
    assert bool(found & pixels.DEEP) == deep
    assert bool(found & pixels.FRAMES) == name.startswith("two ")
    if found:
        assert _core.image_sides([np.frombuffer(data, np.uint8)]).tolist() == [[0, 0]], "DALI would not see it"


def test_every_way_shows_the_same_pixels(folder: Path, tmp_path: Path) -> None:
    for ground in ("white", "#1E90ff"):
        dataset = Dataset.from_folder(folder, background=ground)
        shards = pack_tar(folder, tmp_path / "shards")
        shards = Dataset.from_tar(tmp_path / "shards", background=ground)
        assert len(dataset) == len(ODD)
        packed = pack(folder, tmp_path / f"packed {ground}", 40, background=ground)
        seen = {
            "pictures": pictures(dataset, np.arange(len(dataset)), 40),
            "of shards": pictures(shards, np.arange(len(shards)), 40),
            "packed": packed.images,
            "of shards, packed": pack(tmp_path / "shards", tmp_path / f"twice {ground}", 40, background=ground).images,
        }
        for way, images in seen.items():
            for key, image in zip(dataset.all_keys(), images, strict=True):
                assert off(image, *ODD[key.partition("/")[2]][1:], ground) <= 1, (way, key)
        contact_sheet(dataset, tmp_path / "sheet.png")
        sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
        assert np.array_equal(sheet[8 : 8 + 64, 180 : 180 + 64], pictures(dataset, [0], 64)[0])


@pytest.mark.parametrize("ground", ["white", "#1E90ff"])
def test_networks_see_these_pixels(folder: Path, ground: str) -> None:
    pytest.importorskip("nvidia.dali")
    from torchvision.transforms import v2

    from pydt.data.loading import Augment, Loader

    dataset = Dataset.from_folder(folder, background=ground)
    how = v2.Compose([v2.Resize(37), v2.CenterCrop(32)])
    plain = Augment(size=32, mean=(0.0,), std=(1.0,))
    count = 0
    for batch in Loader(dataset, batch_size=9, train=False, augment=plain):
        for i, image in zip(batch.index.tolist(), batch.images.numpy(), strict=True):
            key = dataset.all_keys()[i]
            whole = np.rint(oracle.shown(*ODD[key.partition("/")[2]][1:], GROUNDS[ground])).astype(np.uint8)
            expected = np.asarray(how(Image.fromarray(whole)), np.float64)
            assert np.abs(image.transpose(1, 2, 0).astype(np.float64) * 255 - expected).max() <= 2, key
            count += 1
    assert count == len(ODD)
    for batch in Loader(dataset, batch_size=9, augment=Augment(size=8, mean=(0.0,), std=(1.0,))):
        assert batch.images.shape[1:] == (3, 8, 8)


class Items:
    """Images of Pillow as they come from a file, every other one loaded."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        image = Image.open(io.BytesIO(ODD[self.names[i]][0]))
        if i % 2:
            image.load()
        return image, i % 2


def test_data_sets_of_other_libraries_show_the_same_pixels(folder: Path) -> None:
    from torchvision.datasets import ImageFolder

    # What Pillow spreads of these it no longer tells once they are loaded.
    lost = {f"png {channels} of {bits}, a colour is clear.png" for channels, bits in ((1, 2), (1, 4), (3, 16))}
    coloured = [name for name, (_, samples, _) in ODD.items() if samples.shape[2] in (2, 4) and name not in lost]
    for ground in ("white", "#1E90ff"):
        dataset = Dataset.from_torchvision(Items(coloured), background=ground)
        assert dataset.images is not None
        for name, image in zip(coloured, dataset.images, strict=True):
            assert off(image, *ODD[name][1:], ground) <= 1, name
        clear = [i for i, name in enumerate(coloured) if pixels.traits(ODD[name][0]) & pixels.CLEAR]
        first = dataset.notes()[0]
        assert first == f"images with transparent pixels, shown on {ground.lower()}: {len(clear)} ({clear[0]}, ...)"
    grey = [name for name, (_, samples, _) in ODD.items() if samples.shape[2] == 1 and name != "png 1 of 1.png"]
    dataset = Dataset.from_torchvision(Items(grey))
    assert dataset.images is not None
    assert dataset.images.shape[1:] == (40, 40, 1)
    for name, image in zip(grey, dataset.images, strict=True):
        assert off(image, *ODD[name][1:]) <= 1, name
    deep = [name for name in grey if pixels.traits(ODD[name][0])]
    said = f"images of more than 8 bits a pixel, scaled to 8: {len(deep)} ({grey.index(deep[0])}, ...)"
    assert dataset.notes() == [said]
    files = Dataset.from_torchvision(ImageFolder(folder), background="black")
    assert files.background == "#000000"
    shown = dict(zip(files.all_keys(), pictures(files, np.arange(len(files)), 40), strict=True))
    key = next(key for key in shown if key.endswith("rgba.webp"))
    assert off(shown[key], *ODD["rgba.webp"][1:], "black") <= 1
    with pytest.raises(DataError, match=r"\[0\]: its pixels are floats, whose range is not known. scale them"):
        Dataset.from_torchvision([(Image.new("F", (4, 4)), 0)])


def test_hugging_faces_images_show_the_same_pixels() -> None:
    datasets = pytest.importorskip("datasets")
    names = [name for name, (_, samples, _) in ODD.items() if samples.shape[2] == 4 and "clear" not in name]
    rows = {"image": [{"bytes": ODD[name][0], "path": None} for name in names], "label": list(range(len(names)))}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("int64"))
    dataset = Dataset.from_huggingface(datasets.Dataset.from_dict(rows, features=features), background="black")
    assert dataset.images is not None
    for name, image in zip(names, dataset.images, strict=True):
        assert off(image, *ODD[name][1:], "black") <= 1, name


def test_numbers_without_a_range_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a" / "good.png")
    floats, wide = np.linspace(0, 1, 16, dtype=np.float32), np.arange(16, dtype=np.int32)
    for name, values in {"float.tif": floats, "wide.tif": wide}.items():
        Image.fromarray(values.reshape(4, 4)).save(tmp_path / "a" / name)
    with pytest.raises(DataError, match=r"float\.tif: its pixels are floats, whose range is not known: scale"):
        Dataset.from_folder(tmp_path)
    for _ in range(2):  # read, and with what was read
        left = Dataset.from_folder(tmp_path, bad="skip").left_out
        assert list(left) == ["a/float.tif", "a/wide.tif"]
        assert "integers of 32 bits" in left["a/wide.tif"]


def test_shades_of_16_bits_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "in" / "a").mkdir(parents=True)
    for i in range(8):
        deep = np.full((6, 6), 4096 * i + 300, np.uint16)
        Image.fromarray(deep).save(tmp_path / "in" / "a" / f"{i}.png")
    packed = pack(tmp_path / "in", tmp_path / "out", 6)
    assert packed.images is not None
    assert packed.images[:, 0, 0, 0].tolist() == [round((4096 * i + 300) / 257) for i in range(8)]


def test_twelve_bits_in_a_file_of_sixteen_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name, most in {"12 bits": 4095, "13 bits": 8191, "16 bits": 65535, "black": 0}.items():
        values = np.linspace(0, most, 36).round().astype(np.uint16).reshape(6, 6)
        Image.fromarray(values).save(tmp_path / "a" / f"{name}.png")
    dim = "images of more than 8 bits that use less than a sixteenth of their range, and so are nearly of one shade"
    assert Dataset.from_folder(tmp_path).odd()[dim] == (1, "a/12 bits.png")


def test_digests_name_what_is_seen(tmp_path: Path) -> None:
    """Only where something shows that the bytes do not say."""
    for name, image in {"clear": (255, 0, 0, 9), "opaque": (255, 0, 0, 255)}.items():
        (tmp_path / name / "a").mkdir(parents=True)
        Image.new("RGBA", (5, 5), image).save(tmp_path / name / "a" / "0.png")
        Image.new("RGB", (5, 5)).save(tmp_path / name / "a" / "1.jpg")
    digests = {
        (name, ground): Dataset.from_folder(tmp_path / name, background=ground).digest
        for name in ("clear", "opaque")
        for ground in ("white", "#ffffff", "black")
    }
    assert digests["opaque", "white"] == digests["opaque", "black"]
    assert digests["clear", "white"] == digests["clear", "#ffffff"] != digests["clear", "black"]
    black = Dataset.from_folder(tmp_path / "clear", background="black")
    assert black.sample(1).shown() == {} or black.sample(1).background == "#000000"
    again = Dataset.open(tmp_path / "clear")
    assert (again.digest, again.background) == (black.digest, "#000000")
    saved = black.save(tmp_path / "saved")
    assert (saved.digest, saved.full_digest, saved.background) == (black.digest, black.full_digest, "#000000")
    assert np.array_equal(pictures(saved, [0], 5)[0][0, 0], [9, 0, 0])
    white = Dataset.from_folder(tmp_path / "clear")
    with pytest.raises(DataError, match="transparent images are shown on #000000 and on #ffffff"):
        Dataset.concat([black, white], ["x", "y"])
    both = Dataset.concat([black, Dataset.from_folder(tmp_path / "opaque")], ["x", "y"])
    assert both.background == "#000000"
    with pytest.raises(DataError, match=r'background=\'red\'\. choose "white", "black", "grey" or a colour'):
        Dataset.from_folder(tmp_path / "clear", background="red")


def test_orientation_is_kept_beside_alpha_and_depth() -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[0, :, 0], rgba[..., 3] = 255, 128
    deep = (np.arange(24, dtype=np.uint16) * 2000).reshape(4, 6)
    for image, samples, bits in ((Image.fromarray(rgba), rgba, 8), (Image.fromarray(deep), deep[..., None], 16)):
        data = encoded(image, "PNG", exif=turned)
        found = np.asarray(pixels.rgb(data, "white", True))
        expected = oracle.shown(samples, bits, GROUNDS["white"]).transpose(1, 0, 2)[:, ::-1]
        assert found.shape == (6, 4, 3)
        assert np.abs(found - expected).max() <= 1


def test_images_are_looked_at_without_being_changed() -> None:
    image = Image.open(io.BytesIO(ODD["rgba.webp"][0]))
    image.load()
    before = image.tobytes(), image.mode
    pixels.flat(image, "black")
    assert (image.tobytes(), image.mode) == before


def test_a_copy_on_the_background_is_a_copy(tmp_path: Path) -> None:
    """A transparent file among the source's, and what it looks like, without alpha, among the target's."""
    random = np.random.default_rng(0)
    for number in range(4):
        rgba = random.integers(0, 256, (12, 12, 4), np.uint8)
        for ground, folder in (("white", "on white"), ("black", "on black"), ("", "clear")):
            place = tmp_path / folder / f"class {number % 2}"
            place.mkdir(parents=True, exist_ok=True)
            pixels_of = pixels.over(rgba[..., :3], rgba[..., 3], ground) if ground else rgba
            Image.fromarray(pixels_of).save(place / f"{number}.png")
    for ground in ("white", "black"):
        source = Dataset.from_folder(tmp_path / "clear", background=ground)
        found = {other: same(source, Dataset.from_folder(tmp_path / f"on {other}")) for other in ("white", "black")}
        shared = {other: sum(number >= 0 for number in one.ours) for other, one in found.items()}
        assert shared == {"white": 4 * (ground == "white"), "black": 4 * (ground == "black")}
        near = greys(source), greys(Dataset.from_folder(tmp_path / f"on {ground}"))
        assert np.allclose(*near)


def test_raw_images_with_alpha_are_compared_as_they_look() -> None:
    random = np.random.default_rng(0)
    for channels in (2, 4):
        images = random.integers(0, 256, (3, 8, 8, channels), np.uint8)
        share = images[..., -1:] / 255
        colours = images[..., :-1].repeat(3 if channels == 2 else 1, axis=3)
        expected = (share * colours + 255 * (1 - share)) @ [0.299, 0.587, 0.114]
        assert np.allclose(grey(images), expected, atol=1e-3)


@pytest.mark.parametrize("shade", [255, 0, 128, 40])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "16 bits"])
def test_drawings_that_vanish_on_a_background_are_told(shade: int, mode: str, tmp_path: Path) -> None:
    """A drawing of one shade on clear ground; against what is seen on each background."""
    alpha = np.zeros((12, 10), np.uint8)
    alpha[3:8, 2:7] = 255
    grey = np.where(alpha > 0, shade, 77).astype(np.uint8)
    how: dict[str, object] = {}
    if mode == "RGBA":
        alpha[3, 2:7] = 100
        image = Image.fromarray(np.dstack([grey, grey, grey, alpha]))
    elif mode == "LA":
        image = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])
    elif mode == "P":
        image = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
        image.putpalette([77, 77, 77, shade, shade, shade])
        how["transparency"] = 0
    else:
        image, how["transparency"] = Image.fromarray(np.where(alpha > 0, shade * 257, 777).astype(np.uint16)), 777
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "0.png", **how)
    data = (tmp_path / "a" / "0.png").read_bytes()
    for ground in ("white", "black", "grey"):
        seen = np.asarray(pixels.rgb(data, ground))
        told = Dataset.from_folder(tmp_path, background=ground).odd()
        blank = f"images of one colour (all the same shade) on {ground}; another background= may show them"
        assert (blank in told) == (len(np.unique(seen.reshape(-1, 3), axis=0)) == 1)
        assert (blank in told) == (shade == {"white": 255, "black": 0, "grey": 128}[ground])
    drawn = np.dstack([grey, alpha])[None]
    told = dict(Dataset.from_arrays(drawn, [0], background="white").odd())
    assert any(what.startswith("images of one colour") for what in told) == (shade == 255)
